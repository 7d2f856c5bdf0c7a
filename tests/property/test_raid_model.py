"""Stacks of raid sets and splits against a bytearray: what was written is read, wherever it lies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.embedded.bdev.base import Bdev, CompareFailed
from dataplane.embedded.bdev.raid_map import Concatenated, Striped
from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc import dispatch
from dataplane.embedded.rpc.registry import RUNTIME
from dataplane.nvme.status import NvmeError

BLOCK = 512
Io = tuple[str, int, int, int]


@st.composite
def ios(draw: st.DrawFn) -> list[Io]:
    """(kind, where, how much, fill): where and how much are thousandths of the device."""
    kinds = st.sampled_from(["read", "write", "zero", "unmap", "flush", "compare", "swap", "copy"])
    one = st.tuples(kinds, st.integers(0, 999), st.integers(0, 400), st.integers(1, 255))
    return draw(st.lists(one, min_size=1, max_size=25))


async def check(bdev: Bdev, script: list[Io]) -> None:
    """Play the script on the device and on a model; they agree all the way."""
    model = bytearray(bdev.num_blocks * BLOCK)
    for kind, where, much, fill in script:
        lba = where * bdev.num_blocks // 1000
        blocks = min(1 + much * bdev.num_blocks // 1000, bdev.num_blocks - lba)
        span = slice(lba * BLOCK, (lba + blocks) * BLOCK)
        if kind == "write":
            # Every block differs, so that a block in the wrong place is seen.
            data = b"".join(bytes([fill, index % 251]) * (BLOCK // 2) for index in range(blocks))
            await bdev.write(lba, data, fua=fill % 2 == 0)
            model[span] = data
        elif kind == "zero":
            await bdev.write_zeroes(lba, blocks)
            model[span] = bytes(blocks * BLOCK)
        elif kind == "unmap":
            await bdev.unmap(lba, blocks)
            model[span] = bytes(blocks * BLOCK)  # malloc clears what is unmapped
        elif kind == "flush":
            await bdev.flush()
        elif kind == "compare":
            await bdev.compare(lba, bytes(model[span]))
            with pytest.raises(NvmeError, match="Compare Failure"):
                await bdev.compare(lba, bytes([model[span][0] ^ fill]) + bytes(model[span])[1:])
        elif kind == "swap":
            await swap(bdev, model, lba, fill)
        elif kind == "copy":
            source = (where * 7 % 1000) * (bdev.num_blocks - blocks) // 1000
            await bdev.copy(lba, source, blocks, fua=fill % 2 == 0)
            model[span] = bytes(model[source * BLOCK : (source + blocks) * BLOCK])
        else:
            assert bytes(await bdev.read(lba, blocks)) == model[span]
    assert bytes(await bdev.read(0, bdev.num_blocks)) == bytes(model)
    with pytest.raises(NvmeError):
        await bdev.read(bdev.num_blocks, 1)


async def swap(bdev: Bdev, model: bytearray, lba: int, fill: int) -> None:
    """One block by compare and write: not when it holds something else, then when it does not."""
    block = slice(lba * BLOCK, (lba + 1) * BLOCK)
    data = bytes([fill, lba % 251]) * (BLOCK // 2)
    with pytest.raises(CompareFailed):
        await bdev.compare_and_write(lba, bytes([model[block][0] ^ fill]) + bytes(model[block])[1:], data)
    await bdev.compare_and_write(lba, bytes(model[block]), data, fua=fill % 2 == 0)
    model[block] = data


async def engine_with(sizes: list[int]) -> tuple[Engine, Any]:
    engine = Engine()
    engine.state = RUNTIME

    async def call(method: str, **params: object) -> object:
        return await dispatch.call(engine, method, params)

    for index, size in enumerate(sizes):
        await call("bdev_malloc_create", name=f"b{index}", num_blocks=size, block_size=BLOCK)
    return engine, call


@settings(max_examples=40, deadline=None)
@given(
    level=st.sampled_from(["raid0", "concat"]),
    sizes=st.lists(st.integers(16, 90), min_size=1, max_size=5),
    strip_kb=st.sampled_from([1, 2, 4, 8]),
    script=ios(),
)
def test_raid0_and_concat(level: str, sizes: list[int], strip_kb: int, script: list[Io]) -> None:
    async def run() -> None:
        engine, call = await engine_with(sizes)
        names = [f"b{index}" for index in range(len(sizes))]
        await call("bdev_raid_create", name="r", raid_level=level, strip_size_kb=strip_kb, base_bdevs=names)
        await check(engine.bdevs.get("r"), script)
        await engine.close()

    asyncio.run(run())


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(8, 60), min_size=2, max_size=4), script=ios(), lost=st.booleans())
def test_raid1(sizes: list[int], script: list[Io], lost: bool) -> None:
    async def run() -> None:
        engine, call = await engine_with(sizes)
        names = [f"b{index}" for index in range(len(sizes))]
        await call("bdev_raid_create", name="r", raid_level="raid1", base_bdevs=names)
        mirror = engine.bdevs.get("r")
        if lost:
            await call("bdev_raid_remove_base_bdev", name=names.pop(0))
        await check(mirror, script)
        legs = [bytes(await engine.bdevs.get(name).read(0, mirror.num_blocks)) for name in names]
        assert all(leg == legs[0] for leg in legs)
        await engine.close()

    asyncio.run(run())


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 6), strip_kb=st.sampled_from([1, 4]), script=ios())
def test_nested_sets_over_splits_and_no_part_touches_another(count: int, strip_kb: int, script: list[Io]) -> None:
    async def run() -> None:
        engine, call = await engine_with([count * 24 + 5] * 4)
        for index in range(4):
            await call("bdev_split_create", base_bdev=f"b{index}", split_count=count)
        # The last slice of each drive belongs to the volume, all others have to keep their marks.
        others = [f"b{drive}p{part}" for drive in range(4) for part in range(count - 1)]
        for name in others:
            await engine.bdevs.get(name).write(0, b"\xee" * BLOCK * engine.bdevs.get(name).num_blocks)
        last = count - 1
        for name, legs in (("x", (0, 1)), ("y", (2, 3))):
            bases = [f"b{leg}p{last}" for leg in legs]
            await call("bdev_raid_create", name=name, raid_level="raid0", strip_size_kb=strip_kb, base_bdevs=bases)
        await call("bdev_raid_create", name="v", raid_level="concat", strip_size_kb=4, base_bdevs=["x", "y"])
        await check(engine.bdevs.get("v"), script)
        for name in others:
            bdev = engine.bdevs.get(name)
            assert await bdev.read(0, bdev.num_blocks) == b"\xee" * BLOCK * bdev.num_blocks
        await engine.close()

    asyncio.run(run())


layouts = st.one_of(
    st.builds(Striped.over, st.lists(st.integers(4, 60), min_size=1, max_size=7), st.sampled_from([1, 2, 4])),
    st.builds(Concatenated.over, st.lists(st.integers(4, 60), min_size=1, max_size=7), st.sampled_from([1, 2, 4])),
)


@given(layout=layouts, data=st.data())
def test_pieces_cover_a_range_once_and_spans_cover_the_same_blocks(
    layout: Striped | Concatenated, data: st.DataObject
) -> None:
    lba = data.draw(st.integers(0, layout.num_blocks - 1))
    blocks = data.draw(st.integers(0, layout.num_blocks - lba))
    pieces = layout.pieces(lba, blocks)
    assert [piece.at for piece in pieces] == [sum(p.blocks for p in pieces[:index]) for index in range(len(pieces))]
    assert sum(piece.blocks for piece in pieces) == blocks
    touched = {(piece.leg, piece.lba + index) for piece in pieces for index in range(piece.blocks)}
    assert len(touched) == blocks
    assert all(piece.lba + piece.blocks <= layout.leg_size(piece.leg) for piece in pieces)
    spans = layout.spans(lba, blocks)
    assert {(span.leg, span.lba + index) for span in spans for index in range(span.blocks)} == touched
    assert len({span.leg for span in spans}) == len(spans)


@given(layout=layouts)
def test_different_blocks_lie_in_different_places(layout: Striped | Concatenated) -> None:
    places = [(piece.leg, piece.lba) for lba in range(layout.num_blocks) for piece in layout.pieces(lba, 1)]
    assert len(set(places)) == len(places) == layout.num_blocks
