"""JSON text as SPDK reads it: complete, incomplete or wrong, never a guess and never a crash.

Why: the RPC socket is a byte stream, so a reader must tell "not all of it yet" from "this can never become
JSON" at every cut, and must count values and depth while it reads (lib/json/json_parse.c).  Python's own
``json`` can do neither.  This module must never open or send anything.

Invariants: what was consumed is never read twice, and the bytes of an incomplete string or number not for every
piece that arrives, so that the work grows with the text however it is cut; a number keeps its text when a plain
integer would lose it; an object remembers which of its names came twice.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import Final

MAX_DEPTH: Final = 64
"""Nesting that lib/json accepts (SPDK_JSON_MAX_NESTING_DEPTH)."""

_BLANK: Final = re.compile(rb"[ \t\r\n]*+")
_BLANK_OR_COMMENT: Final = re.compile(rb"(?:[ \t\r\n]++|//[^\r\n]*+|/\*.*?\*/)*+", re.DOTALL)
_STRING_BODY: Final = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
_CUT_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+")
_CUT_NUMBER: Final = re.compile(rb"-?(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?+(?:(?<=[0-9])[eE][+-]?[0-9]*+)?+)?+\Z")
_DIGITS: Final = re.compile(rb"[0-9]*+\Z")
_UTF8: Final = codecs.getincrementaldecoder("utf-8")
_PLAIN_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,19}")
_LITERALS: Final = {ord("t"): (b"true", True), ord("f"): (b"false", False), ord("n"): (b"null", None)}
_U64_MAX: Final = (1 << 64) - 1


class JsonSyntaxError(ValueError):
    """The bytes cannot become JSON whatever follows."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number whose text is not a plain integer: ``1.5``, ``1e3``, ``-0`` or more than 20 digits."""

    text: str

    def to_int(self) -> int | None:
        """Its whole value as lib/json/json_util.c computes it; None with a fraction or beyond 64 bits."""
        mantissa, _, exponent_text = self.text.lower().partition("e")
        whole, _, fraction = mantissa.partition(".")
        digits = (whole.lstrip("-") + fraction).lstrip("0")
        if len(digits) > 20 or len(exponent_text) > 20:
            return None
        significand = int(digits or "0")
        exponent = int(exponent_text or "0") - len(fraction)
        if significand > _U64_MAX:
            return None
        while exponent < 0 and significand >= 10 and significand % 10 == 0:
            significand //= 10
            exponent += 1
        while exponent > 0 and 0 < significand <= _U64_MAX // 10:
            significand *= 10
            exponent -= 1
        if exponent and not (significand == 0 and exponent > 0):
            return None
        return -significand if self.text.startswith("-") else significand


class JsonObject(dict[str, object]):
    """An object; ``twice`` holds the names that it has more than once."""

    __slots__ = ("twice",)

    def __init__(self) -> None:
        super().__init__()
        self.twice: set[str] = set()


@dataclass(slots=True)
class _Open:
    """A container that is not closed yet, and what may come next in it."""

    value: JsonObject | list[object]
    name: str | None = None
    expect: str = "first"  # first, value, name, colon, comma

    def put(self, item: object) -> None:
        if isinstance(self.value, list):
            self.value.append(item)
        else:
            name = self.name or ""
            if name in self.value:
                self.value.twice.add(name)
            else:
                self.value[name] = item
        self.expect = "comma"


