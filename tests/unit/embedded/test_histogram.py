"""Buckets of times: every time in one, none lost, borders counted right."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.bdev.histogram import Histogram

times = st.one_of(st.integers(0, 300), st.integers(0, 1 << 40), st.integers(0, (1 << 64) - 1))


@given(granularity=st.integers(1, 10), ticks=times)
def test_a_time_lies_inside_its_bucket(granularity: int, ticks: int) -> None:
    histogram = Histogram(granularity)
    bucket = histogram.bucket(ticks)
    assert 0 <= bucket < histogram.buckets
    assert (histogram.end(bucket - 1) if bucket else 0) <= ticks < histogram.end(bucket)
    # No bucket is wider than a part of the times in it.
    assert histogram.end(bucket) - ticks <= max(1, ticks >> (granularity - 1))


@given(ticks=times, low=st.integers(0, 1 << 20), span=st.integers(2, 1 << 30))
def test_what_lies_outside_is_counted_at_the_ends(ticks: int, low: int, span: int) -> None:
    histogram = Histogram(5, low, low + span)
    bucket = histogram.bucket(ticks)
    if low <= ticks < low + span:
        assert ticks < histogram.end(bucket)
    elif ticks.bit_length() < low.bit_length():
        assert bucket in (0, histogram.bucket(low))
    assert 0 <= bucket < histogram.buckets


@given(ios=st.lists(st.integers(0, 1 << 24), max_size=60), borders=st.lists(st.integers(0, 1 << 24), max_size=6))
def test_borders_count_all_that_are_below_and_none_that_are_far_above(ios: list[int], borders: list[int]) -> None:
    histogram = Histogram(7)
    for ticks in ios:
        histogram.took("read", ticks)
    borders = sorted(set(borders))
    found = histogram.below(borders)
    assert (len(found), found[-1]) == (len(borders) + 1, len(ios))
    assert found == sorted(found)
    for border, count in zip(borders, found, strict=False):
        assert sum(ticks <= border for ticks in ios) <= count
        assert count <= sum(ticks <= border + max(1, border >> 6) for ticks in ios)


def test_counters_are_little_endian_and_in_order() -> None:
    histogram = Histogram(2, 0, 16, io_type="write")
    for ticks in (0, 1, 1, 15):
        histogram.took("write", ticks)
    histogram.took("read", 3)
    packed = base64.b64decode(histogram.encoded())
    assert struct.unpack(f"<{histogram.buckets}Q", packed) == (1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("params", "answer"),
    [
        ({"opc": "seek"}, (-32603, "Invalid Io type")),
        ({"min_nsec": 5, "max_nsec": 5}, (-12, "Cannot allocate memory")),
        ({"granularity": 40}, (-12, "Cannot allocate memory")),
        ({"opc": "flush", "granularity": 1}, True),
    ],
)
def test_what_can_be_asked_for(make_engine: Callable[[], Any], params: dict[str, Any], answer: object) -> None:
    async def run() -> None:
        engine, call = make_engine()
        await call("bdev_malloc_create", name="m", num_blocks=8, block_size=512)
        assert await call("bdev_enable_histogram", name="m", enable=True, **params) == answer
        calls = [each for each in await call("framework_get_config", name="bdev") if "histogram" in each["method"]]
        assert [each["params"] for each in calls] == (
            [{"name": "m", "enable": True, "opc": "flush"}] if answer is True else []
        )
        await engine.close()

    asyncio.run(run())
