"""NVMe/TCP PDUs: their layout, and how each is built.

Why: the target and the initiator must agree byte for byte.  This module must never open a socket or copy
payload: builders return the pieces to send, with the caller's own buffer among them.  The incremental reader
is in ``pdu_reader``.  Source: NVMe/TCP Transport 1.0c section 3.6.

Invariants: PLEN covers header, header digest, padding, data and data digest; payload starts at PDO, a
multiple of the negotiated alignment; a digest is CRC32C, little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from crc32c import crc32c

from dataplane.nvme.commands import Command, Completion
from dataplane.nvme.layout import Raw


class PduType(IntEnum):
    """PDU types, section 3.6.2."""

    IC_REQ = 0x00
    IC_RESP = 0x01
    H2C_TERM = 0x02
    C2H_TERM = 0x03
    CAPSULE_CMD = 0x04
    CAPSULE_RESP = 0x05
    H2C_DATA = 0x06
    C2H_DATA = 0x07
    R2T = 0x09


class FatalError(IntEnum):
    """FES of a termination request, section 3.6.2.3."""

    INVALID_HEADER = 0x01
    SEQUENCE = 0x02
    HEADER_DIGEST = 0x03
    OUT_OF_RANGE = 0x04
    LIMIT_EXCEEDED = 0x05
    UNSUPPORTED = 0x06


FLAG_HDGST = 0x01
FLAG_DDGST = 0x02
FLAG_LAST = 0x04
FLAG_SUCCESS = 0x08

HEADER_SIZE = {
    PduType.IC_REQ: 128,
    PduType.IC_RESP: 128,
    PduType.H2C_TERM: 24,
    PduType.C2H_TERM: 24,
    PduType.CAPSULE_CMD: 72,
    PduType.CAPSULE_RESP: 24,
    PduType.H2C_DATA: 24,
    PduType.C2H_DATA: 24,
    PduType.R2T: 24,
}
TERM_MAX = 152  # a termination request carries at most 128 bytes of the offending header

HOST_RECEIVES = frozenset({PduType.IC_RESP, PduType.C2H_TERM, PduType.CAPSULE_RESP, PduType.C2H_DATA, PduType.R2T})
CONTROLLER_RECEIVES = frozenset({PduType.IC_REQ, PduType.H2C_TERM, PduType.CAPSULE_CMD, PduType.H2C_DATA})

COMMON = struct.Struct("<BBBBI")
IC_REQ_HEAD = struct.Struct("<BBBBIHBBI112x")
IC_RESP_HEAD = IC_REQ_HEAD
TERM_HEAD = struct.Struct("<BBBBIHI10x")
H2C_DATA_HEAD = struct.Struct("<BBBBIHHII4x")
C2H_DATA_HEAD = struct.Struct("<BBBBIH2xII4x")
R2T_HEAD = struct.Struct("<BBBBIHHII4x")
DIGEST_SIZE = 4
_C2H_DATA: Final = int(PduType.C2H_DATA)


@dataclass(frozen=True, slots=True)
class Digests:
    """What was agreed on: digest of headers, digest of payload."""

    header: bool = False
    data: bool = False

    @property
    def bits(self) -> int:
        """As ICReq and ICResp hold it."""
        return int(self.header) | int(self.data) << 1


NO_DIGESTS = Digests()


@dataclass(frozen=True, slots=True)
class IcReq:
    """Initialize Connection Request; ``hpda`` in dwords zero-based, ``maxr2t`` zero-based."""

    pfv: int = 0
    hpda: int = 0
    digests: Digests = NO_DIGESTS
    maxr2t: int = 0

    def pack(self) -> bytes:
        """128 bytes."""
        return IC_REQ_HEAD.pack(PduType.IC_REQ, 0, 128, 0, 128, self.pfv, self.hpda, self.digests.bits, self.maxr2t)


@dataclass(frozen=True, slots=True)
class IcResp:
    """Initialize Connection Response; ``maxh2cdata`` in bytes."""

    pfv: int = 0
    cpda: int = 0
    digests: Digests = NO_DIGESTS
    maxh2cdata: int = 131072

    def pack(self) -> bytes:
        """128 bytes."""
        return IC_RESP_HEAD.pack(
            PduType.IC_RESP, 0, 128, 0, 128, self.pfv, self.cpda, self.digests.bits, self.maxh2cdata
        )


@dataclass(frozen=True, slots=True)
class TermReq:
    """Either side gives up the connection: why (``FatalError``), where, and the header it did not accept."""

    from_host: bool
    fes: int
    fei: int = 0
    header: bytes = b""

    def pack(self) -> bytes:
        """The PDU; at most 152 bytes."""
        kind = PduType.H2C_TERM if self.from_host else PduType.C2H_TERM
        echoed = self.header[: TERM_MAX - 24]
        return TERM_HEAD.pack(kind, 0, 24, 0, 24 + len(echoed), self.fes, self.fei) + echoed


class CapsuleCmd(NamedTuple):
    """A command and what came in the capsule; ``digest_error``: ``data`` did not match its digest.

    A tuple, as the other PDUs that come with every I/O: they are made twice as fast as a frozen dataclass.
    """

    command: Command
    data: Raw = b""
    digest_error: bool = False


class CapsuleResp(NamedTuple):
    """A completion."""

    completion: Completion


class H2CData(NamedTuple):
    """Payload towards the controller, answering the R2T with tag ``ttag``."""

    cid: int
    ttag: int
    offset: int
    data: Raw
    last: bool
    digest_error: bool = False


class C2HData(NamedTuple):
    """Payload towards the host; with ``success`` it is also the completion of the command."""

    cid: int
    offset: int
    data: Raw
    last: bool
    success: bool
    digest_error: bool = False


@dataclass(frozen=True, slots=True)
class R2T:
    """The controller asks for ``length`` bytes of the command's payload from ``offset``."""

    cid: int
    ttag: int
    offset: int
    length: int


