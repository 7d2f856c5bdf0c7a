"""A bdev that is slow on demand: what the ``delay`` module is in SPDK.

Why: timeouts, slow legs and slow drives have to be tried, on both engines alike.  This module must never lose the
answer of the base: it is only held back.

Invariants: each kind of I/O has a line of its own, and in a line nothing overtakes, so that a latency that is set
lower does not let later I/O pass what waits; nothing waits any more once the device goes.
Source: SPDK v26.05 module/bdev/delay/vbdev_delay.c.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import uuid as uuidlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from dataplane.embedded.bdev.base import Bdev, BdevError, BdevRegistry, Buffer
from dataplane.embedded.bdev.layer import Layer, lay
from dataplane.embedded.bdev.split import derived_uuid
from dataplane.embedded.bdev.waits import abortable
from dataplane.nvme.status import NvmeError

T = TypeVar("T")
CLAIM: Final = "delay"
LATENCY_TYPES: Final = ("avg_read", "p99_read", "avg_write", "p99_write")
_NAMESPACE: Final = uuidlib.UUID("4009b574-6430-4f1b-bc40-ace811091027").bytes
"""BDEV_DELAY_NAMESPACE_UUID."""
_US_PER_SECOND: Final = 1_000_000
_ONE_IN: Final = 100
"""Every hundredth I/O, by lot, is as slow as the 99th percentile."""


@dataclass(slots=True)
class Latencies:
    """Microseconds of each line, and when the last I/O of each may end.  Reads no clock: ``now`` is handed in."""

    us: dict[str, int]
    last: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LATENCY_TYPES, 0.0))

    def end_of(self, kind: str, draw: int, now: float) -> float:
        """When an I/O ends that the base answered at ``now`` seconds; ``draw`` is 0 to 99."""
        line = f"{'avg' if draw else 'p99'}_{kind}"
        self.last[line] = max(self.last[line], now + self.us[line] / _US_PER_SECOND)
        return self.last[line]


class DelayBdev(Layer):
    """Answers of reads and writes are held back; all else passes."""

    __slots__ = ("_random", "_waiting", "latencies")
    product_name = "delay"

    def __init__(self, base: Bdev, name: str, uuid: str | None, us: dict[str, int]) -> None:
        super().__init__(base, name, uuid or delay_uuid(base.uuid))
        self.latencies = Latencies(dict(us))
        self._random = random.Random()  # noqa: S311 - a lot, no secret
        self._waiting: set[asyncio.Future[None]] = set()
        self.remove_hooks.append(self._removed)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """From the base, late."""
        return await self._late("read", self.base.read(lba, blocks))

    async def do_write(self, lba: int, data: Buffer) -> None:
        """To the base, answered late."""
        await self._late("write", self.base.write(lba, data))

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """To the base, answered late."""
        await self._late("write", self.base.write(lba, data, fua=True))

    async def _late(self, kind: str, io: Awaitable[T]) -> T:
        draw = self._random.randrange(_ONE_IN)
        clock = asyncio.get_running_loop().time
        try:
            answer = await io
        except NvmeError:
            await self._wait_until(self.latencies.end_of(kind, draw, clock()))
            raise
        await self._wait_until(self.latencies.end_of(kind, draw, clock()))
        return answer

    async def _wait_until(self, end: float) -> None:
        loop = asyncio.get_running_loop()
        if end <= loop.time() or self.removing:
            return
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting.add(waiting)
        timer = loop.call_at(end, _wake, waiting)
        try:
            with abortable():
                await waiting
        finally:
            timer.cancel()
            self._waiting.discard(waiting)

    async def _removed(self, _bdev: Bdev) -> None:
        for waiting in self._waiting:
            _wake(waiting)

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {"name": self.name, "base_bdev_name": self.base.name, "uuid": self.uuid}
        return values | {f"{line}_latency": self.latencies.us[line] for line in LATENCY_TYPES}

    def driver_specific(self) -> dict[str, object]:
        """The ``delay`` object."""
        return {"delay": self._values()}

    def call(self) -> dict[str, object]:
        """The call that creates it again."""
        return {"method": "bdev_delay_create", "params": self._values()}


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def delay_uuid(base_uuid: str) -> str:
    """The UUID that a delay bdev has when none is given."""
    return derived_uuid(_NAMESPACE, uuidlib.UUID(base_uuid).bytes)


@dataclass(frozen=True, slots=True)
class DelayConfig:
    """One ``bdev_delay_create``; latencies in microseconds."""

    base_name: str
    name: str
    uuid: str | None
    us: dict[str, int]


class Delays:
    """All of the process; ``examine`` is registered with the bdev registry.

    A description stays when its base goes, and lays the bdev again when that comes back.
    """

    def __init__(self, bdevs: BdevRegistry) -> None:
        self._bdevs = bdevs
        self._configs: dict[str, DelayConfig] = {}
        self.bdevs: dict[str, DelayBdev] = {}

    def create(self, config: DelayConfig) -> None:
        """Now, or when the base appears.  Raises ``BdevError``; as in SPDK the description may stay then."""
        if config.us["p99_read"] < config.us["avg_read"] or config.us["p99_write"] < config.us["avg_write"]:
            raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
        if config.name in self._configs:
            raise BdevError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._configs[config.name] = config
        base = self._bdevs.find(config.base_name)
        if base is not None:
            self._lay_on(base)

    def examine(self, bdev: Bdev) -> None:
        """A bdev appeared: lay a delay bdev over it if that was asked for.  One that cannot be laid is left out."""
        try:
            self._lay_on(bdev)
        except BdevError:
            return

    def _lay_on(self, base: Bdev) -> None:
        for config in [each for each in self._configs.values() if each.base_name == base.name]:
            made = DelayBdev(base, config.name, config.uuid, config.us)
            lay(self._bdevs, made, CLAIM, partial(self.bdevs.pop, made.name))
            self.bdevs[made.name] = made

    async def delete(self, bdev: DelayBdev) -> None:
        """Take it away, its description too."""
        self._configs.pop(bdev.name, None)
        await self._bdevs.remove(bdev)

    def config(self) -> list[dict[str, object]]:
        """The calls that create those that are there again."""
        return [bdev.call() for bdev in self.bdevs.values()]
