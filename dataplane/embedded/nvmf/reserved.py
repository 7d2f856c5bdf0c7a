"""A namespace and its reservation: admits commands, runs those about the reservation, one change after the other.

Why: the rules are in ``reservations``; here they meet commands in flight, the file and the controllers to be told.
This module must never decide what a reservation allows.

Invariants: changes are made one at a time, in the order in which they came; the state that commands are checked
against changes in one step, after it was made durable where it has a file; a preempt-and-abort completes with
success only when no command of a preempted host that was in flight is left.
Sources: SPDK v26.05 lib/nvmf/subsystem.c (nvmf_ns_reservation_update_state and what follows it), ctrlr.c.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from dataplane.embedded.nvmf import ptpl, reservations
from dataplane.embedded.nvmf.reservations import Outcome, State, Who
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.identify import ONCS_RESERVATIONS
from dataplane.nvme.layout import Raw
from dataplane.nvme.reservations import CHANGES, RESCAP_ALL_TYPES, RESCAP_PERSIST, Notification
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller

log = logging.getLogger(__name__)

ABORT_TIMEOUT_S = 10.0
MAX_NOTIFICATIONS = 255
_COUNTS = (1 << 64) - 1


class NotificationLog:
    """Log 80h of one controller; reading takes out what was read."""

    __slots__ = ("_count", "_pages")

    def __init__(self) -> None:
        self._count = 0
        self._pages: deque[Notification] = deque()

    def add(self, nsid: int, kind: int) -> bool:
        """Note it; False when the log is full, and only the number of its last page tells that more was lost."""
        self._count = self._count % _COUNTS + 1
        if len(self._pages) == MAX_NOTIFICATIONS:
            last = self._pages.pop()
            self._pages.append(Notification(self._count, last.kind, last.available, last.nsid))
            return False
        self._pages.append(Notification(self._count, kind, len(self._pages), nsid))
        return True

    def read(self, offset: int, size: int) -> bytes | None:
        """``size`` bytes from ``offset``, zeroes after the last page; None when it is empty; raises NvmeError."""
        if not self._pages:
            return None
        if offset >= len(self._pages) * Notification.SIZE:
            raise NvmeError(Status.INVALID_FIELD)
        touched = -(-(offset + size) // Notification.SIZE)
        pages = [self._pages.popleft() for _ in range(min(touched, len(self._pages)))]
        return b"".join(page.pack() for page in pages)[offset : offset + size].ljust(size, b"\0")


class Passage:
    """A command in flight; ``leave`` when it can reach the bdev no more."""

    __slots__ = ("_all", "ended", "hostid")

    def __init__(self, everybody: set[Passage], hostid: bytes) -> None:
        self._all = everybody
        self.hostid = hostid
        self.ended: asyncio.Future[None] | None = None
        everybody.add(self)

    def leave(self) -> None:
        """It is done."""
        self._all.discard(self)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


class Reserved:
    """The reservation of one namespace; ``mask`` is feature 82h, which SPDK has once a namespace."""

    __slots__ = ("_changing", "_passages", "bdev_uuid", "mask", "path", "state")

    def __init__(self, bdev_uuid: str, path: str | None = None, state: State | None = None) -> None:
        self.bdev_uuid = bdev_uuid
        self.path = path
        self.state = state or State()
        self.mask = 0
        self._changing = asyncio.Lock()
        self._passages: set[Passage] = set()

    @property
    def rescap(self) -> int:
        """RESCAP of the namespace."""
        return RESCAP_ALL_TYPES | (RESCAP_PERSIST if self.path is not None else 0)

    def admit(self, hostid: bytes, command: Command) -> Passage | None:
        """Let a command in, or raise NvmeError; what is not None is to be left again."""
        if not reservations.permits(self.state, hostid, command):
            raise NvmeError(Status.RESERVATION_CONFLICT)
        # Changes wait for each other anyway: one that waited for another in flight would wait for itself.
        return None if command.opcode in CHANGES else Passage(self._passages, hostid)

    async def execute(self, controller: Controller, command: Command, data: Raw) -> bytes:
        """Run a command about the reservation; raises NvmeError."""
        if not controller.options.oncs & ONCS_RESERVATIONS:
            raise NvmeError(Status.INVALID_OPCODE, dnr=True)
        if command.opcode == IoOp.RESERVATION_REPORT:
            return reservations.report(self.state, command)
        who = Who(controller.hostid, controller.cntlid)
        async with self._changing:
            outcome = reservations.apply(self.state, who, command, data, can_persist=self.path is not None)
            await self._keep(outcome, command)
            self.state = outcome.state
            self._tell(controller, command.nsid, outcome)
            if outcome.aborted:
                await self._wait(outcome.aborted)
        if outcome.status:
            raise NvmeError(outcome.status)
        return b""

    async def _keep(self, outcome: Outcome, command: Command) -> None:
        """Make the state durable if it is to be; raises NvmeError, and then nothing has changed.

        A host that tries again must not find its work done that a restart would undo.
        """
        concerned = outcome.state.persist or command.opcode == IoOp.RESERVATION_REGISTER
        if self.path is None or not outcome.store or not concerned:
            return
        text = ptpl.to_text(outcome.state, self.bdev_uuid)
        try:
            await asyncio.to_thread(ptpl.store, self.path, text)
        except OSError as problem:
            log.error("the reservation was not stored in %s: %s", self.path, problem)
            raise NvmeError(Status.INTERNAL_ERROR) from problem

    def _tell(self, controller: Controller, nsid: int, outcome: Outcome) -> None:
        for notice in outcome.notices:
            if self.mask >> notice.kind & 1:
                continue
            for other in list(controller.subsystem.controllers.values()):
                if other.hostid in notice.hosts:
                    other.reservation_changed(nsid, notice.kind)

    async def _wait(self, hosts: frozenset[bytes]) -> None:
        """Return when what those hosts have in flight now has ended; raises NvmeError when it does not."""
        loop = asyncio.get_running_loop()
        ends: list[asyncio.Future[None]] = []
        for passage in self._passages:
            if passage.hostid in hosts:
                passage.ended = passage.ended or loop.create_future()
                ends.append(passage.ended)
        if ends and (await asyncio.wait(ends, timeout=ABORT_TIMEOUT_S))[1]:
            raise NvmeError(Status.COMMAND_INTERRUPTED)
