"""Reservations of drives: the fence, the look, the join, one drive at a time.

    fence      (report, unless it is certain that this node is registered) -> preempt-and-abort, PRKEY 0
    begin      register -> acquire where nobody holds -> preempt-and-abort, PRKEY 0
    join       report -> register -> acquire where nobody holds

PRKEY 0 with an all-registrants type evicts every other registrant at once, ghosts of dead incarnations too (NVMe base
2.0, 8.19).  A node that is not registered is told so by the report and sends no preempt: on SPDK v26.05 a refused one
ends the target that exports the drive (lib/nvmf/subsystem.c).  This module must never register by the way."""

from __future__ import annotations

from dataplane.nvme.commands import Cns, identify
from dataplane.nvme.identify import IDENTIFY_SIZE, IdentifyNamespace
from dataplane.nvme.reservations import (
    RESCAP_PERSIST,
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
ALL = ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
WRITES = ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS
"""Where a drive has no better one: then a node that was shut out can still read, and I5 rests on the lease."""


class Reservations:
    """See the module.  What each drive can do is asked once, before this node joins it."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self._rescap: dict[str, int] = {}

    async def _capable(self, drive: str, deadline_ms: int) -> Answer:
        if drive in self._rescap:
            return Answer.OK
        command = identify(Cns.NAMESPACE, nsid=NSID)
        said, done = await self.commands.send(drive, command, deadline_ms, size=IDENTIFY_SIZE, kind="admin")
        if said is Answer.OK and done is not None:
            self._rescap[drive] = IdentifyNamespace.parse(done.data).rescap
        return said

    def type_of(self, drive: str) -> ReservationType:
        """The reservation that is held on the drive."""
        rescap = self._rescap.get(drive)
        return ALL if rescap is None or rescap >> ALL & 1 else WRITES

    def _persist(self, drive: str) -> PersistThroughPowerLoss:
        kept = self._rescap.get(drive, 0) & RESCAP_PERSIST
        return PersistThroughPowerLoss.ON if kept else PersistThroughPowerLoss.KEEP

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
        command, data = acquire(NSID, key, self.type_of(drive), AcquireAction.PREEMPT_AND_ABORT)
        return (await self.commands.send(drive, command, deadline_ms, data=data))[0]

    async def begin(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Register first, then fence."""
        said = await self.join(drive, key, deadline_ms)
        if said is not Answer.OK:
            return said
        return await self.fence(drive, key, deadline_ms, certain=True)

    async def join(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Become one more registrant, and hold the reservation where nobody does."""
        said = await self._capable(drive, deadline_ms)
        if said is not Answer.OK:
            return said
        said, found = await self.report(drive, deadline_ms)
        if found is None:
            return said
        if key not in (each.key for each in found.registrants):
            command, data = register(NSID, 0, key, persist=self._persist(drive))
            said, _ = await self.commands.send(drive, command, deadline_ms, data=data)
            if said is not Answer.OK:
                return said
        if found.rtype == ReservationType.NONE:
            command, data = acquire(NSID, key, self.type_of(drive))
            said, _ = await self.commands.send(drive, command, deadline_ms, data=data)
        return said
