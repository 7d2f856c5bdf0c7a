"""A bdev that fails on demand: what the ``error`` module is in SPDK.

Why: how a mirror, a target or a host meets a failing drive has to be tried, on both engines alike.  This module
must never fail an I/O that nobody asked it to fail.

Invariants: an error is used up by one I/O; an I/O that was made to wait ends when it is resumed or when the device
goes; what an I/O passes on is counted, since errors may be for a queue depth.
Source: SPDK v26.05 module/bdev/error/vbdev_error.c.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from dataplane.embedded.bdev.base import Bdev, BdevError, BdevRegistry, Buffer
from dataplane.embedded.bdev.layer import Layer, lay
from dataplane.embedded.bdev.split import part_uuid
from dataplane.nvme.status import NvmeError, Status

T = TypeVar("T")
CLAIM: Final = "error"
IO_TYPES: Final = ("read", "write", "unmap", "flush")
ERROR_TYPES: Final = ("failure", "pending", "corrupt_data", "nomem", "nvme_failure")
_NO_MEMORY_SECONDS: Final = 0.01
"""After this lib/bdev submits again what ended for want of memory."""


@dataclass(slots=True)
class Injection:
    """What the next ``num`` I/Os of a kind meet while at least ``queue_depth`` others are under way."""

    error_type: str = "failure"
    num: int = 0
    queue_depth: int = 0
    corrupt_offset: int = 0
    corrupt_value: int = 0
    status: int = Status.INTERNAL_ERROR

    def next(self, under_way: int) -> str:
        """The error of the next I/O, which uses it up; empty for none."""
        if not self.num or under_way < self.queue_depth:
            return ""
        self.num -= 1
        return self.error_type

    def corrupt(self, data: Buffer) -> Buffer:
        """The data with one byte changed; unchanged when that byte lies behind its end."""
        if self.corrupt_offset >= len(data):
            return data
        changed = bytearray(data)
        changed[self.corrupt_offset] ^= self.corrupt_value
        return changed


class ErrorBdev(Layer):
    """``EE_<base>``.  Its UUID follows from its base's, whatever was asked for (as in SPDK)."""

    __slots__ = ("_pending", "_under_way", "injections")
    product_name = "Error Injection Disk"

    def __init__(self, base: Bdev) -> None:
        super().__init__(base, f"EE_{base.name}", part_uuid(base.uuid, 0, base.num_blocks))
        self.injections = {kind: Injection() for kind in IO_TYPES}
        self._pending: list[asyncio.Future[None]] = []
        self._under_way = 0
        self.remove_hooks.append(self._removed)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """The base's data, or what was injected."""
        error = await self._meet("read")
        data = await self._pass_on(lambda: self.base.read(lba, blocks))
        return self.injections["read"].corrupt(data) if error == "corrupt_data" else data

    async def do_write(self, lba: int, data: Buffer) -> None:
        """To the base, or what was injected."""
        await self._write(lba, data, fua=False)

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """As a write."""
        await self._write(lba, data, fua=True)

    async def _write(self, lba: int, data: Buffer, *, fua: bool) -> None:
        if await self._meet("write") == "corrupt_data":
            data = self.injections["write"].corrupt(data)
        await self._pass_on(lambda: self.base.write(lba, data, fua=fua))

    async def do_flush(self) -> None:
        """To the base, or what was injected."""
        await self._meet("flush")
        await self._pass_on(self.base.flush)

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """To the base, or what was injected."""
        await self._meet("unmap")
        await self._pass_on(lambda: self.base.unmap(lba, blocks))

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """Always to the base."""
        await self._pass_on(lambda: self.base.write_zeroes(lba, blocks))

    async def _pass_on(self, io: Callable[[], Awaitable[T]]) -> T:
        self._under_way += 1
        try:
            return await io()
        except NvmeError as error:
            raise NvmeError(Status.INTERNAL_ERROR) from error  # as in SPDK, whatever the base said
        finally:
            self._under_way -= 1

    async def _meet(self, kind: str) -> str:
        """Wait, or raise, as was injected; "corrupt_data" or nothing is left to the caller."""
        injection = self.injections[kind]
        while True:
            error = injection.next(self._under_way)
            if error == "failure":
                raise NvmeError(Status.INTERNAL_ERROR)
            if error == "nvme_failure":
                raise NvmeError(injection.status)
            if error not in ("pending", "nomem"):
                return error
            if self.removing:
                raise NvmeError(Status.ABORTED_BY_REQUEST)
            if error == "pending":
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._pending.append(waiting)
                await waiting
            else:
                await asyncio.sleep(_NO_MEMORY_SECONDS)

    def inject(self, io_type: str, injection: Injection) -> None:
        """``bdev_error_inject_error``: for one kind, for "all", or "clear" what is left of all."""
        if io_type == "clear":
            for each in self.injections.values():
                each.num = 0
            return
        for kind in IO_TYPES if io_type == "all" else (io_type,):
            self.injections[kind] = replace(injection)

    def resume(self) -> None:
        """Let what is pending go on, and nothing be pending any more."""
        for each in self.injections.values():
            if each.error_type == "pending":
                each.num = 0
        self._release(None)

    async def _removed(self, _bdev: Bdev) -> None:
        self._release(NvmeError(Status.ABORTED_BY_REQUEST))

    def _release(self, error: NvmeError | None) -> None:
        pending, self._pending = self._pending, []
        for waiting in pending:
            if waiting.done():
                continue  # nobody waits any more
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)

    def driver_specific(self) -> dict[str, object]:
        """The ``error_disk`` object."""
        return {"error_disk": {"base_bdev": self.base.name}}


class Errors:
    """All of the process, by the name of the base; ``examine`` is registered with the bdev registry."""

    def __init__(self, bdevs: BdevRegistry) -> None:
        self._bdevs = bdevs
        self._uuids: dict[str, str | None] = {}

    def create(self, base_name: str, uuid: str | None) -> None:
        """Now, or when the base appears.  Raises ``BdevError``."""
        if base_name in self._uuids:
            raise BdevError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._uuids[base_name] = uuid
        base = self._bdevs.find(base_name)
        if base is None:
            return
        try:
            self._lay(base)
        except BdevError:
            del self._uuids[base_name]
            raise

    def examine(self, bdev: Bdev) -> None:
        """A bdev appeared: lay an error bdev over it if that was asked for."""
        if bdev.name in self._uuids:
            with suppress(BdevError):  # as in SPDK: what cannot be laid is left out, and stays wanted
                self._lay(bdev)

    def _lay(self, base: Bdev) -> None:
        lay(self._bdevs, ErrorBdev(base), CLAIM, lambda: self._forget(base.name))

    def _forget(self, base_name: str) -> None:
        self._uuids.pop(base_name, None)

    def config(self) -> list[dict[str, object]]:
        """The calls that create them again."""
        calls: list[dict[str, object]] = []
        for base_name, uuid in self._uuids.items():
            params: dict[str, object] = {"base_name": base_name}
            if uuid is not None:
                params["uuid"] = uuid
            calls.append({"method": "bdev_error_create", "params": params})
        return calls
