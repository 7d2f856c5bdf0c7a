"""What every block device of the embedded engine is, and the registry that owns their names.

Why: SPDK's rules about bdevs (unique names and UUIDs, one writer claim, examination of what appears, removal
announced upwards) are what the control plane relies on, so they live in one place.  This module must never know
a concrete device.

Invariants: a name, alias or UUID resolves to at most one bdev; a claimed bdev has exactly one claimant;
``remove`` of a bdev first tells everything that was built on it; an I/O that reaches a device lies inside it;
between the halves of a compare and write no other change of its range reaches the device.
Source: SPDK v26.05 lib/bdev/bdev.c.
"""

from __future__ import annotations

import asyncio
import errno
import time
import uuid as uuidlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from dataplane.embedded.bdev.hints import NO_HINTS, Hints
from dataplane.embedded.bdev.histogram import Histogram
from dataplane.embedded.bdev.qos import KINDS, RateLimits
from dataplane.embedded.bdev.ranges import Ranges
from dataplane.embedded.bdev.stats import IoStat
from dataplane.embedded.bdev.waits import abortable
from dataplane.nvme.commands import Command
from dataplane.nvme.status import NvmeError, Status

Buffer = bytes | bytearray | memoryview
RemoveHook = Callable[["Bdev"], Awaitable[None]]
NULL_UUID = "00000000-0000-0000-0000-000000000000"
_ZERO_STEP_BYTES = 1 << 20
_COPY_STEP_BYTES = 1 << 17
_LARGE_BUFFER_BYTES = 132 << 10


