"""Failovers, one after the other: let a fault happen, wait until all is served again, and see what the host saw.

    gap        the longest time between two answers of one volume, over the volumes of the node that the fault befell
    elsewhere  the same over the volumes that had nothing to do with it
    host       when the host noticed, when a path was usable again, when the first answer came, since the fault
    steps      the agent's own timeline: what the control path did, since it decided to take over

A fault that costs a node its data plane befalls each node of a lab once: a second time would be answered by a
quarantine.  Those that cost nothing share one lab.  Every access is kept and judged.

This module must never leave a run out because of what it measured.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cli.ha.failover.lab import FailoverLab, HostProcess
from cli.ha.failover.load import now_ns
from cli.ha.lab import FAULTS as NODE_FAULTS
from controlplane.domain.desired import HaPolicy
from controlplane.domain.errors import Ws7000Error
from dataplane.launch import EngineKind
from ha.control import Control
from ha.model import NODES, NodeName, other
from ha.policy import POLICIES
from ha.sim import linear

SWITCHOVER: Final = "switchover"
HEARTBEAT_LOST: Final = "heartbeat-network-lost"
FAULTS: Final = (SWITCHOVER, *NODE_FAULTS, HEARTBEAT_LOST)
BEFORE_NS: Final = 1_000_000_000
"""How far back an answer may lie from which the gap is counted."""
ATTEMPTS: Final = 3
STEPS: Final = (
    ("won", "race"),
    ("fenced", "fence"),
    ("verified", "verify"),
    ("read record", "read"),
    ("wrote", "write"),
    ("the sets", "load"),
    ("serves", "taken"),
)
"""What a line of the agent's timeline begins with, and what the step is called here; the last line of a kind counts."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One failover; milliseconds.  ``violation`` says what no order of the accesses explains."""

    fault: str
    engine: str
    policy: str
    node: str
    gap_ms: float = 0.0
    elsewhere_ms: float = 0.0
    errors: int = 0
    violation: str = ""
    took_over: bool = False
    host: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    accesses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """When a fault began, by the host's clock and by the wall's, until when the host was watched, and which volumes
    it was to touch."""

    node: NodeName
    begun_ns: int
    wall: float
    ended_ns: int
    volumes: tuple[str, ...]
    port: int
    """Of the node that serves them afterwards."""


class Bench:
    """Runs on one engine; ``say`` tells how far it is."""

    def __init__(self, kind: EngineKind, policy: HaPolicy, say: Callable[[str], None] = lambda _line: None) -> None:
        self.kind: EngineKind = kind
        self.policy = policy
        self.say = say
        self.begun_again = 0
        """Labs that did not come up, or took over before anything had happened."""

    def measure(self, fault: str, runs: int) -> list[Run]:
        """So many runs of one fault, on both nodes in turn."""
        found: list[Run] = []
        while len(found) < runs:
            calm = fault in (SWITCHOVER, HEARTBEAT_LOST)
            found += self._one_lab(fault, runs - len(found) if calm else min(2, runs - len(found)))
            last = found[-1]
            self.say(f"{self.kind} {fault} {len(found)}/{runs}: {last.gap_ms:.0f} ms {last.violation}")
        return found[:runs]

    def _one_lab(self, fault: str, count: int) -> list[Run]:
        with tempfile.TemporaryDirectory(prefix="ws7000-ha-") as name, ExitStack() as stack:
            lab = self._started(stack, Path(name))
            host = stack.enter_context(HostProcess(lab, lab.folder / "history.jsonl"))
            return self._in(lab, host, fault, count)

    def _started(self, stack: ExitStack, folder: Path) -> FailoverLab:
        """A lab that is up; a machine that is busy with other things may need several attempts."""
        for attempt in range(ATTEMPTS):
            inside = folder / str(attempt)
            inside.mkdir()
            try:
                return stack.enter_context(FailoverLab(self.kind, inside, self.policy))
            except Ws7000Error as problem:
                if attempt == ATTEMPTS - 1:
                    raise
                self.begun_again += 1
                self.say(f"begun again: {problem}")
        raise AssertionError("not reached")

    def _in(self, lab: FailoverLab, host: HostProcess, fault: str, count: int) -> list[Run]:
        marks: list[Mark] = []
        everything = sorted(host.look()["answered"])
        host.go_on(everything)
        epochs = [status["epoch"] for status in lab.status().values()]
        while len(marks) < count:
            node = NODES[len(marks) % 2]
            if fault == SWITCHOVER:
                marks.append(self._mark(lab, host, "a", lambda: _switch(lab, "a")))
                host.go_on(everything)
                marks.append(self._mark(lab, host, "a", lambda: _home(lab), back=True))
            elif fault == HEARTBEAT_LOST:
                marks.append(self._mark(lab, host, node, lambda: self._silence(lab, host, everything)))
            else:
                if marks:
                    lab.rejoin(other(node))
                    lab.settle()
                    host.go_on(everything)
                lab.note_down()
                marks.append(self._mark(lab, host, node, partial(_fail, lab, fault, node)))
                lab.mend(node)
            host.go_on(everything)
        took_over = max(status["epoch"] for status in lab.status().values()) > max(epochs)
        events, accesses = host.finish()
        errors = sum(1 for event in events if "error" in event)
        found = linear.check(linear.Access(**access) for access in accesses)
        seen = _Seen(lab, events, accesses)
        return [
            seen.run(
                mark,
                Run(fault=fault, engine=self.kind, policy=self.policy.value, node=mark.node, errors=errors,
                    violation=str(found) if found else "", took_over=took_over, accesses=len(accesses)),
            )
            for mark in marks
        ]  # fmt: skip

    def _mark(
        self, lab: FailoverLab, host: HostProcess, node: NodeName, job: Callable[[], None], *, back: bool = False
    ) -> Mark:
        assert lab.state is not None
        volumes = tuple(v.name for v in lab.array.volumes if v.home == node)
        wall, begun_ns = datetime.datetime.now(datetime.UTC).timestamp(), now_ns()
        job()
        host.go_on(volumes)
        serving = node if back else other(node)
        return Mark(
            node=node, begun_ns=begun_ns, wall=wall, ended_ns=now_ns(), volumes=volumes,
            port=lab.array.node(serving).ports[0].service,
        )  # fmt: skip

    def _silence(self, lab: FailoverLab, host: HostProcess, volumes: Sequence[str]) -> None:
        """No heartbeat for three times as long as a takeover would wait."""
        silent_ms = 3 * POLICIES[self.policy.value].takeover_wait_ms
        lab.relay.dropping = True
        try:
            lab.wait_for(lambda at: all(at[node]["peer"]["heard_ms_ago"] >= silent_ms for node in NODES))
            host.go_on(volumes)
        finally:
            lab.relay.dropping = False
        heard_ms = POLICIES[self.policy.value].lease_ms
        lab.wait_for(lambda at: all(at[node]["peer"]["heard_ms_ago"] < heard_ms for node in NODES))


