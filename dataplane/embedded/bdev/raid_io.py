"""The I/O of raid sets: raid0 and concat over a map, raid1 over equal legs.

Why: volumes are made of slices by these.  This module must never decide which legs a set has: it is told, and
tells (``on_leg_failed``) when a leg of a mirror answered wrongly.

Invariants: a raid1 write is sent to every leg and answered when all have answered; it is good when any leg took
it, and each leg that did not is reported before the answer (SPDK does the same: module/bdev/raid/raid1.c); a
range without data goes to each leg once.  A failed leg is answered as Internal Error, whatever the leg said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.bdev.raid_map import Concatenated, Piece, Striped
from dataplane.nvme.status import NvmeError, Status

Io = Coroutine[Any, Any, Any]


async def together(ios: list[Io]) -> list[BaseException | object]:
    """Run all; results and ``NvmeError``s in order.  Every I/O has ended when this returns."""
    if len(ios) == 1:
        try:
            return [await ios[0]]
        except NvmeError as error:
            return [error]
    results = await asyncio.gather(*ios, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, NvmeError):
            raise result
    return results


def _all_good(results: list[BaseException | object]) -> None:
    if any(isinstance(result, NvmeError) for result in results):
        raise NvmeError(Status.INTERNAL_ERROR)


class Gate:
    """Counts I/O under way and can hold new I/O back until that which is under way has ended (quiesce)."""

    __slots__ = ("_drained", "_opened", "_under_way")

    def __init__(self) -> None:
        self._under_way = 0
        self._opened: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    async def enter(self) -> None:
        """Wait while closed, then count one I/O."""
        while self._opened is not None:
            await asyncio.shield(self._opened)
        self._under_way += 1

    def leave(self) -> None:
        """One I/O ended."""
        self._under_way -= 1
        if self._under_way == 0 and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def close(self) -> None:
        """Hold new I/O back and wait for the rest; one after the other when several close it."""
        while self._opened is not None:
            await asyncio.shield(self._opened)
        loop = asyncio.get_running_loop()
        self._opened = loop.create_future()
        if self._under_way:
            self._drained = loop.create_future()
            await self._drained
            self._drained = None

    def open(self) -> None:
        """Let I/O through again."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.set_result(None)


class RaidBdev(Bdev):
    """What all levels share; ``info`` is asked for the ``raid`` object and ``call`` for the creating call."""

    __slots__ = ("_call", "_info", "_kinds")
    product_name = "Raid Volume"

    def __init__(
        self,
        name: str,
        num_blocks: int,
        uuid: str | None,
        legs: list[Bdev],
        info: Callable[[], dict[str, object]],
        call: Callable[[], dict[str, object]],
    ) -> None:
        super().__init__(name, legs[0].block_size, num_blocks, uuid)
        self._info = info
        self._call = call
        self._kinds = {"read": True, "write": True, "write_zeroes": True}
        of_legs = [leg.supported_io_types() for leg in legs]
        for kind in ("unmap", "flush", "reset"):
            self._kinds[kind] = all(leg.get(kind, False) for leg in of_legs)

    def supported_io_types(self) -> dict[str, bool]:
        """Read, write and write zeroes; flush, unmap and reset when every leg had them at the start.

        What a host was told stays so when a mirror loses the leg that could not.
        """
        return dict(self._kinds)

    def driver_specific(self) -> dict[str, object]:
        """The ``raid`` object."""
        return {"raid": self._info()}

    def config(self) -> dict[str, object]:
        """``bdev_raid_create``."""
        return self._call()


