"""A bdev on a file or a block device: what the ``aio`` bdev is in SPDK.

Why: on a laptop a file stands in for a drive.  Reads and writes are done at once in the loop, through the page
cache; only synchronisation leaves the loop's thread.  (Reads that the cache does not hold were tried in threads: half
the rate and three times the processor time of waiting for a drive that answers within 50 us.)  This module must never
answer a flush that the medium did not confirm, nor leave anything but zeroes where zeroes were asked for.

Invariants: after a failed synchronisation every later one fails too, since Linux drops the pages it could not
write and would report the next fsync as good; a hole is only punched where it is known to read zeroes.
Source: SPDK v26.05 module/bdev/aio/bdev_aio.c.
"""

from __future__ import annotations

import array
import asyncio
import ctypes
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from functools import cache
from typing import Final

from dataplane.embedded.bdev.base import Bdev, BdevError, Buffer
from dataplane.nvme.status import NvmeError, Status

_BLKGETSIZE64: Final = 0x80081272
_BLKSSZGET: Final = 0x1268
_PUNCH_HOLE_KEEP_SIZE: Final = 0x03
_ZERO_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AioOptions:
    """What ``bdev_aio_create`` was asked for; ``block_size`` 0 means: ask the device."""

    name: str
    filename: str
    block_size: int = 0
    readonly: bool = False
    fallocate: bool = False
    nowait: bool = False
    uuid: str | None = None


@cache
def _libc() -> ctypes.CDLL | None:
    """The C library with ``fallocate`` declared; None where it has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):
        return None
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    libc.fallocate.restype = ctypes.c_int
    return libc


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Free the byte range so that it reads zeroes; False where the file system cannot."""
    libc = _libc()
    if libc is None:
        return False
    while True:
        if libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0:
            return True
        if ctypes.get_errno() != errno.EINTR:
            return False


def _block_device_number(fd: int, request: int, typecode: str) -> int:
    cell = array.array(typecode, [0])
    fcntl.ioctl(fd, request, cell)
    return int(cell[0])


def _size_bytes(fd: int, mode: int) -> int:
    if stat.S_ISBLK(mode):
        return _block_device_number(fd, _BLKGETSIZE64, "Q")
    return os.fstat(fd).st_size if stat.S_ISREG(mode) else 0


