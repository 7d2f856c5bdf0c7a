"""Bdevs without a medium: ``malloc`` keeps its blocks in memory, ``null`` keeps none.

Why: tests and the stand-in for a missing leg of a mirrored set.  This module must never touch a file.

Invariant: ``null`` reads zeroes and never remembers a write.
Source: SPDK v26.05 module/bdev/malloc/bdev_malloc.c, module/bdev/null/bdev_null.c.
"""

from __future__ import annotations

import errno
import mmap
import os
from dataclasses import dataclass
from typing import Final

from dataplane.embedded.bdev.base import Bdev, BdevError, Buffer
from dataplane.embedded.bdev.hints import Hints

_PAGE: Final = mmap.PAGESIZE
_METADATA_SIZES: Final = (0, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """What ``bdev_malloc_create`` or ``bdev_null_create`` was asked for."""

    name: str
    num_blocks: int
    block_size: int
    physical_block_size: int = 0
    md_size: int = 0
    dif_type: int = 0
    uuid: str | None = None

    def check(self) -> None:
        """Raise ``BdevError``: EINVAL as SPDK does, ENOTSUP for metadata, which this engine does not keep."""
        wrong = self.num_blocks == 0 or self.block_size % 512 or self.physical_block_size % 512
        if wrong or self.md_size not in _METADATA_SIZES:
            raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
        if self.block_size == 0:
            raise BdevError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if self.md_size or self.dif_type:
            raise BdevError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    def to_json(self, uuid: str) -> dict[str, object]:
        """The parameters that both methods share."""
        return {
            "name": self.name,
            "num_blocks": self.num_blocks,
            "block_size": self.block_size,
            "physical_block_size": self.physical_block_size or self.block_size,
            "uuid": uuid,
        }


class MallocBdev(Bdev):
    """Blocks in anonymous memory, which costs nothing before it is written."""

    __slots__ = ("_memory", "options")
    product_name = "Malloc disk"

    def __init__(self, options: MemoryOptions) -> None:
        """Reserve the memory; raises ``BdevError``."""
        options.check()
        try:
            self._memory = mmap.mmap(
                -1, options.num_blocks * options.block_size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            )
        except (OSError, OverflowError, ValueError) as error:
            raise BdevError(errno.ENOMEM, os.strerror(errno.ENOMEM)) from error
        super().__init__(options.name, options.block_size, options.num_blocks, options.uuid)
        self.options = options

    @property
    def prompt(self) -> bool:
        """Memory never waits; a rate limit does."""
        return self.unhindered

    @property
    def write_cache(self) -> bool:
        """SPDK says so of its malloc bdev too, so that flush is offered."""
        return True

    @property
    def hints(self) -> Hints:
        """The physical block size that was asked for."""
        return Hints(self.options.physical_block_size)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """A copy: later writes do not change it."""
        start = lba * self.block_size
        return self._memory[start : start + blocks * self.block_size]

    async def do_write(self, lba: int, data: Buffer) -> None:
        """Copy into memory."""
        start = lba * self.block_size
        self._memory[start : start + len(data)] = data

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """Give whole pages back, which then read zeroes, and clear the rest."""
        start, end = lba * self.block_size, (lba + blocks) * self.block_size
        first, last = -(-start // _PAGE) * _PAGE, end // _PAGE * _PAGE
        if first >= last:
            self._memory[start:end] = bytes(end - start)
            return
        self._memory[start:first] = bytes(first - start)
        self._memory[last:end] = bytes(end - last)
        self._memory.madvise(mmap.MADV_DONTNEED, first, last - first)

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """As in SPDK: clears."""
        await self.do_write_zeroes(lba, blocks)

    def supported_io_types(self) -> dict[str, bool]:
        """As SPDK's, without zero copy."""
        return super().supported_io_types() | {"compare": True, "abort": True, "copy": True}

    async def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def config(self) -> dict[str, object]:
        """``bdev_malloc_create``."""
        params = self.options.to_json(self.uuid) | {
            "optimal_io_boundary": 0,
            "md_size": 0,
            "dif_type": 0,
            "dif_is_head_of_md": False,
            "dif_pi_format": 0,
            "numa_id": -1,
        }
        return {"method": "bdev_malloc_create", "params": params}


class NullBdev(Bdev):
    """Swallows writes and reads zeroes."""

    __slots__ = ("options",)
    product_name = "Null disk"

    def __init__(self, options: MemoryOptions) -> None:
        """Raises ``BdevError``."""
        options.check()
        super().__init__(options.name, options.block_size, options.num_blocks, options.uuid)
        self.options = options

    @property
    def hints(self) -> Hints:
        """The physical block size that was asked for."""
        return Hints(self.options.physical_block_size)

    async def do_read(self, lba: int, blocks: int) -> Buffer:  # noqa: ARG002 - every block is the same
        """Zeroes."""
        return bytes(blocks * self.block_size)

    async def do_write(self, lba: int, data: Buffer) -> None:
        """Forget it."""

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """Nothing to do."""

    def supported_io_types(self) -> dict[str, bool]:
        """No flush and no unmap, as in SPDK."""
        return {"read": True, "write": True, "reset": True, "write_zeroes": True, "abort": True}

    @property
    def prompt(self) -> bool:
        """There is nothing to wait for but a rate limit."""
        return self.unhindered

    def config(self) -> dict[str, object]:
        """``bdev_null_create``, with the size that it has now."""
        params = self.options.to_json(self.uuid) | {
            "num_blocks": self.num_blocks,
            "md_size": 0,
            "dif_type": 0,
            "dif_is_head_of_md": False,
            "dif_pi_format": 0,
            "preferred_write_granularity": 0,
            "preferred_write_alignment": 0,
            "optimal_write_size": 0,
            "preferred_unmap_granularity": 0,
            "preferred_unmap_alignment": 0,
        }
        return {"method": "bdev_null_create", "params": params}
