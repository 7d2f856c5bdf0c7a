"""The log pages of a controller.

Why: hosts read the ANA log and the changed namespace list after each notice, and reading is what allows the next
notice.  This module must never change what it reports, but for the
reservation notifications, which reading takes away.  Source: SPDK v26.05 lib/nvmf/ctrlr.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.embedded.nvmf.identify import FIRMWARE, optional_commands
from dataplane.nvme.commands import NSID_ALL, AdminOp, Command, Feature, IoOp, LogId
from dataplane.nvme.identify import (
    ONCS_COMPARE,
    ONCS_COPY,
    ONCS_DATASET_MANAGEMENT,
    ONCS_RESERVATIONS,
    ONCS_WRITE_ZEROES,
)
from dataplane.nvme.logs import (
    EFFECT_CONTENT,
    EFFECT_CONTROLLER_SCOPE,
    EFFECT_NAMESPACE_SCOPE,
    EFFECT_SUPPORTED,
    AnaGroup,
    AnaLog,
    FirmwareSlotLog,
    changed_namespaces,
    effects_log,
    feature_effects,
    supported_logs,
)
from dataplane.nvme.reservations import COMMANDS as RESERVATION_COMMANDS
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.target import NvmfTarget
    from dataplane.embedded.nvmf.tcp import TcpQueue

_LOGS = [
    LogId.SUPPORTED, LogId.ERROR, LogId.SMART, LogId.FIRMWARE_SLOT, LogId.CHANGED_NAMESPACES,
    LogId.COMMAND_EFFECTS,
]  # fmt: skip
_FEATURES = [
    Feature.ARBITRATION, Feature.POWER_MANAGEMENT, Feature.TEMPERATURE_THRESHOLD,
    Feature.VOLATILE_WRITE_CACHE, Feature.NUMBER_OF_QUEUES, Feature.INTERRUPT_COALESCING,
    Feature.INTERRUPT_VECTOR, Feature.WRITE_ATOMICITY, Feature.ASYNC_EVENT, Feature.KEEP_ALIVE_TIMER,
    Feature.HOST_BEHAVIOR, Feature.HOST_IDENTIFIER,
]  # fmt: skip
_EMPTY = (LogId.ERROR, LogId.SMART, LogId.MI_EFFECTS)
"""As in SPDK: no failure is kept, there is no medium with a health, no NVMe-MI; zeroes at every offset."""
_OF_NAMESPACE = [Feature.ERROR_RECOVERY, Feature.RESERVATION_NOTIFICATION, Feature.RESERVATION_PERSISTENCE]
_NOTICE_OF = {LogId.CHANGED_NAMESPACES: "namespace", LogId.ANA: "ana", LogId.DISCOVERY: "discovery"}


def get_log_page(target: NvmfTarget, queue: TcpQueue, controller: Controller, command: Command) -> bytes:
    """The part of a log page that the command asks for; raises NvmeError."""
    log = command.cdw10 & 0xFF
    offset = command.cdw12 | command.cdw13 << 32
    size = (((command.cdw11 & 0xFFFF) << 16 | command.cdw10 >> 16) + 1) * 4
    if offset & 3 or not command.length or size > command.length:
        raise NvmeError(Status.INVALID_FIELD)
    if log in (*_LOGS, LogId.ANA) and log != LogId.SMART and command.nsid not in (0, NSID_ALL):
        raise NvmeError(Status.INVALID_FIELD)
    if log in _EMPTY and not controller.subsystem.discovery:
        return bytes(size)
    if log == LogId.RESERVATION and not controller.subsystem.discovery:
        return _notifications(controller, command, offset, size)
    page = _page(target, queue, controller, log, command)
    if offset >= len(page):
        raise NvmeError(Status.INVALID_FIELD)
    if log == LogId.CHANGED_NAMESPACES:
        controller.changed_nsids.clear()
    if not command.cdw10 >> 15 & 1 and log in _NOTICE_OF:
        controller.unmask(_NOTICE_OF[LogId(log)])
    return page[offset : offset + size]


def _page(target: NvmfTarget, queue: TcpQueue, controller: Controller, log: int, command: Command) -> bytes:
    if controller.subsystem.discovery:
        if log == LogId.DISCOVERY:
            return target.discovery_log(controller.hostnqn, queue.local).pack()
        if log == LogId.SUPPORTED:
            return supported_logs([LogId.SUPPORTED, LogId.DISCOVERY, LogId.FEATURE_EFFECTS])
        if log == LogId.FEATURE_EFFECTS:
            return feature_effects([Feature.KEEP_ALIVE_TIMER, Feature.ASYNC_EVENT], [])
        raise NvmeError(Status.INVALID_LOG_PAGE)
    match log:
        case LogId.ANA if controller.subsystem.ana_reporting:
            return ana_log(controller).pack(groups_only=bool(command.cdw10 >> 8 & 1))
        case LogId.CHANGED_NAMESPACES:
            return changed_namespaces(list(controller.changed_nsids))
        case LogId.COMMAND_EFFECTS:
            return _effects(controller)
        case LogId.FIRMWARE_SLOT:
            return FirmwareSlotLog(revision1=FIRMWARE).pack()
        case LogId.SUPPORTED:
            ana = [LogId.ANA] if controller.subsystem.ana_reporting else []
            return supported_logs([*_LOGS, LogId.RESERVATION, LogId.FEATURE_EFFECTS, LogId.MI_EFFECTS, *ana])
        case LogId.FEATURE_EFFECTS:
            return feature_effects(_FEATURES, _OF_NAMESPACE)
    raise NvmeError(Status.INVALID_LOG_PAGE)


def _notifications(controller: Controller, command: Command, offset: int, size: int) -> bytes:
    """Log 80h.  An empty one is told at any offset, and does not allow the next notice, as in SPDK."""
    page = controller.notifications.read(offset, size)
    if page is None:
        return bytes(size)
    if not command.cdw10 >> 15 & 1:
        controller.unmask("reservation")
    return page


def ana_log(controller: Controller) -> AnaLog:
    """Every group that has a namespace.  The change count stays 0, as in SPDK: hosts go by the notice."""
    groups: dict[int, list[int]] = {}
    for namespace in controller.subsystem.sorted_namespaces():
        groups.setdefault(namespace.anagrpid, []).append(namespace.nsid)
    return AnaLog(
        0, tuple(AnaGroup(group, controller.ana_state(group), tuple(groups[group])) for group in sorted(groups))
    )


def _effects(controller: Controller) -> bytes:
    admin = EFFECT_SUPPORTED | EFFECT_CONTROLLER_SCOPE
    both = admin | EFFECT_NAMESPACE_SCOPE
    quiet = EFFECT_SUPPORTED | EFFECT_NAMESPACE_SCOPE
    change = quiet | EFFECT_CONTENT
    io = {int(IoOp.FLUSH): change, int(IoOp.WRITE): change, int(IoOp.READ): quiet}
    oncs = optional_commands(controller)
    if oncs & ONCS_COMPARE:
        io[IoOp.COMPARE] = quiet
    if oncs & ONCS_COPY:
        io[IoOp.COPY] = change
    if oncs & ONCS_RESERVATIONS:
        io |= dict.fromkeys(map(int, RESERVATION_COMMANDS), quiet)
    if oncs & ONCS_WRITE_ZEROES:
        io[IoOp.WRITE_ZEROES] = change
    if oncs & ONCS_DATASET_MANAGEMENT:
        io[IoOp.DATASET_MANAGEMENT] = change
    return effects_log(
        {
            AdminOp.GET_LOG_PAGE: both, AdminOp.IDENTIFY: both, AdminOp.ABORT: admin,
            AdminOp.SET_FEATURES: both, AdminOp.GET_FEATURES: both, AdminOp.ASYNC_EVENT: admin,
            AdminOp.KEEP_ALIVE: admin,
        },
        io,
    )  # fmt: skip
