"""A host that sends reservation commands over one association, never a second time: what tests ask engines with."""

from __future__ import annotations

import asyncio
import uuid

from dataplane.embedded.initiator.association import Association, AssociationOptions, open_association
from dataplane.embedded.initiator.connection import Endpoint
from dataplane.nvme import commands, reservations
from dataplane.nvme.commands import Command, Feature, LogId
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.reservations import (
    AcquireAction,
    Notification,
    PersistThroughPowerLoss,
    RegisterAction,
    ReleaseAction,
    ReservationReport,
    ReservationType,
)

BLOCK = 512
REPORT_SIZE = 2048


def host_uuid(name: str) -> uuid.UUID:
    """The host identifier of the host of that name."""
    return uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.example")


class Party:
    """One host, connected.  Every method but ``report``, ``page`` and ``get`` answers SCT << 8 | SC."""

    def __init__(self, hostid: uuid.UUID, association: Association) -> None:
        self.hostid = hostid
        self.association = association
        self.events: asyncio.Queue[AsyncEvent] = asyncio.Queue()
        for event in association.unheard:
            self.events.put_nowait(event)
        association.on_event = lambda _, event: self.events.put_nowait(event)

    @classmethod
    async def connect(cls, name: str, nqn: str, port: int) -> Party:
        """Connect; events are kept in ``events``."""
        options = AssociationOptions(
            subnqn=nqn, hostnqn=f"nqn.2026-01.io.ws7000:host:{name}", hostid=host_uuid(name).bytes,
            endpoint=Endpoint("127.0.0.1", port),
        )  # fmt: skip
        return cls(host_uuid(name), await open_association(options))

    async def close(self) -> None:
        """Disconnect."""
        await self.association.close()

    async def send(self, command: Command, data: bytes = b"", read_size: int = 0) -> int:
        """Any I/O command."""
        return (await self.association.io(command, data, read_size=read_size)).completion.code

    async def register(
        self,
        new: int,
        current: int = 0,
        action: RegisterAction = RegisterAction.REGISTER,
        *,
        iekey: bool = False,
        cptpl: PersistThroughPowerLoss = PersistThroughPowerLoss.KEEP,
    ) -> int:
        """Reservation Register."""
        built = reservations.register(1, current, new, action, ignore_existing=iekey, persist=cptpl)
        return await self.send(*built)

    async def acquire(
        self,
        key: int,
        rtype: int,
        action: AcquireAction = AcquireAction.ACQUIRE,
        victim: int = 0,
        *,
        iekey: bool = False,
    ) -> int:
        """Reservation Acquire."""
        built = reservations.acquire(1, key, ReservationType(rtype), action, preempt_key=victim, ignore_existing=iekey)
        return await self.send(*built)

    async def release(
        self, key: int, rtype: int = 0, action: ReleaseAction = ReleaseAction.RELEASE, *, iekey: bool = False
    ) -> int:
        """Reservation Release."""
        return await self.send(*reservations.release(1, key, ReservationType(rtype), action, ignore_existing=iekey))

    async def report(self) -> ReservationReport:
        """The report."""
        reply = await self.association.io(reservations.report(1, REPORT_SIZE), read_size=REPORT_SIZE)
        return reservations.parse_report(reply.check(REPORT_SIZE))

    async def read(self) -> int:
        """Read a block."""
        return await self.send(commands.read(1, 0, 1, BLOCK), read_size=BLOCK)

    async def write(self, lba: int = 0, fill: bytes = b"w") -> int:
        """Write a block."""
        return await self.send(commands.write(1, lba, 1, BLOCK), fill * BLOCK)

    async def page(self, count: int = 1, *, retain: bool = False) -> list[Notification]:
        """Notifications out of log 80h."""
        size = count * Notification.SIZE
        command = commands.get_log_page(LogId.RESERVATION, size, retain_event=retain)
        raw = bytes((await self.association.admin(command, read_size=size)).check(size))
        parts = (raw[at : at + Notification.SIZE] for at in range(0, size, Notification.SIZE))
        return [Notification.parse(part) for part in parts]

    async def get(self, feature: Feature, nsid: int = 1) -> int:
        """The value of a feature."""
        reply = await self.association.admin(commands.get_features(feature, nsid=nsid))
        reply.check()
        return reply.completion.cdw0

    async def admin(self, command: Command) -> int:
        """Any admin command without data."""
        return (await self.association.admin(command)).completion.code
