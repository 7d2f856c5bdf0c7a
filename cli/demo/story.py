"""The main job, told in chapters: each does something for real and yields what it found.

The host writes blocks that carry their own number and a checksum, so that a block that is lost, stale, torn or
in the wrong place is seen.  Nothing here prints; ``command`` does.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid as uuidlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cli.demo.lab import Lab
from controlplane.domain.errors import Ws7000Error
from controlplane.domain.state import State, VolumeRecord
from dataplane.embedded.initiator.host import Host, HostConnection
from dataplane.embedded.initiator.multipath import HostNamespace

BLOCK_BYTES = 128 * 1024
SEED = 7000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Bytes of one volume that were read back and compared."""

    volume: str
    size_bytes: int
    wrong_blocks: int


def pattern(volume: str, number: int, size: int, turn: int = 0) -> bytes:
    """The content of block ``number`` when it is written for the ``turn``-th time after the first: random bytes by
    seed, then the SHA-256 of all that goes before."""
    source = random.Random(f"{SEED}/{volume}/{number}/{turn}")  # noqa: S311 - test data, not a secret
    head = f"{volume}/{number}/{turn}/".encode()
    body = head + source.randbytes(size - len(head) - 32)
    return body + hashlib.sha256(body).digest()


def blocks_of(record: VolumeRecord) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes, over the whole volume."""
    for offset in range(0, record.provisioned_bytes, BLOCK_BYTES):
        yield offset, min(BLOCK_BYTES, record.provisioned_bytes - offset)


async def write_all(namespace: HostNamespace, record: VolumeRecord) -> int:
    """Fill the volume with the pattern and flush; returns the bytes written."""
    size = namespace.block_size
    for offset, length in blocks_of(record):
        await namespace.write(offset // size, pattern(record.name, offset, length))
    await namespace.flush()
    return record.provisioned_bytes


class Rewriting:
    """Writes block after block of a volume, each time with other content, until it is told to stop; remembers the last
    content that was acknowledged for each block, and when acknowledgements came."""

    def __init__(self, namespace: HostNamespace, record: VolumeRecord) -> None:
        self._namespace = namespace
        self._record = record
        self._stop = asyncio.Event()
        self.turns: dict[int, int] = {}
        self.acknowledged = 0
        self.longest_gap_s = 0.0

    def stop(self) -> None:
        """End after the block that is being written."""
        self._stop.set()

    async def until(self, count: int) -> None:
        """Return when that many writes have been acknowledged."""
        while self.acknowledged < count:
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Write until ``stop``; raises what a write ends with."""
        size, turn, last = self._namespace.block_size, 0, time.monotonic()
        while not self._stop.is_set():
            turn += 1
            for offset, length in blocks_of(self._record):
                await self._namespace.write(offset // size, pattern(self._record.name, offset, length, turn))
                self.turns[offset] = turn
                now = time.monotonic()
                self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
                self.acknowledged += 1
                if self._stop.is_set():
                    break


async def read_all(namespace: HostNamespace, record: VolumeRecord, turns: Mapping[int, int] | None = None) -> Verified:
    """Read the volume back and count the blocks that are not what was written; ``turns`` says for which turn."""
    size = namespace.block_size
    wrong = 0
    for offset, length in blocks_of(record):
        got = await namespace.read(offset // size, length // size)
        wrong += bytes(got) != pattern(record.name, offset, length, (turns or {}).get(offset, 0))
    return Verified(volume=record.name, size_bytes=record.provisioned_bytes, wrong_blocks=wrong)


async def reads_zero(namespace: HostNamespace, record: VolumeRecord) -> bool:
    """Whether a new volume reads zeroes all over."""
    size = namespace.block_size
    for offset, length in blocks_of(record):
        if any(await namespace.read(offset // size, length // size)):
            return False
    return True


def paths_of(lab: Lab) -> list[tuple[str, int]]:
    """Where the nodes listen."""
    return [(port.address, port.service) for node in lab.array.nodes for port in node.ports]


def host_of(lab: Lab, name: str) -> Host:
    """Our own initiator under the NQN of host ``name``."""
    nqn = lab.array.host(name).nqn
    return Host(nqn, uuidlib.UUID(nqn.rpartition(":")[2]))


async def connect(lab: Lab, host: Host, state: State) -> HostConnection:
    """Connect ``host`` to the default subsystem over every path."""
    return await host.connect(state.subsystems["default"].nqn, paths_of(lab))


def must(verified: Verified) -> Verified:
    """The result, unless a block was wrong: then DEMO fails, loudly."""
    if verified.wrong_blocks:
        raise broken(
            f"volume {verified.volume}: {verified.wrong_blocks} blocks are not what was written",
            "an acknowledged write did not read back",
        )
    return verified


def broken(what: str, why: str) -> Ws7000Error:
    """A promise of the product did not hold."""
    return Ws7000Error(
        "CLI-020", what, why=why, remedy="keep the folder (--keep) and report it: this must never happen"
    )
