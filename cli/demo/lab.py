"""A whole array on one machine: a shelf process and one engine per node, around a folder.

The lab knows processes and files; what the array is comes from array.yaml in the folder, and making it so is
the reconciler's work.  It ends only processes it started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from cli.ha.agent_config import agent_config, write_config, write_secret
from cli.ha.lab import Process, started_at, write
from controlplane.domain.desired import Array
from controlplane.domain.errors import Refused, Unreachable
from controlplane.reconcile import shelf
from controlplane.spec.load import load
from dataplane.launch import SPDK_MEMORY_MIB, EngineKind, EngineProcess, free_ports, free_udp_ports
from dataplane.rpc.session import Session
from ha.adapters.lease_page import place_of
from ha.control import Control
from ha.model import NODES, NodeName

_POLL_S = 0.05

ARRAY_YAML = """\
# The demo array: one shelf of {drives} drives that are files, two nodes that both reach them.
apiVersion: ws7000/v1
kind: Array
name: demo

nodes:
  - name: a
    rpc: {folder}/a.sock
    heartbeat: {beat_a}
    ports: [{{transport: tcp, address: 127.0.0.1, service: {port_a}}}]
  - name: b
    rpc: {folder}/b.sock
    heartbeat: {beat_b}
    ports: [{{transport: tcp, address: 127.0.0.1, service: {port_b}}}]

shelf: {{address: 127.0.0.1, service: {port_shelf}}}
drives:
  - file: {folder}/drives/d{{00..{last:02}}}.img
    size: {drive_size}

pools:
  - name: fast
    drives: ["d{{00..{half_last:02}}}"]
  - name: safe
    drives: ["d{{{half:02}..{last:02}}}"]
    protection: mirror

hosts:
  - name: gpu1
    nqn: nqn.2014-08.org.nvmexpress:uuid:7f1c9a52-11d3-4c53-9c0e-5a1f0c2b0001
  - name: gpu2
    nqn: nqn.2014-08.org.nvmexpress:uuid:7f1c9a52-11d3-4c53-9c0e-5a1f0c2b0002

volumes:
  - {{name: weights, size: 96MiB, pool: fast, home: a, hosts: [gpu1]}}
  - {{name: checkpoint, size: 32MiB, pool: safe, home: b, hosts: [gpu1]}}
  - {{name: scratch, size: 1MiB, pool: fast, home: a, hosts: [gpu1, gpu2]}}
# Patient times: a crash is noticed at once all the same, and a busy machine is not taken for a dead node.
ha: {{policy: slow, quorum_drives: 5, secret_file: {folder}/ha.secret}}
"""


class Lab(AbstractContextManager["Lab"]):
    """Start it with ``with``; ``keep`` leaves processes and folder behind."""

    def __init__(self, kind: EngineKind, *, folder: Path | None = None, drives: int = 24, keep: bool = False) -> None:
        self.kind = kind
        self.keep = keep
        self._own_folder = folder is None
        self.folder = (folder or Path(tempfile.mkdtemp(prefix="ws7000-demo-"))).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "array.yaml").exists():
            raise Refused(
                "CLI-022",
                f"{self.folder} holds an array already",
                why="the demo begins with new drives, and would write over what is there",
                remedy="name another folder, or remove this one",
            )
        self.engines: dict[str, EngineProcess] = {}
        self.agents: dict[NodeName, subprocess.Popen[bytes]] = {}
        self.spec = self.folder / "array.yaml"
        self.state = self.folder / "state"
        port_a, port_b, port_shelf = free_ports(3)
        beat_a, beat_b = free_udp_ports(2)
        self.spec.write_text(
            ARRAY_YAML.format(
                folder=self.folder,
                port_a=port_a,
                port_b=port_b,
                port_shelf=port_shelf,
                beat_a=beat_a,
                beat_b=beat_b,
                drives=drives,
                half=drives // 2,
                half_last=drives // 2 - 1,
                last=drives - 1,
                drive_size="64MiB",
            ),
            encoding="utf-8",
        )
        self.array: Array = load(self.spec).array

    def __enter__(self) -> Self:
        """Create the files, start the three engines at once, and let the shelf export."""
        try:
            shelf.prepare_files(self.array)
            for number, name in enumerate(("shelf", *(node.name for node in self.array.nodes))):
                self.start_engine(name, core=number)
            for engine in self.engines.values():
                engine.ready()
            with Session(str(self.engines["shelf"].socket), node="shelf") as session:
                shelf.serve(self.array, session)
            write_secret(self.folder / "ha.secret")
            for node in NODES:
                self.start_agent(node)
        except BaseException:
            self._end()
            raise
        return self

    def start_engine(self, name: str, *, core: int = 0) -> EngineProcess:
        """Start (or start again) the engine called ``name``; it is empty then."""
        usable = sorted(os.sched_getaffinity(0))
        engine = EngineProcess.start(
            self.kind,
            self.folder / f"{name}.sock",
            core=usable[core % len(usable)],
            memory_mib=SPDK_MEMORY_MIB,
        )
        self.engines[name] = engine
        self._note_down()
        return engine

    def start_agent(self, node: NodeName) -> None:
        """Start the agent of a node, as ``ws7000 ha agent`` does, and wait until it answers."""
        config = write_config(agent_config(self.array, node, self.state))
        log = self.folder / f"agent-{node}.log"
        with log.open("ab") as out:
            self.agents[node] = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-m", "ha.agent", str(config)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                cwd=Path(__file__).resolve().parents[2],
            )  # fmt: skip
        control = Control(self.array.node(node).agent)
        while self.agents[node].poll() is None:
            try:
                control.status()
            except Unreachable:
                time.sleep(_POLL_S)
                continue
            self._note_down()
            return
        raise Unreachable(
            "HA-060",
            f"the agent of node {node} did not start",
            why=log.read_text(errors="replace").strip()[-300:],
            remedy=f"see {log}",
        )

    def _note_down(self) -> None:
        """Which processes are the lab's, for ``ws7000 ha simulate``; those that have ended are nobody's any more."""
        found = []
        for name, engine in self.engines.items():
            began = started_at(engine.process.pid)
            if began is not None:
                role, node = ("shelf", "") if name == "shelf" else ("engine", name)
                found.append(Process(role=role, node=node, pid=engine.process.pid, started=began))
        for node, agent in self.agents.items():
            began = started_at(agent.pid)
            if began is not None:
                found.append(Process(role="agent", node=node, pid=agent.pid, started=began))
        write(self.folder, found)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.keep:
            self._end()

    def _end(self) -> None:
        # The agents first: an agent sees a data plane that ends as a failure.
        for node, agent in self.agents.items():
            agent.kill()
            agent.wait()
            Path(self.array.node(node).agent).unlink(missing_ok=True)
            place_of(self.state / f"agent-{node}").unlink(missing_ok=True)
        for engine in reversed(list(self.engines.values())):
            engine.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
