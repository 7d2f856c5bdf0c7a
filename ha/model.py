"""The values that the HA manager decides on: what a node sees, what it remembers, what it wants done.

Why: the decision is a pure function, so that the simulator, the tests and the agent run the very same code.  This
module must never do I/O and never read a clock.

Time is local and monotonic, whole milliseconds (``now``, ``..._at``); no value of one node's clock is ever compared
with one of the other's.  ``None`` for a time means "never".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

NodeName = Literal["a", "b"]
NODES: Final[tuple[NodeName, NodeName]] = ("a", "b")
NO_KEY: Final = 0
FORMAT_VERSION: Final = 1
"""Of heartbeats and records; both nodes speak the lower of the two versions that they announce."""


def other(node: NodeName) -> NodeName:
    """The peer of ``node``."""
    return "b" if node == "a" else "a"


@dataclass(frozen=True, slots=True, order=True)
class GroupId:
    """An ANA group: the subsystem's name and the group's number (1 has its home on a, 2 on b)."""

    subsystem: str
    number: int

    def __str__(self) -> str:
        return f"{self.subsystem}/{self.number}"

    @property
    def home(self) -> NodeName:
        """The node that is to serve the group when all is well."""
        return "a" if self.number == 1 else "b"


# ------------------------------------------------------------------ what there is to serve (derived from the state)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerAt:
    """A transport address of a node: ``transport`` is tcp or rdma, ``service`` the port number."""

    transport: str
    address: str
    service: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One side of a mirrored set: the base bdev and the drive that it lies on."""

    bdev: str
    drive: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorMap:
    """A mirrored set; leg 0 is the source whenever the legs may differ."""

    name: str
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceMap:
    """A volume as a subsystem shows it.  ``bare`` are the drives that it cannot do without; the others it holds
    through ``mirrors``."""

    nsid: int
    volume: str
    bare: tuple[str, ...] = ()
    mirrors: tuple[MirrorMap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMap:
    """One ANA group: where each node listens for its subsystem, and what is in it."""

    nqn: str
    listeners: Mapping[NodeName, tuple[ListenerAt, ...]]
    namespaces: tuple[NamespaceMap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMap:
    """All that the agents need of the array's state.  ``quorum`` is odd, and its order is the order of the race.
    ``block_bytes`` is the logical block size of each drive."""

    array_uuid: str
    generation: int
    quorum: tuple[str, ...]
    block_bytes: Mapping[str, int]
    groups: Mapping[GroupId, GroupMap] = field(default_factory=dict)

    @property
    def drives(self) -> tuple[str, ...]:
        """Every adopted drive, sorted."""
        return tuple(sorted(self.block_bytes))

    @property
    def majority(self) -> int:
        """How many quorum drives decide."""
        return len(self.quorum) // 2 + 1


# ------------------------------------------------------------------ what is on the drives


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotAt:
    """Where the array's state lies on each quorum drive: ``area`` 0 or 1, ``size_bytes`` as stored, its SHA-256."""

    area: int
    size_bytes: int
    sha256: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of the journal: the whole truth about who serves what.  Ordered by (epoch, sequence); only the
    ``leader`` of an epoch writes in it, ``sequence`` goes up by one with each record, across epochs too.

    ``members`` are the nodes that may serve, with the reservation key of the incarnation that was admitted.
    ``failed`` drives are not to be used until they were fenced; ``stale`` drives were, and their legs of mirrors are
    to be rebuilt; ``resync`` are groups in whose mirrors one leg alone is to be trusted (see ``ha.serving``).
    ``refused`` are volumes that cannot be served, for a drive of theirs is failed.  ``evictions`` counts how often a
    node was fenced since it was last calm."""

    array_uuid: str
    epoch: int
    sequence: int
    leader: NodeName
    owners: Mapping[GroupId, NodeName]
    members: Mapping[NodeName, int]
    failed: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    resync: frozenset[GroupId] = frozenset()
    refused: frozenset[str] = frozenset()
    evictions: Mapping[NodeName, int] = field(default_factory=dict)
    paused: bool = False
    snapshot: SnapshotAt | None = None

    @property
    def at(self) -> tuple[int, int]:
        """What orders records."""
        return (self.epoch, self.sequence)


# ------------------------------------------------------------------ what a node hears and sees


class Phase(StrEnum):
    """Where a node stands; the table of moves is in ``ha.decide``."""

    ABSENT = "absent"
    """No data plane runs here."""
    OUTSIDE = "outside"
    """A data plane runs and may not touch the drives."""
    JOINING = "joining"
    """The leader has admitted it; it registers on the drives."""
    MEMBER = "member"
    """It may serve what the record gives it."""
    TAKING = "taking"
    """It is fencing the other node, or forming the array after a start of both."""


class EngineState(StrEnum):
    """The data-plane process of this node."""

    ABSENT = "absent"
    ALIVE = "alive"
    DEAD = "dead"
    """The incarnation ``Engine.key`` has ended: the process is gone (pidfd), not merely silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The data plane as last seen.  ``key`` is the reservation key of its incarnation; of the last one, where it has
    ended.  ``answered_at`` is when the newest question that it answered was SENT.  ``built`` is the generation of the
    state that it was built to.  ``served``: it was a member once, also in an earlier life of this agent.  ``raised``
    are groups whose listeners were last set optimized here; ``drained`` are groups that were lowered and whose I/O
    has ended since; a group is never in both.  ``whole`` are groups in whose mirrors no leg is missing here."""

    state: EngineState = EngineState.ABSENT
    key: int = NO_KEY
    answered_at: int | None = None
    built: int = 0
    served: bool = False
    raised: frozenset[GroupId] = frozenset()
    drained: frozenset[GroupId] = frozenset()
    whole: frozenset[GroupId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A wish to move ``groups`` to ``to``; ``number`` is unique within the life of the agent that made it."""

    number: int
    groups: frozenset[GroupId]
    to: NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """What a node tells its peer in every heartbeat.

    ``key`` is its incarnation's, ``ended`` the key of its last incarnation that is known to have ended.  ``at`` and
    ``members`` are those of the newest record it knows; from the leader, ``members`` is the admission.  ``releases``
    are groups that it has drained, each with the sequence of the record under which it did.  ``asks`` (of the leader)
    are groups that their owner is to release.  ``rebuilt`` are groups whose mirrors it has made equal again.
    ``blind`` means that it does not reach a majority of the quorum drives; ``silent`` are drives that do not answer
    it, ``failed`` those that the record gives up.  ``holds`` are the nodes whose data addresses are up here.
    ``ports_up`` of ``ports`` data ports have a link."""

    node: NodeName
    version: int = FORMAT_VERSION
    phase: Phase = Phase.ABSENT
    key: int = NO_KEY
    ended: int = NO_KEY
    at: tuple[int, int] = (0, 0)
    leader: NodeName | None = None
    members: Mapping[NodeName, int] = field(default_factory=dict)
    releases: Mapping[GroupId, int] = field(default_factory=dict)
    asks: frozenset[GroupId] = frozenset()
    rebuilt: frozenset[GroupId] = frozenset()
    failed: frozenset[str] = frozenset()
    unregistered: frozenset[str] = frozenset()
    blind: bool = False
    silent: frozenset[str] = frozenset()
    built: int = 0
    holds: frozenset[NodeName] = frozenset()
    ports_up: int = 1
    ports: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The other node as heard over the network.  ``heard_at``: when its newest heartbeat came, over any path.
    ``acked_at``: when this node SENT the newest heartbeat that the peer says it has heard.  ``paths`` says for each
    path (peer hears us, we hear the peer)."""

    heard_at: int | None = None
    acked_at: int | None = None
    says: Says | None = None
    paths: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Heartbeats through the drives.  ``own_at``: when this node SENT the newest write of its slot that a majority
    of the quorum drives completed.  ``read_at``: when it SENT the newest read that a majority answered.  ``peer_at``:
    when an answer last showed the peer's slot further on than before."""

    own_at: int | None = None
    read_at: int | None = None
    peer_at: int | None = None


class Answer(StrEnum):
    """What came of a command to one drive."""

    OK = "ok"
    CONFLICT = "conflict"
    """Reservation Conflict: this node is not (or no longer) registered there."""
    SILENT = "silent"
    """No answer by the deadline; the command may still be carried out."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drives:
    """The drives as this node last saw them.  ``conflicts``: drives that have answered Reservation Conflict to this
    incarnation since it registered there.  ``registrants``: the keys in the newest Reservation Report of each quorum
    drive; absent where none was answered.  ``silent`` drives have not answered for longer than the policy allows."""

    conflicts: frozenset[str] = frozenset()
    registrants: Mapping[str, frozenset[int]] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()


# ------------------------------------------------------------------ what is to be done: one operation at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """On each drive: register ``key`` if that is not done (``register``), then preempt-and-abort everybody else
    (EAAR, PRKEY 0).  A node that is not registered must get CONFLICT, never be registered by the way, unless
    ``register`` says so."""

    drives: tuple[str, ...]
    key: int
    register: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """Reservation Report of each drive; the outcome carries the registrants."""

    drives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Register ``key`` on each drive as one more registrant (the join), and acquire where nobody holds."""

    drives: tuple[str, ...]
    key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJournal:
    """Read the journal from the quorum drives.  Without ``fenced`` the outcome carries the newest record that lies on a
    majority; with it, the newest on any drive that a majority read shows: nobody else can write any more, and what
    its writer had not finished may be finished."""

    drives: tuple[str, ...]
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRecord:
    """Write ``record``, and ``snapshot`` into its area before it, durably, on the quorum drives.  ``previous`` is the
    record it follows (the hash chain), None for the first."""

    drives: tuple[str, ...]
    record: Record
    previous: Record | None = None
    snapshot: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Make this node's sets what the record says before a group is served: take the ``drop`` legs (set, leg bdev) out,
    and hide the ``refuse`` volumes (NQN, NSID), whose drives are failed."""

    drop: tuple[tuple[str, str], ...] = ()
    refuse: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachDrives:
    """Give these failed drives up on this node; mirrors drop their legs there."""

    drives: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """Put the ``add`` legs (set, leg bdev) back; done when they are equal again.  It takes as long as it takes, so it
    goes on beside other operations and has no deadline; a lost engine ends it."""

    groups: frozenset[GroupId]
    add: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KickHosts:
    """Take the data addresses of ``node`` over and make its hosts leave it at once (TCP)."""

    node: NodeName


Work = Fence | Verify | Register | ReadJournal | WriteRecord | Load | DetachDrives | Rebuild | KickHosts


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Work with the number that its outcome will carry.  The adapter answers every operation exactly once, at the
    latest ``deadline_ms`` after it was given (None: none); per-drive work has it for each drive on its own."""

    number: int
    work: Work
    deadline_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of operation ``number``: per drive for work on drives, ``ok`` for the rest.  ``found`` says whether a
    majority was read; ``record`` is then the newest one, None on drives that have never held one."""

    number: int
    answers: Mapping[str, Answer] = field(default_factory=dict)
    registrants: Mapping[str, frozenset[int]] = field(default_factory=dict)
    ok: bool = True
    found: bool = False
    record: Record | None = None
    problem: str = ""


# ------------------------------------------------------------------ orders of the operator


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Hands off (or on again): no takeover, no move, no lease."""

    number: int
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Keep this state: ``snapshot`` is what is stored, ``digest`` its SHA-256, ``expects`` the generation it follows.
    ``form`` asks for the first record on drives that hold none."""

    number: int
    generation: int
    expects: int
    snapshot: bytes
    digest: str
    form: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Take everything over now.  ``peer_is_off`` is the operator's word that the peer has no power."""

    number: int
    peer_is_off: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """A failed drive was replaced or has come back; it may be fenced and used again."""

    number: int
    drive: str


Order = Move | Pause | Save | TakeOver | Repaired


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The end of an order: ``code`` is empty when it was carried out, else a HA code with its reason."""

    number: int
    code: str = ""
    why: str = ""


# ------------------------------------------------------------------ in and out of the decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything a node sees at one moment.  ``map`` is that of the newest record whose snapshot was read, else the
    cached one; None until the array is known here.  ``newest`` is the highest position of a record that the peer's
    slots announce. ``outcome`` is one that has not been shown before; several wait for their cycles in turn.
    ``orders`` are new.  ``unfit`` says why this machine may not begin to serve."""

    engine: Engine = field(default_factory=Engine)
    peer: Peer = field(default_factory=Peer)
    slots: Slots = field(default_factory=Slots)
    drives: Drives = field(default_factory=Drives)
    map: ServiceMap | None = None
    newest: tuple[int, int] = (0, 0)
    outcome: Outcome | None = None
    orders: tuple[Order, ...] = ()
    holds: frozenset[NodeName] = frozenset()
    ports_up: int = 1
    ports: int = 1
    unfit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """End the data plane at once (SIGKILL): its connections drop, and hosts go to the other node."""

    key: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What the agent is to do.  ``serve`` and ``drain`` are wanted states, kept until they change: the adapter raises
    the groups in ``serve``, lowers all others, and ends the I/O of those in ``drain`` and reports them drained.
    ``lease_until`` is written to the leash's page: the data plane is killed when the local clock passes it; None
    leaves it unguarded (it serves nothing then, or hands are off).  ``operation`` is new work, at most one at a time
    but for ``Rebuild``; ``says`` goes into every heartbeat until the next cycle.  ``addresses`` are the nodes whose
    data addresses are to be up here; all others are to be down."""

    says: Says
    serve: frozenset[GroupId] = frozenset()
    drain: frozenset[GroupId] = frozenset()
    lease_until: int | None = None
    addresses: frozenset[NodeName] = frozenset()
    operation: Operation | None = None
    kill: Kill | None = None
    replies: tuple[Reply, ...] = ()
