"""Submission and completion queue entries: what is in the 64 and the 16 bytes.

Why: host and controller share one description of each command.  This module must never decide whether a
command is allowed; it only lays out bits.  Sources: NVMe base 2.0c section 3.3.3 (entries), 5 (admin), NVM
Command Set 1.0c section 3 (I/O).

Invariants: ``Command.parse(c.pack()) == c`` for every command; builders leave the command identifier 0, which
whoever owns the queue sets with ``with_cid``.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from dataplane.nvme.layout import Raw

SQE = struct.Struct("<BBHIIIQQI3xB6I")
CQE = struct.Struct("<IIHHHH")
SQE_SIZE = SQE.size
CQE_SIZE = CQE.size

FUSE_NONE, FUSE_FIRST, FUSE_SECOND = 0, 1, 2
PSDT_SGL = 0x40  # SGL in the data pointer, MPTR a buffer address: the only form that fabrics allow
SGL_IN_CAPSULE = 0x01  # data block, subtype offset: the data follows in the capsule
SGL_TRANSPORT = 0x5A  # transport data block, transport specific subtype: the data comes in data PDUs
NSID_ALL = 0xFFFFFFFF


class AdminOp(IntEnum):
    """Admin opcodes, base 2.0c figure 138."""

    GET_LOG_PAGE = 0x02
    IDENTIFY = 0x06
    ABORT = 0x08
    SET_FEATURES = 0x09
    GET_FEATURES = 0x0A
    ASYNC_EVENT = 0x0C
    KEEP_ALIVE = 0x18
    FABRICS = 0x7F


class IoOp(IntEnum):
    """I/O opcodes, base 2.0c figure 389 and NVM Command Set 1.0c figure 14."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    WRITE_UNCORRECTABLE = 0x04
    COMPARE = 0x05
    WRITE_ZEROES = 0x08
    DATASET_MANAGEMENT = 0x09
    VERIFY = 0x0C
    RESERVATION_REGISTER = 0x0D
    RESERVATION_REPORT = 0x0E
    RESERVATION_ACQUIRE = 0x11
    RESERVATION_RELEASE = 0x15
    COPY = 0x19
    FABRICS = 0x7F


class FabricsType(IntEnum):
    """Fabrics command types, base 2.0c figure 383."""

    PROPERTY_SET = 0x00
    CONNECT = 0x01
    PROPERTY_GET = 0x04
    AUTH_SEND = 0x05
    AUTH_RECEIVE = 0x06
    DISCONNECT = 0x08


class Cns(IntEnum):
    """Identify structures, base 2.0c figure 273."""

    NAMESPACE = 0x00
    CONTROLLER = 0x01
    ACTIVE_NSIDS = 0x02
    NS_DESCRIPTORS = 0x03
    CSI_NAMESPACE = 0x05
    CSI_CONTROLLER = 0x06
    CSI_ACTIVE_NSIDS = 0x07
    INDEPENDENT_NAMESPACE = 0x08
    ALLOCATED_NSIDS = 0x10
    ALLOCATED_NAMESPACE = 0x11
    NS_CONTROLLERS = 0x12
    CONTROLLERS = 0x13
    COMMAND_SETS = 0x1C


class LogId(IntEnum):
    """Log pages, base 2.0c figure 202."""

    SUPPORTED = 0x00
    ERROR = 0x01
    SMART = 0x02
    FIRMWARE_SLOT = 0x03
    CHANGED_NAMESPACES = 0x04
    COMMAND_EFFECTS = 0x05
    ANA = 0x0C
    FEATURE_EFFECTS = 0x12
    MI_EFFECTS = 0x13
    DISCOVERY = 0x70
    RESERVATION = 0x80


class Feature(IntEnum):
    """Features, base 2.0c figure 317 and the NVM command set."""

    ARBITRATION = 0x01
    POWER_MANAGEMENT = 0x02
    LBA_RANGE_TYPE = 0x03
    TEMPERATURE_THRESHOLD = 0x04
    ERROR_RECOVERY = 0x05
    VOLATILE_WRITE_CACHE = 0x06
    NUMBER_OF_QUEUES = 0x07
    INTERRUPT_COALESCING = 0x08
    INTERRUPT_VECTOR = 0x09
    WRITE_ATOMICITY = 0x0A
    ASYNC_EVENT = 0x0B
    KEEP_ALIVE_TIMER = 0x0F
    HOST_BEHAVIOR = 0x16
    HOST_IDENTIFIER = 0x81
    RESERVATION_NOTIFICATION = 0x82
    RESERVATION_PERSISTENCE = 0x83


