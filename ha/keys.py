"""Reservation keys: whose registration is this?

A key is 64 bits: array (16) | node (8) | life (40).  Life is drawn from what tells one incarnation of a data plane
from the next, so that an agent that is started again finds the key of the data plane that still runs.  This module
must never choose a life.
"""

from __future__ import annotations

import hashlib
from typing import Final

from ha.model import NODES, NodeName

_NODE_BYTE: Final[dict[NodeName, int]] = {"a": 0xA, "b": 0xB}
_LIFE_BITS: Final = 40


def array_prefix(array: str) -> int:
    """The 16 bits that stand for the array of that name; never 0."""
    return int.from_bytes(hashlib.sha256(array.encode()).digest()[:2], "big") or 1


def life_of(*parts: object) -> int:
    """The 40 bits for an incarnation that ``parts`` identify (boot, process, start time); never 0."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[: _LIFE_BITS // 8], "big") or 1


def make_key(array: str, node: NodeName, life: int) -> int:
    """The key of one incarnation; ``life`` as ``life_of`` gives it."""
    if not 0 < life < 1 << _LIFE_BITS:
        raise ValueError(f"a life has {_LIFE_BITS} bits and is not 0")
    return array_prefix(array) << 48 | _NODE_BYTE[node] << _LIFE_BITS | life


def same_array(one: int, another: int) -> bool:
    """Whether two keys are of one array."""
    return one >> 48 == another >> 48


def node_of(array: str, key: int) -> NodeName | None:
    """Which node of this array the key belongs to; None for a stranger's."""
    if key >> 48 != array_prefix(array):
        return None
    return next((node for node in NODES if key >> _LIFE_BITS & 0xFF == _NODE_BYTE[node]), None)
