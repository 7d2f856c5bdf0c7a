"""Values for tests of the HA decision: a small array, and a node that is led through its cycles by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ha.decide import Decision, decide, first
from ha.model import (
    Answer,
    Drives,
    Engine,
    EngineState,
    Fence,
    GroupId,
    GroupMap,
    Leg,
    ListenerAt,
    MirrorMap,
    NamespaceMap,
    NodeName,
    Order,
    Outcome,
    Peer,
    Phase,
    ReadJournal,
    Record,
    Register,
    Says,
    Seen,
    ServiceMap,
    Slots,
    SnapshotAt,
    Verify,
    Work,
    WriteRecord,
)
from ha.policy import FAST, Policy

KEY = {"a": 0xA1, "b": 0xB1}
G1, G2 = GroupId("default", 1), GroupId("default", 2)
QUORUM = ("d0", "d1", "d2", "d3", "d4")
DRIVES = (*QUORUM, "d5", "d6")
STEP_MS = 50


def mirror(name: str, *drives: str) -> MirrorMap:
    return MirrorMap(name=name, legs=tuple(Leg(bdev=f"{drive}n1p1", drive=drive) for drive in drives))


def service_map(generation: int = 1) -> ServiceMap:
    """Seven drives; group 1 holds a bare volume on d5 and a mirrored one, group 2 a mirrored one."""
    listeners: dict[NodeName, tuple[ListenerAt, ...]] = {
        "a": (ListenerAt(transport="tcp", address="192.0.2.1", service=4420),),
        "b": (ListenerAt(transport="tcp", address="192.0.2.2", service=4420),),
    }
    first_group = GroupMap(
        nqn="nqn.test",
        listeners=listeners,
        namespaces=(
            NamespaceMap(nsid=1, volume="bare", bare=("d5",)),
            NamespaceMap(nsid=2, volume="safe", mirrors=(mirror("vol-safe.m0", "d5", "d6"),)),
        ),
    )
    second = GroupMap(
        nqn="nqn.test",
        listeners=listeners,
        namespaces=(NamespaceMap(nsid=3, volume="other", mirrors=(mirror("vol-other.m0", "d6", "d5"),)),),
    )
    return ServiceMap(
        array_uuid="uuid",
        generation=generation,
        quorum=QUORUM,
        block_bytes=dict.fromkeys(DRIVES, 4096),
        groups={G1: first_group, G2: second},
    )


def record(**changes: Any) -> Record:
    """Both nodes are members, each owns its group, node a leads."""
    base = Record(
        array_uuid="uuid",
        epoch=3,
        sequence=7,
        leader="a",
        owners={G1: "a", G2: "b"},
        members={"a": KEY["a"], "b": KEY["b"]},
        snapshot=SnapshotAt(area=0, size_bytes=10, sha256="x", generation=1),
    )
    return replace(base, **changes)


def answers(work: Work, said: Answer = Answer.OK, **by_drive: Answer) -> dict[str, Answer]:
    """One answer per drive of ``work``."""
    return {drive: by_drive.get(drive, said) for drive in getattr(work, "drives", ())}


@dataclass
class Hand:
    """A node and what it sees; ``cycle`` decides once, ``done`` answers the operation on its way."""

    node: NodeName
    policy: Policy = FAST
    now: int = 1_000
    seen: Seen = field(default_factory=Seen)
    last: Decision | None = None

    def __post_init__(self) -> None:
        self.memory = first(self.node)
        engine = Engine(state=EngineState.ALIVE, key=KEY[self.node], answered_at=self.now, built=1)
        reports = {drive: frozenset[int]() for drive in QUORUM}
        self.seen = Seen(engine=engine, map=service_map(), drives=Drives(registrants=reports))

    def cycle(self, ms: int = 10, *, orders: tuple[Order, ...] = (), outcome: Outcome | None = None) -> Decision:
        """Let ``ms`` pass, in the steps of an agent that runs, then decide."""
        while ms > STEP_MS:
            self.now += STEP_MS
            ms -= STEP_MS
            self.last = decide(self.policy, self.memory, self.seen, self.now)
            self.memory = self.last.memory
        self.now += ms
        self.last = decide(self.policy, self.memory, replace(self.seen, orders=orders, outcome=outcome), self.now)
        self.memory = self.last.memory
        return self.last

    @property
    def work(self) -> Work | None:
        """The work that the last cycle began."""
        assert self.last is not None
        return self.last.actions.operation.work if self.last.actions.operation else None

    def done(self, *, said: Answer = Answer.OK, by_drive: dict[str, Answer] | None = None, **more: Any) -> Decision:
        """Answer the operation on its way, as drives do that obey unless told otherwise."""
        operation = self.memory.operation
        assert operation is not None
        work = operation.work
        fields: dict[str, Any] = {"answers": answers(work, said, **(by_drive or {}))}
        if isinstance(work, Verify):
            fields["registrants"] = {drive: frozenset((KEY[self.node],)) for drive in work.drives}
        if isinstance(work, ReadJournal):
            fields |= {"found": True, "record": self.memory.record}
        return self.cycle(1, outcome=Outcome(number=operation.number, **{**fields, **more}))

    def alive(self, **changes: Any) -> None:
        """Renew every sign of life on both ways."""
        engine = replace(self.seen.engine, answered_at=self.now)
        slots = Slots(own_at=self.now, read_at=self.now, peer_at=self.now)
        peer = replace(self.seen.peer, heard_at=self.now, acked_at=self.now)
        self.seen = replace(self.seen, engine=engine, slots=slots, peer=peer, **changes)

    def hears(self, **says: Any) -> None:
        """The peer says this, now."""
        peer: NodeName = "b" if self.node == "a" else "a"
        said = replace(Says(node=peer), **says)
        self.seen = replace(self.seen, peer=Peer(heard_at=self.now, acked_at=self.now, says=said))

    def as_member(self, **changes: Any) -> Hand:
        """Make it a member under ``record(**changes)``, with the peer alive."""
        rec = record(**changes)
        self.memory = replace(
            self.memory, phase=Phase.MEMBER, key=KEY[self.node], record=rec, highest=rec.sequence, lease_from=self.now,
            peer_since=self.now, registered=frozenset(DRIVES),
        )  # fmt: skip
        peer: NodeName = "b" if self.node == "a" else "a"
        self.hears(
            phase=Phase.MEMBER, key=KEY[peer], at=rec.at, leader=rec.leader, built=1,
            members=dict(rec.members) if rec.leader == peer else {},
        )  # fmt: skip
        self.alive()
        return self

    def works(self) -> list[type[Work]]:
        """Answer whatever is begun, with success, until nothing is; the kinds of work in order."""
        kinds: list[type[Work]] = []
        while self.memory.operation is not None:
            kinds.append(type(self.memory.operation.work))
            self.alive()
            self.done()
        return kinds


__all__ = ["Fence", "Hand", "Register", "WriteRecord", "answers", "record", "service_map"]
