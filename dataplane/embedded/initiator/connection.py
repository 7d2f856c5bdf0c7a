"""One queue over one TCP connection: commands out, completions back, many at a time.

Why: all the byte-level work of the initiator is here, so that nothing above sees a PDU.  This module must never
retry a command, choose a path or interpret a status; a command ends with the controller's completion or with
``TransportLost``, and with the latter nobody knows whether the controller executed it.

Invariants: a command identifier is free again only when its command was completed, so a late answer never meets
another command's buffer (a caller that is cancelled leaves its command in flight); when the connection ends,
every command in flight and every caller waiting for a slot ends with ``TransportLost``, once; whatever the
controller sends is checked against the command it names before a byte is kept.
Source: NVMe/TCP Transport 1.0c sections 3.3 (data transfer), 3.4 (connection), 3.6 (PDUs).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from dataplane.embedded.initiator.injection import Injection, Injections
from dataplane.nvme.commands import Command, Completion, status_field
from dataplane.nvme.layout import Raw
from dataplane.nvme.pdu import (
    HOST_RECEIVES,
    NO_DIGESTS,
    R2T,
    C2HData,
    CapsuleResp,
    Digests,
    FatalError,
    H2CData,
    IcReq,
    IcResp,
    Pdu,
    PduType,
    TermReq,
    capsule_cmd,
    h2c_data,
)
from dataplane.nvme.pdu_reader import PduError, PduReader
from dataplane.nvme.status import NvmeError, Status, describe

CPDA_MAX: Final = 31
PDU_OVERHEAD: Final = 256  # header, digests and padding around the payload of a data PDU
SEND_BUFFER: Final = 1 << 20  # bytes waiting in the transport above which payload waits here
ADMIN_IN_CAPSULE: Final = 8192  # section 3.3.2.1: fixed for the admin queue and for fabrics commands


class TransportLost(Exception):
    """The connection ended; the commands that were in flight may or may not have been executed."""


class TransportReset(TransportLost):
    """Somebody asked this side to end the connection: what was in flight is not to be repeated (as in SPDK)."""


class Reply(NamedTuple):
    """A completion and, for a command that reads, its payload; ``received`` counts the bytes that came."""

    completion: Completion
    data: Raw = b""
    received: int = 0

    def check(self, size: int = 0) -> Raw:
        """The payload; raises ``NvmeError`` for any other status than success, or below ``size`` bytes."""
        if self.completion.code:
            raise NvmeError(self.completion.code, dnr=self.completion.dnr)
        if self.received < size:
            raise NvmeError(Status.DATA_TRANSFER_ERROR)
        return self.data


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and how.  ``user_timeout_ms``: unacknowledged data ends the connection (0: never)."""

    address: str
    port: int
    source: tuple[str, int] | None = None
    digests: Digests = NO_DIGESTS
    user_timeout_ms: int = 0

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(slots=True)
class _Pending:
    """A command in flight.  ``whole``: the payload came as one PDU and is handed out where it was received."""

    done: asyncio.Future[Reply]
    out: memoryview
    size: int
    deadline: float | None
    owner: asyncio.Task[object] | None
    opcode: int
    buffer: bytearray | None = None
    whole: memoryview | None = None
    received: int = 0
    asked: int = 0
    damaged: bool = False


