"""Where in slice 0 of a drive everything lies.

Why one place: the control plane writes the label, each node its heartbeat slot and the leader the journal, all with
raw commands, and none may touch what is another's.  The table is in docs/internals/ha.md.  This module must never
change an offset: drives out there carry it; a new layout is a new format of the label.

Invariant: no two areas overlap, and each begins and ends on a multiple of 4 KiB, whatever the drive's block size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ha.model import NodeName

KIB: Final = 1024
UNIT_BYTES: Final = 4 * KIB
"""Whatever is written is whole units of this; every block size that SPDK serves divides it."""
LABEL_AT: Final = 0
SLOT_AT: Final[Mapping[NodeName, int]] = {"a": 16 * KIB, "b": 24 * KIB}
SLOT_BYTES: Final = UNIT_BYTES
JOURNAL_AT: Final = 64 * KIB
RECORD_BYTES: Final = 16 * KIB
PLACES: Final = 16
JOURNAL_BYTES: Final = PLACES * RECORD_BYTES
SNAPSHOT_AT: Final = JOURNAL_AT + JOURNAL_BYTES
SNAPSHOT_BYTES: Final = 336 * KIB
AREAS: Final = 2
END_BYTES: Final = SNAPSHOT_AT + AREAS * SNAPSHOT_BYTES
"""The smallest slice that holds it all."""


def place(sequence: int) -> int:
    """Which of the ``PLACES`` the record of that sequence lies in: it replaces the one ``PLACES`` before it."""
    return sequence % PLACES


def record_at(sequence: int) -> int:
    """Where the record of that sequence begins, in bytes from the start of the drive."""
    return JOURNAL_AT + place(sequence) * RECORD_BYTES


def snapshot_at(area: int) -> int:
    """Where snapshot area 0 or 1 begins."""
    if not 0 <= area < AREAS:
        raise ValueError(f"there is no snapshot area {area}")
    return SNAPSHOT_AT + area * SNAPSHOT_BYTES


def padded(raw: bytes) -> bytes:
    """``raw`` with zeroes up to whole units."""
    return raw + bytes(-len(raw) % UNIT_BYTES)