class BdevError(Exception):
    """A management operation failed; ``errno`` is positive, as in the kernel (the RPC answers ``-errno``)."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


class CompareFailed(NvmeError):
    """The compare of a compare and write did not succeed, for whatever reason: nothing was written."""


class Bdev(ABC):
    """A block device.  Offsets and lengths are in blocks of ``block_size`` bytes.

    Callers use ``read``, ``write``, ``flush``, ``write_zeroes``, ``unmap``, ``compare``, ``compare_and_write`` and
    ``copy``: these check the range, hold the rate limits and count.  A device implements the ``do_`` method of
    each.  All raise ``NvmeError`` with the status a host is to see; they never raise anything else for a failed
    I/O.  A write that returned is readable; it is durable when it was written with ``fua``, else once ``flush``
    returned.
    """

    # Slots, since a node holds 24 drives x 512 slices of them.
    __slots__ = (
        "_ranges", "_stats", "aliases", "block_size", "claimed_by", "limits", "name", "num_blocks",
        "remove_hooks", "removing", "uuid",
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
        self._ranges: Ranges | None = None

    @property
    def write_cache(self) -> bool:
        """Whether an acknowledged write may be lost without ``flush`` (VWC in Identify Controller)."""
        return False

    @property
    def prompt(self) -> bool:
        """Whether reads and writes are expected to end without waiting, so that no task has to be made for them."""
        return False

    @property
    def unhindered(self) -> bool:
        """Whether neither a rate limit nor a compare and write holds I/O back now."""
        return self.limits is None and (self._ranges is None or not self._ranges.exclusive)

    @property
    def stats(self) -> IoStat:
        """Counters since registration or the last reset; made at the first use."""
        if self._stats is None:
            self._stats = IoStat()
        return self._stats

    @property
    def ranges(self) -> Ranges:
        """The changes under way; made at the first one."""
        if self._ranges is None:
            self._ranges = Ranges()
        return self._ranges

    @property
    def acwu(self) -> int:
        """Blocks that one compare and write may have: one, as lib/bdev says of devices that do not tell."""
        return 1

    @property
    def hints(self) -> Hints:
        """How it is best used."""
        return NO_HINTS

    @property
    def max_copy(self) -> int:
        """Blocks in one copy as hosts are told; 0: no limit.

        SPDK copies through one of its large buffers where the device cannot by itself; any length works here.
        """
        return 0 if self.supported_io_types().get("copy", False) else _LARGE_BUFFER_BYTES // self.block_size

    @property
    def histogram(self) -> Histogram | None:
        """What counts how long I/O takes, where that was ever asked for."""
        return self._stats.histogram if self._stats is not None else None

    @property
    def qos_limits(self) -> dict[str, int]:
        """The four limits as ``bdev_get_bdevs`` shows them; 0 means none."""
        return dict(self.limits.limits) if self.limits else dict.fromkeys(KINDS, 0)

    async def read(self, lba: int, blocks: int) -> Buffer:
        """``blocks`` * ``block_size`` bytes from ``lba``."""
        self.check_range(lba, blocks)
        size_bytes = blocks * self.block_size
        started = time.monotonic_ns()
        try:
            if self.limits is not None:
                await self._hold_back(size_bytes, is_write=False)
            data = await self.do_read(lba, blocks)
        except NvmeError as error:
            self.stats.failed("read", error.code, time.monotonic_ns() - started)
            raise
        self.stats.done("read", size_bytes, time.monotonic_ns() - started)
        return data

    async def write(self, lba: int, data: Buffer, *, fua: bool = False) -> None:
        """Write whole blocks at ``lba``; with ``fua`` they are durable when this returns."""
        size_bytes = len(data)
        blocks = size_bytes // self.block_size
        self.check_range(lba, blocks)
        ranges = self.ranges
        started = time.monotonic_ns()
        try:
            if self.limits is not None:
                await self._hold_back(size_bytes, is_write=True)
            key = ranges.begin(lba, blocks)
            try:
                if ranges.exclusive:
                    await self._turn(ranges, key)
                if fua:
                    await self.do_write_through(lba, data)
                else:
                    await self.do_write(lba, data)
            finally:
                ranges.end(key)
        except NvmeError as error:
            self.stats.failed("write", error.code, time.monotonic_ns() - started)
            raise
        self.stats.done("write", size_bytes, time.monotonic_ns() - started)

    async def flush(self) -> None:
        """Return when every acknowledged write is durable."""
        await self._counted("flush", 0, self.do_flush())

    async def write_zeroes(self, lba: int, blocks: int) -> None:
        """Make the range read zeroes."""
        self.check_range(lba, blocks)
        await self._counted("write_zeroes", 0, self._change(lba, blocks, self.do_write_zeroes))

    async def unmap(self, lba: int, blocks: int) -> None:
        """Deallocate the range: a hint, what it reads afterwards is up to the device."""
        self.check_range(lba, blocks)
        await self._counted("unmap", blocks * self.block_size, self._change(lba, blocks, self.do_unmap))

    async def _counted(self, kind: str, size_bytes: int, io: Awaitable[None]) -> None:
        started = time.monotonic_ns()
        try:
            await io
        except NvmeError as error:
            self.stats.failed(kind, error.code, time.monotonic_ns() - started)
            raise
        self.stats.done(kind, size_bytes, time.monotonic_ns() - started)

    async def compare(self, lba: int, expected: Buffer) -> None:
        """Raise Compare Failure unless the blocks at ``lba`` hold ``expected``."""
        self.check_range(lba, len(expected) // self.block_size)
        await self.do_compare(lba, expected)

    async def compare_and_write(self, lba: int, expected: Buffer, data: Buffer, *, fua: bool = False) -> None:
        """Write ``data`` if the blocks hold ``expected``, with no other change of them in between.

        Raises ``CompareFailed`` when nothing was written because of the compare.
        """
        blocks = len(data) // self.block_size
        self.check_range(lba, blocks)
        ranges = self.ranges
        key = ranges.begin(lba, blocks, alone=True)
        try:
            await self._turn(ranges, key)
            await self.do_compare_and_write(lba, expected, data, fua=fua)
        finally:
            ranges.end(key)

    async def copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool = False) -> None:
        """Copy inside the device, as ``memmove`` would; not atomic towards other changes."""
        self.check_range(to_lba, blocks)
        self.check_range(from_lba, blocks)
        if to_lba != from_lba and blocks:
            await self.do_copy(to_lba, from_lba, blocks, fua=fua)

    async def pass_through(self, command: Command, data: Buffer) -> Buffer:  # noqa: ARG002 - for drives to use
        """Send a command of an opcode that nothing here knows to the drive behind; what it answers.

        What is no drive has nobody to ask: Invalid Opcode, as ``spdk_bdev_nvme_iov_passthru_md`` ends there.
        """
        raise NvmeError(Status.INVALID_OPCODE, dnr=True)

    async def abort(self, task: asyncio.Task[Any]) -> bool:  # noqa: ARG002 - for drives to use
        """Take back what that task has begun here; whether it ends with Aborted by Request because of this.

        What only waits needs no device for it (``waits``); what a device has begun ends as it ends.
        """
        return False

    async def _change(self, lba: int, blocks: int, work: Callable[[int, int], Awaitable[None]]) -> None:
        ranges = self.ranges
        key = ranges.begin(lba, blocks)
        try:
            if ranges.exclusive:
                await self._turn(ranges, key)
            await work(lba, blocks)
        finally:
            ranges.end(key)

    @staticmethod
    async def _turn(ranges: Ranges, key: int) -> None:
        with abortable():
            await ranges.turn(key)

    @abstractmethod
    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """The device's part of ``read``; the range is checked."""

    @abstractmethod
    async def do_write(self, lba: int, data: Buffer) -> None:
        """The device's part of ``write``; the range is checked."""

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """The device's part of ``write`` with ``fua``; devices with a narrower way than a flush override this."""
        await self.do_write(lba, data)
        await self.do_flush()

    async def do_compare(self, lba: int, expected: Buffer) -> None:
        """The device's part of ``compare``; devices that can compare where the data is override this."""
        found = await self.read(lba, len(expected) // self.block_size)
        if bytes(found) != bytes(expected):
            raise NvmeError(Status.COMPARE_FAILURE)

    async def do_compare_and_write(self, lba: int, expected: Buffer, data: Buffer, *, fua: bool) -> None:
        """The device's part of ``compare_and_write``, alone on its range; overridden as ``do_compare`` is."""
        try:
            await self.do_compare(lba, expected)
        except NvmeError as error:
            raise CompareFailed(error.code, dnr=error.dnr) from error
        started = time.monotonic_ns()
        if self.limits is not None:
            await self._hold_back(len(data), is_write=True)
        if fua:
            await self.do_write_through(lba, data)
        else:
            await self.do_write(lba, data)
        self.stats.done("write", len(data), time.monotonic_ns() - started)

    async def do_copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool) -> None:
        """The device's part of ``copy``: in pieces, from the end when the source would be overwritten."""
        step = max(1, _COPY_STEP_BYTES // self.block_size)
        starts = range(0, blocks, step)
        for start in reversed(starts) if from_lba < to_lba else starts:
            data = await self.read(from_lba + start, min(step, blocks - start))
            await self.write(to_lba + start, data, fua=fua)

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
        """Wait as the limits want it; they are asked again when they change, and with the device the wait ends."""
        while self.limits is not None and not self.removing:
            wait = self.limits.take(time.monotonic(), size_bytes, is_write=is_write)
            if wait <= 0:
                return
            held, let_go = self.limits.held, asyncio.get_running_loop().create_future()
            held.append(let_go)
            try:
                with abortable():
                    await asyncio.wait([let_go], timeout=wait)
            finally:
                if not let_go.done():
                    held.remove(let_go)
            if not let_go.done():
                return
        if self.removing:
            raise NvmeError(Status.ABORTED_BY_REQUEST)

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

    ``added``, ``removed`` and ``resized`` are told of every bdev that appears, goes and grows; ``examiners`` are
    asked, in this order, about every bdev that appeared (while ``auto_examine``, or when its name was given to
    ``examine``).
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Bdev] = {}
        self._bdevs: dict[str, Bdev] = {}  # insertion order is creation order
        self.added: list[Callable[[Bdev], None]] = []
        self.removed: list[Callable[[Bdev], None]] = []
        self.resized: list[Callable[[Bdev], None]] = []
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

    def resize(self, bdev: Bdev, num_blocks: int) -> None:
        """Give it another size, and tell; raises ``BdevError(EBUSY)`` when it would shrink under somebody."""
        if num_blocks == bdev.num_blocks:
            return
        if num_blocks < bdev.num_blocks and (bdev.claimed_by is not None or bdev.remove_hooks):
            raise BdevError(errno.EBUSY, "Device or resource busy")
        bdev.num_blocks = num_blocks
        for hook in list(self.resized):
            hook(bdev)

    async def remove(self, bdev: Bdev) -> None:
        """Tell what is built on ``bdev``, then take it out and close it; a second call waits for the first."""
        leaving = self._leaving.get(bdev.name)
        if leaving is not None:
            await asyncio.shield(leaving)
            return
        if self._bdevs.get(bdev.name) is not bdev:
            return
        bdev.removing = True
        if bdev.limits is not None:
            bdev.limits.let_go()
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
