"""A bdev that is laid over the whole of another one and sends everything on.

Why: devices that fail and devices that wait differ in one step of an I/O; what they share stands here once.  This
module must never keep data.

Invariants: a base carries at most one layer, which claims it; the layer goes before its base does, and gives the
claim back.
Source: SPDK v26.05 lib/bdev/part.c.
"""

from __future__ import annotations

from collections.abc import Callable

from dataplane.embedded.bdev.base import Bdev, BdevError, BdevRegistry, Buffer


class Layer(Bdev):
    """As large as its base, with the same blocks."""

    __slots__ = ("base", "on_close")

    def __init__(self, base: Bdev, name: str, uuid: str) -> None:
        super().__init__(name, base.block_size, base.num_blocks, uuid)
        self.base = base
        self.on_close: Callable[[], None] = lambda: None

    @property
    def write_cache(self) -> bool:
        """As the base."""
        return self.base.write_cache

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """From the base."""
        return await self.base.read(lba, blocks)

    async def do_write(self, lba: int, data: Buffer) -> None:
        """To the base."""
        await self.base.write(lba, data)

    async def do_flush(self) -> None:
        """The base."""
        await self.base.flush()

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """On the base."""
        await self.base.write_zeroes(lba, blocks)

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """On the base."""
        await self.base.unmap(lba, blocks)

    async def close(self) -> None:
        """Give the base back."""
        self.on_close()

    def supported_io_types(self) -> dict[str, bool]:
        """Those of the base."""
        return self.base.supported_io_types()


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
