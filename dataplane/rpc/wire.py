"""JSON-RPC 2.0 over a byte stream, without I/O: requests to bytes, bytes to replies, ids matched.

Why: the end of a JSON value in a stream has to be found while it arrives.  Trying to decode everything anew
after each read costs time in the square of the reply's size (measured with SPDK's own client: 3.5 MB take 8 s)
and breaks where a read ends inside a character.  Here each byte is looked at once, as a byte, and decoded once,
when its value is complete.  This module must never touch a socket or a clock.

Theory: SPDK's replies are objects, so outside of strings the depth of brackets finds the end, and inside of
strings brackets do not count.  Every delimiter is ASCII and no byte of a multi-byte UTF-8 character is, so
looking at bytes is exact.  ``ValueSplitter`` keeps (depth, inside a string) between reads and resumes where it
stopped; regular expressions skip what cannot matter, and of a long value whole blocks are counted at once.

Invariants: cutting the stream elsewhere gives the same values; an answer is given to the request with its
number and to no other; a number is never used twice within a session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dataplane.rpc.call import without_none
from dataplane.rpc.jsontype import Json

# lib/jsonrpc/jsonrpc_internal.h: SPDK_JSONRPC_RECV_BUF_SIZE; a request that does not fit closes the connection.
MAX_REQUEST_BYTES: Final = 256 * 1024 - 1
# SPDK_JSONRPC_MAX_VALUES, counted as SPDK's parser counts (names, values, and two for each container).
MAX_REQUEST_VALUES: Final = 8192
# SPDK itself stops at 32 MiB (SPDK_JSONRPC_SEND_BUF_SIZE_MAX).
MAX_REPLY_BYTES: Final = 64 * 1024 * 1024

_OPEN: Final = b"{["
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
# Outside of a string: all up to the next bracket, whole strings included.
_SKIP: Final = re.compile(rb'[^"{}\[\]]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"{}\[\]]*+)*+', re.DOTALL)
# Inside of a string: all up to its end.
_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# So much of a long value is counted at once, and what is left of it then: quotes, backslashes and brackets.
_BLOCK_BYTES: Final = 8 * 1024
_NO_MARKS: Final = bytes(set(range(256)) - set(b'"\\{}[]'))


class WireError(ValueError):
    """The bytes are no stream of JSON objects, or the peer could not read ours: the connection is useless now."""


class Repeated(list[Any]):
    """The values of a name that stands several times in one object, in order.

    SPDK repeats ``temperature_sensor_celsius`` once per sensor (module/bdev/nvme/bdev_nvme_rpc.c); a plain
    dict would keep only the last.
    """

    __slots__ = ()


def _keep_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    seen: dict[str, list[Any]] = {}
    for name, value in pairs:
        seen.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else Repeated(values) for name, values in seen.items()}


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_keep_repeated)
_LAST_DECODER: Final = json.JSONDecoder()
_ENCODER: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=True)


def decode(text: bytes, *, repeated: bool = True) -> Json:
    """One JSON value; repeated names become ``Repeated``, or without ``repeated`` the last value stands, which is
    the one that ``reply.Fields`` reads, and takes two thirds of the time.  Raises ``WireError``."""
    try:
        return (_DECODER if repeated else _LAST_DECODER).decode(text.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise WireError(f"not JSON: {type(problem).__name__}") from problem


def encode_request(number: int, method: str, params: dict[str, Any] | None) -> bytes:
    """One request.  Parameters that are ``None`` are left out, and so is an empty ``params``, because many
    SPDK methods refuse one.  Raises ``TypeError`` or ``ValueError`` for what JSON cannot say."""
    request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": number}
    kept = without_none(params)
    if kept:
        request["params"] = kept
    return _ENCODER.encode(request).encode("ascii")


def count_values(value: Json) -> int:
    """How many values SPDK's parser counts for ``value`` (lib/json/json_parse.c)."""
    if isinstance(value, dict):
        return 2 + sum(1 + count_values(item) for item in value.values())
    if isinstance(value, list | tuple):
        return 2 + sum(count_values(item) for item in value)
    return 1


