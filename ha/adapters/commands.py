"""Raw NVMe commands to drives through the data plane, and what came of each.

Why one place: SPDK v26.05 ends when a raw command is sent to a drive that it has just lost
(module/bdev/nvme/nvme_rpc.c), so the state of its controller is looked at before, and a drive that is not ``enabled``
counts as silent.  This module must never retry, never choose a command, and never send one that its caller has given
up meanwhile.

What always holds: at most one command of a lane (one ``Commands``) is on its way to each drive, also when its caller
stopped waiting long ago; so a drive that hangs costs one place on the connection per lane, for as long as it hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from controlplane.domain.errors import DeadlineExceeded, Unreachable, Ws7000Error
from dataplane.nvme.commands import Command, flush, read, write
from dataplane.nvme.status import Status, StatusType
from dataplane.rpc.call import Call
from dataplane.rpc.errors import RpcError, TooManyCalls
from dataplane.rpc.methods import nvme
from dataplane.rpc.values import NvmeCompletion
from ha.model import Answer

T = TypeVar("T")

NSID: Final = 1
ENABLED: Final = "enabled"
PIECE_BYTES: Final = 128 * 1024
"""What one raw command carries: within the transfer size of every drive, and of a request of the engine as base64."""
PATIENCE_MS: Final = 24 * 3600 * 1000
"""A command is not given up on the connection: it keeps its place until it is answered, or the connection ends."""
FRESH_MS: Final = 20
"""How old the look at the controllers may be when a command is sent: one look serves commands that go together."""

_UNDECIDED: Final = frozenset(
    {
        Status.COMMAND_INTERRUPTED,
        Status.ABORTED_BY_REQUEST,
        Status.ABORTED_SQ_DELETION,  # what SPDK gives the commands of a connection that broke
        Status.TRANSIENT_TRANSPORT_ERROR,
    }
)


class Channel(Protocol):
    """A connection that has many calls on their way at once (``dataplane.rpc.mux``)."""

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        """Send the call, wait for its answer."""

    def reserve(self, calls: int) -> None:
        """Places for as many calls beside those of everybody else."""


class Controllers:
    """Which drives are there, asked for all of them at once.  ``clock`` gives milliseconds."""

    def __init__(self, channel: Channel, clock: Callable[[], int]) -> None:
        self._channel = channel
        self._clock = clock
        self._enabled: frozenset[str] = frozenset()
        self._looked_at: int | None = None
        self._look: asyncio.Task[None] | None = None

    async def enabled(self, drive: str) -> bool:
        """Whether a command may be sent now.  Raises what the call raises."""
        if self._looked_at is None or self._clock() - self._looked_at > FRESH_MS:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._ask())
            await asyncio.shield(self._look)
        return drive in self._enabled

    async def _ask(self) -> None:
        sent_at = self._clock()
        found = await self._channel.run(nvme.get_controllers(), PATIENCE_MS)
        self._enabled = frozenset(each.name for each in found if any(path.state == ENABLED for path in each.paths))
        self._looked_at = sent_at


class _Ticket:
    """Whether somebody still waits for a command that has not been sent."""

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = True


class Commands:
    """One lane of raw commands over one connection; see the module."""

    def __init__(self, channel: Channel, controllers: Controllers) -> None:
        self._channel = channel
        self._controllers = controllers
        self._on_way: dict[str, asyncio.Task[NvmeCompletion | None]] = {}

    async def send(
        self,
        drive: str,
        command: Command,
        deadline_ms: int,
        *,
        kind: str = "io",
        data: bytes | None = None,
        size: int | None = None,
    ) -> tuple[Answer, NvmeCompletion | None]:
        """One command; ``size`` bytes are fetched where it is given.  It waits for an earlier one of this lane that is
        on its way to the drive, and is not sent when the deadline comes first."""
        call = nvme.send_cmd(drive, kind=kind, sqe=command.pack(), data=data, data_len_bytes=size)
        ticket = _Ticket()
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                while (earlier := self._on_way.get(drive)) is not None:
                    await asyncio.wait({earlier})
                done = await asyncio.shield(self._begin(drive, call, ticket))
        except (TimeoutError, DeadlineExceeded, Unreachable, TooManyCalls, RpcError):
            # An engine answers with an error what it could not send, or lost with the drive: no word of the drive.
            return Answer.SILENT, None
        except Ws7000Error:
            return Answer.FAILED, None
        finally:
            ticket.wanted = False
        return (Answer.SILENT, None) if done is None else (answer_of(done), done)

    def _begin(self, drive: str, call: Call[NvmeCompletion], ticket: _Ticket) -> asyncio.Task[NvmeCompletion | None]:
        async def carried_out() -> NvmeCompletion | None:
            if not await self._controllers.enabled(drive) or not ticket.wanted:
                return None
            return await self._channel.run(call, PATIENCE_MS)

        def ended(task: asyncio.Task[NvmeCompletion | None]) -> None:
            del self._on_way[drive]
            if not task.cancelled():
                task.exception()  # it belongs to a caller that may not wait any more

        task = self._on_way[drive] = asyncio.create_task(carried_out())
        task.add_done_callback(ended)
        return task

    async def close(self) -> None:
        """Give up what is on its way."""
        tasks = list(self._on_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
    if done.status in _UNDECIDED or done.sct == StatusType.PATH:
        return Answer.SILENT
    return Answer.FAILED
