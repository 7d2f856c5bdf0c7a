"""A record of the journal as bytes.

Why: a record says who serves what, so one that is torn, damaged or from elsewhere must not be taken for one.  Reading
never raises and never guesses: what does not verify in every byte is no record.  A record has one encoding only;
bytes that decode are the bytes that ``encode`` would write.

Layout, little endian: magic 8 B, CRC32C u32 of all that follows, format u32, length of the body u32, the SHA-256 of
the record before it (32 zero bytes in the first one), the body as JSON (UTF-8), zeroes up to whole units of 4 KiB.
What lies behind that in the record's place is left from an older, longer record and counts for nothing.

This module must never do I/O.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

import crc32c

from controlplane.domain.errors import Refused
from ha.journal import strict
from ha.journal.layout import JOURNAL_BYTES, RECORD_BYTES, UNIT_BYTES, place
from ha.journal.layout import padded as whole_units
from ha.model import FORMAT_VERSION, Record, SnapshotAt

MAGIC: Final = b"WS7000JR"
NO_PREVIOUS: Final = bytes(32)
"""Stands for the record before the first one."""
_HEAD: Final = struct.Struct("<8sIII32s")
_CRC_FROM: Final = 12
_FIELDS: Final = (
    "array_uuid",
    "epoch",
    "evictions",
    "failed",
    "leader",
    "members",
    "owners",
    "paused",
    "refused",
    "resync",
    "sequence",
    "snapshot",
    "stale",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record that was read: ``digest`` is its own SHA-256, ``previous`` that of the record it follows."""

    record: Record
    digest: bytes
    previous: bytes


def digest_of(encoded: bytes) -> bytes:
    """The SHA-256 that the next record names; of what ``encode`` returned."""
    return hashlib.sha256(encoded).digest()


def encode(record: Record, previous: bytes) -> bytes:
    """``record`` as whole units; ``previous`` is the digest of the record it follows, or ``NO_PREVIOUS``.

    Raises ``Refused`` HA-010 when it does not fit its place, and ``ValueError`` for a digest of another length."""
    if len(previous) != len(NO_PREVIOUS):
        raise ValueError("a digest has 32 bytes")
    body = strict.canonical(_to_json(record))
    if _HEAD.size + len(body) > RECORD_BYTES:
        raise Refused(
            "HA-010",
            f"the journal record {record.epoch}/{record.sequence} does not fit its place",
            why=f"it has {_HEAD.size + len(body)} bytes of {RECORD_BYTES}: {len(record.owners)} ANA groups, "
            f"{len(record.failed)} failed drives",
            remedy="remove subsystems that nobody uses, or give them shorter names",
        )
    return framed(body, previous)


def framed(body: bytes, previous: bytes, version: int = FORMAT_VERSION) -> bytes:
    """``body`` with the head and the padding that belong to it, whatever it says."""
    rest = whole_units(_HEAD.pack(MAGIC, 0, version, len(body), previous) + body)[_CRC_FROM:]
    return MAGIC + struct.pack("<I", crc32c.crc32c(rest)) + rest


def decode(raw: bytes) -> Stored | None:
    """The record that ``raw`` begins with, or None; never raises."""
    if len(raw) < _HEAD.size or not raw.startswith(MAGIC):
        return None
    _, crc, version, length, previous = _HEAD.unpack_from(raw)
    encoded = raw[: len(whole_units(raw[: _HEAD.size + length]))]
    if version != FORMAT_VERSION or _HEAD.size + length > len(encoded) or len(encoded) > RECORD_BYTES:
        return None
    if crc32c.crc32c(encoded[_CRC_FROM:]) != crc:
        return None
    try:
        record = _from_json(strict.parsed(encoded[_HEAD.size : _HEAD.size + length].decode()))
        if encode(record, previous) != encoded:
            return None
    except (ValueError, Refused):
        return None
    return Stored(record=record, digest=digest_of(encoded), previous=previous)


def length_of(raw: bytes) -> int:
    """How many bytes the record that ``raw`` begins with takes, as its head says; 0 where there is none."""
    if len(raw) < _HEAD.size or not raw.startswith(MAGIC):
        return 0
    length = _HEAD.size + int(_HEAD.unpack_from(raw)[3])
    whole = length + -length % UNIT_BYTES
    return whole if whole <= RECORD_BYTES else 0


def decode_area(raw: bytes) -> tuple[Stored, ...]:
    """The records in a drive's whole journal area, each in its own place, oldest first."""
    places = (raw[at : at + RECORD_BYTES] for at in range(0, min(len(raw), JOURNAL_BYTES), RECORD_BYTES))
    found = ((at, decode(one)) for at, one in enumerate(places))
    return tuple(
        sorted(
            (stored for at, stored in found if stored is not None and place(stored.record.sequence) == at),
            key=lambda stored: stored.record.at,
        )
    )


def _to_json(record: Record) -> dict[str, object]:
    return {
        "array_uuid": record.array_uuid,
        "epoch": record.epoch,
        "evictions": dict(record.evictions),
        "failed": sorted(record.failed),
        "leader": record.leader,
        "members": dict(record.members),
        "owners": {str(group): node for group, node in record.owners.items()},
        "paused": record.paused,
        "refused": sorted(record.refused),
        "resync": sorted(str(group) for group in record.resync),
        "sequence": record.sequence,
        "snapshot": None if record.snapshot is None else _snapshot_to_json(record.snapshot),
        "stale": sorted(record.stale),
    }


def _from_json(value: object) -> Record:
    body = strict.exactly(value, _FIELDS)
    return Record(
        array_uuid=strict.text(body["array_uuid"]),
        epoch=strict.integer(body["epoch"]),
        sequence=strict.integer(body["sequence"]),
        leader=strict.node(body["leader"]),
        owners={strict.group(k): strict.node(v) for k, v in strict.mapping(body["owners"]).items()},
        members={strict.node(k): strict.integer(v) for k, v in strict.mapping(body["members"]).items()},
        failed=frozenset(strict.texts(body["failed"])),
        stale=frozenset(strict.texts(body["stale"])),
        refused=frozenset(strict.texts(body["refused"])),
        resync=frozenset(strict.group(one) for one in strict.texts(body["resync"])),
        evictions={strict.node(k): strict.integer(v) for k, v in strict.mapping(body["evictions"]).items()},
        paused=strict.boolean(body["paused"]),
        snapshot=None if body["snapshot"] is None else _snapshot_from_json(body["snapshot"]),
    )


def _snapshot_to_json(at: SnapshotAt) -> dict[str, object]:
    return {"area": at.area, "generation": at.generation, "sha256": at.sha256, "size_bytes": at.size_bytes}


def _snapshot_from_json(value: object) -> SnapshotAt:
    body = strict.exactly(value, ("area", "generation", "sha256", "size_bytes"))
    return SnapshotAt(
        area=strict.integer(body["area"], high=1),
        size_bytes=strict.integer(body["size_bytes"]),
        sha256=strict.text(body["sha256"]),
        generation=strict.integer(body["generation"]),
    )
