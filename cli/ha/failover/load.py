"""The host of a failover, as a process of its own: ``python -m cli.ha.failover.load`` with a job on standard input.

Why: what a failover costs is what a host sees, and whether it was safe is what a host reads back.  Some workers at each
volume write blocks that carry a tag which no other write has, and read blocks of their own again; every access is kept
with its call and return, so that the whole history can be judged.  It must never retry what its initiator gave up, and
never two workers use one block: a host's file system does not either.

Lines on standard input: the job (``Job``), then ``look`` and ``finish``, each answered by one JSON line.  ``finish``
ends the workers, reads every block once more, and writes history and events to ``out``, one JSON line each.
Times are CLOCK_BOOTTIME in nanoseconds, the clock of agents and leases.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
import uuid as uuidlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dataplane.embedded.initiator.host import Host, HostConnection, HostOptions
from dataplane.embedded.initiator.multipath import HostNamespace
from dataplane.embedded.initiator.policy import usable
from dataplane.nvme.status import NvmeError

BLOCK_BYTES: Final = 4096
BLOCKS: Final = 64
"""Per volume that are used, spread over all of it."""
WORD_BYTES: Final = 8
TORN: Final = -1
"""Read where a block's words do not agree: no write has this tag, so the history shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """``volumes`` maps names to NSIDs.  Each of the ``workers`` at a volume sends its next command ``pause_s`` after
    the answer to the last."""

    nqn: str
    hostnqn: str
    paths: list[tuple[str, int]]
    volumes: dict[str, int]
    workers: int
    pause_s: float
    keep_alive_ms: int
    seed: int
    out: str


@dataclass(slots=True)
class Seen:
    """What the host has seen: accesses as ``ha.sim.linear.Access`` has them, and events."""

    accesses: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)
    errors: int = 0


def now_ns() -> int:
    """The clock of the history."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def block_of(tag: int) -> bytes:
    """The content of a block with that tag: the tag in every word, so that a torn write shows."""
    return tag.to_bytes(WORD_BYTES, "little") * (BLOCK_BYTES // WORD_BYTES)


def tag_of(raw: bytes) -> int:
    """The tag in a block, or ``TORN``."""
    tag = int.from_bytes(raw[:WORD_BYTES], "little")
    return tag if raw == block_of(tag) else TORN


class Load:
    """See the module."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seen = Seen(answered=dict.fromkeys(job.volumes, 0))
        self._tags = itertools.count(1)
        self._stopping = False
        self._usable: dict[tuple[str, str], bool] = {}

    # -- paths

    def look_at_paths(self, connection: HostConnection) -> None:
        """Note which path of which volume has become usable, or is not any more."""
        for volume, nsid in self.job.volumes.items():
            space = connection.namespaces.get(nsid)
            for path in space.paths if space is not None else ():
                key = (volume, path.controller.address.trsvcid)
                now = usable(path)
                if self._usable.get(key) != now:
                    self._usable[key] = now
                    self.seen.events.append({"at": now_ns(), "volume": volume, "port": int(key[1]), "usable": now})

    # -- accesses

    async def run(self, connection: HostConnection, volume: str, worker: int) -> None:
        """Write and read until told to stop."""
        space = connection.namespace(self.job.volumes[volume])
        choice = random.Random(f"{self.job.seed}/{volume}/{worker}")  # noqa: S311 - places, no secret
        mine = range(worker, BLOCKS, self.job.workers)
        while not self._stopping:
            block = choice.choice(mine)
            if choice.random() < 0.5:
                await self.write(space, volume, block, worker)
            else:
                await self.read(space, volume, block, worker)
            await asyncio.sleep(self.job.pause_s)

    async def write(self, space: HostNamespace, volume: str, block: int, worker: int) -> None:
        """One tagged write."""
        tag, called = next(self._tags), now_ns()
        try:
            await space.write(self._lba(space, block), block_of(tag))
        except NvmeError as problem:
            self._failed(volume, problem)
            self._keep(volume, block, worker, tag, called, None, write=True)
        else:
            self._keep(volume, block, worker, tag, called, now_ns(), write=True)

    async def read(self, space: HostNamespace, volume: str, block: int, worker: int) -> None:
        """One read, kept with the tag that came."""
        called = now_ns()
        try:
            raw = await space.read(self._lba(space, block), BLOCK_BYTES // space.block_size)
        except NvmeError as problem:
            self._failed(volume, problem)
        else:
            self._keep(volume, block, worker, tag_of(bytes(raw)), called, now_ns(), write=False)

    def _lba(self, space: HostNamespace, block: int) -> int:
        apart = space.num_blocks * space.block_size // BLOCK_BYTES // BLOCKS
        return block * apart * (BLOCK_BYTES // space.block_size)

    def _keep(
        self, volume: str, block: int, worker: int, tag: int, called: int, returned: int | None, *, write: bool
    ) -> None:
        self.seen.accesses.append(
            {"block": f"{volume}/{block}", "write": write, "tag": tag, "called": called, "returned": returned,
             "by": f"{volume}.{worker}"}
        )  # fmt: skip
        if returned is not None:
            self.seen.answered[volume] += 1

    def _failed(self, volume: str, problem: NvmeError) -> None:
        self.seen.errors += 1
        self.seen.events.append({"at": now_ns(), "volume": volume, "error": str(problem)})

    async def finish(self, connection: HostConnection, workers: list[asyncio.Task[None]]) -> None:
        """End the workers, read everything once more, and write down what was seen."""
        self._stopping = True
        await asyncio.gather(*workers)
        for volume, nsid in self.job.volumes.items():
            for block in range(BLOCKS):
                await self.read(connection.namespace(nsid), volume, block, block % self.job.workers)
        with Path(self.job.out).open("w", encoding="utf-8") as out:
            for line in (*self.seen.events, *self.seen.accesses):
                out.write(json.dumps(line) + "\n")


async def serve(job: Job, lines: asyncio.StreamReader) -> None:
    """Connect, work, and answer until told to finish."""
    load = Load(job)
    async with Host(job.hostnqn, uuidlib.UUID(job.hostnqn.rpartition(":")[2])) as host:
        options = HostOptions(keep_alive_ms=job.keep_alive_ms, io_timeout_s=None)
        connection = await host.connect(job.nqn, [(address, port) for address, port in job.paths], options)
        connection.on_change = lambda _controller: load.look_at_paths(connection)
        load.look_at_paths(connection)
        workers = [
            asyncio.create_task(load.run(connection, volume, worker))
            for volume in job.volumes
            for worker in range(job.workers)
        ]
        _answer({"ready": True})
        while line := (await lines.readline()).strip():
            if line == b"finish":
                await load.finish(connection, workers)
                _answer({"errors": load.seen.errors, "accesses": len(load.seen.accesses)})
                return
            _answer({"answered": load.seen.answered, "errors": load.seen.errors})
        for worker in workers:
            worker.cancel()


def _answer(body: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(body) + "\n")
    sys.stdout.flush()


async def main() -> int:
    """One job; 0 when it was finished."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    await serve(Job(**json.loads(await lines.readline())), lines)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
