"""The map that agents work by: groups, listeners, mirrored sets, and the drives that vote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from planner_model import Model, small_array

from controlplane.domain.desired import HaIntent
from controlplane.domain.errors import Refused
from controlplane.domain.state import SliceRef, State
from controlplane.planner.image import volume_stack
from controlplane.store.service_map import choose_quorum, service_map
from ha.journal.snapshot import Snapshot, pack, unpack
from ha.model import GroupId, ListenerAt


@pytest.fixture
def state() -> State:
    """Six drives, a volume of each kind, three drives to vote."""
    array = replace(small_array(), ha_intent=HaIntent(quorum_drives=3))
    model = Model(array)
    model.settle(array)
    return model.state


def in_domains(state: State, domains: Iterable[str | None]) -> State:
    """The same array with these failure domains, drive by drive."""
    drives = tuple(
        replace(drive, failure_domain=domain) for drive, domain in zip(state.array.drives, domains, strict=True)
    )
    return replace(state, array=replace(state.array, drives=drives))


def test_groups_and_their_listeners(state: State) -> None:
    found = service_map(state)
    assert set(found.groups) == {GroupId("default", 1), GroupId("default", 2)}
    group = found.groups[GroupId("default", 1)]
    assert group.nqn == state.subsystems["default"].nqn
    assert group.listeners == {
        "a": (ListenerAt(transport="tcp", address="192.0.2.1", service=4420),),
        "b": (ListenerAt(transport="tcp", address="192.0.2.2", service=4420),),
    }
    names = {number: [n.volume for n in found.groups[GroupId("default", number)].namespaces] for number in (1, 2)}
    for number, volumes in names.items():
        assert sorted(volumes) == sorted(v.name for v in state.volumes.values() if v.group == number)
    assert (found.array_uuid, found.generation) == (state.uuid, state.generation)
    assert found.block_bytes == dict.fromkeys(state.drives, 512)


def test_namespaces_stand_on_what_the_planner_builds(state: State) -> None:
    spaces = {one.volume: one for group in service_map(state).groups.values() for one in group.namespaces}
    assert spaces["v1"].bare == state.volumes["v1"].drives
    assert spaces["v1"].mirrors == ()
    assert spaces["v2"].bare == ()
    sets = {(m.name, tuple(leg.bdev for leg in m.legs)) for m in spaces["v2"].mirrors}
    assert sets == {(r.name, r.members) for r in volume_stack(state.volumes["v2"]) if r.level == "raid1"}
    legs = {leg.drive for mirror in spaces["v2"].mirrors for leg in mirror.legs}
    assert legs == set(state.volumes["v2"].drives)


def test_a_volume_that_is_not_zeroed_is_not_served(state: State) -> None:
    dirty = replace(state.volumes["v1"], unscrubbed=frozenset({SliceRef("d0", 1)}))
    found = service_map(replace(state, volumes={**state.volumes, "v1": dirty}))
    assert all(one.volume != "v1" for group in found.groups.values() for one in group.namespaces)


def test_the_map_goes_through_a_snapshot(state: State) -> None:
    whole = Snapshot(state="text", map=service_map(state))
    assert unpack(pack(whole)) == whole


def test_drives_that_vote_are_spread_over_failure_domains(state: State) -> None:
    assert choose_quorum(state) == ("d0", "d1", "d2")
    spread = in_domains(state, ("x", "x", "x", "x", "y", "z"))
    assert choose_quorum(spread) == ("d0", "d4", "d5")
    two = in_domains(state, ("x", "x", "x", "y", "y", "y"))
    assert choose_quorum(two) == ("d0", "d3", "d1")


def test_a_quorum_that_was_chosen_is_kept(state: State) -> None:
    chosen = service_map(state).quorum
    later = in_domains(state, ("x", "x", "x", "x", "y", "z"))
    assert service_map(later, chosen).quorum == chosen
    more = replace(later, array=replace(later.array, ha_intent=HaIntent(quorum_drives=5)))
    assert service_map(more, chosen).quorum == chosen


def test_a_drive_that_votes_cannot_leave(state: State) -> None:
    without = replace(state, drives={name: one for name, one in state.drives.items() if name != "d1"})
    with pytest.raises(Refused) as caught:
        service_map(without, ("d0", "d1", "d2"))
    assert caught.value.code == "STORE-005"


def test_too_few_drives_are_no_quorum(state: State) -> None:
    few = replace(state, array=replace(state.array, ha_intent=HaIntent(quorum_drives=7)))
    with pytest.raises(Refused) as caught:
        service_map(few)
    assert caught.value.code == "STORE-006"


def test_a_block_size_is_never_guessed(state: State) -> None:
    old = replace(state.drives["d3"], block_bytes=0)
    with pytest.raises(Refused) as caught:
        service_map(replace(state, drives={**state.drives, "d3": old}))
    assert caught.value.code == "STORE-006"


def test_a_drive_seen_again_tells_its_block_size() -> None:
    array = small_array()
    model = Model(array)
    model.settle(array)
    drives = {name: replace(one, block_bytes=0) for name, one in model.state.drives.items()}
    before = model.state
    model.state = replace(model.state, drives=drives)
    model.settle(array)
    assert model.state.drives == before.drives
