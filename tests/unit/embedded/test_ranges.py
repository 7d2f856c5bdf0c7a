"""Whose turn it is on which blocks, and that waiting can be given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dataplane.embedded.bdev import waits
from dataplane.embedded.bdev.base import CompareFailed
from dataplane.embedded.bdev.memory import MallocBdev, MemoryOptions
from dataplane.embedded.bdev.qos import RateLimits
from dataplane.embedded.bdev.ranges import Ranges
from dataplane.nvme.status import NvmeError, Status

A, B, C = (letter * 512 for letter in (b"a", b"b", b"c"))


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(whole())


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_turns_come_in_the_order_of_asking() -> None:
    async def story() -> None:
        ranges = Ranges()
        order: list[str] = []

        async def use(name: str, lba: int, blocks: int, *, alone: bool) -> asyncio.Event:
            done = asyncio.Event()
            key = ranges.begin(lba, blocks, alone=alone)

            async def hold() -> None:
                try:
                    await ranges.turn(key)
                    order.append(name)
                    await done.wait()
                finally:
                    ranges.end(key)

            tasks.append(asyncio.create_task(hold()))
            await settle()
            return done

        tasks: list[asyncio.Task[None]] = []
        write = await use("write", 0, 4, alone=False)
        beside = await use("beside", 2, 4, alone=False)
        lock = await use("lock", 3, 1, alone=True)
        late = await use("late", 0, 8, alone=False)
        far = await use("far", 100, 1, alone=True)
        second = await use("second", 3, 1, alone=True)
        assert order == ["write", "beside", "far"], "shared ones overlap; what is far away waits for nobody"
        write.set()
        await settle()
        assert order[3:] == [], "one of the two before the lock is left"
        beside.set()
        await settle()
        assert order[3:] == ["lock"]
        lock.set()
        await settle()
        assert order[4:] == ["late"], "asked before the second lock"
        for event in (late, far, second):
            event.set()
        await asyncio.gather(*tasks)
        assert (order[5:], ranges.exclusive) == (["second"], 0)

    play(story)


def test_who_gives_up_waiting_holds_up_nobody() -> None:
    async def story() -> None:
        device = MallocBdev(MemoryOptions(name="m", num_blocks=8, block_size=512))
        key = device.ranges.begin(2, 1, alone=True)
        first, second = (asyncio.create_task(device.write(lba, A)) for lba in (2, 2))
        await device.write(3, B)
        await settle()
        assert not first.done()
        assert waits.abort(first)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not waits.abort(first)
        device.ranges.end(key)
        await second
        assert await device.read(2, 2) == A + B
        assert (device.ranges.exclusive, device.stats.write.ops) == (0, 2)

    play(story)


def test_a_rate_limit_is_a_wait_that_can_be_given_up() -> None:
    async def story() -> None:
        device = MallocBdev(MemoryOptions(name="m", num_blocks=4096, block_size=512))
        device.limits = RateLimits()
        device.limits.set("w_mbytes_per_sec", 1, 0.0)
        data = bytes(1 << 20)
        await device.write(0, data)
        held = asyncio.create_task(device.write(0, b"x" * (1 << 20)))
        await settle()
        assert waits.abort(held)
        with pytest.raises(asyncio.CancelledError):
            await held
        assert await device.read(0, 1) == bytes(512)

    play(story)


def test_a_compare_and_write_says_which_half_failed() -> None:
    async def story() -> None:
        device = MallocBdev(MemoryOptions(name="m", num_blocks=8, block_size=512))
        await device.write(1, A)
        await device.compare_and_write(1, A, B)
        with pytest.raises(CompareFailed) as caught:
            await device.compare_and_write(1, A, C)
        assert caught.value.code == Status.COMPARE_FAILURE
        assert await device.read(1, 1) == B
        with pytest.raises(NvmeError) as outside:
            await device.compare_and_write(8, A, B)
        assert (type(outside.value), outside.value.code) == (NvmeError, Status.LBA_OUT_OF_RANGE)
        assert device.ranges.exclusive == 0

    play(story)


@pytest.mark.parametrize(("source", "to"), [(0, 3), (3, 0), (5, 5), (0, 4000), (2048, 1)])
def test_a_copy_onto_itself_is_a_move(source: int, to: int) -> None:
    """In pieces of a MiB, in the order that overwrites nothing that is still to be read."""

    async def story() -> None:
        device = MallocBdev(MemoryOptions(name="m", num_blocks=8192, block_size=512))
        whole = bytearray(b"".join(number.to_bytes(4, "big") * 128 for number in range(8192)))
        await device.write(0, whole)
        blocks = 4100 if to != source else 100
        await device.copy(to, source, blocks)
        whole[to * 512 : (to + blocks) * 512] = bytes(whole[source * 512 : (source + blocks) * 512])
        assert await device.read(0, 8192) == whole

    play(story)