class Command(NamedTuple):
    """A submission queue entry.  A tuple and not a dataclass because one is made for every I/O.

    ``flags`` holds FUSE (bits 1:0) and PSDT (bits 7:6); ``address``, ``length`` and ``sgl_type`` are SGL 1.
    For fabrics commands ``nsid`` holds the command type in its low byte, as the bytes lie.
    """

    opcode: int
    flags: int = PSDT_SGL
    cid: int = 0
    nsid: int = 0
    cdw2: int = 0
    cdw3: int = 0
    mptr: int = 0
    address: int = 0
    length: int = 0
    sgl_type: int = 0
    cdw10: int = 0
    cdw11: int = 0
    cdw12: int = 0
    cdw13: int = 0
    cdw14: int = 0
    cdw15: int = 0

    @property
    def fuse(self) -> int:
        """0 for a normal command, 1 and 2 for the halves of a fused one."""
        return self.flags & 3

    @property
    def psdt(self) -> int:
        """How the data pointer is used: 1 or 2 for SGLs."""
        return self.flags >> 6

    @property
    def fctype(self) -> int:
        """The fabrics command type, when ``opcode`` is 7Fh."""
        return self.nsid & 0xFF

    @property
    def slba(self) -> int:
        """The first LBA of an I/O command."""
        return self.cdw10 | self.cdw11 << 32

    def pack(self) -> bytes:
        """64 bytes."""
        return SQE.pack(*self)

    @classmethod
    def parse(cls, raw: Raw, offset: int = 0) -> Command:
        """The entry at ``offset`` of ``raw``."""
        return cls._make(SQE.unpack_from(raw, offset))

    def with_cid(self, cid: int) -> Command:
        """The same command under another command identifier."""
        return self._replace(cid=cid)

    def with_data(self, length: int, *, in_capsule: bool) -> Command:
        """The same command with SGL 1 describing ``length`` bytes, in the capsule or in data PDUs."""
        return self._replace(length=length, sgl_type=SGL_IN_CAPSULE if in_capsule else SGL_TRANSPORT)


class Completion(NamedTuple):
    """A completion queue entry; ``status`` is the raw 16-bit field (phase in bit 0, always 0 in fabrics)."""

    cdw0: int = 0
    cdw1: int = 0
    sqhd: int = 0
    sqid: int = 0
    cid: int = 0
    status: int = 0

    @property
    def code(self) -> int:
        """SCT << 8 | SC, comparable with ``Status``; 0 is success."""
        return (self.status >> 1) & 0x7FF

    @property
    def dnr(self) -> bool:
        """Do Not Retry."""
        return bool(self.status & 0x8000)

    def pack(self) -> bytes:
        """16 bytes."""
        return CQE.pack(*self)

    @classmethod
    def parse(cls, raw: Raw, offset: int = 0) -> Completion:
        """The entry at ``offset`` of ``raw``."""
        return cls._make(CQE.unpack_from(raw, offset))


def status_field(code: int, *, dnr: bool = False) -> int:
    """The raw status field of a completion for SCT << 8 | SC."""
    return (code & 0x7FF) << 1 | (0x8000 if dnr else 0)


def _io(opcode: IoOp, nsid: int, lba: int, low16: int, size: int) -> Command:
    return Command(
        opcode, nsid=nsid, length=size, sgl_type=SGL_TRANSPORT if size else 0,
        cdw10=lba & 0xFFFFFFFF, cdw11=lba >> 32, cdw12=low16,
    )  # fmt: skip


def read(nsid: int, lba: int, blocks: int, block_size: int) -> Command:
    """Read ``blocks`` (1 to 65536) from ``lba``."""
    return _io(IoOp.READ, nsid, lba, blocks - 1, blocks * block_size)


def write(nsid: int, lba: int, blocks: int, block_size: int, *, fua: bool = False) -> Command:
    """Write ``blocks`` (1 to 65536) at ``lba``; with ``fua`` the completion means durable."""
    return _io(IoOp.WRITE, nsid, lba, (blocks - 1) | (1 << 30 if fua else 0), blocks * block_size)


def compare(nsid: int, lba: int, blocks: int, block_size: int) -> Command:
    """Compare ``blocks`` (1 to 65536) at ``lba`` with the data sent along."""
    return _io(IoOp.COMPARE, nsid, lba, blocks - 1, blocks * block_size)


def fused(first: Command, second: Command) -> tuple[Command, Command]:
    """The two as the halves of a fused command, to be sent one right after the other on one queue."""
    return (
        first._replace(flags=first.flags & ~3 | FUSE_FIRST),
        second._replace(flags=second.flags & ~3 | FUSE_SECOND),
    )


