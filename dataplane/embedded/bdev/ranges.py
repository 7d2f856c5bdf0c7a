"""Who changes which blocks of a bdev now, so that a compare and write has its range for itself.

Why: a fused Compare and Write is how hosts build locks; a write that lands between its halves breaks them.  SPDK
locks the LBA range for the pair (lib/bdev/bdev.c); reads are never held up, there or here.  This module must
never do I/O.

Invariants: two overlapping entries are under way at once only when both are shared; an entry waits only for
older ones, so that turns come in the order of asking and nobody waits for ever behind a stream of others; each
``begin`` is followed by one ``end``, and each ``end`` lets everybody who waits look again.
"""

from __future__ import annotations

import asyncio


class Ranges:
    """The changes of one bdev that are under way or wait, oldest first."""

    __slots__ = ("_entries", "_last", "_looks", "exclusive")

    def __init__(self) -> None:
        self.exclusive = 0
        """Entries that stand alone, waiting ones too; while 0, nobody has to wait for a ``turn``."""
        self._entries: dict[int, tuple[int, int, bool]] = {}
        self._last = 0
        self._looks: asyncio.Future[None] | None = None

    def begin(self, lba: int, blocks: int, *, alone: bool = False) -> int:
        """Ask for the range; the key for ``turn`` and ``end``."""
        self._last += 1
        self._entries[self._last] = (lba, lba + blocks, alone)
        self.exclusive += alone
        return self._last

    async def turn(self, key: int) -> None:
        """Return when no older entry stands in the way."""
        while self._blocked(key):
            if self._looks is None:
                self._looks = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._looks)

    def _blocked(self, key: int) -> bool:
        start, end, alone = self._entries[key]
        for other, (low, high, also_alone) in self._entries.items():
            if other == key:
                return False
            if (alone or also_alone) and low < end and start < high:
                return True
        return False

    def end(self, key: int) -> None:
        """The change is done, or given up."""
        self.exclusive -= self._entries.pop(key)[2]
        looks = self._looks
        if looks is not None:
            self._looks = None
            looks.set_result(None)
