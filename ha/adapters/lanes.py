"""What a node does with the drives all the time: heartbeat slots, reports, and whether each drive answers.

Each lane has at most one command on its way to a drive, so a drive that hangs makes its own answers stale, holds
nothing else up, and costs one place on the connection per lane.  This module must never conclude anything about the
peer, and never give up a command: another one behind it would wait as long.

What always holds: the times of ``Slots`` are those at which a command was SENT that has been carried out since, which
is what a lease may rest on; and a slot that lay on a drive before, or lies on one that was away, is no sign of life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from ha.adapters.commands import PATIENCE_MS, Channel, Commands, Controllers
from ha.adapters.reserving import Reservations
from ha.journal import layout
from ha.keys import array_prefix
from ha.model import Answer, Drives, NodeName, ServiceMap, Slots, other
from ha.policy import Policy
from ha.slots import Slot, decode, encode

LIVE_MS: Final = 1_000
"""Between two looks whether a drive answers at all, and between two reports where this node is not registered."""
EVERYWHERE: Final = 1
"""Lanes to every drive."""
QUORUM_ONLY: Final = 3
"""Lanes to the quorum drives."""


class Lane:
    """One command at a time to each drive.  ``done`` has, per drive, when the newest command that succeeded was sent;
    ``since`` when the one that has not succeeded yet was first tried."""

    def __init__(
        self, commands: Commands, clock: Callable[[], int], work: Callable[[Commands, str, int], Awaitable[Answer]]
    ) -> None:
        self._commands = commands
        self._clock = clock
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.done: dict[str, int] = {}
        self.since: dict[str, int] = {}

    def start(self, drives: Iterable[str], service: ServiceMap) -> None:
        """Send to every drive that has nothing on its way."""
        for drive in drives:
            if drive not in self._tasks:
                self._tasks[drive] = asyncio.create_task(self._one(drive, service.block_bytes[drive]))

    async def _one(self, drive: str, block: int) -> None:
        sent_at = self._clock()
        self.since.setdefault(drive, sent_at)
        try:
            if await self._work(self._commands, drive, block) is Answer.OK:
                self.done[drive] = sent_at
                self.since.pop(drive, None)
        finally:
            self._tasks.pop(drive, None)

    def keep(self, drives: Iterable[str]) -> None:
        """Forget all other drives, but those that still hold a command."""
        for times in (self.done, self.since):
            for drive in times.keys() - set(drives) - self._tasks.keys():
                del times[drive]

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
        await self._commands.close()


class Lanes:
    """See the module.  ``news`` is called when the peer's slot announces a newer record."""

    def __init__(
        self, channel: Channel, controllers: Controllers, array: str, node: NodeName, policy: Policy,
        clock: Callable[[], int], news: Callable[[], None],
    ) -> None:  # fmt: skip
        self._array = array_prefix(array)
        self._node: NodeName = node
        self._policy = policy
        self._clock = clock
        self._news = news
        self._map: ServiceMap | None = None
        self._key = 0
        self._at = (0, 0)
        self._counter = 0
        self._shown: dict[str, Slot | None] = {}
        self._counters: dict[int, int] = {}
        self._peer_at: int | None = None
        self._reports: dict[str, frozenset[int]] = {}
        self.registered: set[str] = set()
        """Drives that have carried out a command which only a registrant may give."""
        self._refused: set[str] = set()

        def lane(work: Callable[[Commands, str, int], Awaitable[Answer]]) -> Lane:
            return Lane(Commands(channel, controllers), clock, work)

        self._write = lane(self._write_slot)
        self._read = lane(self._read_slot)
        self._live = lane(self._answers)
        self._report = lane(self._look)
        self._lanes = (self._write, self._read, self._live, self._report)
        self.newest = (0, 0)
        self._task = asyncio.create_task(self._run())

    def use(self, service: ServiceMap, key: int) -> None:
        """Which drives, and whose registrations; those of another key are none of this one."""
        if service is self._map and key == self._key:
            return
        self._map = service
        if key != self._key:
            self._key = key
            self.registered.clear()
            self._refused.clear()
        for lane in self._lanes:
            lane.keep(service.drives)
        for kept in (self.registered, self._refused):
            kept.intersection_update(service.drives)
        for drive in (self._shown.keys() | self._reports.keys()) - set(service.drives):
            self._shown.pop(drive, None)
            self._reports.pop(drive, None)

    def say(self, at: tuple[int, int]) -> None:
        """The newest record that this node knows."""
        self._at = at

    def admit(self, drive: str) -> None:
        """This node has just become a registrant of the drive."""
        self.registered.add(drive)
        self._refused.discard(drive)
        self._live.since.pop(drive, None)  # it has just answered

    def trust(self, drive: str) -> None:
        """The drive has let this node read, which it lets registrants only: so it is one since before this agent
        began."""
        if drive not in self._refused:
            self.registered.add(drive)

    def standing(self, drive: str) -> int | None:
        """The key under which this node is registered on the drive; to be asked before a command is sent."""
        return self._key if drive in self.registered else None

    def judged(self, drive: str, said: Answer, standing: int | None) -> Answer:
        """Take a Reservation Conflict in: who was registered when the command was sent is not any more.  A conflict
        of a command from before the registration means nothing."""
        if said is Answer.CONFLICT and standing is not None and standing == self.standing(drive):
            self._refused.add(drive)
            self._news()
        return said

    def slots(self) -> Slots:
        """As ``decide`` sees them."""
        if self._map is None:
            return Slots()
        return Slots(
            own_at=self._write.on_majority(self._map), read_at=self._read.on_majority(self._map), peer_at=self._peer_at
        )

    def drives(self, now: int) -> Drives:
        """As ``decide`` sees them."""
        quorum, known = (self._map.quorum, self._map.block_bytes) if self._map is not None else ((), {})
        since = ((drive, at) for drive, at in self._live.since.items() if drive in known)
        late = (drive for drive, at in since if now - at > self._policy.drive_dead_ms)
        return Drives(
            conflicts=frozenset(self._refused),
            registrants={drive: keys for drive, keys in self._reports.items() if drive in quorum},
            silent=frozenset(late),
        )

    async def close(self) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for lane in self._lanes:
            await lane.close()

    async def _run(self) -> None:
        """One beat every ``slot_ms``; the beat itself waits for nothing."""
        looked_at: int | None = None
        while True:
            service, now = self._map, self._clock()
            if service is not None:
                mine = [drive for drive in service.quorum if drive in self.registered]
                # By the clock, so that an agent that is started again beside the same data plane goes on higher.
                self._counter = max(self._counter + 1, now)
                self._write.start(mine, service)
                self._read.start(mine, service)
                if looked_at is None or now - looked_at >= LIVE_MS:
                    looked_at = now
                    self._live.start(service.drives, service)
                    self._report.start((drive for drive in service.quorum if drive not in self.registered), service)
            await asyncio.sleep(self._policy.slot_ms / 1000)

    # -- the work of each lane

    async def _write_slot(self, commands: Commands, drive: str, block: int) -> Answer:
        standing = self.standing(drive)
        slot = Slot(array=self._array, node=self._node, key=self._key, counter=self._counter, at=self._at)
        at = layout.SLOT_AT[self._node]
        said = await commands.store(drive, at, encode(slot), block, PATIENCE_MS)
        return self.judged(drive, said, standing)

    async def _read_slot(self, commands: Commands, drive: str, block: int) -> Answer:
        peer, standing = other(self._node), self.standing(drive)
        said, raw = await commands.fetch(drive, layout.SLOT_AT[peer], layout.SLOT_BYTES, block, PATIENCE_MS)
        if said is Answer.OK:
            self._heard(drive, decode(raw, self._array, peer))
        return self.judged(drive, said, standing)

    def _heard(self, drive: str, slot: Slot | None) -> None:
        """Take a slot in.  It is a sign of life when this drive showed another one before, and no drive this one or a
        later one of the same key."""
        first = drive not in self._shown
        changed = slot != self._shown.get(drive)
        self._shown[drive] = slot
        if slot is None:
            return
        for key in self._counters.keys() - {each.key for each in self._shown.values() if each is not None}:
            del self._counters[key]
        if slot.counter > self._counters.get(slot.key, -1):
            self._counters[slot.key] = slot.counter
            if changed and not first:
                self._peer_at = self._clock()
        if slot.at > self.newest:
            self.newest = slot.at
            self._news()

    async def _answers(self, commands: Commands, drive: str, block: int) -> Answer:
        """A conflict is an answer too."""
        standing = self.standing(drive)
        said, _ = await commands.fetch(drive, layout.LABEL_AT, block, block, PATIENCE_MS)
        return Answer.OK if self.judged(drive, said, standing) is Answer.CONFLICT else said

    async def _look(self, commands: Commands, drive: str, _block: int) -> Answer:
        said, found = await Reservations(commands).registrants(drive, PATIENCE_MS)
        if said is Answer.OK:
            self._reports[drive] = found
        else:
            self._reports.pop(drive, None)
        return said
