"""The target: transports, listening sockets, subsystems, referrals and the discovery log.

Why: one object owns what every connection shares, so that limits hold for all of them together.  This module
must never interpret a command.

Invariants: a socket listens as long as a subsystem has a listener there; a namespace goes when its bdev goes; a
change of what discovery shows raises the generation and is told to the discovery controllers.
Source: SPDK v26.05 lib/nvmf/nvmf.c, transport.c, ctrlr_discovery.c.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import uuid
from dataclasses import dataclass, field

from dataplane.embedded.bdev.base import Bdev, BdevRegistry
from dataplane.embedded.keyring import NO_KEYS, KeyPair, Keyring
from dataplane.embedded.nvmf import ptpl, render
from dataplane.embedded.nvmf.auth import Allowed
from dataplane.embedded.nvmf.gate import Budget
from dataplane.embedded.nvmf.limits import DATA_BUDGET_BYTES, Door
from dataplane.embedded.nvmf.options import Address, TransportOptions, nqn_is_valid
from dataplane.embedded.nvmf.reserved import Reserved
from dataplane.embedded.nvmf.subsystem import (
    CLAIM,
    Listener,
    Namespace,
    Subsystem,
    SubsystemOptions,
    TargetError,
)
from dataplane.embedded.nvmf.tcp import TcpQueue
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.logs import AnaState, DiscoveryEntry, DiscoveryLog, SubsystemType

log = logging.getLogger(__name__)

BACKLOG = 512
DEFAULT_MAX_SUBSYSTEMS = 1024
_NOT_SECURE = 2  # TREQ: secure channel not required
_SECURE = 1
_RETURNS_SAME_INFORMATION_AND_PERSISTS = 3  # EFLAGS of the discovery subsystem itself


@dataclass(slots=True)
class _Port:
    """A listening socket and how many listeners of subsystems use it."""

    server: asyncio.Server
    users: int = 1


@dataclass(frozen=True, slots=True)
class Referral:
    """Where else a host may look."""

    address: Address
    subnqn: str
    secure_channel: bool


@dataclass(frozen=True, slots=True)
class NamespaceRequest:
    """What ``nvmf_subsystem_add_ns`` says; zeroes and empty values take SPDK's defaults."""

    bdev_name: str
    nsid: int = 0
    nguid: bytes = b""
    eui64: bytes = b""
    uuid: str | None = None
    anagrpid: int = 0
    no_auto_visible: bool = False
    ptpl_file: str | None = None


@dataclass(slots=True)
class QueueCounts:
    """Queues since the start; those that are connected now are counted when asked."""

    admin: int = 0
    io: int = 0


@dataclass(slots=True)
class TargetConfig:
    """What ``nvmf_set_config`` and its like set before the framework starts."""

    discovery_filter: frozenset[str] = frozenset()
    dup_host_policy: str = "allow"
    admin_cmd_passthru: dict[str, bool] = field(default_factory=dict)
    authentication: Allowed = field(default_factory=Allowed)
    max_subsystems: int = 0
    crdt: tuple[int, int, int] = (0, 0, 0)


