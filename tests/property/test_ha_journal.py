"""The journal under tears, stale drives and changing writers: an old or the new record, never another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from journal_drives import ARRAY, STRANGER, Drive, plain, records, service_maps, stored

from ha.journal import layout, record, snapshot
from ha.journal.quorum import Newest, newest
from ha.model import Record, ServiceMap, SnapshotAt

digests = st.binary(min_size=32, max_size=32)
CUT = st.integers(0, layout.UNIT_BYTES)


@given(records, digests)
def test_what_is_encoded_is_decoded(one: Record, previous: bytes) -> None:
    raw = record.encode(one, previous)
    found = record.decode(raw)
    assert found == record.Stored(record=one, digest=record.digest_of(raw), previous=previous)
    assert len(raw) % layout.UNIT_BYTES == 0
    assert len(raw) <= layout.RECORD_BYTES


@given(records, digests, st.data())
def test_one_wrong_bit_is_no_record(one: Record, previous: bytes, data: st.DataObject) -> None:
    raw = bytearray(record.encode(one, previous))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert record.decode(bytes(raw)) is None


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_no_record_and_no_snapshot(raw: bytes, magic: bool) -> None:
    assert record.decode(record.MAGIC + raw if magic else raw) is None
    assert snapshot.unpack(raw) is None


@given(records, records, st.data())
def test_a_torn_record_over_an_older_one_is_either_or_none(old: Record, new: Record, data: st.DataObject) -> None:
    old_raw, new_raw = record.encode(old, bytes(32)), record.encode(new, bytes(32))
    cut = data.draw(st.integers(0, len(new_raw)))
    place = (new_raw[:cut] + old_raw[cut:]).ljust(layout.RECORD_BYTES, b"\0")
    found = record.decode(place)
    assert found is None or found.record in (old, new)


@given(st.text(st.characters(codec="utf-8")), service_maps(), st.data())
def test_a_snapshot_is_read_back_or_cut_is_none(state: str, service: ServiceMap, data: st.DataObject) -> None:
    whole = snapshot.Snapshot(state=state, map=service)
    raw = snapshot.pack(whole)
    assert snapshot.unpack(raw) == whole
    assert snapshot.unpack(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


class Array:
    """Quorum drives with a writer that keeps the rules; what it could not finish makes way for the next writer."""

    def __init__(self, size: int) -> None:
        self.names = tuple(f"d{i}" for i in range(size))
        self.drives = {name: Drive() for name in self.names}
        self.epoch = 1
        self.last: record.Stored | None = None
        self.written: dict[bytes, record.Stored] = {}
        self.settled: list[record.Stored] = []
        self.snapshots: dict[str, str] = {}

    @property
    def majority(self) -> int:
        return len(self.names) // 2 + 1

    def read(self, names: Sequence[str]) -> Newest:
        """A reader that reaches these drives."""
        return newest({name: self.drives[name].records() for name in names}, self.names, ARRAY)

    def put(self, at: int, raw: bytes, cuts: Sequence[int | None]) -> bool:
        """Write to each drive as far as its cut; whether a majority has all of it."""
        for drive, cut in zip(self.drives.values(), cuts, strict=True):
            drive.write(at, raw, cut)
        return sum(cut is None for cut in cuts) >= self.majority

    def save(self, text: str, cuts: Sequence[int | None], more: Sequence[int | None]) -> bool:
        """Write a state: its snapshot, then its record; False where the writer failed and may write no more."""
        last = self.last.record.snapshot if self.last else None
        service = ServiceMap(array_uuid=ARRAY, generation=1, quorum=("d0",), block_bytes={"d0": 512})
        packed = snapshot.pack(snapshot.Snapshot(state=text, map=service))
        area = snapshot.free_area(last)
        if not self.put(layout.snapshot_at(area), layout.padded(packed), cuts):
            return False
        at = snapshot.located(packed, area, 1)
        self.snapshots[at.sha256] = text
        return self.record(at, more)

    def record(self, at: SnapshotAt | None, cuts: Sequence[int | None]) -> bool:
        """Write the next record; whether it counts now."""
        sequence = self.last.record.sequence + 1 if self.last else 1
        one = replace(plain(self.epoch, sequence, leader="a" if self.epoch % 2 else "b"), snapshot=at)
        raw = record.encode(one, self.last.digest if self.last else record.NO_PREVIOUS)
        kept = record.decode(raw)
        assert kept is not None
        self.written[kept.digest] = kept
        done = self.put(layout.record_at(sequence), raw, cuts)
        if done:
            self.settled.append(kept)
            self.last = kept
        return done

    def take_over(self, names: Sequence[str]) -> None:
        """The other node, after its fence: it goes on from the newest record on any drive that it reaches."""
        found = self.read(names)
        assert found.found
        self.last, self.epoch = found.highest, self.epoch + 1

    def begin(self, cuts: Sequence[int | None]) -> bool:
        """A new leader's first record: the old snapshot under the new epoch.  A snapshot of its own before that would
        go over the one of a record that it has not seen and another may yet find."""
        return self.record(self.last.record.snapshot if self.last else None, cuts)


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int | None]:
    """How far a write gets on each drive: all, nothing, or torn."""
    return draw(st.lists(st.none() | st.just(0) | CUT, min_size=size, max_size=size))


def some_majority(data: st.DataObject, array: Array) -> list[str]:
    """A majority of the drives, or more."""
    names = data.draw(st.permutations(array.names))
    return list(names[: data.draw(st.integers(array.majority, len(names)))])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from((1, 3, 5)), st.data())
def test_a_majority_read_sees_what_a_majority_holds(size: int, data: st.DataObject) -> None:
    array = Array(size)
    for number in range(data.draw(st.integers(1, 24))):
        # Most writes go well, so that the ring of places comes round.
        well: list[int | None] = [None] * size
        first, second = (data.draw(st.just(well) | cuts(size)) for _ in range(2))
        if not array.save(f"state {number}", first, second):
            array.take_over(some_majority(data, array))
            while not array.begin(data.draw(st.just(well) | cuts(size))):
                array.take_over(some_majority(data, array))
        names = some_majority(data, array)
        found = array.read(names)
        assert found.found
        assert found.refused == ()
        newest_settled = max((one.record.at for one in array.settled), default=(0, 0))
        assert (found.highest.record.at if found.highest else (0, 0)) >= newest_settled
        for one in (found.certain, found.highest):
            assert one is None or array.written[one.digest] == one
        if found.highest is not None and found.highest.record.snapshot is not None:
            at = found.highest.record.snapshot
            areas = (snapshot.verified(array.drives[name].area(at.area), at) for name in names)
            raw = next(one for one in areas if one is not None)
            whole = snapshot.unpack(raw)
            assert whole is not None
            assert whole.state == array.snapshots[at.sha256]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from((3, 5)), st.data())
def test_stale_and_strange_drives_in_a_minority_change_nothing(size: int, data: st.DataObject) -> None:
    array = Array(size)
    well: list[int | None] = [None] * size
    for number in range(data.draw(st.integers(1, 8))):
        array.save(f"state {number}", well, well)
    fooled = data.draw(st.permutations(array.names))[: size - array.majority]
    for name in fooled:
        drive = array.drives[name]
        match data.draw(st.sampled_from(("blank", "older", "stranger", "torn"))):
            case "blank":
                drive.raw[:] = bytes(len(drive.raw))
            case "older":
                for sequence in range(data.draw(st.integers(1, 8)), 9):
                    drive.write(layout.record_at(sequence), bytes(layout.RECORD_BYTES))
            case "stranger":
                drive.raw[:] = bytes(len(drive.raw))
                drive.write(layout.record_at(9), record.encode(plain(99, 9, array=STRANGER), bytes(32)))
            case _:
                assert array.last is not None
                at = layout.record_at(array.last.record.sequence + 1)
                raw = record.encode(plain(array.epoch, array.last.record.sequence + 1), array.last.digest)
                drive.write(at, raw, data.draw(st.integers(0, 200)))
    found = array.read(array.names)
    assert found.found
    assert found.certain == found.highest == array.last


@settings(deadline=None, max_examples=40)
@given(st.sampled_from((3, 5)), st.data())
def test_a_minority_of_drives_decides_nothing(size: int, data: st.DataObject) -> None:
    array = Array(size)
    array.save("state", [None] * size, [None] * size)
    names = data.draw(st.permutations(array.names))[: array.majority - 1]
    assert not array.read(list(names)).found


@given(st.sampled_from((3, 5)), st.data())
def test_two_writers_of_one_epoch_never_both_count(size: int, data: st.DataObject) -> None:
    """What the leader rule forbids: two records under one number.  No two readers may be certain of different ones."""
    names = tuple(f"d{i}" for i in range(size))
    first = stored(1, 1)
    rivals = (stored(1, 2, first.digest), stored(1, 2, first.digest, paused=True))
    holds = {name: data.draw(st.sampled_from(((first,), (first, rivals[0]), (first, rivals[1])))) for name in names}
    certain = set()
    for count in range(size // 2 + 1, size + 1):
        for reached in combinations(names, count):
            found = newest({name: holds[name] for name in reached}, names, ARRAY)
            if found.found and found.certain is not None:
                certain.add(found.certain.digest)
            both = {one.digest for name in reached for one in holds[name]} >= {one.digest for one in rivals}
            if both and found.found and found.highest in rivals:
                # Believed only because a majority holds it, or nothing else can be on one.
                assert found.certain == found.highest
    assert len(certain & {one.digest for one in rivals}) <= 1
