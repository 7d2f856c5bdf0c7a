"""Fixed byte layouts as frozen dataclasses: one line a field, with its offset from the specification.

Why: Identify structures have a hundred fields; a table of (offset, format) beside the name is the only form
in which they can be checked against the specification line by line.  This module must never hold a protocol
rule.  Invariants: bytes no field names are zero when built and ignored when parsed; parsing never reads past
``SIZE`` bytes, and a shorter input is read as if zeroes followed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, ClassVar, Self

Raw = bytes | bytearray | memoryview
_Reader = Callable[[bytes], object]
_Writer = Callable[[Any], bytes]


def at(offset: int, kind: str, default: object = 0) -> Any:  # noqa: ANN401  # as dataclasses.field: any field type
    """A field at byte ``offset``.

    ``kind``: a struct code (``B H I Q``, little-endian), ``u128`` (integer), ``<n>s`` (bytes, zero padded),
    ``<n>a`` (ASCII padded with spaces, as serial numbers are) or ``<n>z`` (text ended by a zero byte, as NQNs
    are).
    """
    if default == 0 and kind[-1] == "s":
        default = bytes(int(kind[:-1]))
    elif default == 0 and kind[-1] in "az":
        default = ""
    return field(default=default, metadata={"at": offset, "kind": kind})


def _coder(kind: str) -> tuple[int, _Reader, _Writer]:
    """Length in bytes, parse, build."""
    if kind == "u128":
        return 16, lambda raw: int.from_bytes(raw, "little"), lambda value: value.to_bytes(16, "little")
    if kind[-1] in "saz" and len(kind) > 1:
        size = int(kind[:-1])
        if kind[-1] == "s":
            return size, bytes, lambda value: value[:size].ljust(size, b"\0")
        if kind[-1] == "a":
            return (
                size,
                lambda raw: raw.decode("ascii", "replace").rstrip(" \0"),
                lambda value: value.encode("ascii", "replace")[:size].ljust(size),
            )
        return (
            size,
            lambda raw: raw.split(b"\0", 1)[0].decode("utf-8", "replace"),
            lambda value: value.encode()[: size - 1].ljust(size, b"\0"),
        )
    packer = struct.Struct("<" + kind)
    return packer.size, lambda raw: packer.unpack(raw)[0], packer.pack


_Row = tuple[str, int, int, _Reader, _Writer]
_TABLES: dict[type, tuple[_Row, ...]] = {}


def _table(cls: type[Layout]) -> tuple[_Row, ...]:
    known = _TABLES.get(cls)
    if known is not None:
        return known
    rows: list[_Row] = []
    for item in fields(cls):  # type: ignore[arg-type]  # every Layout subclass is a dataclass
        if "at" in item.metadata:
            size, read, write = _coder(item.metadata["kind"])
            rows.append((item.name, item.metadata["at"], size, read, write))
    _TABLES[cls] = tuple(rows)
    return _TABLES[cls]


class Layout:
    """Base of the fixed layouts; a subclass is a frozen slots dataclass of ``at`` fields with a ``SIZE``."""

    __slots__ = ()
    SIZE: ClassVar[int] = 0

    def pack(self) -> bytes:
        """``SIZE`` bytes."""
        raw = bytearray(self.SIZE)
        for name, start, size, _, write in _table(type(self)):
            raw[start : start + size] = write(getattr(self, name))
        return bytes(raw)

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """The value in the first ``SIZE`` bytes of ``raw``."""
        whole = bytes(raw[: cls.SIZE]).ljust(cls.SIZE, b"\0")
        values = {name: read(whole[start : start + size]) for name, start, size, read, _ in _table(cls)}
        return cls(**values)
