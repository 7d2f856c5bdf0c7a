"""Holding I/O back from a range of blocks, or from a whole device, while something there is changed.

Why: a leg may leave, and a window be copied, only while no I/O is under way where that matters; I/O elsewhere must
go on.  This module must never know what the I/O is.

Invariants: while a range is closed no I/O that touches it is under way; I/O that touches no range that is closed, or
is to be, never waits; two closed ranges never overlap; they are closed in the order in which it was asked for, so
that one who closes range after range keeps nobody out.
Source: SPDK v26.05 lib/bdev/bdev.c (``spdk_bdev_quiesce``, ``spdk_bdev_quiesce_range``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Span:
    """The blocks that one I/O, or one who closes, is about; ``whole`` touches every span, even an empty one."""

    __slots__ = ("end", "lba", "whole")

    def __init__(self, lba: int, blocks: int, *, whole: bool = False) -> None:
        self.lba = lba
        self.end = lba + blocks
        self.whole = whole

    def touches(self, other: Span) -> bool:
        """Whether they have a block in common, or one of them is ``whole``."""
        return self.whole or other.whole or (self.lba < other.end and other.lba < self.end)


class _Hold:
    """One closed range: who waits for it to open, and the I/O that it still waits for."""

    __slots__ = ("before", "drained", "opened", "span")

    def __init__(self, span: Span, before: set[Span], loop: asyncio.AbstractEventLoop) -> None:
        self.span = span
        self.before = before
        self.opened: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()


class RangeGate:
    """Knows the I/O under way.  An I/O without blocks (flush) is held back only by ``closed()``."""

    __slots__ = ("_holds", "_under_way")

    def __init__(self) -> None:
        self._under_way: set[Span] = set()
        self._holds: list[_Hold] = []

    async def enter(self, lba: int = 0, blocks: int = 0) -> Span:
        """Wait while the range is closed, then count the I/O; what is returned has to be given to ``leave``."""
        span = Span(lba, blocks)
        while (hold := self._in_the_way(span)) is not None:
            await asyncio.shield(hold.opened)
        self._under_way.add(span)
        return span

    def leave(self, span: Span) -> None:
        """That I/O ended."""
        self._under_way.discard(span)
        for hold in self._holds:
            hold.before.discard(span)
            if not hold.before and not hold.drained.done():
                hold.drained.set_result(None)

    @asynccontextmanager
    async def closed(self, lba: int = 0, blocks: int | None = None) -> AsyncIterator[None]:
        """Hold new I/O to the range back (without ``blocks``: all I/O) and wait for that which is under way."""
        span = Span(lba, blocks or 0, whole=blocks is None)
        earlier = [hold for hold in self._holds if hold.span.touches(span)]
        hold = _Hold(span, {io for io in self._under_way if io.touches(span)}, asyncio.get_running_loop())
        self._holds.append(hold)
        try:
            for other in earlier:
                await asyncio.shield(other.opened)
            if hold.before:
                await hold.drained
            yield
        finally:
            self._holds.remove(hold)
            hold.opened.set_result(None)

    def _in_the_way(self, span: Span) -> _Hold | None:
        return next((hold for hold in self._holds if hold.span.touches(span)), None)
