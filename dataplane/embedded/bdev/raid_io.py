"""The I/O of raid0 and concat, over a map, and what all raid sets share.

Why: volumes are made of slices by these.  This module must never decide which legs a set has: it is told.

Invariants: every block lies on exactly one leg; a range without data goes to each leg once; a failed leg is
answered as Internal Error, whatever the leg said.  Mirrors: ``raid_mirror``.
Source: SPDK v26.05 module/bdev/raid/raid0.c, concat.c.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.bdev.hints import Hints
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

    @property
    def hints(self) -> Hints:
        """I/O that crosses no strip goes to one leg only."""
        one = isinstance(self._map, Striped) and len(self._legs) == 1
        return Hints(io_boundary=0 if one else self._map.strip_blocks)

    def grow(self, layout: Striped | Concatenated) -> None:
        """Use more of each leg: what lay where still lies there."""
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
