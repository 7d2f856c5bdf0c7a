"""A host in hand: what the demo and the tests connect, read, write and watch a failover with.

Why: they need the behaviour of a real host (several paths, ANA, waiting instead of failing) without a kernel.
This module must never be used by a node: nodes attach drives through ``module``.

Invariants: leaving ``async with Host(...)`` leaves no connection and no task behind; a host keeps one host
identifier for its whole life, as reservations and connection limits are counted by it.
"""

from __future__ import annotations

import asyncio
import uuid as uuidlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from dataplane.embedded.initiator.association import (
    AssociationOptions,
    TimeoutAction,
    open_association,
    read_discovery,
)
from dataplane.embedded.initiator.connection import Endpoint, TransportLost
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.discovery import REFERRALS_MAX, Discovered, follow
from dataplane.embedded.initiator.multipath import Counters, HostNamespace
from dataplane.embedded.initiator.policy import Selection, Spread
from dataplane.embedded.initiator.reconnect import Address, LossPolicy
from dataplane.embedded.initiator.subsystem import Subsystem
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.logs import AnaState, DiscoveryEntry
from dataplane.nvme.pdu import NO_DIGESTS, Digests

ROUND_ROBIN = Selection(Spread.ROUND_ROBIN)
HOST_LOSS_POLICY = LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=1.0)


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How a host connects.  Times in seconds unless named otherwise.

    The defaults are those of a patient host: round robin over the best paths, reconnecting for ever.  As with
    Linux's ``nvme_core.max_retries``, ``retry_limit`` counts only errors on a working path (-1: no limit), so
    waiting for a path never uses it up, and an error such as a reservation conflict does show.
    """

    digests: Digests = NO_DIGESTS
    io_queues: int = 1
    io_entries: int = 128
    keep_alive_ms: int = 5000
    connect_timeout_s: float = 5.0
    io_timeout_s: float | None = 30.0
    loss: LossPolicy = HOST_LOSS_POLICY
    retry_limit: int = 5
    selection: Selection = ROUND_ROBIN


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One path as it stands.  ``state`` is a word of ``reconnect.Phase``, ``ana`` maps group to state name.

    ``ios`` counts the attempts sent on it over all namespaces; ``reason`` is why it was lost last.
    """

    address: str
    state: str
    live: bool
    cntlid: int
    ana: dict[int, str]
    ios: int
    reason: str


def ana_name(state: AnaState) -> str:
    """The word SPDK's RPC uses: ``optimized``, ``non_optimized``, ``inaccessible``, ``persistent_loss``, ``change``."""
    return state.name.lower()


class HostConnection(Subsystem):
    """A subsystem that a host is connected to over several paths."""

    @property
    def paths(self) -> list[PathInfo]:
        """Every path, in the order in which they were given."""
        return [self._path(controller) for controller in self.controllers]

    def _path(self, controller: Controller) -> PathInfo:
        paths = [path for ns in self.namespaces.values() for path in ns.paths if path.controller is controller]
        return PathInfo(
            address=str(Endpoint(controller.address.traddr, int(controller.address.trsvcid))),
            state=controller.link.phase.value,
            live=controller.live,
            cntlid=controller.cntlid,
            ana={group: ana_name(state) for group, state in controller.ana.groups.items()},
            ios=sum(path.ios for path in paths),
            reason="" if controller.live else controller.reason,
        )

    @property
    def counters(self) -> Counters:
        """The counters of all namespaces together."""
        each = [namespace.counters for namespace in self.namespaces.values()]
        return Counters(
            sum(c.ios for c in each), sum(c.retries for c in each), sum(c.failovers for c in each),
            sum(c.waits for c in each), sum(c.lost for c in each), sum(c.failed for c in each),
        )  # fmt: skip

    def namespace(self, nsid: int) -> HostNamespace:
        """The namespace; raises ``KeyError`` when no controller shows it."""
        return self.namespaces[nsid]

    async def change(self) -> None:
        """Return when some controller changes: a path lost or back, an ANA state, a namespace."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self.on_change

        def told(controller: Controller) -> None:
            if before is not None:
                before(controller)
            if not waiter.done():
                waiter.set_result(None)

        self.on_change = told
        try:
            await waiter
        finally:
            self.on_change = before


class Host:
    """An NVMe host, named by its NQN.  ``hostid`` is random unless given."""

    def __init__(self, hostnqn: str, hostid: uuidlib.UUID | None = None) -> None:
        self.hostnqn = hostnqn
        self.hostid = hostid or uuidlib.uuid4()
        self._connections: list[HostConnection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect from everything."""
        while self._connections:
            await self._connections.pop().close()

    async def connect(
        self, subnqn: str, paths: Sequence[tuple[str, int]], options: HostOptions | None = None
    ) -> HostConnection:
        """Connect over ``paths`` of (address, port) at the same time.

        Paths that do not answer are tried on in the background.  Raises ``TransportLost`` with the reason of the
        first path when none answers.
        """
        chosen = options or HostOptions()
        connection = HostConnection(
            self._association(subnqn, chosen), chosen.loss, chosen.selection, chosen.retry_limit
        )
        self._connections.append(connection)
        await asyncio.gather(
            *(connection.attach((Address(address, str(port)),), persist=True) for address, port in paths)
        )
        if not any(controller.live for controller in connection.controllers):
            reason = next((controller.reason for controller in connection.controllers), "no path given")
            await self.disconnect(connection)
            raise TransportLost(reason)
        return connection

    async def disconnect(self, connection: HostConnection) -> None:
        """Disconnect from one subsystem."""
        if connection in self._connections:
            self._connections.remove(connection)
        await connection.close()

    async def discover(self, address: str, port: int, options: HostOptions | None = None) -> list[DiscoveryEntry]:
        """The entries of the discovery log at ``address``; raises ``TransportLost`` and ``NvmeError``."""
        chosen = replace(options or HostOptions(), io_queues=0, keep_alive_ms=0)
        association = await open_association(self._association(DISCOVERY_NQN, chosen).at(address, port))
        try:
            return list((await read_discovery(association)).entries)
        finally:
            await association.close()

    async def explore(
        self, address: str, port: int, options: HostOptions | None = None, *, referrals: int = REFERRALS_MAX
    ) -> Discovered:
        """What ``address`` and whomever it refers to show, ``referrals`` deep; raises as ``discover`` does."""
        return await follow(lambda where, at: self.discover(where, at, options), address, port, referrals)

    def _association(self, subnqn: str, options: HostOptions) -> AssociationOptions:
        return AssociationOptions(
            subnqn=subnqn,
            hostnqn=self.hostnqn,
            hostid=self.hostid.bytes,
            endpoint=Endpoint("", 0, digests=options.digests),
            io_queues=options.io_queues,
            io_entries=options.io_entries,
            keep_alive_ms=options.keep_alive_ms,
            connect_timeout_s=options.connect_timeout_s,
            io_timeout_s=options.io_timeout_s,
            timeout_action=TimeoutAction.RESET,
        )
