"""Fabrics: Connect, the controller's properties, Disconnect.

Why: these commands make an association; everything else rides on it.  This module must never decide who may
connect.  Source: NVMe base 2.0c sections 6 (fabrics commands) and 3.1.3 (properties).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from dataplane.nvme.commands import AdminOp, Command, FabricsType
from dataplane.nvme.layout import Layout, at

DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
CNTLID_DYNAMIC = 0xFFFF
CNTLID_MAX = 0xFFEF
CONNECT_DATA_SIZE = 1024
CONNECT_ATR = 1 << 17  # in DWORD 0 of Connect's completion: authenticate before anything else
CONNECT_ASCR = 1 << 18  # the same, and then a secure channel
CONNECT_DATA_FIELDS = {"hostid": 0, "cntlid": 16, "subnqn": 256, "hostnqn": 512}  # for Invalid Param offsets


class Property(IntEnum):
    """Property offsets."""

    CAP = 0x00
    VS = 0x08
    CC = 0x14
    CSTS = 0x1C
    NSSR = 0x20
    CRTO = 0x68


@dataclass(frozen=True, slots=True)
class ConnectData(Layout):
    """The data of a Connect command."""

    SIZE: ClassVar[int] = CONNECT_DATA_SIZE
    hostid: bytes = at(0, "16s")
    cntlid: int = at(16, "H", CNTLID_DYNAMIC)
    subnqn: str = at(256, "256z")
    hostnqn: str = at(512, "256z")


@dataclass(frozen=True, slots=True)
class ConnectCommand:
    """The fields of a Connect command; ``sqsize`` is zero-based, ``kato_ms`` 0 turns keep alive off."""

    recfmt: int
    qid: int
    sqsize: int
    cattr: int
    kato_ms: int

    @classmethod
    def of(cls, command: Command) -> ConnectCommand:
        """Read them from a submission queue entry."""
        return cls(
            command.cdw10 & 0xFFFF, command.cdw10 >> 16, command.cdw11 & 0xFFFF,
            command.cdw11 >> 16 & 0xFF, command.cdw12,
        )  # fmt: skip


def connect(qid: int, entries: int, kato_ms: int = 0, *, disable_flow_control: bool = False) -> Command:
    """Connect queue ``qid`` with ``entries`` slots (2 to 65536); send ``ConnectData`` in the capsule."""
    command = Command(
        AdminOp.FABRICS,
        nsid=FabricsType.CONNECT,
        cdw10=qid << 16,
        cdw11=(entries - 1) | (int(disable_flow_control) << 18),
        cdw12=kato_ms,
    )
    return command.with_data(CONNECT_DATA_SIZE, in_capsule=True)


def property_get(prop: Property | int, *, wide: bool = False) -> Command:
    """Property Get, 4 bytes or with ``wide`` 8; the value comes in DWORDs 0 and 1 of the completion."""
    return Command(AdminOp.FABRICS, nsid=FabricsType.PROPERTY_GET, cdw10=int(wide), cdw11=int(prop))


def property_set(prop: Property | int, value: int, *, wide: bool = False) -> Command:
    """Property Set."""
    return Command(
        AdminOp.FABRICS, nsid=FabricsType.PROPERTY_SET, cdw10=int(wide), cdw11=int(prop),
        cdw12=value & 0xFFFFFFFF, cdw13=value >> 32,
    )  # fmt: skip


def disconnect() -> Command:
    """Disconnect: ends the I/O queue that it is sent on."""
    return Command(AdminOp.FABRICS, nsid=FabricsType.DISCONNECT)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """CAP.

    ``mqes`` is zero-based; ``timeout`` is in units of 500 ms; ``css`` a bit mask (bit 0: NVM); ``ready_modes``
    is CRMS (bit 0: ready with media).
    """

    mqes: int = 127
    contiguous: bool = True
    arbitration: int = 0
    timeout: int = 30
    stride: int = 0
    reset_subsystem: bool = False
    css: int = 1
    page_min: int = 0
    page_max: int = 0
    ready_modes: int = 0

    def pack(self) -> int:
        """The 64-bit property."""
        return (
            self.mqes | int(self.contiguous) << 16 | self.arbitration << 17 | self.timeout << 24
            | self.stride << 32 | int(self.reset_subsystem) << 36 | self.css << 37
            | self.page_min << 48 | self.page_max << 52
            | self.ready_modes << 59
        )  # fmt: skip

    @classmethod
    def parse(cls, value: int) -> Capabilities:
        """Read the 64-bit property."""
        return cls(
            value & 0xFFFF, bool(value >> 16 & 1), value >> 17 & 3, value >> 24 & 0xFF, value >> 32 & 0xF,
            bool(value >> 36 & 1), value >> 37 & 0xFF, value >> 48 & 0xF, value >> 52 & 0xF,
            value >> 59 & 3,
        )  # fmt: skip


def version(major: int, minor: int, tertiary: int = 0) -> int:
    """The VS property."""
    return major << 16 | minor << 8 | tertiary


CC_ENABLE = 1
CC_SHUTDOWN_MASK = 3 << 14
CC_SHUTDOWN_NORMAL = 1 << 14
CSTS_READY = 1
CSTS_FATAL = 1 << 1
CSTS_SHUTDOWN_MASK = 3 << 2
CSTS_SHUTDOWN_COMPLETE = 2 << 2


@dataclass(frozen=True, slots=True)
class Configuration:
    """CC.  ``sqes`` and ``cqes`` are powers of two (6 and 4 for the NVM command set)."""

    enable: bool = False
    css: int = 0
    mps: int = 0
    ams: int = 0
    shn: int = 0
    sqes: int = 0
    cqes: int = 0

    def pack(self) -> int:
        """The 32-bit property."""
        return (
            int(self.enable) | self.css << 4 | self.mps << 7 | self.ams << 11 | self.shn << 14
            | self.sqes << 16 | self.cqes << 20
        )  # fmt: skip

    @classmethod
    def parse(cls, value: int) -> Configuration:
        """Read the 32-bit property."""
        return cls(
            bool(value & 1), value >> 4 & 7, value >> 7 & 0xF, value >> 11 & 7, value >> 14 & 3,
            value >> 16 & 0xF, value >> 20 & 0xF,
        )  # fmt: skip


def property_value(cdw0: int, cdw1: int) -> int:
    """The 64-bit value of a Property Get completion."""
    return cdw0 | cdw1 << 32
