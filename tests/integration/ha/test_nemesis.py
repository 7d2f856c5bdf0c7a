"""Random faults at real processes, one after the other, while a host writes and reads: nothing it was told is lost.

A seed is a whole course of events.  What failed once is repeated by its seed:

    WS7000_NEMESIS_SEEDS=17 python -m pytest tests/integration/ha/test_nemesis.py -k embedded

More seeds, or longer courses (``WS7000_NEMESIS_STEPS``), are for a machine that has nothing else to do.  Order and loss
are judged, never time: the policy is ``slow``, but for a quarantine that would have every course wait for minutes.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from cli.ha.failover.lab import FailoverLab, HostProcess
from controlplane.domain.desired import HaPolicy
from controlplane.domain.errors import Ws7000Error
from dataplane.launch import EngineKind
from ha.model import NODES, NodeName, other
from ha.sim import linear

AGENT: Final = (
    sys.executable,
    "-c",
    "import sys; from dataclasses import replace; from ha import agent, policy; "
    "policy.POLICIES['slow'] = replace(policy.SLOW, quarantine_ms=100).checked(); "
    "sys.exit(agent.main(sys.argv[1:]))",
)
SEEDS: Final = [int(seed) for seed in os.environ.get("WS7000_NEMESIS_SEEDS", "1,2,3").split(",")]
STEPS: Final = int(os.environ.get("WS7000_NEMESIS_STEPS", "4"))

pytestmark = pytest.mark.timeout(120 + 60 * STEPS)


class Nemesis:
    """Befalls a lab; ``done`` says with what."""

    def __init__(self, lab: FailoverLab, host: HostProcess, seed: int) -> None:
        self.lab = lab
        self.host = host
        self.choice = random.Random(seed)
        self.done: list[str] = []

    def step(self) -> None:
        """One thing that happens, and what an operator does about it."""
        what = self.choice.choice(EVENTS)
        node = self.choice.choice(NODES)
        self.done.append(f"{what.__name__} {node}")
        what(self, node)

    # -- what costs a node its data plane

    def fault(self, node: NodeName, *names: str) -> None:
        """While it serves something, so that the other node has to take it over."""
        self.failback(node)
        epoch = self.lab.wait_for(lambda at: self.lab.served(at)[node] == self.lab.home(node))[node]["epoch"]
        self.lab.note_down()
        for name in names:
            self.lab.befall(name, node)
        peer, everything = other(node), self.lab.home("a") | self.lab.home("b")
        self.lab.wait_for(lambda at: at[peer]["epoch"] > epoch and set(at[peer]["engine"]["raised"]) == everything)
        self.heal(node)

    def data_plane_crash(self, node: NodeName) -> None:
        self.fault(node, "data-plane-crash")

    def data_plane_hang(self, node: NodeName) -> None:
        self.fault(node, "data-plane-hang")

    def agent_crash(self, node: NodeName) -> None:
        self.fault(node, "agent-crash")

    def agent_hang(self, node: NodeName) -> None:
        self.fault(node, "agent-hang")

    def node_silent(self, node: NodeName) -> None:
        """It goes on afterwards, with what it had not written yet."""
        self.fault(node, "node-silent")

    def everything_crashes(self, node: NodeName) -> None:
        self.fault(node, *self.choice.sample(("data-plane-crash", "agent-crash"), 2))

    def crash_and_back_at_once(self, node: NodeName) -> None:
        """A supervisor starts the engine again while the other node takes over."""
        self.lab.note_down()
        self.lab.befall("data-plane-crash", node)
        self.lab.restart_engine(node)
        self.heal(node)

    # -- what need not cost anything

    def agent_replaced(self, node: NodeName) -> None:
        """Killed and started again; its lease may end meanwhile, or not."""
        self.lab.note_down()
        self.lab.befall("agent-crash", node)
        self.lab.agents[node].wait()
        self.lab.start_agent(node)
        self.heal(node)

    def data_plane_stutters(self, node: NodeName) -> None:
        self.stutter("data-plane-hang", node)

    def agent_stutters(self, node: NodeName) -> None:
        self.stutter("agent-hang", node)

    def stutter(self, name: str, node: NodeName) -> None:
        for _ in range(self.choice.randint(1, 4)):
            self.lab.note_down()
            self.lab.befall(name, node)
            self.host.go_on([v.name for v in self.lab.array.volumes if v.home != node], 5)
            self.lab.mend(node)
        self.heal(node)

    def network_lost(self, _node: NodeName) -> None:
        before = self.lab.relay.dropped
        self.lab.relay.dropping = True
        while self.lab.relay.dropped < before + self.choice.randint(2, 40):
            self.host.go_on(self.volumes, 5)
        self.lab.relay.dropping = False

    def switchover(self, node: NodeName) -> None:
        self.order(lambda leader: self.lab.control(leader).switchover(node, deadline_s=60.0))

    def failback(self, _node: NodeName) -> None:
        self.order(lambda leader: self.lab.control(leader).failback(deadline_s=60.0))

    # -- what an operator does

    @property
    def volumes(self) -> list[str]:
        return [volume.name for volume in self.lab.array.volumes]

    def order(self, give: Callable[[NodeName], None]) -> None:
        """Given to the leader; what is in the way may be gone in a moment."""
        problem: Ws7000Error | None = None
        for _ in range(200):
            leader = next((status["leader"] for status in self.lab.status().values() if status["leader"]), None)
            if leader is None:
                continue
            try:
                give(leader)
            except Ws7000Error as refused:
                problem = refused
            else:
                return
        raise AssertionError(f"the order is refused again and again: {problem}")

    def heal(self, node: NodeName) -> None:
        """Start what has ended and apply, until both nodes are members and everything is served."""
        everything = self.lab.home("a") | self.lab.home("b")
        problem: Ws7000Error | None = None
        for _ in range(20):
            try:
                self.lab.rejoin(node)
                self.lab.wait_for(
                    lambda at: (
                        all(set(at[each]["members"]) == set(NODES) for each in NODES)
                        and set().union(*self.lab.served(at).values()) == everything
                    )
                )
            except Ws7000Error as again:
                problem = again
            else:
                self.host.go_on(self.volumes)
                return
        raise AssertionError(f"node {node} does not come back: {problem}")


EVENTS: Final = (
    Nemesis.data_plane_crash,
    Nemesis.data_plane_hang,
    Nemesis.agent_crash,
    Nemesis.agent_hang,
    Nemesis.node_silent,
    Nemesis.node_silent,
    Nemesis.everything_crashes,
    Nemesis.crash_and_back_at_once,
    Nemesis.agent_replaced,
    Nemesis.data_plane_stutters,
    Nemesis.agent_stutters,
    Nemesis.network_lost,
    Nemesis.switchover,
    Nemesis.switchover,
    Nemesis.failback,
)


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[FailoverLab]:
    with FailoverLab(kind, tmp_path, HaPolicy.SLOW, AGENT) as made:
        yield made


def course(lab: FailoverLab, folder: Path, seed: int, steps: int) -> None:
    """One seed, from its first event to the last block read back."""
    with HostProcess(lab, folder / "history.jsonl", pause_s=0.005, seed=seed) as host:
        nemesis = Nemesis(lab, host, seed)
        try:
            for _ in range(steps):
                nemesis.step()
            nemesis.failback("a")
            lab.wait_for(lambda at: all(lab.served(at)[node] == lab.home(node) for node in NODES))
            host.go_on(nemesis.volumes)
            events, accesses = host.finish()
            assert not [event for event in events if "error" in event]
            assert {access["block"] for access in accesses} >= {f"{name}/0" for name in nemesis.volumes}
            violation = linear.check(linear.Access(**access) for access in accesses)
            assert violation is None, str(violation)
        except BaseException as problem:
            problem.add_note(f"WS7000_NEMESIS_SEEDS={seed} WS7000_NEMESIS_STEPS={steps} python -m pytest {__file__}")
            problem.add_note(" -> ".join(nemesis.done))
            raise


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_whatever_fails(lab: FailoverLab, kind: EngineKind, tmp_path: Path, seed: int) -> None:
    if kind == "spdk" and seed != SEEDS[0]:
        pytest.skip("one course is enough on SPDK, whose three processes share these cores")
    course(lab, tmp_path, seed, STEPS if kind == "embedded" else max(1, STEPS // 2))
