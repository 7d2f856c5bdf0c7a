"""The I/O of raid1: equal legs, and one that is being made equal.

Why: a mirror must go on without a leg, and take one back, while hosts read and write.  This module must never
decide which legs a set has: it is told, and tells (``on_leg_failed``) when a leg answered wrongly.

Invariants: a write is sent to every equal leg, and below the mark of a rebuild to its target too, and is answered
when all have answered; it is good when any equal leg took it, and each leg that did not is reported before the
answer; a read never comes from the target above the mark.
Source: SPDK v26.05 module/bdev/raid/raid1.c; there a write that only the target took is good as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.bdev.raid_io import Io, RaidBdev, together
from dataplane.embedded.bdev.raid_rebuild import Rebuild
from dataplane.embedded.bdev.range_gate import RangeGate
from dataplane.nvme.status import NvmeError, Status

Place = tuple[int, Bdev]


class MirroredRaid(RaidBdev):
    """raid1.  One place per base bdev; a place without an equal leg is None.

    A read that failed on one leg is repaired there from another one, but only while no write is under way, and
    writes wait for it: otherwise the repair could put old data over new.
    """

    __slots__ = ("_legs", "_on_leg_failed", "_reading", "_repair", "_writing", "gate", "rebuild")

    def __init__(
        self,
        name: str,
        uuid: str | None,
        legs: list[Bdev],
        num_blocks: int,
        info: Callable[[], dict[str, object]],
        call: Callable[[], dict[str, object]],
        on_leg_failed: Callable[[int, Bdev], None],
    ) -> None:
        super().__init__(name, num_blocks, uuid, legs, info, call)
        self._legs: list[Bdev | None] = list(legs)
        self._reading = [0] * len(legs)
        self._writing = 0
        self._repair: asyncio.Future[None] | None = None
        self._on_leg_failed = on_leg_failed
        self.gate = RangeGate()
        self.rebuild: Rebuild | None = None

    def uses(self, leg: Bdev) -> bool:
        """Whether I/O goes to this bdev, as an equal leg or as the target of a rebuild."""
        return leg in self._legs or (self.rebuild is not None and self.rebuild.target is leg)

    def drop_leg(self, place: int) -> None:
        """Send nothing to the leg of this place any more; I/O under way ends as it ends."""
        self._legs[place] = None
        if self.rebuild is not None and self.rebuild.place == place:
            self.rebuild = None

    def join(self, place: int, leg: Bdev) -> None:
        """The leg of this place is equal to the others from now on."""
        self._legs[place] = leg

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """From the leg with the fewest blocks being read; from another when that one fails."""
        span = await self.gate.enter(lba, blocks)
        try:
            return await self._read(self._equal_legs() + self._covered_target(lba, blocks), lba, blocks)
        finally:
            self.gate.leave(span)

    async def read_equal_legs(self, lba: int, blocks: int) -> Buffer:
        """What a rebuild copies.  The caller has closed the range."""
        return await self._read(self._equal_legs(), lba, blocks)

    def _equal_legs(self) -> list[Place]:
        found = [(place, leg) for place, leg in enumerate(self._legs) if leg is not None]
        if not found:
            raise NvmeError(Status.INTERNAL_ERROR)
        return found

    def _covered_target(self, lba: int, blocks: int) -> list[Place]:
        """The target, where it is equal already."""
        rebuild = self.rebuild
        return [(rebuild.place, rebuild.target)] if rebuild is not None and rebuild.plan.covers(lba, blocks) else []

    async def _read(self, legs: list[Place], lba: int, blocks: int) -> Buffer:
        place, leg = min(legs, key=lambda each: self._reading[each[0]])
        self._reading[place] += blocks
        try:
            return await leg.read(lba, blocks)
        except NvmeError:
            pass
        finally:
            self._reading[place] -= blocks
        others = [other for other_place, other in legs if other_place != place]
        return await self._read_elsewhere(place, leg, others, lba, blocks)

    async def _read_elsewhere(self, place: int, bad: Bdev, others: list[Bdev], lba: int, blocks: int) -> Buffer:
        """Read from any other leg; fail the first one only when it cannot be written or no other one reads."""
        may_repair = self._writing == 0 and self._repair is None
        if may_repair:
            self._repair = asyncio.get_running_loop().create_future()
        try:
            for other in others:
                if not self.uses(other):
                    continue  # it failed meanwhile, and misses what was written since
                try:
                    data = await other.read(lba, blocks)
                except NvmeError:
                    continue
                if may_repair and self.uses(bad):
                    await self._write_back(place, bad, lba, data)
                return data
        finally:
            if may_repair and self._repair is not None:
                self._repair.set_result(None)
                self._repair = None
        self._on_leg_failed(place, bad)
        raise NvmeError(Status.INTERNAL_ERROR)

    async def _write_back(self, place: int, bad: Bdev, lba: int, data: Buffer) -> None:
        try:
            await bad.write(lba, data)
        except NvmeError:
            self._on_leg_failed(place, bad)

    async def do_write(self, lba: int, data: Buffer) -> None:
        """To every leg before the answer; good when any equal one took it."""
        await self._write(lba, data, fua=False)

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """As a write: a leg that could not make it durable has failed."""
        await self._write(lba, data, fua=True)

    async def _write(self, lba: int, data: Buffer, *, fua: bool) -> None:
        view = memoryview(data)
        size = self.block_size

        def part(leg: Bdev, start: int, blocks: int) -> Io:
            begin = (start - lba) * size
            return leg.write(start, view[begin : begin + blocks * size], fua=fua)

        await self._everywhere(lba, len(view) // size, part)

    async def do_flush(self) -> None:
        """As a write."""
        await self._everywhere(0, 0, lambda leg, _start, _blocks: leg.flush())

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """As a write."""
        await self._everywhere(lba, blocks, lambda leg, start, count: leg.write_zeroes(start, count))

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """As a write."""
        await self._everywhere(lba, blocks, lambda leg, start, count: leg.unmap(start, count))

    async def _everywhere(self, lba: int, blocks: int, io: Callable[[Bdev, int, int], Io]) -> None:
        span = await self.gate.enter(lba, blocks)
        try:
            while self._repair is not None:
                await asyncio.shield(self._repair)
            self._writing += 1
            try:
                # The mark does not move while this is under way, since the next window touches the range.
                for start, count in self.rebuild.plan.parts(lba, blocks) if self.rebuild else [(lba, blocks)]:
                    await self._to_all(start, count, io)
            finally:
                self._writing -= 1
        finally:
            self.gate.leave(span)

    async def _to_all(self, lba: int, blocks: int, io: Callable[[Bdev, int, int], Io]) -> None:
        equal = self._equal_legs()
        places = equal + self._covered_target(lba, blocks)
        results = await together([io(leg, lba, blocks) for _, leg in places])
        failed = [where for where, result in zip(places, results, strict=True) if isinstance(result, NvmeError)]
        for place, leg in failed:
            self._on_leg_failed(place, leg)
        if all(where in failed for where in equal):
            raise NvmeError(Status.INTERNAL_ERROR)
