"""A controller as the rest of the initiator sees it: it outlives its connections.

Why: paths, bdevs and RPC replies need something that stays while associations come and go.  This module must
never choose among controllers (``multipath``) and holds no rule about reconnecting (``reconnect``): it performs
the actions that the table asks for and keeps what was last read.

Invariants: at most one association at a time, and none after ``deleted``; ``shown`` and ``ana`` are of the
current association or, while there is none, of the last one; whenever one of ``link``, ``shown``, ``ana`` or
``association`` changed, ``on_change`` is called afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

from dataplane.embedded.initiator.association import Association, AssociationOptions, open_association
from dataplane.embedded.initiator.authentication import Credentials
from dataplane.embedded.initiator.connection import TransportLost, explain
from dataplane.embedded.initiator.injection import Injections
from dataplane.embedded.initiator.namespaces import (
    NO_ANA,
    AnaView,
    Limits,
    Shown,
    read_ana,
    read_limits,
    read_namespaces,
)
from dataplane.embedded.initiator.reconnect import Action, Address, Event, Link, LossPolicy, Phase, rotate, step
from dataplane.nvme.commands import LogId
from dataplane.nvme.identify import IdentifyController
from dataplane.nvme.logs import AnaState, AsyncEvent, EventType, Notice
from dataplane.nvme.status import NvmeError

log = logging.getLogger(__name__)

_DISCONNECT: Final = "disconnect"


class Controller:
    """One controller, over its addresses (more than one only for mode ``failover``)."""

    def __init__(self, options: AssociationOptions, policy: LossPolicy, addresses: tuple[Address, ...]) -> None:
        self.options = options
        self.policy = policy
        self.addresses = addresses
        self.link = Link(Phase.RESETTING)
        self.association: Association | None = None
        self.identity = IdentifyController()
        self.shown: dict[int, Shown] = {}
        self.limits = Limits()
        self.ana: AnaView = NO_ANA
        self.ana_updating: set[int] = set()
        self.deleted = False
        self.injected = Injections()
        self.on_change: Callable[[Controller], None] | None = None
        self.on_deleted: Callable[[Controller], None] | None = None
        self.reason = "not connected yet"
        self.connects = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[asyncio.Future[bool]] = []
        self._scan = asyncio.Lock()
        self._asked = False

    # -- what others ask

    @property
    def address(self) -> Address:
        """The address in use."""
        return self.addresses[0]

    @property
    def live(self) -> bool:
        """Whether I/O can be sent now."""
        return self.link.phase is Phase.ENABLED and self.association is not None and self.association.lost is None

    @property
    def cntlid(self) -> int:
        """The identifier of the current or last association; 0 before the first."""
        return self.identity.cntlid

    @property
    def may_recover(self) -> bool:
        """Whether I/O should wait for it."""
        return self.link.may_recover(self.policy)

    def ana_of(self, nsid: int) -> AnaState:
        """The ANA state of a namespace that it shows."""
        shown = self.shown.get(nsid)
        return AnaState.INACCESSIBLE if shown is None else self.ana.of(shown)

    def require(self) -> Association:
        """The association; raises ``TransportLost`` while there is none."""
        if self.association is None or self.association.lost is not None:
            raise TransportLost(self.reason)
        return self.association

    async def authenticate(self, credentials: Credentials) -> None:
        """Use these from now on, and where it is connected prove it again at once.

        Raises ``NotAuthenticated`` and what ends an association.
        """
        self.options = replace(self.options, credentials=credentials)
        if self.live and self.association is not None and credentials.host is not None:
            await self.association.authenticate(credentials)

    # -- life

    async def start(self, *, persist: bool = False) -> None:
        """The first connection.  Raises ``TransportLost`` or ``NvmeError`` when it fails; then it is deleted.

        With ``persist`` a failure is no error: the controller goes on trying as after a loss.
        """
        self.link = Link(Phase.RESETTING, self._loop.time())
        try:
            await self._connect()
        except (TransportLost, NvmeError) as error:
            self.reason = explain(error)
            if not persist:
                await self.delete()
                raise
            self._apply(Event.CONNECT_FAILED)
            return
        self._apply(Event.CONNECTED)

    async def reset(self) -> int:
        """Disconnect and connect again.  0, or a positive errno: EBUSY while doing so already, ENXIO when deleted.

        I/O in flight fails and is not repeated.  A failed attempt answers EPERM, since SPDK's -1 reads so.
        A disabled controller stays disabled.
        """
        refused = self._refusal()
        if refused or self.link.phase is Phase.DISABLED:
            return refused
        self._asked = True
        return await self._connected(Event.RESET)

    async def enable(self) -> int:
        """Connect again after ``disable``; answers as ``reset``."""
        refused = self._refusal()
        if refused or self.link.phase is not Phase.DISABLED:
            return refused
        return await self._connected(Event.ENABLE)

    async def disable(self) -> int:
        """Disconnect until ``enable``: its paths are given up, its namespaces stay.  Answers as ``reset``."""
        refused = self._refusal()
        if refused or self.link.phase is Phase.DISABLED:
            return refused
        self._asked = True
        self._apply(Event.DISABLE)
        await asyncio.wait([task for task in self._tasks if task.get_name() == _DISCONNECT])
        return 0

    def _refusal(self) -> int:
        """Why it cannot be reset, disabled or enabled now: a positive errno, or 0."""
        if self.link.phase is Phase.DELETING:
            return errno.ENXIO
        return errno.EBUSY if self.link.phase is Phase.RESETTING else 0

    async def _connected(self, event: Event) -> int:
        outcome: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(outcome)
        self._apply(event)
        return 0 if await outcome else errno.EPERM

    def leave_address(self) -> None:
        """Give up the address in use for the next one; only where there is a next one."""
        self.addresses = self.addresses[1:]
        self._apply(Event.RESET)

    async def delete(self) -> None:
        """Disconnect for good."""
        self._apply(Event.DELETE)
        others = [task for task in self._tasks if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)

    def _apply(self, event: Event) -> None:
        """Tell the table, do what it says."""
        self.link, action = step(self.link, event, self._loop.time(), self.policy)
        if self._timer is not None and action is not Action.NOTHING:
            self._timer.cancel()
            self._timer = None
        if action is Action.CONNECT:
            self._spawn(self._reconnect())
        elif action is Action.DISCONNECT:
            self._spawn(self._drop_association(notify=True), _DISCONNECT)
        elif action is Action.WAIT:
            self._timer = self._loop.call_later(self.policy.pause_s, self._try_again)
        elif action is Action.DELETE:
            self._spawn(self._delete())
        if self.link.phase is not Phase.RESETTING:
            self._answer(self.link.phase is Phase.ENABLED)
        self._changed()

    def _try_again(self) -> None:
        if self.link.phase is Phase.FAILED:
            self.addresses, _ = rotate(self.addresses, self._loop.time(), self.policy, lost=True)
        self._apply(Event.DELAY_OVER)

    def _answer(self, success: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            if not outcome.done():
                outcome.set_result(success)

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self)

    def _spawn(self, work: Coroutine[None, None, None], name: str | None = None) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self) -> None:
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await self._drop_association(notify=True)
        if not self.deleted:
            self.deleted = True
            if self.on_deleted is not None:
                self.on_deleted(self)

    async def _drop_association(self, *, notify: bool) -> None:
        association, self.association = self.association, None
        asked, self._asked = self._asked, False
        if association is not None:
            await association.close(notify=notify, reset=asked)

    # -- connecting

    async def _reconnect(self) -> None:
        """Until one address answers, or it is time to wait."""
        await self._drop_association(notify=True)
        while True:
            try:
                await self._connect()
            except (TransportLost, NvmeError) as error:
                self.reason = explain(error)
                log.info("controller of %s: %s", self.options.subnqn, self.reason)
            else:
                self._apply(Event.CONNECTED)
                return
            self.addresses, again = rotate(self.addresses, self._loop.time(), self.policy, lost=False)
            if not again:
                self._apply(Event.CONNECT_FAILED)
                return

    async def _connect(self) -> None:
        options = self.options.at(self.address.traddr, int(self.address.trsvcid))
        association = await open_association(options, self.injected)
        try:
            await self._read_all(association)
        except BaseException:
            await association.close(notify=False)
            raise
        association.on_lost = self._lost
        association.on_event = self._event
        self.association = association
        self.addresses = (Address(self.address.traddr, self.address.trsvcid), *self.addresses[1:])
        self.connects += 1
        for event in association.unheard:
            self._event(association, event)

    async def _read_all(self, association: Association) -> None:
        shown = await read_namespaces(association)
        ana = await read_ana(association, len(shown))
        limits = await read_limits(association, max((each.block_size for each in shown.values()), default=512))
        if association.lost is not None:
            raise TransportLost(association.lost)
        self.identity = association.identity
        self.shown, self.ana, self.limits = shown, ana, limits
        self.ana_updating.clear()

    def _lost(self, association: Association, reason: str) -> None:
        if association is not self.association:
            return
        self.reason = reason
        log.info("controller of %s: %s", self.options.subnqn, reason)
        self.addresses, _ = rotate(self.addresses, self._loop.time(), self.policy, lost=True)
        self._apply(Event.LOST)

    # -- events

    def _event(self, association: Association, event: AsyncEvent) -> None:
        if event.kind != EventType.NOTICE:
            return
        if event.info == Notice.ANA_CHANGE:
            self._spawn(self._refresh_ana(association))
        elif event.info == Notice.NAMESPACE_ATTRIBUTE_CHANGED:
            self._spawn(self._rescan(association))

    def reread_ana(self, nsid: int) -> None:
        """An I/O was answered with an ANA error: what is known of this namespace is stale until read again."""
        if self.association is None or nsid in self.ana_updating:
            return
        self.ana_updating.add(nsid)
        self._spawn(self._refresh_ana(self.association))

    async def _refresh_ana(self, association: Association) -> None:
        async with self._scan:
            stale = set(self.ana_updating)
            try:
                ana = await read_ana(association, len(self.shown))
            except NvmeError as error:
                # Keep what is known.  (SPDK v26.05 takes every namespace for optimized here.)
                log.warning("ANA log of %s: %s", self.options.subnqn, error)
                ana = self.ana
            except TransportLost:
                return
            if association is not self.association:
                return
            self.ana = ana
            self.ana_updating -= stale
        self._changed()

    async def _rescan(self, association: Association) -> None:
        async with self._scan:
            try:
                # Reading the list is what lets the controller send the next event of this kind.
                await association.log(LogId.CHANGED_NAMESPACES, 4096)
                shown = await read_namespaces(association)
                ana = await read_ana(association, len(shown))
            except NvmeError as error:
                log.warning("namespaces of %s: %s", self.options.subnqn, error)
                return
            except TransportLost:
                return
            if association is not self.association:
                return
            self.shown, self.ana = shown, ana
        self._changed()
