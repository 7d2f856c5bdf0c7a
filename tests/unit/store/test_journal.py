"""The state behind the journal: drives first, files afterwards, and never one without the other once formed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from journal_drives import DriveAgents
from planner_model import Model, small_array

from controlplane.domain.desired import HaIntent
from controlplane.domain.errors import Conflict, Refused, Unreachable, Ws7000Error
from controlplane.domain.state import State
from controlplane.store import FileStore, HaStore, codec
from ha.journal.snapshot import unpack


@pytest.fixture
def state() -> State:
    """An array of six drives, three of which are to vote."""
    array = replace(small_array(), ha_intent=HaIntent(quorum_drives=3))
    model = Model(array)
    model.settle(array)
    return replace(model.state, generation=0)


@pytest.fixture
def agents() -> DriveAgents:
    """A leader over three empty drives."""
    return DriveAgents()


def moved(state: State, owner: str) -> State:
    """A change that is easily seen."""
    return replace(state, owners={"default": {1: owner}})


def formed(folder: Path, agents: DriveAgents, state: State) -> tuple[HaStore, State]:
    """A store whose array is formed."""
    store = HaStore(FileStore(folder), agents)
    store.save(state)
    return store, store.form()


def code_of(problem: pytest.ExceptionInfo[Ws7000Error]) -> str:
    """The code that was raised."""
    return problem.value.code


def test_before_it_is_formed_the_files_count(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store = HaStore(FileStore(tmp_path), agents)
    assert store.load() is None
    saved = store.save(state)
    assert store.load() == saved == FileStore(tmp_path).load()
    assert agents.leader_load() is None
    agents.answering = False
    assert store.load() == saved


def test_once_formed_every_save_is_on_the_drives(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    second = store.save(moved(first, "b"))
    assert store.load() == second == FileStore(tmp_path).load()
    found = agents.leader_load()
    assert found is not None
    whole = unpack(found[1])
    assert whole is not None
    assert codec.decode(whole.state.encode()) == second
    assert (found[0], whole.map.generation) == (second.generation, second.generation)


def test_the_other_node_reads_what_this_one_saved(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path / "a", agents, state)
    other = HaStore(FileStore(tmp_path / "b"), agents)
    assert other.load() == first
    second = other.save(moved(first, "b"))
    assert store.load() == second
    with pytest.raises(Conflict) as caught:
        store.save(moved(first, "a"))
    assert code_of(caught) == "STORE-002"


def test_the_drives_that_vote_stay_the_same(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    drives = tuple(replace(d, failure_domain="x" if d.name < "d4" else d.name) for d in first.array.drives)
    store.save(replace(first, array=replace(first.array, drives=drives)))
    found = agents.leader_load()
    assert found is not None
    whole = unpack(found[1])
    assert whole is not None
    assert whole.map.quorum == ("d0", "d1", "d2")


def test_formed_and_no_agent_is_refused_not_read_from_files(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    agents.answering = False
    for attempt in (store.load, lambda: store.save(first)):
        with pytest.raises(Unreachable) as caught:
            attempt()
        assert code_of(caught) == "STORE-007"


@pytest.mark.parametrize("reach", [0, 1])
def test_a_save_without_a_majority_changes_no_file(
    tmp_path: Path, agents: DriveAgents, state: State, reach: int
) -> None:
    store, first = formed(tmp_path, agents, state)
    agents.reach = reach
    with pytest.raises(Unreachable):
        store.save(moved(first, "b"))
    assert FileStore(tmp_path).load() == first
    assert store.load() == first


def test_a_crash_between_drives_and_files_is_made_good(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    copies = {path: path.read_bytes() for path in tmp_path.glob("node-*.json")}
    second = store.save(moved(first, "b"))
    for path, raw in copies.items():
        path.write_bytes(raw)
    assert store.load() == second
    store.save(moved(second, "a"))
    assert FileStore(tmp_path).load() == store.load()


def test_a_broken_copy_does_not_hide_the_journal(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    (tmp_path / "node-a.json").write_bytes(b"torn")
    assert store.load() == first


def test_files_newer_than_the_journal_are_an_alarm(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    FileStore(tmp_path).keep(replace(first, generation=first.generation + 1))
    with pytest.raises(Ws7000Error) as caught:
        store.load()
    assert code_of(caught) == "STORE-008"


def test_another_arrays_folder_is_an_alarm(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    store, first = formed(tmp_path, agents, state)
    FileStore(tmp_path).keep(replace(first, uuid="00000000-0000-4000-8000-000000000009"))
    with pytest.raises(Ws7000Error) as caught:
        store.load()
    assert code_of(caught) == "STORE-008"


def test_a_formed_array_whose_journal_is_gone_is_an_alarm(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    formed(tmp_path, agents, state)
    with pytest.raises(Ws7000Error) as caught:
        HaStore(FileStore(tmp_path), DriveAgents()).load()
    assert code_of(caught) == "STORE-008"


def test_it_is_formed_once_and_from_something(tmp_path: Path, agents: DriveAgents, state: State) -> None:
    with pytest.raises(Refused) as caught:
        HaStore(FileStore(tmp_path), agents).form()
    assert code_of(caught) == "STORE-006"
    store, _ = formed(tmp_path, agents, state)
    with pytest.raises(Conflict) as again:
        store.form()
    assert code_of(again) == "STORE-009"


def test_one_change_at_a_time(tmp_path: Path, agents: DriveAgents) -> None:
    store = HaStore(FileStore(tmp_path), agents)
    with store.lock(), pytest.raises(Conflict), store.lock():
        pass


def test_a_state_from_before_block_sizes_is_read(tmp_path: Path, state: State) -> None:
    import json

    import crc32c

    head, body = codec.encode(state).splitlines()
    old = json.loads(body)
    for drive in old["drives"].values():
        del drive["block_bytes"]
    text = json.dumps(old).encode()
    head = json.dumps({**json.loads(head), "crc32c": f"{crc32c.crc32c(text):08x}"}).encode()
    found = codec.decode(head + b"\n" + text + b"\n")
    assert {drive.block_bytes for drive in found.drives.values()} == {0}
