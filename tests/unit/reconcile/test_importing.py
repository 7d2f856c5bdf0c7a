"""What a set of drives says of its array: the newest state, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from journal_drives import Drive, plain
from planner_model import Model, small_array

from controlplane.domain.desired import Array, HaIntent
from controlplane.domain.errors import Refused
from controlplane.domain.state import State
from controlplane.planner.labels import Blank, Foreign, wanted_label
from controlplane.reconcile.drive_reader import Look
from controlplane.reconcile.importing import Found, judge, keep
from controlplane.store import FileStore, codec
from controlplane.store.service_map import service_map
from ha.journal import layout, record, snapshot
from ha.model import GroupId

UUID_OF_ANOTHER = "99999999-0000-4000-8000-000000000009"


class Drives:
    """The drives of a settled array, three of which vote, and a writer of its journal."""

    def __init__(self) -> None:
        self.array = replace(small_array(), ha_intent=HaIntent(quorum_drives=3))
        model = Model(self.array)
        model.settle(self.array)
        self.state = replace(model.state, generation=7)
        self.raw = {name: Drive() for name in self.state.drives}
        self.quorum = service_map(self.state).quorum
        self.last: record.Stored | None = None
        self.looks: dict[str, Look] = {}

    def write(
        self, state: State, *, on: Iterable[str] | None = None, snapshot_on: Iterable[str] | None = None
    ) -> record.Stored:
        """The next record and its snapshot, on these drives."""
        last = self.last.record if self.last else None
        whole = snapshot.Snapshot(state=codec.encode(state).decode(), map=service_map(state, self.quorum))
        packed = snapshot.pack(whole)
        area = snapshot.free_area(last.snapshot if last else None)
        one = replace(
            plain(1, last.sequence + 1 if last else 1, array=state.uuid),
            snapshot=snapshot.located(packed, area, state.generation),
            owners={GroupId("default", 1): "b", GroupId("default", 2): "b", GroupId("gone", 1): "a"},
        )
        raw = record.encode(one, self.last.digest if self.last else record.NO_PREVIOUS)
        for name in self.quorum if snapshot_on is None else snapshot_on:
            self.raw[name].write(layout.snapshot_at(area), layout.padded(packed))
        for name in self.quorum if on is None else on:
            self.raw[name].write(layout.record_at(one.sequence), raw)
        self.last = record.decode(raw)
        assert self.last is not None
        return self.last

    def look(self, *without: str, **instead: Look) -> dict[str, Look]:
        """What a reader sees of the drives but ``without``, with ``instead`` for some."""
        found = {
            name: Look(
                label=wanted_label(self.state, name),
                block_bytes=512,
                records=drive.records(),
                areas={0: drive.area(0), 1: drive.area(1)},
            )
            for name, drive in self.raw.items()
            if name not in without
        }
        return {**found, **instead}

    @property
    def given(self) -> Array:
        """What the admin writes down."""
        return replace(self.array, pools=(), subsystems=(), volumes=(), hosts=())


@pytest.fixture
def drives() -> Drives:
    """With one record, on all that vote."""
    made = Drives()
    made.write(made.state)
    return made


def refused(drives: Drives, looks: dict[str, Look], given: Array | None = None) -> Refused:
    """The refusal."""
    with pytest.raises(Refused) as caught:
        judge(given or drives.given, looks)
    return caught.value


def test_the_state_comes_with_the_owners_of_the_record(drives: Drives) -> None:
    found = judge(drives.given, drives.look())
    assert found.state == replace(drives.state, owners={"default": {1: "b"}})
    assert (found.settled, found.missing, found.spare, found.read) == (True, (), (), drives.quorum)


def test_the_file_says_where_things_are_now(drives: Drives) -> None:
    nodes = tuple(replace(node, rpc=f"/elsewhere/{node.name}.sock") for node in drives.given.nodes)
    places = tuple(
        replace(drive, source=replace(drive.source, address="203.0.113.9"))  # type: ignore[type-var]
        for drive in drives.given.drives[:3]
    )
    found = judge(replace(drives.given, nodes=nodes, drives=places), drives.look("d3", "d4", "d5"))
    array = found.state.array
    assert array.nodes == nodes
    assert array.drives == (*places, *drives.array.drives[3:])
    assert (array.volumes, array.pools, array.hosts) == (drives.array.volumes, drives.array.pools, drives.array.hosts)
    assert found.missing == ("d3", "d4", "d5")


def test_a_newer_record_wins_even_before_it_is_on_a_majority(drives: Drives) -> None:
    newer = replace(drives.state, generation=8)
    drives.write(newer, on=["d0"])
    found = judge(drives.given, drives.look())
    assert (found.state.generation, found.settled) == (8, False)


def test_a_record_whose_state_is_nowhere_never_counted(drives: Drives) -> None:
    drives.write(replace(drives.state, generation=8), on=["d0"], snapshot_on=[])
    found = judge(drives.given, drives.look())
    assert (found.state.generation, found.settled) == (7, True)


def test_a_stale_quorum_drive_changes_nothing(drives: Drives) -> None:
    drives.write(replace(drives.state, generation=8), on=["d1", "d2"])
    for without in ((), ("d1",), ("d2",), ("d0",)):
        assert judge(drives.given, drives.look(*without)).state.generation == 8


def test_two_of_three_unread_are_no_majority(drives: Drives) -> None:
    problem = refused(drives, drives.look("d1", d2=Look(why="it is not attached")))
    assert problem.code == "HA-013"
    assert "d1 (not in the file)" in problem.why
    assert "d2 (it is not attached)" in problem.why


def test_a_wiped_quorum_drive_does_not_vote(drives: Drives) -> None:
    found = judge(drives.given, drives.look(d1=Look(label=Blank())))
    assert (found.read, found.missing, found.spare) == (("d0", "d2"), ("d1",), ("d1",))
    assert refused(drives, drives.look("d2", d1=Look(label=Foreign(what="a file system")))).code == "HA-013"


def test_drives_of_two_arrays_are_refused(drives: Drives) -> None:
    label = replace(wanted_label(drives.state, "d5"), array_uuid=UUID_OF_ANOTHER)
    problem = refused(drives, drives.look(d5=Look(label=label)))
    assert problem.code == "HA-012"
    assert UUID_OF_ANOTHER in problem.why


def test_another_arrays_journal_under_our_labels_is_nothing(drives: Drives) -> None:
    for name in drives.quorum:
        drives.raw[name] = Drive()
    drives.last = None
    drives.write(replace(drives.state, uuid=UUID_OF_ANOTHER))
    assert refused(drives, drives.look()).code == "HA-017"


def test_swapped_drives_are_refused(drives: Drives) -> None:
    looks = drives.look()
    looks["d0"], looks["d1"] = looks["d1"], looks["d0"]
    problem = refused(drives, looks)
    assert (problem.code, problem.why) == ("HA-018", "d0 is d1; d1 is d0")


def test_another_name_is_refused(drives: Drives) -> None:
    problem = refused(drives, drives.look(), replace(drives.given, name="other"))
    assert problem.code == "HA-018"
    assert "name: t" in problem.remedy


def test_a_drive_that_was_adopted_later_shows_a_stale_journal(drives: Drives) -> None:
    label = replace(wanted_label(drives.state, "d5"), drive="d9")
    assert refused(drives, drives.look(d9=Look(label=label))).code == "HA-015"
    cut = replace(wanted_label(drives.state, "d5"), slice_count=3)
    assert refused(drives, drives.look(d5=Look(label=cut))).code == "HA-015"


def test_a_newest_record_without_its_state_on_a_majority_is_refused(drives: Drives) -> None:
    drives.write(replace(drives.state, generation=8), snapshot_on=[])
    assert refused(drives, drives.look()).code == "HA-015"


def test_nothing_to_import(drives: Drives) -> None:
    blank = {name: Look(label=Blank()) for name in drives.raw}
    assert refused(drives, blank).code == "HA-017"
    silent = {name: Look(why="no answer") for name in drives.raw}
    assert "d0: no answer" in refused(drives, silent).why
    for name in drives.quorum:
        drives.raw[name] = Drive()
    assert refused(drives, drives.look()).code == "HA-017"


def test_registrations_that_stand_are_named(drives: Drives) -> None:
    problem = refused(drives, drives.look(d4=Look(conflict=True, why="it answers Reservation Conflict")))
    assert (problem.code, problem.details) == ("HA-016", {"drives": ["d4"]})


def test_only_an_older_state_of_the_same_array_is_written_over(drives: Drives, tmp_path: Path) -> None:
    found: Found = judge(drives.given, drives.look())
    files = FileStore(tmp_path)
    keep(found, files)
    assert files.load() == found.state
    with pytest.raises(Refused) as caught:
        keep(found, files)
    assert caught.value.code == "STORE-010"
    files.keep(replace(found.state, generation=1))
    keep(found, files)
    files.keep(replace(found.state, generation=1, uuid=UUID_OF_ANOTHER))
    with pytest.raises(Refused):
        keep(found, files)
