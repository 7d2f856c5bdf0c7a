"""Read a JSON answer field by field, and say exactly which field is not what it should be.

Why: an answer of another shape must become one coded error, never a ``KeyError`` in the middle of a plan.
This module must never guess a value for a field that is required.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dataplane.rpc.errors import ReplyError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.wire import Repeated

T = TypeVar("T")

MISSING = object()


class Fields:
    """One object of an answer; ``path`` is where it stands (``bdev_get_bdevs[3].driver_specific``)."""

    __slots__ = ("path", "raw")

    def __init__(self, raw: Json, path: str) -> None:
        if not isinstance(raw, dict):
            raise ReplyError(path, f"is no object but {_kind(raw)}")
        self.raw: dict[str, Any] = raw
        self.path = path

    def _get(self, name: str, kind: type, default: object) -> Json:
        value = self.raw.get(name)
        if type(value) is kind:  # nearly always; neither a bool for a number nor ``Repeated`` for an array
            return value
        if isinstance(value, Repeated):
            value = value[-1]
        if value is None:
            if default is MISSING:
                raise ReplyError(f"{self.path}.{name}", "is missing")
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ReplyError(f"{self.path}.{name}", f"is {_kind(value)}")
        return value

    def text(self, name: str, default: object = MISSING) -> str:
        """A string; null counts as missing."""
        found: str = self._get(name, str, default)
        return found

    def number(self, name: str, default: object = MISSING) -> int:
        """A whole number."""
        found: int = self._get(name, int, default)
        return found

    def flag(self, name: str, default: object = MISSING) -> bool:
        """A boolean."""
        found: bool = self._get(name, bool, default)
        return found

    def maybe_number(self, name: str) -> int | None:
        """A whole number, or None where the engine leaves it out."""
        return self.number(name) if self.raw.get(name) is not None else None

    def inner(self, name: str) -> Fields:
        """An object; an empty one where the engine leaves it out."""
        return Fields(self._get(name, dict, {}), f"{self.path}.{name}")

    def each(self, name: str, read: Callable[[Fields], T], default: object = MISSING) -> tuple[T, ...]:
        """Every object of an array."""
        return objects(self._get(name, list, default), f"{self.path}.{name}", read)

    def texts(self, name: str, default: object = MISSING) -> tuple[str, ...]:
        """An array of strings."""
        return strings(self._get(name, list, default), f"{self.path}.{name}")


def objects(
    raw: Json, path: str, read: Callable[[Fields], T], usual: Callable[[Json], T | None] | None = None
) -> tuple[T, ...]:
    """Every object of the array ``raw``.  Where there are thousands, ``usual`` reads those that are as nearly all
    are, without a ``Fields`` for each; where it gives None, ``read`` looks closer and says what is wrong."""
    if not isinstance(raw, list | tuple):
        raise ReplyError(path, f"is no array but {_kind(raw)}")
    if usual is None:
        return tuple(read(Fields(item, f"{path}[{index}]")) for index, item in enumerate(raw))
    return tuple(
        read(Fields(item, f"{path}[{index}]")) if (found := usual(item)) is None else found
        for index, item in enumerate(raw)
    )


def strings(raw: Json, path: str) -> tuple[str, ...]:
    """Every string of the array ``raw``."""
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
        raise ReplyError(path, f"is no array of strings but {_kind(raw)}")
    return tuple(raw)


def done(raw: Json) -> None:
    """The answer of methods that say ``true``; SPDK answers ``false`` or a count nowhere that we call."""
    if raw is not True:
        raise ReplyError("result", f"is not true but {_kind(raw)}")


def name(raw: Json) -> str:
    """The answer of methods that say the name of what they made."""
    if not isinstance(raw, str):
        raise ReplyError("result", f"is no name but {_kind(raw)}")
    return raw


def number(raw: Json) -> int:
    """The answer of methods that say one number."""
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ReplyError("result", f"is no number but {_kind(raw)}")
    return raw


def _kind(raw: Json) -> str:
    if isinstance(raw, bool) or raw is None:
        return repr(raw)
    return {"str": "a string", "int": "a number", "list": "an array", "dict": "an object"}.get(
        type(raw).__name__, type(raw).__name__
    )
