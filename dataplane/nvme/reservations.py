"""Reservations: the four commands, the report that judges who may write, and the notification log.

Why: the fence of the array is a reservation preempt-and-abort, so these bytes must be right in one place.
This module must never choose a key or a type.  Source: NVMe base 2.0c sections 5.16.1.25 (log 80h), 5.27.1.27
and 5.27.1.28 (features 82h and 83h), 7.2 to 7.5 and 8.19.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from dataplane.nvme.commands import SGL_TRANSPORT, Command, IoOp, LogId
from dataplane.nvme.layout import Layout, Raw, at
from dataplane.nvme.logs import AsyncEvent, EventType


class ReservationType(IntEnum):
    """RTYPE; 0 means that no reservation is held."""

    NONE = 0
    WRITE_EXCLUSIVE = 1
    EXCLUSIVE_ACCESS = 2
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 4
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 5
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 6


class RegisterAction(IntEnum):
    """RREGA."""

    REGISTER = 0
    UNREGISTER = 1
    REPLACE = 2


class AcquireAction(IntEnum):
    """RACQA."""

    ACQUIRE = 0
    PREEMPT = 1
    PREEMPT_AND_ABORT = 2


class ReleaseAction(IntEnum):
    """RRELA."""

    RELEASE = 0
    CLEAR = 1


class PersistThroughPowerLoss(IntEnum):
    """CPTPL: what becomes of the persistence of reservations."""

    KEEP = 0
    OFF = 2
    ON = 3


class NotificationType(IntEnum):
    """What a notification tells a registrant; ``1 << type`` is its bit in the mask of feature 82h."""

    EMPTY = 0
    REGISTRATION_PREEMPTED = 1
    RESERVATION_RELEASED = 2
    RESERVATION_PREEMPTED = 3


CHANGES = (IoOp.RESERVATION_REGISTER, IoOp.RESERVATION_ACQUIRE, IoOp.RESERVATION_RELEASE)
"""The commands that change a reservation."""
COMMANDS = (*CHANGES, IoOp.RESERVATION_REPORT)
RESCAP_ALL_TYPES = 0xFE  # RESCAP: every type, and Ignore Existing Key as revision 1.3 defines it
RESCAP_PERSIST = 1  # RESCAP: Persist Through Power Loss
EXTENDED_HEAD_SIZE = 64  # bytes of a report in the extended form before its registrants
LOG_AVAILABLE = AsyncEvent(EventType.IO_COMMAND_SET, 0, LogId.RESERVATION)
"""The event that tells of a page in log 80h."""


@dataclass(frozen=True, slots=True)
class Notification(Layout):
    """Log 80h: one notification; ``count`` 0 and type 0 when there is none."""

    SIZE: ClassVar[int] = 64
    count: int = at(0, "Q")
    kind: int = at(8, "B")
    available: int = at(9, "B")
    nsid: int = at(12, "I")


@dataclass(frozen=True, slots=True)
class Registrant:
    """One registered host; ``host_id`` is 16 bytes in the extended form and 8 otherwise."""

    cntlid: int
    holder: bool
    host_id: bytes
    key: int


@dataclass(frozen=True, slots=True)
class ReservationReport:
    """What a Reservation Report says; ``registrants`` has one entry for each registered controller."""

    generation: int
    rtype: int
    persist: bool
    registrants: tuple[Registrant, ...]

    def pack(self, *, extended: bool) -> bytes:
        """The report's data structure."""
        head = _HEAD.pack(self.generation, self.rtype, len(self.registrants), int(self.persist))
        if extended:
            rows = (_LONG.pack(r.cntlid, int(r.holder), r.key, r.host_id) for r in self.registrants)
            return head.ljust(EXTENDED_HEAD_SIZE, b"\0") + b"".join(rows)
        rows = (_SHORT.pack(r.cntlid, int(r.holder), r.host_id, r.key) for r in self.registrants)
        return head + b"".join(rows)


_HEAD = struct.Struct("<IBH2xB14x")  # 24 bytes
_SHORT = struct.Struct("<HB5x8sQ")  # 24 bytes
_LONG = struct.Struct("<HB5xQ16s32x")  # 64 bytes


def register(
    nsid: int,
    current_key: int,
    new_key: int,
    action: RegisterAction = RegisterAction.REGISTER,
    *,
    ignore_existing: bool = False,
    persist: PersistThroughPowerLoss = PersistThroughPowerLoss.KEEP,
) -> tuple[Command, bytes]:
    """Reservation Register and its 16 bytes of keys."""
    cdw10 = int(action) | int(ignore_existing) << 3 | int(persist) << 30
    return _with_keys(IoOp.RESERVATION_REGISTER, nsid, cdw10, current_key, new_key)


def acquire(
    nsid: int,
    current_key: int,
    rtype: ReservationType,
    action: AcquireAction = AcquireAction.ACQUIRE,
    *,
    preempt_key: int = 0,
    ignore_existing: bool = False,
) -> tuple[Command, bytes]:
    """Reservation Acquire (or preempt) and its 16 bytes of keys."""
    cdw10 = int(action) | int(ignore_existing) << 3 | int(rtype) << 8
    return _with_keys(IoOp.RESERVATION_ACQUIRE, nsid, cdw10, current_key, preempt_key)


def release(
    nsid: int,
    current_key: int,
    rtype: ReservationType,
    action: ReleaseAction = ReleaseAction.RELEASE,
    *,
    ignore_existing: bool = False,
) -> tuple[Command, bytes]:
    """Reservation Release (or clear) and its 8 bytes of key."""
    cdw10 = int(action) | int(ignore_existing) << 3 | int(rtype) << 8
    command = Command(IoOp.RESERVATION_RELEASE, nsid=nsid, cdw10=cdw10)
    return command.with_data(8, in_capsule=True), current_key.to_bytes(8, "little")


def report(nsid: int, size: int = 4096, *, extended: bool = True) -> Command:
    """Reservation Report of at most ``size`` bytes; ``extended`` asks for 128-bit host identifiers (EDS)."""
    return Command(
        IoOp.RESERVATION_REPORT, nsid=nsid, length=size, sgl_type=SGL_TRANSPORT,
        cdw10=size // 4 - 1, cdw11=int(extended),
    )  # fmt: skip


def parse_report(raw: Raw, *, extended: bool = True) -> ReservationReport:
    """The report in ``raw``; registrants that did not fit into the buffer are missing from the result.

    Raises ValueError when ``raw`` is shorter than the report's header.
    """
    if len(raw) < _HEAD.size:
        raise ValueError(f"a reservation report has at least {_HEAD.size} bytes, got {len(raw)}")
    generation, rtype, count, persist = _HEAD.unpack_from(raw)
    entry, start = (_LONG, EXTENDED_HEAD_SIZE) if extended else (_SHORT, _HEAD.size)
    found: list[Registrant] = []
    for offset in range(start, start + count * entry.size, entry.size):
        if offset + entry.size > len(raw):
            break
        cntlid, flags, first, second = entry.unpack_from(raw, offset)
        key, host_id = (first, second) if extended else (second, first)
        found.append(Registrant(cntlid, bool(flags & 1), host_id, key))
    return ReservationReport(generation, rtype, bool(persist), tuple(found))


def _with_keys(opcode: IoOp, nsid: int, cdw10: int, first: int, second: int) -> tuple[Command, bytes]:
    data = struct.pack("<QQ", first, second)
    return Command(opcode, nsid=nsid, cdw10=cdw10).with_data(len(data), in_capsule=True), data
