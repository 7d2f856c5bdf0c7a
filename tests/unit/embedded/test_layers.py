"""Devices that fail and devices that wait: what contract tests cannot see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.bdev.delay import LATENCY_TYPES, Latencies
from dataplane.embedded.bdev.error import Injection
from dataplane.nvme.status import NvmeError, Status

BLOCK = 512
HOUR_US = 3_600_000_000


def in_engine(make_engine: Callable[[], Any], body: Callable[[Any, Any], Any]) -> None:
    async def run() -> None:
        engine, call = make_engine()
        await call("bdev_malloc_create", name="m", num_blocks=64, block_size=BLOCK)
        await body(engine, call)
        await engine.close()

    asyncio.run(run())


def test_an_injection_is_for_so_many_and_for_a_queue_depth() -> None:
    injection = Injection("failure", 2, queue_depth=1)
    assert [injection.next(depth) for depth in (0, 1, 0, 5, 5)] == ["", "failure", "", "failure", ""]


def test_a_byte_behind_the_end_is_not_corrupted() -> None:
    assert Injection(corrupt_offset=1, corrupt_value=3).corrupt(b"\0\0") == b"\0\3"
    assert Injection(corrupt_offset=2, corrupt_value=3).corrupt(b"\0\0") == b"\0\0"


@given(
    ios=st.lists(
        st.tuples(st.floats(0, 10), st.sampled_from(["read", "write"]), st.integers(0, 99), st.integers(0, 9)),
        max_size=40,
    )
)
def test_nothing_overtakes_in_a_line_and_nothing_is_early(ios: list[tuple[float, str, int, int]]) -> None:
    latencies = Latencies(dict.fromkeys(LATENCY_TYPES, 0))
    last: dict[tuple[str, bool], float] = {}
    now = 0.0
    for pause, kind, draw, seconds in ios:
        now += pause
        line = (kind, draw == 0)
        latencies.us[f"{'avg' if draw else 'p99'}_{kind}"] = seconds * 1_000_000
        end = latencies.end_of(kind, draw, now)
        assert end >= now + seconds
        assert end in (now + seconds, last.get(line))
        assert end >= last.get(line, 0.0)
        last[line] = end


def test_what_is_pending_ends_with_the_device(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await call("bdev_error_create", base_name="m")
        await call("bdev_error_inject_error", name="EE_m", io_type="all", error_type="pending", num=100)
        faulty = engine.bdevs.get("EE_m")
        ios = [asyncio.ensure_future(io) for io in (faulty.read(0, 1), faulty.write(0, bytes(BLOCK)), faulty.flush())]
        await asyncio.sleep(0)
        assert await call("bdev_malloc_delete", name="m") is True
        for io in ios:
            with pytest.raises(NvmeError) as caught:
                await io
            assert caught.value.code == Status.ABORTED_BY_REQUEST
        assert [bdev.name for bdev in engine.bdevs] == []

    in_engine(make_engine, body)


def test_what_waits_ends_with_the_device_and_keeps_its_answer(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        us = dict.fromkeys((f"{line}_latency" for line in LATENCY_TYPES), HOUR_US)
        assert await call("bdev_delay_create", base_bdev_name="m", name="slow", **us) == "slow"
        slow = engine.bdevs.get("slow")
        write = asyncio.ensure_future(slow.write(3, b"s" * BLOCK))
        while bytes(await engine.bdevs.get("m").read(3, 1)) != b"s" * BLOCK:
            await asyncio.sleep(0)
        assert not write.done()
        assert await call("bdev_delay_delete", name="slow") is True
        await write
        assert engine.bdevs.get("m").claimed_by is None

    in_engine(make_engine, body)


def test_an_io_that_is_given_up_waits_no_longer(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        us = dict.fromkeys((f"{line}_latency" for line in LATENCY_TYPES), HOUR_US)
        await call("bdev_error_create", base_name="m")
        await call("bdev_delay_create", base_bdev_name="EE_m", name="slow", **us)
        for error in ("pending", "failure"):
            await call("bdev_error_inject_error", name="EE_m", io_type="read", error_type=error)
            read = asyncio.ensure_future(engine.bdevs.get("slow").read(0, 1))
            await asyncio.sleep(0)
            assert not read.done()
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read

    in_engine(make_engine, body)


def test_layers_lie_on_layers_and_a_mirror_on_those(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await call("bdev_malloc_create", name="n", num_blocks=64, block_size=BLOCK)
        await call("bdev_error_create", base_name="m")
        us = dict.fromkeys((f"{line}_latency" for line in LATENCY_TYPES), 0)
        await call("bdev_delay_create", base_bdev_name="EE_m", name="slow", **us)
        await call("bdev_raid_create", name="v", raid_level="1", base_bdevs=["slow", "n"])
        await engine.bdevs.get("v").write(0, b"v" * BLOCK)
        assert bytes(await engine.bdevs.get("m").read(0, 1)) == b"v" * BLOCK
        await call("bdev_malloc_delete", name="m")
        assert [bdev.name for bdev in engine.bdevs] == ["n", "v"]
        assert engine.raids.find("v").operational == 1

    in_engine(make_engine, body)
