"""What every block device of the embedded engine is, and the registry that owns their names.

Why: SPDK's rules about bdevs (unique names and UUIDs, one writer claim, removal announced upwards) are
what the control plane relies on, so they live in one place.  This module must never know a concrete device.

Invariants: a name, alias or UUID resolves to at most one bdev; a claimed bdev has exactly one claimant;
``remove`` of a bdev first tells everything that was built on it.
"""

from __future__ import annotations

import errno
import uuid as uuidlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator

from dataplane.nvme.status import NvmeError, Status

Buffer = bytes | bytearray | memoryview
RemoveHook = Callable[["Bdev"], Awaitable[None]]


class BdevError(Exception):
    """A management operation failed; ``errno`` is positive, as in the kernel (the RPC answers ``-errno``)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Bdev(ABC):
    """A block device.  Offsets and lengths are in blocks of ``block_size`` bytes.

    I/O methods raise ``NvmeError`` with the status a host is to see; they never raise anything else for a
    failed I/O.  A write that returned is readable; it is durable once ``flush`` returned.
    """

    product_name = "bdev"

    def __init__(self, name: str, block_size: int, num_blocks: int, uuid: str | None = None) -> None:
        self.name = name
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.uuid = str(uuidlib.UUID(uuid)) if uuid else str(uuidlib.uuid4())
        self.aliases: list[str] = [self.uuid]
        self.claimed_by: str | None = None
        self.remove_hooks: list[RemoveHook] = []
        self.qos_limits = {"rw_ios_per_sec": 0, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0}

    @abstractmethod
    async def read(self, lba: int, blocks: int) -> Buffer:
        """``blocks`` * ``block_size`` bytes from ``lba``."""

    @abstractmethod
    async def write(self, lba: int, data: Buffer) -> None:
        """Write whole blocks at ``lba``."""

    async def flush(self) -> None:
        """Return when every acknowledged write is durable; devices without a cache have nothing to do."""

    async def write_zeroes(self, lba: int, blocks: int) -> None:
        """Make the range read zeroes; devices with a faster way override this."""
        step = max(1, (1 << 20) // self.block_size)
        while blocks:
            part = min(blocks, step)
            await self.write(lba, bytes(part * self.block_size))
            lba += part
            blocks -= part

    async def unmap(self, lba: int, blocks: int) -> None:
        """Deallocate the range: a hint, what it reads afterwards is up to the device.  Does nothing here."""

    async def close(self) -> None:
        """Release what the device holds; called once, after it has left the registry."""

    def check_range(self, lba: int, blocks: int) -> None:
        """Raise LBA Out of Range (NVMe base 2.0, figure 101: 80h) unless the range lies inside."""
        if lba < 0 or blocks < 0 or lba + blocks > self.num_blocks:
            raise NvmeError(Status.LBA_OUT_OF_RANGE)

    def supported_io_types(self) -> dict[str, bool]:
        """As ``bdev_get_bdevs`` shows them; the keys SPDK prints and we support."""
        return {"read": True, "write": True, "unmap": True, "flush": True, "reset": True, "write_zeroes": True}

    def driver_specific(self) -> dict[str, object]:
        """The ``driver_specific`` object of ``bdev_get_bdevs``."""
        return {}

    def config(self) -> dict[str, object] | None:
        """The JSON-RPC call (``method``, ``params``) that would create this bdev again; None if it is a part."""
        return None


class BdevRegistry:
    """All bdevs of the process by name, alias and UUID."""

    def __init__(self) -> None:
        self._by_name: dict[str, Bdev] = {}
        self._bdevs: dict[str, Bdev] = {}  # insertion order is creation order
        self.added: list[Callable[[Bdev], None]] = []
        self.removed: list[Callable[[Bdev], None]] = []

    def __iter__(self) -> Iterator[Bdev]:
        return iter(self._bdevs.values())

    def find(self, name: str) -> Bdev | None:
        """The bdev of that name, alias or UUID."""
        return self._by_name.get(name)

    def get(self, name: str) -> Bdev:
        """Like ``find``; raises ``BdevError(ENODEV)``."""
        bdev = self._by_name.get(name)
        if bdev is None:
            raise BdevError(errno.ENODEV, "No such device")
        return bdev

    def add(self, bdev: Bdev) -> None:
        """Publish ``bdev``; raises ``BdevError(EEXIST)`` when its name or UUID is taken."""
        names = [bdev.name, *bdev.aliases]
        if any(name in self._by_name for name in names):
            raise BdevError(errno.EEXIST, "File exists")
        for name in names:
            self._by_name[name] = bdev
        self._bdevs[bdev.name] = bdev
        for hook in list(self.added):
            hook(bdev)

    def claim(self, bdev: Bdev, by: str) -> None:
        """Take the exclusive write claim; raises ``BdevError(EPERM)`` when somebody holds it."""
        if bdev.claimed_by is not None:
            raise BdevError(errno.EPERM, "Operation not permitted")
        bdev.claimed_by = by

    def release(self, bdev: Bdev) -> None:
        """Give the claim back."""
        bdev.claimed_by = None

    async def remove(self, bdev: Bdev) -> None:
        """Tell what is built on ``bdev``, then take it out and close it."""
        if self._bdevs.get(bdev.name) is not bdev:
            return
        for hook in list(bdev.remove_hooks):
            await hook(bdev)
        for name in [bdev.name, *bdev.aliases]:
            self._by_name.pop(name, None)
        self._bdevs.pop(bdev.name, None)
        for gone in list(self.removed):
            gone(bdev)
        await bdev.close()
