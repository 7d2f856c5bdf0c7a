"""One NVMe/TCP connection, which is one queue: PDUs in, commands run side by side, PDUs out.

Why: everything a host sends passes here first, so limits are here: PDU size, commands and bytes in flight, and
the time until Connect.  This module must never decide what a command means.

Invariants: a malformed PDU ends this connection and nothing else; a command that waits at a gate is dropped when
its connection goes; ``closed`` is done when no command of the queue can reach a bdev any more.
Sources: NVMe/TCP Transport 1.0c section 3; SPDK v26.05 lib/nvmf/tcp.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, cast

from dataplane.embedded.nvmf import admin, at_once, io
from dataplane.embedded.nvmf.options import Address
from dataplane.embedded.nvmf.outbox import Outbox
from dataplane.nvme import pdu as wire
from dataplane.nvme.commands import (
    SGL_IN_CAPSULE,
    SGL_TRANSPORT,
    AdminOp,
    Command,
    Completion,
    FabricsType,
    status_field,
)
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.pdu import CapsuleCmd, FatalError, H2CData, IcReq, IcResp, TermReq
from dataplane.nvme.pdu_reader import PduError, PduReader
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.target import NvmfTarget

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 30.0
CONTROL_DATA_MAX = 8192  # in-capsule data of fabrics and admin commands, transport specification 3.3.2.1
HPDA_MAX = 31
PDU_OVERHEAD = 1024
WRITE_BUFFER_BYTES = 1 << 20
_PLEN_OFFSET = 4
_SGL_OFFSET = 8 + 24
_SGL_TYPE_OFFSET = _SGL_OFFSET + 15
_NONE, _TO_CONTROLLER, _TO_HOST = 0, 1, 2
_OK = admin.Answer()


class _Transfer:
    """A command whose data is on its way from the host."""

    __slots__ = ("buffer", "command", "offset")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.buffer: bytearray | None = None  # only when the data comes in more than one PDU
        self.offset = 0


class TcpQueue(asyncio.BufferedProtocol):
    """A connection; from its Connect on also a queue of a controller."""

    def __init__(self, target: NvmfTarget) -> None:
        self.target = target
        self.options = target.transport()
        self.reader = PduReader(
            wire.CONTROLLER_RECEIVES, max(self.options.max_io_size, CONTROL_DATA_MAX) + PDU_OVERHEAD
        )
        self.controller: Controller | None = None
        self.qid = 0
        self.gone = False
        self.local = self.peer = Address("TCP", "IPv4", "", "")
        self.closed: asyncio.Future[None] = target.loop.create_future()
        self._loop = target.loop
        self._transport: asyncio.Transport | None = None
        self._initialized = False
        self._digests = wire.NO_DIGESTS
        self._alignment = 4
        self._limit = self.options.max_aq_depth
        self._sq_size = 0
        self._sq_head = 0
        self._commands: set[int] = set()
        self._transfers: dict[int, _Transfer] = {}
        self._events: dict[int, Callable[[AsyncEvent], None]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._parked: set[asyncio.Task[object]] = set()
        self._outbox: Outbox | None = None
        self._answered = 0  # commands that came with the present bytes and have their answer already
        self._paused = False
        self._owed = 0  # bytes of the budget that are given back once the peer has read
        self._connect_timer: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: somebody connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._outbox = Outbox(self._transport, self._loop)
        self.local = _address(transport.get_extra_info("sockname"))
        self.peer = _address(transport.get_extra_info("peername"))
        self._connect_timer = self._loop.call_later(CONNECT_TIMEOUT_S, self.disconnect, "no Connect command came")
        if not self.target.admit(self):
            self.disconnect("too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone, for whatever reason."""
        self.gone = True
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        for transfer in self._transfers.values():
            self.target.budget.give(transfer.command.length)
        self.target.budget.give(self._owed)
        self._owed = 0
        self._transfers.clear()
        self._events.clear()
        if self._outbox is not None:
            self._outbox.clear()
        for task in list(self._parked):
            task.cancel()
        controller = self.controller
        if controller is not None:
            if controller.queues.get(self.qid) is self:
                del controller.queues[self.qid]
            if controller.admin is self:
                controller.destroy()
        self.target.forget(self)
        self._check_closed()
        log.debug("connection of %s ended: %s", self.peer.traddr, exc)

    def disconnect(self, reason: str) -> None:
        """Drop the connection; what runs in a bdev ends there, see ``closed``."""
        if not self.gone and self._transport is not None:
            log.info("disconnecting %s:%s: %s", self.peer.traddr, self.peer.trsvcid, reason)
            self._transport.abort()

    def _check_closed(self) -> None:
        if self.gone and not self._tasks and not self.closed.done():
            self.closed.set_result(None)

    def attach(self, controller: Controller, qid: int, sqsize: int) -> None:
        """Connect succeeded."""
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        self.controller = controller
        self.qid = qid
        self._sq_size = sqsize + 1
        # Event requests and responses under way may add to what the queue itself holds.
        self._limit = self._sq_size + 8
        controller.queues[qid] = self
        if not qid:
            controller.admin = self
        self.target.count_queue(qid)

    # Bytes in

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the reader knows better
        """asyncio: where to receive."""
        return self.reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: that much was received."""
        assert self._outbox is not None
        self._outbox.hold()
        try:
            for pdu in self.reader.advance(nbytes):
                if type(pdu) is CapsuleCmd:
                    self._on_command(pdu)
                elif type(pdu) is H2CData:
                    self._on_data(pdu)
                else:
                    self._on_other(pdu)
                if self._transport is None or self._transport.is_closing():
                    return
        except PduError as problem:
            self._terminate(problem)
        finally:
            self._answered = 0
            self._outbox.release()

    def eof_received(self) -> bool:
        """asyncio: the host is done; nothing more can be asked of it."""
        return False

    def _terminate(self, problem: PduError) -> None:
        log.warning("%s:%s broke the protocol: %s", self.peer.traddr, self.peer.trsvcid, problem)
        if self._transport is None or self._outbox is None or self._transport.is_closing():
            return
        self._outbox.flush()
        self._transport.write(problem.term(from_host=False).pack())
        self._transport.close()
        # A peer that reads nothing must not keep the connection open by that.
        self._loop.call_later(1.0, self.disconnect, "it was terminated")

    def _fail(self, fes: FatalError, fei: int, item: CapsuleCmd | H2CData | None, what: str) -> PduError:
        header: Raw = b""
        if isinstance(item, CapsuleCmd):
            header = wire.COMMON.pack(wire.PduType.CAPSULE_CMD, 0, 72, 0, 72) + item.command.pack()
        elif item is not None:
            header = wire.h2c_data(item)[0]
        return PduError(fes, fei, header, what)

    def _on_other(self, pdu: wire.Pdu) -> None:
        if isinstance(pdu, TermReq):
            log.warning("%s:%s terminated: FES %d FEI %d", self.peer.traddr, self.peer.trsvcid, pdu.fes, pdu.fei)
            self.disconnect("the host asked for it")
            return
        assert isinstance(pdu, IcReq)
        if self._initialized:
            raise self._fail(FatalError.SEQUENCE, 0, None, "a second ICReq")
        if pdu.pfv or pdu.hpda > HPDA_MAX:
            raise self._fail(FatalError.INVALID_HEADER, 8 if pdu.pfv else 10, None, "ICReq not supported")
        self._initialized = True
        self._digests = pdu.digests
        self._alignment = (pdu.hpda + 1) * 4
        assert self._outbox is not None
        self._outbox.send(IcResp(cpda=0, digests=pdu.digests, maxh2cdata=self.options.max_io_size).pack())
        self._outbox.flush()
        self.reader.digests = pdu.digests

    # Commands in

    def _on_command(self, pdu: CapsuleCmd) -> None:
        if not self._initialized:
            raise self._fail(FatalError.SEQUENCE, 0, pdu, "a command before ICReq")
        command = pdu.command
        if len(self._commands) + self._answered >= self._limit:
            self.disconnect("more commands than the queue holds")
            return
        if command.cid in self._commands and not self._drop_event(command.cid):
            self._respond(command, status_field(Status.COMMAND_ID_CONFLICT), _OK)
            return
        self._commands.add(command.cid)
        direction = (command.nsid if command.opcode == AdminOp.FABRICS else command.opcode) & 3
        if not command.length:
            direction = _NONE
        if direction == _NONE:
            self._start(command, b"")
        elif direction == _TO_HOST:
            self._check_transport_sgl(pdu)
            self._start(command, b"")
        elif direction != _TO_CONTROLLER:
            self._finish(command, status_field(Status.INVALID_OPCODE), _OK)
        elif command.sgl_type == SGL_IN_CAPSULE:
            self._check_capsule(pdu)
            if pdu.digest_error:
                self._finish(command, status_field(Status.TRANSIENT_TRANSPORT_ERROR), _OK)
            else:
                self._start(command, pdu.data)
        else:
            self._check_transport_sgl(pdu)
            self._ask_for_data(command)

    def _check_transport_sgl(self, pdu: CapsuleCmd) -> None:
        if pdu.command.sgl_type != SGL_TRANSPORT:
            raise self._fail(FatalError.UNSUPPORTED, _SGL_TYPE_OFFSET, pdu, "SGL type not supported")
        if pdu.command.length > self.options.max_io_size:
            raise self._fail(FatalError.LIMIT_EXCEEDED, 0, pdu, f"{pdu.command.length} bytes in one command")

    def _check_capsule(self, pdu: CapsuleCmd) -> None:
        command, size = pdu.command, len(pdu.data)
        if size != command.length:
            raise self._fail(FatalError.INVALID_HEADER, _PLEN_OFFSET, pdu, "SGL length is not that of the data")
        if command.address:
            raise self._fail(FatalError.UNSUPPORTED, _SGL_OFFSET, pdu, "in-capsule data with an offset")
        control = command.opcode == AdminOp.FABRICS or not self.qid
        limit = self.options.in_capsule_data_size
        if size > (max(limit, CONTROL_DATA_MAX) if control else limit):
            raise self._fail(FatalError.LIMIT_EXCEEDED, 0, pdu, f"{size} bytes in the capsule")

    def _ask_for_data(self, command: Command) -> None:
        if self.target.budget.try_take(command.length):
            self._send_r2t(command)
        else:
            self._run_task(command, self._ask_later(command))

    async def _ask_later(self, command: Command) -> None:
        await self.parked(self.target.budget.take(command.length))
        self._send_r2t(command)

    def _send_r2t(self, command: Command) -> None:
        self._transfers[command.cid] = _Transfer(command)
        assert self._outbox is not None
        self._outbox.send(wire.r2t(wire.R2T(command.cid, command.cid, 0, command.length), self._digests))
        self._outbox.plan()

    def _on_data(self, pdu: H2CData) -> None:
        transfer = self._transfers.get(pdu.ttag)
        if transfer is None or pdu.cid != pdu.ttag:
            raise self._fail(FatalError.SEQUENCE, 10, pdu, "data that nobody asked for")
        command, size = transfer.command, len(pdu.data)
        end = pdu.offset + size
        if pdu.offset != transfer.offset or end > command.length:
            raise self._fail(FatalError.OUT_OF_RANGE, 0, pdu, "data outside of what was asked for")
        if pdu.digest_error:
            del self._transfers[pdu.ttag]
            self._give_back(command.length)
            self._finish(command, status_field(Status.TRANSIENT_TRANSPORT_ERROR), _OK)
            return
        transfer.offset = end
        data: Raw = pdu.data
        if end < command.length or transfer.buffer is not None:
            if transfer.buffer is None:
                transfer.buffer = bytearray(command.length)
            transfer.buffer[pdu.offset : end] = pdu.data
            data = transfer.buffer
        if end == command.length:
            del self._transfers[pdu.ttag]
            self._start(command, data, taken=command.length)

    # Running

    def _start(self, command: Command, data: Raw, taken: int = 0) -> None:
        """Run a command whose data is here; ``taken`` bytes of the budget go back when it is done."""
        controller = self.controller
        if controller is not None and self.qid and command.opcode != AdminOp.FABRICS:
            work = self._io(controller, command, data, taken)
            held = not self._paused and self._outbox is not None and self._outbox.held
            rest = at_once.begin(controller, command, work, taken, self.target.budget) if held else work
            if rest is not None:
                self._run_task(command, rest)
        elif command.opcode == AdminOp.ASYNC_EVENT and controller is not None:
            self._give_back(taken)
            self._wait_event(controller, command)
        else:
            self._run_task(command, self._admin(command, data, taken))

    def _run_task(self, command: Command, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(self._guard(command, work))
        self._tasks[id(task)] = task

    async def _guard(self, command: Command, work: Coroutine[object, object, None]) -> None:
        """The boundary of one command: whatever goes wrong in it ends here, as a status or with the queue."""
        try:
            await work
        except asyncio.CancelledError:
            self._finish(command, status_field(Status.ABORTED_BY_REQUEST), _OK)
        except NvmeError as problem:
            cdw0 = problem.cdw0 if isinstance(problem, admin.ConnectRefused) else 0
            self._finish(command, status_field(problem.code, dnr=problem.dnr), admin.Answer(cdw0))
        except Exception:  # the boundary of the command loop: one command's defect must not end the engine
            log.exception("command %02Xh failed", command.opcode)
            self._finish(command, status_field(Status.INTERNAL_ERROR), _OK)
        finally:
            task = asyncio.current_task()
            self._tasks.pop(id(task), None)
            self._check_closed()

    async def parked(self, waiting: Coroutine[object, object, object]) -> None:
        """Wait for something that has to do with no bdev; given up when the connection goes."""
        task = asyncio.current_task()
        assert task is not None
        if self.gone:
            waiting.close()
            raise NvmeError(Status.ABORTED_SQ_DELETION)
        self._parked.add(task)
        try:
            await waiting
        finally:
            self._parked.discard(task)
        if self.gone:
            raise NvmeError(Status.ABORTED_SQ_DELETION)

    async def _io(self, controller: Controller, command: Command, data: Raw, taken: int) -> None:
        if not taken and command.opcode & 3 == _TO_HOST and command.length:
            if not self.target.budget.try_take(command.length):
                await self.parked(self.target.budget.take(command.length))
            taken = command.length
        try:
            answer = await io.execute(self, controller, command, data)
            self.target.completed_io += 1
            self._finish(command, 0, admin.Answer(0, 0, answer))
        finally:
            self._give_back(taken)

    async def _admin(self, command: Command, data: Raw, taken: int) -> None:
        try:
            answer = await self._answer(command, data)
            self._finish(command, 0, answer)
        finally:
            self._give_back(taken)

    async def _answer(self, command: Command, data: Raw) -> admin.Answer:
        controller = self.controller
        if controller is None:
            if command.opcode != AdminOp.FABRICS or command.fctype != FabricsType.CONNECT:
                raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
            return await admin.connect(self.target, self, command, data)
        if controller.subsystem.admin_gate.closed:
            await self.parked(controller.subsystem.admin_gate.wait_open())
        if command.opcode == AdminOp.FABRICS:
            return admin.fabrics(controller, command, admin_queue=not self.qid)
        return admin.execute(self.target, self, controller, command, data)

    def _wait_event(self, controller: Controller, command: Command) -> None:
        def tell(event: AsyncEvent) -> None:
            self._events.pop(command.cid, None)
            self._finish(command, 0, admin.Answer(event.pack()))

        self._events[command.cid] = tell
        try:
            admin.check_admin(controller, command)
            controller.wait_event(tell)
        except NvmeError as problem:
            self._events.pop(command.cid, None)
            self._finish(command, status_field(problem.code, dnr=problem.dnr), _OK)

    def _drop_event(self, cid: int) -> bool:
        """Forget the event request ``cid``; hosts that shut down reuse the identifiers of theirs."""
        tell = self._events.pop(cid, None)
        if tell is None or self.controller is None:
            return False
        self.controller.forget_event(tell)
        return True

    def abort(self, cid: int) -> bool:
        """Abort command ``cid`` if it only waits for an event; what a bdev has begun is not taken back."""
        if not self._drop_event(cid):
            return False
        self._finish(Command(AdminOp.ASYNC_EVENT, cid=cid), status_field(Status.ABORTED_BY_REQUEST), _OK)
        return True

    # Answers out

    def _finish(self, command: Command, status: int, answer: admin.Answer) -> None:
        self._commands.discard(command.cid)
        if not self.gone:
            self._respond(command, status, answer)

    def _respond(self, command: Command, status: int, answer: admin.Answer) -> None:
        outbox = self._outbox
        assert outbox is not None
        if self._sq_size:
            self._sq_head = (self._sq_head + 1) % self._sq_size
        opcode = command.nsid if command.opcode == AdminOp.FABRICS else command.opcode
        done = False
        if not status and command.length and opcode & 3 == _TO_HOST:
            done = self.options.c2h_success and not answer.cdw0 and not answer.cdw1
            outbox.send(*self._data_pdu(command, answer.data, success=done))
        if not done:
            completion = Completion(answer.cdw0, answer.cdw1, self._sq_head, 0, command.cid, status)
            outbox.send(wire.capsule_resp(completion, self._digests))
        self._answered += outbox.held
        if self._commands or outbox.held:
            outbox.plan()
        else:
            outbox.flush()

    def _data_pdu(self, command: Command, data: Raw, *, success: bool) -> list[Raw]:
        size = len(data)
        if size > command.length:
            data = memoryview(data)[: command.length]
        elif size < command.length:
            data = bytes(data) + bytes(command.length - size)
        pdu = wire.C2HData(command.cid, 0, data, last=True, success=success)
        return wire.c2h_data(pdu, self._digests, self._alignment)

    def _give_back(self, size: int) -> None:
        if self._paused and not self.gone:
            self._owed += size
        elif size:
            self.target.budget.give(size)

    def pause_writing(self) -> None:
        """asyncio: the peer does not read what it asked for, so it is not read from either."""
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio: it reads again."""
        self._paused = False
        self.target.budget.give(self._owed)
        self._owed = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _address(name: tuple[str, int] | tuple[str, int, int, int] | None) -> Address:
    if not name:
        return Address("TCP", "IPv4", "", "")
    return Address("TCP", "IPv6" if ":" in name[0] else "IPv4", name[0], str(name[1]))
