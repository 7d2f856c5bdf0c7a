"""What a node does with the drives all the time: heartbeat slots, reports, and whether each drive answers.

Each lane has at most one command on its way to a drive, so a drive that hangs makes its own answers stale, holds
nothing else up, and costs one place on the connection per lane.  This module must never conclude anything about the
peer.

``certain`` times are those at which a command was SENT that has been carried out since: what a lease may rest on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ha import slots
from ha.adapters.commands import Commands
from ha.adapters.reserving import Reservations
from ha.journal import layout
from ha.keys import array_prefix
from ha.model import Answer, Drives, NodeName, ServiceMap, Slots, other
from ha.policy import Policy

PATIENCE_MS: Final = 3_600_000
"""A lane's command is not given up: it keeps its place until it is answered, or the connection ends."""
LIVE_MS: Final = 1_000
"""Between two looks whether a drive answers at all."""


class Lane:
    """One command at a time to each drive.  ``done`` has, per drive, when the newest command that succeeded was sent;
    ``since`` when the one that has not succeeded yet was first tried."""

    def __init__(self, clock: Callable[[], int], work: Callable[[str], Awaitable[Answer]]) -> None:
        self._clock = clock
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.done: dict[str, int] = {}
        self.since: dict[str, int] = {}

    def start(self, drives: tuple[str, ...]) -> None:
        """Send to every drive that has nothing on its way."""
        for drive in drives:
            if drive not in self._tasks:
                self._tasks[drive] = asyncio.create_task(self._one(drive))

    async def _one(self, drive: str) -> None:
        sent_at = self._clock()
        self.since.setdefault(drive, sent_at)
        try:
            if await self._work(drive) is Answer.OK:
                self.done[drive] = sent_at
                self.since.pop(drive, None)
        finally:
            self._tasks.pop(drive, None)

    def on_majority(self, service: ServiceMap) -> int | None:
        """The newest time such that a majority of the quorum drives has carried out a command sent then or later."""
        times = sorted((self.done[drive] for drive in service.quorum if drive in self.done), reverse=True)
        return times[service.majority - 1] if len(times) >= service.majority else None

    async def close(self) -> None:
        """Give up what is on its way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Lanes:
    """See the module.  ``news`` is called when the peer's slot announces a newer record."""

    def __init__(
        self,
        commands: Commands,
        reservations: Reservations,
        array: str,
        node: NodeName,
        policy: Policy,
        clock: Callable[[], int],
        news: Callable[[], None],
    ) -> None:
        self._commands = commands
        self._reservations = reservations
        self._array = array_prefix(array)
        self._node: NodeName = node
        self._policy = policy
        self._clock = clock
        self._news = news
        self._map: ServiceMap | None = None
        self._key = 0
        self._at = (0, 0)
        self._counter = 0
        self._peer: tuple[int, int] = (0, 0)
        self._peer_at: int | None = None
        self._reports: dict[str, frozenset[int]] = {}
        self.registered: set[str] = set()
        """Drives that have carried out a command which only a registrant may give."""
        self._refused: set[str] = set()
        self._write = Lane(clock, self._write_slot)
        self._read = Lane(clock, self._read_slot)
        self._live = Lane(clock, self._answers)
        self._report = Lane(clock, self._look)
        self.newest = (0, 0)
        self._task = asyncio.create_task(self._run())

    def use(self, service: ServiceMap, key: int) -> None:
        """Which drives, and whose registrations."""
        if service != self._map or key != self._key:
            self._map, self._key = service, key

    def say(self, at: tuple[int, int]) -> None:
        """The newest record that this node knows."""
        self._at = at

    def admit(self, drive: str) -> None:
        """This node has just become a registrant of the drive."""
        self.registered.add(drive)
        self._refused.discard(drive)

    def carried_out(self, drive: str) -> int | None:
        """When a slot write was sent that the drive has carried out."""
        return self._write.done.get(drive)

    def slots(self) -> Slots:
        """As ``decide`` sees them."""
        if self._map is None:
            return Slots()
        return Slots(
            own_at=self._write.on_majority(self._map), read_at=self._read.on_majority(self._map), peer_at=self._peer_at
        )

    def drives(self, now: int) -> Drives:
        """As ``decide`` sees them."""
        quorum = self._map.quorum if self._map is not None else ()
        late = (drive for drive, since in self._live.since.items() if now - since > self._policy.drive_dead_ms)
        return Drives(
            conflict=bool(self._refused),
            registrants={drive: keys for drive, keys in self._reports.items() if drive in quorum},
            silent=frozenset(late),
        )

    async def close(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for lane in (self._write, self._read, self._live, self._report):
            await lane.close()

    async def _run(self) -> None:
        """One beat every ``slot_ms``; the beat itself waits for nothing."""
        beats = 0
        while True:
            service = self._map
            if service is not None:
                mine = tuple(drive for drive in service.quorum if drive in self.registered)
                self._counter += 1
                self._write.start(mine)
                self._read.start(mine)
                if beats * self._policy.slot_ms >= LIVE_MS:
                    beats = 0
                    self._live.start(tuple(drive for drive in service.drives if drive in self.registered))
                if len(mine) < len(service.quorum):
                    self._report.start(tuple(drive for drive in service.quorum if drive not in self.registered))
            beats += 1
            await asyncio.sleep(self._policy.slot_ms / 1000)

    # -- the work of each lane

    def _block(self, drive: str) -> int:
        assert self._map is not None
        return self._map.block_bytes[drive]

    def _judged(self, drive: str, said: Answer) -> Answer:
        if said is Answer.CONFLICT and drive in self.registered:
            self._refused.add(drive)
            self._news()
        return said

    async def _write_slot(self, drive: str) -> Answer:
        slot = slots.Slot(array=self._array, node=self._node, key=self._key, counter=self._counter, at=self._at)
        at, block = layout.SLOT_AT[self._node], self._block(drive)
        return self._judged(drive, await self._commands.store(drive, at, slots.encode(slot), block, PATIENCE_MS))

    async def _read_slot(self, drive: str) -> Answer:
        peer = other(self._node)
        at, block = layout.SLOT_AT[peer], self._block(drive)
        said, raw = await self._commands.fetch(drive, at, layout.SLOT_BYTES, block, PATIENCE_MS)
        slot = slots.decode(raw, self._array, peer) if said is Answer.OK else None
        if slot is not None and (slot.key, slot.counter) != self._peer:
            if slot.key != self._peer[0] or slot.counter > self._peer[1]:
                self._peer, self._peer_at = (slot.key, slot.counter), self._clock()
            if slot.at > self.newest:
                self.newest = slot.at
                self._news()
        return self._judged(drive, said)

    async def _answers(self, drive: str) -> Answer:
        block = self._block(drive)
        said, _ = await self._commands.fetch(drive, layout.LABEL_AT, max(block, 512), block, PATIENCE_MS)
        return self._judged(drive, said)

    async def _look(self, drive: str) -> Answer:
        found = await self._reservations.registrants(drive, PATIENCE_MS)
        if found is None:
            self._reports.pop(drive, None)
            return Answer.SILENT
        self._reports[drive] = found
        return Answer.OK
