"""A bdev that is laid over another one, or over a range of it, and sends everything on.

Why: parts, devices that fail and devices that wait differ in one step of an I/O; what they share stands here once.
This module must never keep data.

Invariants: a base that is laid over as a whole (``lay``) is claimed by its one layer; the layer goes before its base
does, and gives the claim back.
Source: SPDK v26.05 lib/bdev/part.c, bdev.c (spdk_bdev_comparev_and_writev_blocks, spdk_bdev_copy_blocks).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dataplane.embedded.bdev.base import Bdev, BdevError, BdevRegistry, Buffer


class Layer(Bdev):
    """As large as its base, with the same blocks, or a range of it: every call goes to the base at an offset."""

    __slots__ = ("base", "offset_blocks", "on_close")

    def __init__(self, base: Bdev, name: str, uuid: str, offset_blocks: int = 0, num_blocks: int | None = None) -> None:
        super().__init__(name, base.block_size, base.num_blocks if num_blocks is None else num_blocks, uuid)
        self.base = base
        self.offset_blocks = offset_blocks
        self.on_close: Callable[[], None] | None = None

    @property
    def write_cache(self) -> bool:
        """As the base."""
        return self.base.write_cache

    @property
    def max_copy(self) -> int:
        """A drive's own limit is not handed on, as in SPDK."""
        return 0 if self.supported_io_types().get("copy", False) else self.base.max_copy

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """From the base."""
        return await self.base.read(self.offset_blocks + lba, blocks)

    async def do_write(self, lba: int, data: Buffer) -> None:
        """To the base."""
        await self.base.write(self.offset_blocks + lba, data)

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """The base knows best how to make it durable."""
        await self.base.write(self.offset_blocks + lba, data, fua=True)

    def _base_can(self, kind: str) -> bool:
        """Where it cannot, reads and writes of this layer take its place, so that they fail or wait as others do."""
        return self.base.supported_io_types().get(kind, False)

    async def do_compare(self, lba: int, expected: Buffer) -> None:
        """By a base that can."""
        if self._base_can("compare"):
            await self.base.compare(self.offset_blocks + lba, expected)
        else:
            await super().do_compare(lba, expected)

    async def do_compare_and_write(self, lba: int, expected: Buffer, data: Buffer, *, fua: bool) -> None:
        """By a base that can do both at once."""
        if self._base_can("compare_and_write"):
            await self.base.compare_and_write(self.offset_blocks + lba, expected, data, fua=fua)
        else:
            await super().do_compare_and_write(lba, expected, data, fua=fua)

    async def do_copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool) -> None:
        """Inside a base that can."""
        if self._base_can("copy"):
            await self.base.copy(self.offset_blocks + to_lba, self.offset_blocks + from_lba, blocks, fua=fua)
        else:
            await super().do_copy(to_lba, from_lba, blocks, fua=fua)

    async def abort(self, task: asyncio.Task[Any]) -> bool:
        """By the base."""
        return await self.base.abort(task)

    async def do_flush(self) -> None:
        """The whole base."""
        await self.base.flush()

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """On the base."""
        await self.base.write_zeroes(self.offset_blocks + lba, blocks)

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """On the base."""
        await self.base.unmap(self.offset_blocks + lba, blocks)

    async def close(self) -> None:
        """Give the base back."""
        if self.on_close is not None:
            self.on_close()

    def supported_io_types(self) -> dict[str, bool]:
        """Those of the base, without NVMe pass-through."""
        return {kind: yes for kind, yes in self.base.supported_io_types().items() if not kind.startswith("nvme")}


def lay(bdevs: BdevRegistry, layer: Layer, claim: str, gone: Callable[[], object]) -> None:
    """Claim the base and publish the layer; ``gone`` is called when it is closed.  Raises ``BdevError``."""
    base = layer.base
    bdevs.claim(base, claim)

    async def base_removed(_base: Bdev) -> None:
        await bdevs.remove(layer)

    def give_back() -> None:
        base.remove_hooks.remove(base_removed)
        bdevs.release(base)

    def closed() -> None:
        give_back()
        gone()

    base.remove_hooks.append(base_removed)
    layer.on_close = closed
    try:
        bdevs.add(layer)
    except BdevError:
        give_back()
        raise
