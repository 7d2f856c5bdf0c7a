"""How much a host may ask for and how long it may take, in one place.

Why: one host must not be able to take from the others what they need, be it by mistake or on purpose, so whatever
a connection can hold has a number here.  docs/reference/engines.md says why each number is what it is; that page
and this module change together.  This module must never end a connection by itself.

Invariants: every timer of a connection is cancelled when the connection ends; a wait that makes progress within
its time is never cut short.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

MAX_CONNECTIONS: Final = 4096
SPARE_FILES: Final = 256  # descriptors that connections leave to bdevs, RPC and the process itself
MAX_UNCONNECTED_PER_HOST: Final = 256
CONNECT_TIMEOUT_S: Final = 30.0
DATA_TIMEOUT_S: Final = 30.0
READ_TIMEOUT_S: Final = 30.0
GOODBYE_TIMEOUT_S: Final = 1.0
CONTROL_DATA_MAX: Final = 8192  # in-capsule data of fabrics and admin commands, transport specification 3.3.2.1
WRITE_BUFFER_BYTES: Final = 1 << 20
DATA_BUDGET_BYTES: Final = 512 << 20


def connection_limit() -> int:
    """Connections of the whole target: the fixed number, or what the process may still open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, files - SPARE_FILES))


class Wait(Enum):
    """What a connection is given a time for; the value is what is said when the time is over."""

    CONNECT = "no Connect command came"
    DATA = "the data of a write did not come"
    READ = "the host does not read what it asked for"
    GOODBYE = "it was terminated"


class Deadlines:
    """The running times of one connection."""

    __slots__ = ("_expired", "_loop", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[str], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._timers: dict[Wait, asyncio.TimerHandle] = {}

    def start(self, wait: Wait, seconds: float) -> None:
        """Give it that long from now; what ran before for the same wait is forgotten."""
        self.stop(wait)
        self._timers[wait] = self._loop.call_later(seconds, self._end, wait)

    def stop(self, wait: Wait) -> None:
        """It happened."""
        timer = self._timers.pop(wait, None)
        if timer is not None:
            timer.cancel()

    def clear(self) -> None:
        """The connection is gone."""
        for wait in list(self._timers):
            self.stop(wait)

    def watch_oldest(self, oldest: Callable[[], float | None]) -> None:
        """Expire ``Wait.DATA`` unless whatever began at ``oldest()`` is done in its time; None: nothing waits.

        One timer serves any number of transfers, since a timer each would cost more than the transfer.
        """
        if Wait.DATA not in self._timers:
            self._timers[Wait.DATA] = self._loop.call_later(DATA_TIMEOUT_S, self._look, oldest)

    def _look(self, oldest: Callable[[], float | None]) -> None:
        del self._timers[Wait.DATA]
        began = oldest()
        if began is None:
            return
        left = began + DATA_TIMEOUT_S - self._loop.time()
        if left > 0:
            self._timers[Wait.DATA] = self._loop.call_later(left, self._look, oldest)
        else:
            self._expired(Wait.DATA.value)

    def _end(self, wait: Wait) -> None:
        self._timers.pop(wait, None)
        self._expired(wait.value)


class Door:
    """Who has come in, and how many of each address have not said yet whom they want (Connect)."""

    __slots__ = ("_unconnected", "inside", "limit")

    def __init__(self) -> None:
        self.limit = connection_limit()
        self.inside = 0
        self._unconnected: Counter[str] = Counter()

    def refusal(self, address: str) -> str:
        """Why nobody more may come in from there; empty: one may."""
        if self.inside >= self.limit:
            return "too many connections"
        if self._unconnected[address] >= MAX_UNCONNECTED_PER_HOST:
            return "too many connections of that host wait for their Connect"
        return ""

    def enter(self, address: str) -> None:
        """One came."""
        self.inside += 1
        self._unconnected[address] += 1

    def connected(self, address: str) -> None:
        """It has connected, or it goes without."""
        self._unconnected[address] -= 1
        if self._unconnected[address] <= 0:
            del self._unconnected[address]

    def leave(self) -> None:
        """One went."""
        self.inside -= 1
