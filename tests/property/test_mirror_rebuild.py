"""A mirror under writes, rebuilds and failing legs, against a model: no acknowledged write is ever read back old.

The legs do each I/O only when the machine lets it, one step at a time, so that every order of host I/O, copying and
failures is tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataplane.embedded.bdev.base import Bdev, BdevError, Buffer
from dataplane.embedded.bdev.raid_mirror import MirroredRaid
from dataplane.embedded.engine import Engine
from dataplane.nvme.status import NvmeError, Status

T = TypeVar("T")
BLOCK = 512
BLOCKS = 24
WINDOW_KB = 2
NAMES = ("a", "b", "c")


class StepBdev(Bdev):
    """Memory whose I/O takes effect, or fails, when ``step`` is called on it."""

    def __init__(self, name: str) -> None:
        super().__init__(name, BLOCK, BLOCKS)
        self.data = bytearray(BLOCK * BLOCKS)
        self.waiting: list[asyncio.Future[None]] = []
        self.direct = False

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        await self._turn()
        return bytes(self.data[lba * BLOCK : (lba + blocks) * BLOCK])

    async def do_write(self, lba: int, data: Buffer) -> None:
        await self._turn()
        self.data[lba * BLOCK : lba * BLOCK + len(data)] = data

    async def do_flush(self) -> None:
        await self._turn()

    async def _turn(self) -> None:
        if self.direct:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    def step(self, index: int, *, fails: bool) -> None:
        """One of the I/Os that wait gets its turn."""
        turn = self.waiting.pop(index % len(self.waiting))
        if fails:
            turn.set_exception(NvmeError(Status.WRITE_FAULT))
        else:
            turn.set_result(None)


class Mirror(RuleBasedStateMachine):
    """``allowed[block]``: the fills that a read may show; one alone once the last write there was answered."""

    @initialize(degraded=st.booleans())
    def begin(self, degraded: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.legs = {name: StepBdev(name) for name in NAMES}
        self.fill = 0
        self.allowed: list[set[int]] = [{0} for _ in range(BLOCKS)]
        self.writes: list[tuple[asyncio.Task[None], int, int, int]] = []
        self.reads: list[tuple[asyncio.Task[Buffer], int, list[set[int]]]] = []
        self.calls: list[asyncio.Task[Any]] = []
        self.failures = 0

        async def make() -> None:
            self.engine = Engine()
            self.engine.raids.process_window_size_kb = WINDOW_KB
            for leg in self.legs.values():
                self.engine.bdevs.add(leg)
            await self.engine.raids.create("m", "raid1", 0, list(NAMES), "00000000-0000-0000-0000-000000000000")

        self.loop.run_until_complete(make())
        if degraded:
            self.take_out("c")
            self.put_in("c")

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self._finish()
            self.loop.close()

    # -- what the machine does

    @property
    def mirror(self) -> MirroredRaid | None:
        found = self.engine.bdevs.find("m")
        return found if isinstance(found, MirroredRaid) else None

    def _in_loop(self, make: Callable[[], T]) -> T:
        async def call() -> T:
            made = make()
            await self._settle()
            return made

        return self.loop.run_until_complete(call())

    async def _settle(self) -> None:
        for _ in range(25):
            await asyncio.sleep(0)

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        return self._in_loop(lambda: self.loop.create_task(coroutine))

    @rule(lba=st.integers(0, BLOCKS - 1), blocks=st.integers(1, 10))
    def write(self, lba: int, blocks: int) -> None:
        mirror = self.mirror
        blocks = min(blocks, BLOCKS - lba)
        # Hosts do not write the same blocks twice at a time; what the order would be nobody promises.
        if mirror is None or any(at < lba + blocks and lba < at + count for _, at, count, _ in self.writes):
            return
        self.fill = self.fill % 254 + 1
        for block in range(lba, lba + blocks):
            self.allowed[block].add(self.fill)
        for _, at, seen in self.reads:
            for index, fills in enumerate(seen):
                if lba <= at + index < lba + blocks:
                    fills.add(self.fill)
        task = self._spawn(mirror.write(lba, bytes([self.fill]) * BLOCK * blocks))
        self.writes.append((task, lba, blocks, self.fill))

    @rule(lba=st.integers(0, BLOCKS - 1), blocks=st.integers(1, 10))
    def read(self, lba: int, blocks: int) -> None:
        mirror = self.mirror
        if mirror is None:
            return
        blocks = min(blocks, BLOCKS - lba)
        seen = [set(self.allowed[block]) for block in range(lba, lba + blocks)]
        self.reads.append((self._spawn(mirror.read(lba, blocks)), lba, seen))

    @rule(turns=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 7)), min_size=1, max_size=8))
    def step(self, turns: list[tuple[str, int]]) -> None:
        for name, index in turns:
            if self.legs[name].waiting:
                self._in_loop(partial(self.legs[name].step, index, fails=False))

    @precondition(lambda self: self.failures < 3)
    @rule(name=st.sampled_from(NAMES), index=st.integers(0, 7))
    def fail(self, name: str, index: int) -> None:
        leg = self.legs[name]
        if leg.waiting and self._staying() - {name}:
            self.failures += 1
            self._in_loop(lambda: leg.step(index, fails=True))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        self.take_out(name)

    def take_out(self, name: str) -> None:
        if self._staying() - {name}:
            self.calls.append(self._spawn(self._quietly(self.engine.raids.remove_base(name))))

    @rule(name=st.sampled_from(NAMES))
    def add(self, name: str) -> None:
        self.put_in(name)

    def put_in(self, name: str) -> None:
        raid, leg = self.engine.raids.find("m"), self.legs[name]
        if raid is None or leg.claimed_by is not None or leg.waiting:
            return
        leg.data[:] = b"\xff" * len(leg.data)  # what it held while it was away is of no use to anybody
        self.calls.append(self._spawn(self._quietly(self.engine.raids.add_base(raid, name))))

    @staticmethod
    async def _quietly(call: Any) -> None:
        with suppress(BdevError):
            await call

    def _equal(self) -> set[str]:
        mirror = self.mirror
        return {leg.name for leg in mirror._legs if leg is not None} if mirror is not None else set()

    def _staying(self) -> set[str]:
        """Equal legs that nobody takes out."""
        raid = self.engine.raids.find("m")
        leaving = {leg.bdev.name for leg in raid.legs if leg.leaving and leg.bdev} if raid is not None else set()
        return self._equal() - leaving

    # -- what always holds

    @invariant()
    def answers_are_right(self) -> None:
        if not hasattr(self, "loop"):
            return
        for entry in [each for each in self.writes if each[0].done()]:
            self.writes.remove(entry)
            task, lba, blocks, fill = entry
            if task.exception() is None:
                for block in range(lba, lba + blocks):
                    self.allowed[block] = {fill}
        for read in [each for each in self.reads if each[0].done()]:
            self.reads.remove(read)
            done, lba, seen = read
            if done.exception() is None:
                data = bytes(done.result())
                for index, fills in enumerate(seen):
                    block = data[index * BLOCK : (index + 1) * BLOCK]
                    assert block[0] in fills, f"block {lba + index} shows {block[0]}, not one of {fills}"
                    assert len(set(block)) == 1

    @invariant()
    def every_equal_leg_holds_what_was_acknowledged(self) -> None:
        if not hasattr(self, "loop"):
            return
        for name in self._equal():
            for block, fills in enumerate(self.allowed):
                if len(fills) == 1:
                    assert self.legs[name].data[block * BLOCK] in fills, f"leg {name}, block {block}"

    def _finish(self) -> None:
        """Everything ends once the legs answer; then equal legs are byte for byte equal, where no write failed."""
        for leg in self.legs.values():
            leg.direct = True

        def let_all_go() -> None:
            for leg in self.legs.values():
                while leg.waiting:
                    leg.step(0, fails=False)

        self._in_loop(let_all_go)
        raid = self.engine.raids.find("m")
        event(f"equal legs at the end: {len(self._equal())}")
        if raid is not None and raid.rebuild is not None:
            event("rebuilding at the end", bool(raid.rebuild.plan.mark))

        async def rest() -> None:
            async with asyncio.timeout(30):
                while raid is not None and (raid.rebuild is not None or raid.tasks):
                    await asyncio.sleep(0)
                for task in [each[0] for each in self.writes] + [each[0] for each in self.reads] + self.calls:
                    await asyncio.wait([task])

        self.loop.run_until_complete(rest())
        self.answers_are_right()
        self.every_equal_leg_holds_what_was_acknowledged()
        if self.mirror is not None:
            contents = {bytes(self.legs[name].data) for name in self._equal()}
            assert len(contents) <= 1, "legs that count as equal differ"
        self.loop.run_until_complete(self.engine.close())


Mirror.TestCase.settings = settings(max_examples=250, stateful_step_count=80, deadline=None)
TestMirror = Mirror.TestCase