class ValueSplitter:
    """Cuts a stream of JSON objects and arrays into one piece of bytes per value, in linear time."""

    def __init__(self, limit_bytes: int = MAX_REPLY_BYTES) -> None:
        self._limit = limit_bytes
        self._held = bytearray()
        self._at = 0  # how far the held bytes were looked at
        self._depth = 0
        self._in_string = False
        self._leap_from = 0  # up to here a block was looked at as a whole, in vain

    @property
    def held_bytes(self) -> int:
        """Bytes of a value that is not complete yet."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return every value that is now complete.  Raises ``WireError``, and then is of no more use."""
        self._held += data
        done: list[bytes] = []
        start = 0
        while True:
            end = self._scan()
            if end is None:
                break
            done.append(bytes(self._held[start:end]).lstrip(b" \t\r\n"))
            start = end
        if not self._depth:
            start = self._at  # white space between two values; SPDK ends each answer with a line feed
        if start:
            del self._held[:start]
            self._at -= start
            self._leap_from -= start
        if len(self._held) > self._limit:
            raise WireError(f"a value is longer than {self._limit} bytes")
        return done

    def _scan(self) -> int | None:
        """Go on from ``_at``; the position behind the value that ended, or None when the bytes are used up."""
        held, at, depth, size = self._held, self._at, self._depth, len(self._held)
        while at < size:
            if self._in_string:
                at = _end(_TEXT.match(held, at))
                if at >= size or held[at] != 0x22:  # used up, or a backslash whose partner is still to come
                    break
                self._in_string = False
                at += 1
                continue
            if depth and at >= self._leap_from and size - at >= _BLOCK_BYTES:
                at, depth = self._leap(at, depth)
            at = _end((_SKIP if depth else _SPACE).match(held, at))
            if at >= size:
                break
            byte = held[at]
            if not depth and byte not in _OPEN:
                raise WireError("a value begins with something other than { or [")
            at += 1
            if byte == 0x22:
                self._in_string = True
            elif byte in _OPEN:
                depth += 1
            else:
                depth -= 1
                if not depth:
                    self._at, self._depth = at, 0
                    return at
        self._at, self._depth = at, depth
        return None

    def _leap(self, at: int, depth: int) -> tuple[int, int]:
        """Go over blocks in which the value surely does not end; (where to go on, the depth there).

        Outside of strings, quotes come in pairs.  Once the pairs that stand together are taken out, a quote is left
        if a string has a bracket or a backslash in it; then the regular expressions go over the block.  Brackets that
        open and close at once do not count either; if fewer closing ones are left than the value is deep, it does not
        end here."""
        held = self._held
        while len(held) - at >= _BLOCK_BYTES:
            end = held.rfind(b'"', at, at + _BLOCK_BYTES) + 1
            marks = held[at:end].translate(None, _NO_MARKS)
            if marks.count(b'"') % 2:  # the last one begins a string
                del marks[-1]
                end -= 1
            marks = marks.replace(b'""', b"")
            for pair in (b"{}", b"[]", b"{}", b"[]", b"{}"):
                marks = marks.replace(pair, b"")
            closing = marks.count(b"}") + marks.count(b"]")
            if end <= at or closing >= depth or b'"' in marks or b"\\" in marks:
                self._leap_from = at + _BLOCK_BYTES
                break
            depth += len(marks) - 2 * closing
            at = end
        return at, depth


def _end(found: re.Match[bytes] | None) -> int:
    assert found is not None, "both patterns match the empty string"
    return found.end()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: ``error`` is the error object, or None; ``result`` is then the value."""

    number: int
    result: Json = None
    error: Json = None


class Conversation:
    """The replies of one connection, matched with the numbers that were sent over it."""

    def __init__(self, limit_bytes: int = MAX_REPLY_BYTES) -> None:
        self._splitter = ValueSplitter(limit_bytes)
        self._open: set[int] = set()
        self.strays = 0

    @property
    def unanswered(self) -> frozenset[int]:
        """The numbers that still wait."""
        return frozenset(self._open)

    @property
    def in_doubt(self) -> bool:
        """Whether something came that no call asked for; then the other side counts otherwise than we do."""
        return self.strays > 0 or (not self._open and self._splitter.held_bytes > 0)

    def sent(self, number: int) -> None:
        """``number`` is on its way; only from now on an answer to it counts."""
        self._open.add(number)

    def feed(self, data: bytes, *, repeated: bool = True) -> list[Reply]:
        """The answers that are complete with ``data``; ``repeated`` as for ``decode``.  An answer to a number that
        does not wait (a second answer, or one to a call nobody knows) is counted in ``strays`` and dropped."""
        replies: list[Reply] = []
        for text in self._splitter.feed(data):
            for message in _messages(decode(text, repeated=repeated)):
                reply = self._match(message)
                if reply is not None:
                    replies.append(reply)
        return replies

    def _match(self, message: Json) -> Reply | None:
        if not isinstance(message, dict):
            raise WireError("an answer is no object")
        if "result" not in message and "error" not in message:
            raise WireError("an answer has neither result nor error")
        number, error = message.get("id"), message.get("error")
        if number is None and error is not None:
            raise WireError("the engine could not read a request")
        if isinstance(number, bool) or not isinstance(number, int) or number not in self._open:
            self.strays += 1
            return None
        self._open.remove(number)
        if "error" in message and error is not None:
            return Reply(number, error=error)
        return Reply(number, result=message.get("result"))


def _messages(value: Json) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    else:
        yield value
