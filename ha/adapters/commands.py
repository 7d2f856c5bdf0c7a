"""Raw NVMe commands to drives through the data plane, each with its own deadline, and what came of each.

Why one place: SPDK v26.05 ends when a raw command is sent to a drive that it has just lost
(module/bdev/nvme/nvme_rpc.c), so the state of its controller is looked at before, and a drive that is not ``enabled``
counts as silent.  This module must never retry and never choose a command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from controlplane.domain.errors import DeadlineExceeded, Unreachable, Ws7000Error
from dataplane.nvme.commands import Command, flush, read, write
from dataplane.nvme.status import Status, StatusType
from dataplane.rpc.call import Call
from dataplane.rpc.methods import nvme
from dataplane.rpc.values import NvmeCompletion
from ha.model import Answer

T = TypeVar("T")

NSID: Final = 1
ENABLED: Final = "enabled"
PIECE_BYTES: Final = 128 * 1024
"""What one raw command carries: within the transfer size of every drive, and of a request of the engine as base64."""


class Channel(Protocol):
    """A connection that has many calls on their way at once (``dataplane.rpc.mux``)."""

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        """Send the call, wait for its answer."""


class Commands:
    """Sends raw commands over one connection.  ``clock`` gives milliseconds."""

    def __init__(self, channel: Channel, clock: Callable[[], int], fresh_ms: int) -> None:
        self._channel = channel
        self._clock = clock
        self._fresh_ms = fresh_ms
        self._enabled: frozenset[str] = frozenset()
        self._looked_at: int | None = None
        self._looking: asyncio.Task[None] | None = None

    async def look(self, deadline_ms: int) -> None:
        """See which drives are there, unless that was seen a moment ago.  Commands that are sent together share one
        look; raises ``TimeoutError`` for this caller alone."""
        if self._looked_at is not None and self._clock() - self._looked_at <= self._fresh_ms:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(deadline_ms))
            self._looking.add_done_callback(self._looked)
        async with asyncio.timeout(deadline_ms / 1000):
            await asyncio.shield(self._looking)

    async def _look(self, deadline_ms: int) -> None:
        now = self._clock()
        found = await self._channel.run(nvme.get_controllers(), deadline_ms)
        self._enabled = frozenset(each.name for each in found if any(path.state == ENABLED for path in each.paths))
        self._looked_at = now

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # those who waited have it; when nobody waits any more, nobody needs it

    async def send(
        self,
        drive: str,
        command: Command,
        deadline_ms: int,
        *,
        data: bytes | None = None,
        size: int | None = None,
        kind: str = "io",
    ) -> tuple[Answer, NvmeCompletion | None]:
        """One command; ``size`` bytes are fetched where it is given."""
        try:
            await self.look(deadline_ms)
            if drive not in self._enabled:
                return Answer.SILENT, None
            call = nvme.send_cmd(drive, kind=kind, sqe=command.pack(), data=data, data_len_bytes=size)
            done = await self._channel.run(call, deadline_ms)
        except (DeadlineExceeded, TimeoutError, Unreachable):
            return Answer.SILENT, None
        except Ws7000Error:
            return Answer.FAILED, None
        return answer_of(done), done

    async def fetch(self, drive: str, at: int, size: int, block: int, deadline_ms: int) -> tuple[Answer, bytes]:
        """Read ``size`` bytes from byte ``at``."""
        found = bytearray()
        for begin in range(0, size, PIECE_BYTES):
            length = min(PIECE_BYTES, size - begin)
            command = read(NSID, (at + begin) // block, length // block, block)
            said, done = await self.send(drive, command, deadline_ms, size=length)
            if said is not Answer.OK or done is None:
                return said, b""
            found += done.data
        return Answer.OK, bytes(found)

    async def store(self, drive: str, at: int, data: bytes, block: int, deadline_ms: int) -> Answer:
        """Write whole blocks at byte ``at``, then flush: SPDK v26.05 drops FUA on the way."""
        for begin in range(0, len(data), PIECE_BYTES):
            piece = data[begin : begin + PIECE_BYTES]
            command = write(NSID, (at + begin) // block, len(piece) // block, block, fua=True)
            said, _ = await self.send(drive, command, deadline_ms, data=piece)
            if said is not Answer.OK:
                return said
        return (await self.send(drive, flush(NSID), deadline_ms))[0]


def answer_of(done: NvmeCompletion) -> Answer:
    """What a completion means for the HA manager: what was interrupted or lost on its path may still be carried out."""
    if done.ok:
        return Answer.OK
    if done.status == Status.RESERVATION_CONFLICT:
        return Answer.CONFLICT
    if done.status == Status.COMMAND_INTERRUPTED or done.sct == StatusType.PATH:
        return Answer.SILENT
    return Answer.FAILED
