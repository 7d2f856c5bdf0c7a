"""How an agent comes to its map without being held up by it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import Unreachable, UsageError
from ha.journal import snapshot
from ha.maps import Maps
from ha.memory import Memory
from ha.model import Record, Save, ServiceMap, SnapshotAt
from ha.reading import MapReading

UUID = "6d0d2fc6-6c40-4a9c-8dd2-4f1a47f4f0a1"


def packed(generation: int) -> bytes:
    service = ServiceMap(array_uuid=UUID, generation=generation, quorum=("d0",), block_bytes={"d0": 512})
    return snapshot.pack(snapshot.Snapshot(state=f"state {generation}", map=service))


def remembering(raw: bytes, generation: int) -> Memory:
    at = snapshot.located(raw, generation % 2, generation)
    record = Record(
        array_uuid=UUID, epoch=1, sequence=generation, leader="a", owners={}, members={"a": 1}, snapshot=at
    )  # fmt: skip
    return replace(Memory(node="a"), record=record)


def order(raw: bytes, generation: int, *, form: bool = False) -> Save:
    return Save(number=1, generation=generation, expects=0, snapshot=raw, digest="", form=form)


class Drives:
    """Answers each read when the test says so."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[SnapshotAt, asyncio.Future[bytes | None]]] = asyncio.Queue()

    async def read_snapshot(self, at: SnapshotAt, deadline_ms: int) -> bytes | None:
        assert deadline_ms == 100
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        await self.asked.put((at, answer))
        return await answer


class Node:
    """The reading as the agent holds it."""

    def __init__(self, folder: Path) -> None:
        self.maps = Maps(folder)
        self.drives = Drives()
        self.woken = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.reading = MapReading(self.maps, 100, self.begin, self.woken.set)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(asyncio.create_task(work))

    async def cycle(self, memory: Memory) -> None:
        """One that comes when the reading asks for it."""
        await self.woken.wait()
        self.woken.clear()
        self.reading.look(memory, self.drives)

    def look(self, memory: Memory) -> None:
        self.reading.look(memory, self.drives)

    @property
    def generation(self) -> int:
        return self.maps.current.generation if self.maps.current is not None else 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ha.reading.AGAIN_MS", 0)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", [None, b"torn", packed(4)])
def test_what_a_record_names_is_read_until_it_is_the_one(tmp_path: Path, first: bytes | None) -> None:
    async def run() -> None:
        node, raw = Node(tmp_path), packed(5)
        memory = remembering(raw, 5)
        node.look(memory)
        node.look(memory)
        at, answer = await node.drives.asked.get()
        assert node.drives.asked.empty(), "one read at a time"
        assert memory.record is not None
        assert at == memory.record.snapshot
        answer.set_result(first)
        await node.cycle(memory)
        assert node.generation == 0
        _, answer = await node.drives.asked.get()
        answer.set_result(raw)
        await node.cycle(memory)
        assert node.generation == 5
        await asyncio.gather(*node.tasks)
        assert Maps(tmp_path).current == node.maps.current, "the next agent begins with it"

    asyncio.run(run())


@pytest.mark.usefixtures("quick")
def test_a_data_plane_that_is_lost_is_asked_again(tmp_path: Path) -> None:
    async def run() -> None:
        node, raw = Node(tmp_path), packed(5)
        memory = remembering(raw, 5)
        node.look(memory)
        (await node.drives.asked.get())[1].set_exception(Unreachable("RPC-001", "gone", why="it ended", remedy="wait"))
        await node.cycle(memory)
        (await node.drives.asked.get())[1].set_result(raw)
        await node.cycle(memory)
        assert node.generation == 5

    asyncio.run(run())


def test_what_comes_too_late_is_not_taken(tmp_path: Path) -> None:
    async def run() -> None:
        node, old, new = Node(tmp_path), packed(5), packed(6)
        node.look(remembering(old, 5))
        _, late = await node.drives.asked.get()
        await node.reading.offer(order(new, 6))
        node.look(remembering(new, 6))
        assert node.generation == 6
        late.set_result(old)
        await node.cycle(remembering(new, 6))
        assert node.generation == 6

    asyncio.run(run())


def test_the_loop_goes_on_while_a_map_is_decoded(tmp_path: Path) -> None:
    async def run() -> None:
        node, turns = Node(tmp_path), 0

        async def count() -> None:
            nonlocal turns
            while not node.generation:
                turns += 1
                await asyncio.sleep(0)

        await asyncio.gather(count(), node.reading.learn(packed(3)))
        assert turns > 1
        assert Maps(tmp_path).current == node.maps.current, "kept before anybody is told that it was learned"

    asyncio.run(run())


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        node = Node(tmp_path)
        with pytest.raises(UsageError, match="HA-032"):
            await node.reading.learn(b"nonsense")
        with pytest.raises(UsageError, match="HA-032"):
            await node.reading.offer(order(packed(3), 4))
        assert node.generation == 0
        await node.reading.offer(order(packed(3), 3, form=True))
        assert node.generation == 3

    asyncio.run(run())
