"""Shelf, two nodes and their agents as real processes: what a failover looks like from outside.

The array is applied as without high availability; then the agents are started, told what the array is, and one of them
forms it.  Everything is waited for by what the agents show."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from small_lab import MIB, SmallLab, small_lab

from controlplane.domain.desired import Volume
from controlplane.domain.errors import Ws7000Error
from controlplane.domain.state import State
from controlplane.store import codec
from controlplane.store.service_map import service_map
from dataplane.launch import EngineKind, free_udp_ports
from ha.adapters.lease_page import place_of
from ha.config import AgentConfig, HeartbeatPath
from ha.control import Control
from ha.journal import snapshot
from ha.model import NODES, NodeName, other

QUORUM: Final = 3
ROOT: Final = Path(__file__).resolve().parents[2]
VOLUMES: Final = (
    Volume(name="wide", size_bytes=6 * MIB, pool="fast", home="a", hosts=("h1",)),
    Volume(name="safe", size_bytes=3 * MIB, pool="safe", home="b", hosts=("h1",)),
)
_WAITING: Final = """
import pathlib, sys
from ha import agent
(pathlib.Path(sys.argv[1]).parent / "loaded").touch()
sys.stdin.read()
raise SystemExit(agent.main(sys.argv[1:]))
"""
Statuses = Mapping[NodeName, dict[str, Any]]


@dataclass(slots=True)
class HaLab:
    """``engines`` of the shelf and the nodes are in ``lab``; ``agents`` are processes by node."""

    lab: SmallLab
    policy: str = "slow"
    agents: dict[NodeName, subprocess.Popen[bytes]] = field(default_factory=dict)
    services: dict[NodeName, int] = field(default_factory=dict)
    configured: Callable[[AgentConfig], AgentConfig] = lambda config: config
    """What a test wants of an agent beyond the usual."""

    # -- agents

    def folder(self, node: NodeName) -> Path:
        """What the agent keeps."""
        return self.lab.folder / f"agent-{node}"

    def control(self, node: NodeName) -> Control:
        """Its control socket."""
        return Control(self.lab.folder / f"{node}.agent")

    def configure(self) -> None:
        """Write both configurations."""
        secret = self.lab.folder / "secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32), encoding="ascii")
        self.services = dict(zip(NODES, free_udp_ports(2), strict=True))
        for node in NODES:
            peer = other(node)
            self.folder(node).mkdir()
            config = AgentConfig(
                array=self.lab.array.name,
                node=node,
                engine=str(self.lab.folder / f"{node}.sock"),
                control=str(self.lab.folder / f"{node}.agent"),
                folder=str(self.folder(node)),
                secret_file=str(secret),
                policy=self.policy,
                paths=(
                    HeartbeatPath(
                        name="p0",
                        address="127.0.0.1",
                        service=self.services[node],
                        peer_address="127.0.0.1",
                        peer_service=self.services[peer],
                    ),
                ),
            )
            (self.folder(node) / "config.json").write_text(self.configured(config).to_json(), encoding="utf-8")

    def reconfigure(self, node: NodeName, **changes: Any) -> None:
        """Change what the agent is started with the next time."""
        path = self.folder(node) / "config.json"
        config = AgentConfig.from_json(path.read_text(encoding="utf-8"))
        path.write_text(replace(config, **changes).to_json(), encoding="utf-8")

    def start_agent(self, node: NodeName) -> None:
        """Start it, and wait until it answers."""
        self.agents[node] = self._agent(node, ["-m", "ha.agent"])
        self._answers(node)

    def replace_agent(self, node: NodeName) -> None:
        """SIGKILL, and the next one at once: it has loaded everything before, so that this costs no part of a lease."""
        (self.folder(node) / "loaded").unlink(missing_ok=True)
        fresh = self._agent(node, ["-c", _WAITING], subprocess.PIPE)
        assert fresh.stdin is not None
        while not (self.folder(node) / "loaded").exists():
            assert fresh.poll() is None
        self.kill_agent(node)
        fresh.stdin.close()
        self.agents[node] = fresh
        self._answers(node)

    def _agent(self, node: NodeName, how: list[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (self.folder(node) / "log").open("ab") as out, self.lab.on(node):
            return subprocess.Popen(
                [sys.executable, *how, str(self.folder(node) / "config.json")],
                stdin=stdin, stdout=out, stderr=out, cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    def _answers(self, node: NodeName) -> None:
        log = self.folder(node) / "log"
        while self.agents[node].poll() is None:
            try:
                self.control(node).status()
            except Ws7000Error:
                continue
            return
        raise AssertionError(f"the agent of {node} ended: {log.read_text(errors='replace')}")

    def kill_agent(self, node: NodeName) -> None:
        """SIGKILL."""
        self.agents[node].kill()
        self.agents[node].wait()

    def signal_agent(self, node: NodeName, number: signal.Signals) -> None:
        """Stop it, let it go on, or ask it to end."""
        self.agents[node].send_signal(number)

    # -- engines

    def kill_engine(self, node: NodeName) -> None:
        """SIGKILL."""
        self.lab.engines[node].kill()

    def stop_engine(self, node: NodeName) -> None:
        """SIGSTOP: it hangs."""
        self.lab.engines[node].process.send_signal(signal.SIGSTOP)

    def cont_engine(self, node: NodeName) -> None:
        """It goes on."""
        self.lab.engines[node].process.send_signal(signal.SIGCONT)

    def engine_ended(self, node: NodeName) -> bool:
        """Whether the engine that was started last has ended, by whatever hand."""
        return not self.lab.engines[node].running

    def restart_engine(self, node: NodeName) -> None:
        """A new incarnation, empty."""
        self.lab.restart(node)

    # -- the array

    def form(self) -> State:
        """Apply the array, let node a form it, and tell node b what it is."""
        state, raw = self.form_on("a")
        # Only now: a node that knows an array takes it for one that was formed.
        self.control("b").learn(raw)
        return state

    def form_on(self, node: NodeName) -> tuple[State, bytes]:
        """Apply the array and let ``node`` form it; the state, and the snapshot that it was formed from."""
        with self.lab.reconciler() as reconciler:
            state = reconciler.apply().state
        raw = snapshot.pack(
            snapshot.Snapshot(
                state=codec.encode(state).decode(), map=service_map(state, tuple(sorted(state.drives)[:QUORUM]))
            )
        )
        for each in NODES:
            self.wait_for(lambda at, each=each: at[each]["engine"]["state"] == "alive")  # type: ignore[misc]
            self.control(each).built(state.generation)
        # Refused while the drives have not been looked at yet.
        while True:
            try:
                self.control(node).save(state.generation, 0, raw, form=True)
            except Ws7000Error as problem:
                if problem.code != "HA-008":
                    raise
            else:
                return state, raw

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
        """The first statuses for which it holds; the test's own timeout ends a wait that never ends."""
        while True:
            found = self.status()
            try:
                if condition(found):
                    return found
            except KeyError:  # an agent that does not answer
                continue

    def serving(self, found: Statuses) -> dict[str, set[str]]:
        """Which node serves which groups, as the agents say."""
        return {node: set(status["engine"]["raised"]) for node, status in found.items()}

    def settled(self) -> Statuses:
        """Both are members, know the same record, and each serves the groups whose home it is."""
        return self.wait_for(
            lambda at: (
                at["a"]["sequence"] == at["b"]["sequence"]
                and all(
                    at[node]["phase"] == "member"
                    and set(at[node]["engine"]["raised"])
                    == {group for group in at[node]["owners"] if group.endswith("/1") is (node == "a")}
                    and set(at[node]["members"]) == set(NODES)
                    for node in NODES
                )
            )
        )

    def show(self) -> str:
        """What to look at when a test has failed."""
        parts = [json.dumps(self.status(), indent=1)]
        for node in NODES:
            log = self.folder(node) / "log"
            if log.exists():
                parts += [f"--- {node}", *log.read_text(errors="replace").splitlines()[-60:]]
        return "\n".join(parts)

    def close(self) -> None:
        """End the agents, then the engines, so that no leash is left."""
        for agent in self.agents.values():
            if agent.poll() is None:
                agent.send_signal(signal.SIGCONT)
                agent.kill()
            agent.wait()
        for name in NODES:
            if name in self.lab.engines:
                self.lab.engines[name].kill()
        for node in NODES:
            place_of(self.folder(node)).unlink(missing_ok=True)


@contextmanager
def ha_lab(
    kind: EngineKind,
    folder: Path,
    *volumes: Volume,
    policy: str = "slow",
    configured: Callable[[AgentConfig], AgentConfig] = lambda config: config,
) -> Iterator[HaLab]:
    """Engines and agents, the array formed and each node serving its own groups."""
    with small_lab(kind, folder, *(volumes or VOLUMES)) as lab:
        made = HaLab(lab, policy, configured=configured)
        try:
            made.configure()
            for node in NODES:
                made.start_agent(node)
            made.form()
            made.settled()
            made.control("a").failback()
            made.settled()
            yield made
        except BaseException as problem:
            problem.add_note(made.show())
            raise
        finally:
            made.close()
