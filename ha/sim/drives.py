"""Simulated drives with the meaning of NVMe reservations: what is held, what is refused, what lands late.

Why: safety rests on the drives, so they are modelled at their most awkward.  Whether a command is allowed is judged
when it ARRIVES; it is carried out later, while the drive holds it.  So a preempt without abort leaves the victim's held
writes to land after the fence.  A preempt-and-abort ends when none of the victim's commands is held any more:
some drives cancel them, some finish them first.  Sources: NVM Express Base 2.1, 8.1.22; SPDK lib/nvmf/subsystem.c.

Invariants: registrations and the reservation survive a loss of power (PTPL); a write that a loss of power cuts is whole
or absent in a data block, and may be torn in a journal record or slot; a command is completed once or never.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

from ha.model import Answer
from ha.sim.loop import MS, Loop

TAKE_OVER: Final = "take over"
"""Why a node from outside registers and fences."""
TORN: Final = "torn"
"""What lies in a block whose write was cut."""
JOURNAL: Final = "journal"
SLOT: Final = "slot"
DATA: Final = "data"
PLACES: Final = 16
ABORT_WAIT_US: Final = 10_000 * MS
"""How long a drive waits for the victim's commands; then the preempt has failed (SPDK's shelf does so)."""

Cell = tuple[Any, ...]
Done = Callable[[Answer, Any], None]


class Op(StrEnum):
    """What a command asks of a drive."""

    READ = "read"
    WRITE = "write"
    JOURNAL = "read journal"
    REPORT = "report"
    REGISTER = "register"
    ACQUIRE = "acquire"
    PREEMPT = "preempt"
    PREEMPT_ABORT = "preempt and abort"


class Type(StrEnum):
    """Reservation types; the product knows the first alone."""

    EXCLUSIVE_ACCESS_ALL = "exclusive access, all registrants"
    WRITE_EXCLUSIVE_ALL = "write exclusive, all registrants"


class Command:
    """One command of the incarnation ``key``; ``done`` is called when it is completed, which may be never."""

    __slots__ = ("cell", "done", "key", "live", "op", "sent_at", "value", "why")

    def __init__(self, op: Op, key: int, done: Done, cell: Cell = (), value: Any = None, why: str = "") -> None:  # noqa: ANN401
        self.op = op
        self.key = key
        self.done = done
        self.cell = cell
        self.value = value
        self.why = why
        self.live = True
        self.sent_at = 0


class Report:
    """A Reservation Report: who is registered, and whether anybody holds."""

    __slots__ = ("held", "registrants")

    def __init__(self, registrants: frozenset[int], held: bool) -> None:
        self.registrants = registrants
        self.held = held


class Watch:
    """What the checkers learn from the drives; each call comes at the moment at which it is true."""

    def landed(self, drive: Drive, command: Command) -> None:
        """A write was carried out."""

    def registered(self, drive: Drive, command: Command) -> None:
        """An incarnation was registered."""

    def evicted(self, drive: Drive, by: Command, victims: frozenset[int]) -> None:
        """Registrants were removed."""


class Drive:
    """One drive, as both nodes reach it.  ``cells`` is what lies on it."""

    def __init__(self, name: str, loop: Loop, rng: random.Random, watch: Watch) -> None:
        self.name = name
        self.loop = loop
        self.rng = rng
        self.watch = watch
        self.cells: dict[Cell, Any] = {}
        self.registrants: set[int] = set()
        self.type: Type | None = None
        self.acquires = Type.EXCLUSIVE_ACCESS_ALL
        self.cancels = rng.random() < 0.5
        self.hung = False
        self.dead = False
        self.slow_us = 0
        self.holds = rng.choice((0.01, 0.05, 0.15))
        """How often it holds a write for long."""
        self.longest_us = 130 * MS
        """How long a write may be held when nothing is wrong with the drive."""
        self.held: list[Command] = []
        self._backlog: list[tuple[Callable[[Command], None], Command]] = []
        self._queued: list[Command] = []
        self._preempting: tuple[Command, frozenset[int]] | None = None

    # ------------------------------------------------------------ arrival

    def arrive(self, command: Command) -> None:
        """The command has reached the drive."""
        if self.dead:
            command.done(Answer.FAILED, None)
        elif self.hung:
            self._backlog.append((self.arrive, command))
        elif command.op in (Op.READ, Op.WRITE, Op.JOURNAL):
            if self.accepts(command.key, write=command.op is Op.WRITE):
                self.held.append(command)
                self.loop.after(self._service_us(command), self._carry_out, command)
            else:
                command.done(Answer.CONFLICT, None)
        else:
            self._reserve(command)

    def accepts(self, key: int, *, write: bool = True) -> bool:
        """Whether the incarnation may read (and write) here."""
        if self.type is None or key in self.registrants:
            return True
        return self.type is Type.WRITE_EXCLUSIVE_ALL and not write

    def _service_us(self, command: Command) -> int:
        chance = self.rng.random()
        if command.op is Op.WRITE and command.cell[0] == DATA and chance < self.holds:
            return self.rng.randrange(20 * MS, self.longest_us)
        if chance < 0.03:
            return self.rng.randrange(2 * MS, 40 * MS)
        return self.rng.randrange(80, 900) + self.slow_us

    def _carry_out(self, command: Command) -> None:
        if not command.live:
            return
        if self.hung:
            self._backlog.append((self._carry_out, command))
            return
        self.held.remove(command)
        if self.dead:
            command.done(Answer.FAILED, None)
            return
        found: Any = None
        if command.op is Op.WRITE:
            self.cells[command.cell] = command.value
            self.watch.landed(self, command)
        elif command.op is Op.READ:
            found = self.cells.get(command.cell)
        else:
            found = [value for cell, value in self.cells.items() if cell[0] == JOURNAL and value is not TORN]
        command.done(Answer.OK, found)
        if self._preempting is not None:
            self._end_wait()

    # ------------------------------------------------------------ reservations

    def _reserve(self, command: Command) -> None:
        if command.op is Op.REPORT:
            command.done(Answer.OK, Report(frozenset(self.registrants), self.type is not None))
        elif self._preempting is not None:
            self._queued.append(command)
        else:
            self._change(command)

    def _change(self, command: Command) -> None:
        known = command.key in self.registrants
        if command.op is Op.REGISTER:
            if not known:
                self.registrants.add(command.key)
                self.watch.registered(self, command)
            command.done(Answer.OK, None)
        elif not known:
            command.done(Answer.CONFLICT, None)
        elif command.op is Op.ACQUIRE:
            self.type = self.type or self.acquires
            command.done(Answer.OK, None)
        elif self.type is None:
            command.done(Answer.FAILED, None)
        else:
            self._preempt(command)

    def _preempt(self, command: Command) -> None:
        """PRKEY 0: every other registrant is removed at once; the answer waits for what the drive holds of them."""
        victims = frozenset(self.registrants - {command.key})
        self.registrants = {command.key}
        self.watch.evicted(self, command, victims)
        if command.op is Op.PREEMPT:
            command.done(Answer.OK, None)
            return
        if self.cancels:
            for each in [each for each in self.held if each.key in victims]:
                each.live = False
                self.held.remove(each)
                each.done(Answer.FAILED, None)
        self._preempting = (command, victims)
        self.loop.after(ABORT_WAIT_US, self._give_up, command)
        self._end_wait()

    def _end_wait(self) -> None:
        if self._preempting is None:
            return
        command, victims = self._preempting
        if not any(each.key in victims for each in self.held):
            self._ended(command, Answer.OK)

    def _give_up(self, command: Command) -> None:
        if self._preempting is not None and self._preempting[0] is command:
            self._ended(command, Answer.FAILED)

    def _ended(self, command: Command, answer: Answer) -> None:
        """Changes of reservations are made one after another, as SPDK's target makes them."""
        self._preempting = None
        command.done(answer, None)
        while self._queued and self._preempting is None:
            self._change(self._queued.pop(0))

    # ------------------------------------------------------------ faults

    def hang(self) -> None:
        """Nothing is judged, carried out or answered until it goes on."""
        self.hung = True

    def go_on(self) -> None:
        """Everything that came meanwhile happens now, in order."""
        self.hung = False
        backlog, self._backlog = self._backlog, []
        for call, command in backlog:
            if command.live:
                call(command)

    def disconnect(self, key: int) -> None:
        """The incarnation deletes its association: what the drive has of it is aborted."""
        for command in [*self.held, *(command for _, command in self._backlog)]:
            if command.key == key:
                command.live = False
        self.held = [command for command in self.held if command.live]
        self._end_wait()

    def lose_power(self) -> None:
        """What it held is gone or was carried out; what it was writing to a journal or slot may be torn."""
        self._cut(lambda _command: True, later=False)
        self._backlog.clear()
        self._queued.clear()
        self._preempting = None

    def cut_off(self, key: int) -> None:
        """The sender lost its power while it sent: its commands are carried out later, torn or gone."""
        self._cut(lambda command: command.key == key, later=True)
        self._end_wait()

    def _cut(self, whose: Callable[[Command], bool], *, later: bool) -> None:
        for command in [each for each in self.held if whose(each)]:
            chance = self.rng.random()
            if chance < 0.4 and later:
                continue
            command.live = False
            self.held.remove(command)
            if command.op is not Op.WRITE:
                continue
            if chance < 0.4:
                self.cells[command.cell] = command.value
                self.watch.landed(self, command)
            elif command.cell[0] in (JOURNAL, SLOT) and chance < 0.7:
                self.cells[command.cell] = TORN
