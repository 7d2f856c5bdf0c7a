"""A write with FUA is durable when it returns, whatever stands between it and the medium."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dataplane.embedded.bdev.aio import AioBdev, AioOptions
from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.engine import Engine
from dataplane.nvme.status import NvmeError, Status

Call = Callable[..., Awaitable[object]]


class Cached(Bdev):
    """Remembers what is only in its cache: (LBA, blocks) of writes since the last flush."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 512, 4096)
        self.volatile: list[tuple[int, int]] = []
        self.flushes = 0
        self.fail = False

    @property
    def write_cache(self) -> bool:
        return True

    async def do_read(self, lba: int, blocks: int) -> Buffer:  # noqa: ARG002 - every block is the same
        return bytes(blocks * 512)

    async def do_write(self, lba: int, data: Buffer) -> None:
        self.volatile.append((lba, len(data) // 512))

    async def do_flush(self) -> None:
        self.flushes += 1
        if self.fail:
            raise NvmeError(Status.WRITE_FAULT)
        self.volatile.clear()


async def stack(engine: Engine, call: Call, level: str) -> tuple[Bdev, list[Cached]]:
    """A set over halves of two devices."""
    leaves = [Cached(f"c{number}") for number in range(2)]
    for leaf in leaves:
        engine.bdevs.add(leaf)
        await call("bdev_split_create", base_bdev=leaf.name, split_count=2)
    bases = [f"{leaf.name}p1" for leaf in leaves]
    strip = {} if level == "raid1" else {"strip_size_kb": 4}
    assert await call("bdev_raid_create", name="v", raid_level=level, base_bdevs=bases, **strip) is True
    return engine.bdevs.get("v"), leaves


@pytest.mark.parametrize("level", ["raid0", "raid1", "concat"])
def test_fua_goes_down_to_the_devices_that_were_written(
    make_engine: Callable[[], tuple[Engine, Call]], level: str
) -> None:
    async def scenario() -> None:
        engine, call = make_engine()
        volume, leaves = await stack(engine, call, level)
        await volume.write(0, bytes(512))
        assert sum(len(leaf.volatile) for leaf in leaves) == (2 if level == "raid1" else 1)
        assert [leaf.flushes for leaf in leaves] == [0, 0]
        await volume.write(1, bytes(512), fua=True)
        assert [leaf.volatile for leaf in leaves] == [[], []]
        assert [leaf.flushes for leaf in leaves] == ([1, 1] if level == "raid1" else [1, 0])
        await volume.compare_and_write(2, bytes(512), bytes(512), fua=True)
        await volume.copy(3, 0, 1, fua=True)
        assert [leaf.volatile for leaf in leaves] == [[], []]
        await engine.close()

    asyncio.run(scenario())


def test_a_leg_that_cannot_make_it_durable_has_failed(make_engine: Callable[[], tuple[Engine, Call]]) -> None:
    async def scenario() -> None:
        engine, call = make_engine()
        volume, leaves = await stack(engine, call, "raid1")
        leaves[1].fail = True
        await volume.write(0, bytes(512), fua=True)
        await asyncio.sleep(0)
        await volume.write(8, bytes(512))
        assert (0 in dict(leaves[1].volatile), leaves[0].volatile) == (False, [(2048 + 8, 1)])
        await engine.close()

    asyncio.run(scenario())


def test_on_a_file_fua_synchronises_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(1 << 20))
    synchronised: list[bytes] = []
    real = os.fsync

    def watch(fd: int) -> None:
        synchronised.append(os.pread(fd, 1, 512))
        if synchronised[-1] == b"!":
            raise OSError(errno.EIO, "no more")
        real(fd)

    monkeypatch.setattr(os, "fsync", watch)

    async def scenario() -> None:
        device = AioBdev(AioOptions(name="a", filename=str(path), block_size=512))
        await device.write(1, b"w" * 512)
        assert synchronised == []
        await device.write(1, b"f" * 512, fua=True)
        assert synchronised == [b"f"]
        for fua in (True, True):
            with pytest.raises(NvmeError) as caught:
                await device.write(1, b"!" * 512, fua=fua)
            assert caught.value.code == Status.INTERNAL_ERROR
        assert synchronised == [b"f", b"!"], "after a failed synchronisation none is believed any more"
        monkeypatch.setattr(os, "fsync", real)
        await device.close()

    asyncio.run(scenario())
