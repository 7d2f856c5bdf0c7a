"""I/O that limits hold back: it goes on when they change, in order, and ends with its device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.bdev.qos import MIB, RateLimits
from dataplane.nvme.status import NvmeError, Status

BLOCK = 512


def limited(make_engine: Callable[[], Any], body: Callable[..., Any]) -> None:
    """A device that lets 1 MiB each second through, with two seconds of writes sent; then ten more wait."""

    async def run() -> None:
        engine, call = make_engine()
        await call("bdev_malloc_create", name="m", num_blocks=8192, block_size=BLOCK)
        await call("bdev_set_qos_limit", name="m", w_mbytes_per_sec=1)
        device = engine.bdevs.get("m")
        await device.write(0, bytes(2 * MIB))
        ended: list[int] = []

        async def write(number: int) -> None:
            await device.write(number, bytes(BLOCK))
            ended.append(number)

        waiting = [asyncio.ensure_future(write(number)) for number in range(10)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert ended == []
        await body(engine, call, waiting, ended)
        await engine.close()

    asyncio.run(run())


def test_without_limits_what_waited_goes_on_in_order(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any, waiting: list[Any], ended: list[int]) -> None:
        await call("bdev_set_qos_limit", name="m", w_mbytes_per_sec=0)
        await asyncio.gather(*waiting)
        assert ended == list(range(10))

    limited(make_engine, body)


def test_with_higher_limits_what_waited_pays_those(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any, waiting: list[Any], ended: list[int]) -> None:
        await call("bdev_set_qos_limit", name="m", w_mbytes_per_sec=100_000)
        await asyncio.gather(*waiting)
        assert ended == list(range(10))

    limited(make_engine, body)


def test_what_waits_ends_with_the_device(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any, waiting: list[Any], ended: list[int]) -> None:
        assert await call("bdev_malloc_delete", name="m") is True
        for io in waiting:
            with pytest.raises(NvmeError) as caught:
                await io
            assert caught.value.code == Status.ABORTED_BY_REQUEST

    limited(make_engine, body)


def test_a_wait_that_is_given_up_leaves_nothing_behind(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any, waiting: list[Any], ended: list[int]) -> None:
        for io in waiting:
            io.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert engine.bdevs.get("m").limits.held == []

    limited(make_engine, body)


@given(
    ios=st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 64), st.booleans()), min_size=1, max_size=60),
    kinds=st.sets(st.sampled_from(["rw_ios_per_sec", "rw_mbytes_per_sec", "r_mbytes_per_sec"]), min_size=1),
)
def test_limits_hold_together_and_who_came_first_starts_first(
    ios: list[tuple[float, int, bool]], kinds: set[str]
) -> None:
    limits = RateLimits()
    for kind in kinds:
        limits.set(kind, 1000 if kind == "rw_ios_per_sec" else 1, 0.0)
    now = 0.0
    starts: list[tuple[float, int, bool]] = []
    for pause, blocks, is_write in ios:
        now += pause
        size_bytes = blocks * BLOCK
        starts.append((now + limits.take(now, size_bytes, is_write=is_write), size_bytes, is_write))
    reads = [start for start, _, is_write in starts if not is_write]
    assert reads == sorted(reads), "what every limit counts is never overtaken"
    end = max(start for start, _, _ in starts)
    largest = max(size for _, size, _ in starts)
    if "rw_ios_per_sec" in kinds:
        assert len(starts) <= 1000 * end + 2.001
    if "rw_mbytes_per_sec" in kinds:
        assert sum(size for _, size, _ in starts) <= MIB * end + MIB / 1000 + largest + 1
    if "r_mbytes_per_sec" in kinds:
        assert sum(size for _, size, is_write in starts if not is_write) <= MIB * end + MIB / 1000 + largest + 1
