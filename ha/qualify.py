"""Is a drive fit for fencing?  Measured on the drive itself, through two data planes that both reach it.

Why: everything rests on one promise of the drive: when a preempt-and-abort has completed, no write of the evicted node
lands any more.  Datasheets do not say whether firmware keeps it.  So one node writes tagged blocks, several at a time,
while the other evicts it, puts its own mark on every block at once, and looks later whether a mark was overwritten.

This module must never touch a drive that anybody is registered on, and without consent none that holds data.  It
writes in the scratch area alone (the last blocks of the drive) and puts back what lay there.

What it cannot see: a late write that landed between the completion and the mark on its block.  Rounds make that rare,
they do not exclude it.
"""

from __future__ import annotations

import asyncio
import statistics
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.domain.errors import EngineError, Refused, Unreachable
from dataplane.nvme.commands import Cns, identify, write
from dataplane.nvme.identify import IDENTIFY_SIZE, IdentifyController, IdentifyNamespace
from dataplane.nvme.reservations import (
    RESCAP_PERSIST,
    AcquireAction,
    ReleaseAction,
    ReservationReport,
    ReservationType,
    acquire,
    register,
    release,
)
from ha.adapters.commands import NSID, Channel, Commands, Controllers
from ha.adapters.reserving import Reservations, rtype_for
from ha.keys import life_of, make_key
from ha.model import Answer

