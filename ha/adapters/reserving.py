"""Reservations of drives: the fence, the look, the join, one drive at a time.

    fence      report -> (acquire where nobody holds) -> preempt-and-abort, PRKEY 0
    begin      report -> register -> (acquire where nobody holds) -> preempt-and-abort, PRKEY 0
    join       report -> register -> (acquire where nobody holds)

PRKEY 0 with an all-registrants type evicts every other registrant at once, ghosts of dead incarnations too (NVMe base
2.0, 8.19); where nobody holds, it evicts nobody and still succeeds, hence the acquire.  A node that is not registered
is told so by the report and sends no preempt: on SPDK v26.05 a refused first one ends the target that exports the
drive (lib/nvmf/subsystem.c, nvmf_ns_reservation_acquire).  This module must never register by the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

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

REPORT_BYTES: Final = 4096
TYPES: Final = (
    ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    ReservationType.WRITE_EXCLUSIVE_ALL_REGISTRANTS,
)
"""In the order of preference: under the second a node that was shut out can still read, and I5 rests on the lease."""


def rtype_for(rescap: int) -> ReservationType | None:
    """The type to use on a drive with these capabilities (RESCAP, NVM command set 1.0c, figure 97: bit n is type n);
    None where it knows neither."""
    return next((rtype for rtype in TYPES if rescap >> rtype & 1), None)


@dataclass(frozen=True, slots=True)
class Reservations:
    """See the module."""

    commands: Commands
    _rescap: dict[str, int] = field(default_factory=dict)

    async def report(self, drive: str, deadline_ms: int) -> tuple[Answer, ReservationReport | None]:
        """Who is registered."""
        said, done = await self.commands.send(drive, report(NSID, REPORT_BYTES), deadline_ms, size=REPORT_BYTES)
        if said is not Answer.OK or done is None:
            return said, None
        try:
            return Answer.OK, parse_report(done.data)
        except ValueError:
            return Answer.FAILED, None

    async def registrants(self, drive: str, deadline_ms: int) -> tuple[Answer, frozenset[int]]:
        """The keys registered on the drive."""
        said, found = await self.report(drive, deadline_ms)
        return said, _keys(found) if found is not None else frozenset()

    async def rescap(self, drive: str, deadline_ms: int) -> tuple[Answer, int]:
        """What reservations the drive can do; asked once."""
        if drive in self._rescap:
            return Answer.OK, self._rescap[drive]
        command = identify(Cns.NAMESPACE, nsid=NSID)
        said, done = await self.commands.send(drive, command, deadline_ms, kind="admin", size=IDENTIFY_SIZE)
        if said is not Answer.OK or done is None or len(done.data) < IDENTIFY_SIZE:
            return said if said is not Answer.OK else Answer.FAILED, 0
        self._rescap[drive] = IdentifyNamespace.parse(done.data).rescap
        return Answer.OK, self._rescap[drive]

    async def fence(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Evict everybody else, unless this node is not registered: CONFLICT."""
        said, found = await self.report(drive, deadline_ms)
        if found is None:
            return said
        if key not in _keys(found):
            return Answer.CONFLICT
        return await self._preempt(drive, key, found, deadline_ms)

    async def begin(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Register where that is not done, then fence."""
        said, found = await self._registered(drive, key, deadline_ms)
        return said if found is None else await self._preempt(drive, key, found, deadline_ms)

    async def join(self, drive: str, key: int, deadline_ms: int) -> Answer:
        """Become one more registrant, and hold the reservation where nobody does."""
        said, found = await self._registered(drive, key, deadline_ms)
        return said if found is None else (await self._held(drive, key, found, deadline_ms))[0]

    async def _registered(self, drive: str, key: int, deadline_ms: int) -> tuple[Answer, ReservationReport | None]:
        """The report from before, once the key is registered."""
        said, found = await self.report(drive, deadline_ms)
        if found is None or key in _keys(found):
            return said, found
        said, rescap = await self.rescap(drive, deadline_ms)
        if said is not Answer.OK:
            return said, None
        kept = PersistThroughPowerLoss.ON if rescap & RESCAP_PERSIST else PersistThroughPowerLoss.KEEP
        command, data = register(NSID, 0, key, persist=kept)
        said, _ = await self.commands.send(drive, command, deadline_ms, data=data)
        return said, found if said is Answer.OK else None

    async def _held(
        self, drive: str, key: int, found: ReservationReport, deadline_ms: int
    ) -> tuple[Answer, ReservationType]:
        """The type that is held, once it is one of ours.  A reservation of another type is a stranger's, which cannot
        be preempted with PRKEY 0; it is left alone."""
        if found.rtype in TYPES:
            return Answer.OK, ReservationType(found.rtype)
        if found.rtype != ReservationType.NONE:
            return Answer.FAILED, ReservationType.NONE
        said, rescap = await self.rescap(drive, deadline_ms)
        rtype = rtype_for(rescap)
        if said is not Answer.OK or rtype is None:
            return said if said is not Answer.OK else Answer.FAILED, ReservationType.NONE
        command, data = acquire(NSID, key, rtype)
        return (await self.commands.send(drive, command, deadline_ms, data=data))[0], rtype

    async def _preempt(self, drive: str, key: int, found: ReservationReport, deadline_ms: int) -> Answer:
        said, rtype = await self._held(drive, key, found, deadline_ms)
        if said is not Answer.OK:
            return said
        command, data = acquire(NSID, key, rtype, AcquireAction.PREEMPT_AND_ABORT)
        return (await self.commands.send(drive, command, deadline_ms, data=data))[0]


def _keys(found: ReservationReport) -> frozenset[int]:
    return frozenset(each.key for each in found.registrants)