_SOURCE = struct.Struct("<8xQH14x")
COPY_SOURCE_SIZE = _SOURCE.size


def copy(nsid: int, lba: int, sources: list[tuple[int, int]], *, fua: bool = False) -> tuple[Command, bytes]:
    """Copy to ``lba`` from ``sources`` of (LBA, blocks: 1 to 65536), format 0 (NVM Command Set 1.0c figure 28)."""
    data = b"".join(_SOURCE.pack(source, blocks - 1) for source, blocks in sources)
    command = _io(IoOp.COPY, nsid, lba, (len(sources) - 1) | (1 << 30 if fua else 0), 0)
    return command.with_data(len(data), in_capsule=True), data


def parse_source(data: Raw) -> tuple[int, int]:
    """The first (LBA, blocks) of a Copy payload."""
    lba, blocks = _SOURCE.unpack_from(data)
    return lba, blocks + 1


def write_zeroes(nsid: int, lba: int, blocks: int, *, deallocate: bool = False) -> Command:
    """Make ``blocks`` (1 to 65536) read zeroes; ``deallocate`` lets the controller free them too."""
    return _io(IoOp.WRITE_ZEROES, nsid, lba, (blocks - 1) | (1 << 25 if deallocate else 0), 0)


def flush(nsid: int) -> Command:
    """Make what was acknowledged durable."""
    return Command(IoOp.FLUSH, nsid=nsid)


_RANGE = struct.Struct("<IIQ")


def deallocate(nsid: int, ranges: list[tuple[int, int]]) -> tuple[Command, bytes]:
    """Dataset Management with the deallocate attribute; ``ranges`` are (LBA, blocks), 1 to 256 of them."""
    data = b"".join(_RANGE.pack(0, blocks, lba) for lba, blocks in ranges)
    command = Command(IoOp.DATASET_MANAGEMENT, nsid=nsid, cdw10=len(ranges) - 1, cdw11=1 << 2)
    return command.with_data(len(data), in_capsule=True), data


def parse_ranges(data: Raw, count: int) -> list[tuple[int, int]]:
    """The (LBA, blocks) of a Dataset Management payload."""
    return [(lba, blocks) for _, blocks, lba in _RANGE.iter_unpack(bytes(data[: count * _RANGE.size]))]


def identify(cns: Cns | int, *, nsid: int = 0, cntid: int = 0, csi: int = 0, size: int = 4096) -> Command:
    """Identify."""
    command = Command(AdminOp.IDENTIFY, nsid=nsid, cdw10=int(cns) | cntid << 16, cdw11=csi << 24)
    return command.with_data(size, in_capsule=False)


def get_log_page(
    log: LogId | int,
    size: int,
    *,
    nsid: int = 0,
    offset: int = 0,
    specific: int = 0,
    retain_event: bool = False,
) -> Command:
    """Get Log Page; ``size`` and ``offset`` are bytes, multiples of 4; ``specific`` is LSP."""
    dwords = size // 4 - 1
    return Command(
        AdminOp.GET_LOG_PAGE, nsid=nsid, length=size, sgl_type=SGL_TRANSPORT,
        cdw10=int(log) | (specific & 0x7F) << 8 | int(retain_event) << 15 | (dwords & 0xFFFF) << 16,
        cdw11=dwords >> 16, cdw12=offset & 0xFFFFFFFF, cdw13=offset >> 32,
    )  # fmt: skip


def get_features(feature: Feature | int, *, nsid: int = 0, size: int = 0, select: int = 0, cdw11: int = 0) -> Command:
    """Get Features; ``size`` is that of the data structure, if the feature has one."""
    command = Command(AdminOp.GET_FEATURES, nsid=nsid, cdw10=int(feature) | select << 8, cdw11=cdw11)
    return command.with_data(size, in_capsule=False) if size else command


def set_features(feature: Feature | int, value: int = 0, *, nsid: int = 0, size: int = 0) -> Command:
    """Set Features; ``value`` is CDW 11, ``size`` that of the data structure sent along."""
    command = Command(AdminOp.SET_FEATURES, nsid=nsid, cdw10=int(feature), cdw11=value)
    return command.with_data(size, in_capsule=True) if size else command


def keep_alive() -> Command:
    """Keep Alive."""
    return Command(AdminOp.KEEP_ALIVE)


def async_event_request() -> Command:
    """Asynchronous Event Request: completes when there is something to tell."""
    return Command(AdminOp.ASYNC_EVENT)


def abort(sqid: int, cid: int) -> Command:
    """Abort the command ``cid`` of queue ``sqid``."""
    return Command(AdminOp.ABORT, cdw10=sqid | cid << 16)
