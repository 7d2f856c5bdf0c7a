"""Which map an agent goes by: the one that the newest record names, and until then what it knew or was told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ha.journal import snapshot
from ha.maps import Built, Decoded, Maps
from ha.memory import Memory
from ha.model import Record, ServiceMap, SnapshotAt

UUID = "6d0d2fc6-6c40-4a9c-8dd2-4f1a47f4f0a1"


def packed(generation: int) -> bytes:
    service = ServiceMap(array_uuid=UUID, generation=generation, quorum=("d0",), block_bytes={"d0": 512, "d1": 4096})
    return snapshot.pack(snapshot.Snapshot(state=f"state {generation}", map=service))


def decoded(generation: int) -> Decoded:
    return Decoded.of(packed(generation))


def kept(maps: Maps) -> None:
    """As the agent does it beside its loop."""
    raw = maps.unkept()
    assert raw is not None
    maps.keep(raw)
    assert maps.unkept() is None


def remembering(at: SnapshotAt | None, sequence: int = 1) -> Memory:
    record = Record(array_uuid=UUID, epoch=1, sequence=sequence, leader="a", owners={}, members={"a": 1}, snapshot=at)
    return replace(Memory(node="a"), record=record)


def test_a_fresh_agent_knows_nothing_and_can_be_told(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    assert maps.current is None
    maps.learn(decoded(3))
    assert maps.current is not None
    assert (maps.current.generation, maps.certain) == (3, None)
    maps.learn(decoded(2))
    assert maps.current.generation == 3, "an older one changes nothing"
    with pytest.raises(ValueError, match="no snapshot"):
        Decoded.of(b"nonsense")
    kept(maps)
    again = Maps(tmp_path).current
    assert again == maps.current, "the next agent begins with it"


def test_what_a_record_names_is_wanted_until_it_is_read(tmp_path: Path) -> None:
    maps, raw = Maps(tmp_path), packed(5)
    at = snapshot.located(raw, 1, 5)
    memory = remembering(at)
    assert maps.wanted(Memory(node="a")) is None
    assert maps.wanted(memory) == at
    assert maps.newest(memory) is None
    assert not maps.take(at, decoded(6)), "another one is not taken for it"
    assert maps.wanted(memory) == at
    assert maps.take(at, Decoded.of(raw))
    assert maps.wanted(memory) is None
    assert maps.newest(memory) == raw
    assert maps.current is not None
    assert maps.current.generation == 5
    maps.learn(decoded(9))
    assert maps.current.generation == 5, "nobody tells better than the journal"


def test_what_an_order_brought_is_not_read_again(tmp_path: Path) -> None:
    maps, raw = Maps(tmp_path), packed(7)
    maps.offer(Decoded.of(raw))
    assert maps.current is None
    memory = remembering(snapshot.located(raw, 0, 7))
    assert maps.wanted(memory) is None
    assert maps.newest(memory) == raw


def test_a_cache_that_is_broken_is_none(tmp_path: Path) -> None:
    maps = Maps(tmp_path)
    maps.learn(decoded(3))
    kept(maps)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    assert Maps(tmp_path).current is None
    assert Maps(tmp_path / "gone").current is None


def test_what_was_built_is_kept_for_its_incarnation_only(tmp_path: Path) -> None:
    Built(tmp_path).keep(0xA1, 12)
    assert Built(tmp_path).of(0xA1) == 12
    assert Built(tmp_path).of(0xA2) == 0
    assert Built(tmp_path).of(0) == 0
    assert Built(tmp_path / "gone").of(0xA1) == 0
