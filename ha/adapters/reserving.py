"""Reservations of drives: the fence, the look, the join, one drive at a time.

    fence      (report, unless it is certain that this node is registered) -> preempt-and-abort, PRKEY 0
    begin      register -> acquire where nobody holds -> preempt-and-abort, PRKEY 0
    join       report -> register -> acquire where nobody holds

PRKEY 0 with an all-registrants type evicts every other registrant at once, ghosts of dead incarnations too (NVMe base
2.0, 8.19).  A node that is not registered is told so by the report and sends no preempt: on SPDK v26.05 a refused one
ends the target that exports the drive (lib/nvmf/subsystem.c).  This module must never register by the way."""

from __future__ import annotations

from dataclasses import dataclass

from dataplane.nvme.reservations import (
    AcquireAction,
    PersistThroughPowerLoss,
    ReservationReport,
    ReservationType,
    acquire,
    parse_report,
    register,
    report,
)
from ha.adapters.commands import NSID, Commands
from ha.model import Answer

REPORT_BYTES = 4096
RTYPE = ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS


@dataclass(frozen=True, slots=True)
class Reservations:
    """See the module."""

    commands: Commands

    async def report(self, drive: str, deadline_ms: int) -> tuple[Answer, ReservationReport | None]:
        """Who is registered."""
        said, done = await self.commands.send(drive, report(NSID, REPORT_BYTES), deadline_ms, size=REPORT_BYTES)
        if said is not Answer.OK or done is None:
            return said, None
        try:
            return Answer.OK, parse_report(done.data)
        except ValueError:
            return Answer.FAILED, None

    async def registrants(self, drive: str, deadline_ms: int) -> frozenset[int] | None:
        """The keys registered on the drive; None where it did not say."""
        found = (await self.report(drive, deadline_ms))[1]
        return None if found is None else frozenset(each.key for each in found.registrants)

    async def fence(self, drive: str, key: int, deadline_ms: int, *, certain: bool) -> Answer:
        """Evict everybody else; ``certain`` where a command of this node was carried out a moment ago."""
        if not certain:
            said, found = await self.report(drive, deadline_ms)
            if found is None:
                return said
            if key not in (each.key for each in found.registrants):
                return Answer.CONFLICT
        command, data = acquire(NSID, key, RTYPE, AcquireAction.PREEMPT_AND_ABORT)
        return (await self.commands.send(drive, command, deadline_ms, data=data))[0]

    async def begin(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Register first, then fence."""
        said = await self.join(drive, key, deadline_ms)
        if said is not Answer.OK:
            return said
        return await self.fence(drive, key, deadline_ms, certain=True)

    async def join(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Become one more registrant, and hold the reservation where nobody does."""
        said, found = await self.report(drive, deadline_ms)
        if found is None:
            return said
        if key not in (each.key for each in found.registrants):
            command, data = register(NSID, 0, key, persist=PersistThroughPowerLoss.ON)
            said, _ = await self.commands.send(drive, command, deadline_ms, data=data)
            if said is not Answer.OK:
                return said
        if found.rtype == ReservationType.NONE:
            command, data = acquire(NSID, key, RTYPE)
            said, _ = await self.commands.send(drive, command, deadline_ms, data=data)
        return said
