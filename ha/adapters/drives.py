"""Operations on the drives: what ``decide`` asks for becomes raw NVMe commands, all drives at once.

Each drive has its own task and its own deadline, and every operation gets exactly one outcome: a drive that hangs
answers SILENT at its deadline, while the others have answered long before.  This module must never decide, and never do
anything on a drive that the operation does not name.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable

from ha.adapters.commands import Channel, Commands
from ha.adapters.lanes import Lanes
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


class DriveAccess:
    """See the module.  One for each connection to the data plane; ``news`` wakes the agent."""

    def __init__(
        self, channel: Channel, array: str, node: NodeName, policy: Policy, clock: Callable[[], int],
        news: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._policy = policy
        self._clock = clock
        self._commands = Commands(channel, clock, policy.slot_ms)
        self._reservations = Reservations(self._commands)
        self._lanes = Lanes(self._commands, self._reservations, array, node, policy, clock, news)
        self._map: ServiceMap | None = None
        self._digests: dict[tuple[int, int], bytes] = {}

    def use(self, of: ServiceMap, key: int) -> None:
        """Which drives, and whose registrations, from now on."""
        self._map = of
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
            try:
                async with asyncio.timeout(deadline_ms / 1000):
                    return await work(drive)
            except TimeoutError:
                return Answer.SILENT

        names = list(drives)
        return dict(zip(names, await asyncio.gather(*(one(drive) for drive in names)), strict=True))

    async def _fence(self, number: int, fence: Fence, deadline_ms: int) -> Outcome:
        async def one(drive: str) -> Answer:
            if fence.register:
                return await self._reservations.begin(drive, fence.key, deadline_ms)
            at = self._lanes.carried_out(drive)
            certain = at is not None and self._clock() - at <= 2 * self._policy.slot_ms
            return await self._reservations.fence(drive, fence.key, deadline_ms, certain=certain)

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
            keys = await self._reservations.registrants(drive, deadline_ms)
            if keys is None:
                return Answer.SILENT
            found[drive] = keys
            return Answer.OK

        answers = await self._each(verify.drives, one, deadline_ms)
        told = {drive: keys for drive, keys in found.items() if answers[drive] is Answer.OK}
        return Outcome(number=number, answers=answers, registrants=told)

    # -- the journal

    def _block(self, drive: str) -> int:
        assert self._map is not None
        return self._map.block_bytes[drive]

    async def _areas(
        self, drives: Iterable[str], deadline_ms: int
    ) -> tuple[dict[str, Answer], dict[str, tuple[Stored, ...] | None]]:
        found: dict[str, tuple[Stored, ...] | None] = {}

        async def one(drive: str) -> Answer:
            places = await asyncio.gather(*(self._place(drive, n, deadline_ms) for n in range(layout.PLACES)))
            wrong = next((said for said, _ in places if said is not Answer.OK), Answer.OK)
            found[drive] = decode_area(b"".join(raw for _, raw in places)) if wrong is Answer.OK else None
            return wrong

        answers = await self._each(drives, one, deadline_ms)
        read = {drive: found.get(drive) if said is Answer.OK else None for drive, said in answers.items()}
        for records in read.values():
            for stored in records or ():
                self._digests[stored.record.at] = stored.digest
        return answers, read

    async def _place(self, drive: str, number: int, deadline_ms: int) -> tuple[Answer, bytes]:
        """One place of the journal.  Most records fit into the first unit, and only of a longer one is the rest read:
        all of every place would be megabytes of base64 in the middle of a takeover."""
        at, block = layout.JOURNAL_AT + number * layout.RECORD_BYTES, self._block(drive)
        said, raw = await self._commands.fetch(drive, at, max(layout.UNIT_BYTES, block), block, deadline_ms)
        more = length_of(raw) - len(raw)
        if said is Answer.OK and more > 0:
            said, rest = await self._commands.fetch(drive, at + len(raw), more + -more % block, block, deadline_ms)
            raw += rest
        return said, raw.ljust(layout.RECORD_BYTES, b"\0")

    async def _read(self, number: int, reading: ReadJournal, deadline_ms: int) -> Outcome:
        assert self._map is not None
        answers, read = await self._areas(reading.drives, deadline_ms)
        newest = quorum.newest(read, self._map.quorum, self._map.array_uuid)
        at = newest.highest if reading.fenced else newest.certain
        problem = "; ".join(f"{', '.join(each.drives)}: {each.why}" for each in newest.refused)
        if at is not None:
            self._digests[at.record.at] = at.digest
        return Outcome(
            number=number, answers=answers, found=newest.found, record=at.record if at is not None else None,
            problem=problem,
        )  # fmt: skip

    async def _write(self, number: int, writing: WriteRecord, deadline_ms: int) -> Outcome:
        previous = await self._digest(writing.previous, deadline_ms)
        if previous is None:
            problem = "the record that it is to follow is not known"
            return Outcome(number=number, answers=dict.fromkeys(writing.drives, Answer.FAILED), problem=problem)
        raw = encode(writing.record, previous)
        self._digests[writing.record.at] = digest_of(raw)
        at = writing.record.snapshot
        state = layout.padded(writing.snapshot) if writing.snapshot is not None else b""

        async def one(drive: str) -> Answer:
            block = self._block(drive)
            if state and at is not None:
                said = await self._commands.store(drive, layout.snapshot_at(at.area), state, block, deadline_ms)
                if said is not Answer.OK:
                    return said
            place = layout.record_at(writing.record.sequence)
            return await self._commands.store(drive, place, raw, block, deadline_ms)

        return Outcome(number=number, answers=await self._each(writing.drives, one, deadline_ms))

    async def _digest(self, previous: Record | None, deadline_ms: int) -> bytes | None:
        """The digest of the record that the next one names."""
        if previous is None:
            return NO_PREVIOUS
        if previous.at not in self._digests and self._map is not None:
            await self._areas(self._map.quorum, deadline_ms)
        return self._digests.get(previous.at)

    async def read_snapshot(self, at: SnapshotAt, deadline_ms: int) -> bytes | None:
        """The snapshot from whichever quorum drive has it whole."""
        assert self._map is not None
        size = at.size_bytes + -at.size_bytes % layout.UNIT_BYTES
        for drive in self._map.quorum:
            block = self._block(drive)
            said, raw = await self._commands.fetch(drive, layout.snapshot_at(at.area), size, block, deadline_ms)
            whole = raw[: at.size_bytes]
            if said is Answer.OK and hashlib.sha256(whole).hexdigest() == at.sha256:
                return whole
        return None
