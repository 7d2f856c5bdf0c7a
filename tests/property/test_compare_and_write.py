"""Counting by compare and write, whatever the device does between one step and the next: no count is lost."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.embedded.bdev.base import Bdev, Buffer, CompareFailed

BLOCK = 512


class Dawdling(Bdev):
    """Memory whose I/O takes a random number of turns before and after it touches a block."""

    def __init__(self, blocks: int, seed: int) -> None:
        super().__init__("slow", BLOCK, blocks)
        self.store = bytearray(BLOCK * blocks)
        self.random = random.Random(seed)

    async def dawdle(self) -> None:
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        await self.dawdle()
        found = bytes(self.store[lba * BLOCK : (lba + blocks) * BLOCK])
        await self.dawdle()
        return found

    async def do_write(self, lba: int, data: Buffer) -> None:
        for at in range(0, len(data), BLOCK):
            await self.dawdle()
            start = lba * BLOCK + at
            self.store[start : start + BLOCK] = data[at : at + BLOCK]
        await self.dawdle()


def number(held: Buffer) -> int:
    return int.from_bytes(bytes(held)[:8], "little")


def block(value: int) -> bytes:
    return value.to_bytes(8, "little").ljust(BLOCK, b"\0")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), counters=st.integers(1, 6), rounds=st.integers(1, 6), others=st.integers(0, 4))
def test_no_increment_is_lost(seed: int, counters: int, rounds: int, others: int) -> None:
    device = Dawdling(6, seed)

    async def count() -> None:
        for _ in range(rounds):
            while True:
                held = await device.read(2, 1)
                try:
                    await device.compare_and_write(2, held, block(number(held) + 1))
                except CompareFailed:
                    continue
                break

    async def add(amount: int) -> None:
        """A plain write over the counter and its neighbours, which keeps what the neighbours held."""
        for _ in range(rounds):
            await device.write(3, block(amount) * 2)
            await device.write(0, block(amount) * 2)

    async def whole() -> None:
        await asyncio.gather(*(count() for _ in range(counters)), *(add(each + 1) for each in range(others)))

    asyncio.run(whole())
    assert number(device.store[2 * BLOCK :]) == counters * rounds
    assert device.ranges.exclusive == 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32), writers=st.integers(1, 5), swaps=st.integers(1, 5))
def test_what_a_pair_replaces_is_what_it_compared(seed: int, writers: int, swaps: int) -> None:
    """Plain writes of the same block beside it: each value that a pair takes away was there, once."""
    device = Dawdling(1, seed)
    taken: list[int] = []

    async def write(value: int) -> None:
        await device.write(0, block(value))

    async def swap() -> None:
        while True:
            held = await device.read(0, 1)
            if not number(held):
                return
            try:
                await device.compare_and_write(0, held, block(0))
            except CompareFailed:
                continue
            taken.append(number(held))

    async def whole() -> None:
        await asyncio.gather(*(write(value + 1) for value in range(writers)), *(swap() for _ in range(swaps)))
        await swap()

    asyncio.run(whole())
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(range(1, writers + 1))
    assert number(device.store) == 0
