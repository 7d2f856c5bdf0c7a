"""Log pages: what a controller has to report beyond Identify.

Why: the ANA log is how a host learns which node to use; the discovery log is how it finds both.  This module
must never keep a log, it only lays one out.  Source: NVMe base 2.0c section 5.16.1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from dataplane.nvme.layout import Layout, Raw, at


class AnaState(IntEnum):
    """ANA states, figure 220."""

    OPTIMIZED = 0x1
    NON_OPTIMIZED = 0x2
    INACCESSIBLE = 0x3
    PERSISTENT_LOSS = 0x4
    CHANGE = 0xF


@dataclass(frozen=True, slots=True)
class AnaGroup:
    """One ANA group as a controller sees it."""

    group: int
    state: int
    nsids: tuple[int, ...] = ()
    change_count: int = 0


@dataclass(frozen=True, slots=True)
class AnaLog:
    """Log 0Ch."""

    change_count: int
    groups: tuple[AnaGroup, ...]

    def pack(self, *, groups_only: bool = False) -> bytes:
        """The page; ``groups_only`` (RGO) leaves the namespace identifiers out."""
        parts = [_ANA_HEAD.pack(self.change_count, len(self.groups))]
        for group in self.groups:
            nsids = () if groups_only else group.nsids
            parts.append(_ANA_GROUP.pack(group.group, len(nsids), group.change_count, group.state))
            parts.append(struct.pack(f"<{len(nsids)}I", *nsids))
        return b"".join(parts)

    @classmethod
    def parse(cls, raw: Raw) -> AnaLog:
        """Read a page; raises ValueError when it ends inside a group."""
        if len(raw) < _ANA_HEAD.size:
            raise ValueError(f"an ANA log has at least {_ANA_HEAD.size} bytes, got {len(raw)}")
        changes, count = _ANA_HEAD.unpack_from(raw)
        offset = _ANA_HEAD.size
        groups: list[AnaGroup] = []
        for _ in range(count):
            if offset + _ANA_GROUP.size > len(raw):
                raise ValueError(f"the ANA log ends in group {len(groups) + 1} of {count}")
            group, number, group_changes, state = _ANA_GROUP.unpack_from(raw, offset)
            offset += _ANA_GROUP.size
            if offset + 4 * number > len(raw):
                raise ValueError(f"the ANA log ends in the namespaces of group {group}")
            nsids = struct.unpack_from(f"<{number}I", raw, offset)
            offset += 4 * number
            groups.append(AnaGroup(group, state & 0xF, nsids, group_changes))
        return cls(changes, tuple(groups))


_ANA_HEAD = struct.Struct("<QH6x")
_ANA_GROUP = struct.Struct("<IIQB15x")


class SubsystemType(IntEnum):
    """SUBTYPE of a discovery entry, figure 264."""

    REFERRAL = 1
    NVM = 2
    CURRENT_DISCOVERY = 3


class TransportType(IntEnum):
    """TRTYPE."""

    RDMA = 1
    FC = 2
    TCP = 3


class AddressFamily(IntEnum):
    """ADRFAM."""

    IPV4 = 1
    IPV6 = 2


@dataclass(frozen=True, slots=True)
class DiscoveryEntry(Layout):
    """One entry of the discovery log."""

    SIZE: ClassVar[int] = 1024
    trtype: int = at(0, "B", TransportType.TCP)
    adrfam: int = at(1, "B", AddressFamily.IPV4)
    subtype: int = at(2, "B", SubsystemType.NVM)
    treq: int = at(3, "B")
    portid: int = at(4, "H")
    cntlid: int = at(6, "H", 0xFFFF)
    asqsz: int = at(8, "H")
    eflags: int = at(10, "H")
    trsvcid: str = at(32, "32a")
    subnqn: str = at(256, "256z")
    traddr: str = at(512, "256a")
    tsas: bytes = at(768, "256s")


@dataclass(frozen=True, slots=True)
class DiscoveryLog:
    """Log 70h."""

    generation: int
    entries: tuple[DiscoveryEntry, ...]

    def pack(self) -> bytes:
        """The page."""
        head = struct.pack("<QQH", self.generation, len(self.entries), 0).ljust(1024, b"\0")
        return head + b"".join(entry.pack() for entry in self.entries)

    @classmethod
    def parse(cls, raw: Raw) -> DiscoveryLog:
        """Read a page; entries that are not in ``raw`` are left out.  Raises ValueError below 1024 bytes."""
        if len(raw) < 1024:
            raise ValueError(f"a discovery log has at least 1024 bytes, got {len(raw)}")
        generation, count = struct.unpack_from("<QQ", raw)
        present = min(count, len(raw) // 1024 - 1)
        entries = (DiscoveryEntry.parse(raw[1024 * (i + 1) : 1024 * (i + 2)]) for i in range(present))
        return cls(generation, tuple(entries))


@dataclass(frozen=True, slots=True)
class SmartLog(Layout):
    """Log 02h; ``temperature`` in kelvin, data units of 512,000 bytes."""

    SIZE: ClassVar[int] = 512
    critical_warning: int = at(0, "B")
    temperature: int = at(1, "H")
    available_spare: int = at(3, "B")
    spare_threshold: int = at(4, "B")
    percentage_used: int = at(5, "B")
    data_units_read: int = at(32, "u128")
    data_units_written: int = at(48, "u128")
    host_reads: int = at(64, "u128")
    host_writes: int = at(80, "u128")
    controller_busy_minutes: int = at(96, "u128")
    power_cycles: int = at(112, "u128")
    power_on_hours: int = at(128, "u128")
    unsafe_shutdowns: int = at(144, "u128")
    media_errors: int = at(160, "u128")
    error_entries: int = at(176, "u128")


@dataclass(frozen=True, slots=True)
class ErrorEntry(Layout):
    """One entry of log 01h; ``status`` is the raw status field."""

    SIZE: ClassVar[int] = 64
    count: int = at(0, "Q")
    sqid: int = at(8, "H")
    cid: int = at(10, "H")
    status: int = at(12, "H")
    location: int = at(14, "H")
    lba: int = at(16, "Q")
    nsid: int = at(24, "I")
    trtype: int = at(29, "B")


@dataclass(frozen=True, slots=True)
class FirmwareSlotLog(Layout):
    """Log 03h."""

    SIZE: ClassVar[int] = 512
    afi: int = at(0, "B", 1)
    revision1: str = at(8, "8a")


EFFECT_SUPPORTED = 1
EFFECT_CONTENT = 1 << 1
EFFECT_NAMESPACE_SCOPE = 1 << 20
EFFECT_CONTROLLER_SCOPE = 1 << 21


def supported_logs(pages: Sequence[int]) -> bytes:
    """Log 00h: one dword for each log identifier."""
    return struct.pack("<256I", *(int(page in pages) for page in range(256)))


def effects_log(admin: dict[int, int], io: dict[int, int]) -> bytes:
    """Log 05h: effects (bit 0: supported, bit 1: changes content) by opcode."""
    raw = bytearray(4096)
    for base, table in ((0, admin), (1024, io)):
        for opcode, effects in table.items():
            struct.pack_into("<I", raw, base + 4 * opcode, effects)
    return bytes(raw)


def feature_effects(of_controller: Sequence[int], of_namespace: Sequence[int]) -> bytes:
    """Log 12h: which features are supported, and whose they are."""
    raw = bytearray(1024)
    for scope, features in ((EFFECT_CONTROLLER_SCOPE, of_controller), (EFFECT_NAMESPACE_SCOPE, of_namespace)):
        for feature in features:
            struct.pack_into("<I", raw, 4 * feature, EFFECT_SUPPORTED | scope)
    return bytes(raw)


def parse_effects_log(raw: Raw) -> tuple[dict[int, int], dict[int, int]]:
    """The (admin, I/O) effects of the opcodes that the controller supports."""
    tables = (struct.unpack_from("<256I", raw, base) for base in (0, 1024))
    admin, io = ({op: effects for op, effects in enumerate(table) if effects & 1} for table in tables)
    return admin, io


CHANGED_NAMESPACES_MAX = 1024


def changed_namespaces(nsids: list[int]) -> bytes:
    """Log 04h; more than 1024 changes are told as FFFFFFFFh alone."""
    chosen = sorted(nsids) if len(nsids) <= CHANGED_NAMESPACES_MAX else [0xFFFFFFFF]
    return struct.pack(f"<{len(chosen)}I", *chosen).ljust(4096, b"\0")


class EventType(IntEnum):
    """Asynchronous event types, figure 148."""

    ERROR = 0
    HEALTH = 1
    NOTICE = 2
    IO_COMMAND_SET = 6


class Notice(IntEnum):
    """Asynchronous event information of notices, figure 151."""

    NAMESPACE_ATTRIBUTE_CHANGED = 0x00
    ANA_CHANGE = 0x03
    DISCOVERY_LOG_CHANGE = 0xF0


@dataclass(frozen=True, slots=True)
class AsyncEvent:
    """DWORD 0 of an asynchronous event's completion."""

    kind: int
    info: int
    log: int

    def pack(self) -> int:
        """As it stands in the completion."""
        return self.kind | self.info << 8 | self.log << 16

    @classmethod
    def parse(cls, cdw0: int) -> AsyncEvent:
        """Read it from a completion."""
        return cls(cdw0 & 7, cdw0 >> 8 & 0xFF, cdw0 >> 16 & 0xFF)