Pdu = IcReq | IcResp | TermReq | CapsuleCmd | CapsuleResp | H2CData | C2HData | R2T


def digest(data: Raw) -> bytes:
    """CRC32C as it stands on the wire."""
    return crc32c(data).to_bytes(4, "little")


def _start(header: int, digests: Digests, size: int, alignment: int) -> tuple[int, int, int]:
    """FLAGS, PDO and PLEN of a PDU with ``size`` bytes of payload."""
    end = header + DIGEST_SIZE * digests.header
    if not size:
        return FLAG_HDGST * digests.header, 0, end
    pdo = -(-end // alignment) * alignment
    return digests.bits, pdo, pdo + size + DIGEST_SIZE * digests.data


def _pieces(header: bytes, pdo: int, data: Raw, digests: Digests) -> list[Raw]:
    if digests.header:
        header += digest(header)
    if not pdo:
        return [header]
    pieces: list[Raw] = [header.ljust(pdo, b"\0"), data]
    if digests.data:
        pieces.append(digest(data))
    return pieces


def capsule_cmd(command: Command, data: Raw = b"", digests: Digests = NO_DIGESTS, alignment: int = 4) -> list[Raw]:
    """A command capsule; ``alignment`` is (CPDA + 1) * 4."""
    flags, pdo, plen = _start(72, digests, len(data), alignment)
    header = COMMON.pack(PduType.CAPSULE_CMD, flags, 72, pdo, plen) + command.pack()
    return _pieces(header, pdo, data, digests)


def capsule_resp(completion: Completion, digests: Digests = NO_DIGESTS) -> bytes:
    """A response capsule."""
    if not digests.header:
        return _RESP_HEAD + completion.pack()
    header = COMMON.pack(PduType.CAPSULE_RESP, FLAG_HDGST, 24, 0, 28) + completion.pack()
    return header + digest(header)


_RESP_HEAD = COMMON.pack(PduType.CAPSULE_RESP, 0, 24, 0, 24)


def h2c_data(pdu: H2CData, digests: Digests = NO_DIGESTS, alignment: int = 4) -> list[Raw]:
    """Payload towards the controller."""
    size = len(pdu.data)
    flags, pdo, plen = _start(24, digests, size, alignment)
    flags |= FLAG_LAST * pdu.last
    header = H2C_DATA_HEAD.pack(PduType.H2C_DATA, flags, 24, pdo, plen, pdu.cid, pdu.ttag, pdu.offset, size)
    return _pieces(header, pdo, pdu.data, digests)


def c2h_data(pdu: C2HData, digests: Digests = NO_DIGESTS, alignment: int = 4) -> list[Raw]:
    """Payload towards the host; ``alignment`` is (HPDA + 1) * 4."""
    size = len(pdu.data)
    if size and alignment == 4 and not digests.header and not digests.data:  # the common case, without detours
        flags = FLAG_LAST * pdu.last | FLAG_SUCCESS * pdu.success
        return [C2H_DATA_HEAD.pack(_C2H_DATA, flags, 24, 24, 24 + size, pdu.cid, pdu.offset, size), pdu.data]
    flags, pdo, plen = _start(24, digests, size, alignment)
    flags |= FLAG_LAST * pdu.last | FLAG_SUCCESS * pdu.success
    header = C2H_DATA_HEAD.pack(PduType.C2H_DATA, flags, 24, pdo, plen, pdu.cid, pdu.offset, size)
    return _pieces(header, pdo, pdu.data, digests)


def r2t(pdu: R2T, digests: Digests = NO_DIGESTS) -> bytes:
    """Ready to transfer."""
    flags, _, plen = _start(24, digests, 0, 4)
    header = R2T_HEAD.pack(PduType.R2T, flags, 24, 0, plen, pdu.cid, pdu.ttag, pdu.offset, pdu.length)
    return header + digest(header) if digests.header else header
