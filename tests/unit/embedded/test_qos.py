"""Arithmetic of the rate limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.bdev.qos import MAX_MBYTES_PER_SEC, MIB, Bucket, RateLimits


def test_an_empty_bucket_makes_wait_until_its_debt_is_paid() -> None:
    bucket = Bucket(rate=1000.0, capacity=1.0, level=1.0, at=0.0)
    # The first goes at once and empties it, each later one waits for those before it.
    assert [bucket.take(0.0, 1.0) for _ in range(4)] == [0.0, 0.0, 0.001, 0.002]
    # After a second it is full again, and no fuller than its capacity.
    assert [bucket.take(1.0, 1.0) for _ in range(3)] == [0.0, 0.0, 0.001]


def test_a_large_io_borrows_from_the_future() -> None:
    bucket = Bucket(rate=100.0, capacity=1.0, level=1.0, at=0.0)
    assert bucket.take(0.0, 51.0) == 0.0
    assert bucket.take(0.0, 1.0) == pytest.approx(0.5)
    assert bucket.take(0.51, 1.0) == 0.0


@pytest.mark.parametrize(("asked", "kept"), [(1, 1000), (1000, 1000), (1500, 2000), (0, 0)])
def test_iops_are_rounded_up_to_thousands(asked: int, kept: int) -> None:
    limits = RateLimits()
    limits.set("rw_ios_per_sec", asked, 0.0)
    assert limits.limits["rw_ios_per_sec"] == kept
    assert limits.active == bool(kept)


def test_megabytes_are_cut_where_bytes_would_overflow() -> None:
    limits = RateLimits()
    limits.set("r_mbytes_per_sec", 2**64 - 2, 0.0)
    assert limits.limits["r_mbytes_per_sec"] == MAX_MBYTES_PER_SEC


def test_reads_do_not_pay_for_writes() -> None:
    limits = RateLimits()
    limits.set("w_mbytes_per_sec", 1, 0.0)
    assert limits.take(0.0, MIB, is_write=True) == 0.0
    assert limits.take(0.0, MIB, is_write=False) == 0.0
    assert limits.take(0.0, MIB, is_write=True) == pytest.approx(0.999)


@given(steps=st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 4096)), min_size=1, max_size=60))
def test_never_more_than_rate_plus_one_bucket_plus_one_io(steps: list[tuple[float, int]]) -> None:
    bucket = Bucket(rate=100_000.0, capacity=512.0, level=512.0, at=0.0)
    now = 0.0
    starts = []
    for pause, size in steps:
        now += pause
        starts.append((now + bucket.take(now, size), size))
    end = max(start for start, _ in starts)
    assert sum(size for _, size in starts) <= 100_000.0 * end + 512.0 + max(size for _, size in starts) + 1e-3
