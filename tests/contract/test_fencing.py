"""Fences, journal and heartbeat slots through the HA manager's access to drives, on both engines.

Each test has two nodes and real drives behind two shelves; what hangs is a stopped process, what drops is a cut
connection.  The engines of this module are its own, since the transport of the others masks reservations.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fencing_lab import HUNG_MS, FencingLab, Side, key_of, now_ms, record
from relay import Relay

from dataplane.nvme.reservations import ReleaseAction, ReservationType, acquire, register, release
from ha.adapters.commands import NSID
from ha.adapters.reserving import Reservations, rtype_for
from ha.journal import layout
from ha.journal.record import NO_PREVIOUS, encode
from ha.model import Answer, Fence, GroupId, ReadJournal, Register, SnapshotAt, Verify, WriteRecord
from ha.policy import SLOW

OK, CONFLICT, SILENT = Answer.OK, Answer.CONFLICT, Answer.SILENT
EAAR, WEAR = (
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
)


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


async def both_join(a: Side, b: Side, drives: tuple[str, ...]) -> None:
    for side in (a, b):
        assert await side.answers(Register(drives=drives, key=side.key)) == dict.fromkeys(drives, OK)


def raw(side: Side) -> Reservations:
    """Reservation commands of a node beside its access."""
    return Reservations(side.raw)


# -- reservations


def test_both_nodes_register_and_the_report_shows_them(lab: FencingLab) -> None:
    drives = lab.add(3)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        await both_join(a, b, drives)  # once more changes nothing
        outcome = await b.run(Verify(drives=drives))
        assert outcome.registrants == dict.fromkeys(drives, frozenset({a.key, b.key}))
        said, report = await raw(a).report(drives[0], 60_000)
        assert (said, report is not None and (report.rtype, report.persist)) == (OK, (EAAR, True))

    lab.play(story)


def test_a_fence_shuts_the_other_node_out(lab: FencingLab) -> None:
    drives = lab.add(5)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        assert await b.answers(WriteRecord(drives=drives, record=record())) == dict.fromkeys(drives, OK)
        assert not b.access.drives(now_ms()).conflicts
        assert await a.answers(Fence(drives=drives, key=a.key)) == dict.fromkeys(drives, OK)
        verified = await a.run(Verify(drives=drives))
        assert verified.registrants == dict.fromkeys(drives, frozenset({a.key}))
        assert await b.answers(WriteRecord(drives=drives, record=record())) == dict.fromkeys(drives, CONFLICT)
        assert await b.answers(ReadJournal(drives=drives)) == dict.fromkeys(drives, CONFLICT)
        assert b.access.drives(now_ms()).conflicts
        assert not a.access.drives(now_ms()).conflicts
        assert await a.answers(WriteRecord(drives=drives, record=record())) == dict.fromkeys(drives, OK)

    lab.play(story)


@pytest.mark.parametrize("held", [False, True])
def test_a_node_that_is_not_registered_gets_a_conflict_and_stays_out(lab: FencingLab, held: bool) -> None:
    """Without the report before it, the preempt would end the shelf on SPDK."""
    drives = lab.add(2)

    async def story(a: Side, b: Side) -> None:
        if held:
            await a.run(Register(drives=drives, key=a.key))
        assert await b.answers(Fence(drives=drives, key=b.key)) == dict.fromkeys(drives, CONFLICT)
        verified = await b.run(Verify(drives=drives))
        assert verified.registrants == dict.fromkeys(drives, frozenset({a.key} if held else ()))

    lab.play(story)


def test_a_start_registers_and_evicts_ghosts_of_earlier_lives(lab: FencingLab) -> None:
    drives = lab.add(2)

    async def story(a: Side, b: Side) -> None:
        await a.run(Register(drives=drives, key=key_of("a", life=7)))
        assert await b.answers(Fence(drives=drives, key=b.key, register=True)) == dict.fromkeys(drives, OK)
        verified = await b.run(Verify(drives=drives))
        assert verified.registrants == dict.fromkeys(drives, frozenset({b.key}))

    lab.play(story)


def test_a_drive_that_is_held_write_exclusive_is_fenced_with_its_own_type(lab: FencingLab) -> None:
    (drive,) = lab.add(1)

    async def story(a: Side, b: Side) -> None:
        reservations = raw(a)
        said, rescap = await reservations.rescap(drive, 60_000)
        assert (said, rtype_for(rescap)) == (OK, EAAR)
        for command, data in (register(NSID, 0, a.key), acquire(NSID, a.key, WEAR)):
            assert (await reservations.commands.send(drive, command, 60_000, data=data))[0] is OK
        assert await b.answers(Register(drives=(drive,), key=b.key)) == {drive: OK}
        assert await a.answers(Fence(drives=(drive,), key=a.key)) == {drive: OK}
        _, report = await reservations.report(drive, 60_000)
        assert report is not None
        assert (report.rtype, [each.key for each in report.registrants]) == (WEAR, [a.key])

    lab.play(story, quorum=1)


# -- drives that hang, paths that drop


def test_24_drives_are_fenced_at_once(lab: FencingLab) -> None:
    """The shelf is held until a command to each drive is on its way: none waits for another."""
    drives = lab.add(24, shelf=1)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        with lab.hung() as go_on:
            fence = asyncio.create_task(a.answers(Fence(drives=drives, key=a.key)))
            await a.until(lambda: a.mux.unanswered >= len(drives))
            go_on()
            assert await fence == dict.fromkeys(drives, OK)
        verified = await b.run(Verify(drives=drives))
        assert verified.registrants == dict.fromkeys(drives, frozenset({a.key}))

    lab.play(story)


def test_drives_that_hang_are_silent_and_the_others_are_not(lab: FencingLab) -> None:
    good, bad = lab.add(4), lab.add(2, shelf=1)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, good + bad)
        with lab.hung():
            for _ in range(3):  # a hung drive keeps one place, however often it is tried
                answers = await a.answers(Fence(drives=good + bad, key=a.key), HUNG_MS)
                assert answers == {**dict.fromkeys(good, OK), **dict.fromkeys(bad, SILENT)}
            most = 2 * len(bad) + 3 * len(set(bad) & set(lab.map().quorum))
            await a.until(lambda: a.mux.unanswered <= most)
            assert await a.answers(Fence(drives=good, key=a.key)) == dict.fromkeys(good, OK)
        # What was given up before it was sent is not sent now: the other node is a registrant still.
        verified = await b.run(Verify(drives=bad))
        assert verified.registrants == dict.fromkeys(bad, frozenset({a.key, b.key}))
        assert await a.answers(Fence(drives=bad, key=a.key)) == dict.fromkeys(bad, OK)

    lab.play(story)


def test_a_path_that_drops_in_the_middle_of_a_fence_does_not_end_the_engine(lab: FencingLab) -> None:
    relays: list[Relay] = []

    def through(port: int) -> int:
        relays.append(Relay(port))
        return relays[0].port

    good, bad = lab.add(3), lab.add(2, shelf=1, through=through)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, good + bad)
        with lab.hung():
            fence = asyncio.create_task(a.answers(Fence(drives=good + bad, key=a.key), 10_000))
            await a.until(lambda: a.mux.unanswered >= len(bad))
            assert relays[0].cut()
            assert await fence == {**dict.fromkeys(good, OK), **dict.fromkeys(bad, SILENT)}
            assert await a.answers(Fence(drives=bad, key=a.key), HUNG_MS) == dict.fromkeys(bad, SILENT)
            assert await a.lives()
            assert await b.lives()
        while await a.answers(Fence(drives=bad, key=a.key)) != dict.fromkeys(bad, OK):
            assert await a.lives()  # until its paths are back

    try:
        lab.play(story, quorum=3)
    finally:
        lab.close()
        for each in relays:
            each.__exit__()


# -- two nodes at once


async def race(side: Side, drives: tuple[str, ...], head_start: int, *, register: bool) -> set[str]:
    """What the node has won when it stops: at its first conflict, as a takeover does."""
    won: set[str] = set()
    for _ in range(head_start):
        await side.lives()
    for drive in drives:
        answer = (await side.answers(Fence(drives=(drive,), key=side.key, register=register)))[drive]
        if answer is not OK:
            assert answer is CONFLICT
            return won
        won.add(drive)
    return won


def test_of_two_members_that_race_in_the_same_order_one_wins(lab: FencingLab) -> None:
    drives = lab.add(5)

    async def story(a: Side, b: Side) -> None:
        for seed in range(8):
            starts = [random.Random(seed + side).randrange(4) for side in (0, 100)]
            await clear(a, b, drives)
            await both_join(a, b, drives)
            won = await asyncio.gather(
                *(race(s, drives, n, register=False) for s, n in zip((a, b), starts, strict=True))
            )
            assert sorted(map(len, won)) == [0, 5], f"seed {seed}"
            verified = await a.run(Verify(drives=drives))
            assert verified.registrants == dict.fromkeys(drives, frozenset({(a if won[0] else b).key}))

    lab.play(story)


def test_two_nodes_that_start_at_once_leave_each_drive_held_and_the_shelf_alive(lab: FencingLab) -> None:
    """Each registers again where the other evicted it, so who wins is seen by the report that follows."""
    drives = lab.add(5)

    async def story(a: Side, b: Side) -> None:
        for seed in range(8):
            starts = [random.Random(seed + side).randrange(4) for side in (0, 100)]
            await clear(a, b, drives)
            await asyncio.gather(*(race(s, drives, n, register=True) for s, n in zip((a, b), starts, strict=True)))
            verified = await a.run(Verify(drives=drives))
            assert verified.answers == dict.fromkeys(drives, OK)
            assert all(keys and keys <= {a.key, b.key} for keys in verified.registrants.values()), f"seed {seed}"

    lab.play(story)


async def clear(a: Side, b: Side, drives: tuple[str, ...]) -> None:
    """Nobody is registered any more."""
    for drive in drives:
        for side in (a, b):
            said, report = await raw(side).report(drive, 60_000)
            assert report is not None, said
            if side.key in {each.key for each in report.registrants}:
                command, data = release(NSID, side.key, ReservationType.NONE, ReleaseAction.CLEAR)
                assert (await raw(side).commands.send(drive, command, 60_000, data=data))[0] is OK


# -- the journal


def test_a_record_that_was_written_without_one_drive_is_read_by_the_other_node(lab: FencingLab) -> None:
    good, bad = lab.add(4), lab.add(1, shelf=1)
    drives = good + bad
    snapshot = hashlib.shake_256(b"state").digest(300 * 1024 + 7)
    at = SnapshotAt(area=1, size_bytes=len(snapshot), sha256=hashlib.sha256(snapshot).hexdigest(), generation=2)
    first, second = record(1), record(2, snapshot=at)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        empty = await b.run(ReadJournal(drives=drives))
        assert (empty.found, empty.record) == (True, None)
        assert await a.answers(WriteRecord(drives=drives, record=first)) == dict.fromkeys(drives, OK)
        with lab.hung():
            written = await a.answers(
                WriteRecord(drives=drives, record=second, previous=first, snapshot=snapshot), 8_000
            )  # fmt: skip
            assert written == {**dict.fromkeys(good, OK), **dict.fromkeys(bad, SILENT)}
            found = await b.run(ReadJournal(drives=drives), 8_000)
            assert (found.found, found.record) == (True, second)
            assert found.answers == {**dict.fromkeys(good, OK), **dict.fromkeys(bad, SILENT)}
            assert await b.access.read_snapshot(at, 60_000) == snapshot
        lost = await b.run(ReadJournal(drives=good[:2]))
        assert not lost.found

    lab.play(story)


def test_a_record_names_the_one_that_another_node_wrote(lab: FencingLab) -> None:
    drives = lab.add(3)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        await a.run(WriteRecord(drives=drives, record=record(1)))
        follows = WriteRecord(drives=drives, record=record(2, epoch=2), previous=record(1))
        assert await b.answers(follows) == dict.fromkeys(drives, OK)
        found = await a.run(ReadJournal(drives=drives, fenced=True))
        assert (found.found, found.record, found.problem) == (True, record(2, epoch=2), "")
        stray = await b.run(WriteRecord(drives=drives, record=record(9), previous=record(8)))
        assert stray.answers == dict.fromkeys(drives, Answer.FAILED)
        assert "HA-021" in stray.problem

    lab.play(story, quorum=3)


def test_a_record_that_is_longer_than_a_unit_is_read_whole(lab: FencingLab) -> None:
    drives = lab.add(3)
    owners = {GroupId(f"subsystem-{number:03}", half): "b" for number in range(200) for half in (1, 2)}
    long = replace(record(2), owners=owners)
    assert len(encode(long, NO_PREVIOUS)) > 2 * layout.UNIT_BYTES

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        await a.run(WriteRecord(drives=drives, record=record(1)))
        assert await a.answers(WriteRecord(drives=drives, record=long, previous=record(1))) == dict.fromkeys(drives, OK)
        found = await b.run(ReadJournal(drives=drives))
        assert (found.found, found.record) == (True, long)

    lab.play(story, quorum=3)


# -- heartbeat slots


def test_the_nodes_see_each_other_through_the_drives(lab: FencingLab) -> None:
    drives = lab.add(5)

    async def story(a: Side, b: Side) -> None:
        assert b.access.slots(now_ms()).own_at is None
        await b.until(lambda: b.access.drives(now_ms()).registrants == dict.fromkeys(drives, frozenset()))
        began = now_ms()
        await both_join(a, b, drives)
        a.access.say((3, 5))
        for side in (a, b):
            await side.until(lambda side=side: (side.access.slots(now_ms()).own_at or 0) > began)  # type: ignore[misc]
            await side.until(lambda side=side: (side.access.slots(now_ms()).read_at or 0) > began)  # type: ignore[misc]
            await side.until(lambda side=side: (side.access.slots(now_ms()).peer_at or 0) > began)  # type: ignore[misc]
        await b.until(lambda: b.access.newest_hint() == (3, 5))
        assert a.access.newest_hint() == (0, 0)

    lab.play(story)


def test_hung_drives_make_their_own_answers_stale_and_no_others(lab: FencingLab) -> None:
    good, bad = lab.add(3), lab.add(2, shelf=1)
    policy = replace(SLOW, drive_dead_ms=2_000)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, good + bad)
        await a.until(lambda: a.access.slots(now_ms()).own_at is not None)
        assert a.access.drives(now_ms()).silent == frozenset()
        with lab.hung():
            began = now_ms()
            await a.until(lambda: a.access.drives(now_ms()).silent == frozenset(bad))
            await a.until(lambda: (a.access.slots(now_ms()).own_at or 0) > began + policy.drive_dead_ms)
            await a.until(lambda: (b.access.slots(now_ms()).peer_at or 0) > began + policy.drive_dead_ms)
            assert a.mux.unanswered < a.mux.limit
        await a.until(lambda: a.access.drives(now_ms()).silent == frozenset())
        assert not a.access.drives(now_ms()).conflicts

    lab.play(story, policy)


def test_a_majority_of_hung_drives_ends_the_own_sign_of_life(lab: FencingLab) -> None:
    good, bad = lab.add(2), lab.add(3, shelf=1)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, good + bad)
        await a.until(lambda: a.access.slots(now_ms()).own_at is not None)
        with lab.hung():
            began = now_ms()
            await a.until(lambda: now_ms() > began + 5 * SLOW.slot_ms)
            last = a.access.slots(now_ms())
            assert (last.own_at or 0) <= began
            assert (last.read_at or 0) <= began
        await a.until(lambda: (a.access.slots(now_ms()).own_at or 0) > began)

    lab.play(story)


def test_a_node_that_was_fenced_learns_it_from_its_slots(lab: FencingLab) -> None:
    drives = lab.add(3)

    async def story(a: Side, b: Side) -> None:
        await both_join(a, b, drives)
        assert await a.answers(Fence(drives=drives, key=a.key)) == dict.fromkeys(drives, OK)
        await b.until(lambda: b.access.drives(now_ms()).conflicts)
        assert not a.access.drives(now_ms()).conflicts

    lab.play(story, quorum=3)
