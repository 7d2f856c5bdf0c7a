"""What callers of an agent wait for: the answers to their orders, and the moment when the node is a member.

Why its own module: orders come at any time, ``decide`` sees each of them in exactly one cycle, and its answer comes in
the same or a much later one.  This module must never decide, and never lose a caller: one that leaves is forgotten,
its order is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ha.model import Order, Reply


class Asked:
    """``wake`` asks for a cycle."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._number = 0
        self._new: list[Order] = []
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._members: set[asyncio.Future[None]] = set()

    # -- callers

    def numbered(self, make: Callable[[int], Order]) -> Order:
        """The order with a number that no other one has."""
        self._number += 1
        return make(self._number)

    async def answer_to(self, order: Order) -> Reply:
        """Give it to ``decide``, and wait for its answer."""
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[order.number] = waiting
        self._new.append(order)
        self._wake()
        try:
            return await waiting
        finally:
            self._waiting.pop(order.number, None)

    async def member(self) -> None:
        """Returns when this node is a member."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._members.add(waiting)
        try:
            await waiting
        finally:
            self._members.discard(waiting)

    # -- the cycle

    def new(self) -> tuple[Order, ...]:
        """Those that no cycle has seen."""
        orders, self._new = tuple(self._new), []
        return orders

    def answered(self, replies: Iterable[Reply]) -> None:
        """What ``decide`` answered."""
        for reply in replies:
            waiting = self._waiting.pop(reply.number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def joined(self) -> None:
        """The node is a member."""
        for member in self._members:
            if not member.done():
                member.set_result(None)