class NvmfTarget:
    """The one target of an engine; it serves on the loop that its first listener is added in."""

    name = "nvmf_tgt"

    def __init__(self, bdevs: BdevRegistry, keyring: Keyring) -> None:
        self.bdevs = bdevs
        self._keyring = keyring
        self.settings = TargetConfig()
        self.transports: dict[str, TransportOptions] = {}
        self.subsystems: dict[str, Subsystem] = {}
        self.referrals: list[Referral] = []
        self.queues: set[TcpQueue] = set()
        self.door = Door()
        self.budget = Budget(DATA_BUDGET_BYTES)
        self.counts = QueueCounts()
        self.completed_io = 0
        self._generation = 0
        self._ports: dict[tuple[str, str, str, str], _Port] = {}
        self._listen_lock = asyncio.Lock()
        self._hooks: dict[int, tuple[Bdev, object]] = {}
        discovery = Subsystem(DISCOVERY_NQN, SubsystemOptions(max_namespaces=0), discovery=True)
        discovery.allow_any_host = True
        self.subsystems[DISCOVERY_NQN] = discovery
        bdevs.resized.append(self._bdev_resized)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The one loop of the engine."""
        return asyncio.get_running_loop()

    @property
    def restrict_hosts(self) -> bool:
        """Whether a host identifier may have only one controller on a listener."""
        return self.settings.dup_host_policy == "restrict_per_listener"

    @property
    def max_subsystems(self) -> int:
        """The limit that holds."""
        return self.settings.max_subsystems or DEFAULT_MAX_SUBSYSTEMS

    def transport(self) -> TransportOptions:
        """The options of the TCP transport."""
        return self.transports.get("TCP", TransportOptions())

    # Connections

    def admit(self, queue: TcpQueue) -> str:
        """Take up a connection, or say why not."""
        refusal = self.door.refusal(queue.peer.traddr)
        if not refusal:
            self.queues.add(queue)
            self.door.enter(queue.peer.traddr)
        return refusal

    def connected(self, queue: TcpQueue) -> None:
        """The connection has become a queue of a controller."""
        self.door.connected(queue.peer.traddr)

    def forget(self, queue: TcpQueue) -> None:
        """The connection is gone."""
        if queue in self.queues:
            self.queues.remove(queue)
            self.door.leave()
            if queue.controller is None:
                self.door.connected(queue.peer.traddr)

    def count_queue(self, qid: int) -> None:
        """A queue was connected."""
        if qid:
            self.counts.io += 1
        else:
            self.counts.admin += 1

    async def _drop(self, queues: list[TcpQueue], reason: str) -> None:
        """Disconnect and return when none of their commands is in a bdev any more."""
        for queue in queues:
            queue.disconnect(reason)
        for queue in queues:
            await asyncio.shield(queue.closed)

    def _queues_of(self, subsystem: Subsystem) -> list[TcpQueue]:
        return [item for item in self.queues if item.controller and item.controller.subsystem is subsystem]

    async def disconnect_host(self, subsystem: Subsystem, hostnqn: str) -> None:
        """Drop all connections of that host to the subsystem."""
        queues = self._queues_of(subsystem)
        chosen = [item for item in queues if item.controller and item.controller.hostnqn == hostnqn]
        await self._drop(chosen, "the host may not use the subsystem any more")

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for port in self._ports.values():
            port.server.close()
        self._ports.clear()
        await self._drop(list(self.queues), "the engine ends")

    # Subsystems

    def sorted_subsystems(self) -> list[Subsystem]:
        """By NQN, as SPDK keeps them."""
        return [self.subsystems[nqn] for nqn in sorted(self.subsystems, key=str.encode)]

    def find(self, nqn: str) -> Subsystem | None:
        """The subsystem of that NQN."""
        return self.subsystems.get(nqn)

    def create_subsystem(self, nqn: str, options: SubsystemOptions) -> Subsystem:
        """Make one; raises TargetError when the NQN is wrong or taken or there are too many."""
        if not nqn_is_valid(nqn) or nqn in self.subsystems or len(self.subsystems) >= self.max_subsystems:
            raise TargetError(f"subsystem {nqn} cannot be created")
        subsystem = self.subsystems[nqn] = Subsystem(nqn, options)
        return subsystem

    async def delete_subsystem(self, subsystem: Subsystem) -> None:
        """Drop its hosts, then take it apart."""
        async with subsystem.paused():
            self.subsystems.pop(subsystem.nqn, None)
            await self._drop(self._queues_of(subsystem), "the subsystem is deleted")
            for listener in list(subsystem.listeners):
                self._remove_listener(subsystem, listener)
            for namespace in list(subsystem.namespaces.values()):
                self._let_go(subsystem.remove_namespace(namespace.nsid))
            for hostnqn in subsystem.hosts:
                self._take_keys(subsystem, hostnqn)
            self.discovery_changed()

    # Namespaces

    async def add_namespace(self, subsystem: Subsystem, request: NamespaceRequest) -> int:
        """Add a namespace; its NSID.  Raises TargetError or BdevError."""
        async with subsystem.paused(request.nsid):
            # Read first: from the look at the bdev to the watch over it nothing else may run.
            stored = await _stored(request.ptpl_file)
            bdev = self.bdevs.get(request.bdev_name)
            nsid = request.nsid or subsystem.free_nsid()
            identity = uuid.UUID(request.uuid or bdev.uuid)
            namespace = Namespace(
                nsid, bdev, request.nguid if any(request.nguid) else uuid.UUID(bdev.uuid).bytes,
                request.eui64 or bytes(8), identity.bytes, request.anagrpid or nsid,
                _reserved(bdev, request.ptpl_file, stored), not request.no_auto_visible,
            )  # fmt: skip
            self.bdevs.claim(bdev, CLAIM)
            try:
                subsystem.add_namespace(namespace)
            except TargetError:
                self.bdevs.release(bdev)
                raise
            self._watch(subsystem, namespace)
            return nsid

    def _bdev_resized(self, bdev: Bdev) -> None:
        for subsystem in self.subsystems.values():
            subsystem.bdev_resized(bdev)

    def _watch(self, subsystem: Subsystem, namespace: Namespace) -> None:
        async def removed(_bdev: Bdev) -> None:
            async with subsystem.paused(namespace.nsid):
                if subsystem.namespaces.get(namespace.nsid) is namespace:
                    self._let_go(subsystem.remove_namespace(namespace.nsid))

        namespace.bdev.remove_hooks.append(removed)
        self._hooks[id(namespace)] = (namespace.bdev, removed)

    def _let_go(self, namespace: Namespace) -> None:
        bdev, hook = self._hooks.pop(id(namespace))
        bdev.remove_hooks = [item for item in bdev.remove_hooks if item is not hook]
        self.bdevs.release(bdev)

    async def remove_namespace(self, subsystem: Subsystem, nsid: int) -> None:
        """Take a namespace out; raises TargetError when there is none."""
        async with subsystem.paused(nsid):
            self._let_go(subsystem.remove_namespace(nsid))

    # Hosts

    def add_host(self, subsystem: Subsystem, hostnqn: str, keys: KeyPair = NO_KEYS) -> None:
        """Allow a host; raises TargetError when its name is wrong or it is allowed already.

        With keys it must authenticate; see ``set_keys``.
        """
        if not nqn_is_valid(hostnqn) or hostnqn in subsystem.hosts or keys.one_sided:
            raise TargetError(f"host {hostnqn} cannot be added")
        self._give_keys(subsystem, hostnqn, keys)
        subsystem.hosts.insert(0, hostnqn)  # newest first, as SPDK lists them
        if subsystem.listeners:
            self.discovery_changed(hostnqn)

    def remove_host(self, subsystem: Subsystem, hostnqn: str) -> None:
        """Allow it no more; raises TargetError when it was not allowed.  See ``disconnect_host``."""
        if hostnqn not in subsystem.hosts:
            raise TargetError(f"host {hostnqn} is not allowed")
        subsystem.hosts.remove(hostnqn)
        self._take_keys(subsystem, hostnqn)
        if subsystem.listeners:
            self.discovery_changed(hostnqn)

    def set_keys(self, subsystem: Subsystem, hostnqn: str, keys: KeyPair) -> None:
        """Other keys, or none, from the next exchange on; raises TargetError when there is no such host.

        Connected queues stay as they are, as in SPDK.
        """
        if hostnqn not in subsystem.hosts or keys.one_sided:
            raise TargetError(f"host {hostnqn} cannot be given these keys")
        self._take_keys(subsystem, hostnqn)
        self._give_keys(subsystem, hostnqn, keys)

    def _give_keys(self, subsystem: Subsystem, hostnqn: str, keys: KeyPair) -> None:
        if keys.host is not None:
            subsystem.host_keys[hostnqn] = self._keyring.hold(keys)

    def _take_keys(self, subsystem: Subsystem, hostnqn: str) -> None:
        self._keyring.release(subsystem.host_keys.pop(hostnqn, NO_KEYS))

    # Listeners

    async def add_listener(
        self, subsystem: Subsystem, address: Address, state: AnaState, *, sock_impl: str | None = None
    ) -> None:
        """Listen at ``address`` for the subsystem, every group in ``state``; raises TargetError."""
        async with subsystem.paused():
            if subsystem.find_listener(address) is not None:
                raise TargetError("the listener exists already")
            # Pipelined calls for several subsystems share one port: only the first of them opens it.
            async with self._listen_lock:
                await self._listen(address)
            try:
                subsystem.add_listener(address, state, sock_impl=sock_impl)
            except TargetError:
                self._stop_listening(address)
                raise
            self.discovery_changed()

    async def remove_listener(self, subsystem: Subsystem, address: Address) -> None:
        """Listen there no more for the subsystem and drop who came that way; raises TargetError."""
        async with subsystem.paused():
            listener = subsystem.find_listener(address)
            if listener is None:
                raise TargetError("there is no such listener")
            queues = [item for item in self._queues_of(subsystem) if item.local.key == address.key]
            self._remove_listener(subsystem, listener)
            await self._drop(queues, "the listener is removed")

    def _remove_listener(self, subsystem: Subsystem, listener: Listener) -> None:
        subsystem.remove_listener(listener)
        self._stop_listening(listener.address)
        self.discovery_changed()

    async def _listen(self, address: Address) -> None:
        if address.trtype.upper() not in self.transports:
            raise TargetError(f"there is no {address.trtype} transport")
        port = self._ports.get(address.key)
        if port is not None:
            port.users += 1
            return
        try:
            number = address.port
            literal = ipaddress.ip_address(address.traddr)
            if f"IPv{literal.version}" != address.adrfam:
                raise TargetError(f"{address.traddr} is not of family {address.adrfam}")
            server = await self.loop.create_server(
                lambda: TcpQueue(self), address.traddr, number, backlog=BACKLOG, reuse_address=True
            )
        except (OSError, ValueError) as problem:
            raise TargetError(f"cannot listen on {address.traddr}:{address.trsvcid}: {problem}") from problem
        self._ports[address.key] = _Port(server)
        log.info("listening on %s port %s", address.traddr, address.trsvcid)

    def _stop_listening(self, address: Address) -> None:
        port = self._ports.get(address.key)
        if port is None:
            return
        port.users -= 1
        if not port.users:
            port.server.close()
            del self._ports[address.key]

    # Discovery

    def discovery_changed(self, hostnqn: str | None = None) -> None:
        """What discovery shows has changed, for one host or for all."""
        self._generation += 1
        for controller in self.subsystems[DISCOVERY_NQN].controllers.values():
            if hostnqn is None or controller.hostnqn == hostnqn:
                controller.discovery_changed()

    def add_referral(self, referral: Referral) -> None:
        """Add it, unless it is there; raises TargetError when its NQN is wrong."""
        if not nqn_is_valid(referral.subnqn):
            raise TargetError(f"referral to {referral.subnqn} cannot be added")
        if self.find_referral(referral) is None:
            self.referrals.insert(0, referral)
            self.discovery_changed()

    def find_referral(self, referral: Referral) -> Referral | None:
        """The one with the same address and NQN."""
        wanted = (referral.address.key, referral.subnqn)
        return next((item for item in self.referrals if (item.address.key, item.subnqn) == wanted), None)

    def remove_referral(self, referral: Referral) -> None:
        """Take it out; raises TargetError when it is not there."""
        found = self.find_referral(referral)
        if found is None:
            raise TargetError("there is no such referral")
        self.referrals.remove(found)
        self.discovery_changed()

    def discovery_log(self, hostnqn: str, source: Address) -> DiscoveryLog:
        """What that host finds when it asks at ``source``."""
        entries: list[DiscoveryEntry] = []
        for subsystem in self.sorted_subsystems():
            if subsystem.host_allowed(hostnqn):
                entries += [
                    self._entry(subsystem, listener)
                    for listener in subsystem.listeners
                    if self._shown(listener.address, source)
                ]
        for referral in self.referrals:
            subtype = SubsystemType.REFERRAL if referral.subnqn == DISCOVERY_NQN else SubsystemType.NVM
            entries.append(_referral_entry(referral, subtype))
        return DiscoveryLog(self._generation, tuple(entries))

    def _shown(self, address: Address, source: Address) -> bool:
        chosen = self.settings.discovery_filter
        if "address" in chosen and (address.adrfam, address.traddr) != (source.adrfam, source.traddr):
            return False
        return "svcid" not in chosen or address.trsvcid == source.trsvcid

    def _entry(self, subsystem: Subsystem, listener: Listener) -> DiscoveryEntry:
        address = listener.address
        return DiscoveryEntry(
            adrfam=address.family,
            subtype=SubsystemType.CURRENT_DISCOVERY if subsystem.discovery else SubsystemType.NVM,
            treq=_NOT_SECURE, portid=listener.port_id, asqsz=self.transport().max_aq_depth,
            eflags=_RETURNS_SAME_INFORMATION_AND_PERSISTS if subsystem.discovery else 0,
            trsvcid=address.trsvcid, traddr=address.traddr, subnqn=subsystem.nqn,
        )  # fmt: skip

    # What is shown

    def config(self) -> list[dict[str, object]]:
        """The calls that would make this target again, as ``framework_get_config`` of "nvmf" shows them."""
        return render.config(self)

    def stats(self) -> dict[str, object]:
        """As ``nvmf_get_stats`` shows them."""
        return render.stats(self)


async def _stored(path: str | None) -> str | None:
    try:
        return None if path is None else await asyncio.to_thread(ptpl.load, path)
    except ptpl.StoredWrong as problem:
        raise TargetError(str(problem)) from problem


def _reserved(bdev: Bdev, path: str | None, stored: str | None) -> Reserved:
    try:
        return Reserved(bdev.uuid, path, None if stored is None else ptpl.from_text(stored, bdev.uuid))
    except ptpl.StoredWrong as problem:
        raise TargetError(f"the reservation in {path} cannot be used: {problem}") from problem


def _referral_entry(referral: Referral, subtype: SubsystemType) -> DiscoveryEntry:
    return DiscoveryEntry(
        adrfam=referral.address.family, subtype=subtype,
        treq=_SECURE if referral.secure_channel else _NOT_SECURE, trsvcid=referral.address.trsvcid,
        traddr=referral.address.traddr, subnqn=referral.subnqn,
    )  # fmt: skip