class MappedRaid(RaidBdev):
    """raid0 or concat: every block on exactly one leg."""

    __slots__ = ("_legs", "_map")

    def __init__(
        self,
        name: str,
        uuid: str | None,
        legs: list[Bdev],
        layout: Striped | Concatenated,
        info: Callable[[], dict[str, object]],
        call: Callable[[], dict[str, object]],
    ) -> None:
        super().__init__(name, layout.num_blocks, uuid, legs, info, call)
        self._legs = legs
        self._map = layout

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """Each piece from its leg, joined."""
        pieces = self._map.pieces(lba, blocks)
        results = await together([self._legs[piece.leg].read(piece.lba, piece.blocks) for piece in pieces])
        _all_good(results)
        parts = [part for part in results if isinstance(part, bytes | bytearray | memoryview)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def do_write(self, lba: int, data: Buffer) -> None:
        """Each piece to its leg."""
        await self._write(lba, data, fua=False)

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """Each piece to its leg, and no other leg is flushed for it."""
        await self._write(lba, data, fua=True)

    async def _write(self, lba: int, data: Buffer, *, fua: bool) -> None:
        view = memoryview(data)
        ios: list[Io] = []
        for piece in self._map.pieces(lba, len(view) // self.block_size):
            begin = piece.at * self.block_size
            part = view[begin : begin + piece.blocks * self.block_size]
            ios.append(self._legs[piece.leg].write(piece.lba, part, fua=fua))
        _all_good(await together(ios))

    async def do_flush(self) -> None:
        """Every leg; good when all are."""
        _all_good(await together([leg.flush() for leg in self._legs]))

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """One range per leg."""
        await self._spread(lba, blocks, lambda leg, piece: leg.write_zeroes(piece.lba, piece.blocks))

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """One range per leg."""
        await self._spread(lba, blocks, lambda leg, piece: leg.unmap(piece.lba, piece.blocks))

    async def _spread(self, lba: int, blocks: int, io: Callable[[Bdev, Piece], Io]) -> None:
        pieces = self._map.spans(lba, blocks)
        if pieces:
            _all_good(await together([io(self._legs[piece.leg], piece) for piece in pieces]))


class MirroredRaid(RaidBdev):
    """raid1.  One place per base bdev; a place without a leg is None.

    A read that failed on one leg is repaired there from another one, but only while no write is under way, and
    writes wait for it: otherwise the repair could put old data over new.
    """

    __slots__ = ("_legs", "_on_leg_failed", "_reading", "_repair", "_writing", "gate")

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
        self.gate = Gate()

    def present_legs(self) -> list[Bdev]:
        """Those that are left."""
        return [leg for leg in self._legs if leg is not None]

    def drop_leg(self, place: int) -> None:
        """Send nothing to this leg any more; I/O under way ends as it ends."""
        self._legs[place] = None

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """From the leg with the fewest blocks being read; from another when that one fails."""
        await self.gate.enter()
        try:
            present = [place for place, leg in enumerate(self._legs) if leg is not None]
            if not present:
                raise NvmeError(Status.INTERNAL_ERROR)
            place = min(present, key=lambda place: self._reading[place])
            leg = self._legs[place]
            assert leg is not None
            self._reading[place] += blocks
            try:
                return await leg.read(lba, blocks)
            except NvmeError:
                pass
            finally:
                self._reading[place] -= blocks
            return await self._read_elsewhere(place, leg, lba, blocks)
        finally:
            self.gate.leave()

    async def _read_elsewhere(self, place: int, bad: Bdev, lba: int, blocks: int) -> Buffer:
        """Read from any other leg; fail the first one only when it cannot be written or no other one reads."""
        may_repair = self._writing == 0 and self._repair is None
        if may_repair:
            self._repair = asyncio.get_running_loop().create_future()
        try:
            for other_place, other in enumerate(self._legs):
                if other is None or other_place == place:
                    continue
                try:
                    data = await other.read(lba, blocks)
                except NvmeError:
                    continue
                if may_repair and self._legs[place] is bad:
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
        """To every leg before the answer; good when any took it."""
        await self._everywhere(lambda leg: leg.write(lba, data))

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """As a write: a leg that could not make it durable has failed."""
        await self._everywhere(lambda leg: leg.write(lba, data, fua=True))

    async def do_flush(self) -> None:
        """As a write."""
        await self._everywhere(lambda leg: leg.flush())

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """As a write."""
        await self._everywhere(lambda leg: leg.write_zeroes(lba, blocks))

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """As a write."""
        await self._everywhere(lambda leg: leg.unmap(lba, blocks))

    async def _everywhere(self, io: Callable[[Bdev], Io]) -> None:
        await self.gate.enter()
        try:
            while self._repair is not None:
                await asyncio.shield(self._repair)
            self._writing += 1
            try:
                await self._to_all(io)
            finally:
                self._writing -= 1
        finally:
            self.gate.leave()

    async def _to_all(self, io: Callable[[Bdev], Io]) -> None:
        places = [(place, leg) for place, leg in enumerate(self._legs) if leg is not None]
        if not places:
            raise NvmeError(Status.INTERNAL_ERROR)
        results = await together([io(leg) for _, leg in places])
        failed = [where for where, result in zip(places, results, strict=True) if isinstance(result, NvmeError)]
        for place, leg in failed:
            self._on_leg_failed(place, leg)
        if len(failed) == len(places):
            raise NvmeError(Status.INTERNAL_ERROR)
