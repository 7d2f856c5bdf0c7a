"""Filling a new leg of an online mirror: what is copied next, how fast, and the task that does it.

Why: a mirror that lost a leg is one fault away from losing data.  This module must never copy over a write that a
host made meanwhile, nor let a leg count as equal before its last block is.

Invariants: blocks below ``mark`` are equal on the target and on the other legs, so that writes go there too and
reads may; the mark moves only while its window is closed to all I/O; it never moves back; a leg that became equal
was flushed before, since nobody will flush again what was durable on the other legs.
Source: SPDK v26.05 module/bdev/raid/bdev_raid.c (``raid_bdev_process_*``), which does not flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.qos import MIB, SLICE_SECONDS, Bucket
from dataplane.nvme.status import NvmeError

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.bdev.raid_mirror import MirroredRaid

_KIB: Final = 1024
_COPY_BYTES: Final = 1 << 20
"""A window is closed as a whole and copied in pieces of this size, however large it was asked for."""


def window_blocks(window_size_kb: int, block_size: int) -> int:
    """Blocks of a window, rounded up."""
    return -(-window_size_kb * _KIB // block_size)


def bandwidth(mb_per_sec: int, now: float) -> Bucket | None:
    """The tokens of a rebuild that may copy so many MiB each second; None without a limit."""
    if not mb_per_sec:
        return None
    rate = float(mb_per_sec * MIB)
    return Bucket(rate, rate * SLICE_SECONDS, 0.0, now)


@dataclass(slots=True)
class RebuildPlan:
    """How far a rebuild is.  ``mark``: the first block that is not copied yet."""

    num_blocks: int
    window_blocks: int
    mark: int = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.mark >= self.num_blocks

    @property
    def percent(self) -> int:
        """Of 100, rounded down."""
        return self.mark * 100 // self.num_blocks

    def window(self) -> tuple[int, int]:
        """First block and number of blocks of what is copied next."""
        return self.mark, min(self.window_blocks, self.num_blocks - self.mark)

    def covers(self, lba: int, blocks: int) -> bool:
        """Whether the whole range is copied."""
        return lba + blocks <= self.mark

    def parts(self, lba: int, blocks: int) -> list[tuple[int, int]]:
        """The range, cut at the mark when it lies on both sides: then what is not copied comes first."""
        if lba < self.mark < lba + blocks:
            return [(self.mark, lba + blocks - self.mark), (lba, self.mark - lba)]
        return [(lba, blocks)]


class Rebuild:
    """One rebuild.  ``ended`` is told once; ``equal`` says then whether the leg is part of the mirror."""

    def __init__(
        self,
        mirror: MirroredRaid,
        place: int,
        target: Bdev,
        plan: RebuildPlan,
        tokens: Bucket | None,
        ended: Callable[[], None],
    ) -> None:
        self.mirror = mirror
        self.place = place
        self.target = target
        self.plan = plan
        self.equal = False
        self._tokens = tokens
        self._ended = ended
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.is_set()

    def start(self) -> None:
        """From here on writes below the mark go to the target."""
        self.mirror.rebuild = self
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Return when nothing is copied any more.  A leg that was not equal by then is not part of the mirror."""
        self._stop.set()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            while not self.stopping and not self.equal:
                if not self.plan.done:
                    await self._step()
                    continue
                await self.target.flush()
                # The mirror may have grown meanwhile.
                self.equal = self.plan.done and self.mirror.rebuild is self
                if self.mirror.rebuild is not self:
                    self._stop.set()
        except NvmeError:
            pass  # the leg that failed was reported, and the target leaves since it is not equal
        finally:
            if self.mirror.rebuild is self:
                self.mirror.rebuild = None
                if self.equal:
                    self.mirror.join(self.place, self.target)
        self._ended()

    async def _step(self) -> None:
        await asyncio.sleep(0)  # legs in memory never wait, and others are to have their turn
        lba, blocks = self.plan.window()
        if self._tokens is not None:
            wait = self._tokens.take(asyncio.get_running_loop().time(), blocks * self.mirror.block_size)
            if wait > 0 and await self._stopped_within(wait):
                return
        async with self.mirror.gate.closed(lba, blocks):
            if self.stopping:
                return
            await self._copy(lba, blocks)
            if self.mirror.rebuild is self:
                self.plan.mark = lba + blocks
            else:
                self._stop.set()

    async def _copy(self, lba: int, blocks: int) -> None:
        piece = max(1, _COPY_BYTES // self.mirror.block_size)
        for start in range(lba, lba + blocks, piece):
            count = min(piece, lba + blocks - start)
            await self.target.write(start, await self.mirror.read_equal_legs(start, count))

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return False
        return True