def _switch(lab: FailoverLab, node: NodeName) -> None:
    _leader(lab).switchover(other(node), deadline_s=60.0)


def _home(lab: FailoverLab) -> None:
    _leader(lab).failback(deadline_s=60.0)


def _leader(lab: FailoverLab) -> Control:
    return lab.control(next(status["leader"] for status in lab.status().values() if status["leader"]))


def _fail(lab: FailoverLab, fault: str, node: NodeName) -> None:
    lab.befall(fault, node)
    peer, everything = other(node), lab.home("a") | lab.home("b")
    lab.wait_for(lambda at: set(at[peer]["engine"]["raised"]) == everything)


class _Seen:
    """What both sides have noted down in one lab."""

    def __init__(
        self, lab: FailoverLab, events: Iterable[Mapping[str, Any]], accesses: Iterable[Mapping[str, Any]]
    ) -> None:
        self._history = {node: lab.history(node) for node in NODES}
        self._events = list(events)
        self._answers: dict[str, list[int]] = {}
        for access in accesses:
            if access["returned"] is not None:
                volume = str(access["block"]).partition("/")[0]
                self._answers.setdefault(volume, []).append(access["returned"])
        for answers in self._answers.values():
            answers.sort()

    def run(self, mark: Mark, run: Run) -> Run:
        """With what the mark cost."""
        gaps = {volume: self._gap_ms(volume, mark) for volume in self._answers}
        run.gap_ms = max(gaps[volume] for volume in mark.volumes)
        run.elsewhere_ms = max((gap for volume, gap in gaps.items() if volume not in mark.volumes), default=0.0)
        if run.fault != HEARTBEAT_LOST:
            run.host = self._host(mark)
            run.steps = self._steps(mark)
        return run

    def _gap_ms(self, volume: str, mark: Mark) -> float:
        between = [at for at in self._answers[volume] if mark.begun_ns - BEFORE_NS <= at <= mark.ended_ns]
        pairs = ((after - before) for before, after in pairwise(between) if after >= mark.begun_ns)
        return max(pairs, default=mark.ended_ns - mark.begun_ns) / 1e6

    def _host(self, mark: Mark) -> dict[str, float]:
        """Of the volume for which it took longest, each."""
        found: dict[str, float] = {}
        for volume in mark.volumes:
            events = [
                event for event in self._events
                if event["volume"] == volume and mark.begun_ns <= event["at"] <= mark.ended_ns and "usable" in event
            ]  # fmt: skip
            lost = [event["at"] for event in events if not event["usable"] and event["port"] != mark.port]
            usable = [event["at"] for event in events if event["usable"] and event["port"] == mark.port]
            if not usable:
                continue
            after = [at for at in self._answers[volume] if usable[0] <= at <= mark.ended_ns]
            marks = {"noticed": lost[:1], "usable": usable[:1], "resumed": after[:1]}
            for name, at in marks.items():
                if at:
                    found[name] = max(found.get(name, 0.0), (at[0] - mark.begun_ns) / 1e6)
        return found

    def _steps(self, mark: Mark) -> dict[str, float]:
        """``detect`` and ``raised`` since the fault, the others since the decision to take over."""
        found: dict[str, float] = {}
        until = mark.wall + (mark.ended_ns - mark.begun_ns) / 1e9
        for entry in (entry for node in NODES for entry in self._history[node]):
            at = datetime.datetime.fromisoformat(str(entry["at"])).timestamp()
            if not mark.wall <= at <= until:
                continue
            if entry["event"] == "takeover" and entry["node"] != mark.node:
                steps = entry["steps"]
                found["detect"] = max(0.0, (at - mark.wall) * 1000 - steps[-1]["at_ms"])
                for what, name in STEPS:
                    times = [step["at_ms"] for step in steps if step["what"].startswith(what)]
                    if times:
                        found[name] = float(times[-1])
            elif entry["event"] == "serves" and "default" in entry["sentence"]:
                found["raised"] = (at - mark.wall) * 1000
        if "detect" in found and "raised" in found:
            found["fence to raised"] = found["raised"] - found["detect"]
        return found
