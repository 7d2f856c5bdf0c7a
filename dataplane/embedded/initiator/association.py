"""One association of a host with a controller: from Connect to the last queue, and never a second time.

Why: reconnecting means making a new association, not mending the old one, so what belongs to exactly one life of
the connection stands apart from what outlives it (``controller``).  This module must never reconnect and never
decide what a namespace or an ANA state means.

Invariants: an association that was lost stays lost; the loss of any queue is the loss of all of them (as in
SPDK, where a lost queue pair resets its controller); an event that comes before ``on_event`` is set stands in
``unheard``, so none is missed while the owner still reads what the controller shows.
Sources: NVMe base 2.0c sections 3.5 (initialization), 3.6 (shutdown), 3.9 (keep alive), 5.2 (events), 6
(fabrics); SPDK v26.05 lib/nvme/nvme_ctrlr.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from dataplane.embedded.initiator.authentication import (
    NO_CREDENTIALS,
    Credentials,
    NotAuthenticated,
    Parties,
    authenticate,
)
from dataplane.embedded.initiator.connection import Connection, Endpoint, Reply, TransportLost, open_connection
from dataplane.embedded.initiator.injection import Injections
from dataplane.nvme import commands, fabrics, identify, logs
from dataplane.nvme.commands import Cns, Command, Feature, LogId
from dataplane.nvme.fabrics import Capabilities, Configuration, ConnectData, Property
from dataplane.nvme.identify import IdentifyController
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.status import NvmeError, Status

log = logging.getLogger(__name__)

ADMIN_ENTRIES: Final = 32
ADMIN_MAX_DATA: Final = 1 << 17
TRANSFER_MAX: Final = 1 << 20  # bytes in one command when the controller sets no limit (MDTS 0)
EVENTS: Final = identify.OAES_NAMESPACE_ATTRIBUTE | identify.OAES_ANA_CHANGE | identify.OAES_DISCOVERY_CHANGE
READY_POLL_S: Final = 0.01
SHUTDOWN_S: Final = 1.0
DISCOVERY_MAX: Final = 4096  # entries; a controller that names more is not believed
DISCOVERY_TRIES: Final = 16


class TimeoutAction(Enum):
    """What happens when an I/O gets no answer in time (``bdev_nvme_set_options``)."""

    NONE = "none"
    RESET = "reset"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class AssociationOptions:
    """Who connects to what.  ``hostid`` are 16 bytes; times are seconds, an I/O timeout of None never expires.

    ``connect_timeout_s`` is for the TCP connection, ``fabrics_timeout_s`` for Connect where it is to differ.
    ``credentials`` prove to the controller who the host is, when it asks.
    ``io_queues`` 0 makes an association without I/O, as discovery needs.
    """

    subnqn: str
    hostnqn: str
    hostid: bytes = field(repr=False)
    endpoint: Endpoint
    io_queues: int = 1
    io_entries: int = 128
    keep_alive_ms: int = 10_000
    connect_timeout_s: float = 5.0
    fabrics_timeout_s: float | None = None
    admin_timeout_s: float | None = 30.0
    io_timeout_s: float | None = None
    timeout_action: TimeoutAction = TimeoutAction.RESET
    credentials: Credentials = NO_CREDENTIALS

    def at(self, address: str, port: int) -> AssociationOptions:
        """The same towards another address."""
        return replace(self, endpoint=replace(self.endpoint, address=address, port=port))


class Association:
    """Admin queue, I/O queues, keep-alive and events of one association.  Made by ``open_association``."""

    def __init__(self, options: AssociationOptions, injected: Injections | None = None) -> None:
        self.options = options
        self.lost: str | None = None
        self.on_lost: Callable[[Association, str], None] | None = None
        self.on_event: Callable[[Association, AsyncEvent], None] | None = None
        self.unheard: list[AsyncEvent] = []
        self.cntlid = 0
        self.version = 0
        self.capabilities = Capabilities()
        self.identity = IdentifyController()
        self.max_transfer = ADMIN_MAX_DATA
        self.admin_transfer = ADMIN_MAX_DATA
        self.queues: list[Connection] = []
        self._admin: Connection | None = None
        self._injected = injected or Injections()
        self._tasks: set[asyncio.Task[None]] = set()
        self._parties = Parties(options.hostnqn, options.subnqn)

    # -- commands

    async def admin(self, command: Command, data: Raw = b"", *, read_size: int = 0, patient: bool = False) -> Reply:
        """An admin command, whatever its status; raises ``TransportLost``.  ``patient``: without a deadline."""
        if self._admin is None:
            raise TransportLost(self.lost or "not connected")
        timeout = None if patient else self.options.admin_timeout_s
        return await self._admin.execute(command, data, read_size=read_size, timeout_s=timeout)

    async def io(self, command: Command, data: Raw = b"", *, read_size: int = 0) -> Reply:
        """An I/O command on the least busy queue, whatever its status; raises ``TransportLost``."""
        if not self.queues:
            raise TransportLost(self.lost or "no I/O queue")
        queue, timeout = self._queue()
        return await queue.execute(command, data, read_size=read_size, timeout_s=timeout)

    async def io_pair(self, first: tuple[Command, Raw], second: tuple[Command, Raw]) -> tuple[Reply, Reply]:
        """The halves of a fused command on one queue, whatever their status; raises ``TransportLost``."""
        if not self.queues:
            raise TransportLost(self.lost or "no I/O queue")
        queue, timeout = self._queue()
        return await queue.execute_pair(first, second, timeout_s=timeout)

    def _queue(self) -> tuple[Connection, float | None]:
        """The least busy one, and how long an I/O on it may take."""
        queue = self.queues[0] if len(self.queues) == 1 else min(self.queues, key=lambda each: each.in_flight)
        return queue, None if self.options.timeout_action is TimeoutAction.NONE else self.options.io_timeout_s

    async def log(self, log: LogId, size: int, *, nsid: int = 0) -> bytes:
        """``size`` bytes (rounded up to a multiple of 4) of a log page; raises ``NvmeError``, ``TransportLost``."""
        size = (size + 3) & ~3
        parts: list[bytes] = []
        for offset in range(0, size, self.admin_transfer):
            part = min(size - offset, self.admin_transfer)
            reply = await self.admin(commands.get_log_page(log, part, nsid=nsid, offset=offset), read_size=part)
            parts.append(bytes(reply.check(part)))
        return b"".join(parts)

    async def identify(self, cns: Cns, *, nsid: int = 0, csi: int = 0) -> Raw:
        """An Identify structure; raises ``NvmeError``, ``TransportLost``."""
        size = identify.IDENTIFY_SIZE
        reply = await self.admin(commands.identify(cns, nsid=nsid, csi=csi), read_size=size)
        return reply.check(size)

    # -- making it

    async def _open(self) -> None:
        options = self.options
        self._admin = await open_connection(options.endpoint, ADMIN_ENTRIES, ADMIN_MAX_DATA, options.connect_timeout_s)
        self._admin.on_lost = self._queue_lost
        self._admin.injected = self._injected
        self.cntlid = await self._connect(self._admin, 0, ADMIN_ENTRIES, fabrics.CNTLID_DYNAMIC)
        await self._enable()
        self.identity = IdentifyController.parse(await self.identify(Cns.CONTROLLER))
        mdts = (4096 << self.capabilities.page_min) << self.identity.mdts if self.identity.mdts else TRANSFER_MAX
        self.admin_transfer = min(mdts, ADMIN_MAX_DATA)
        if options.io_queues:
            await self._open_queues(min(mdts, TRANSFER_MAX))
        wanted = EVENTS & self.identity.oaes
        if wanted:
            (await self.admin(commands.set_features(Feature.ASYNC_EVENT, wanted))).check()
            self._spawn(self._listen())
        if options.keep_alive_ms:
            self._spawn(self._keep_alive())
        if self.lost is not None:
            raise TransportLost(self.lost)

    async def _connect(self, queue: Connection, qid: int, entries: int, cntlid: int) -> int:
        """Fabrics Connect; the controller's identifier."""
        kato = self.options.keep_alive_ms if qid == 0 else 0
        data = ConnectData(self.options.hostid, cntlid, self.options.subnqn, self.options.hostnqn)
        reply = await queue.execute(
            fabrics.connect(qid, entries, kato),
            data.pack(),
            timeout_s=self.options.fabrics_timeout_s or self.options.connect_timeout_s,
        )
        reply.check()
        wanted, credentials = reply.completion.cdw0, self.options.credentials
        if wanted & fabrics.CONNECT_ASCR:
            raise NotAuthenticated("the controller wants a secure channel")
        if wanted & fabrics.CONNECT_ATR and credentials.host is None:
            raise NvmeError(Status.AUTHENTICATION_REQUIRED)
        if wanted & fabrics.CONNECT_ATR or credentials.controller is not None:
            await authenticate(queue, self._parties, credentials, self.options.admin_timeout_s)
        return wanted & 0xFFFF

    async def authenticate(self, credentials: Credentials) -> None:
        """Prove it again on every queue, with other secrets; raises ``NotAuthenticated`` and as ``admin``.

        The association is dropped where this fails: whoever did not prove itself gets no more data.
        """
        self.options = replace(self.options, credentials=credentials)
        try:
            for queue in self._all():
                await authenticate(queue, self._parties, credentials, self.options.admin_timeout_s)
        except (NotAuthenticated, NvmeError) as error:
            self.drop(str(error))
            raise

    async def _enable(self) -> None:
        """CC.EN, then wait for CSTS.RDY as long as the controller asks for (CAP.TO)."""
        self.capabilities = Capabilities.parse(await self._property(Property.CAP, wide=True))
        self.version = await self._property(Property.VS)
        enable = Configuration(enable=True, sqes=6, cqes=4)
        (await self.admin(fabrics.property_set(Property.CC, enable.pack()))).check()
        patience = max(1, self.capabilities.timeout) * 0.5
        try:
            async with asyncio.timeout(patience):
                while not (status := await self._property(Property.CSTS)) & fabrics.CSTS_READY:
                    if status & fabrics.CSTS_FATAL:
                        raise TransportLost(f"{self.options.endpoint}: the controller reports a fatal status")
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            raise TransportLost(f"{self.options.endpoint}: not ready within {patience:g} s") from None

    async def _property(self, prop: Property, *, wide: bool = False) -> int:
        reply = await self.admin(fabrics.property_get(prop, wide=wide))
        reply.check()
        value = fabrics.property_value(reply.completion.cdw0, reply.completion.cdw1)
        return value if wide else value & 0xFFFFFFFF

    async def _open_queues(self, max_transfer: int) -> None:
        options = self.options
        wanted = options.io_queues - 1
        reply = await self.admin(commands.set_features(Feature.NUMBER_OF_QUEUES, wanted | wanted << 16))
        reply.check()
        granted = min(reply.completion.cdw0 & 0xFFFF, reply.completion.cdw0 >> 16) + 1
        entries = max(2, min(options.io_entries, self.capabilities.mqes + 1))
        for qid in range(1, min(options.io_queues, granted) + 1):
            queue = await open_connection(options.endpoint, entries, max_transfer, options.connect_timeout_s)
            queue.in_capsule = ADMIN_MAX_DATA
            self.queues.append(queue)
            queue.on_lost = self._queue_lost
            # Connect carries its 1024 bytes in the capsule whatever the queue's limit turns out to be.
            await self._connect(queue, qid, entries, self.cntlid)
            queue.in_capsule = max(0, self.identity.ioccsz * 16 - commands.SQE_SIZE)
            if options.timeout_action is TimeoutAction.ABORT:
                queue.on_expired = self._abort
        self.max_transfer = max_transfer

    # -- while it lives

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_alive(self) -> None:
        """Twice per keep-alive time (base 2.0c section 3.9); an answer that does not come ends the association."""
        period = self.options.keep_alive_ms / 1000
        while self._admin is not None and self.lost is None:
            await asyncio.sleep(period / 2)
            try:
                reply = await self._admin.execute(commands.keep_alive(), timeout_s=period)
                reply.check()
            except NvmeError as error:
                self.drop(f"keep alive: {error}")
            except TransportLost:
                return

    async def _listen(self) -> None:
        """Keep one Asynchronous Event Request outstanding; the controller queues what happens meanwhile."""
        while self._admin is not None and self.lost is None:
            try:
                reply = await self._admin.execute(commands.async_event_request())
                reply.check()
            except TransportLost:
                return
            except NvmeError as error:
                log.warning("%s tells of no events any more: %s", self.options.subnqn, error)
                return
            event = AsyncEvent.parse(reply.completion.cdw0)
            if self.on_event is not None:
                self.on_event(self, event)
            else:
                self.unheard.append(event)

    def _abort(self, queue: Connection, cid: int) -> None:
        """An I/O expired and the action is to abort it; where that fails, the association goes."""
        self._spawn(self._abort_or_drop(self.queues.index(queue) + 1, cid))

    async def _abort_or_drop(self, qid: int, cid: int) -> None:
        try:
            if await self._aborted(qid, cid):
                return
        except TransportLost:
            return
        self.drop(f"command {cid} of queue {qid} got no answer and could not be aborted")

    async def _aborted(self, qid: int, cid: int) -> bool:
        reply = await self.admin(commands.abort(qid, cid))
        return not reply.completion.code and not reply.completion.cdw0 & 1

    async def abort_of(self, task: asyncio.Task[object]) -> bool:
        """Ask the controller to abort what that task has in flight; whether it says that it did all of it."""
        mine = [(qid, cid) for qid, queue in enumerate(self.queues, 1) for cid in queue.commands_of(task)]
        try:
            return bool(mine) and all([await self._aborted(qid, cid) for qid, cid in mine])
        except TransportLost:
            return False

    def _queue_lost(self, queue: Connection, reason: str) -> None:  # noqa: ARG002 - any queue means all
        self.drop(reason)

    # -- the end

    def drop(self, reason: str) -> None:
        """End it at once; commands in flight end with ``TransportLost``."""
        if self.lost is not None:
            return
        self.lost = reason
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        for queue in self._all():
            queue.drop(reason)
        if self.on_lost is not None:
            self.on_lost(self, reason)

    def _all(self) -> list[Connection]:
        return [*([self._admin] if self._admin is not None else []), *self.queues]

    async def _shut_down(self) -> None:
        """CC.SHN, then wait until CSTS.SHST says complete (base 2.0c section 3.6.1)."""
        shutdown = Configuration(enable=True, shn=1, sqes=6, cqes=4)
        (await self.admin(fabrics.property_set(Property.CC, shutdown.pack()))).check()
        while await self._property(Property.CSTS) & fabrics.CSTS_SHUTDOWN_MASK != fabrics.CSTS_SHUTDOWN_COMPLETE:
            await asyncio.sleep(READY_POLL_S)

    async def close(self, *, notify: bool = True, reset: bool = False) -> None:
        """End it; with ``notify`` the controller is told first (CC.SHN), as long as it is still there.

        ``reset``: I/O in flight is not to be repeated.
        """
        self.on_lost = self.on_event = None
        try:
            if notify and self.lost is None and self._admin is not None:
                await self._take_leave(reset=reset)
        finally:
            self.drop("closed by this side")  # a caller that is cancelled leaves no connection behind either
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in self._all():
            await queue.close()

    async def _take_leave(self, *, reset: bool) -> None:
        # I/O queues first: with them SPDK's target polls 100 ms for their end before it completes.
        for queue in self.queues:
            queue.on_lost = None
            await queue.close(reset=reset)
        try:
            async with asyncio.timeout(SHUTDOWN_S):
                await self._shut_down()
        except (TimeoutError, TransportLost, NvmeError):
            pass  # it is told as a courtesy; the connection ends either way


async def open_association(options: AssociationOptions, injected: Injections | None = None) -> Association:
    """A complete association; raises ``TransportLost`` or ``NvmeError`` and leaves nothing behind.

    ``injected`` are the errors of its admin queue, which outlive it.
    """
    association = Association(options, injected)
    try:
        await association._open()
    except BaseException:
        await association.close(notify=False)
        raise
    return association


async def read_discovery(association: Association) -> logs.DiscoveryLog:
    """The whole discovery log; read again while it changes.  Raises ``NvmeError``, ``TransportLost``."""
    for _ in range(DISCOVERY_TRIES):
        head = await association.log(LogId.DISCOVERY, 1024)
        count = int.from_bytes(head[8:16], "little")
        if count > DISCOVERY_MAX:
            break
        whole = logs.DiscoveryLog.parse(await association.log(LogId.DISCOVERY, 1024 * (count + 1)))
        if whole.generation == int.from_bytes(head[:8], "little") and len(whole.entries) == count:
            return whole
    raise NvmeError(Status.DATA_TRANSFER_ERROR)
