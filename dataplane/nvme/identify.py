"""Identify: what controllers and namespaces say about themselves.

Why: hosts decide by these structures what to do at all, so each field stands here once, with its offset.
This module must never choose a value.  Sources: NVMe base 2.0c figures 274 to 287, NVM Command Set 1.0c
section 4.1.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from dataplane.nvme.layout import Layout, Raw, at

IDENTIFY_SIZE = 4096
CMIC_MULTI_PORT = 1
CMIC_MULTI_CONTROLLER = 2
CMIC_ANA = 8
ONCS_COMPARE = 1 << 0
ONCS_WRITE_UNCORRECTABLE = 1 << 1
ONCS_DATASET_MANAGEMENT = 1 << 2
ONCS_WRITE_ZEROES = 1 << 3
ONCS_RESERVATIONS = 1 << 5
ONCS_COPY = 1 << 8
FUSES_COMPARE_AND_WRITE = 1 << 0
NSFEAT_ATOMIC_WRITE_UNIT = 1 << 1
OAES_NAMESPACE_ATTRIBUTE = 1 << 8
OAES_ANA_CHANGE = 1 << 11
OAES_DISCOVERY_CHANGE = 1 << 31
CTRATT_HOST_ID_128 = 1


@dataclass(frozen=True, slots=True)
class IdentifyController(Layout):
    """CNS 01h.

    ``mdts`` and ``sqes`` are powers of two; ``kas`` is in 100 ms; ``ioccsz`` and ``iorcsz`` are in 16 bytes.
    """

    SIZE: ClassVar[int] = IDENTIFY_SIZE
    vid: int = at(0, "H")
    ssvid: int = at(2, "H")
    sn: str = at(4, "20a")
    mn: str = at(24, "40a")
    fr: str = at(64, "8a")
    rab: int = at(72, "B")
    ieee: bytes = at(73, "3s")
    cmic: int = at(76, "B")
    mdts: int = at(77, "B")
    cntlid: int = at(78, "H")
    ver: int = at(80, "I")
    rtd3r: int = at(84, "I")
    rtd3e: int = at(88, "I")
    oaes: int = at(92, "I")
    ctratt: int = at(96, "I")
    cntrltype: int = at(111, "B")
    fguid: bytes = at(112, "16s")
    crdt1: int = at(128, "H")
    crdt2: int = at(130, "H")
    crdt3: int = at(132, "H")
    oacs: int = at(256, "H")
    acl: int = at(258, "B")
    aerl: int = at(259, "B")
    frmw: int = at(260, "B")
    lpa: int = at(261, "B")
    elpe: int = at(262, "B")
    npss: int = at(263, "B")
    wctemp: int = at(266, "H")
    cctemp: int = at(268, "H")
    tnvmcap: int = at(280, "u128")
    unvmcap: int = at(296, "u128")
    kas: int = at(320, "H")
    sanicap: int = at(328, "I")
    anatt: int = at(342, "B")
    anacap: int = at(343, "B")
    anagrpmax: int = at(344, "I")
    nanagrpid: int = at(348, "I")
    sqes: int = at(512, "B")
    cqes: int = at(513, "B")
    maxcmd: int = at(514, "H")
    nn: int = at(516, "I")
    oncs: int = at(520, "H")
    fuses: int = at(522, "H")
    fna: int = at(524, "B")
    vwc: int = at(525, "B")
    awun: int = at(526, "H")
    awupf: int = at(528, "H")
    acwu: int = at(532, "H")
    ocfs: int = at(534, "H")
    sgls: int = at(536, "I")
    mnan: int = at(540, "I")
    subnqn: str = at(768, "256z")
    ioccsz: int = at(1792, "I")
    iorcsz: int = at(1796, "I")
    icdoff: int = at(1800, "H")
    fcatt: int = at(1802, "B")
    msdbd: int = at(1803, "B")
    ofcs: int = at(1804, "H")
    psd0: bytes = at(2048, "32s")


@dataclass(frozen=True, slots=True)
class IdentifyNamespace(Layout):
    """CNS 00h.  Sizes in blocks; ``lbaf0`` is the packed LBA format 0 (see ``lba_format``)."""

    SIZE: ClassVar[int] = IDENTIFY_SIZE
    nsze: int = at(0, "Q")
    ncap: int = at(8, "Q")
    nuse: int = at(16, "Q")
    nsfeat: int = at(24, "B")
    nlbaf: int = at(25, "B")
    flbas: int = at(26, "B")
    mc: int = at(27, "B")
    dpc: int = at(28, "B")
    dps: int = at(29, "B")
    nmic: int = at(30, "B")
    rescap: int = at(31, "B")
    dlfeat: int = at(33, "B")
    nawun: int = at(34, "H")
    nawupf: int = at(36, "H")
    nacwu: int = at(38, "H")
    noiob: int = at(46, "H")
    nvmcap: int = at(48, "u128")
    npwg: int = at(64, "H")
    npwa: int = at(66, "H")
    npdg: int = at(68, "H")
    npda: int = at(70, "H")
    nows: int = at(72, "H")
    mssrl: int = at(74, "H")
    mcl: int = at(76, "I")
    msrc: int = at(80, "B")
    anagrpid: int = at(92, "I")
    nsattr: int = at(99, "B")
    nvmsetid: int = at(100, "H")
    endgid: int = at(102, "H")
    nguid: bytes = at(104, "16s")
    eui64: bytes = at(120, "8s")
    lbafs: bytes = at(128, "256s")

    @property
    def block_size(self) -> int:
        """Bytes of a logical block in the current format."""
        index = self.flbas & 0xF
        return int(1 << self.lbafs[index * 4 + 2])


def lba_format(block_size: int, metadata: int = 0) -> bytes:
    """An LBA format entry; ``block_size`` is a power of two."""
    return struct.pack("<HBB", metadata, block_size.bit_length() - 1, 0)


@dataclass(frozen=True, slots=True)
class IdentifyNvmController(Layout):
    """CNS 06h with CSI 0: limits of NVM commands; ``dmrsl`` in blocks, ``wzsl`` a power of two of pages."""

    SIZE: ClassVar[int] = IDENTIFY_SIZE
    vsl: int = at(0, "B")
    wzsl: int = at(1, "B")
    wusl: int = at(2, "B")
    dmrl: int = at(3, "B")
    dmrsl: int = at(4, "I")
    dmsl: int = at(8, "Q")


@dataclass(frozen=True, slots=True)
class IndependentNamespace(Layout):
    """CNS 08h: what a namespace says whatever its command set is."""

    SIZE: ClassVar[int] = IDENTIFY_SIZE
    nsfeat: int = at(0, "B")
    nmic: int = at(1, "B")
    rescap: int = at(2, "B")
    fpi: int = at(3, "B")
    anagrpid: int = at(4, "I")
    nsattr: int = at(8, "B")
    nvmsetid: int = at(10, "H")
    endgid: int = at(12, "H")
    nstat: int = at(14, "B")


def nsid_list(nsids: list[int], after: int = 0) -> bytes:
    """CNS 02h and 10h: the identifiers greater than ``after``, ascending, at most 1024."""
    chosen = sorted(nsid for nsid in nsids if nsid > after)[:1024]
    return struct.pack(f"<{len(chosen)}I", *chosen).ljust(IDENTIFY_SIZE, b"\0")


def parse_nsid_list(raw: Raw) -> list[int]:
    """The identifiers up to the first zero."""
    found: list[int] = []
    for (nsid,) in struct.iter_unpack("<I", bytes(raw)[: len(raw) // 4 * 4]):
        if not nsid:
            break
        found.append(nsid)
    return found


def controller_list(cntlids: list[int], first: int = 0) -> bytes:
    """CNS 12h and 13h: the identifiers from ``first`` on, at most 2047."""
    chosen = sorted(cntlid for cntlid in cntlids if cntlid >= first)[:2047]
    return struct.pack(f"<H{len(chosen)}H", len(chosen), *chosen).ljust(IDENTIFY_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class NamespaceIds:
    """CNS 03h: the identifiers that tell two namespaces apart for ever; None or empty where it has none."""

    eui64: bytes = b""
    nguid: bytes = b""
    uuid: bytes = b""
    csi: int | None = 0

    def pack(self) -> bytes:
        """The descriptor list, one structure."""
        parts = [
            struct.pack("<BBH", kind, len(value), 0) + value
            for kind, value in ((1, self.eui64), (2, self.nguid), (3, self.uuid))
            if any(value)
        ]
        if self.csi is not None:
            parts.append(struct.pack("<BBHB", 4, 1, 0, self.csi))
        return b"".join(parts).ljust(IDENTIFY_SIZE, b"\0")

    @classmethod
    def parse(cls, raw: Raw) -> NamespaceIds:
        """Read a descriptor list; unknown types are passed over."""
        whole = bytes(raw)
        found: dict[int, bytes] = {}
        offset = 0
        while offset + 4 <= len(whole):
            kind, size, _ = struct.unpack_from("<BBH", whole, offset)
            if not size:
                break
            found[kind] = whole[offset + 4 : offset + 4 + size]
            offset += 4 + size
        csi = found.get(4)
        return cls(found.get(1, b""), found.get(2, b""), found.get(3, b""), csi[0] if csi else None)
