"""What a node remembers from one decision to the next.

Why its own module: every part of the decision reads and returns it, and none of them may keep anything elsewhere.
This module must never decide anything; it only holds the table of phases, so that a move that is not in the table
cannot be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from ha.model import NO_KEY, GroupId, NodeName, Operation, Outcome, Phase, Record, Reply, Save, Seen, Work
from ha.policy import Policy


class Event(StrEnum):
    """What makes a node change its phase."""

    ENGINE_UP = "the data plane runs"
    ENGINE_GONE = "the data plane is gone"
    ADMITTED = "the leader admitted it"
    NOT_ADMITTED = "the leader does not admit it any more"
    JOINED = "it is registered on the drives and has read the record"
    ALONE = "nobody leads, and it may begin"
    RESUMED = "its agent was started again, and the record still names it"
    PEER_GONE = "the peer has stopped"
    CALLED_OFF = "the peer is alive after all, and nothing was fenced"
    TAKEN = "it has won and written the next epoch"
    GIVEN_UP = "it cannot take over now"
    LOST = "another node has won"


MOVES: Final[Mapping[Phase, Mapping[Event, Phase]]] = {
    Phase.ABSENT: {Event.ENGINE_UP: Phase.OUTSIDE},
    Phase.OUTSIDE: {
        Event.ENGINE_GONE: Phase.ABSENT,
        Event.ADMITTED: Phase.JOINING,
        Event.ALONE: Phase.TAKING,
        Event.RESUMED: Phase.MEMBER,
    },
    Phase.JOINING: {
        Event.ENGINE_GONE: Phase.ABSENT,
        Event.NOT_ADMITTED: Phase.OUTSIDE,
        Event.JOINED: Phase.MEMBER,
    },
    Phase.MEMBER: {
        Event.ENGINE_GONE: Phase.ABSENT,
        Event.PEER_GONE: Phase.TAKING,
    },
    Phase.TAKING: {
        Event.ENGINE_GONE: Phase.ABSENT,
        Event.TAKEN: Phase.MEMBER,
        Event.CALLED_OFF: Phase.MEMBER,
        Event.GIVEN_UP: Phase.OUTSIDE,
        Event.LOST: Phase.OUTSIDE,
    },
}
"""The whole life of a node.  Nobody leaves MEMBER but by the end of its data plane: a node that may not serve any more
has it killed, since only that drops the connections of its hosts."""


class Kind(StrEnum):
    """Why a takeover is made."""

    FAILOVER = "failover"
    """The peer was a member and has stopped."""
    BOOT = "start"
    """No node is a member: both were restarted, or the one that was left was."""
    FORM = "form"
    """The drives have never held a record."""


class Step(StrEnum):
    """The steps of a takeover, in the one order in which they are done."""

    RACE = "win the quorum drives"
    FENCE = "fence the other drives"
    VERIFY = "verify the reservations"
    READ = "read the journal"
    MAP = "read the map"
    WRITE = "write the next epoch"
    CONFIRM = "verify the reservations again"
    LOAD = "make the sets what the record says"


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """A takeover on its way.  ``order`` are the quorum drives in the order of the race, ``left`` those still to race
    for; ``fenced`` answered OK, ``silent`` did not; ``checked`` are those whose report named nobody else.  ``found``
    was read and ``record`` written; ``touched`` once a fence was sent in any attempt, ``second`` once silent drives
    had their second chance.  ``wait_until`` holds the next attempt of a step back."""

    kind: Kind
    why: str
    started_at: int
    order: tuple[str, ...]
    left: tuple[str, ...]
    step: Step = Step.RACE
    touched: bool = False
    forced: bool = False
    second: bool = False
    fenced: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    checked: frozenset[str] = frozenset()
    rounds: int = 0
    found: Record | None = None
    record: Record | None = None
    save: Save | None = None
    wait_until: int = 0
    map_until: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """What one cycle is decided on."""

    policy: Policy
    seen: Seen
    now: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A planned move that the leader carries out: where to, since when, and the order to answer (0: nobody asked)."""

    to: NodeName
    since: int
    order: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """See the module.  ``record`` is the newest record that is certain here.  ``highest`` is the highest sequence
    that this node has ever tried to write or has read: a sequence is never used twice.  ``released`` has the groups
    that were drained here, with the sequence of the record under which that was.  ``peer_at`` is the last sign of
    life of the peer AS A MEMBER over the network, ``peer_since`` when it became one.  ``spoiled`` is the key of an
    incarnation that was a member and may not serve any more: it is killed.  ``ready``: the drives answer this node,
    so that it could join.  ``lease_from``: when it became a member, which is as good a sign as an acknowledgement."""

    node: NodeName
    phase: Phase = Phase.ABSENT
    since: int = 0
    cycled_at: int = 0
    awake_since: int = 0
    key: int = NO_KEY
    ended: int = NO_KEY
    spoiled: int = NO_KEY
    record: Record | None = None
    highest: int = 0
    attempted: Record | None = None
    released: Mapping[GroupId, int] = field(default_factory=dict)
    takeover: Takeover | None = None
    operation: Operation | None = None
    rebuild: Operation | None = None
    rebuilt: frozenset[GroupId] = frozenset()
    number: int = 0
    peer_at: int | None = None
    peer_since: int = 0
    evicted_at: int | None = None
    moving: Mapping[GroupId, Moving] = field(default_factory=dict)
    save: Save | None = None
    saving: int = 0
    pause: tuple[int, bool] | None = None
    repair: tuple[int, str] | None = None
    detached: frozenset[str] = frozenset()
    mended: frozenset[str] = frozenset()
    mended_at: int | None = None
    cancel: bool = False
    retry_at: int = 0
    registered: frozenset[str] = frozenset()
    taken_at: int | None = None
    lease_from: int = 0
    ready: bool = False
    hands_on: bool = False
    homing: bool = False
    kick: NodeName | None = None
    took: bool = False
    timeline: tuple[tuple[int, str], ...] = ()
    replies: tuple[Reply, ...] = ()

    def moved(self, event: Event, now: int) -> Memory:
        """Itself in the phase that ``event`` leads to; KeyError for a move that is not in the table."""
        return replace(self, phase=MOVES[self.phase][event], since=now, operation=None)

    def begun(self, work: Work, deadline_ms: int) -> Memory:
        """Itself with new work as the operation on its way."""
        assert self.operation is None, "one operation at a time"
        number = self.number + 1
        return replace(self, number=number, operation=Operation(number=number, work=work, deadline_ms=deadline_ms))

    def finished(self, outcome: Outcome | None) -> tuple[Memory, Outcome | None, Work | None]:
        """Itself without the operation that ``outcome`` ends, the outcome and its work; the outcome
        of anything else is nobody's."""
        if outcome is None or self.operation is None or outcome.number != self.operation.number:
            return self, None, None
        return replace(self, operation=None), outcome, self.operation.work

    def noted(self, now: int, what: str) -> Memory:
        """Itself with one more line in the timeline of the takeover."""
        return replace(self, timeline=(*self.timeline, (now, what)))

    def answered(self, number: int, code: str = "", why: str = "") -> Memory:
        """Itself with the end of an order; number 0 is nobody's order."""
        if not number:
            return self
        return replace(self, replies=(*self.replies, Reply(number=number, code=code, why=why)))

    def after(self, base: Record | None) -> Record | None:
        """The record that the next one names as its predecessor, where ``base`` is the newest that counts."""
        tried = self.attempted
        return tried if tried is not None and (base is None or tried.at > base.at) else base

    @property
    def paused(self) -> bool:
        """Whether hands are off."""
        return self.record is not None and self.record.paused and not self.hands_on

    @property
    def leads(self) -> bool:
        """Whether this node is the leader of the record's epoch, and a member."""
        return self.phase is Phase.MEMBER and self.record is not None and self.record.leader == self.node

    def owned(self) -> frozenset[GroupId]:
        """The groups that the record gives this node."""
        if self.record is None:
            return frozenset()
        return frozenset(group for group, owner in self.record.owners.items() if owner == self.node)
