"""Fabrics and admin commands: how an association begins, and what a host asks a controller.

Why: access control of hosts is in ``connect`` and nowhere else.  This module must never wait for the network,
except for the data of a command that is to be aborted.
Invariant: a queue belongs to a controller only after every check of Connect has passed.  Source: SPDK v26.05
lib/nvmf/ctrlr.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dataplane.embedded.nvmf.auth import Authentication
from dataplane.embedded.nvmf.controller import Controller
from dataplane.embedded.nvmf.features import get_features, set_features
from dataplane.embedded.nvmf.identify import identify
from dataplane.embedded.nvmf.log_pages import get_log_page
from dataplane.nvme.auth import is_auth
from dataplane.nvme.commands import AdminOp, Command, FabricsType
from dataplane.nvme.fabrics import CNTLID_DYNAMIC, CONNECT_ATR, CONNECT_DATA_FIELDS, ConnectCommand, ConnectData
from dataplane.nvme.layout import Raw
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.subsystem import Subsystem
    from dataplane.embedded.nvmf.target import NvmfTarget
    from dataplane.embedded.nvmf.tcp import TcpQueue

_CONTROLLER_SPECIFIC = (AdminOp.ABORT, AdminOp.ASYNC_EVENT, AdminOp.KEEP_ALIVE)
_OF_DISCOVERY = (
    AdminOp.IDENTIFY, AdminOp.GET_LOG_PAGE, AdminOp.KEEP_ALIVE, AdminOp.SET_FEATURES, AdminOp.GET_FEATURES,
)  # fmt: skip
_QID_OFFSET = 42
_SQSIZE_OFFSET = 44


class Answer(NamedTuple):
    """What completes a command: the result dwords and what is sent to the host before them."""

    cdw0: int = 0
    cdw1: int = 0
    data: Raw = b""


class ConnectRefused(NvmeError):
    """Connect was refused because of one field; ``cdw0`` says which (base 2.0 section 6.3)."""

    def __init__(self, offset: int, *, in_data: bool) -> None:
        super().__init__(Status.FABRICS_INVALID_PARAM)
        self.cdw0 = offset | int(in_data) << 16


async def answer(target: NvmfTarget, queue: TcpQueue, command: Command, data: Raw) -> Answer:
    """Run any command but I/O and Asynchronous Event Request; raises NvmeError."""
    controller = queue.controller
    if controller is None:
        if command.opcode != AdminOp.FABRICS or command.fctype != FabricsType.CONNECT:
            raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
        return await connect(target, queue, command, data)
    # What came in one piece with Connect started before anything was known of this queue.
    if queue.must_authenticate(command):
        raise NvmeError(Status.AUTHENTICATION_REQUIRED)
    if queue.qid and command.opcode != AdminOp.FABRICS:
        raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
    if controller.subsystem.admin_gate.closed:
        await queue.parked(controller.subsystem.admin_gate.wait_open())
    if is_auth(command):
        return await authenticate(queue, controller, command, data)
    if command.opcode == AdminOp.FABRICS:
        return fabrics(controller, command, admin_queue=not queue.qid)
    return await execute(target, queue, controller, command, data)


async def connect(target: NvmfTarget, queue: TcpQueue, command: Command, data: Raw) -> Answer:
    """Make ``queue`` the admin queue of a new controller or an I/O queue of one; raises NvmeError."""
    if len(data) < ConnectData.SIZE:
        raise NvmeError(Status.INVALID_FIELD)
    wanted, who = ConnectCommand.of(command), ConnectData.parse(data)
    subsystem = target.find(who.subnqn)
    if subsystem is None:
        raise ConnectRefused(CONNECT_DATA_FIELDS["subnqn"], in_data=True)
    if subsystem.admin_gate.closed:
        await queue.parked(subsystem.admin_gate.wait_open())
        if queue.controller is not None:
            raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
        if target.find(who.subnqn) is not subsystem:
            raise ConnectRefused(CONNECT_DATA_FIELDS["subnqn"], in_data=True)
    if not subsystem.host_allowed(who.hostnqn):
        raise NvmeError(Status.FABRICS_INVALID_HOST)
    listener = subsystem.find_listener(queue.local)
    if listener is None and not subsystem.discovery:
        raise NvmeError(Status.FABRICS_INVALID_HOST)
    if wanted.recfmt:
        raise NvmeError(Status.FABRICS_INCOMPATIBLE_FORMAT)
    depth = queue.options.max_queue_depth if wanted.qid else queue.options.max_aq_depth
    if not 0 < wanted.sqsize < depth:
        raise ConnectRefused(_SQSIZE_OFFSET, in_data=False)
    if wanted.qid:
        controller = _io_controller(queue, subsystem, wanted, who)
    else:
        controller = _new_controller(target, queue, subsystem, wanted, who)
    queue.attach(controller, wanted.qid, wanted.sqsize)
    if controller.hostnqn not in subsystem.host_keys:
        return Answer(controller.cntlid)
    queue.auth = Authentication(queue, controller, required=True)
    return Answer(controller.cntlid | CONNECT_ATR)


async def authenticate(queue: TcpQueue, controller: Controller, command: Command, data: Raw) -> Answer:
    """Authentication Send or Receive, which every queue takes at any time; raises NvmeError."""
    if queue.auth is None:
        queue.auth = Authentication(queue, controller, required=False)
    return Answer(data=await queue.auth.execute(command, data))


def _new_controller(
    target: NvmfTarget, queue: TcpQueue, subsystem: Subsystem, wanted: ConnectCommand, who: ConnectData
) -> Controller:
    if who.cntlid != CNTLID_DYNAMIC:
        raise ConnectRefused(CONNECT_DATA_FIELDS["cntlid"], in_data=True)
    listener = subsystem.find_listener(queue.local)
    if target.restrict_hosts and not subsystem.discovery:
        others = subsystem.controllers.values()
        if any(other.listener is listener and other.hostid == who.hostid for other in others):
            raise NvmeError(Status.INTERNAL_ERROR)
    controller = Controller(subsystem, queue.options, listener, who.hostnqn, who.hostid, wanted.kato_ms)
    cntlid = subsystem.new_cntlid()
    if cntlid is None:
        raise NvmeError(Status.INTERNAL_ERROR)
    controller.cntlid = cntlid
    subsystem.controllers[cntlid] = controller
    controller.start_keep_alive()
    return controller


def _io_controller(queue: TcpQueue, subsystem: Subsystem, wanted: ConnectCommand, who: ConnectData) -> Controller:
    controller = subsystem.controllers.get(who.cntlid)
    if controller is None:
        raise ConnectRefused(CONNECT_DATA_FIELDS["cntlid"], in_data=True)
    elsewhere = subsystem.ana_reporting and subsystem.find_listener(queue.local) is not controller.listener
    sizes_wrong = controller.cc.sqes != 6 or controller.cc.cqes != 4
    if elsewhere or controller.closing or controller.admin is None or not controller.enabled or sizes_wrong:
        raise ConnectRefused(_QID_OFFSET, in_data=False)
    if subsystem.discovery or controller.hostnqn != who.hostnqn:
        # SPDK does not compare host names here; an I/O queue of another host is never right.
        raise ConnectRefused(_QID_OFFSET, in_data=False)
    if wanted.qid >= controller.max_queues or wanted.qid in controller.queues:
        raise NvmeError(Status.INVALID_QUEUE_ID)
    return controller


def fabrics(controller: Controller, command: Command, *, admin_queue: bool) -> Answer:
    """Property Get and Set, on the admin queue only; raises NvmeError for the rest."""
    if not admin_queue:
        raise NvmeError(Status.INVALID_OPCODE)
    wide = command.cdw10 & 7
    if command.fctype in (FabricsType.PROPERTY_GET, FabricsType.PROPERTY_SET) and wide > 1:
        raise NvmeError(Status.FABRICS_INVALID_PARAM)
    if command.fctype == FabricsType.PROPERTY_GET:
        value = controller.property_get(command.cdw11, wide=bool(wide))
        return Answer(value & 0xFFFFFFFF, value >> 32)
    if command.fctype == FabricsType.PROPERTY_SET:
        value = command.cdw12 | (command.cdw13 << 32 if wide else 0)
        controller.property_set(command.cdw11, value, wide=bool(wide))
        return Answer()
    raise NvmeError(Status.INVALID_OPCODE)


def check_admin(controller: Controller, command: Command) -> None:
    """What holds for every admin command, events included; raises NvmeError."""
    if command.fuse or (command.opcode in _CONTROLLER_SPECIFIC and command.nsid):
        raise NvmeError(Status.INVALID_FIELD)
    if not controller.enabled:
        raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)


async def execute(target: NvmfTarget, queue: TcpQueue, controller: Controller, command: Command, data: Raw) -> Answer:
    """Run an admin command other than Asynchronous Event Request; raises NvmeError."""
    check_admin(controller, command)
    if controller.subsystem.discovery and command.opcode not in _OF_DISCOVERY:
        raise NvmeError(Status.INVALID_OPCODE)
    match command.opcode:
        case AdminOp.IDENTIFY:
            return Answer(data=identify(controller, command, target.settings.crdt))
        case AdminOp.GET_LOG_PAGE:
            return Answer(data=get_log_page(target, queue, controller, command))
        case AdminOp.KEEP_ALIVE:
            controller.keep_alive()
            return Answer()
        case AdminOp.GET_FEATURES:
            value, structure = get_features(controller, command)
            return Answer(value, data=structure)
        case AdminOp.SET_FEATURES:
            return Answer(set_features(controller, command, data))
        case AdminOp.ABORT:
            victim = controller.queues.get(command.cdw10 & 0xFFFF)
            aborted = victim is not None and await victim.abort(command.cdw10 >> 16)
            return Answer(0 if aborted else 1)
    raise NvmeError(Status.INVALID_OPCODE)
