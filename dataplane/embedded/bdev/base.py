"""What every block device of the embedded engine is, and the registry that owns their names.

Why: SPDK's rules about bdevs (unique names and UUIDs, one writer claim, examination of what appears, removal
announced upwards) are what the control plane relies on, so they live in one place.  This module must never know
a concrete device.

Invariants: a name, alias or UUID resolves to at most one bdev; a claimed bdev has exactly one claimant;
``remove`` of a bdev first tells everything that was built on it; an I/O that reaches a device lies inside it.
Source: SPDK v26.05 lib/bdev/bdev.c.
"""

from __future__ import annotations

import asyncio
import errno
import time
import uuid as uuidlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator

from dataplane.embedded.bdev.qos import KINDS, RateLimits
from dataplane.embedded.bdev.stats import IoStat
from dataplane.nvme.status import NvmeError, Status

Buffer = bytes | bytearray | memoryview
RemoveHook = Callable[["Bdev"], Awaitable[None]]
NULL_UUID = "00000000-0000-0000-0000-000000000000"
_ZERO_STEP_BYTES = 1 << 20


class BdevError(Exception):
    """A management operation failed; ``errno`` is positive, as in the kernel (the RPC answers ``-errno``)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class Bdev(ABC):
    """A block device.  Offsets and lengths are in blocks of ``block_size`` bytes.

    Callers use ``read``, ``write``, ``flush``, ``write_zeroes`` and ``unmap``: these check the range, hold the
    rate limits and count.  A device implements the ``do_`` method of each.  All raise ``NvmeError`` with the
    status a host is to see; they never raise anything else for a failed I/O.  A write that returned is
    readable; it is durable once ``flush`` returned.
    """

    # Slots, since a node holds 24 drives x 512 slices of them.
    __slots__ = (
        "_stats", "aliases", "block_size", "claimed_by", "limits", "name", "num_blocks", "remove_hooks",
        "removing", "uuid",
    )  # fmt: skip
    product_name = "bdev"

    def __init__(self, name: str, block_size: int, num_blocks: int, uuid: str | None = None) -> None:
        self.name = name
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.uuid = str(uuidlib.UUID(uuid)) if uuid and uuid != NULL_UUID else str(uuidlib.uuid4())
        # lib/bdev adds the UUID as an alias only where it differs from the name.
        self.aliases: list[str] = [] if self.uuid == name else [self.uuid]
        self.claimed_by: str | None = None
        self.remove_hooks: list[RemoveHook] = []
        self.removing = False
        self.limits: RateLimits | None = None
        self._stats: IoStat | None = None

    @property
    def write_cache(self) -> bool:
        """Whether an acknowledged write may be lost without ``flush`` (VWC in Identify Controller)."""
        return False

    @property
    def prompt(self) -> bool:
        """Whether reads and writes are expected to end without waiting, so that no task has to be made for them."""
        return False

    @property
    def stats(self) -> IoStat:
        """Counters since registration or the last reset; made at the first use."""
        if self._stats is None:
            self._stats = IoStat()
        return self._stats

    @property
    def qos_limits(self) -> dict[str, int]:
        """The four limits as ``bdev_get_bdevs`` shows them; 0 means none."""
        return dict(self.limits.limits) if self.limits else dict.fromkeys(KINDS, 0)

    async def read(self, lba: int, blocks: int) -> Buffer:
        """``blocks`` * ``block_size`` bytes from ``lba``."""
        self.check_range(lba, blocks)
        size_bytes = blocks * self.block_size
        if self.limits is not None:
            await self._hold_back(size_bytes, is_write=False)
        started = time.monotonic_ns()
        try:
            data = await self.do_read(lba, blocks)
        except NvmeError:
            self.stats.failed += 1
            raise
        self.stats.read.count(size_bytes, time.monotonic_ns() - started)
        return data

    async def write(self, lba: int, data: Buffer) -> None:
        """Write whole blocks at ``lba``."""
        size_bytes = len(data)
        self.check_range(lba, size_bytes // self.block_size)
        if self.limits is not None:
            await self._hold_back(size_bytes, is_write=True)
        started = time.monotonic_ns()
        try:
            await self.do_write(lba, data)
        except NvmeError:
            self.stats.failed += 1
            raise
        self.stats.write.count(size_bytes, time.monotonic_ns() - started)

    async def flush(self) -> None:
        """Return when every acknowledged write is durable."""
        await self.do_flush()

    async def write_zeroes(self, lba: int, blocks: int) -> None:
        """Make the range read zeroes."""
        self.check_range(lba, blocks)
        await self.do_write_zeroes(lba, blocks)

    async def unmap(self, lba: int, blocks: int) -> None:
        """Deallocate the range: a hint, what it reads afterwards is up to the device."""
        self.check_range(lba, blocks)
        started = time.monotonic_ns()
        await self.do_unmap(lba, blocks)
        self.stats.unmap.count(blocks * self.block_size, time.monotonic_ns() - started)

    @abstractmethod
    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """The device's part of ``read``; the range is checked."""

    @abstractmethod
    async def do_write(self, lba: int, data: Buffer) -> None:
        """The device's part of ``write``; the range is checked."""

    async def do_flush(self) -> None:  # noqa: B027 - nothing to do is a right answer
        """The device's part of ``flush``; devices without a cache have nothing to do."""

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """The device's part of ``write_zeroes``; devices with a faster way override this."""
        step = max(1, _ZERO_STEP_BYTES // self.block_size)
        zeroes = bytes(min(step, blocks) * self.block_size)
        while blocks:
            part = min(blocks, step)
            await self.do_write(lba, zeroes[: part * self.block_size])
            lba += part
            blocks -= part

    async def do_unmap(self, lba: int, blocks: int) -> None:  # noqa: B027 - it is a hint
        """The device's part of ``unmap``.  Does nothing here."""

    async def close(self) -> None:  # noqa: B027 - many hold nothing
        """Release what the device holds; called once, after it has left the registry."""

    async def _hold_back(self, size_bytes: int, *, is_write: bool) -> None:
        assert self.limits is not None
        wait = self.limits.take(time.monotonic(), size_bytes, is_write=is_write)
        if wait > 0:
            await asyncio.sleep(wait)

    def check_range(self, lba: int, blocks: int) -> None:
        """Raise LBA Out of Range (NVMe base 2.0, figure 101: 80h) unless the range lies inside."""
        if lba < 0 or blocks < 0 or lba + blocks > self.num_blocks:
            raise NvmeError(Status.LBA_OUT_OF_RANGE)

    def supported_io_types(self) -> dict[str, bool]:
        """As ``bdev_get_bdevs`` shows them; kinds that are not named are not supported."""
        return {"read": True, "write": True, "unmap": True, "flush": True, "reset": True, "write_zeroes": True}

    def driver_specific(self) -> dict[str, object]:
        """The ``driver_specific`` object of ``bdev_get_bdevs``."""
        return {}

    def config(self) -> dict[str, object] | None:
        """The JSON-RPC call (``method``, ``params``) that would create this bdev again; None if it is a part."""
        return None


class BdevRegistry:
    """All bdevs of the process by name, alias and UUID.

    ``added`` and ``removed`` are told of every bdev that appears and goes; ``examiners`` are asked, in this
    order, about every bdev that appeared (while ``auto_examine``, or when its name was given to ``examine``).
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Bdev] = {}
        self._bdevs: dict[str, Bdev] = {}  # insertion order is creation order
        self.added: list[Callable[[Bdev], None]] = []
        self.removed: list[Callable[[Bdev], None]] = []
        self.examiners: list[Callable[[Bdev], None]] = []
        self.auto_examine = True
        self.examine_names: list[str] = []
        self._leaving: dict[str, asyncio.Future[None]] = {}

    def __iter__(self) -> Iterator[Bdev]:
        return iter([bdev for bdev in self._bdevs.values() if not bdev.removing])

    def find(self, name: str) -> Bdev | None:
        """The bdev of that name, alias or UUID; one that is being removed is not found any more."""
        bdev = self._by_name.get(name)
        return None if bdev is None or bdev.removing else bdev

    def is_taken(self, name: str) -> bool:
        """Whether a bdev, even one that is being removed, has this name, alias or UUID."""
        return name in self._by_name

    def get(self, name: str) -> Bdev:
        """Like ``find``; raises ``BdevError(ENODEV)``."""
        bdev = self.find(name)
        if bdev is None:
            raise BdevError(errno.ENODEV, "No such device")
        return bdev

    def add(self, bdev: Bdev) -> None:
        """Publish ``bdev``; raises ``BdevError``: EINVAL without a name, EEXIST when name or UUID is taken."""
        names = [bdev.name, *bdev.aliases]
        if not bdev.name:
            raise BdevError(errno.EINVAL, "Invalid argument")
        if len(set(names)) != len(names) or any(name in self._by_name for name in names):
            raise BdevError(errno.EEXIST, "File exists")
        for name in names:
            self._by_name[name] = bdev
        self._bdevs[bdev.name] = bdev
        for hook in list(self.added):
            hook(bdev)
        if self.auto_examine or any(name in self.examine_names for name in names):
            self._examine(bdev)

    def _examine(self, bdev: Bdev) -> None:
        for examiner in list(self.examiners):
            examiner(bdev)

    def examine(self, name: str) -> None:
        """``bdev_examine``: let this name be examined now or when it appears; EINVAL, EEXIST as SPDK."""
        if self.auto_examine:
            raise BdevError(errno.EINVAL, "Invalid argument")
        if name in self.examine_names:
            raise BdevError(errno.EEXIST, "File exists")
        self.examine_names.append(name)
        bdev = self.find(name)
        if bdev is not None:
            self._examine(bdev)

    def claim(self, bdev: Bdev, by: str) -> None:
        """Take the exclusive write claim; raises ``BdevError(EPERM)`` when somebody holds it."""
        if bdev.claimed_by is not None:
            raise BdevError(errno.EPERM, "Operation not permitted")
        bdev.claimed_by = by

    def release(self, bdev: Bdev) -> None:
        """Give the claim back."""
        bdev.claimed_by = None

    async def remove(self, bdev: Bdev) -> None:
        """Tell what is built on ``bdev``, then take it out and close it; a second call waits for the first."""
        leaving = self._leaving.get(bdev.name)
        if leaving is not None:
            await asyncio.shield(leaving)
            return
        if self._bdevs.get(bdev.name) is not bdev:
            return
        bdev.removing = True
        self._leaving[bdev.name] = asyncio.get_running_loop().create_future()
        try:
            for hook in list(bdev.remove_hooks):
                await hook(bdev)
        finally:
            self._drop(bdev)
            self._leaving.pop(bdev.name).set_result(None)
        await bdev.close()

    def _drop(self, bdev: Bdev) -> None:
        for name in [bdev.name, *bdev.aliases]:
            self._by_name.pop(name, None)
            if name in self.examine_names:
                self.examine_names.remove(name)
        self._bdevs.pop(bdev.name, None)
        for gone in list(self.removed):
            gone(bdev)
