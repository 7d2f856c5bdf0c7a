"""Quorum drives as bytes, and records and maps to put on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from controlplane.domain.errors import Conflict, Unreachable
from ha.journal import layout, record, snapshot
from ha.journal.quorum import newest
from ha.journal.record import Stored
from ha.model import GroupId, GroupMap, Leg, ListenerAt, MirrorMap, NamespaceMap, Record, ServiceMap, SnapshotAt

ARRAY = "6b0ff5c8-2d65-4d0c-8ae2-0f4a1b5b3f11"
STRANGER = "11111111-2222-4333-8444-555555555555"

names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
numbers = st.integers(0, 2**64 - 1)
nodes = st.sampled_from(("a", "b"))
groups = st.builds(GroupId, names, st.sampled_from((1, 2)))
snapshots = st.builds(
    SnapshotAt,
    area=st.sampled_from((0, 1)),
    size_bytes=numbers,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    generation=numbers,
)
records = st.builds(
    Record,
    array_uuid=st.just(ARRAY),
    epoch=numbers,
    sequence=numbers,
    leader=nodes,
    owners=st.dictionaries(groups, nodes, max_size=6),
    members=st.dictionaries(nodes, numbers),
    failed=st.frozensets(names, max_size=4),
    resync=st.frozensets(groups, max_size=4),
    evictions=st.dictionaries(nodes, numbers),
    paused=st.booleans(),
    snapshot=st.none() | snapshots,
)
_listeners = st.lists(
    st.builds(ListenerAt, transport=st.sampled_from(("tcp", "rdma")), address=names, service=st.integers(0, 65535)),
    max_size=2,
).map(tuple)
_legs = st.lists(st.builds(Leg, bdev=names, drive=names), max_size=2).map(tuple)
_namespaces = st.builds(
    NamespaceMap,
    nsid=st.integers(0, 2**32 - 1),
    volume=names,
    bare=st.lists(names, max_size=3, unique=True).map(tuple),
    mirrors=st.lists(st.builds(MirrorMap, name=names, legs=_legs), max_size=2).map(tuple),
)
_group_maps = st.builds(
    GroupMap,
    nqn=names,
    listeners=st.dictionaries(nodes, _listeners),
    namespaces=st.lists(_namespaces, max_size=3).map(tuple),
)


@st.composite
def service_maps(draw: st.DrawFn) -> ServiceMap:
    """A map whose quorum is an odd number of its drives."""
    blocks = draw(st.dictionaries(names, st.sampled_from((512, 4096)), min_size=1, max_size=6))
    size = draw(st.sampled_from(range(1, len(blocks) + 1, 2)))
    return ServiceMap(
        array_uuid=ARRAY,
        generation=draw(numbers),
        quorum=tuple(draw(st.permutations(sorted(blocks)))[:size]),
        block_bytes=blocks,
        groups=draw(st.dictionaries(groups, _group_maps, max_size=3)),
    )


def plain(epoch: int, sequence: int, *, leader: str = "a", array: str = ARRAY, paused: bool = False) -> Record:
    """A small record."""
    return Record(
        array_uuid=array,
        epoch=epoch,
        sequence=sequence,
        leader="a" if leader == "a" else "b",
        owners={GroupId("default", 1): "a"},
        members={"a": 1},
        paused=paused,
    )


def stored(epoch: int, sequence: int, previous: bytes = record.NO_PREVIOUS, **rest: object) -> Stored:
    """That record as it is read back."""
    found = record.decode(record.encode(plain(epoch, sequence, **rest), previous))  # type: ignore[arg-type]
    assert found is not None
    return found


@dataclass
class Drive:
    """Slice 0 of one drive; writes may be cut short."""

    raw: bytearray = field(default_factory=lambda: bytearray(layout.END_BYTES))

    def write(self, at: int, data: bytes, cut: int | None = None) -> None:
        """Write the first ``cut`` bytes of ``data``, or all of them."""
        part = data[:cut]
        self.raw[at : at + len(part)] = part

    def records(self) -> tuple[Stored, ...]:
        """What its journal area holds."""
        return record.decode_area(bytes(self.raw[layout.JOURNAL_AT : layout.SNAPSHOT_AT]))

    def area(self, number: int) -> bytes:
        """What a snapshot area holds."""
        at = layout.snapshot_at(number)
        return bytes(self.raw[at : at + layout.SNAPSHOT_BYTES])


class DriveAgents:
    """What the agents do for the store, over drives as bytes: one leader that writes with the real codecs.

    ``answering`` False is an agent that nobody reaches; ``reach`` are how many drives each following record gets to."""

    def __init__(self, size: int = 3) -> None:
        self.names = tuple(f"q{i}" for i in range(size))
        self.drives = {name: Drive() for name in self.names}
        self.answering = True
        self.reach = size

    def _newest(self) -> Stored | None:
        if not self.answering:
            raise Unreachable("RPC-001", "no agent answers")
        found = newest({name: drive.records() for name, drive in self.drives.items()}, self.names)
        assert found.found
        return found.certain

    def leader_load(self) -> tuple[int, bytes] | None:
        """From the newest record's snapshot."""
        last = self._newest()
        if last is None or last.record.snapshot is None:
            return None
        at = last.record.snapshot
        areas = (snapshot.verified(drive.area(at.area), at) for drive in self.drives.values())
        return at.generation, next(raw for raw in areas if raw is not None)

    def leader_save(self, expects: int, generation: int, raw: bytes, *, form: bool = False) -> None:
        """Snapshot, then record, as far as ``reach`` goes."""
        last = self._newest()
        if (last is None) != form or (last is not None and _generation(last) != expects):
            raise Conflict("STORE-002", "the journal is elsewhere")
        at = snapshot.located(raw, snapshot.free_area(last.record.snapshot if last else None), generation)
        one = replace(plain(1, last.record.sequence + 1 if last else 1), snapshot=at)
        encoded = record.encode(one, last.digest if last else record.NO_PREVIOUS)
        for name in self.names:
            self.drives[name].write(layout.snapshot_at(at.area), layout.padded(raw))
        for name in self.names[: self.reach]:
            self.drives[name].write(layout.record_at(one.sequence), encoded)
        if self.reach <= len(self.names) // 2:
            raise Unreachable("RPC-001", "the leader has no majority")


def _generation(last: Stored) -> int:
    return last.record.snapshot.generation if last.record.snapshot else 0
