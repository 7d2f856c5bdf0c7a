"""A host that does nothing but I/O, as a process of its own: ``python -m bench.load`` with a job on standard input.

Why: where SPDK's own load program is not installed, both engines are still measured by one and the same host.  It
is our initiator, with ``depth`` commands in flight on each of ``queues`` connections.  It must never check what it
reads (the tests do) and never share a process with what it measures.

The job is one JSON object (``Job``); the answer on standard output is one JSON object (``Figures``).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid as uuidlib
from array import array
from dataclasses import asdict, dataclass
from typing import Final

from dataplane.embedded.initiator.association import Association, AssociationOptions, open_association
from dataplane.embedded.initiator.connection import Connection, Endpoint
from dataplane.nvme import commands

HOST_ID: Final = uuidlib.UUID("5f7b3f0e-0000-4000-8000-000000000001")
HOST_NQN: Final = f"nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}"
NSID: Final = 1
CONNECT_S: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do: ``read_percent`` of the commands read; ``sequential`` walks the namespace per queue."""

    address: str
    port: int
    nqn: str
    block_bytes: int
    namespace_bytes: int
    io_bytes: int
    depth: int
    queues: int
    read_percent: int
    sequential: bool
    warm_up_s: float
    run_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of it; latencies in microseconds."""

    iops: float
    bytes_per_s: float
    p50_us: float
    p99_us: float
    max_us: float


class _Load:
    """Keeps every queue full until the time is over and notes how long each command took."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.taken_ns = array("Q")
        self.counting = False
        self.stopping = False
        self._payload = random.Random(1).randbytes(job.io_bytes)  # noqa: S311 - a payload, no secret
        self._random = random.Random(2)  # noqa: S311 - places to read, no secret
        self._places = job.namespace_bytes // job.io_bytes
        self._io_blocks = job.io_bytes // job.block_bytes

    async def keep_full(self, queue: Connection, index: int) -> None:
        """``depth`` commands in flight on one queue, each started as another ends."""
        first = index * (self._places // self.job.queues)
        cursor = iter(range(first, first + (1 << 62)))
        await asyncio.gather(*(self._one_after_the_other(queue, cursor) for _ in range(self.job.depth)))

    async def _one_after_the_other(self, queue: Connection, cursor: object) -> None:
        job, blocks, places, pick = self.job, self._io_blocks, self._places, self._random.random
        clock = time.perf_counter_ns
        assert hasattr(cursor, "__next__")
        while not self.stopping:
            place = next(cursor) % places if job.sequential else int(pick() * places)
            started = clock()
            if job.read_percent == 100 or (job.read_percent and pick() * 100 < job.read_percent):
                command = commands.read(NSID, place * blocks, blocks, job.block_bytes)
                reply = await queue.execute(command, read_size=job.io_bytes)
            else:
                command = commands.write(NSID, place * blocks, blocks, job.block_bytes)
                reply = await queue.execute(command, self._payload)
            reply.check()
            if self.counting:
                self.taken_ns.append(clock() - started)


async def run(job: Job) -> Figures:
    """Connect, warm up, count, and say what was counted."""
    association = await _connect(job)
    try:
        load = _Load(job)
        async with asyncio.TaskGroup() as group:
            for index, queue in enumerate(association.queues):
                group.create_task(load.keep_full(queue, index))
            await asyncio.sleep(job.warm_up_s)
            load.counting = True
            begun = time.perf_counter()
            await asyncio.sleep(job.run_s)
            load.counting = False
            took_s = time.perf_counter() - begun
            load.stopping = True
    finally:
        await association.close()
    return _figures(load.taken_ns, job.io_bytes, took_s)


async def _connect(job: Job) -> Association:
    return await open_association(
        AssociationOptions(
            subnqn=job.nqn,
            hostnqn=HOST_NQN,
            hostid=HOST_ID.bytes,
            endpoint=Endpoint(job.address, job.port),
            io_queues=job.queues,
            io_entries=job.depth + 1,
            connect_timeout_s=CONNECT_S,
        )
    )


def _figures(taken_ns: array[int], io_bytes: int, took_s: float) -> Figures:
    ordered = sorted(taken_ns)
    if not ordered:
        raise RuntimeError("no command ended while counting")

    def percentile(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000

    return Figures(
        iops=len(ordered) / took_s,
        bytes_per_s=len(ordered) * io_bytes / took_s,
        p50_us=percentile(0.5),
        p99_us=percentile(0.99),
        max_us=ordered[-1] / 1000,
    )


def main() -> int:
    """One job in, one answer out."""
    job = Job(**json.load(sys.stdin))
    json.dump(asdict(asyncio.run(run(job))), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
