"""Get Features and Set Features.

Why: Linux, SPDK and nvme-cli each ask for their own handful, and refuse to go on when one is missing.  This
module must never let a host change what other hosts see, but for the notification mask of a namespace, which
SPDK has once for all of them.  Source: SPDK v26.05 lib/nvmf/ctrlr.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.nvme.commands import NSID_ALL, Command, Feature
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AnaState
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.reserved import Reserved

HOST_BEHAVIOR_SIZE = 512
_DISCOVERY = (Feature.KEEP_ALIVE_TIMER, Feature.ASYNC_EVENT)
_OF_NAMESPACE = (
    Feature.ERROR_RECOVERY, Feature.WRITE_ATOMICITY, Feature.RESERVATION_NOTIFICATION,
    Feature.RESERVATION_PERSISTENCE,
)  # fmt: skip
_NOT_HERE = {
    AnaState.INACCESSIBLE: Status.ANA_INACCESSIBLE,
    AnaState.PERSISTENT_LOSS: Status.ANA_PERSISTENT_LOSS,
    AnaState.CHANGE: Status.ANA_TRANSITION,
}
_RESERVED_MASKS = {
    Feature.ARBITRATION: 0xFFFFFF07,
    Feature.ERROR_RECOVERY: 0x1FFFF,
    Feature.VOLATILE_WRITE_CACHE: 0x1,
    Feature.WRITE_ATOMICITY: 0x1,
    Feature.ASYNC_EVENT: 0x80000FFF,
}


def get_features(controller: Controller, command: Command) -> tuple[int, bytes]:
    """DWORD 0 and the data of the answer; raises NvmeError."""
    feature = command.cdw10 & 0xFF
    _check(controller, feature, command.nsid, changes=False)
    match feature:
        case Feature.TEMPERATURE_THRESHOLD:
            _check_temperature(command.cdw11)
            return 0, b""
        case Feature.INTERRUPT_VECTOR:
            return command.cdw11 & 0xFFFF | 1 << 16, b""  # coalescing is disabled
        case Feature.HOST_IDENTIFIER:
            if not command.cdw11 & 1 or command.length < len(controller.hostid):
                raise NvmeError(Status.INVALID_FIELD)
            return 0, controller.hostid
        case Feature.RESERVATION_NOTIFICATION | Feature.RESERVATION_PERSISTENCE:
            reserved = _reserved(controller, command.nsid)
            return (reserved.mask if feature == Feature.RESERVATION_NOTIFICATION else reserved.state.persist), b""
        case Feature.HOST_BEHAVIOR:
            if command.length < HOST_BEHAVIOR_SIZE:
                raise NvmeError(Status.INVALID_FIELD)
            flags = bytes((controller.features.advanced_retry, 0, controller.features.extended_formats))
            return 0, flags.ljust(HOST_BEHAVIOR_SIZE, b"\0")
    value = controller.features.values.get(feature)
    if value is None:
        raise NvmeError(Status.INVALID_FIELD)
    return value, b""


def set_features(controller: Controller, command: Command, data: Raw) -> int:
    """DWORD 0 of the answer; raises NvmeError."""
    if command.cdw10 >> 31:
        raise NvmeError(Status.FEATURE_NOT_SAVEABLE)
    feature, value = command.cdw10 & 0xFF, command.cdw11
    _check(controller, feature, command.nsid, changes=True)
    if feature not in _OF_NAMESPACE and command.nsid not in (0, NSID_ALL):
        raise NvmeError(Status.FEATURE_NOT_NAMESPACE_SPECIFIC)
    match feature:
        case Feature.NUMBER_OF_QUEUES:
            return _number_of_queues(controller, value)
        case Feature.KEEP_ALIVE_TIMER:
            if not value:
                raise NvmeError(Status.KEEP_ALIVE_INVALID)
            controller.features.values[feature] = controller.round_kato(value)
            controller.start_keep_alive()
        case Feature.POWER_MANAGEMENT:
            if value & 0x1F:
                raise NvmeError(Status.INVALID_FIELD)
            controller.features.values[feature] = value & 0xFF
        case Feature.TEMPERATURE_THRESHOLD:
            _check_temperature(value)
        case Feature.INTERRUPT_COALESCING:
            raise NvmeError(Status.FEATURE_NOT_CHANGEABLE)
        case Feature.HOST_IDENTIFIER:
            raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)  # Connect gave it, base 2.0 section 5.27.1.25
        case Feature.RESERVATION_NOTIFICATION | Feature.RESERVATION_PERSISTENCE:
            _set_reservation(controller, feature, command.nsid, value)
        case Feature.HOST_BEHAVIOR:
            _set_host_behavior(controller, data)
        case _:
            if feature not in _RESERVED_MASKS or (feature == Feature.ERROR_RECOVERY and value >> 16 & 1):
                raise NvmeError(Status.INVALID_FIELD)
            controller.features.values[feature] = value & _RESERVED_MASKS[Feature(feature)]
    return 0


def _reserved(controller: Controller, nsid: int) -> Reserved:
    namespace = controller.namespace(nsid)
    if namespace is None:
        raise NvmeError(Status.INVALID_FIELD)
    return namespace.reserved


def _set_reservation(controller: Controller, feature: int, nsid: int, value: int) -> None:
    if nsid == NSID_ALL:
        chosen = [item.reserved for item in controller.subsystem.namespaces.values()]
    else:
        chosen = [_reserved(controller, nsid)]
    if feature == Feature.RESERVATION_NOTIFICATION:
        for reserved in chosen:
            reserved.mask = value
        return
    if nsid != NSID_ALL and chosen[0].path is None:
        raise NvmeError(Status.INVALID_FIELD)
    # SPDK refuses with this status too; Reservation Register (CPTPL) is the way, which also writes the file.
    raise NvmeError(Status.FEATURE_NOT_SAVEABLE)


def _check(controller: Controller, feature: int, nsid: int, *, changes: bool) -> None:
    """Whether this feature may be asked for that NSID at all."""
    subsystem = controller.subsystem
    if nsid > subsystem.max_nsid and nsid != NSID_ALL:
        raise NvmeError(Status.INVALID_NAMESPACE)
    if subsystem.discovery:
        if feature not in _DISCOVERY:
            raise NvmeError(Status.INVALID_FIELD)
        return
    namespace = controller.namespace(nsid)
    if namespace is None:
        return
    state = controller.ana_state(namespace.anagrpid)
    lost = changes and state == AnaState.PERSISTENT_LOSS
    if state in _NOT_HERE and (lost or feature in _OF_NAMESPACE):
        raise NvmeError(_NOT_HERE[state])


def _check_temperature(value: int) -> None:
    """TMPSEL 0 to 8 or 15, THSEL 0 or 1; there are no sensors, so nothing is kept."""
    sensor, threshold = value >> 16 & 0xF, value >> 20 & 3
    if threshold > 1 or 8 < sensor < 15:
        raise NvmeError(Status.INVALID_FIELD)


def _number_of_queues(controller: Controller, value: int) -> int:
    if value & 0xFFFF == 0xFFFF or value >> 16 == 0xFFFF:
        raise NvmeError(Status.INVALID_FIELD)
    if len(controller.queues) > 1:
        raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
    # What the host asks for does not matter: it gets what the transport allows (zero-based, both kinds).
    return controller.features.values[Feature.NUMBER_OF_QUEUES]


def _set_host_behavior(controller: Controller, data: Raw) -> None:
    if len(data) != HOST_BEHAVIOR_SIZE or data[0] > 1 or data[2] > 1:
        raise NvmeError(Status.INVALID_FIELD)
    controller.features.advanced_retry = bool(data[0])
    controller.features.extended_formats = bool(data[2])
