"""Slice 0: no area lies on another, and all begin and end on whole units."""

from __future__ import annotations

from itertools import pairwise

import pytest

from controlplane.planner import labels
from ha.journal import layout


def areas() -> list[tuple[int, int]]:
    """(start, size) of everything in slice 0, in order."""
    found = [(layout.LABEL_AT, labels.LABEL_BYTES)]
    found += [(at, layout.SLOT_BYTES) for at in layout.SLOT_AT.values()]
    found += [(layout.record_at(sequence), layout.RECORD_BYTES) for sequence in range(layout.PLACES)]
    found += [(layout.snapshot_at(area), layout.SNAPSHOT_BYTES) for area in range(layout.AREAS)]
    return sorted(found)


def test_nothing_overlaps_and_the_end_is_the_end() -> None:
    for (start, size), (following, _) in pairwise(areas()):
        assert start + size <= following
    last, size = areas()[-1]
    assert last + size == layout.END_BYTES


def test_everything_is_whole_units() -> None:
    assert all(start % layout.UNIT_BYTES == 0 and size % layout.UNIT_BYTES == 0 for start, size in areas())


def test_the_offsets_of_the_page_are_kept() -> None:
    kib = 1024
    assert {"a": 16 * kib, "b": 24 * kib} == layout.SLOT_AT
    assert [layout.record_at(0), layout.record_at(15), layout.record_at(16)] == [64 * kib, 304 * kib, 64 * kib]
    assert [layout.snapshot_at(0), layout.snapshot_at(1), layout.END_BYTES] == [320 * kib, 656 * kib, 992 * kib]


def test_there_is_no_third_snapshot_area() -> None:
    with pytest.raises(ValueError, match="area 2"):
        layout.snapshot_at(2)
