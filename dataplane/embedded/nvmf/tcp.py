"""One NVMe/TCP connection, which is one queue: PDUs in, commands run side by side, PDUs out.

Why: everything a host sends passes here first, so what ``limits`` says is held here: PDU size, commands and bytes
in flight, and how long a host may take.  This module must never decide what a command means.

Invariants: a malformed PDU ends this connection and nothing else; every command is answered once, aborted or
not; a command that only waits (at a gate, for the budget, for its turn at a bdev) is dropped when its connection
goes; ``closed`` is done when no command of the queue can reach a bdev any more.
Sources: NVMe/TCP Transport 1.0c section 3; SPDK v26.05 lib/nvmf/tcp.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, cast

from dataplane.embedded.bdev import waits
from dataplane.embedded.nvmf import admin, answers, at_once, io, limits
from dataplane.embedded.nvmf.capsule import check_capsule, check_data, check_transport_sgl
from dataplane.embedded.nvmf.fused import FusedCommands, Half
from dataplane.embedded.nvmf.limits import CONTROL_DATA_MAX, Deadlines, Wait
from dataplane.embedded.nvmf.options import Address
from dataplane.embedded.nvmf.outbox import Outbox
from dataplane.embedded.nvmf.transfer import Transfer
from dataplane.nvme import pdu as wire
from dataplane.nvme.auth import is_auth
from dataplane.nvme.commands import (
    FUSE_FIRST,
    FUSE_SECOND,
    SGL_IN_CAPSULE,
    AdminOp,
    Command,
    Completion,
    status_field,
)
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.pdu import CapsuleCmd, FatalError, H2CData, IcReq, IcResp, TermReq
from dataplane.nvme.pdu_reader import PduError, PduReader
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.auth import Authentication
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.target import NvmfTarget

log = logging.getLogger(__name__)

HPDA_MAX = 31
PDU_OVERHEAD = 1024
_NONE, _TO_CONTROLLER, _TO_HOST = 0, 1, 2
_OK = admin.Answer()


class TcpQueue(asyncio.BufferedProtocol):
    """A connection; from its Connect on also a queue of a controller."""

    def __init__(self, target: NvmfTarget) -> None:
        self.target = target
        self.options = target.transport()
        self.reader = PduReader(
            wire.CONTROLLER_RECEIVES,
            max(self.options.max_io_size, CONTROL_DATA_MAX) + PDU_OVERHEAD,
            greeting=wire.PduType.IC_REQ,
        )
        self.controller: Controller | None = None
        self.auth: Authentication | None = None
        self.qid = 0
        self.gone = False
        self.local = self.peer = Address.of_socket(None)
        self.closed: asyncio.Future[None] = target.loop.create_future()
        self._loop = target.loop
        self._transport: asyncio.Transport | None = None
        self._discarded: bytearray | None = None  # where what comes after the end of the protocol goes
        self._digests = wire.NO_DIGESTS
        self._alignment = 4
        self._limit = self.options.max_aq_depth
        self._sq_size = 0
        self._sq_head = 0
        self._commands: dict[int, Command] = {}
        self._transfers: dict[int, Transfer] = {}
        self._events: dict[int, Callable[[AsyncEvent], None]] = {}
        self._fused = FusedCommands()
        self._tasks: dict[int, asyncio.Task[bool]] = {}  # by command identifier; both of a pair name theirs
        self._parked: set[asyncio.Task[object]] = set()
        self._outbox: Outbox | None = None
        self._answered = 0  # commands that came with the present bytes and have their answer already
        self._paused = False
        self._owed = 0  # bytes of the budget that are given back once the peer has read
        self._deadlines = Deadlines(self._loop, self.disconnect)

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: somebody connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.WRITE_BUFFER_BYTES)
        self._outbox = Outbox(self._transport, self._loop)
        self.local = Address.of_socket(transport.get_extra_info("sockname"))
        self.peer = Address.of_socket(transport.get_extra_info("peername"))
        self._deadlines.start(Wait.CONNECT, limits.CONNECT_TIMEOUT_S)
        refusal = self.target.admit(self)
        if refusal:
            self.disconnect(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone, for whatever reason."""
        self.gone = True
        self.reader.close()
        self._deadlines.clear()
        if self.auth is not None:
            self.auth.close()
        self._let_go()
        for task in list(self._tasks.values()):
            waits.give_up(task)
        controller = self.controller
        if controller is not None:
            if controller.queues.get(self.qid) is self:
                del controller.queues[self.qid]
            if controller.admin is self:
                controller.destroy()
        self.target.forget(self)
        self._check_closed()
        log.debug("connection of %s ended: %s", self.peer.traddr, exc)

    def _let_go(self, last: Raw = b"") -> None:
        """Nothing more is answered but ``last``: give back what only waits for the host."""
        for transfer in self._transfers.values():
            transfer.settle(complete=False)
            self.target.budget.give(transfer.command.length)
        self.target.budget.give(self._fused.drop())
        self.target.budget.give(self._owed)
        self._owed = 0
        self._transfers.clear()
        self._events.clear()
        if self._outbox is not None:
            self._outbox.end(last)
        for task in list(self._parked):
            task.cancel()

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
        self._deadlines.stop(Wait.CONNECT)
        self.target.connected(self)
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
        return self.reader.get_buffer() if self._discarded is None else memoryview(self._discarded)

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: that much was received."""
        if self._discarded is not None:
            return
        self._answered = 0
        assert self._outbox is not None
        with self._outbox:
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

    def eof_received(self) -> bool:
        """asyncio: the host is done; nothing more can be asked of it."""
        return False

    def _terminate(self, problem: PduError) -> None:
        log.warning("%s:%s broke the protocol: %s", self.peer.traddr, self.peer.trsvcid, problem)
        if self._transport is None or self._outbox is None or self._transport.is_closing():
            return
        if not problem.header:
            problem = self.reader.refuse(problem.fes, problem.fei, str(problem))
        # Closing with bytes unread would reset the connection, and the host might never see why.
        self._discarded = bytearray(4096)
        self._let_go(problem.term(from_host=False).pack())
        self._deadlines.start(Wait.GOODBYE, limits.GOODBYE_TIMEOUT_S)

    def _on_other(self, pdu: wire.Pdu) -> None:
        if isinstance(pdu, TermReq):
            if pdu.fes > max(FatalError):
                raise self.reader.refuse(FatalError.INVALID_HEADER, 8, f"FES {pdu.fes}")
            log.warning("%s:%s terminated: FES %d FEI %d", self.peer.traddr, self.peer.trsvcid, pdu.fes, pdu.fei)
            self.disconnect("the host asked for it")
            return
        assert isinstance(pdu, IcReq)
        if pdu.pfv or pdu.hpda > HPDA_MAX:
            raise self.reader.refuse(FatalError.INVALID_HEADER, 8 if pdu.pfv else 10, "ICReq not supported")
        self._digests = pdu.digests
        self._alignment = (pdu.hpda + 1) * 4
        assert self._outbox is not None
        self._outbox.send(IcResp(cpda=0, digests=pdu.digests, maxh2cdata=self.options.max_io_size).pack())
        self._outbox.flush()
        self.reader.digests = pdu.digests

    # Commands in

    def _on_command(self, pdu: CapsuleCmd) -> None:
        command = pdu.command
        if len(self._commands) + self._answered >= self._limit:
            self.disconnect("more commands than the queue holds")
            return
        if command.cid in self._commands and not self._drop_event(command.cid):
            self._respond(command, status_field(Status.COMMAND_ID_CONFLICT), _OK)
            return
        self._commands[command.cid] = command
        if (command.flags & 3 or self._fused.first is not None) and self.qid:
            self._miss_partner(self._fused.arrived(command))
        direction = (command.nsid if command.opcode == AdminOp.FABRICS else command.opcode) & 3
        if not command.length:
            direction = _NONE
        if direction == _NONE:
            self._start(command, b"")
        elif direction == _TO_HOST:
            check_transport_sgl(pdu, self.options.max_io_size)
            self._start(command, b"")
        elif direction != _TO_CONTROLLER:
            self._finish(command, status_field(Status.INVALID_OPCODE), _OK)
        elif command.sgl_type == SGL_IN_CAPSULE:
            control = command.opcode == AdminOp.FABRICS or not self.qid
            limit = self.options.in_capsule_data_size
            check_capsule(pdu, max(limit, CONTROL_DATA_MAX) if control else limit)
            if pdu.digest_error:
                self._finish(command, status_field(Status.TRANSIENT_TRANSPORT_ERROR), _OK)
            else:
                self._start(command, pdu.data)
        else:
            check_transport_sgl(pdu, self.options.max_io_size)
            self._ask_for_data(command)

    def _ask_for_data(self, command: Command) -> None:
        if self.controller is None and command.length > CONTROL_DATA_MAX:
            # Whom nobody knows yet gets no share of the budget.
            self._finish(command, status_field(Status.COMMAND_SEQUENCE_ERROR), _OK)
        elif self.target.budget.try_take(command.length):
            self._send_r2t(command)
        else:
            self._run_task(command, self._ask_later(command))

    async def _ask_later(self, command: Command) -> None:
        await self.parked(self.target.budget.take(command.length))
        self._send_r2t(command)

    def _send_r2t(self, command: Command) -> None:
        self._transfers[command.cid] = Transfer(command, self._loop.time())
        self._deadlines.watch_oldest(self._oldest_transfer)
        assert self._outbox is not None
        self._outbox.send(wire.r2t(wire.R2T(command.cid, command.cid, 0, command.length), self._digests))
        self._outbox.plan()

    def _oldest_transfer(self) -> float | None:
        return next((transfer.began for transfer in self._transfers.values()), None)

    def _on_data(self, pdu: H2CData) -> None:
        transfer = check_data(pdu, self._transfers.get(pdu.ttag), self.options.max_queue_depth)
        command = transfer.command
        data = transfer.take(pdu)
        if data is None:
            return
        del self._transfers[pdu.ttag]
        damaged = transfer.damaged
        if transfer.settle(complete=not damaged) or damaged:
            self._give_back(command.length)
            code = Status.TRANSIENT_TRANSPORT_ERROR if damaged else Status.ABORTED_BY_REQUEST
            self._finish(command, status_field(code), _OK)
        else:
            self._start(command, data, taken=command.length)

    # Running

    def _start(self, command: Command, data: Raw, taken: int = 0) -> None:
        """Run a command whose data is here; ``taken`` bytes of the budget go back when it is done."""
        controller = self.controller
        if self.must_authenticate(command):
            self._give_back(taken)
            self._finish(command, status_field(Status.AUTHENTICATION_REQUIRED), _OK)
        elif controller is not None and self.qid and command.opcode != AdminOp.FABRICS:
            if command.fuse in (FUSE_FIRST, FUSE_SECOND):
                self._start_half(controller, self._fused.ready(command, data, taken))
                return
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

    def must_authenticate(self, command: Command) -> bool:
        """Whether the host has still to prove itself before this command."""
        return self.auth is not None and self.auth.required and not is_auth(command)

    def _start_half(self, controller: Controller, due: tuple[Half, ...]) -> None:
        if len(due) == 1:
            self._miss_partner(due[0])
        elif due:
            first, second = due
            self._run_task(second.command, self._pair(controller, first, second))
            self._tasks[first.command.cid] = self._tasks[second.command.cid]

    def _miss_partner(self, half: Half | None) -> None:
        if half is not None:
            self._give_back(half.taken)
            self._finish(half.command, status_field(Status.ABORTED_MISSING_FUSED), _OK)

    async def _pair(self, controller: Controller, first: Half, second: Half) -> None:
        one: NvmeError | None = NvmeError(Status.INTERNAL_ERROR)
        try:
            one, two = await io.execute_pair(self, controller, first, second)
        except asyncio.CancelledError:
            one = NvmeError(Status.ABORTED_BY_REQUEST)
            raise
        finally:
            self._tasks.pop(first.command.cid, None)
            self._give_back(first.taken + second.taken)
            self._finish(first.command, status_field(one.code, dnr=one.dnr) if one else 0, _OK)
        if two is not None:
            raise two
        self._finish(second.command, 0, _OK)

    def _run_task(self, command: Command, work: Coroutine[object, object, None]) -> None:
        self._tasks[command.cid] = self._loop.create_task(self._guard(command, work))

    async def _guard(self, command: Command, work: Coroutine[object, object, None]) -> bool:
        """The boundary of one command: whatever goes wrong in it ends here, as a status or with the queue.

        True when it was aborted.
        """
        try:
            await work
        except asyncio.CancelledError:
            self._finish(command, status_field(Status.ABORTED_BY_REQUEST), _OK)
            return True
        except NvmeError as problem:
            cdw0 = problem.cdw0 if isinstance(problem, admin.ConnectRefused) else 0
            self._finish(command, status_field(problem.code, dnr=problem.dnr), admin.Answer(cdw0))
            return problem.code == Status.ABORTED_BY_REQUEST
        except Exception:  # the boundary of the command loop: one command's defect must not end the engine
            log.exception("command %02Xh failed", command.opcode)
            self._finish(command, status_field(Status.INTERNAL_ERROR), _OK)
        finally:
            self._tasks.pop(command.cid, None)
            self._check_closed()
        return False

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
        taken = taken or await self._reserve(command)
        try:
            answer = await io.execute(self, controller, command, data)
            self._finish(command, 0, admin.Answer(0, 0, answer))
        finally:
            self._give_back(taken)

    async def _reserve(self, command: Command) -> int:
        """The bytes of the budget that the answer needs, taken."""
        if command.opcode & 3 != _TO_HOST or not command.length or self.controller is None:
            return 0
        if not self.target.budget.try_take(command.length):
            await self.parked(self.target.budget.take(command.length))
        return command.length

    async def _admin(self, command: Command, data: Raw, taken: int) -> None:
        taken = taken or await self._reserve(command)
        try:
            answer = await admin.answer(self.target, self, command, data)
            self._finish(command, 0, answer)
        finally:
            self._give_back(taken)

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

    async def abort(self, cid: int) -> bool:
        """Abort command ``cid`` if it only waits; what a bdev has begun is not taken back."""
        if self._drop_event(cid):
            self._finish(Command(AdminOp.ASYNC_EVENT, cid=cid), status_field(Status.ABORTED_BY_REQUEST), _OK)
            return True
        transfer = self._transfers.get(cid)
        if transfer is not None:
            return await transfer.abort(self.options.abort_timeout_sec)
        task = self._tasks.get(cid)
        if task is None:
            return False
        waiting = waits.abort(task) or (task in self._parked and task.cancel())
        if not waiting and not await io.abort(self.controller, self._commands.get(cid), task):
            return False
        return await asyncio.shield(task)

    # Answers out

    def _finish(self, command: Command, status: int, answer: admin.Answer) -> None:
        self._commands.pop(command.cid, None)
        self.target.completed_io += self.qid > 0
        if command.flags & 3:
            self._miss_partner(self._fused.ended(command.cid))
        if status and self.controller is not None:
            status = self.controller.with_retry_delay(status)
        if not self.gone:
            self._respond(command, status, answer)

    def _respond(self, command: Command, status: int, answer: admin.Answer) -> None:
        outbox = self._outbox
        assert outbox is not None
        if self._sq_size:
            self._sq_head = (self._sq_head + 1) % self._sq_size
        completion = Completion(answer.cdw0, answer.cdw1, self._sq_head, 0, command.cid, status)
        success = self.options.c2h_success
        outbox.send(*answers.pdus(command, completion, answer, self._digests, self._alignment, success=success))
        self._answered += outbox.held
        if self._commands or outbox.held:
            outbox.plan()
        else:
            outbox.flush()

    def _give_back(self, size: int) -> None:
        if self._paused and not self.gone:
            self._owed += size
        elif size:
            self.target.budget.give(size)

    def pause_writing(self) -> None:
        """asyncio: the peer does not read what it asked for, so it is not read from either."""
        self._paused = True
        self._deadlines.start(Wait.READ, limits.READ_TIMEOUT_S)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """asyncio: it reads again."""
        self._paused = False
        self._deadlines.stop(Wait.READ)
        self.target.budget.give(self._owed)
        self._owed = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