@dataclass(slots=True)
class Reader:
    """Reads one JSON value after the other from bytes that arrive in any pieces.

    ``feed`` adds bytes, ``next`` answers ``(value, number of values in it)`` or None when more bytes are
    needed.  ``comments`` allows ``//`` and ``/* */`` (start-up configuration files).
    """

    comments: bool = False
    _data: bytearray = field(default_factory=bytearray)
    _at: int = 0
    _stack: list[_Open] = field(default_factory=list)
    _count: int = 0
    _seen: int = 0  # where the incomplete string or number at ``_at`` has been looked at up to; 0: not at all
    _utf8: codecs.IncrementalDecoder = field(default_factory=_UTF8)

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._data += data

    @property
    def pending_bytes(self) -> int:
        """Bytes of the value that is not complete yet."""
        return len(self._data)

    def next(self) -> tuple[object, int] | None:
        """The next complete value; raises ``JsonSyntaxError``."""
        while True:
            self._skip_blank()
            if self._at >= len(self._data):
                if not self._stack:
                    self._drop()
                return None
            done, value = self._step(self._data[self._at])
            if done == "cut":
                return None
            if done == "value":
                self._count += 1
                if not self._stack:
                    return self._finish(value)
                self._stack[-1].put(value)
            elif done == "closed" and not self._stack:
                return self._finish(value)

    def _finish(self, value: object) -> tuple[object, int]:
        count, self._count = self._count, 0
        self._drop()
        return value, count

    def _drop(self) -> None:
        del self._data[: self._at]
        self._at = 0

    def _skip_blank(self) -> None:
        pattern = _BLANK_OR_COMMENT if self.comments else _BLANK
        match = pattern.match(self._data, self._at)
        if match is not None:
            self._at = match.end()

    def _step(self, byte: int) -> tuple[str, object]:
        """One token: ("value", it), ("closed", container), ("cut", None) or ("", None) for punctuation."""
        top = self._stack[-1] if self._stack else None
        expect = top.expect if top else "value"
        in_object = top is not None and not isinstance(top.value, list)
        if byte in b"{[":
            self._need(expect == "value" or (expect == "first" and not in_object))
            if len(self._stack) == MAX_DEPTH:
                raise JsonSyntaxError("nested too deeply")
            self._stack.append(_Open(JsonObject() if byte == ord("{") else []))
            self._at += 1
            self._count += 1
            return "", None
        if byte in b"}]":
            return self._close(top, expect, is_object=byte == ord("}"))
        if byte in b",:":
            wanted = "comma" if byte == ord(",") else "colon"
            self._need(expect == wanted)
            assert top is not None
            top.expect = "value" if byte == ord(":") or not in_object else "name"
            self._at += 1
            return "", None
        if byte == ord('"') and in_object and expect in ("first", "name"):
            return self._name(top)
        self._need(expect == "value" or (expect == "first" and not in_object))
        if byte == ord('"'):
            text = self._string()
            return ("cut", None) if text is None else ("value", text)
        if 0x30 <= byte <= 0x39 or byte == ord("-"):
            return self._number()
        return self._literal(byte)

    def _need(self, allowed: bool) -> None:
        if not allowed:
            raise JsonSyntaxError("unexpected character")

    def _close(self, top: _Open | None, expect: str, *, is_object: bool) -> tuple[str, object]:
        self._need(top is not None and expect in ("first", "comma"))
        assert top is not None
        self._need(is_object != isinstance(top.value, list))
        self._stack.pop()
        self._at += 1
        self._count += 1
        if self._stack:
            self._stack[-1].put(top.value)
        return "closed", top.value

    def _name(self, top: _Open | None) -> tuple[str, object]:
        assert top is not None
        text = self._string()
        if text is None:
            return "cut", None
        top.name = text
        top.expect = "colon"
        self._count += 1
        return "", None

    def _string(self) -> str | None:
        known = max(self._seen, self._at + 1)
        match = _STRING_BODY.match(self._data, known)
        assert match is not None
        end = match.end()
        complete = end < len(self._data) and self._data[end] == ord('"')
        if not complete and end < len(self._data) and not _CUT_ESCAPE.match(self._data, end):
            raise JsonSyntaxError("wrong character in a string")
        try:
            self._utf8.decode(bytes(self._data[known:end]), complete)
        except UnicodeDecodeError as error:
            raise JsonSyntaxError("not UTF-8") from error
        if not complete:
            self._seen = end
            return None
        text = self._data[self._at + 1 : end].decode()
        self._at, self._seen = end + 1, 0
        self._utf8.reset()
        if "\\" not in text:
            return text
        decoded = str(json.loads(f'"{text}"'))
        if any("\ud800" <= character <= "\udfff" for character in decoded):
            raise JsonSyntaxError("half of a surrogate pair")
        return decoded

    def _number(self) -> tuple[str, object]:
        # Inside a container a number that ends with the data may still grow; at the top it is complete,
        # since lib/json takes it so.
        data, known = self._data, self._seen
        if known - self._at > 2 and chr(data[known - 1]).isdigit() and _DIGITS.match(data, known):
            self._seen = len(data)  # digits went on as digits, and the sign and a leading zero are behind
            return "cut", None
        match = _NUMBER.match(self._data, self._at)
        whole = match is not None and match.end() == len(self._data)
        if (self._stack or not whole) and _CUT_NUMBER.match(self._data, self._at):
            self._seen = len(data)
            return "cut", None
        self._seen = 0
        if match is None:
            raise JsonSyntaxError("wrong number")
        text = match.group()
        following = self._data[match.end() : match.end() + 1]
        self._need(bytes(following) not in (b".", b"e", b"E"))
        self._at = match.end()
        return "value", int(text) if _PLAIN_INTEGER.fullmatch(text) else Number(text.decode())

    def _literal(self, byte: int) -> tuple[str, object]:
        if byte not in _LITERALS:
            raise JsonSyntaxError("unexpected character")
        word, value = _LITERALS[byte]
        there = bytes(self._data[self._at : self._at + len(word)])
        if not word.startswith(there):
            raise JsonSyntaxError("unexpected word")
        if there != word:
            return "cut", None
        self._at += len(word)
        return "value", value
