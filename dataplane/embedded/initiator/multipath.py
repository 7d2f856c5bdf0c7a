"""The namespaces of one subsystem over all controllers that lead to it.

Why: a failover is an I/O that ends well on another path; here the pure rules of ``policy`` meet live
controllers.  This module must never decide anything about a path by itself, and never reorder or merge I/O.

Invariants: an I/O ends exactly once, with success on exactly one path or with ``NvmeError``; a path belongs to a
namespace only while its controller shows the same identity (NGUID, EUI-64, UUID) for that NSID; a waiting I/O
looks again whenever a controller changed, and at the latest after ``NO_PATH_WAIT_S``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar

from dataplane.embedded.bdev.base import CompareFailed
from dataplane.embedded.bdev.stats import TICKS_PER_SECOND, IoStat, OpStat
from dataplane.embedded.bdev.waits import abortable
from dataplane.embedded.initiator.association import Association
from dataplane.embedded.initiator.connection import Reply, TransportLost, TransportReset
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.namespaces import Shown
from dataplane.embedded.initiator.policy import (
    NO_PATH_WAIT_S,
    Attempt,
    Cursor,
    Selection,
    Verdict,
    choose,
    is_ana_error,
    judge,
    judge_no_path,
    may_come_back,
    retry_pause_s,
    usable,
)
from dataplane.nvme import commands
from dataplane.nvme.commands import Command
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AnaState
from dataplane.nvme.status import NvmeError, Status

log = logging.getLogger(__name__)

_T = TypeVar("_T")
Kind = Callable[[IoStat], OpStat]
BLOCKS_MAX = 1 << 16  # in one read or write: the block count field has 16 bits, zero-based


@dataclass(slots=True)
class Counters:
    """What happened to the I/O of a namespace.

    ``retries``: attempts repeated on the same path; ``failovers``: attempts moved to another path after a
    failed one; ``waits``: times an I/O found no usable path; ``lost``: attempts that a connection took along.
    """

    ios: int = 0
    retries: int = 0
    failovers: int = 0
    waits: int = 0
    lost: int = 0
    failed: int = 0


class Path:
    """A namespace through one controller (``policy.PathView``)."""

    def __init__(self, controller: Controller, nsid: int, stat: IoStat | None = None) -> None:
        self.controller = controller
        self.stat = stat
        self.nsid = nsid
        self.ana = controller.ana_of(nsid)
        self.in_flight = 0
        self.ios = 0
        self._not_accessible_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._was_connected = False
        self.refresh()

    def refresh(self) -> tuple[bool, bool]:
        """Take over the controller's state: whether the path got lost or has another ANA state, whether it is back.

        Remembers since when the ANA state has been one that shall pass.
        """
        before, was_connected = self.ana, self._was_connected
        self.ana, self._was_connected = self.controller.ana_of(self.nsid), self.connected
        self._look_at_time()
        changed = self.ana is not before or (was_connected and not self._was_connected)
        return changed, self._was_connected and not was_connected

    def _look_at_time(self) -> None:
        if self.ana not in (AnaState.INACCESSIBLE, AnaState.CHANGE):
            self._not_accessible_since = None
        elif self._not_accessible_since is None:
            self._not_accessible_since = self._loop.time()

    @property
    def connected(self) -> bool:
        """Its queues can take a command now."""
        return self.controller.live

    @property
    def present(self) -> bool:
        """The namespace is there and its state is known."""
        return self.nsid in self.controller.shown and self.nsid not in self.controller.ana_updating

    @property
    def may_recover(self) -> bool:
        """The controller is not given up."""
        return self.controller.may_recover

    @property
    def transition_expired(self) -> bool:
        """Inaccessible or changing for longer than ANATT seconds (base 2.0c section 8.1.2)."""
        since = self._not_accessible_since
        return since is not None and self._loop.time() - since >= self.controller.identity.anatt


class HostNamespace:
    """One namespace, whatever the path.  Offsets and lengths in blocks; every I/O raises only ``NvmeError``."""

    def __init__(self, shown: Shown, selection: Selection, retry_limit: int) -> None:
        self.nsid = shown.nsid
        self.shown = shown
        self.block_size = shown.block_size
        self.num_blocks = shown.num_blocks
        self.paths: list[Path] = []
        self.selection = selection
        self.retry_limit = retry_limit
        self.counters = Counters()
        self.cursor = Cursor()
        self.removed = False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def uuid(self) -> str | None:
        """NGUID or UUID as text."""
        return self.shown.bdev_uuid

    # -- I/O

    async def read(self, lba: int, blocks: int) -> Raw:
        """``blocks`` blocks from ``lba``; the buffer is the caller's."""
        self._check_range(lba, blocks)
        step = self._step()
        if blocks <= step:
            return await self._read_one(lba, blocks)
        parts = _split(lba, blocks, step)
        return b"".join(await _together([self._read_one(*part) for part in parts]))

    async def write(self, lba: int, data: Raw, *, fua: bool = False) -> None:
        """Write whole blocks at ``lba``; ``data`` must not change until this returns."""
        view = memoryview(data)
        blocks, rest = divmod(len(view), self.block_size)
        if rest:
            raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
        self._check_range(lba, blocks)
        step = self._step()
        if blocks <= step:
            await self._write_one(lba, view, fua=fua)
            return
        size = self.block_size
        await _together(
            [
                self._write_one(at, view[(at - lba) * size : (at - lba + count) * size], fua=fua)
                for at, count in _split(lba, blocks, step)
            ]
        )

    async def flush(self) -> None:
        """Return when every acknowledged write is durable on the drive."""
        (await self.execute(commands.flush(self.nsid))).check()

    async def write_zeroes(self, lba: int, blocks: int, *, deallocate: bool = False) -> None:
        """Make the range read zeroes; where the controller has no such command, zeroes are written."""
        self._check_range(lba, blocks)
        limit = self._limit(lambda controller: controller.limits.write_zeroes_blocks)
        if not limit:
            step = self._step()
            for at, count in _split(lba, blocks, step):
                await self._write_one(at, memoryview(bytes(count * self.block_size)), fua=False)
            return
        for at, count in _split(lba, blocks, min(limit, BLOCKS_MAX)):
            command = commands.write_zeroes(self.nsid, at, count, deallocate=deallocate)
            (await self.execute(command)).check()

    async def deallocate(self, lba: int, blocks: int) -> None:
        """Give the range back to the drive: a hint; does nothing where the controller has no such command."""
        self._check_range(lba, blocks)
        limit = self._limit(lambda controller: controller.limits.deallocate_blocks)
        if not limit:
            return
        for part in _split(lba, blocks, limit):
            command, data = commands.deallocate(self.nsid, [part])
            count = part[1] * self.block_size
            (await self.execute(command, data, kind=lambda stat: stat.unmap, size=count)).check()

    async def compare(self, lba: int, expected: Raw) -> None:
        """Raise Compare Failure unless the blocks hold ``expected``."""
        view, size = memoryview(expected), self.block_size
        blocks = len(view) // size
        self._check_range(lba, blocks)
        for at, count in _split(lba, blocks, self._step()):
            part = view[(at - lba) * size : (at - lba + count) * size]
            (await self.execute(commands.compare(self.nsid, at, count, size), part)).check()

    async def compare_and_write(self, lba: int, expected: Raw, data: Raw, *, fua: bool = False) -> None:
        """Both as one fused command; raises ``CompareFailed`` when the first half failed.

        After a lost connection the pair is sent again, so a compare may meet what its own first attempt wrote.
        """
        blocks = len(data) // self.block_size
        self._check_range(lba, blocks)
        pair = commands.fused(
            commands.compare(self.nsid, lba, blocks, self.block_size),
            commands.write(self.nsid, lba, blocks, self.block_size, fua=fua),
        )
        refused = False

        async def send(association: Association) -> Reply:
            nonlocal refused
            refused = False  # an attempt that is lost may have written, whatever the one before it met
            first, second = await association.io_pair((pair[0], expected), (pair[1], data))
            refused = bool(first.completion.code)
            return first if refused else second

        try:
            await self._execute(send)
        except NvmeError as error:
            if refused:
                raise CompareFailed(error.code, dnr=error.dnr) from error
            raise

    async def copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool = False) -> None:
        """Copy inside the namespace in one command; raises ``NvmeError`` also when the controller cannot."""
        self._check_range(to_lba, blocks)
        self._check_range(from_lba, blocks)
        command, data = commands.copy(self.nsid, to_lba, [(from_lba, blocks)], fua=fua)
        (await self.execute(command, data, kind=lambda stat: stat.copy, size=blocks * self.block_size)).check()

    @property
    def max_transfer_bytes(self) -> int:
        """Bytes of data in one command that every controller takes."""
        return self._step() * self.block_size

    def _check_range(self, lba: int, blocks: int) -> None:
        """SPDK's target answers these without Do Not Retry, so sent, they would be retried."""
        if lba < 0 or blocks < 1 or lba + blocks > self.num_blocks:
            raise NvmeError(Status.LBA_OUT_OF_RANGE, dnr=True)

    async def _read_one(self, lba: int, blocks: int) -> Raw:
        size = blocks * self.block_size
        command = commands.read(self.nsid, lba, blocks, self.block_size)
        reply = await self.execute(command, read_size=size, kind=lambda stat: stat.read)
        return reply.check(size)

    async def _write_one(self, lba: int, data: memoryview, *, fua: bool) -> None:
        blocks = len(data) // self.block_size
        command = commands.write(self.nsid, lba, blocks, self.block_size, fua=fua)
        (await self.execute(command, data, kind=lambda stat: stat.write)).check()

    def _step(self) -> int:
        """Blocks in one command that every controller takes."""
        smallest = min(
            (path.controller.association.max_transfer for path in self.paths if path.controller.association),
            default=1 << 17,
        )
        return min(max(1, smallest // self.block_size), BLOCKS_MAX)

    def _limit(self, of: Callable[[Controller], int]) -> int:
        return min((of(path.controller) for path in self.paths if path.controller.connects), default=0)

    # -- one command, whatever it takes

    async def execute(
        self, command: Command, data: Raw = b"", *, read_size: int = 0, kind: Kind | None = None, size: int = 0
    ) -> Reply:
        """Run ``command`` on some path until it succeeds or the rules give it up; then ``NvmeError``.

        ``kind``: the counter of the path that is to know of it; ``size`` where that is not the length of the data.
        """
        started = self._loop.time()
        path, reply = await self._execute(lambda association: association.io(command, data, read_size=read_size))
        if path.stat is not None and kind is not None:
            ticks = int((self._loop.time() - started) * TICKS_PER_SECOND)
            kind(path.stat).count(size or len(data) or read_size, ticks)
        return reply

    async def _execute(self, send: Callable[[Association], Awaitable[Reply]]) -> tuple[Path, Reply]:
        retries = 0
        previous: Path | None = None
        again: Path | None = None
        self.counters.ios += 1
        while True:
            if again is not None and usable(again):
                path = again
            else:
                index = choose(self.paths, self.cursor, self.selection)
                if index is None:
                    await self._wait_or_fail(retries)
                    continue
                path = self.paths[index]
            if previous is not None and path is not previous:
                self.counters.failovers += 1
            previous, again = path, None
            code, dnr, reply = await self._attempt(path, send)
            if not code:
                return path, reply
            verdict = self._judge(path, code, dnr, retries)
            if verdict is Verdict.FAIL:
                self.counters.failed += 1
                raise NvmeError(code, dnr=dnr)
            if verdict is Verdict.RETRY:
                retries += 1
                again = path
                self.counters.retries += 1
                with abortable():
                    await asyncio.sleep(retry_pause_s(retries))

    async def _attempt(self, path: Path, send: Callable[[Association], Awaitable[Reply]]) -> tuple[int, bool, Reply]:
        """SCT << 8 | SC, Do Not Retry, the reply; a lost connection reads as a command aborted with its queue."""
        path.in_flight += 1
        path.ios += 1
        try:
            reply = await send(path.controller.require())
        except TransportLost as lost:
            self.counters.lost += 1
            return Status.ABORTED_SQ_DELETION, isinstance(lost, TransportReset), _NOTHING
        finally:
            path.in_flight -= 1
        return reply.completion.code, reply.completion.dnr, reply

    def _judge(self, path: Path, code: int, dnr: bool, retries: int) -> Verdict:
        if is_ana_error(code):
            path.controller.reread_ana(self.nsid)
        others = any(may_come_back(each) for each in self.paths)
        return judge(Attempt(int(code), dnr, usable(path), others, retries, self.retry_limit))

    async def _wait_or_fail(self, retries: int) -> None:
        if self.removed or judge_no_path(self.paths, retries, self.retry_limit) is Verdict.FAIL:
            self.counters.failed += 1
            raise NvmeError(Status.INTERNAL_ERROR)
        self.counters.waits += 1
        changed = self._changed
        try:
            with abortable():
                async with asyncio.timeout(NO_PATH_WAIT_S):
                    await changed.wait()
        except TimeoutError:
            pass  # look again: a transition time may have run out without any event

    def prefer(self, path: Path) -> None:
        """Ask this path first from now on."""
        self.paths = [path, *(each for each in self.paths if each is not path)]
        self.cursor = Cursor()

    def share(self, selection: Selection) -> None:
        """Choose paths by other rules from now on."""
        self.selection = selection
        self.cursor = Cursor()

    def join(self, path: Path, at: int) -> None:
        """One more path, in the order in which they are asked."""
        self.paths.insert(at, path)
        self.cursor = Cursor()

    def leave(self, controller: Controller) -> None:
        """No path through this controller any more."""
        self.paths = [path for path in self.paths if path.controller is not controller]
        self.cursor = Cursor()

    def wake(self) -> None:
        """A controller changed: every waiting I/O looks again.

        Which path was used last is forgotten where SPDK forgets it: a path got lost or has another ANA state, or is
        back and I/O is to return to the first one.
        """
        seen = [path.refresh() for path in self.paths]
        if any(changed or (back and self.selection.failback) for changed, back in seen):
            self.cursor = Cursor()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


_NOTHING = Reply(commands.Completion())


async def _together(works: list[Coroutine[None, None, _T]]) -> list[_T]:
    """All of them at once; on a failure wait for the rest, so that no buffer is used after the error is told."""
    results = await asyncio.gather(*works, return_exceptions=True)
    done: list[_T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


def _split(lba: int, blocks: int, step: int) -> list[tuple[int, int]]:
    """(LBA, blocks) of the commands that cover the range."""
    end = lba + blocks
    return [(at, min(step, end - at)) for at in range(lba, end, step)]
