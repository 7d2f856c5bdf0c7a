"""A subsystem: its namespaces, who may see them, where it listens, and which controllers it has.

Why: visibility, ANA states and the pause around changes are decided here and nowhere else.  This module must
never do I/O to a bdev nor touch a socket.

Invariants: an NSID never exceeds ``max_namespaces``; an ANA group neither; a namespace's bdev is claimed as long
as it is here; every change that hosts can see leaves a notice with the controllers that it concerns.
Source: SPDK v26.05 lib/nvmf/subsystem.c.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dataplane.embedded.nvmf.gate import Gate
from dataplane.embedded.nvmf.options import Address
from dataplane.embedded.nvmf.reserved import Reserved
from dataplane.nvme.fabrics import CNTLID_MAX
from dataplane.nvme.logs import AnaState

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.keyring import KeyPair
    from dataplane.embedded.nvmf.controller import Controller

MAX_LISTENERS = 16
CLAIM = "NVMe-oF Target"


class TargetError(Exception):
    """A management operation was refused; what the RPC method answers is the method's business."""


@dataclass(slots=True)
class Namespace:
    """A namespace; ``hosts`` are those that see it when it is not ``always_visible``."""

    nsid: int
    bdev: Bdev
    nguid: bytes
    eui64: bytes
    uuid: bytes
    anagrpid: int
    reserved: Reserved
    always_visible: bool = True
    hosts: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Listener:
    """An address of a subsystem with the ANA state of each group there (index 0 is group 1)."""

    address: Address
    port_id: int
    ana_states: list[AnaState]
    secure_channel: bool = False
    sock_impl: str | None = None


@dataclass(frozen=True, slots=True)
class SubsystemOptions:
    """What ``nvmf_create_subsystem`` says; ``dmrsl`` in blocks, ``wzsl`` a power of two of pages."""

    serial_number: str = "0" * 20
    model_number: str = "SPDK bdev Controller"
    max_namespaces: int = 32
    ana_reporting: bool = False
    dmrsl: int = 2097152
    wzsl: int = 12
    passthrough: bool = False
    enable_nssr: bool = False


