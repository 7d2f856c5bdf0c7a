"""Doors that commands go through, so that an administrator's change finds nothing in flight.

Why: SPDK pauses a namespace around changes to it; what was started ends first, what comes meanwhile waits.
This module must never know a command.  Invariant: while ``closed`` holds and ``drain`` has returned, ``inside``
is 0 until ``open``.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Gate:
    """One door.  ``enter`` only after ``closed`` was seen false without an await in between."""

    __slots__ = ("_drained", "_opened", "closed", "inside")

    def __init__(self) -> None:
        self.closed = False
        self.inside = 0
        self._opened: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    async def wait_open(self) -> None:
        """Return when the door is open."""
        while self.closed:
            if self._opened is None:
                self._opened = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._opened)

    def leave(self) -> None:
        """One command is done."""
        self.inside -= 1
        if not self.inside and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drain(self) -> None:
        """Close the door and return when everybody has left."""
        self.closed = True
        while self.inside:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self._drained = None

    def open(self) -> None:
        """Let those in who wait."""
        self.closed = False
        if self._opened is not None and not self._opened.done():
            self._opened.set_result(None)
        self._opened = None


class Budget:
    """Bytes that all connections together may hold; who finds too little left waits its turn."""

    __slots__ = ("_waiting", "left", "total")

    def __init__(self, total_bytes: int) -> None:
        self.total = total_bytes
        self.left = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def has(self, size_bytes: int) -> bool:
        """Whether ``try_take`` would succeed now."""
        return not self._waiting and size_bytes <= self.left

    def try_take(self, size_bytes: int) -> bool:
        """Take at once, if nobody waits and enough is left."""
        if self._waiting or size_bytes > self.left:
            return False
        self.left -= size_bytes
        return True

    async def take(self, size_bytes: int) -> None:
        """Take, in the order of asking.  More than ``total`` is taken as ``total`` would be."""
        if self.try_take(size_bytes):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            # Whoever comes after must not wait for the next one who gives back.
            self.give(0 if turn.cancelled() else size_bytes)
            raise

    def give(self, size_bytes: int) -> None:
        """Give back."""
        self.left += size_bytes
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
                continue
            if wanted > self.left and self.left < self.total:
                return
            self._waiting.popleft()
            self.left -= wanted
            turn.set_result(None)
