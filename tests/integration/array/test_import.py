"""Two fresh nodes find an array on its drives alone: real engines, raw commands, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from journal_drives import plain
from journal_lab import Writer, bare, fresh_nodes, registrants, reserve, with_ha
from small_lab import MIB, SmallLab, small_lab
from volume_io import contents, expected, fill

from cli.main import main
from controlplane.domain.desired import Array, HaMode, Volume
from controlplane.domain.state import State
from controlplane.planner import labels
from controlplane.planner.steps import Risk
from controlplane.reconcile.reconciler import Reconciler
from controlplane.spec.load import load, to_yaml
from controlplane.store import FileStore
from controlplane.store.journal import FORMED
from dataplane.launch import EngineKind
from dataplane.rpc.session import Session
from ha.journal import layout, record
from ha.keys import life_of, make_key


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[SmallLab]:
    """An array with a striped and a mirrored volume, to be applied."""
    volumes = (
        Volume(name="wide", size_bytes=3 * MIB, pool="fast", home="a", hosts=("h1",)),
        Volume(name="safe", size_bytes=2 * MIB, pool="safe", home="b", hosts=("h1",)),
    )
    with small_lab(kind, tmp_path, *volumes) as running:
        running.array = with_ha(running.array)
        yield running


def applied(lab: SmallLab) -> State:
    """The array is made as without agents, and its state is what a journal would hold."""
    with Reconciler.in_folder(without_agents(lab.array), lab.folder / "state") as reconciler:
        state = reconciler.apply().state
    return replace(state, array=replace(lab.array, volumes=state.array.volumes, subsystems=state.array.subsystems))


def without_agents(array: Array) -> Array:
    return replace(array, ha=HaMode.NONE, ha_intent=None)


def lose_folder(lab: SmallLab) -> None:
    """Nothing but the drives is left."""
    shutil.rmtree(lab.folder / "state")
    fresh_nodes(lab)


def run_import(lab: SmallLab, *words: str, file: str | None = None) -> tuple[int, dict[str, object], str]:
    """Status, result and error of the command."""
    path = lab.folder / "drives.yaml"
    path.write_text(file or to_yaml(bare(lab.array)))
    given = ["array", "import", "-f", str(path), "--state", str(lab.folder / "state"), "-o", "json", *words]
    result = CliRunner().invoke(main, given)
    body = json.loads(result.stdout) if result.stdout else {}
    return result.exit_code, body, result.stderr


def test_an_array_is_found_on_its_drives_and_serves_its_data(lab: SmallLab) -> None:
    state = applied(lab)
    asyncio.run(fill(lab, state, "wide", "one"))
    asyncio.run(fill(lab, state, "safe", "two"))
    with Session(str(lab.engines["a"].socket)) as session:
        writer = Writer(session, state)
        writer.write(replace(state, generation=state.generation - 1))
        last = writer.write(state)
    lose_folder(lab)
    whole = lab.folder / "whole.yaml"
    status, body, said = run_import(lab, "--dry-run")
    assert status == 0, said
    assert not (lab.folder / "state").exists()
    status, body, said = run_import(lab, "--yes", "--write", str(whole))
    assert status == 0, said
    assert body["volumes"] == ["safe", "wide"]
    assert (body["uuid"], body["generation"], body["sequence"]) == (state.uuid, state.generation, last.sequence)
    assert (body["on_a_majority"], body["missing_drives"], body["spare_drives"]) == (True, [], [])
    assert FileStore(lab.folder / "state").load() == state
    assert (lab.folder / "state" / FORMED).exists()
    found = load(whole).array
    assert found == state.array
    # Serving it is the agents' business: here the same state is built without them, to look at the data.
    built = lab.folder / "built"
    FileStore(built).keep(replace(state, array=without_agents(found)))
    with Reconciler.in_folder(without_agents(found), built) as reconciler:
        _view, proposal = reconciler.propose()
        assert not proposal.problems
        assert not [step for step in proposal.plan.steps if step.risk is Risk.DATA_LOSS or step.destroys]
        after = reconciler.apply().state
    assert asyncio.run(contents(lab, after, "wide")) == expected(state, "wide", "one")
    assert asyncio.run(contents(lab, after, "safe")) == expected(state, "safe", "two")


def test_without_a_majority_or_consent_nothing_is_written(lab: SmallLab) -> None:
    state = applied(lab)
    with Session(str(lab.engines["a"].socket)) as session:
        writer = Writer(session, state)
        writer.write(state)
    lose_folder(lab)
    few = replace(bare(lab.array), drives=lab.array.drives[2:])
    status, _, said = run_import(lab, "--yes", file=to_yaml(few))
    assert (status, "HA-013" in said) == (6, True), said
    status, _, said = run_import(lab)
    assert (status, "STORE-011" in said) == (6, True), said
    assert not (lab.folder / "state").exists()


def test_registrations_that_stand_are_evicted_only_by_name(lab: SmallLab) -> None:
    state = applied(lab)
    drives = [drive.name for drive in lab.array.drives]
    with Session(str(lab.engines["a"].socket)) as session:
        Writer(session, state).write(state)
        reserve(session, drives, make_key("lab", "a", life_of("old")))
    lose_folder(lab)
    status, _, said = run_import(lab, "--yes")
    assert (status, "HA-016" in said) == (6, True), said
    status, _, said = run_import(lab, "--yes", "--take-over", "wrong")
    assert (status, "STORE-011" in said) == (6, True), said
    status, body, said = run_import(lab, "--yes", "--take-over", "lab")
    assert status == 0, said
    assert body["uuid"] == state.uuid
    with Session(str(lab.engines["a"].socket)) as session:
        keys = {key for drive in drives for key in registrants(session, drive)}
    assert len(keys) == 1
    assert make_key("lab", "a", life_of("old")) not in keys


def test_what_an_earlier_array_left_is_zeroed_at_adoption(lab: SmallLab) -> None:
    at = layout.record_at(8)
    left = record.encode(plain(9, 8), record.NO_PREVIOUS)
    assert at > labels.LOOK_BYTES
    with (lab.folder / "d0.img").open("r+b") as drive:
        drive.seek(at)
        drive.write(left)
        os.fsync(drive.fileno())
    applied(lab)
    raw = (lab.folder / "d0.img").read_bytes()
    assert isinstance(labels.decode(raw), labels.Label)
    assert not any(raw[labels.LABEL_BYTES : layout.END_BYTES])


def test_another_products_reservation_is_left_alone(lab: SmallLab) -> None:
    state = applied(lab)
    with Session(str(lab.engines["a"].socket)) as session:
        Writer(session, state).write(state)
        reserve(session, ["d0"], 0x1234)
    lose_folder(lab)
    status, _, said = run_import(lab, "--yes", "--take-over", "lab")
    assert (status, "HA-019" in said) == (6, True), said
    with Session(str(lab.engines["a"].socket)) as session:
        assert registrants(session, "d0") == {0x1234}