ARRAY: Final = "ws7000 drive qualification"
COMMAND_MS: Final = 12_000
"""Longer than the 10 s for which SPDK lets a preempt-and-abort wait for the I/O of the evicted node."""
LOOK_BYTES: Final = 1024 * 1024
"""A drive is blank when this much of it reads zeroes: the label, the journal and its snapshots lie within it."""
AFTER: Final = 8
"""How often each writer tries again after the eviction, where it is not refused."""
HIDS: Final = 1  # CTRATT: 128-bit Host Identifier
_TAG: Final = struct.Struct("<8sQQ")
_MAGIC: Final = b"WS7000QV"
_MARK: Final = b"WS7000QM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """What was measured.  ``late`` counts blocks that a write of the evicted node reached after the eviction;
    ``shared`` says whether each node saw the other's registration, ``wrote`` how many writes were completed."""

    drive: str
    rescap: int
    rtype: int
    hids: bool
    shared: bool
    rounds: int
    wrote: int
    late: int
    open_after: int
    preempt_ms: tuple[float, ...] = field(default=())

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the drive is not fit; empty when it is."""
        found = {
            "it knows no reservation of all registrants": not self.rtype,
            "it knows no 128-bit host identifiers": not self.hids,
            "reservations do not outlive a power loss": not self.rescap & RESCAP_PERSIST,
            "the two nodes do not see each other's registrations": not self.shared,
            f"{self.late} blocks were overwritten by the evicted node": bool(self.late),
            f"the evicted node could still write in {self.open_after} rounds": bool(self.open_after),
        }
        return tuple(text for text, wrong in found.items() if wrong)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.drive,
            "fit": not self.problems,
            "problems": list(self.problems),
            "rescap": self.rescap,
            "reservationType": self.rtype,
            "exclusiveAccessAllRegistrants": self.rtype == ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
            "hostIdentifiers128": self.hids,
            "registrationsShared": self.shared,
            "rounds": self.rounds,
            "writesCompleted": self.wrote,
            "lateBlocks": self.late,
            "roundsOpenAfter": self.open_after,
            "preemptMedianMs": round(statistics.median(self.preempt_ms), 3) if self.preempt_ms else None,
            "preemptMaxMs": round(max(self.preempt_ms), 3) if self.preempt_ms else None,
        }


class _End:
    """The drive as one node reaches it; each writer has a lane of its own."""

    def __init__(self, channel: Channel, drive: str, key: int, clock: Callable[[], int]) -> None:
        self.drive, self.key = drive, key
        self._channel = channel
        self._controllers = Controllers(channel, clock)
        self.commands = self.lane()
        self.reservations = Reservations(self.commands)

    def lane(self) -> Commands:
        return Commands(self._channel, self._controllers)

    async def must(self, what: str, built: tuple[Any, bytes]) -> None:
        """A command that has to succeed; raises ``EngineError`` HA-025."""
        command, data = built
        said, _ = await self.commands.send(self.drive, command, COMMAND_MS, data=data)
        self.check(what, said)

    def check(self, what: str, said: Answer) -> None:
        if said is not Answer.OK:
            kind = Unreachable if said is Answer.SILENT else EngineError
            raise kind(
                "HA-025",
                f"drive {self.drive} could not be qualified: {what} ended with {said}",
                why="the drive or the path to it failed during the measurement",
                remedy="see the engine's log; another registrant may have cleared the reservation",
                where=self.drive,
            )

    async def identified(self, cns: Cns, nsid: int) -> bytes:
        command = identify(cns, nsid=nsid)
        said, done = await self.commands.send(self.drive, command, COMMAND_MS, kind="admin", size=IDENTIFY_SIZE)
        self.check("Identify", said)
        return done.data if done is not None else b""

    async def report(self) -> ReservationReport:
        said, found = await self.reservations.report(self.drive, COMMAND_MS)
        self.check("Reservation Report", said)
        assert found is not None
        return found

    async def read(self, at: int, size: int, block: int) -> bytes:
        said, raw = await self.commands.fetch(self.drive, at, size, block, COMMAND_MS)
        self.check("a read", said)
        return raw


@dataclass(slots=True)
class _Round:
    """One eviction and the writes around it; ``done`` says that it is over."""

    number: int
    shared: bool = False
    wrote: int = 0
    sent: int = 0
    done: bool = False
    open_after: bool = False
    late: int = 0
    took_ms: float = 0.0


class Qualifier:
    """One measurement.  ``depth`` writes of the victim are on their way at once; ``clock`` gives milliseconds,
    ``precise`` fractions of them."""

    def __init__(
        self,
        victim: Channel,
        survivor: Channel,
        drive: str,
        *,
        life: int,
        clock: Callable[[], int],
        precise: Callable[[], float],
        rounds: int = 20,
        depth: int = 16,
    ) -> None:
        for channel in (victim, survivor):
            channel.reserve(depth + 2)
        self._drive = drive
        self._rounds, self._depth = rounds, depth
        self._precise = precise
        self._victim = _End(victim, drive, make_key(ARRAY, "a", life_of(life)), clock)
        self._survivor = _End(survivor, drive, make_key(ARRAY, "b", life_of(life)), clock)
        self._block = self._at = self._size = 0

    async def run(self, *, consent: bool = False) -> Qualification:
        """Measure.  Raises ``Refused`` HA-023 for a drive in use, HA-025 where a command failed."""
        namespace = IdentifyNamespace.parse(await self._survivor.identified(Cns.NAMESPACE, NSID))
        controller = IdentifyController.parse(await self._survivor.identified(Cns.CONTROLLER, 0))
        self._block = namespace.block_size
        self._size = self._depth * self._block
        self._at = namespace.nsze * self._block - self._size
        await self._refuse_if_used(consent)
        before = await self._survivor.read(self._at, self._size, self._block)
        rtype = rtype_for(namespace.rescap) or ReservationType.NONE
        rounds: list[_Round] = []
        try:
            for number in range(self._rounds if rtype else 0):
                rounds.append(await self._round(number, rtype))
                await self._clear()
        finally:
            await self._clear()
            await self._survivor.commands.store(self._drive, self._at, before, self._block, COMMAND_MS)
        return Qualification(
            drive=self._drive, rescap=namespace.rescap, rtype=rtype, hids=bool(controller.ctratt & HIDS),
            shared=bool(rounds) and all(each.shared for each in rounds), rounds=len(rounds),
            wrote=sum(each.wrote for each in rounds), late=sum(each.late for each in rounds),
            open_after=sum(each.open_after for each in rounds), preempt_ms=tuple(each.took_ms for each in rounds),
        )  # fmt: skip

    async def _refuse_if_used(self, consent: bool) -> None:
        for end in (self._victim, self._survivor):
            if (await end.report()).registrants:
                raise Refused(
                    "HA-023",
                    f"drive {self._drive} is in use: a node is registered on it",
                    why="the measurement would evict it",
                    remedy="stop the array's data planes and give the drive up first",
                    where=self._drive,
                )
            start = await end.read(0, min(LOOK_BYTES, self._at + self._size), self._block)
            if any(start) and not consent:
                raise Refused(
                    "HA-023",
                    f"drive {self._drive} holds data",
                    why=f"its first {LOOK_BYTES} bytes do not all read zeroes; the measurement writes its last blocks",
                    remedy="use a blank drive, or consent to it by name",
                    where=self._drive,
                )

    async def _round(self, number: int, rtype: ReservationType) -> _Round:
        """Evict the victim in the middle of its writes."""
        made = _Round(number)
        ends = (self._victim, self._survivor)
        for end in ends:
            await end.must("Reservation Register", register(NSID, 0, end.key))
        await self._victim.must("Reservation Acquire", acquire(NSID, self._victim.key, rtype))
        seen = [{each.key for each in (await end.report()).registrants} for end in ends]
        made.shared = all(keys == {end.key for end in ends} for keys in seen)
        if not made.shared:  # it holds nothing on a side of its own, and a first preempt that is refused ends SPDK
            await self._survivor.must("Reservation Acquire", acquire(NSID, self._survivor.key, rtype))
        under_way = asyncio.Event()
        writers = [asyncio.create_task(self._write(made, place, under_way)) for place in range(self._depth)]
        try:
            await asyncio.wait({*writers, waiting := asyncio.create_task(under_way.wait())},
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            waiting.cancel()
            began = self._precise()
            await self._survivor.must(
                "preempt-and-abort", acquire(NSID, self._survivor.key, rtype, AcquireAction.PREEMPT_AND_ABORT)
            )
            made.took_ms, made.done = self._precise() - began, True
            mark = _TAG.pack(_MARK, number, 0).ljust(self._block, b"\0") * self._depth
            said = await self._survivor.commands.store(self._drive, self._at, mark, self._block, COMMAND_MS)
            self._survivor.check("a write", said)
        finally:
            made.done = True
            await asyncio.gather(*writers)
        found = await self._survivor.read(self._at, self._size, self._block)
        places = range(0, self._size, self._block)
        made.late = sum(found[at : at + self._block] != mark[at : at + self._block] for at in places)
        return made

    async def _write(self, made: _Round, place: int, under_way: asyncio.Event) -> None:
        """Write tagged blocks, one after the other, until the drive refuses or the eviction is long done."""
        lane, lba = self._victim.lane(), self._at // self._block + place
        after = 0
        while after < AFTER:
            after += made.done
            made.sent += 1
            sent_after = made.done
            data = _TAG.pack(_MAGIC, made.number, made.sent).ljust(self._block, b"\0")
            said, _ = await lane.send(self._drive, write(NSID, lba, 1, self._block), COMMAND_MS, data=data)
            if said is not Answer.OK:
                return
            made.wrote += 1
            made.open_after |= sent_after
            if made.wrote >= self._depth:
                under_way.set()

    async def _clear(self) -> None:
        """Nobody of this measurement is registered any more."""
        for end in (self._survivor, self._victim):
            if end.key in {each.key for each in (await end.report()).registrants}:
                await end.must("clear", release(NSID, end.key, ReservationType.NONE, ReleaseAction.CLEAR))
