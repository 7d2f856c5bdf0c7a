"""Records and snapshots as bytes: what is too large, what is hostile, what is left over."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import replace

import pytest
from journal_drives import ARRAY, Drive, plain, stored

from controlplane.domain.errors import Refused
from ha.journal import layout, record, snapshot
from ha.model import GroupId, ServiceMap


def sealed(body: bytes, version: int = 1) -> bytes:
    """A record around any body, with a right checksum."""
    return record.framed(body, record.NO_PREVIOUS, version)


def body(**changed: object) -> bytes:
    """The JSON of a good record with something changed."""
    raw = record.encode(plain(1, 1), record.NO_PREVIOUS)
    length = struct.unpack_from("<I", raw, 16)[0]
    good = json.loads(raw[52 : 52 + length])
    return json.dumps({**good, **changed}, sort_keys=True, separators=(",", ":")).encode()


def test_the_length_of_a_record_is_in_its_first_unit() -> None:
    short = record.encode(plain(1, 1), record.NO_PREVIOUS)
    groups = {GroupId(f"subsystem-{number:03}", 1): "a" for number in range(300)}
    long = record.encode(replace(plain(1, 2), owners=groups), record.NO_PREVIOUS)  # type: ignore[arg-type]
    assert len(short) == layout.UNIT_BYTES < len(long)
    for whole in (short, long):
        assert record.length_of(whole[: layout.UNIT_BYTES]) == len(whole)
    assert record.length_of(bytes(layout.UNIT_BYTES)) == 0
    assert record.length_of(long[:51]) == 0
    boasts = bytearray(long)
    struct.pack_into("<I", boasts, 16, layout.RECORD_BYTES)
    assert record.length_of(bytes(boasts)) == 0


def test_a_sealed_good_body_is_a_record() -> None:
    found = record.decode(sealed(body()))
    assert found is not None
    assert found.record == plain(1, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"extra": 1},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 1.0},
        {"epoch": 2**64},
        {"sequence": "1"},
        {"leader": "c"},
        {"owners": {"default/3": "a"}},
        {"owners": {"/1": "a"}},
        {"owners": []},
        {"members": {"a": None}},
        {"failed": ["d1", "d1"]},
        {"failed": ["d2", "d1"]},
        {"failed": "d1"},
        {"resync": ["default"]},
        {"paused": 0},
        {"snapshot": {}},
        {"snapshot": {"area": 2, "generation": 1, "sha256": "", "size_bytes": 1}},
        {"array_uuid": None},
    ],
)
def test_what_is_no_record_of_ours_is_none(changed: dict[str, object]) -> None:
    assert record.decode(sealed(body(**changed))) is None


@pytest.mark.parametrize(
    "hostile",
    [b"[" * 16000, b'{"a":' * 3000, b"9" * 16000, b"\xff\xfe", b'"\\ud800"', b"", b"null", b"NaN", b" " + body()],
)
def test_a_hostile_body_with_a_right_checksum_is_none(hostile: bytes) -> None:
    assert record.decode(sealed(hostile)) is None


def test_another_format_is_none() -> None:
    assert record.decode(sealed(body(), version=2)) is None


def test_a_length_beyond_the_place_is_none() -> None:
    raw = bytearray(sealed(b"x" * 20000))
    assert record.decode(bytes(raw)) is None


def test_what_an_older_longer_record_left_behind_does_not_count() -> None:
    long = replace(plain(1, 1), owners={GroupId(f"subsystem-{i:03}", 1): "a" for i in range(300)})
    drive = Drive()
    drive.write(layout.record_at(1), record.encode(long, record.NO_PREVIOUS))
    assert len(record.encode(long, record.NO_PREVIOUS)) > layout.UNIT_BYTES
    later = record.encode(plain(2, 17), record.NO_PREVIOUS)
    drive.write(layout.record_at(17), later)
    assert [one.record for one in drive.records()] == [plain(2, 17)]
    assert drive.records()[0].digest == record.digest_of(later) == hashlib.sha256(later).digest()


def test_a_record_in_the_wrong_place_is_left_out() -> None:
    drive = Drive()
    drive.write(layout.record_at(2), record.encode(plain(1, 1), record.NO_PREVIOUS))
    assert drive.records() == ()


def test_a_record_that_is_too_large_is_refused() -> None:
    large = replace(plain(1, 1), owners={GroupId(f"subsystem-{i:05}", 1): "a" for i in range(1000)})
    with pytest.raises(Refused) as caught:
        record.encode(large, record.NO_PREVIOUS)
    assert caught.value.code == "HA-010"


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        record.encode(plain(1, 1), b"")


def test_the_chain_is_in_the_record() -> None:
    first = stored(1, 1)
    assert stored(1, 2, first.digest).previous == first.digest


# ------------------------------------------------------------------ snapshots

MAP = ServiceMap(array_uuid=ARRAY, generation=3, quorum=("d1",), block_bytes={"d1": 512})


def test_a_snapshot_that_is_too_large_is_refused() -> None:
    noise = "".join(hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(20000))
    with pytest.raises(Refused) as caught:
        snapshot.pack(snapshot.Snapshot(state=noise, map=MAP))
    assert caught.value.code == "HA-011"


def test_a_snapshot_that_unpacks_without_end_is_none() -> None:
    bomb = zlib.compress(b" " * (snapshot.UNPACKED_BYTES + 1))
    assert len(bomb) < layout.SNAPSHOT_BYTES
    assert snapshot.unpack(bomb) is None


def packed(**changed: object) -> bytes:
    """A container whose map has something changed."""
    return zlib.compress(json.dumps({"map": {**snapshot.map_to_json(MAP), **changed}, "state": "s"}).encode())


def test_a_packed_good_map_is_a_snapshot() -> None:
    assert snapshot.unpack(packed()) == snapshot.Snapshot(state="s", map=MAP)


@pytest.mark.parametrize(
    "changed",
    [
        {"quorum": []},
        {"quorum": ["d1", "d2"]},
        {"quorum": ["d2"]},
        {"quorum": ["d1", "d1", "d1"]},
        {"block_bytes": {"d1": 0}},
        {"groups": {"default/1": {}}},
        {"generation": None},
        {"more": 1},
    ],
)
def test_what_is_no_map_is_none(changed: dict[str, object]) -> None:
    assert snapshot.unpack(packed(**changed)) is None


def test_the_record_finds_its_snapshot_and_the_next_goes_elsewhere() -> None:
    raw = snapshot.pack(snapshot.Snapshot(state="s", map=MAP))
    at = snapshot.located(raw, snapshot.free_area(None), 3)
    assert snapshot.verified(layout.padded(raw) + bytes(4096), at) == raw
    assert snapshot.verified(raw[:-1], at) is None
    assert snapshot.verified(bytes(len(raw)), at) is None
    assert (at.area, snapshot.free_area(at)) == (0, 1)
