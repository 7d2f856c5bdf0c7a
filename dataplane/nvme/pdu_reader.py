"""From a stream of bytes to PDUs, a buffer at a time.

Why: whatever arrives comes from outside and may be wrong on purpose, so every length is checked before it is
believed.  This module must never allocate by a length the peer chose beyond ``max_pdu``, never copy a payload
that arrived in one buffer, and never touch a buffer again that a payload was handed out from.

Invariants: the PDUs returned are those of the stream, however it was cut into pieces; after ``PduError`` the
reader is of no further use; a peer that has sent little holds a small buffer.  Which error is told first, and
which of its fields, follows SPDK v26.05 (lib/nvmf/tcp.c, lib/nvme/nvme_tcp.c) where SPDK defines it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dataplane.nvme.commands import Command, Completion
from dataplane.nvme.layout import Raw
from dataplane.nvme.pdu import (
    C2H_DATA_HEAD,
    COMMON,
    DIGEST_SIZE,
    FLAG_DDGST,
    FLAG_HDGST,
    FLAG_LAST,
    FLAG_SUCCESS,
    H2C_DATA_HEAD,
    HEADER_SIZE,
    IC_REQ_HEAD,
    NO_DIGESTS,
    R2T,
    R2T_HEAD,
    TERM_HEAD,
    TERM_MAX,
    C2HData,
    CapsuleCmd,
    CapsuleResp,
    Digests,
    FatalError,
    H2CData,
    IcReq,
    IcResp,
    Pdu,
    PduType,
    TermReq,
    digest,
)

_WITH_DATA = frozenset({PduType.CAPSULE_CMD, PduType.H2C_DATA, PduType.C2H_DATA})
_PLAIN = frozenset({PduType.IC_REQ, PduType.IC_RESP, PduType.H2C_TERM, PduType.C2H_TERM})
_SMALLEST_READ = 4096
_FIRST_BUFFER = 1 << 14
_WITH_FIELD = frozenset({FatalError.INVALID_HEADER, FatalError.UNSUPPORTED})  # of the others FEI is reserved
_CAPSULE_CMD = int(PduType.CAPSULE_CMD)
_CAPSULE_CMD_SIZE = HEADER_SIZE[PduType.CAPSULE_CMD]
_BARE_COMMAND = (_CAPSULE_CMD, 0, _CAPSULE_CMD_SIZE)


class PduError(Exception):
    """The peer broke the protocol; ``term`` is what section 3.6.2.3 has to say about it."""

    def __init__(self, fes: FatalError, fei: int, header: Raw, message: str) -> None:
        super().__init__(message)
        self.fes = fes
        self.fei = fei if fes in _WITH_FIELD else 0
        self.header = bytes(header)

    def term(self, *, from_host: bool) -> TermReq:
        """The termination request to send before closing."""
        return TermReq(from_host, self.fes, self.fei, self.header)


class PduReader:
    """Bytes in, PDUs out.

    ``receives`` is the set of types that this side may get, ``max_pdu`` the largest PLEN in bytes it accepts.
    ``greeting`` is the type that has to come first, and once.  Set ``digests`` once both sides have agreed on
    them; while iterating over ``advance`` is early enough.
    """

    def __init__(
        self,
        receives: frozenset[PduType],
        max_pdu: int,
        buffer_size: int = 1 << 18,
        greeting: PduType | None = None,
    ) -> None:
        self.receives = receives
        self.max_pdu = max(max_pdu, TERM_MAX)
        self.digests = NO_DIGESTS
        self._greeting = greeting
        self._greeted = greeting is None
        self._full_size = max(buffer_size, 2 * self.max_pdu)
        self._size = min(self._full_size, _FIRST_BUFFER)
        self._view = memoryview(bytearray(self._size))
        self._last = 0  # of the PDU that was yielded last
        self._start = 0  # of the PDU that is not complete yet
        self._end = 0  # of what has arrived
        self._need = COMMON.size  # bytes from _start until there is something to do
        self._shared = False  # some payload in this buffer was handed out

    def get_buffer(self) -> memoryview:
        """Where to receive into; then call ``advance`` with the number of bytes received."""
        room = self._size - self._end
        if self._start == self._end and not self._shared:
            self._start = self._end = 0
        elif room < _SMALLEST_READ or self._start + self._need > self._size:
            self._move()
        return self._view[self._end :]

    def _move(self) -> None:
        """Take the incomplete PDU to the front of a buffer of full size that nobody looks into."""
        rest = self._view[self._start : self._end]
        kept = len(rest)
        if self._shared or self._size < self._full_size:
            self._size = self._full_size
            fresh = memoryview(bytearray(self._size))
            fresh[:kept] = rest
            self._view = fresh
            self._shared = False
        else:
            self._view[:kept] = bytes(rest)
        self._start, self._end = 0, kept

    def close(self) -> None:
        """Nothing more comes: the buffer goes now, and not when the garbage collector finds the connection."""
        self._view = memoryview(b"")
        self._size = self._full_size = self._start = self._end = 0
        self._shared = False

    def feed(self, data: Raw) -> Iterator[Pdu]:
        """Copy ``data`` in and yield the PDUs that are complete; exhaust it.  Raises as ``advance`` does."""
        source = memoryview(data)
        while source:
            room = self.get_buffer()
            size = min(len(room), len(source))
            room[:size] = source[:size]
            source = source[size:]
            yield from self.advance(size)

    def advance(self, received: int) -> Iterator[Pdu]:
        """Yield the PDUs that are complete now; exhaust it before ``get_buffer`` is called again.

        Raises PduError after the PDUs that came before the offending one.  Payloads are views into the
        receive buffer, which stay valid as long as they are kept.
        """
        self._end += received
        while self._end - self._start >= self._need:
            if self._need == COMMON.size:
                self._need = self._check_start()
                continue
            pdu = self._parse()
            self._last = self._start
            self._start += self._need
            self._need = COMMON.size
            yield pdu

    def refuse(self, fes: FatalError, fei: int, message: str) -> PduError:
        """The error to raise about the PDU that was yielded last; before ``get_buffer`` is called again."""
        return self._error(self._last, fes, fei, message)

    def _fail(self, fes: FatalError, fei: int, message: str) -> PduError:
        return self._error(self._start, fes, fei, message)

    def _error(self, start: int, fes: FatalError, fei: int, message: str) -> PduError:
        header = self._view[start : min(self._end, start + 128)]
        size = header[2] if len(header) > 2 and header[2] >= COMMON.size else COMMON.size
        return PduError(fes, fei, header[:size], message)

    def _check_order(self, raw_type: int) -> None:
        """The greeting comes first, and never again; SPDK looks at this before anything else."""
        if (raw_type == self._greeting) == self._greeted:
            said = "came a second time" if self._greeted else "has to come first"
            raise self._fail(FatalError.SEQUENCE, 0, f"PDU type {raw_type:02X}h: the greeting {said}")
        self._greeted = True

    def _check_start(self) -> int:
        """Judge the common header; the length of the whole PDU."""
        raw_type, flags, hlen, pdo, plen = COMMON.unpack_from(self._view, self._start)
        if self._greeting is not None:
            self._check_order(raw_type)
        bare = plen == hlen and (raw_type, flags, hlen) == _BARE_COMMAND
        if bare and not self.digests.header and _CAPSULE_CMD in self.receives:
            return _CAPSULE_CMD_SIZE  # what every read begins with needs no further look
        if raw_type not in self.receives:
            raise self._fail(FatalError.INVALID_HEADER, 0, f"PDU type {raw_type:02X}h not expected here")
        kind = PduType(raw_type)
        if hlen != HEADER_SIZE[kind]:
            raise self._fail(FatalError.INVALID_HEADER, 2, f"{kind.name}: header length {hlen}")
        header_digest = self.digests.header and kind not in _PLAIN
        if bool(flags & FLAG_HDGST) != header_digest:
            raise self._fail(FatalError.INVALID_HEADER, 1, f"{kind.name}: header digest flag {flags:02X}h")
        end = hlen + DIGEST_SIZE * header_digest
        limit = TERM_MAX if kind in (PduType.H2C_TERM, PduType.C2H_TERM) else self.max_pdu
        if plen < end or plen > limit:
            raise self._fail(FatalError.INVALID_HEADER, 4, f"{kind.name}: length {plen}")
        if kind in _WITH_DATA:
            self._check_data(kind, flags, end, pdo, plen)
        elif plen == end if kind == PduType.H2C_TERM else plen != end and kind != PduType.C2H_TERM:
            # SPDK wants a header echoed in what it gets, and leaves it out of some that it sends.
            raise self._fail(FatalError.INVALID_HEADER, 4, f"{kind.name}: length {plen}, header {end}")
        return int(plen)

    def _check_data(self, kind: PduType, flags: int, end: int, pdo: int, plen: int) -> None:
        """Judge where the payload lies."""
        if plen == end and kind == PduType.CAPSULE_CMD:
            return
        tail = DIGEST_SIZE * self.digests.data
        if bool(flags & FLAG_DDGST) != self.digests.data:
            raise self._fail(FatalError.INVALID_HEADER, 1, f"{kind.name}: data digest flag {flags:02X}h")
        if pdo < end or pdo % 4 or pdo + tail >= plen:
            raise self._fail(FatalError.INVALID_HEADER, 3, f"{kind.name}: data offset {pdo} of {plen}")

    def _parse(self) -> Pdu:
        """The PDU at ``_start``, which is complete."""
        view, start, plen = self._view, self._start, self._need
        kind, flags, hlen, pdo, _ = COMMON.unpack_from(view, start)
        if not flags and plen == hlen and kind == _CAPSULE_CMD:
            return CapsuleCmd(Command.parse(view, start + 8))
        if flags & FLAG_HDGST:
            end = start + hlen
            if digest(view[start:end]) != view[end : end + DIGEST_SIZE]:
                raise self._fail(FatalError.HEADER_DIGEST, 0, "header digest does not match")
        data: Raw = b""
        bad = False
        if kind in _WITH_DATA and plen > hlen + DIGEST_SIZE * self.digests.header:
            stop = start + plen - DIGEST_SIZE * self.digests.data
            data = view[start + pdo : stop]
            bad = self.digests.data and digest(data) != view[stop : stop + DIGEST_SIZE]
            self._shared = True
        if kind == PduType.CAPSULE_CMD:
            return CapsuleCmd(Command.parse(view, start + 8), data, bad)
        if kind == PduType.CAPSULE_RESP:
            return CapsuleResp(Completion.parse(view, start + 8))
        if kind == PduType.H2C_DATA:
            _, _, _, _, _, cid, ttag, offset, size = H2C_DATA_HEAD.unpack_from(view, start)
            self._check_size(size, data)
            return H2CData(cid, ttag, offset, data, bool(flags & FLAG_LAST), bad)
        if kind == PduType.C2H_DATA:
            _, _, _, _, _, cid, offset, size = C2H_DATA_HEAD.unpack_from(view, start)
            self._check_size(size, data)
            return C2HData(cid, offset, data, bool(flags & FLAG_LAST), bool(flags & FLAG_SUCCESS), bad)
        return self._parse_rare(kind, start, plen)

    def _parse_rare(self, kind: int, start: int, plen: int) -> Pdu:
        if kind == PduType.R2T:
            _, _, _, _, _, cid, ttag, offset, size = R2T_HEAD.unpack_from(self._view, start)
            return R2T(cid, ttag, offset, size)
        if kind in (PduType.IC_REQ, PduType.IC_RESP):
            _, _, _, _, _, pfv, alignment, bits, number = IC_REQ_HEAD.unpack_from(self._view, start)
            agreed = Digests(bool(bits & 1), bool(bits & 2))
            if kind == PduType.IC_REQ:
                return IcReq(pfv, alignment, agreed, number)
            return IcResp(pfv, alignment, agreed, number)
        _, _, _, _, _, fes, fei = TERM_HEAD.unpack_from(self._view, start)
        header = bytes(self._view[start + 24 : start + plen])
        return TermReq(kind == PduType.H2C_TERM, fes, fei, header)

    def _check_size(self, size: int, data: Raw) -> None:
        if size != len(data):
            raise self._fail(FatalError.INVALID_HEADER, 16, f"DATAL is {size}, {len(data)} bytes came")
