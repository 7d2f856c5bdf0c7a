"""Raid sets: assembling, losing legs, mirrors that fail; expected states are SPDK v26.05's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dataplane.nvme.status import NvmeError

BLOCK = 512


def in_engine(make_engine: Callable[[], Any], body: Callable[[Any, Any], Awaitable[None]]) -> None:
    async def run() -> None:
        engine, call = make_engine()
        await body(engine, call)

    asyncio.run(run())


async def malloc(call: Any, *names: str, num_blocks: int = 64) -> None:
    for name in names:
        await call("bdev_malloc_create", name=name, num_blocks=num_blocks, block_size=BLOCK)


async def states(call: Any) -> dict[str, tuple[str, int, int]]:
    """name -> (state, discovered, operational)"""
    sets: Any = await call("bdev_raid_get_bdevs", category="all")
    return {
        each["name"]: (each["state"], each["num_base_bdevs_discovered"], each["num_base_bdevs_operational"])
        for each in sets
    }


def test_a_set_assembles_when_its_last_leg_appears(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await malloc(call, "a")
        uuid = "66666666-2222-4333-8444-555555555555"
        create = {"name": "r", "raid_level": "raid0", "strip_size_kb": 4, "base_bdevs": ["a", "b"], "uuid": uuid}
        assert await call("bdev_raid_create", **create) is True
        assert await states(call) == {"r": ("configuring", 1, 2)}
        assert engine.bdevs.find("r") is None
        await malloc(call, "b", num_blocks=50)
        assert await states(call) == {"r": ("online", 2, 2)}
        # The smaller leg, in whole strips of 8 blocks, twice.
        assert (engine.bdevs.get(uuid).name, engine.bdevs.get("r").num_blocks) == ("r", 96)
        assert engine.bdevs.get("a").claimed_by == "raid"

    in_engine(make_engine, body)


def test_without_auto_examine_a_leg_joins_only_when_it_is_examined(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        engine.bdevs.auto_examine = False
        await call("bdev_raid_create", name="r", raid_level="concat", strip_size_kb=4, base_bdevs=["a"])
        await malloc(call, "a")
        assert await states(call) == {"r": ("configuring", 0, 1)}
        assert await call("bdev_examine", name="a") is True
        assert await call("bdev_examine", name="a") == (-17, "File exists")
        assert await states(call) == {"r": ("online", 1, 1)}

    in_engine(make_engine, body)


def test_raid0_without_a_leg_goes_offline_and_stays_listed(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await malloc(call, "a", "b")
        await call("bdev_raid_create", name="r", raid_level="raid0", strip_size_kb=4, base_bdevs=["a", "b"])
        assert await call("bdev_malloc_delete", name="a") is True
        assert engine.bdevs.find("r") is None
        assert await states(call) == {"r": ("offline", 1, 1)}
        assert engine.bdevs.get("b").claimed_by == "raid"
        assert await call("bdev_malloc_delete", name="b") is True
        assert await states(call) == {}

    in_engine(make_engine, body)


def test_a_set_on_a_set_falls_with_its_lowest_leg(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await malloc(call, "a", "b", "c", "d")
        for name, legs in (("x", ["a", "b"]), ("y", ["c", "d"])):
            await call("bdev_raid_create", name=name, raid_level="raid0", strip_size_kb=4, base_bdevs=legs)
        await call("bdev_raid_create", name="top", raid_level="concat", strip_size_kb=4, base_bdevs=["x", "y"])
        assert engine.bdevs.get("top").num_blocks == 256
        await call("bdev_malloc_delete", name="a")
        assert [bdev.name for bdev in engine.bdevs] == ["b", "c", "d", "y"]
        assert await states(call) == {"x": ("offline", 1, 1), "y": ("online", 2, 2), "top": ("offline", 1, 1)}
        assert await call("bdev_raid_delete", name="top") is True
        assert engine.bdevs.get("y").claimed_by is None

    in_engine(make_engine, body)


def test_a_mirror_goes_on_without_a_leg_and_not_without_both(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await malloc(call, "a", "b")
        await call("bdev_raid_create", name="m", raid_level="raid1", base_bdevs=["a", "b"])
        mirror = engine.bdevs.get("m")
        await mirror.write(0, b"x" * BLOCK)
        assert await call("bdev_raid_remove_base_bdev", name="a") is True
        assert await states(call) == {"m": ("online", 1, 1)}
        assert engine.bdevs.get("a").claimed_by is None
        await mirror.write(1, b"y" * BLOCK)
        assert await mirror.read(0, 2) == b"x" * BLOCK + b"y" * BLOCK
        assert await engine.bdevs.get("a").read(0, 2) == b"x" * BLOCK + bytes(BLOCK)
        assert await call("bdev_raid_remove_base_bdev", name="b") is True
        assert await states(call) == {}
        assert engine.bdevs.find("m") is None

    in_engine(make_engine, body)


def test_a_write_is_good_when_any_leg_took_it_and_the_other_leg_is_dropped(
    make_engine: Callable[[], Any], faulty_bdev: Any
) -> None:
    async def body(engine: Any, call: Any) -> None:
        good, bad = faulty_bdev("good", 64), faulty_bdev("bad", 64)
        engine.bdevs.add(good)
        engine.bdevs.add(bad)
        await call("bdev_raid_create", name="m", raid_level="1", base_bdevs=["bad", "good"])
        bad.fail_writes = True
        mirror = engine.bdevs.get("m")
        await mirror.write(5, b"z" * BLOCK)
        await mirror.write(6, b"z" * BLOCK)
        await asyncio.gather(*engine.raids.sets["m"].tasks)
        assert good.written == [5, 6]
        assert await states(call) == {"m": ("online", 1, 1)}
        assert bad.claimed_by is None
        good.fail_writes = True
        raid = engine.raids.sets["m"]
        with pytest.raises(NvmeError):
            await mirror.write(7, b"z" * BLOCK)
        await asyncio.gather(*raid.tasks)
        assert await states(call) == {}

    in_engine(make_engine, body)


def test_a_read_error_is_repaired_from_the_other_leg(make_engine: Callable[[], Any], faulty_bdev: Any) -> None:
    async def body(engine: Any, call: Any) -> None:
        first, second = faulty_bdev("first", 64), faulty_bdev("second", 64)
        engine.bdevs.add(first)
        engine.bdevs.add(second)
        await call("bdev_raid_create", name="m", raid_level="1", base_bdevs=["first", "second"])
        mirror = engine.bdevs.get("m")
        await mirror.write(3, b"d" * BLOCK)
        first.written.clear()
        first.fail_reads = True
        assert await mirror.read(3, 1) == b"d" * BLOCK
        assert first.written == [3]
        assert await states(call) == {"m": ("online", 2, 2)}
        second.fail_reads = True
        with pytest.raises(NvmeError):
            await mirror.read(3, 1)
        await asyncio.gather(*engine.raids.sets["m"].tasks)
        # Only the leg that was asked first is dropped.
        assert await states(call) == {"m": ("online", 1, 1)}

    in_engine(make_engine, body)


def test_a_read_error_is_not_repaired_while_a_write_is_under_way(
    make_engine: Callable[[], Any], faulty_bdev: Any
) -> None:
    async def body(engine: Any, call: Any) -> None:
        first, second = faulty_bdev("first", 64), faulty_bdev("second", 64)
        engine.bdevs.add(first)
        engine.bdevs.add(second)
        await call("bdev_raid_create", name="m", raid_level="1", base_bdevs=["first", "second"])
        mirror = engine.bdevs.get("m")
        first.fail_reads = True
        await asyncio.gather(mirror.write(0, b"n" * BLOCK), mirror.read(0, 1))
        assert first.data[:BLOCK] == second.data[:BLOCK] == b"n" * BLOCK

    in_engine(make_engine, body)


def test_a_removed_place_is_filled_while_configuring(make_engine: Callable[[], Any]) -> None:
    async def body(engine: Any, call: Any) -> None:
        await malloc(call, "a", "spare")
        await call("bdev_raid_create", name="r", raid_level="concat", strip_size_kb=4, base_bdevs=["a", "late"])
        assert await call("bdev_raid_remove_base_bdev", name="a") is True
        assert await states(call) == {"r": ("configuring", 0, 2)}
        # SPDK remembers the UUID of the leg that left, and takes that one only.
        code, _ = await call("bdev_raid_add_base_bdev", raid_bdev="r", base_bdev="spare")
        assert code == -22
        assert await call("bdev_raid_add_base_bdev", raid_bdev="r", base_bdev="a") is True
        await malloc(call, "late")
        assert await states(call) == {"r": ("online", 2, 2)}

    in_engine(make_engine, body)