class Subsystem:
    """One NQN."""

    def __init__(self, nqn: str, options: SubsystemOptions, *, discovery: bool = False) -> None:
        self.nqn = nqn
        self.options = options
        self.discovery = discovery
        self.max_nsid = options.max_namespaces
        self.allow_any_host = False
        self.hosts: list[str] = []
        self.host_keys: dict[str, KeyPair] = {}  # of the hosts that must authenticate
        self.namespaces: dict[int, Namespace] = {}
        self.listeners: list[Listener] = []
        self.controllers: dict[int, Controller] = {}
        self.min_cntlid = 1
        self.max_cntlid = CNTLID_MAX
        self._next_cntlid = 1
        self._auth_seqnum = secrets.randbits(32)
        self.admin_gate = Gate()
        self._gates: dict[int, Gate] = {}
        self._changing = asyncio.Lock()

    @property
    def ana_reporting(self) -> bool:
        """Whether hosts are told about ANA states at all."""
        return self.options.ana_reporting

    def sorted_namespaces(self) -> Iterable[Namespace]:
        """By NSID."""
        return (self.namespaces[nsid] for nsid in sorted(self.namespaces))

    def gate(self, nsid: int) -> Gate:
        """The door of that namespace, whether it exists or not."""
        gate = self._gates.get(nsid)
        if gate is None:
            gate = self._gates[nsid] = Gate()
        return gate

    @asynccontextmanager
    async def paused(self, nsid: int = 0) -> AsyncIterator[None]:
        """Hold admin commands, and I/O of ``nsid`` unless it is 0, until the block is left."""
        async with self._changing:
            gates = [self.admin_gate]
            if nsid and nsid <= self.max_nsid:
                gates.append(self.gate(nsid))
            try:
                for gate in gates:
                    gate.closed = True
                for gate in gates:
                    await gate.drain()
                yield
            finally:
                for gate in gates:
                    gate.open()

    def host_allowed(self, hostnqn: str) -> bool:
        """Whether that host may connect."""
        return self.allow_any_host or hostnqn in self.hosts

    def find_listener(self, address: Address) -> Listener | None:
        """The listener at that address."""
        return next((item for item in self.listeners if item.address.key == address.key), None)

    def new_cntlid(self) -> int | None:
        """A controller identifier of the range that is not in use; None when there is none."""
        size = self.max_cntlid - self.min_cntlid + 1
        for step in range(size):
            cntlid = self.min_cntlid + (self._next_cntlid - self.min_cntlid + step) % size
            if cntlid not in self.controllers:
                self._next_cntlid = cntlid + 1
                return cntlid
        return None

    def next_auth_seqnum(self) -> int:
        """The number of a challenge: never 0, and never that of the one before."""
        self._auth_seqnum = (self._auth_seqnum + 1) & 0xFFFFFFFF or 1
        return self._auth_seqnum

    def set_cntlid_range(self, low: int, high: int) -> None:
        """Where controller identifiers come from; raises TargetError unless 1 <= low <= high <= FFEFh."""
        if not 1 <= low <= high <= CNTLID_MAX:
            raise TargetError(f"invalid cntlid range [{low}-{high}]")
        self.min_cntlid, self.max_cntlid = low, high
        self._next_cntlid = low

    def visible(self, namespace: Namespace, hostnqn: str) -> bool:
        """Whether that host sees the namespace."""
        return namespace.always_visible or hostnqn in namespace.hosts

    def free_nsid(self) -> int:
        """The lowest NSID that is not in use; 0 when there is none."""
        return next((nsid for nsid in range(1, self.max_nsid + 1) if nsid not in self.namespaces), 0)

    def add_namespace(self, namespace: Namespace) -> None:
        """Add it; raises TargetError when NSID or ANA group do not fit."""
        if not 0 < namespace.nsid <= self.max_nsid or namespace.nsid in self.namespaces:
            raise TargetError(f"NSID {namespace.nsid} cannot be used")
        if not 0 < namespace.anagrpid <= self.max_nsid:
            raise TargetError(f"ANA group {namespace.anagrpid} cannot be used")
        self.namespaces[namespace.nsid] = namespace
        self._tell(namespace)

    def remove_namespace(self, nsid: int) -> Namespace:
        """Take it out; raises TargetError when there is none of that NSID."""
        namespace = self._namespace(nsid)
        del self.namespaces[nsid]
        self._tell(namespace)
        return namespace

    def _namespace(self, nsid: int) -> Namespace:
        namespace = self.namespaces.get(nsid)
        if namespace is None:
            raise TargetError(f"no namespace {nsid}")
        return namespace

    def _tell(self, namespace: Namespace) -> None:
        for controller in self.controllers.values():
            if self.visible(namespace, controller.hostnqn):
                controller.namespace_changed(namespace.nsid)

    def bdev_resized(self, bdev: Bdev) -> None:
        """Tell hosts whose namespace it is; it only ever grows, so that I/O goes on meanwhile."""
        for namespace in self.namespaces.values():
            if namespace.bdev is bdev:
                self._tell(namespace)

    def show_namespace(self, nsid: int, hostnqn: str, *, visible: bool) -> None:
        """Let one host see the namespace, or no more; raises TargetError when everybody sees it anyway."""
        namespace = self._namespace(nsid)
        if namespace.always_visible:
            raise TargetError(f"namespace {nsid} is visible to all hosts")
        if (hostnqn in namespace.hosts) == visible:
            return
        if visible:
            namespace.hosts[hostnqn] = None
        else:
            del namespace.hosts[hostnqn]
        for controller in self.controllers.values():
            if controller.hostnqn == hostnqn:
                controller.namespace_changed(nsid)

    def move_namespace(self, nsid: int, anagrpid: int) -> None:
        """Put the namespace into another ANA group."""
        namespace = self._namespace(nsid)
        if not 0 < anagrpid <= self.max_nsid:
            raise TargetError(f"ANA group {anagrpid} cannot be used")
        moved = namespace.anagrpid != anagrpid
        namespace.anagrpid = anagrpid
        for controller in self.controllers.values():
            if self.visible(namespace, controller.hostnqn):
                controller.changed_nsids[nsid] = None
            if moved:
                controller.ana_changed()

    def add_listener(
        self, address: Address, state: AnaState, *, secure_channel: bool = False, sock_impl: str | None = None
    ) -> Listener:
        """Add it, newest first as SPDK lists them; raises TargetError when there are too many."""
        used = {item.port_id for item in self.listeners}
        port_id = next((number for number in range(MAX_LISTENERS) if number not in used), None)
        if port_id is None:
            raise TargetError(f"at most {MAX_LISTENERS} listeners")
        listener = Listener(address, port_id, [state] * self.max_nsid, secure_channel, sock_impl)
        self.listeners.insert(0, listener)
        return listener

    def remove_listener(self, listener: Listener) -> None:
        """Take it out; controllers that came through it find every group inaccessible."""
        self.listeners.remove(listener)
        for controller in self.controllers.values():
            if controller.listener is listener:
                controller.listener = None

    def set_ana_state(self, listener: Listener, state: AnaState, anagrpid: int) -> None:
        """Set one group's state there, or with group 0 all of them; controllers of that listener are told."""
        if not self.ana_reporting or anagrpid > self.max_nsid:
            raise TargetError("ANA state cannot be set")
        if anagrpid:
            if listener.ana_states[anagrpid - 1] == state:
                return
            listener.ana_states[anagrpid - 1] = state
        else:
            listener.ana_states[:] = [state] * self.max_nsid
        for controller in self.controllers.values():
            if controller.listener is listener:
                controller.ana_changed()
