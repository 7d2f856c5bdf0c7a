"""The heartbeat slot of a node on a drive: one block that only its node writes.

Why: a node that is cut off from the network can still show through the drives that it lives, and up to which record
it knows. What does not verify is no heartbeat.  This module must never do I/O.

Layout, little endian: magic 8 B, CRC32C u32 of all that follows, format u32, array u16, node u8 (ASCII), reserved u8,
key u64, counter u64, epoch u64, sequence u64, zeroes up to 4 KiB."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import crc32c

from ha.journal.layout import SLOT_BYTES
from ha.model import FORMAT_VERSION, NODES, NodeName

MAGIC: Final = b"WS7000HB"
_HEAD: Final = struct.Struct("<8sI")
_BODY: Final = struct.Struct("<IHcxQQQQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """``array`` is ``keys.array_prefix``; ``counter`` goes up with each write of one agent; ``at`` is the newest
    record that the node knows."""

    array: int
    node: NodeName
    key: int
    counter: int
    at: tuple[int, int]


def encode(slot: Slot) -> bytes:
    """The block."""
    body = _BODY.pack(FORMAT_VERSION, slot.array, slot.node.encode(), slot.key, slot.counter, *slot.at)
    return framed(body)


def framed(body: bytes) -> bytes:
    """The block around these bytes, whatever they are."""
    rest = body.ljust(SLOT_BYTES - _HEAD.size, b"\0")
    return _HEAD.pack(MAGIC, crc32c.crc32c(rest)) + rest


def decode(raw: bytes, array: int, node: NodeName) -> Slot | None:
    """The slot of ``node`` in ``raw``; None for anything else, also for another array's."""
    if len(raw) != SLOT_BYTES or not raw.startswith(MAGIC):
        return None
    _, crc = _HEAD.unpack_from(raw)
    rest = raw[_HEAD.size :]
    if crc32c.crc32c(rest) != crc:
        return None
    version, whose, letter, key, counter, epoch, sequence = _BODY.unpack_from(rest)
    name = next((each for each in NODES if each.encode() == letter), None)
    if version != FORMAT_VERSION or whose != array or name != node:
        return None
    slot = Slot(array=whose, node=node, key=key, counter=counter, at=(epoch, sequence))
    return slot if encode(slot) == raw else None
