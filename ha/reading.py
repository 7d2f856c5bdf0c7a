"""How an agent comes to its map: it is read from the drives, or brought by a caller, and decoded beside the loop.

Why: the map of an array of many volumes takes longer to decode than a tick lasts, and so does a write to a system
drive that is busy.  Both are done in threads; what they give is taken on the loop.  This module must never hold the
loop up, and never take a map that is not wanted any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from controlplane.domain.errors import UsageError, Ws7000Error
from ha.maps import Decoded, Maps
from ha.memory import Memory
from ha.model import Save, SnapshotAt

AGAIN_MS: Final = 500
"""Between two attempts to read the map that a record names."""


class Snapshots(Protocol):
    """Where snapshots are read from."""

    async def read_snapshot(self, at: SnapshotAt, deadline_ms: int) -> bytes | None:
        """The snapshot from whichever quorum drive has it whole."""


class MapReading:
    """Keeps ``maps`` up to date.  ``begin`` runs work beside the loop's cycles, ``wake`` asks for one."""

    def __init__(
        self,
        maps: Maps,
        deadline_ms: int,
        begin: Callable[[Coroutine[Any, Any, None]], None],
        wake: Callable[[], None],
    ) -> None:
        self._maps = maps
        self._deadline_ms = deadline_ms
        self._begin = begin
        self._wake = wake
        self._wanted: SnapshotAt | None = None
        self._reading: SnapshotAt | None = None
        self._keeping = asyncio.Lock()

    def look(self, memory: Memory, drives: Snapshots | None) -> None:
        """Once a cycle: read the snapshot that the newest record names, unless that is being done, and keep what is
        new for the next life of the agent."""
        at = self._wanted = self._maps.wanted(memory)
        if at is not None and at != self._reading and drives is not None:
            self._reading = at
            self._begin(self._read(at, drives))
        if not self._maps.kept and not self._keeping.locked():
            self._begin(self._keep())

    async def learn(self, raw: bytes) -> None:
        """See ``Maps.learn``; raises HA-032.  Whoever is told that it was learned counts on it: it is kept first."""
        self._maps.learn(await _decoded(raw))
        self._wake()
        await self._keep()

    async def offer(self, order: Save) -> None:
        """A state that cannot be read must not reach the drives; raises HA-032."""
        one = await _decoded(order.snapshot)
        if one.map.generation != order.generation:
            raise _no_state(f"it is of generation {one.map.generation}, not {order.generation}")
        if order.form:
            self._maps.learn(one)
            await self._keep()
        else:
            self._maps.offer(one)

    async def _read(self, at: SnapshotAt, drives: Snapshots) -> None:
        try:
            if not await self._taken(at, drives):
                await asyncio.sleep(AGAIN_MS / 1000)
        finally:
            if self._reading == at:
                self._reading = None
            self._wake()

    async def _taken(self, at: SnapshotAt, drives: Snapshots) -> bool:
        """Whether it was read and is the one, or nobody wants it any more."""
        try:
            raw = await drives.read_snapshot(at, self._deadline_ms)
            one = await asyncio.to_thread(Decoded.of, raw) if raw is not None else None
        except (Ws7000Error, ValueError):
            one = None
        if self._wanted != at:
            return True
        return one is not None and self._maps.take(at, one)

    async def _keep(self) -> None:
        async with self._keeping:
            raw = self._maps.unkept()
            if raw is not None:
                await asyncio.to_thread(self._maps.keep, raw)


async def _decoded(raw: bytes) -> Decoded:
    try:
        return await asyncio.to_thread(Decoded.of, raw)
    except ValueError as problem:
        raise _no_state(str(problem)) from problem


def _no_state(why: str) -> UsageError:
    return UsageError(
        "HA-032", "the agent does not understand the request", why=f"the snapshot is no state of an array: {why}",
        remedy="use a command of the same version as the agent; nothing was changed",
    )  # fmt: skip
