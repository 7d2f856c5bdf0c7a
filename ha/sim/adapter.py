"""The simulated adapters: every operation of ``ha.model`` as the product's adapters carry it out.

Why they are written again here: the product's talk to sockets.  These keep the same promises and no better ones: each
operation is answered exactly once and at the latest at its deadline, per-drive work has it for each drive, a fence
looks at the Reservation Report before anything else, a raise is taken back when it is not wanted any more, and a drain
is reported only after the lowering and the last I/O.  Invariant: nothing here decides what is to be done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from ha.model import (
    Answer,
    DetachDrives,
    Fence,
    GroupId,
    KickHosts,
    Load,
    Operation,
    Outcome,
    ReadJournal,
    Rebuild,
    Record,
    Register,
    Verify,
    Work,
    WriteRecord,
)
from ha.sim.drives import JOURNAL, PLACES, TAKE_OVER, Op, Report
from ha.sim.loop import MS

if TYPE_CHECKING:
    from ha.sim.agent import Agent
    from ha.sim.engine import DataPlane


class Shown(Enum):
    """What a group of the data plane was made."""

    RAISED = auto()
    LOWERED = auto()
    DRAINED = auto()


class Task:
    """An operation on its way: what each drive has said, and whether the whole was answered."""

    def __init__(self, operation: Operation, engine: DataPlane, drives: tuple[str, ...]) -> None:
        self.operation = operation
        self.engine = engine
        self.left = dict.fromkeys(drives)
        self.answers: dict[str, Answer] = {}
        self.found: dict[str, Any] = {}
        self.over = False


class Adapter:
    """The drives and the data plane, as one life of an agent uses them."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.world = agent.world
        self.raised: set[GroupId] = set()
        self.drained: set[GroupId] = set()
        self._serve: frozenset[GroupId] = frozenset()
        self._drain: frozenset[GroupId] = frozenset()
        self._busy: set[GroupId] = set()
        self._tasks: list[Task] = []
        self.engine_started()

    # ------------------------------------------------------------ groups

    def engine_started(self) -> None:
        """What the data plane shows is asked of it; a new one shows nothing."""
        engine = self.agent.engine
        self.raised = set(engine.raised) if engine is not None else set()
        self.drained = set()
        self._busy = set()

    def engine_ended(self) -> None:
        """Whatever was on its way will not be answered any more."""
        self.raised, self.drained, self._busy = set(), set(), set()
        for task in list(self._tasks):
            self._end(task, Answer.FAILED, "the data plane has ended")

    def want(self, serve: frozenset[GroupId], drain: frozenset[GroupId]) -> None:
        """The wanted states, until they change."""
        self._serve, self._drain = serve, drain
        for group in sorted(self.world.map.groups):
            self._step(group)

    def _step(self, group: GroupId) -> None:
        engine = self.agent.engine
        if engine is None or group in self._busy:
            return
        if group in self._serve:
            if group not in self.raised:
                self._busy.add(group)
                self.agent.call(lambda: self._raise(engine, group))
        elif group in self.raised or (group in self._drain and group not in self.drained):
            self._busy.add(group)
            self.agent.call(lambda: self._lower(engine, group))

    def _raise(self, engine: DataPlane, group: GroupId) -> None:
        engine.raised.add(group)
        self.world.checkers.raised(engine, group)
        self.agent.later(self._rpc_us(), self._done, engine, group, Shown.RAISED)

    def _lower(self, engine: DataPlane, group: GroupId) -> None:
        engine.raised.discard(group)
        if group in self._drain:
            self._barrier(engine, group)
        else:
            self.agent.later(self._rpc_us(), self._done, engine, group, Shown.LOWERED)

    def _barrier(self, engine: DataPlane, group: GroupId) -> None:
        """Answered when the last I/O of the group has ended, or when nobody waits for it any more."""
        if self.world.mutant.drained(engine, group):
            self.agent.later(self._rpc_us(), self._done, engine, group, Shown.DRAINED)
        elif group in self._drain and not self.agent.gone:
            engine.later(2 * MS, self._barrier, engine, group)
        else:
            self.agent.later(self._rpc_us(), self._done, engine, group, Shown.LOWERED)

    def _done(self, engine: DataPlane, group: GroupId, shown: Shown) -> None:
        if self.agent.engine is not engine:
            return
        self._busy.discard(group)
        self.raised.discard(group)
        if shown is Shown.RAISED:
            self.raised.add(group)
            self.drained.discard(group)
        elif shown is Shown.DRAINED:
            self.drained.add(group)
        self._step(group)
        if shown is Shown.DRAINED:
            self.agent.cycle()

    def _rpc_us(self) -> int:
        return self.agent.rng.randrange(300, 4_300)

    # ------------------------------------------------------------ operations

    def execute(self, operation: Operation) -> None:
        """Begin; the agent gets the outcome."""
        engine = self.agent.engine
        if engine is None:
            none = Outcome(number=operation.number, ok=False, problem="no data plane runs here")
            self.agent.later(0, self.agent.finished, none)
            return
        self.world.nemesis.boundary(self.agent.node)
        work = operation.work
        drives = work.drives if isinstance(work, Fence | Verify | Register | ReadJournal | WriteRecord) else ()
        task = Task(operation, engine, drives)
        self._tasks.append(task)
        if operation.deadline_ms is not None:
            deadline = self.agent.node.clock.lasts(operation.deadline_ms)
            self.agent.later(deadline, self._end, task, Answer.SILENT, "no answer by the deadline")
        match work:
            case Fence():
                for drive in drives:
                    self._ask(task, drive, Op.REPORT, self._fence, "fence")
            case Verify():
                for drive in drives:
                    self._ask(task, drive, Op.REPORT, self._said, "")
            case Register():
                for drive in drives:
                    self._ask(task, drive, Op.REGISTER, self._acquire, "join")
            case ReadJournal():
                for drive in drives:
                    self._ask(task, drive, Op.JOURNAL, self._said, "")
            case WriteRecord():
                cell = (JOURNAL, work.record.sequence % PLACES)
                for drive in self.world.mutant.journal_drives(drives):
                    self._ask(task, drive, Op.WRITE, self._said, "", cell, work.record)
            case _:
                self._whole(task)
        if drives == () and isinstance(work, Fence | Verify | Register | ReadJournal | WriteRecord):
            self._finish(task)

    def _ask(
        self,
        task: Task,
        drive: str,
        op: Op,
        then: Callable[[Task, str, Answer, Any], None],
        why: str,
        cell: tuple[Any, ...] = (),
        value: Any = None,  # noqa: ANN401 - what a block holds
    ) -> None:
        self.agent.command(drive, op, lambda answer, found: then(task, drive, answer, found), cell, value, why)

    def _fence(self, task: Task, drive: str, answer: Answer, found: Any) -> None:  # noqa: ANN401
        """A preempt is never sent where this incarnation is not registered."""
        work = task.operation.work
        assert isinstance(work, Fence)
        if task.over or answer is not Answer.OK:
            self._said(task, drive, answer, None)
            return
        assert isinstance(found, Report)
        if work.key not in found.registrants:
            if work.register:
                self._ask(task, drive, Op.REGISTER, self._fence_held, _why(work))
            else:
                self._said(task, drive, Answer.CONFLICT, None)
        elif found.held:
            self._ask(task, drive, Op.PREEMPT_ABORT, self._said, _why(work))
        else:
            self._fence_held(task, drive, answer, None)

    def _fence_held(self, task: Task, drive: str, answer: Answer, _found: Any) -> None:  # noqa: ANN401
        if task.over or answer is not Answer.OK:
            self._said(task, drive, answer, None)
        else:
            self._ask(task, drive, Op.ACQUIRE, self._preempt, _why(task.operation.work))

    def _preempt(self, task: Task, drive: str, answer: Answer, _found: Any) -> None:  # noqa: ANN401
        if task.over or answer is not Answer.OK:
            self._said(task, drive, answer, None)
        else:
            self._ask(task, drive, Op.PREEMPT_ABORT, self._said, _why(task.operation.work))

    def _acquire(self, task: Task, drive: str, answer: Answer, _found: Any) -> None:  # noqa: ANN401
        if task.over or answer is not Answer.OK:
            self._said(task, drive, answer, None)
        else:
            self._ask(task, drive, Op.ACQUIRE, self._said, "join")

    def _said(self, task: Task, drive: str, answer: Answer, found: Any) -> None:  # noqa: ANN401
        """What one drive has to say in the end."""
        if task.over:
            return
        self.world.nemesis.boundary(self.agent.node)
        task.left.pop(drive, None)
        task.answers[drive] = answer
        if answer is Answer.OK:
            task.found[drive] = found
        if not task.left:
            self._finish(task)

    def _end(self, task: Task, answer: Answer, problem: str) -> None:
        """The deadline, or the end of the data plane: whoever has not answered will not be waited for."""
        if task.over:
            return
        task.answers.update(dict.fromkeys(task.left, answer))
        self._finish(task, ok=False, problem=problem)

    def _finish(self, task: Task, *, ok: bool = True, problem: str = "") -> None:
        task.over = True
        self._tasks.remove(task)
        number, work = task.operation.number, task.operation.work
        if isinstance(work, ReadJournal):
            found = len(task.found) >= self.world.map.majority
            record = newest(list(task.found.values()), self.world.map.majority, fenced=work.fenced) if found else None
            outcome = Outcome(number=number, answers=task.answers, found=found, record=record)
        elif isinstance(work, WriteRecord):
            answers = self.world.mutant.journal_answers(task.answers, work.drives)
            outcome = Outcome(number=number, answers=answers)
        elif isinstance(work, Fence | Verify | Register):
            reports = {drive: said.registrants for drive, said in task.found.items() if isinstance(said, Report)}
            outcome = Outcome(number=number, answers=task.answers, registrants=reports)
        else:
            outcome = Outcome(number=number, ok=ok, problem=problem)
        self.agent.finished(outcome)

    # ------------------------------------------------------------ work on the data plane as a whole

    def _whole(self, task: Task) -> None:
        engine, work = task.engine, task.operation.work

        def done(good: bool = True) -> None:
            self.agent.later(self._rpc_us(), self._over, task, good)

        def begin() -> None:
            match work:
                case Load():
                    self._load(engine, work)
                    done()
                case DetachDrives():
                    for drive in work.drives:
                        engine.detach(drive)
                        self.agent.let_go(drive)
                    done()
                case Rebuild():
                    self._rebuild(engine, self.world.mutant.rebuilt(work.add), done)
                case KickHosts():
                    self.world.hosts.kicked(work.node)
                    done()

        engine.later(self.agent.rng.randrange(2 * MS, 40 * MS), begin)

    def _over(self, task: Task, good: bool) -> None:
        if not task.over:
            self._finish(task, ok=good, problem="" if good else "a leg could not be put back")

    def _load(self, engine: DataPlane, work: Load) -> None:
        drop = self.world.mutant.dropped(work.drop)
        served = {(v.nqn, v.nsid) for v in self.world.volumes if v.group in engine.raised}
        engine.refused = (engine.refused & served) | set(work.refuse)
        for mirror, volume in engine.sources.items():
            for bdev, drive in volume.legs:
                if (mirror, bdev) in drop:
                    engine.drop_leg(mirror, drive)

    def _rebuild(self, engine: DataPlane, add: tuple[tuple[str, str], ...], done: Callable[[bool], None]) -> None:
        """One leg after another."""
        if not add:
            done(True)  # noqa: FBT003 - an outcome
            return
        (mirror, bdev), rest = add[0], add[1:]
        drive = next(drive for name, drive in engine.sources[mirror].legs if name == bdev)
        engine.detached.discard(drive)
        engine.rebuild(mirror, drive, lambda good: self._rebuild(engine, rest, done) if good else done(False))  # noqa: FBT003


def _why(work: Work) -> str:
    """Who fences: a member its peer, or a node from outside whoever is there."""
    return TAKE_OVER if isinstance(work, Fence) and work.register else "fence"


def newest(found: list[list[Record]], majority: int, *, fenced: bool) -> Record | None:
    """The newest record of what the drives hold: on a majority of them or, after a fence, on any."""
    counts = Counter(id(record) for records in found for record in records)
    known = {id(record): record for records in found for record in records}
    certain = [record for each, record in known.items() if fenced or counts[each] >= majority]
    return max(certain, key=lambda record: record.at, default=None)