class Connection(asyncio.BufferedProtocol):
    """One queue.  Made by ``open_connection``; ``on_lost`` is called once, after all commands were failed."""

    def __init__(self, endpoint: Endpoint, entries: int, max_data: int) -> None:
        self.endpoint = endpoint
        self.max_data = max_data
        self.in_capsule = ADMIN_IN_CAPSULE
        self.on_lost: Callable[[Connection, str], None] | None = None
        self.on_expired: Callable[[Connection, int], None] | None = None
        self.lost: str | None = None
        self.injected = Injections()
        self._reset = False
        self._reader = PduReader(HOST_RECEIVES, max_data + PDU_OVERHEAD, greeting=PduType.IC_RESP)
        self._digests = NO_DIGESTS
        self._alignment = 4
        self._max_h2c = 0
        self._pending: dict[int, _Pending] = {}
        # A submission queue of n entries holds n - 1 commands (NVMe base 2.0c section 3.3.1.1).
        self._free = list(range(entries - 1))
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pairing = asyncio.Lock()
        self._unsent: deque[tuple[_Pending, R2T]] = deque()
        self._writable = True
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None

    @property
    def in_flight(self) -> int:
        """Commands sent and not completed, and those that wait for a slot."""
        return len(self._pending) + len(self._waiting)

    # -- commands

    async def execute(
        self, command: Command, data: Raw = b"", *, read_size: int = 0, timeout_s: float | None = None
    ) -> Reply:
        """Send ``command`` and return its completion, whatever the status.

        ``data`` goes out with it and must not change until this returns; ``read_size`` bytes may come back.
        Raises ``TransportLost``.  After ``timeout_s`` without an answer ``on_expired`` is called, which by
        default drops the connection: an identifier must not be used again while its answer may still come.
        """
        if not self._free or self.lost is not None:
            await self._slot()
        held = self.injected.held(command.opcode)
        if held is not None:
            return await self._hold(held)
        return await self._send(self._free.pop(), command, data, read_size, timeout_s).done

    async def _hold(self, held: Injection) -> Reply:
        """Answer as the injection says, when its time is over or the connection ends."""
        await asyncio.wait([self._closed], timeout=held.hold_s)
        return Reply(Completion(status=status_field(held.code, dnr=self._reset)))

    async def execute_pair(
        self, first: tuple[Command, Raw], second: tuple[Command, Raw], *, timeout_s: float | None = None
    ) -> tuple[Reply, Reply]:
        """Send the halves of a fused command, nothing between them, and return both completions; as ``execute``.

        An injection that holds commands does not concern them: half a pair is none.
        """
        # One pair at a time: two that hold one slot each would wait for each other's second.
        async with self._pairing:
            await self._slot()
            cid = self._free.pop()
            try:
                await self._slot()
            except BaseException:
                self._free.append(cid)
                self._wake_one()
                raise
            one = self._send(cid, *first, 0, timeout_s)
            two = self._send(self._free.pop(), *second, 0, timeout_s)
        replies = await asyncio.gather(one.done, two.done)
        return replies[0], replies[1]

    def commands_of(self, task: asyncio.Task[object]) -> list[int]:
        """The identifiers of what that task has in flight here."""
        return [cid for cid, pending in self._pending.items() if pending.owner is task]

    async def _slot(self) -> None:
        """Return when a command identifier is free; raises ``TransportLost``."""
        while not self._free and self.lost is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                self._pass_on(waiter)
                raise
        if self.lost is not None or self._transport is None:
            raise TransportLost(self.lost or "not connected")

    def _send(self, cid: int, command: Command, data: Raw, read_size: int, timeout_s: float | None) -> _Pending:
        if self._transport is None:
            raise TransportLost("not connected")
        deadline = None if timeout_s is None else self._loop.time() + timeout_s
        owner = asyncio.current_task()
        pending = _Pending(self._loop.create_future(), memoryview(data), read_size, deadline, owner, command.opcode)
        self._pending[cid] = pending
        if deadline is not None and (self._watch is None or deadline < self._watch.when()):
            self._arm(deadline)
        size = len(pending.out)
        if size:
            inside = size <= self.in_capsule
            command = command.with_data(size, in_capsule=inside)
            payload: Raw = pending.out if inside else b""
            pending.asked = size if inside else 0
        else:
            payload = b""
        pieces = capsule_cmd(command.with_cid(cid), payload, self._digests, self._alignment)
        self._transport.writelines(pieces)
        return pending

    def _pass_on(self, waiter: asyncio.Future[None]) -> None:
        """A caller that waited for a slot was cancelled; if it had just been given one, wake the next."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif self._free:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _finish(self, cid: int, pending: _Pending, completion: Completion) -> None:
        del self._pending[cid]
        self._free.append(cid)
        if self._waiting:
            self._wake_one()
        if pending.done.done():
            return
        if pending.damaged and not completion.code:
            completion = completion._replace(status=Status.TRANSIENT_TRANSPORT_ERROR << 1)
        completion = self.injected.exchange(pending.opcode, completion)
        whole = pending.whole if pending.whole is not None else pending.buffer
        pending.done.set_result(Reply(completion, whole if whole is not None else b"", pending.received))

    # -- deadlines

    def _arm(self, when: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_at(when, self._look_at_deadlines)

    def _look_at_deadlines(self) -> None:
        self._watch = None
        now = self._loop.time()
        left = [(pending.deadline, cid) for cid, pending in self._pending.items() if pending.deadline is not None]
        for deadline, cid in left:
            if deadline <= now and cid in self._pending:
                self._pending[cid].deadline = None
                if self.on_expired is None:
                    self.drop(f"no answer from {self.endpoint} in time")
                    return
                self.on_expired(self, cid)
        later = [deadline for deadline, _ in left if deadline > now]
        if later and self.lost is None:
            self._arm(min(later))

    # -- what arrives (asyncio.BufferedProtocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the controller."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=SEND_BUFFER)
        sock = transport.get_extra_info("socket")
        if sock is not None and self.endpoint.user_timeout_ms:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.endpoint.user_timeout_ms)
        self._transport.write(IcReq(digests=self.endpoint.digests).pack())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio passes it
        """Where the transport receives into."""
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        try:
            for pdu in self._reader.advance(nbytes):
                self._take(pdu)
                if self.lost is not None:
                    return
        except PduError as error:
            self._refuse(error)

    def eof_received(self) -> bool:
        """The controller closed its side; there is no half-open state in NVMe/TCP."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._reader.close()
        self._fail(f"connection to {self.endpoint} ended" + (f": {exc}" if exc else ""))
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        """The transport holds enough; payload waits."""
        self._writable = False

    def resume_writing(self) -> None:
        """Send what waited."""
        self._writable = True
        while self._unsent and self._writable and self.lost is None:
            self._send_data(*self._unsent.popleft())

    def _take(self, pdu: Pdu) -> None:
        if isinstance(pdu, CapsuleResp):
            cid = pdu.completion.cid
            self._finish(cid, self._named(cid), pdu.completion)
        elif isinstance(pdu, C2HData):
            self._take_data(pdu)
        elif isinstance(pdu, R2T):
            self._take_r2t(self._named(pdu.cid), pdu)
        elif isinstance(pdu, IcResp):
            self._take_greeting(pdu)
        elif isinstance(pdu, TermReq):
            self.drop(f"{self.endpoint} ended the connection: error {pdu.fes}, field {pdu.fei}")

    def _take_greeting(self, pdu: IcResp) -> None:
        # A controller that leaves out a digest that was asked for is refused: silence would look like safety.
        checks = ((8, not pdu.pfv), (12, pdu.maxh2cdata >= 4096), (10, pdu.cpda <= CPDA_MAX),
                  (11, pdu.digests == self.endpoint.digests))  # fmt: skip
        for field, good in checks:
            if not good:
                raise self._reader.refuse(FatalError.INVALID_HEADER, field, f"unacceptable ICResp {pdu}")
        self._digests = self._reader.digests = pdu.digests
        self._alignment = (pdu.cpda + 1) * 4
        self._max_h2c = pdu.maxh2cdata & ~3
        self._ready.set_result(None)

    def _named(self, cid: int) -> _Pending:
        pending = self._pending.get(cid)
        if pending is None:
            raise self._reader.refuse(FatalError.INVALID_HEADER, 8, f"command {cid} is not in flight")
        return pending

    def _take_r2t(self, pending: _Pending, pdu: R2T) -> None:
        """Each byte of a command is asked for once, in order, so what waits here is bounded by what was given."""
        if pdu.offset != pending.asked:
            raise self._reader.refuse(FatalError.INVALID_HEADER, 12, f"R2T out of turn for command {pdu.cid}")
        if not pdu.length or pdu.offset + pdu.length > len(pending.out):
            raise self._reader.refuse(FatalError.OUT_OF_RANGE, 0, f"R2T beyond the data of command {pdu.cid}")
        pending.asked += pdu.length
        if self._writable:
            self._send_data(pending, pdu)
        else:
            self._unsent.append((pending, pdu))

    def _take_data(self, pdu: C2HData) -> None:
        pending = self._named(pdu.cid)
        size, end = len(pdu.data), pdu.offset + len(pdu.data)
        if pdu.success and not pdu.last:
            raise self._reader.refuse(FatalError.INVALID_HEADER, 0, "success before the last data")
        if size <= pending.size and pdu.offset != pending.received:
            # Data that came twice must not count for data that never came.
            raise self._reader.refuse(FatalError.INVALID_HEADER, 12, f"data out of turn for command {pdu.cid}")
        if end > pending.size:
            raise self._reader.refuse(FatalError.OUT_OF_RANGE, 0, f"data beyond the buffer of command {pdu.cid}")
        pending.damaged |= pdu.digest_error
        if size == pending.size:
            pending.whole = memoryview(pdu.data)
        else:
            if pending.buffer is None:
                pending.buffer = bytearray(pending.size)
            pending.buffer[pdu.offset : end] = pdu.data
        pending.received += size
        if pdu.success:
            self._finish(pdu.cid, pending, Completion(cid=pdu.cid))

    def _send_data(self, pending: _Pending, pdu: R2T) -> None:
        """Answer an R2T: all of it at once, in PDUs no larger than the controller takes."""
        if self._pending.get(pdu.cid) is not pending or self._transport is None:
            return  # the command has ended, and its identifier may be another's by now
        offset, end = pdu.offset, pdu.offset + pdu.length
        while offset < end:
            size = min(end - offset, self._max_h2c)
            part = H2CData(pdu.cid, pdu.ttag, offset, pending.out[offset : offset + size], last=offset + size == end)
            self._transport.writelines(h2c_data(part, self._digests, self._alignment))
            offset += size

    # -- the end

    def _refuse(self, error: PduError) -> None:
        """The controller broke the protocol: say so, then hang up (section 3.4.7)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(error.term(from_host=True).pack())
        self._fail(f"{self.endpoint} broke the protocol: {error}")
        if self._transport is not None:
            self._transport.close()

    def drop(self, reason: str) -> None:
        """End the connection at once; what was in flight is lost."""
        self._fail(reason)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        if self._watch is not None:
            self._watch.cancel()
        pending, self._pending = self._pending, {}
        kind = TransportReset if self._reset else TransportLost
        for each in pending.values():
            if not each.done.done():
                each.done.set_exception(kind(reason))
        while self._waiting:
            self._wake_one()
        self._unsent.clear()
        if not self._ready.done():
            self._ready.set_exception(TransportLost(reason))
        if self.on_lost is not None:
            self.on_lost(self, reason)

    async def greeted(self) -> None:
        """Return when the controller has answered the greeting; raises ``TransportLost``."""
        await self._ready

    async def close(self, *, reset: bool = False) -> None:
        """End the connection and wait until its socket is gone; ``reset`` as in ``TransportReset``."""
        self._reset = self._reset or reset
        self.drop("closed by this side")
        if self._transport is not None:
            await self._closed


async def open_connection(endpoint: Endpoint, entries: int, max_data: int, timeout_s: float) -> Connection:
    """A connection that can take commands.  ``entries`` of the queue, ``max_data`` bytes in one transfer.

    Raises ``TransportLost`` with the reason when nothing is there, it refuses, or ``timeout_s`` passes.
    """
    loop = asyncio.get_running_loop()
    made: list[Connection] = []

    def factory() -> Connection:
        made.append(Connection(endpoint, entries, max_data))
        return made[-1]

    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                factory, endpoint.address, endpoint.port, local_addr=endpoint.source
            )
            await connection.greeted()
            return connection
    except TimeoutError:
        await _close_all(made)
        raise TransportLost(f"{endpoint} did not answer within {timeout_s:g} s") from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise TransportLost(f"cannot connect to {endpoint}: {why}") from error
    except BaseException:
        await _close_all(made)
        raise


async def _close_all(made: list[Connection]) -> None:
    for connection in made:
        await connection.close()


def explain(error: TransportLost | NvmeError) -> str:
    """A sentence about why a command or a connection attempt failed."""
    return describe(error.code) if isinstance(error, NvmeError) else str(error)
