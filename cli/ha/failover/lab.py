"""A shelf, two nodes and their agents as processes of this machine, and a host at them.

Why: a failover is measured and proven with the real processes, built by the same apply that builds an array.  The lab
ends only what it started, and ends all of it, in whatever state it is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from cli.ha import lab as simulate
from cli.ha.agent_config import agent_config, write_config, write_secret
from cli.ha.failover.relay import HeartbeatRelay
from controlplane.domain.desired import (
    Array,
    Drive,
    FileDrive,
    HaIntent,
    HaMode,
    HaPolicy,
    Host,
    Node,
    Pool,
    Port,
    Protection,
    Shelf,
    Subsystem,
    Volume,
    subsystem_nqn,
)
from controlplane.domain.errors import DeadlineExceeded, Ws7000Error
from controlplane.domain.state import State
from controlplane.domain.units import MIB
from controlplane.planner.plan import Consent
from controlplane.reconcile import shelf
from controlplane.reconcile.reconciler import Reconciler
from dataplane.launch import EngineKind, EngineProcess, free_ports, free_udp_ports
from dataplane.rpc.session import Session
from ha.adapters.lease_page import LeashPage, place_of
from ha.control import Control
from ha.model import NODES, NodeName

LOOPBACK: Final = "127.0.0.1"
DRIVES: Final = 8
QUORUM: Final = 5
HOST_NQN: Final = "nqn.2014-08.org.nvmexpress:uuid:6d0f5a5c-0000-4000-8000-000000000002"
ROOT: Final = Path(__file__).resolve().parents[3]
AGENT: Final = (sys.executable, "-m", "ha.agent")
VOLUMES: Final[tuple[Volume, ...]] = (
    Volume(name="wide-a", size_bytes=6 * MIB, pool="fast", home="a", hosts=("h1",)),
    Volume(name="safe-a", size_bytes=3 * MIB, pool="safe", home="a", hosts=("h1",)),
    Volume(name="wide-b", size_bytes=6 * MIB, pool="fast", home="b", hosts=("h1",)),
    Volume(name="safe-b", size_bytes=3 * MIB, pool="safe", home="b", hosts=("h1",)),
)
PATIENCE_S: Final = 90.0
Statuses = Mapping[NodeName, dict[str, Any]]


def array_in(folder: Path, policy: HaPolicy) -> Array:
    """Eight file drives; a striped and a mirrored volume at each node."""
    ports = free_ports(3)
    beats = free_udp_ports(2)
    names = tuple(f"d{i}" for i in range(DRIVES))

    def node(name: NodeName, number: int) -> Node:
        port = Port(transport="tcp", address=LOOPBACK, service=ports[number], family="ipv4")
        return Node(
            name=name, rpc=str(folder / f"{name}.sock"), ports=(port,), cores=(), agent=str(folder / f"{name}.agent"),
            heartbeat=beats[number],
        )  # fmt: skip

    return Array(
        name="lab",
        nodes=(node("a", 0), node("b", 1)),
        drives=tuple(
            Drive(name=name, source=FileDrive(path=str(folder / f"{name}.img"), size_bytes=16 * MIB)) for name in names
        ),
        pools=(
            Pool(name="fast", drives=names[:4]),
            Pool(name="safe", drives=names[4:], protection=Protection.MIRROR),
        ),
        subsystems=(Subsystem(name="default", nqn=subsystem_nqn("lab", "default")),),
        volumes=VOLUMES,
        hosts=(Host(name="h1", nqn=HOST_NQN),),
        shelf=Shelf(address=LOOPBACK, service=ports[2]),
        ha=HaMode.ACTIVE_ACTIVE,
        ha_intent=HaIntent(policy=policy, quorum_drives=QUORUM, secret_file=str(folder / "ha.secret")),
    )


class FailoverLab(AbstractContextManager["FailoverLab"]):
    """Start it with ``with``: the array is then formed, and each node serves its own groups.  ``agent`` is the command
    line of an agent."""

    def __init__(
        self, kind: EngineKind, folder: Path, policy: HaPolicy = HaPolicy.FAST, agent: Sequence[str] = AGENT
    ) -> None:
        self.kind = kind
        self.folder = folder
        self.array = array_in(folder, policy)
        self.engines: dict[str, EngineProcess] = {}
        self.agents: dict[NodeName, subprocess.Popen[bytes]] = {}
        self.state: State | None = None
        self._agent = tuple(agent)
        self._stack = ExitStack()
        self.relay = HeartbeatRelay({node.name: node.heartbeat for node in self.array.nodes})

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._end)
            stack.enter_context(self.relay)
            shelf.prepare_files(self.array)
            for number, name in enumerate(("shelf", *NODES)):
                self._start_engine(name, number)
            for engine in self.engines.values():
                engine.ready()
            with Session(str(self.engines["shelf"].socket), node="shelf") as session:
                shelf.serve(self.array, session)
            write_secret(self.folder / "ha.secret")
            for node in NODES:
                self._configure(node)
                self.start_agent(node)
            self.apply()
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if problem is not None:
            problem.add_note(self.show())
        self._stack.close()

    # -- engines

    def _start_engine(self, name: str, number: int) -> None:
        usable = sorted(os.sched_getaffinity(0))
        socket = self.folder / f"{name}.sock"
        socket.unlink(missing_ok=True)
        self.engines[name] = EngineProcess.start(self.kind, socket, core=usable[number % len(usable)])

    def restart_engine(self, node: NodeName) -> None:
        """A new incarnation, empty."""
        self.engines[node].kill()
        self._start_engine(node, 1 + NODES.index(node))
        self.engines[node].ready()

    # -- agents

    def _configure(self, node: NodeName) -> None:
        config = agent_config(self.array, node, self.folder / "state")
        paths = tuple(replace(path, peer_service=self.relay.ports[node]) for path in config.paths)
        write_config(replace(config, paths=paths))

    def agent_folder(self, node: NodeName) -> Path:
        """What the agent keeps."""
        return self.folder / "state" / f"agent-{node}"

    def control(self, node: NodeName) -> Control:
        """Its control socket."""
        return Control(self.array.node(node).agent)

    def start_agent(self, node: NodeName) -> None:
        """Start it, and wait until it answers."""
        log = self.agent_folder(node) / "log"
        with log.open("ab") as out:
            self.agents[node] = subprocess.Popen(  # noqa: S603 - our own interpreter
                [*self._agent, str(self.agent_folder(node) / "config.json")],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, start_new_session=True,
            )  # fmt: skip
        while self.agents[node].poll() is None:
            try:
                self.control(node).status()
            except Ws7000Error:
                continue
            return
        raise RuntimeError(f"the agent of {node} ended: {log.read_text(errors='replace')}")

    # -- the array

    def apply(self) -> None:
        """Make the array so; a node that was started again is admitted and built on the way."""
        with Reconciler.in_folder(self.array, self.folder / "state") as reconciler:
            self.state = reconciler.apply(Consent(everything=True)).state

    def settle(self) -> None:
        """Every group at its home, and both nodes members."""
        leader = self.wait_for(lambda at: bool(at["a"]["leader"]))["a"]["leader"]
        self.control(leader).failback(deadline_s=60.0)
        self.wait_for(lambda at: all(self.served(at)[node] == self.home(node) for node in NODES))

    def rejoin(self, node: NodeName) -> None:
        """What an operator does for a node whose engine or agent has ended.  An apply refuses mirrors whose legs
        are not equal yet, so that is waited for; it raises when the node is not built in the end."""
        self.mend(node)
        if self.agents[node].poll() is not None:
            self.start_agent(node)
        self.wait_for(lambda at: _decided(at, node))
        if not self.engines[node].running:
            self.restart_engine(node)
        self.wait_for(lambda at: not max(at.values(), key=lambda status: int(status["epoch"]))["resync"])
        self.apply()

    def home(self, node: NodeName) -> set[str]:
        """The groups that have their home there."""
        return {f"{each.name}/{1 + NODES.index(node)}" for each in self.array.subsystems}

    # -- what is seen

    def status(self) -> Statuses:
        """Of every agent that answers."""
        found: dict[NodeName, dict[str, Any]] = {}
        for node in NODES:
            try:
                found[node] = self.control(node).status(deadline_s=2.0)
            except Ws7000Error:
                continue
        return found

    def wait_for(self, condition: Callable[[Statuses], bool]) -> Statuses:
        """The first statuses for which it holds; an agent that does not answer is not there.  Raises HA-070."""
        until = time.monotonic() + PATIENCE_S
        found: Statuses = {}
        while time.monotonic() < until:
            found = self.status()
            try:
                if condition(found):
                    return found
            except KeyError:
                continue
        raise late(f"the agents say {json.dumps(found)}")

    def served(self, found: Statuses) -> dict[NodeName, set[str]]:
        """Which node serves which groups, as the agents say."""
        return {node: set(status["engine"]["raised"]) for node, status in found.items()}

    def history(self, node: NodeName) -> list[dict[str, Any]]:
        """What the agent of a node has noted down, whether it lives or not."""
        path = self.agent_folder(node) / "history.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def show(self) -> str:
        """What to look at when something was not as it should."""
        lines = [json.dumps(self.status())]
        for node in NODES:
            log = self.agent_folder(node) / "log"
            if log.exists():
                lines += [f"--- {node}", *log.read_text(errors="replace").splitlines()[-60:]]
        return "\n".join(lines)

    # -- faults

    def _processes(self) -> list[simulate.Process]:
        found = [("engine", node, self.engines[node].process.pid) for node in NODES]
        found += [("agent", node, agent.pid) for node, agent in self.agents.items()]
        found += [("leash", node, self._leash(node)) for node in NODES]
        alive = ((role, node, pid, simulate.started_at(pid)) for role, node, pid in found if pid)
        return [
            simulate.Process(role=role, node=node, pid=pid, started=began)
            for role, node, pid, began in alive
            if began is not None
        ]

    def _leash(self, node: NodeName) -> int:
        place = place_of(self.agent_folder(node))
        if not place.exists():
            return 0
        page = LeashPage(place)
        try:
            said = page.leash()
            return said.leash.pid if said.leash.alive else 0
        finally:
            page.close()

    def befall(self, fault: str, node: NodeName) -> None:
        """Let it happen (``cli.ha.lab.FAULTS``)."""
        simulate.befall(self.folder, fault, node)

    def note_down(self) -> None:
        """Which processes the lab has now; before a fault, so that the fault takes no longer than a signal."""
        simulate.write(self.folder, self._processes())

    def mend(self, node: NodeName) -> None:
        """Let everything of the node that is stopped go on."""
        for process in self._processes():
            if process.node == node:
                os.kill(process.pid, signal.SIGCONT)

    # -- the end

    def _end(self) -> None:
        for node, agent in self.agents.items():
            self.mend(node)
            agent.kill()
            agent.wait()
        for engine in reversed(list(self.engines.values())):
            engine.kill()
        for node in NODES:
            place_of(self.agent_folder(node)).unlink(missing_ok=True)


@dataclass(slots=True)
class HostProcess(AbstractContextManager["HostProcess"]):
    """The host of a lab; see ``cli.ha.failover.load``."""

    lab: FailoverLab
    out: Path
    workers: int = 2
    pause_s: float = 0.002
    seed: int = 7000
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        state = self.lab.state
        assert state is not None
        job = {
            "nqn": state.subsystems["default"].nqn,
            "hostnqn": HOST_NQN,
            "paths": [(port.address, port.service) for node in self.lab.array.nodes for port in node.ports],
            "volumes": {name: volume.nsid for name, volume in state.volumes.items()},
            "workers": self.workers,
            "pause_s": self.pause_s,
            "keep_alive_ms": 1000,
            "seed": self.seed,
            "out": str(self.out),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.ha.failover.load"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self._ask(json.dumps(job))
        return self

    def look(self) -> dict[str, Any]:
        """How many answers each volume has given, and errors."""
        return self._ask("look")

    def go_on(self, volumes: Sequence[str], count: int = 20) -> None:
        """Return when each of the volumes has given so many further answers."""
        before = self.look()["answered"]
        until = time.monotonic() + PATIENCE_S
        while any(self.look()["answered"][volume] < before[volume] + count for volume in volumes):
            if time.monotonic() > until:
                raise late(f"the host has {json.dumps(self.look())} answers")

    def finish(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Stop, read everything once more; (events, accesses)."""
        self._ask("finish")
        lines = [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if "at" in line], [line for line in lines if "at" not in line]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process is not None
        to, back = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        to.write(line.encode() + b"\n")
        to.flush()
        answer = back.readline()
        if not answer:
            raise RuntimeError(f"the host has ended with status {self._process.wait()}")
        body: dict[str, Any] = json.loads(answer)
        return body

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                cast("IO[bytes]", pipe).close()


def _decided(at: Statuses, node: NodeName) -> bool:
    """Whether the data plane of the node has ended, waits to be admitted, or is a member by the newest record; one that
    was shut out while it was stopped is ended by its own node first."""
    newest = max(at.values(), key=lambda status: int(status["epoch"]))
    engine = at[node]["engine"]
    admitted: bool = newest["members"].get(node) == engine["key"]
    return engine["state"] != "alive" or at[node]["phase"] in ("outside", "joining") or admitted


def late(why: str) -> DeadlineExceeded:
    """What was waited for did not come."""
    return DeadlineExceeded(
        "HA-070",
        f"the lab did not do what was waited for within {PATIENCE_S:.0f} s",
        why=why,
        remedy="see what the agents say; on a machine without free cores use the policy slow",
    )
