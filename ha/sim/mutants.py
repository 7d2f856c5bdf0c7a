"""Wrong versions of the HA manager, by name: proof that the simulator would see such a mistake.

Why as wrappers: the product has no switch for being wrong.  Each mutant changes what a decision says or what an adapter
does, at one place, and ``tests/sim`` demands that some seed of a few catches it.  The base class changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ha.decide import Decision, decide
from ha.memory import Memory
from ha.model import Answer, GroupId, NodeName, Phase, Record, Register, Seen
from ha.policy import Policy
from ha.sim.drives import Command, Op, Type

if TYPE_CHECKING:
    from ha.sim.engine import DataPlane
    from ha.sim.world import World

Decider = Callable[[Policy, Memory, Seen, int], Decision]


class Mutant:
    """The product as it is."""

    name: str = "none"
    why: str = ""
    faults: frozenset[str] = frozenset()
    """The faults that such a mistake needs to show; empty for all."""

    def decider(self) -> Decider:
        """For one life of an agent."""
        return decide

    def first(self, node: NodeName) -> Memory:
        """What an agent begins with."""
        return Memory(node=node)

    def prepare(self, world: World) -> None:
        """Before anything happens."""

    def altered(self, command: Command) -> Command:
        """A command on its way to a drive."""
        return command

    def drained(self, engine: DataPlane, group: GroupId) -> bool:
        """Whether the drain barrier of the data plane has been reached."""
        return not engine.flight.get(group)

    def journal_drives(self, drives: tuple[str, ...]) -> tuple[str, ...]:
        """Where a record is written."""
        return drives

    def journal_answers(self, answers: dict[str, Answer], drives: tuple[str, ...]) -> dict[str, Answer]:
        """What is said about the writing."""
        return answers

    def dropped(self, drop: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The legs that are taken out before a group is served."""
        return drop

    def rebuilt(self, add: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The legs that are made equal again."""
        return add


class NoAbort(Mutant):
    name = "no abort"
    why = "a preempt does not wait for what the drive still holds of the victim"
    faults = frozenset({"kill_engine", "slow_drive"})

    def altered(self, command: Command) -> Command:
        if command.op is Op.PREEMPT_ABORT:
            command.op = Op.PREEMPT
        return command


class NoDrain(Mutant):
    name = "no drain"
    why = "a group is given away while its I/O is on its way"
    faults = frozenset({"move"})

    def drained(self, engine: DataPlane, group: GroupId) -> bool:
        return True


class WriteExclusive(Mutant):
    name = "write exclusive"
    why = "a node that was shut out may still read"
    faults = frozenset({"starve"})

    def prepare(self, world: World) -> None:
        for drive in world.drives.values():
            drive.acquires = Type.WRITE_EXCLUSIVE_ALL


class Minority(Mutant):
    name = "minority"
    why = "a record counts when one drive has it"

    def journal_drives(self, drives: tuple[str, ...]) -> tuple[str, ...]:
        return drives[:1]

    def journal_answers(self, answers: dict[str, Answer], drives: tuple[str, ...]) -> dict[str, Answer]:
        return dict.fromkeys(drives, Answer.OK) if Answer.OK in answers.values() else answers


class NoResync(Mutant):
    name = "no resync"
    why = "the legs of mirrors are taken to be equal after an unclean end"
    faults = frozenset({"kill_engine", "cut_power"})

    def dropped(self, drop: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return ()

    def rebuilt(self, add: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return ()


class _Deciding(Mutant):
    """One that changes decisions: ``wrong`` gets the right one."""

    def decider(self) -> Decider:
        def wrapped(policy: Policy, memory: Memory, seen: Seen, now: int) -> Decision:
            return self.wrong(decide(policy, memory, seen, now), seen, now)

        return wrapped

    def wrong(self, decision: Decision, seen: Seen, now: int) -> Decision:
        """Another decision."""
        return decision


class RaiseFirst(_Deciding):
    name = "raise before the fence"
    why = "a takeover serves at once and fences afterwards"

    def wrong(self, decision: Decision, seen: Seen, now: int) -> Decision:
        if decision.memory.phase is not Phase.TAKING or seen.map is None:
            return decision
        return replace(decision, actions=replace(decision.actions, serve=frozenset(seen.map.groups)))


class NoLease(_Deciding):
    name = "no lease"
    why = "a node serves until the drives refuse it"

    def wrong(self, decision: Decision, seen: Seen, now: int) -> Decision:
        actions = replace(decision.actions, lease_until=None)
        if actions.kill is not None and "lease" in actions.kill.why:
            memory = replace(decision.memory, spoiled=0)
            serve = memory.owned() if memory.phase is Phase.MEMBER else frozenset()
            return replace(decision, memory=memory, actions=replace(actions, kill=None, serve=serve))
        return replace(decision, actions=actions)


class StaleRecord(Mutant):
    name = "stale record"
    why = "a member goes on serving what an older record gave it"
    faults = frozenset({"move"})

    def decider(self) -> Decider:
        first: dict[int, Record] = {}

        def wrapped(policy: Policy, memory: Memory, seen: Seen, now: int) -> Decision:
            decision = decide(policy, memory, seen, now)
            after, serve = decision.memory, decision.actions.serve
            if after.record is None or after.phase is not Phase.MEMBER or not serve:
                return decision
            old = first.setdefault(after.key, after.record)
            mine = frozenset(group for group, owner in old.owners.items() if owner == after.node) - after.owned()
            return replace(decision, actions=replace(decision.actions, serve=serve | mine))

        return wrapped


class Uninvited(Mutant):
    name = "uninvited"
    why = "a node joins without being admitted by a record"

    def decider(self) -> Decider:
        invited: set[int] = set()

        def wrapped(policy: Policy, memory: Memory, seen: Seen, now: int) -> Decision:
            decision = decide(policy, memory, seen, now)
            after, says = decision.memory, seen.peer.says
            if after.phase is not Phase.OUTSIDE or after.key in invited or after.operation is not None:
                return decision
            if seen.map is None or says is None or says.phase is not Phase.MEMBER:
                return decision
            invited.add(after.key)
            begun = after.begun(Register(drives=seen.map.drives, key=after.key), policy.drive_ms)
            return replace(decision, memory=begun, actions=replace(decision.actions, operation=begun.operation))

        return wrapped


class ForgottenRelease(Mutant):
    name = "forgotten release"
    why = "a node that let a group go raises it again under the same record"
    faults = frozenset({"move"})

    def decider(self) -> Decider:
        def wrapped(policy: Policy, memory: Memory, seen: Seen, now: int) -> Decision:
            decision = decide(policy, memory, seen, now)
            after = decision.memory
            if after.phase is not Phase.MEMBER or not after.released:
                return decision
            again = decision.actions.serve | (after.released.keys() & after.owned())
            return replace(decision, actions=replace(decision.actions, serve=again))

        return wrapped


MUTANTS: Final[dict[str, type[Mutant]]] = {
    mutant.name: mutant
    for mutant in (
        NoAbort, NoDrain, WriteExclusive, Minority, NoResync, RaiseFirst, NoLease, StaleRecord, Uninvited,
        ForgottenRelease,
    )
}  # fmt: skip
