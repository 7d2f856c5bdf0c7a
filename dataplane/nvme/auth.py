"""In-band authentication: the two commands and the messages that they carry.

Why: whoever speaks first here is not known yet, so every length is checked before a byte is used.  This module must
never know a secret nor decide what comes next.

Invariants: ``X.parse(x.pack()) == x`` for every message; a message that is not exactly right raises ``BadMessage``
with the reason that the answer to it carries.  With ``padded`` (what a host receives into a larger buffer) bytes
may follow.
Sources: NVMe base 2.0c sections 6.1, 6.2 (commands) and 8.13.5 (messages); SPDK v26.05 include/spdk/nvmf_spec.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Self

from dataplane.nvme.commands import AdminOp, Command, FabricsType
from dataplane.nvme.layout import Raw

_PROTOCOL_NVME: Final = 0xE9  # SECP
_SPECIFIC: Final = 0x0101  # SPSP1, SPSP0
AUTH_TYPES: Final = (FabricsType.AUTH_SEND, FabricsType.AUTH_RECEIVE)
RECEIVE_SIZE: Final = 4096
LIST_MAX: Final = 30
DHCHAP: Final = 1  # the authentication protocol identifier
DH_VALUE_MAX: Final = RECEIVE_SIZE - 16


class Kind(IntEnum):
    """AUTH_TYPE << 8 | AUTH_ID, so that one number names a message."""

    NEGOTIATE = 0x000
    CHALLENGE = 0x101
    REPLY = 0x102
    SUCCESS1 = 0x103
    SUCCESS2 = 0x104
    FAILURE2 = 0x0F0
    FAILURE1 = 0x0F1


class Reason(IntEnum):
    """Reason code explanations of a failure message."""

    FAILED = 1
    PROTOCOL_UNUSABLE = 2
    CONCATENATION_MISMATCH = 3
    HASH_UNUSABLE = 4
    GROUP_UNUSABLE = 5
    INCORRECT_PAYLOAD = 6
    INCORRECT_MESSAGE = 7


class BadMessage(Exception):
    """What came cannot be used; ``reason`` is what the peer is told, the text what the log is told."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def _payload(what: str) -> BadMessage:
    return BadMessage(Reason.INCORRECT_PAYLOAD, what)


# Commands


def auth_send(size: int) -> Command:
    """Authentication Send of ``size`` bytes."""
    return _command(FabricsType.AUTH_SEND, size).with_data(size, in_capsule=True)


def auth_receive(size: int = RECEIVE_SIZE) -> Command:
    """Authentication Receive into a buffer of ``size`` bytes."""
    return _command(FabricsType.AUTH_RECEIVE, size).with_data(size, in_capsule=False)


def _command(fctype: FabricsType, size: int) -> Command:
    return Command(AdminOp.FABRICS, nsid=fctype, cdw10=_PROTOCOL_NVME << 24 | _SPECIFIC << 8, cdw11=size)


def is_auth(command: Command) -> bool:
    """Whether it is one of the two."""
    return command.opcode == AdminOp.FABRICS and command.fctype in AUTH_TYPES


def is_well_formed(command: Command) -> bool:
    """Whether protocol, protocol specific fields and length are those of an authentication command."""
    return command.cdw10 >> 8 == _PROTOCOL_NVME << 16 | _SPECIFIC and command.cdw11 == command.length


# Messages

_HEADER: Final = struct.Struct("<BB2xH")
_NEGOTIATE: Final = struct.Struct("<BB2xHBB")
_PROTOCOL: Final = struct.Struct("<BxBB30s30s")
_CHALLENGE: Final = struct.Struct("<BB2xHBxBBHI")
_REPLY: Final = struct.Struct("<BB2xHBxBxHI")
_SUCCESS1: Final = struct.Struct("<BB2xHBxB7x")
_SUCCESS2: Final = struct.Struct("<BB2xH10x")
_FAILURE: Final = struct.Struct("<BB2xHBB")
FAILURE_SIZE: Final = _FAILURE.size
_FAILURE_CODE: Final = 1


