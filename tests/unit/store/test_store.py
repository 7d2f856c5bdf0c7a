"""The state file: round trip, damage, staleness, one writer."""

from __future__ import annotations

from pathlib import Path

import pytest
from planner_model import Model, small_array

from controlplane.domain.errors import Conflict, Ws7000Error
from controlplane.domain.state import State
from controlplane.store import FileStore, codec


@pytest.fixture
def state() -> State:
    """A state with everything in it."""
    array = small_array()
    model = Model(array)
    model.settle(array)
    return model.state


def test_what_is_encoded_is_decoded(state: State) -> None:
    assert codec.decode(codec.encode(state)) == state


def test_equal_states_are_equal_bytes(state: State) -> None:
    assert codec.encode(codec.decode(codec.encode(state))) == codec.encode(state)


@pytest.mark.parametrize("at", [0, 30, 200, -10])
def test_a_flipped_byte_is_noticed(state: State, at: int) -> None:
    raw = bytearray(codec.encode(state))
    raw[at] ^= 0x01
    try:
        again = codec.decode(bytes(raw))
    except codec.BadStateError:
        return
    # Only the head's own spelling may differ unnoticed, and then the state is the same.
    assert again == state


def test_cut_anywhere_it_is_no_state(state: State) -> None:
    raw = codec.encode(state)
    for size in range(0, len(raw) - 1, 97):
        with pytest.raises(codec.BadStateError):
            codec.decode(raw[:size])


def test_saving_raises_the_generation_and_keeps_two_copies(tmp_path: Path, state: State) -> None:
    store = FileStore(tmp_path)
    assert store.load() is None
    first = store.save(State(array=state.array, uuid=state.uuid))
    assert first.generation == 1
    assert store.load() == first
    assert (tmp_path / "node-a.json").read_bytes() == (tmp_path / "node-b.json").read_bytes()


def test_a_stale_writer_is_refused(tmp_path: Path, state: State) -> None:
    store = FileStore(tmp_path)
    old = State(array=state.array, uuid=state.uuid)
    store.save(old)
    with pytest.raises(Conflict) as caught:
        store.save(old)
    assert caught.value.code == "STORE-002"


def test_the_newest_copy_wins_and_a_broken_one_is_not_passed_over(tmp_path: Path, state: State) -> None:
    store = FileStore(tmp_path)
    first = store.save(State(array=state.array, uuid=state.uuid))
    old = (tmp_path / "node-a.json").read_bytes()
    second = store.save(first)
    (tmp_path / "node-a.json").write_bytes(old)
    assert store.load() == second
    (tmp_path / "node-b.json").write_bytes(b"torn")
    with pytest.raises(Ws7000Error) as caught:
        store.load()
    assert caught.value.code == "STORE-001", "the torn copy may have been the newer one"


def test_damage_to_every_copy_is_refused_not_forgotten(tmp_path: Path, state: State) -> None:
    store = FileStore(tmp_path)
    store.save(State(array=state.array, uuid=state.uuid))
    for name in ("node-a.json", "node-b.json"):
        (tmp_path / name).write_bytes(b"\0" * 100)
    with pytest.raises(Ws7000Error) as caught:
        store.load()
    assert caught.value.code == "STORE-001"


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with FileStore(tmp_path).lock(), pytest.raises(Conflict) as caught, FileStore(tmp_path).lock():
        pass
    assert caught.value.code == "STORE-003"
    with FileStore(tmp_path).lock():
        pass
