"""Reading JSON values without believing them.

Why: what lies on a drive may be damaged, older or newer than this release, or made to harm.  Each function takes the
value for what it is to be, or raises ``ValueError``; it must never convert one type into another.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from ha.model import NODES, GroupId, NodeName

MAX_INTEGER: Final = 2**64 - 1


def parsed(text: str | bytes) -> object:
    """The JSON value in ``text``."""
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def canonical(value: object) -> bytes:
    """The one way in which ``value`` is written, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def mapping(value: object) -> dict[str, object]:
    """An object."""
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is no object")
    return value


def exactly(value: object, keys: Collection[str]) -> dict[str, object]:
    """An object with these keys and no other."""
    body = mapping(value)
    if body.keys() != set(keys):
        raise ValueError(f"it has the keys {sorted(body)}, not {sorted(keys)}")
    return body


def sequence(value: object) -> list[object]:
    """An array."""
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no array")
    return value


def text(value: object) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    value.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError
    return value


def texts(value: object) -> tuple[str, ...]:
    """An array of strings, none of them twice."""
    found = tuple(text(item) for item in sequence(value))
    if len(set(found)) != len(found):
        raise ValueError(f"{found} holds one twice")
    return found


def boolean(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def integer(value: object, high: int = MAX_INTEGER) -> int:
    """A whole number from 0 to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        raise ValueError(f"{value!r} is no number up to {high}")
    return value


def node(value: object) -> NodeName:
    """One of the two nodes."""
    for name in NODES:
        if value == name:
            return name
    raise ValueError(f"{value!r} is no node")


def group(value: object) -> GroupId:
    """An ANA group, as ``str(group)`` writes it."""
    subsystem, _, number = text(value).rpartition("/")
    for known in (1, 2):
        if subsystem and number == str(known):
            return GroupId(subsystem, known)
    raise ValueError(f"{value!r} is no ANA group")