class Header(NamedTuple):
    """What every message begins with; ``kind`` may be none of ``Kind``."""

    kind: int
    tid: int

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Raises ``BadMessage``."""
        if len(raw) < _HEADER.size:
            raise _payload(f"a message of {len(raw)} bytes")
        auth_type, auth_id, tid = _HEADER.unpack_from(raw)
        return cls(auth_type << 8 | auth_id, tid)


def _ids(kind: Kind) -> tuple[int, int]:
    return kind >> 8, kind & 0xFF


def _check_size(name: str, raw: Raw, size: int, *, padded: bool = False) -> None:
    if len(raw) < size or (len(raw) > size and not padded):
        raise _payload(f"{name} of {len(raw)} bytes, not {size}")


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol that a host offers, with hash functions and DH groups by identifier."""

    digests: tuple[int, ...]
    groups: tuple[int, ...]
    protocol: int = DHCHAP

    def _pack(self) -> bytes:
        digests, groups = bytes(self.digests), bytes(self.groups)
        return _PROTOCOL.pack(self.protocol, len(digests), len(groups), digests, groups)


@dataclass(frozen=True, slots=True)
class Negotiate:
    """AUTH_Negotiate: what the host can do; ``concatenation`` is SC_C."""

    tid: int
    protocols: tuple[Protocol, ...]
    concatenation: int = 0

    def pack(self) -> bytes:
        """The message."""
        head = _NEGOTIATE.pack(*_ids(Kind.NEGOTIATE), self.tid, self.concatenation, len(self.protocols))
        return head + b"".join(item._pack() for item in self.protocols)

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Raises ``BadMessage``, also where DH-HMAC-CHAP is not offered, in the order of SPDK's checks."""
        if len(raw) < _NEGOTIATE.size:
            raise _payload(f"a negotiation of {len(raw)} bytes")
        _, _, tid, concatenation, count = _NEGOTIATE.unpack_from(raw)
        _check_size("a negotiation", raw, _NEGOTIATE.size + count * _PROTOCOL.size)
        if concatenation:
            raise BadMessage(Reason.CONCATENATION_MISMATCH, "secure channel concatenation is not offered")
        rows = [_PROTOCOL.unpack_from(raw, _NEGOTIATE.size + index * _PROTOCOL.size) for index in range(count)]
        chosen = next((row for row in rows if row[0] == DHCHAP), None)
        if chosen is None:
            raise BadMessage(Reason.PROTOCOL_UNUSABLE, "DH-HMAC-CHAP is not offered")
        if chosen[1] > LIST_MAX or chosen[2] > LIST_MAX:
            raise _payload(f"{chosen[1]} hash functions and {chosen[2]} DH groups in a list of {LIST_MAX}")
        protocols = tuple(
            Protocol(tuple(digests[:halen]), tuple(groups[:dhlen]), protocol)
            for protocol, halen, dhlen, digests, groups in rows
        )
        return cls(tid, protocols, concatenation)

    @property
    def dhchap(self) -> Protocol:
        """The offer of DH-HMAC-CHAP."""
        return next(item for item in self.protocols if item.protocol == DHCHAP)


