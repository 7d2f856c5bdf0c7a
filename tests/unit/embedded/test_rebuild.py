"""Ranges that are held back, the plan of a rebuild, and rebuilds that a single step decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.bdev.raid_rebuild import RebuildPlan, bandwidth, window_blocks
from dataplane.embedded.bdev.raid_superblock import is_superblock
from dataplane.embedded.bdev.range_gate import RangeGate
from dataplane.nvme.status import NvmeError

BLOCK = 512


async def turns() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_closed_range_waits_for_io_that_touches_it_and_holds_only_that_back() -> None:
    async def run() -> None:
        gate = RangeGate()
        inside, outside = await gate.enter(8, 4), await gate.enter(40, 4)
        entered: list[str] = []

        async def close() -> None:
            async with gate.closed(10, 10):
                entered.append("closed")
                await leave.wait()

        async def enter(name: str, lba: int, blocks: int) -> None:
            span = await gate.enter(lba, blocks)
            entered.append(name)
            gate.leave(span)

        leave = asyncio.Event()
        tasks = [asyncio.ensure_future(close())]
        await turns()
        tasks += [asyncio.ensure_future(enter(*io)) for io in (("below", 0, 10), ("at", 19, 9), ("flush", 0, 0))]
        await turns()
        assert entered == ["below", "flush"]
        gate.leave(inside)
        await turns()
        assert entered == ["below", "flush", "closed"]
        leave.set()
        await asyncio.gather(*tasks)
        assert entered[-1] == "at"
        gate.leave(outside)

    asyncio.run(run())


def test_a_gate_that_is_closed_as_a_whole_holds_flushes_back_too() -> None:
    async def run() -> None:
        gate = RangeGate()
        async with gate.closed():
            flush = asyncio.ensure_future(gate.enter())
            second = asyncio.ensure_future(gate.closed(0, 1).__aenter__())
            await turns()
            assert (flush.done(), second.done()) == (False, False)
        await asyncio.gather(flush, second)

    asyncio.run(run())


def test_who_closes_range_after_range_keeps_nobody_out() -> None:
    async def run() -> None:
        gate = RangeGate()
        order: list[str] = []

        async def windows() -> None:
            for number in range(5):
                async with gate.closed(number, 1):
                    order.append(f"window {number}")
                    await asyncio.sleep(0)

        async def whole() -> None:
            async with gate.closed():
                order.append("whole")

        await asyncio.gather(windows(), whole())
        assert order[:3] == ["window 0", "whole", "window 1"]

    asyncio.run(run())


def test_closing_that_is_given_up_lets_io_through() -> None:
    async def run() -> None:
        gate = RangeGate()
        span = await gate.enter(0, 8)
        closing = asyncio.ensure_future(gate.closed(0, 1).__aenter__())
        await turns()
        closing.cancel()
        await turns()
        await gate.enter(0, 1)
        gate.leave(span)

    asyncio.run(run())


@given(num=st.integers(1, 500), window=st.integers(1, 600), lba=st.integers(0, 499), blocks=st.integers(0, 500))
def test_windows_cover_a_device_once_and_parts_never_cross_the_mark(
    num: int, window: int, lba: int, blocks: int
) -> None:
    plan = RebuildPlan(num, window)
    lba = min(lba, num - 1)
    blocks = min(blocks, num - lba)
    covered = 0
    while not plan.done:
        parts = plan.parts(lba, blocks)
        assert sorted(block for start, count in parts for block in range(start, start + count)) == list(
            range(lba, lba + blocks)
        )
        assert all(plan.covers(*part) or part[0] >= plan.mark for part in parts)
        assert len(parts) < 2 or not plan.covers(*parts[0]), "what is not copied comes first"
        assert plan.percent == 100 * plan.mark // num
        start, count = plan.window()
        assert (start, count <= window, count > 0) == (covered, True, True)
        covered += count
        plan.mark = start + count
    assert (covered, plan.percent, plan.covers(0, num)) == (num, 100, True)


@pytest.mark.parametrize(("kib", "size", "blocks"), [(1024, 512, 2048), (1, 4096, 1), (5, 4096, 2)])
def test_windows_are_whole_blocks(kib: int, size: int, blocks: int) -> None:
    assert window_blocks(kib, size) == blocks


def test_a_rebuild_may_copy_so_much_each_second() -> None:
    assert bandwidth(0, 0.0) is None
    tokens = bandwidth(1, 10.0)
    assert tokens is not None
    waits = [tokens.take(10.0, 65536.0) for _ in range(17)]
    assert waits[0] == 0.0
    assert waits[-1] == pytest.approx(1.0)
    assert waits == sorted(waits)


def superblock(length: int = 320) -> bytearray:
    head = bytearray(4096)
    head[:8] = b"SPDKRAID"
    head[12:16] = length.to_bytes(4, "little")
    head[40:44] = b"name"
    crc = crc32c(bytes(head[:length]), 0xFFFFFFFF) ^ 0xFFFFFFFF
    head[16:20] = crc.to_bytes(4, "little")
    return head


def test_a_superblock_is_one_only_when_its_checksum_is_right() -> None:
    head = superblock()
    assert is_superblock(bytes(head))
    head[300] ^= 1
    assert not is_superblock(bytes(head))
    assert not is_superblock(bytes(superblock(100)))
    assert not is_superblock(bytes(4096))
    assert not is_superblock(b"SPDKRAID")


def in_mirror(make_engine: Callable[[], Any], faulty_bdev: Any, body: Callable[..., Any]) -> None:
    """A mirror of two legs that can fail, ``first`` taken out again."""

    async def run() -> None:
        engine, call = make_engine()
        legs = [faulty_bdev(name, 64) for name in ("first", "second")]
        for leg in legs:
            engine.bdevs.add(leg)
        await call("bdev_raid_set_options", process_window_size_kb=4)
        await call("bdev_raid_create", name="m", raid_level="1", base_bdevs=["first", "second"])
        await engine.bdevs.get("m").write(0, bytes(range(64)) * 8 * 64)
        await call("bdev_raid_remove_base_bdev", name="first")
        await body(engine, call, *legs)
        await engine.close()

    asyncio.run(run())


async def ended(engine: Any) -> Any:
    """The set, once nothing is rebuilt and nobody leaves; None when it is gone."""
    raid = engine.raids.find("m")
    while raid.rebuild is not None or raid.tasks:
        await asyncio.sleep(0)
    return engine.raids.find("m")


def test_others_have_their_turn_while_legs_in_memory_are_copied(
    make_engine: Callable[[], Any], faulty_bdev: Any
) -> None:
    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        await call("bdev_raid_set_options", process_window_size_kb=1)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        write = asyncio.ensure_future(engine.bdevs.get("m").write(60, b"n" * BLOCK))
        while not write.done():
            await asyncio.sleep(0)
        assert not engine.raids.find("m").rebuild.plan.done
        await ended(engine)
        assert first.data == second.data

    in_mirror(make_engine, faulty_bdev, body)


def test_a_leg_of_another_set_is_not_written_over(make_engine: Callable[[], Any], faulty_bdev: Any) -> None:
    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        first.data[:4096] = superblock()
        first.written.clear()
        answer = await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        assert answer == (-17, "Failed to add base bdev to RAID bdev: File exists")
        assert (first.claimed_by, first.written) == (None, [])

    in_mirror(make_engine, faulty_bdev, body)


def test_a_write_that_only_the_target_took_is_not_good(make_engine: Callable[[], Any], faulty_bdev: Any) -> None:
    """SPDK would answer success, and then drop the only leg that has it."""

    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        await call("bdev_raid_set_options", process_max_bandwidth_mb_sec=1)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        mirror, raid = engine.bdevs.get("m"), engine.raids.find("m")
        while raid.rebuild.plan.mark < 8:
            await asyncio.sleep(0)
        second.fail_writes = True
        with pytest.raises(NvmeError):
            await mirror.write(0, b"n" * BLOCK)
        assert await ended(engine) is None
        assert (first.claimed_by, second.claimed_by) == (None, None)

    in_mirror(make_engine, faulty_bdev, body)


def test_a_target_that_fails_a_host_write_leaves_and_the_host_does_not_notice(
    make_engine: Callable[[], Any], faulty_bdev: Any
) -> None:
    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        await call("bdev_raid_set_options", process_max_bandwidth_mb_sec=1)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        mirror, raid = engine.bdevs.get("m"), engine.raids.find("m")
        while raid.rebuild.plan.mark < 8:
            await asyncio.sleep(0)
        first.fail_writes = True
        await mirror.write(0, b"n" * BLOCK)
        first.fail_writes = False
        assert await mirror.read(0, 1) == b"n" * BLOCK
        raid = await ended(engine)
        assert (raid.state, raid.operational, first.claimed_by) == ("online", 1, None)

    in_mirror(make_engine, faulty_bdev, body)


def test_the_new_leg_is_flushed_before_it_counts(make_engine: Callable[[], Any], faulty_bdev: Any) -> None:
    class Flushed(faulty_bdev):  # type: ignore[misc]
        flushed_with: bytes = b""

        async def do_flush(self) -> None:
            self.flushed_with = bytes(self.data)

    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        third = Flushed("third", 64)
        engine.bdevs.add(third)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="third")
        raid = await ended(engine)
        assert (raid.operational, third.flushed_with) == (2, bytes(second.data))

    in_mirror(make_engine, faulty_bdev, body)


def test_an_engine_ends_while_a_mirror_rebuilds(make_engine: Callable[[], Any], faulty_bdev: Any) -> None:
    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        await call("bdev_raid_set_options", process_max_bandwidth_mb_sec=1)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        assert (await call("bdev_raid_get_bdevs", category="online"))[0]["process"]["target"] == "first"
        await engine.close()
        assert engine.bdevs.find("m") is None
        assert {task.get_name() for task in asyncio.all_tasks()} == {asyncio.current_task().get_name()}

    in_mirror(make_engine, faulty_bdev, body)


def test_a_mirror_that_grows_while_it_rebuilds_is_copied_to_its_new_end(
    make_engine: Callable[[], Any], faulty_bdev: Any
) -> None:
    async def body(engine: Any, call: Any, first: Any, second: Any) -> None:
        await call("bdev_raid_set_options", process_max_bandwidth_mb_sec=1)
        await call("bdev_raid_add_base_bdev", raid_bdev="m", base_bdev="first")
        mirror, raid = engine.bdevs.get("m"), engine.raids.find("m")
        while raid.rebuild.plan.mark < 8:
            await asyncio.sleep(0)
        for leg in (first, second):
            leg.data.extend(bytes([leg is second]) * 32 * BLOCK)
            engine.bdevs.resize(leg, 96)
        assert (mirror.num_blocks, raid.rebuild.plan.num_blocks) == (96, 96)
        raid = await ended(engine)
        assert (raid.operational, first.data) == (2, second.data)

    in_mirror(make_engine, faulty_bdev, body)
