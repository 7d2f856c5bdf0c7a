"""Histograms as the engine packs them become times in nanoseconds."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from dataplane.embedded.bdev.histogram import Histogram
from dataplane.rpc.errors import ReplyError
from dataplane.rpc.methods import histogram


def reply(**more: Any) -> dict[str, Any]:
    counts = [0] * 16
    counts[1], counts[15] = 3, 1
    shown = {"histogram": base64.b64encode(struct.pack("<16Q", *counts)).decode(), "granularity": 2}
    return {**shown, "min_range": 0, "max_range": 3, "tsc_rate": 2_000_000_000, **more}


def test_buckets_are_shown_by_the_time_that_they_end_at() -> None:
    info = histogram.get("a").parse(reply())
    # Two ticks are a nanosecond; the last bucket ends at tick 32.
    assert [(bucket.end_ns, bucket.count) for bucket in info.buckets] == [(1, 3), (16, 1)]
    assert (info.count, info.percentile_ns(50), info.percentile_ns(75.1)) == (4, 1, 16)


def test_of_nothing_there_is_no_percentile() -> None:
    empty = reply(histogram=base64.b64encode(bytes(128)).decode())
    assert histogram.get("a").parse(empty).percentile_ns(99) is None


@pytest.mark.parametrize("wrong", [{"histogram": "?"}, {"max_range": 4}, {"granularity": None}])
def test_what_does_not_fit_together_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ReplyError):
        histogram.get("a").parse(reply(**wrong))


def test_counts_below_borders_are_read() -> None:
    assert histogram.count_below("a", [1000]).parse({"borders_count": [1, 2]}) == (1, 2)
    with pytest.raises(ReplyError):
        histogram.count_below("a", [1000]).parse({})


def test_both_sides_agree_where_a_bucket_ends() -> None:
    engine = Histogram(5, 1000, 1 << 30)
    times = [1000, 1023, 4095, 70_000, 1 << 29]
    for ticks in times:
        engine.tally(ticks)
    shown = {"histogram": engine.encoded(), "granularity": 5, "min_range": engine.min_range}
    info = histogram.get("a").parse({**shown, "max_range": engine.max_range, "tsc_rate": 10**9})
    assert [bucket.end_ns for bucket in info.buckets] == sorted({engine.end(engine.bucket(each)) for each in times})
