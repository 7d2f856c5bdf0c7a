"""Run a plan: stage by stage, each journalled before and after, the state saved first.

The order of durability is what makes a crash harmless: the next state is saved before the first step, scrubbed
slices are recorded before their volume is exported, and nothing here decides anything that the next plan
could not decide again from what it sees.  A stage's steps do not depend on each other: one node's calls go
out in one pipeline.  The first failure stops the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, zip_longest
from typing import Any

from controlplane.domain.errors import PartlyApplied, Ws7000Error
from controlplane.domain.image import VOLUME_PREFIX
from controlplane.domain.state import State
from controlplane.planner import labels
from controlplane.planner import steps as s
from controlplane.planner.allocate import DriveFacts
from controlplane.planner.steps import Phase, Plan, Stage, Step
from controlplane.reconcile import calls
from controlplane.reconcile.journal import Journal
from controlplane.reconcile.together import together
from controlplane.store.base import Store
from dataplane.rpc.call import Call
from dataplane.rpc.session import Session
from ha.journal import layout

STEP_DEADLINE_S = 60.0
SCRUB_DEADLINE_S = 600.0
SCRUB_BATCH_BYTES = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """``done`` of ``total`` steps; ``step`` is about to run, or None when all are done, or while something is waited
    for (``waits`` says what)."""

    done: int
    total: int
    step: Step | None
    waits: str = ""


Listener = Callable[[Progress], None]


def quiet(_progress: Progress) -> None:
    """No progress shown."""


class Applier:
    """Runs plans over one session per node."""

    def __init__(self, sessions: Mapping[str, Session], store: Store, journal: Journal) -> None:
        self._sessions = sessions
        self._store = store
        self._journal = journal

    def run(self, plan: Plan, state: State, facts: Mapping[str, DriveFacts], listen: Listener = quiet) -> State:
        """Carry out ``plan``, which leads to ``state`` (already saved); returns the state as it is then."""
        total, done = len(plan.steps), 0
        for stage in plan.stages:
            for step in stage.steps:
                listen(Progress(done=done, total=total, step=step))
                done += 1
            try:
                state = self._stage(stage, state, facts)
            except Ws7000Error as problem:
                self._journal.write("failed", [{"code": problem.code, "what": problem.what}])
                raise PartlyApplied(
                    "PLAN-021",
                    f"stopped after {done - len(stage.steps)} of {total} steps: {problem.what}",
                    why=problem.why,
                    remedy=problem.remedy or "mend the cause and apply again; the next plan goes on from here",
                    where=f"{stage.phase.name.lower().replace('_', ' ')}",
                    details={"cause": problem.to_json()},
                ) from problem
        listen(Progress(done=total, total=total, step=None))
        return state

    def _stage(self, stage: Stage, state: State, facts: Mapping[str, DriveFacts]) -> State:
        entries: list[dict[str, object]] = [
            {"node": step.node, "step": type(step).__name__, "sentence": step.sentence, "generation": state.generation}
            for step in stage.steps
        ]
        self._journal.write("intent", entries)
        if stage.phase is Phase.SCRUB:
            state = self._scrub([x for x in stage.steps if isinstance(x, s.Scrub)], state, facts)
        elif stage.phase is Phase.DRIVE_LABEL:
            self._label([x for x in stage.steps if isinstance(x, s.LabelDrive)], state, facts)
        else:
            self._plain(stage, state)
        self._journal.write("done", entries)
        return state

    def _plain(self, stage: Stage, state: State) -> None:
        for step in stage.steps:
            _check_precondition(step, state)
        batches = {
            name: batch
            for name in self._sessions
            if (batch := list(chain.from_iterable(calls.calls_for(x) for x in stage.steps if x.node == name)))
        }
        jobs = {
            name: partial(self._sessions[name].run_all, batch, deadline_s=STEP_DEADLINE_S)
            for name, batch in batches.items()
        }
        together(self._sessions, jobs)

    def _label(self, steps: list[s.LabelDrive], state: State, facts: Mapping[str, DriveFacts]) -> None:
        for name, session in self._sessions.items():
            mine = [step for step in steps if step.node == name]
            if not mine:
                continue
            writes = [
                calls.write_label(x.drive, facts[x.drive].block_bytes, labels.wanted_label(state, x.drive))
                for x in mine
            ]
            drives = [step.drive for step in mine]
            zeroes = [(x.drive, call) for x in mine if x.clear for call in _clear(x.drive, facts)]
            self._raw(session, "write zeroes", [drive for drive, _ in zeroes], [call for _, call in zeroes])
            self._raw(session, "write its label", drives, writes)
            self._raw(session, "flush", drives, [calls.flush(drive) for drive in drives])

    def _scrub(self, steps: list[s.Scrub], state: State, facts: Mapping[str, DriveFacts]) -> State:
        """Zero the slices of some volumes, then record it: a volume is exported only after its record says so.

        The nodes work at the same time, and what all of them have done is one record."""
        for batches in zip_longest(*_scrub_batches(steps).values(), fillvalue=[]):
            jobs = {batch[0].node: partial(self._scrub_batch, batch, facts) for batch in batches if batch}
            together(self._sessions, jobs)
            for step in chain.from_iterable(batches):
                state = state.scrubbed(step.volume, step.slices)
            state = self._store.save(state)
        return state

    def _scrub_batch(self, batch: list[s.Scrub], facts: Mapping[str, DriveFacts]) -> None:
        session = self._sessions[batch[0].node]
        wanted = [
            (ref.drive, call)
            for step in batch
            for ref in sorted(step.slices)
            for call in calls.write_zeroes(
                ref.drive, facts[ref.drive].block_bytes, ref.index * step.slice_bytes, step.slice_bytes
            )
        ]
        drives = sorted({ref.drive for step in batch for ref in step.slices})
        self._raw(session, "write zeroes", [d for d, _ in wanted], [c for _, c in wanted])
        self._raw(session, "flush", drives, [calls.flush(drive) for drive in drives])

    def _raw(self, session: Session, what: str, drives: list[str], batch: list[Any]) -> None:
        calls.check_completions(what, drives, session.pipeline(batch, deadline_s=SCRUB_DEADLINE_S))


def _scrub_batches(steps: list[s.Scrub]) -> dict[str, list[list[s.Scrub]]]:
    """By node: volumes whose scrubs are done and recorded together, not so many that a crash costs much.

    One record for each volume would write the whole state as often as there are volumes.
    """
    found: dict[str, list[list[s.Scrub]]] = {}
    for node, mine in groupby(sorted(steps, key=lambda step: step.node), key=lambda step: step.node):
        batches: list[list[s.Scrub]] = []
        size_bytes = SCRUB_BATCH_BYTES
        for step in mine:
            if size_bytes >= SCRUB_BATCH_BYTES:
                batches.append([])
                size_bytes = 0
            batches[-1].append(step)
            size_bytes += len(step.slices) * step.slice_bytes
        found[node] = batches
    return found


def _clear(drive: str, facts: Mapping[str, DriveFacts]) -> Iterator[Call[Any]]:
    """Zero the slots, the journal and the snapshots of a drive: an earlier array may have left some."""
    start = labels.LABEL_BYTES
    return calls.write_zeroes(drive, facts[drive].block_bytes, start, layout.END_BYTES - start)


def _check_precondition(step: Step, state: State) -> None:
    """The one precondition that the engine cannot hold for us: no unscrubbed volume is exported."""
    if isinstance(step, s.AddNamespace):
        name = step.namespace.bdev.removeprefix(VOLUME_PREFIX)
        if state.volumes[name].unscrubbed:
            raise AssertionError(f"{name} still holds what was there before")
