"""Operations on the drives: what ``decide`` asks for becomes raw NVMe commands, all drives at once.

Each drive has its own task and its own deadline, and every operation gets exactly one outcome: a drive that hangs
answers SILENT at its deadline, while the others have answered long before.  This module must never decide, and never do
anything on a drive that the operation does not name.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from controlplane.domain.errors import Refused
from ha.adapters.commands import Channel, Commands, Controllers
from ha.adapters.lanes import EVERYWHERE, QUORUM_ONLY, Lanes
from ha.adapters.reserving import Reservations
from ha.journal import layout, quorum
from ha.journal.record import NO_PREVIOUS, Stored, decode_area, digest_of, encode, length_of
from ha.model import (
    Answer,
    Drives,
    Fence,
    NodeName,
    Operation,
    Outcome,
    ReadJournal,
    Record,
    Register,
    ServiceMap,
    Slots,
    SnapshotAt,
    Verify,
    WriteRecord,
)
from ha.policy import Policy

KNOWN_RECORDS: Final = 64
"""Of how many records the digests are kept: those of the last reads and writes."""

NO_MAP: Final = "the drives of the array are not known here"


class DriveAccess:
    """See the module.  One for each connection to the data plane; ``news`` wakes the agent."""

    def __init__(
        self, channel: Channel, array: str, node: NodeName, policy: Policy, clock: Callable[[], int],
        news: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._policy = policy
        self._channel = channel
        controllers = Controllers(channel, clock)
        self._commands = Commands(channel, controllers)
        self._places = tuple(Commands(channel, controllers) for _ in range(layout.PLACES))
        """A lane for each place of the journal: all of them are read at once."""
        self._reservations = Reservations(self._commands)
        self._lanes = Lanes(channel, controllers, array, node, policy, clock, news)
        self._map: ServiceMap | None = None
        self._known: deque[tuple[Record, bytes]] = deque(maxlen=KNOWN_RECORDS)

    def use(self, of: ServiceMap, key: int) -> None:
        """Which drives, and whose registrations, from now on."""
        if of is not self._map:
            self._map = of
            # One command of each lane and one of the operations to every drive, and a look at the controllers.
            quorum_only = QUORUM_ONLY + layout.PLACES
            self._channel.reserve((EVERYWHERE + 1) * len(of.drives) + quorum_only * len(of.quorum) + 1)
        self._lanes.use(of, key)

    def say(self, at: tuple[int, int]) -> None:
        """What the own slots announce."""
        self._lanes.say(at)

    def slots(self, _now: int) -> Slots:
        """Heartbeats through the drives."""
        return self._lanes.slots()

    def drives(self, now: int) -> Drives:
        """The drives as last seen."""
        return self._lanes.drives(now)

    def newest_hint(self) -> tuple[int, int]:
        """The highest position of a record that the peer's slots announce."""
        return self._lanes.newest

    async def close(self) -> None:
        """Stop."""
        await self._lanes.close()
        await asyncio.gather(*(commands.close() for commands in (self._commands, *self._places)))

    async def run(self, operation: Operation) -> Outcome:
        """The outcome of the operation."""
        deadline_ms = operation.deadline_ms if operation.deadline_ms is not None else self._policy.journal_ms
        match operation.work:
            case Fence() as fence:
                return await self._fence(operation.number, fence, deadline_ms)
            case Register() as join:
                return await self._register(operation.number, join, deadline_ms)
            case Verify() as verify:
                return await self._verify(operation.number, verify, deadline_ms)
            case ReadJournal() as reading:
                return await self._read(operation.number, reading, deadline_ms)
            case WriteRecord() as writing:
                return await self._write(operation.number, writing, deadline_ms)
            case work:
                raise ValueError(f"{type(work).__name__} is no work on drives")

    # -- reservations

    async def _each(
        self, drives: Iterable[str], work: Callable[[str], Awaitable[Answer]], deadline_ms: int
    ) -> dict[str, Answer]:
        """One answer for each drive, at the deadline at the latest."""

        async def one(drive: str) -> Answer:
            standing = self._lanes.standing(drive)
            try:
                async with asyncio.timeout(deadline_ms / 1000):
                    return self._lanes.judged(drive, await work(drive), standing)
            except TimeoutError:
                return Answer.SILENT

        names = list(drives)
        return dict(zip(names, await asyncio.gather(*(one(drive) for drive in names)), strict=True))

    async def _fence(self, number: int, fence: Fence, deadline_ms: int) -> Outcome:
        async def one(drive: str) -> Answer:
            work = self._reservations.begin if fence.register else self._reservations.fence
            return await work(drive, fence.key, deadline_ms)

        answers = await self._each(fence.drives, one, deadline_ms)
        self._admit(answers)
        return Outcome(number=number, answers=answers)

    async def _register(self, number: int, join: Register, deadline_ms: int) -> Outcome:
        answers = await self._each(
            join.drives, lambda drive: self._reservations.join(drive, join.key, deadline_ms), deadline_ms
        )
        self._admit(answers)
        return Outcome(number=number, answers=answers)

    def _admit(self, answers: dict[str, Answer]) -> None:
        for drive, said in answers.items():
            if said is Answer.OK:
                self._lanes.admit(drive)

    async def _verify(self, number: int, verify: Verify, deadline_ms: int) -> Outcome:
        found: dict[str, frozenset[int]] = {}

        async def one(drive: str) -> Answer:
            said, keys = await self._reservations.registrants(drive, deadline_ms)
            if said is Answer.OK:
                found[drive] = keys
            return said

        answers = await self._each(verify.drives, one, deadline_ms)
        told = {drive: keys for drive, keys in found.items() if answers[drive] is Answer.OK}
        return Outcome(number=number, answers=answers, registrants=told)

    # -- the journal

    def _block(self, drive: str) -> int | None:
        return self._map.block_bytes.get(drive) if self._map is not None else None

    async def _areas(
        self, drives: Iterable[str], deadline_ms: int
    ) -> tuple[dict[str, Answer], dict[str, tuple[Stored, ...] | None]]:
        found: dict[str, tuple[Stored, ...] | None] = {}

        async def one(drive: str) -> Answer:
            block = self._block(drive)
            if block is None:
                return Answer.FAILED
            places = await asyncio.gather(*(self._place(drive, n, block, deadline_ms) for n in range(layout.PLACES)))
            wrong = next((said for said, _ in places if said is not Answer.OK), Answer.OK)
            found[drive] = decode_area(b"".join(raw for _, raw in places)) if wrong is Answer.OK else None
            return wrong

        answers = await self._each(drives, one, deadline_ms)
        read = {drive: found.get(drive) if said is Answer.OK else None for drive, said in answers.items()}
        for records in read.values():
            self._known.extend((stored.record, stored.digest) for stored in (records or ())[-2:])
        return answers, read

    async def _place(self, drive: str, number: int, block: int, deadline_ms: int) -> tuple[Answer, bytes]:
        """One place of the journal.  Most records fit into the first unit, and only of a longer one is the rest read:
        all of every place would be megabytes of base64 in the middle of a takeover."""
        at, commands = layout.JOURNAL_AT + number * layout.RECORD_BYTES, self._places[number]
        said, raw = await commands.fetch(drive, at, max(layout.UNIT_BYTES, block), block, deadline_ms)
        more = length_of(raw) - len(raw)
        if said is Answer.OK and more > 0:
            said, rest = await commands.fetch(drive, at + len(raw), more + -more % block, block, deadline_ms)
            raw += rest
        return said, raw.ljust(layout.RECORD_BYTES, b"\0")

    async def _read(self, number: int, reading: ReadJournal, deadline_ms: int) -> Outcome:
        if self._map is None:
            return Outcome(number=number, answers=dict.fromkeys(reading.drives, Answer.FAILED), problem=NO_MAP)
        answers, read = await self._areas(reading.drives, deadline_ms)
        for drive, said in answers.items():
            if said is Answer.OK:
                self._lanes.trust(drive)
        newest = quorum.newest(read, self._map.quorum, self._map.array_uuid)
        at = newest.highest if reading.fenced else newest.certain
        problem = "; ".join(f"{', '.join(each.drives)}: {each.why}" for each in newest.refused)
        if at is not None:
            self._known.append((at.record, at.digest))
        return Outcome(
            number=number, answers=answers, found=newest.found, record=at.record if at is not None else None,
            problem=problem,
        )  # fmt: skip

    async def _write(self, number: int, writing: WriteRecord, deadline_ms: int) -> Outcome:
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_ms / 1000
        try:
            raw, state = await self._encoded(writing, deadline_ms)
        except Refused as problem:
            return Outcome(
                number=number, answers=dict.fromkeys(writing.drives, Answer.FAILED), problem=f"{problem}: {problem.why}"
            )  # fmt: skip
        self._known.append((writing.record, digest_of(raw)))
        at = writing.record.snapshot

        async def one(drive: str) -> Answer:
            block = self._block(drive)
            if block is None:
                return Answer.FAILED
            if state and at is not None:
                said = await self._commands.store(drive, layout.snapshot_at(at.area), state, block, deadline_ms)
                if said is not Answer.OK:
                    return said
            place = layout.record_at(writing.record.sequence)
            return await self._commands.store(drive, place, raw, block, deadline_ms)

        left_ms = max(0, int((until - loop.time()) * 1000))
        return Outcome(number=number, answers=await self._each(writing.drives, one, left_ms))

    async def _encoded(self, writing: WriteRecord, deadline_ms: int) -> tuple[bytes, bytes]:
        """The record and the snapshot as they are written; raises ``Refused``."""
        previous = await self._digest(writing.previous, deadline_ms)
        if previous is None:
            raise Refused(
                "HA-021",
                f"the journal record {writing.record.epoch}/{writing.record.sequence} was not written",
                why="the record that it is to follow is not on the quorum drives that answer",
                remedy="bring up the quorum drives that do not answer",
            )
        state = layout.padded(writing.snapshot) if writing.snapshot is not None else b""
        if len(state) > layout.SNAPSHOT_BYTES:
            raise Refused(
                "HA-022",
                f"a snapshot of {len(state)} bytes was not written",
                why=f"its area has {layout.SNAPSHOT_BYTES} bytes, and the next one may be in use",
                remedy="remove volumes or hosts",
            )
        return encode(writing.record, previous), state

    async def _digest(self, previous: Record | None, deadline_ms: int) -> bytes | None:
        """The digest of the record that the next one names."""
        if previous is None:
            return NO_PREVIOUS
        found = self._digest_of(previous)
        if found is None and self._map is not None:
            await self._areas(self._map.quorum, deadline_ms)
            found = self._digest_of(previous)
        return found

    def _digest_of(self, record: Record) -> bytes | None:
        return next((digest for known, digest in reversed(self._known) if known == record), None)

    async def read_snapshot(self, at: SnapshotAt, deadline_ms: int) -> bytes | None:
        """The snapshot from whichever quorum drive has it whole."""
        if self._map is None:
            return None
        size = at.size_bytes + -at.size_bytes % layout.UNIT_BYTES

        async def one(drive: str, block: int) -> bytes:
            where = layout.snapshot_at(at.area)
            try:
                async with asyncio.timeout(deadline_ms / 1000):
                    return (await self._commands.fetch(drive, where, size, block, deadline_ms))[1][: at.size_bytes]
            except TimeoutError:
                return b""

        reads = [asyncio.create_task(one(drive, self._map.block_bytes[drive])) for drive in self._map.quorum]
        try:
            for read in asyncio.as_completed(reads):
                raw = await read
                if hashlib.sha256(raw).hexdigest() == at.sha256:
                    return raw
        finally:
            for task in reads:
                task.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
        return None