@dataclass(frozen=True, slots=True)
class Challenge:
    """DH-HMAC-CHAP_Challenge: ``digest`` and ``group`` are identifiers, ``public`` the controller's DH value."""

    tid: int
    digest: int
    group: int
    seqnum: int
    challenge: bytes
    public: bytes = b""

    def pack(self) -> bytes:
        """The message."""
        head = _CHALLENGE.pack(
            *_ids(Kind.CHALLENGE), self.tid, len(self.challenge), self.digest, self.group, len(self.public),
            self.seqnum,
        )  # fmt: skip
        return head + self.challenge + self.public

    @classmethod
    def parse(cls, raw: Raw, *, padded: bool = False) -> Self:
        """Raises ``BadMessage``; whether hash function, group and lengths go together is the caller's to check."""
        if len(raw) < _CHALLENGE.size:
            raise _payload(f"a challenge of {len(raw)} bytes")
        _, _, tid, size, digest, group, dh_size, seqnum = _CHALLENGE.unpack_from(raw)
        _check_size("a challenge", raw, _CHALLENGE.size + size + dh_size, padded=padded)
        if not seqnum:
            raise _payload("a challenge with the sequence number 0")
        middle = _CHALLENGE.size + size
        return cls(
            tid, digest, group, seqnum, bytes(raw[_CHALLENGE.size : middle]), bytes(raw[middle : middle + dh_size])
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """DH-HMAC-CHAP_Reply: the host's response, its own challenge (empty: none) and its DH value."""

    tid: int
    response: bytes
    challenge: bytes = b""
    seqnum: int = 0
    public: bytes = b""

    def pack(self) -> bytes:
        """The message; the place of the challenge is there even when there is none."""
        size = len(self.response)
        head = _REPLY.pack(
            *_ids(Kind.REPLY), self.tid, size, bool(self.challenge), len(self.public), self.seqnum
        )  # fmt: skip
        return head + self.response + (self.challenge or bytes(size)) + self.public

    @classmethod
    def parse(cls, raw: Raw, hash_size: int) -> Self:
        """Raises ``BadMessage``; ``hash_size`` is that of the hash function agreed on."""
        if len(raw) < _REPLY.size:
            raise _payload(f"a reply of {len(raw)} bytes")
        _, _, tid, size, valid, dh_size, seqnum = _REPLY.unpack_from(raw)
        if size != hash_size or dh_size % 4 or valid > 1 or (valid and not seqnum):
            raise _payload(f"a reply with HL {size}, DHVLEN {dh_size}, CVALID {valid}, SEQNUM {seqnum}")
        _check_size("a reply", raw, _REPLY.size + 2 * size + dh_size)
        first, second = _REPLY.size + size, _REPLY.size + 2 * size
        challenge = bytes(raw[first:second]) if valid else b""
        return cls(tid, bytes(raw[_REPLY.size : first]), challenge, seqnum, bytes(raw[second:]))


@dataclass(frozen=True, slots=True)
class Success1:
    """DH-HMAC-CHAP_Success1: the host is who it says; ``response`` (empty: none) says so of the controller.

    HL is that of the hash function even without a response, because Linux wants it so.
    """

    tid: int
    hash_size: int
    response: bytes = b""

    def pack(self) -> bytes:
        """The message."""
        return _SUCCESS1.pack(*_ids(Kind.SUCCESS1), self.tid, self.hash_size, bool(self.response)) + self.response

    @classmethod
    def parse(cls, raw: Raw, *, padded: bool = False) -> Self:
        """Raises ``BadMessage``."""
        if len(raw) < _SUCCESS1.size:
            raise _payload(f"a success message of {len(raw)} bytes")
        _, _, tid, size, valid = _SUCCESS1.unpack_from(raw)
        shown = size if valid else 0
        _check_size("a success message", raw, _SUCCESS1.size + shown, padded=padded)
        return cls(tid, size, bytes(raw[_SUCCESS1.size : _SUCCESS1.size + shown]))


@dataclass(frozen=True, slots=True)
class Success2:
    """DH-HMAC-CHAP_Success2: the controller is who it says."""

    tid: int

    def pack(self) -> bytes:
        """The message."""
        return _SUCCESS2.pack(*_ids(Kind.SUCCESS2), self.tid)

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Raises ``BadMessage``."""
        _check_size("a success message", raw, _SUCCESS2.size)
        return cls(Header.parse(raw).tid)


@dataclass(frozen=True, slots=True)
class Failure:
    """AUTH_Failure1, from the controller, or AUTH_Failure2, from the host."""

    kind: Kind
    tid: int
    reason: int

    def pack(self) -> bytes:
        """The message."""
        return _FAILURE.pack(*_ids(self.kind), self.tid, _FAILURE_CODE, self.reason)

    @classmethod
    def parse(cls, raw: Raw, *, padded: bool = False) -> Self:
        """Raises ``BadMessage``."""
        _check_size("a failure message", raw, FAILURE_SIZE, padded=padded)
        auth_type, auth_id, tid, _, reason = _FAILURE.unpack_from(raw)
        kind = next((item for item in (Kind.FAILURE1, Kind.FAILURE2) if _ids(item) == (auth_type, auth_id)), None)
        if kind is None:
            raise BadMessage(Reason.INCORRECT_MESSAGE, f"message {auth_type:X}{auth_id:02X}h is no failure")
        return cls(kind, tid, reason)

    @property
    def words(self) -> str:
        """The reason for people."""
        try:
            return Reason(self.reason).name.lower().replace("_", " ")
        except ValueError:
            return f"reason {self.reason}"
