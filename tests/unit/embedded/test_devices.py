"""Leaf bdevs: files, memory, nothing, and parts of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataplane.embedded.bdev.aio import AioBdev, AioOptions, _Syncs
from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.bdev.memory import MallocBdev, MemoryOptions, NullBdev
from dataplane.embedded.bdev.split import part_uuid
from dataplane.nvme.status import NvmeError, Status

MIB = 1 << 20


def file_of(tmp_path: Path, size_bytes: int = MIB) -> str:
    path = tmp_path / "drive"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return str(path)


def test_a_file_keeps_what_was_written_and_flushed(tmp_path: Path) -> None:
    async def run() -> None:
        options = AioOptions(name="a", filename=file_of(tmp_path), block_size=4096)
        first = AioBdev(options)
        await first.write(3, b"\xab" * 8192)
        await first.flush()
        await first.close()
        second = AioBdev(options)
        assert (second.num_blocks, second.block_size) == (256, 4096)
        assert await second.read(2, 4) == bytes(4096) + b"\xab" * 8192 + bytes(4096)
        await second.close()

    asyncio.run(run())


def test_zeroes_are_read_after_write_zeroes_and_unmap(tmp_path: Path) -> None:
    async def run() -> None:
        bdev = AioBdev(AioOptions(name="a", filename=file_of(tmp_path), block_size=512, fallocate=True))
        await bdev.write(0, b"\xff" * MIB)
        await bdev.write_zeroes(3, 900)
        await bdev.unmap(1000, 1)
        assert await bdev.read(0, 2048) == b"\xff" * 1536 + bytes(900 * 512) + b"\xff" * (97 * 512) + bytes(
            512
        ) + b"\xff" * (1047 * 512)
        await bdev.close()

    asyncio.run(run())


def test_io_outside_of_the_device_is_refused_before_it_happens(tmp_path: Path) -> None:
    async def run() -> None:
        bdev = AioBdev(AioOptions(name="a", filename=file_of(tmp_path), block_size=512))
        for io in (bdev.read(2048, 1), bdev.read(2047, 2), bdev.write(2048, bytes(512)), bdev.write_zeroes(0, 2049)):
            with pytest.raises(NvmeError) as caught:
                await io
            assert caught.value.code == Status.LBA_OUT_OF_RANGE
        await bdev.close()
        assert os.path.getsize(tmp_path / "drive") == MIB

    asyncio.run(run())


def test_a_file_that_shrank_and_one_that_is_read_only(tmp_path: Path) -> None:
    async def run() -> None:
        name = file_of(tmp_path)
        bdev = AioBdev(AioOptions(name="a", filename=name, block_size=512))
        os.truncate(name, 1024)
        with pytest.raises(NvmeError):
            await bdev.read(0, 8)
        await bdev.close()
        bdev = AioBdev(AioOptions(name="a", filename=name, block_size=512, readonly=True))
        for io in (bdev.write(0, bytes(512)), bdev.write_zeroes(0, 1)):
            with pytest.raises(NvmeError):
                await io
        assert await bdev.read(0, 2) == bytes(1024)
        await bdev.close()

    asyncio.run(run())


def test_a_sync_that_failed_once_fails_for_ever() -> None:
    async def run() -> None:
        read_end, write_end = os.pipe()  # a pipe cannot be synchronised
        try:
            syncs = _Syncs(write_end)
            for _ in range(2):
                with pytest.raises(OSError, match="Invalid argument"):
                    await syncs.wait()
        finally:
            os.close(read_end)
            os.close(write_end)

    asyncio.run(run())


def test_many_flushes_at_once_all_end(tmp_path: Path) -> None:
    async def run() -> None:
        bdev = AioBdev(AioOptions(name="a", filename=file_of(tmp_path), block_size=512))
        await asyncio.gather(*(bdev.flush() for _ in range(200)))
        await bdev.close()

    asyncio.run(run())


def test_memory() -> None:
    async def run() -> None:
        bdev = MallocBdev(MemoryOptions(name="m", num_blocks=64, block_size=512))
        await bdev.write(0, bytes([1]) * 32768)
        before = await bdev.read(0, 64)
        await bdev.write_zeroes(1, 62)
        assert before == bytes([1]) * 32768
        assert await bdev.read(0, 64) == bytes([1]) * 512 + bytes(62 * 512) + bytes([1]) * 512
        await bdev.write_zeroes(0, 1)
        assert await bdev.read(0, 1) == bytes(512)
        await bdev.close()
        null = NullBdev(MemoryOptions(name="n", num_blocks=1 << 40, block_size=512))
        await null.write(1 << 39, b"x" * 512)
        assert await null.read(1 << 39, 1) == bytes(512)

    asyncio.run(run())


def test_a_malloc_that_does_not_fit_is_refused() -> None:
    with pytest.raises(BdevError):
        MallocBdev(MemoryOptions(name="m", num_blocks=1 << 62, block_size=512))


def test_uuids_of_parts_are_those_of_spdk() -> None:
    # Read from SPDK v26.05: parts of bdevs with these UUIDs.
    base = "11111111-2222-4333-8444-555555555555"
    assert part_uuid(base, 0, 1024) == "990aa488-0483-53ca-94ad-77cdf3265da3"
    assert part_uuid(base, 1024, 1024) == "5b6b6e1d-1ec1-5969-a7e2-b438ac852119"
    assert part_uuid("44444444-2222-4333-8444-555555555555", 50, 50) == "1dfd6b75-469c-5f80-914c-c6bd974f385c"


def test_parts_cover_the_base_and_go_with_it(make_engine: Callable[[], Any]) -> None:
    async def run() -> None:
        engine, call = make_engine()
        await call("bdev_malloc_create", name="m", num_blocks=4096, block_size=512)
        assert await call("bdev_split_create", base_bdev="m", split_count=3, split_size_mb=1) == ["mp0", "mp1"]
        for index, byte in enumerate(b"\x01\x02"):
            await engine.bdevs.get(f"mp{index}").write(0, bytes([byte]) * MIB)
        assert await engine.bdevs.get("m").read(2047, 2) == b"\x01" * 512 + b"\x02" * 512
        assert await call("bdev_malloc_delete", name="m") is True
        assert [bdev.name for bdev in engine.bdevs] == []
        assert engine.splits.configs == {}

    asyncio.run(run())


def test_a_limit_holds_io_back_and_counters_count(make_engine: Callable[[], Any]) -> None:
    async def run() -> None:
        engine, call = make_engine()
        await call("bdev_null_create", name="n", num_blocks=4096, block_size=512)
        await call("bdev_set_qos_limit", name="n", rw_mbytes_per_sec=1)
        bdev = engine.bdevs.get("n")
        await bdev.write(0, bytes(MIB))
        held_back = asyncio.ensure_future(bdev.write(0, bytes(512)))
        for _ in range(10):
            await asyncio.sleep(0)
        # It has to wait for a MiB at 1 MiB/s.
        assert not held_back.done()
        held_back.cancel()
        await call("bdev_set_qos_limit", name="n", rw_mbytes_per_sec=0)
        await bdev.write(0, bytes(MIB))
        stats: Any = await call("bdev_get_iostat", names=["n"])
        assert stats["bdevs"][0]["bytes_written"] == 2 * MIB
        assert stats["bdevs"][0]["num_write_ops"] == 2

    asyncio.run(run())
