"""A drive is measured for fencing: a good one passes, one whose two ends share no reservations is caught.

No engine has an injection that lets a late write through.  The bad drive here is real all the same: one file that two
shelves export, each with reservations of its own, so an eviction at one end shuts nobody out at the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fencing_lab import BLOCK, FencingLab, Side, now_ms

from cli.commands.ha_qualify import qualify_drive
from controlplane.domain.errors import Refused
from dataplane.nvme.commands import write
from dataplane.rpc.methods import bdev
from ha.model import Answer, Register, Verify
from ha.qualify import Qualification, Qualifier

MIB = 1 << 20


@pytest.fixture(scope="module")
def engines_of_lab(engines: Any, start_pair: Any) -> Iterator[tuple[Any, ...]]:
    started = [*start_pair(engines.kind), *start_pair(engines.kind)]
    yield tuple(started)
    for each in started:
        each.stop()


@pytest.fixture
def lab(engines_of_lab: tuple[Any, ...], tmp_path: Path) -> Iterator[FencingLab]:
    a, b, first, second = engines_of_lab
    made = FencingLab({"a": a, "b": b}, (first, second), tmp_path)
    yield made
    made.close()


def measured(lab: FencingLab, drive: str, **more: Any) -> Qualification:
    async def whole() -> Qualification:
        async with lab.connected("a") as victim, lab.connected("b") as survivor:
            made = Qualifier(
                victim, survivor, drive, life=1, rounds=4, depth=8, clock=now_ms, precise=lambda: float(now_ms())
            )
            return await made.run(**more)

    return asyncio.run(whole())


def test_a_good_drive_is_fit_and_left_as_it_was(lab: FencingLab) -> None:
    (drive,) = lab.add(1)
    found = measured(lab, drive)
    assert (found.problems, found.rounds, found.late, found.open_after) == ((), 4, 0, 0)
    assert found.wrote >= 4 * 8
    assert len(found.preempt_ms) == 4

    async def story(a: Side, _b: Side) -> None:
        assert (await a.run(Verify(drives=(drive,)))).registrants == {drive: frozenset()}
        said, raw = await a.raw.fetch(drive, 0, MIB, BLOCK, 60_000)
        assert (said, any(raw)) == (Answer.OK, False)

    lab.play(story, quorum=1)


def test_a_drive_whose_ends_share_no_reservations_is_caught(lab: FencingLab, tmp_path: Path) -> None:
    path = tmp_path / "drive.img"
    path.write_bytes(bytes(4 * MIB))
    for shelf, node in ((0, "a"), (1, "b")):
        lab.shelves[shelf].run(bdev.aio_create("bad", path=str(path), block_size_bytes=BLOCK))
        port = lab.export("bad", shelf)
        lab.attach(node, ("bad",), port)  # type: ignore[arg-type]
    found = measured(lab, "bad")
    assert not found.shared
    assert found.open_after == found.rounds == 4
    assert found.late > 0
    assert any("overwritten" in each for each in found.problems)


def test_a_drive_in_use_is_refused(lab: FencingLab) -> None:
    drives = lab.add(2)

    async def story(a: Side, _b: Side) -> None:
        command = write(1, 0, 1, BLOCK)
        assert (await a.raw.send(drives[0], command, 60_000, data=b"x" * BLOCK))[0] is Answer.OK
        assert await a.answers(Register(drives=drives[1:], key=a.key)) == {drives[1]: Answer.OK}

    lab.play(story, quorum=1)
    with pytest.raises(Refused, match="holds data"):
        measured(lab, drives[0])
    assert measured(lab, drives[0], consent=True).problems == ()
    with pytest.raises(Refused, match="is registered on it"):
        measured(lab, drives[1], consent=True)


def test_the_command_says_it_to_programs(lab: FencingLab) -> None:
    (drive,) = lab.add(1)
    sockets = [str(lab.nodes[node].process.socket) for node in ("a", "b")]  # type: ignore[index]
    given = [drive, "--engine-a", sockets[0], "--engine-b", sockets[1], "--rounds", "2", "-o", "json"]
    result = CliRunner().invoke(qualify_drive, given, standalone_mode=False)
    assert result.exception is None
    said = json.loads(result.stdout)
    assert (said["kind"], said["name"], said["fit"], said["rounds"]) == ("DriveQualification", drive, True, 2)
