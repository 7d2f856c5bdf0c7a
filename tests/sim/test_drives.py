"""The simulated drive means what NVMe reservations mean: the simulator's verdicts rest on it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ha.model import Answer
from ha.sim.drives import DATA, JOURNAL, TORN, Command, Drive, Op, Report, Type, Watch
from ha.sim.loop import MS, SECOND, Loop

A, B = 0xA1, 0xB1
CELL = (DATA, "v", 0)


class Bench:
    """One drive, and what it answered."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = Loop()
        self.drive = Drive("d0", self.loop, random.Random(seed), Watch())
        self.drive.holds = 0.0

    def send(self, op: Op, key: int, cell: tuple[Any, ...] = (), value: object = None) -> list[tuple[Answer, Any]]:
        said: list[tuple[Answer, Any]] = []
        self.drive.arrive(Command(op, key, lambda answer, found: said.append((answer, found)), cell, value))
        return said

    def ask(self, op: Op, key: int, cell: tuple[Any, ...] = (), value: object = None) -> tuple[Answer, Any]:
        said = self.send(op, key, cell, value)
        self.loop.run(self.loop.now + 100 * MS)
        assert len(said) == 1
        return said[0]

    def held_by(self, *keys: int) -> Bench:
        for key in keys:
            assert self.ask(Op.REGISTER, key)[0] is Answer.OK
        assert self.ask(Op.ACQUIRE, keys[0])[0] is Answer.OK
        return self


def test_only_registrants_read_and_write() -> None:
    bench = Bench().held_by(A)
    assert bench.ask(Op.WRITE, A, CELL, 7) == (Answer.OK, None)
    assert bench.ask(Op.READ, A, CELL) == (Answer.OK, 7)
    assert bench.ask(Op.WRITE, B, CELL, 8)[0] is Answer.CONFLICT
    assert bench.ask(Op.READ, B, CELL)[0] is Answer.CONFLICT
    assert bench.ask(Op.REGISTER, B)[0] is Answer.OK
    assert bench.ask(Op.READ, B, CELL) == (Answer.OK, 7)


def test_write_exclusive_lets_a_stranger_read() -> None:
    bench = Bench()
    bench.drive.acquires = Type.WRITE_EXCLUSIVE_ALL
    bench.held_by(A)
    assert bench.ask(Op.READ, B, CELL)[0] is Answer.OK
    assert bench.ask(Op.WRITE, B, CELL, 8)[0] is Answer.CONFLICT


def test_a_stranger_neither_acquires_nor_preempts() -> None:
    bench = Bench().held_by(A)
    assert bench.ask(Op.ACQUIRE, B)[0] is Answer.CONFLICT
    assert bench.ask(Op.PREEMPT_ABORT, B)[0] is Answer.CONFLICT


def test_a_report_is_for_everybody_and_the_reservation_outlives_power() -> None:
    bench = Bench().held_by(A, B)
    bench.drive.lose_power()
    said, report = bench.ask(Op.REPORT, 0xC1)
    assert said is Answer.OK
    assert isinstance(report, Report)
    assert (report.registrants, report.held) == ({A, B}, True)


@pytest.mark.parametrize("cancels", [False, True])
def test_a_preempt_and_abort_ends_when_nothing_of_the_victim_is_held(cancels: bool) -> None:
    bench = Bench().held_by(A, B)
    bench.drive.cancels = cancels
    bench.drive.slow_us = 50 * MS
    written = bench.send(Op.WRITE, A, CELL, 7)
    fenced = bench.send(Op.PREEMPT_ABORT, B)
    assert bool(fenced) == cancels
    bench.loop.run(bench.loop.now + SECOND)
    assert fenced == [(Answer.OK, None)]
    assert written == [(Answer.FAILED if cancels else Answer.OK, None)]
    assert bench.drive.cells.get(CELL) == (None if cancels else 7)


def test_a_preempt_without_abort_lets_a_held_write_land_afterwards() -> None:
    bench = Bench().held_by(A, B)
    bench.drive.slow_us = 50 * MS
    bench.send(Op.WRITE, A, CELL, 7)
    assert bench.send(Op.PREEMPT, B) == [(Answer.OK, None)]
    assert CELL not in bench.drive.cells
    bench.loop.run(bench.loop.now + SECOND)
    assert bench.drive.cells[CELL] == 7


def test_changes_of_reservations_wait_for_the_one_before() -> None:
    bench = Bench().held_by(A, B)
    bench.drive.cancels = False
    bench.drive.slow_us = 50 * MS
    bench.send(Op.WRITE, A, CELL, 7)
    first, again = bench.send(Op.PREEMPT_ABORT, B), bench.send(Op.PREEMPT_ABORT, B)
    assert not first
    assert not again, "or the second fence would be believed before the first is true"
    bench.loop.run(bench.loop.now + SECOND)
    assert first == again == [(Answer.OK, None)]


def test_a_hung_drive_does_everything_later() -> None:
    bench = Bench().held_by(A)
    bench.drive.hang()
    said = bench.send(Op.WRITE, A, CELL, 7)
    bench.loop.run(bench.loop.now + SECOND)
    assert not said
    bench.drive.go_on()
    bench.loop.run(bench.loop.now + SECOND)
    assert said == [(Answer.OK, None)]


def test_a_cut_write_of_a_record_may_be_torn_and_a_block_may_not() -> None:
    seen: dict[str, set[object]] = {JOURNAL: set(), DATA: set()}
    for seed in range(40):
        for area, cell in ((JOURNAL, (JOURNAL, 1)), (DATA, CELL)):
            bench = Bench(seed).held_by(A)
            bench.ask(Op.WRITE, A, cell, "old")
            bench.send(Op.WRITE, A, cell, "new")
            bench.drive.lose_power()
            bench.loop.run(bench.loop.now + SECOND)
            seen[area].add(bench.drive.cells[cell])
    assert seen == {JOURNAL: {"old", "new", TORN}, DATA: {"old", "new"}}