class _Syncs:
    """Joins concurrent flushes: one synchronisation serves all that asked before it began."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._next: asyncio.Future[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._broken: OSError | None = None

    async def wait(self) -> None:
        """Return when a synchronisation that began after this call is done; raises ``OSError``."""
        if self._broken is not None:
            raise self._broken
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            # A failure nobody waits for any more (its connection is gone) is kept in _broken.
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
        waiting = self._next
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        await asyncio.shield(waiting)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._next is not None:
                waiting, self._next = self._next, None
                try:
                    await loop.run_in_executor(None, os.fsync, self._fd)
                except OSError as error:
                    self._broken = error
                    waiting.set_exception(error)
                else:
                    waiting.set_result(None)
        finally:
            self._runner = None

    async def idle(self) -> None:
        """Return when no synchronisation runs."""
        if self._runner is not None:
            await self._runner


class AioBdev(Bdev):
    """A file as a block device.  Keeps its file descriptor open until ``close``."""

    __slots__ = ("_fd", "_syncs", "block_size_override", "options")
    product_name = "AIO disk"

    def __init__(self, options: AioOptions) -> None:
        """Open the file; raises ``BdevError`` with the errno that SPDK answers."""
        try:
            fd = os.open(options.filename, (os.O_RDONLY if options.readonly else os.O_RDWR) | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            number = (error.errno if isinstance(error, OSError) else None) or errno.EINVAL
            raise BdevError(number, os.strerror(number)) from error
        try:
            block_size, num_blocks = self._geometry(fd, options)
        except OSError as error:
            os.close(fd)
            raise BdevError(error.errno or errno.EIO, os.strerror(error.errno or errno.EIO)) from error
        except BdevError:
            os.close(fd)
            raise
        super().__init__(options.name, block_size, num_blocks, options.uuid)
        self._fd = fd
        self._syncs = _Syncs(fd)
        self.options = options
        self.block_size_override = options.block_size != 0

    @staticmethod
    def _geometry(fd: int, options: AioOptions) -> tuple[int, int]:
        """Block size and number of blocks, checked as create_aio_bdev does."""
        mode = os.fstat(fd).st_mode
        if options.nowait and not stat.S_ISBLK(mode):
            raise BdevError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        size_bytes = _size_bytes(fd, mode)
        detected = _block_device_number(fd, _BLKSSZGET, "i") if stat.S_ISBLK(mode) else 0
        block_size = options.block_size or detected
        wrong = block_size < max(512, detected) or block_size & (block_size - 1) != 0
        if wrong or size_bytes % block_size:
            raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
        return block_size, size_bytes // block_size

    def blocks_now(self) -> int:
        """Whole blocks of the file as it is now; raises ``BdevError``."""
        try:
            return _size_bytes(self._fd, os.fstat(self._fd).st_mode) // self.block_size
        except OSError as error:
            raise BdevError(error.errno or errno.EIO, os.strerror(error.errno or errno.EIO)) from error

    @property
    def prompt(self) -> bool:
        """The page cache answers at once; a rate limit does not."""
        return self.unhindered

    @property
    def write_cache(self) -> bool:
        """The page cache is one."""
        return True

    @property
    def max_copy(self) -> int:
        """SPDK loses a block of its buffer to the alignment that direct I/O needs."""
        return super().max_copy - 1

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """Read at once; a short read means that the file shrank under us."""
        length = blocks * self.block_size
        try:
            data = os.pread(self._fd, length, lba * self.block_size)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), lba * self.block_size + len(data))
                if not more:
                    raise NvmeError(Status.INTERNAL_ERROR)
                data += more
        except OSError as error:
            raise NvmeError(Status.INTERNAL_ERROR) from error
        return data

    async def do_write(self, lba: int, data: Buffer) -> None:
        """Write at once; durable after ``flush``."""
        if self.options.readonly:
            raise NvmeError(Status.INTERNAL_ERROR)
        self._write_at(lba * self.block_size, data)

    def _write_at(self, offset: int, data: Buffer) -> None:
        left = memoryview(data)
        try:
            while left:
                written = os.pwrite(self._fd, left, offset)
                offset += written
                left = left[written:]
        except OSError as error:
            raise NvmeError(Status.INTERNAL_ERROR) from error

    async def do_flush(self) -> None:
        """fsync in a thread."""
        try:
            await self._syncs.wait()
        except OSError as error:
            raise NvmeError(Status.INTERNAL_ERROR) from error

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """Punch a hole where the file system can, else write zeroes."""
        if self.options.readonly:
            raise NvmeError(Status.INTERNAL_ERROR)
        offset, length = lba * self.block_size, blocks * self.block_size
        if not length or punch_hole(self._fd, offset, length):
            return
        zeroes = memoryview(bytes(min(length, _ZERO_PIECE_BYTES)))
        while length:
            piece = min(length, len(zeroes))
            self._write_at(offset, zeroes[:piece])
            offset += piece
            length -= piece
            await asyncio.sleep(0)  # a large range must not hold up other I/O

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """As ``write_zeroes``: what was unmapped reads zeroes."""
        await self.do_write_zeroes(lba, blocks)

    async def close(self) -> None:
        """Synchronise and close the file."""
        await self._syncs.idle()
        try:
            if not self.options.readonly:
                await asyncio.get_running_loop().run_in_executor(None, os.fsync, self._fd)
        finally:
            os.close(self._fd)

    def supported_io_types(self) -> dict[str, bool]:
        """Unmap only when created with ``fallocate``; write zeroes always (emulated in SPDK otherwise)."""
        return {
            "read": True,
            "write": True,
            "unmap": self.options.fallocate,
            "flush": True,
            "reset": True,
            "write_zeroes": True,
        }

    def driver_specific(self) -> dict[str, object]:
        """The ``aio`` object."""
        return {
            "aio": {
                "filename": self.options.filename,
                "block_size_override": self.block_size_override,
                "readonly": self.options.readonly,
                "fallocate": self.options.fallocate,
                "nowait": self.options.nowait,
            }
        }

    def config(self) -> dict[str, object]:
        """``bdev_aio_create``."""
        params: dict[str, object] = {"name": self.name}
        if self.block_size_override:
            params["block_size"] = self.block_size
        params |= {
            "filename": self.options.filename,
            "readonly": self.options.readonly,
            "fallocate": self.options.fallocate,
            "uuid": self.uuid,
            "nowait": self.options.nowait,
        }
        return {"method": "bdev_aio_create", "params": params}
