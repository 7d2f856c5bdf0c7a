"""The resolved array: what ``array.yaml`` means, with every shorthand opened and every default filled in.

Why: the planner and the store must not care how something was typed.  These values are plain, frozen and
hashable; every name is looked up, every size is bytes, every path absolute or as the resolver left it.  This
module must never parse text and never hold what the allocator decides (slices, NSIDs, UUIDs): that is state.

Invariants (made true by ``controlplane.spec.resolve``, relied upon here):
- names are unique within their kind, and every name that is used exists;
- a drive belongs to at most one pool;
- a subsystem ``default`` exists as soon as one volume names no subsystem;
- drives given as files have a shelf; ``ha_intent`` is set exactly when ``ha`` is ``active-active``, and then each
  node has the socket of its agent, and the intent its secret file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final, Literal, TypeVar

from controlplane.domain.errors import NotFound
from controlplane.domain.units import KIB

NodeName = Literal["a", "b"]
Transport = Literal["tcp", "rdma"]
Family = Literal["ipv4", "ipv6"]

DEFAULT_SUBSYSTEM: Final = "default"
DEFAULT_CHUNK_BYTES: Final = 64 * KIB
NQN_PREFIX: Final = "nqn.2026-01.io.ws7000"
DEFAULT_HEARTBEAT: Final = 7700
"""UDP port of the heartbeats between the agents; registered with nobody."""


class Protection(StrEnum):
    """What a pool survives: nothing, or the loss of one drive of each pair."""

    NONE = "none"
    MIRROR = "mirror"


class HaMode(StrEnum):
    """Whether both nodes reach every drive and stand in for each other."""

    NONE = "none"
    ACTIVE_ACTIVE = "active-active"


class HaPolicy(StrEnum):
    """Named sets of timeouts; the numbers live with the agent that keeps them."""

    FAST = "fast"
    SLOW = "slow"


class PowerPolicy(StrEnum):
    """Whether an agent uses the other node's BMC: never by itself, or once that node was shut out and is silent."""

    OFF = "off"
    AFTER_TAKEOVER = "after-takeover"


def family_of(address: str) -> Family:
    """The NVMe address family of a textual IP address; raises ``ValueError`` if it is none."""
    return "ipv4" if ip_address(address).version == 4 else "ipv6"


def subsystem_nqn(array: str, subsystem: str) -> str:
    """The NQN a subsystem gets when the file gives none."""
    return f"{NQN_PREFIX}:{array}:{subsystem}"


def shelf_nqn(array: str, drive: str) -> str:
    """The NQN under which the shelf process exports a file drive (one subsystem a drive, as EBOFs do)."""
    return f"{NQN_PREFIX}:{array}:shelf:{drive}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """How an address moves: the network interface that carries it (called alike on both nodes) and its prefix."""

    interface: str
    prefix: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A data port of a node: hosts connect here (transport, address, service = TCP port number).  With ``takeover``
    the agents bring the address up, on the node's own machine or, after it has failed, on the other."""

    transport: Transport
    address: str
    service: int
    family: Family
    takeover: Takeover | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bmc:
    """What switches the power of a node: exactly one of ``redfish``, a URL, and ``ipmi``, an address, is not empty.
    ``password_file`` is a path; the password is never in here.  ``verify`` and ``ca_file`` are of Redfish's TLS."""

    user: str
    password_file: str
    redfish: str = ""
    ipmi: str = ""
    verify: bool = True
    ca_file: str | None = None

    @property
    def where(self) -> str:
        """Where it answers."""
        return self.redfish or self.ipmi


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A storage head.  ``rpc`` is the path of the engine's UNIX socket, or ``host:port``; ``agent`` the path of its
    agent's control socket, empty without high availability.  Heartbeats go over the UDP port ``heartbeat`` of
    ``heartbeat_addresses``, or of the ports that do not move where none are given."""

    name: NodeName
    rpc: str
    ports: tuple[Port, ...]
    cores: tuple[int, ...]
    agent: str = ""
    heartbeat: int = DEFAULT_HEARTBEAT
    heartbeat_addresses: tuple[str, ...] = ()
    bmc: Bmc | None = None

    @property
    def heard_at(self) -> tuple[str, ...]:
        """The addresses of its heartbeats, each once."""
        fixed = tuple(port.address for port in self.ports if port.takeover is None)
        return tuple(dict.fromkeys(self.heartbeat_addresses or fixed))


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieDrive:
    """A drive in this enclosure, by PCIe address in full form: ``0000:01:00.0``."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricsDrive:
    """A drive behind an NVMe-oF shelf."""

    transport: Transport
    address: str
    service: int
    nqn: str

    @property
    def family(self) -> Family:
        """The address family that the attach call needs."""
        return family_of(self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDrive:
    """A file that the shelf process exports as an NVMe drive; for trying out and for tests."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One drive and how to reach it.  ``serial`` is checked when it is adopted; ``failure_domain`` names
    what it shares with others (a shelf, a power feed)."""

    name: str
    source: PcieDrive | FabricsDrive | FileDrive
    serial: str | None = None
    failure_domain: str | None = None
    nsid: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Drives that volumes are cut from.  At most one of ``slices_per_drive`` and ``slice_bytes`` is given;
    with neither the allocator chooses when it adopts the drives."""

    name: str
    drives: tuple[str, ...]
    protection: Protection = Protection.NONE
    slices_per_drive: int | None = None
    slice_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem:
    """An NQN with namespaces: what a tenant sees."""

    name: str
    nqn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    """Upper bounds of one volume; ``None`` is no bound.  Rates are bytes per second."""

    rw_iops: int | None = None
    rw_bytes_per_s: int | None = None
    read_bytes_per_s: int | None = None
    write_bytes_per_s: int | None = None

    @property
    def unlimited(self) -> bool:
        """True if nothing is bounded."""
        return not (self.rw_iops or self.rw_bytes_per_s or self.read_bytes_per_s or self.write_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What a host gets: one namespace.  ``stripe_width`` counts data columns (a mirrored volume uses two
    drives a column); ``home`` ``None`` lets the allocator choose, for life."""

    name: str
    size_bytes: int
    pool: str
    subsystem: str = DEFAULT_SUBSYSTEM
    stripe_width: int | None = None
    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    home: NodeName | None = None
    qos: Qos = Qos()
    hosts: tuple[str, ...] = ()
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """An initiator.  ``secret_file`` is a path to its DH-HMAC-CHAP secret; the secret is never in here."""

    name: str
    nqn: str
    secret_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where the shelf process listens (NVMe/TCP) for the drives that are files."""

    address: str
    service: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HaIntent:
    """How the two nodes stand in for each other; ``quorum_drives`` is odd.  ``secret_file`` is the path of the secret
    that heartbeats are signed with, on each node; with ``failback`` groups come home by themselves."""

    policy: HaPolicy = HaPolicy.FAST
    quorum_drives: int = 5
    secret_file: str = ""
    failback: bool = False
    power: PowerPolicy = PowerPolicy.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficClass:
    """One class of traffic on the fabric.  ``share_percent`` is its part of the link when it is full;
    ``strict`` goes before every share, and then ``share_percent`` is ``None``."""

    name: str
    dscp: int
    priority: int
    lossless: bool = False
    strict: bool = False
    share_percent: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkIntent:
    """What the fabric should do; ``profile`` names the vendor's class map that the classes come from."""

    profile: str
    mtu: int
    cable_m: int
    classes: tuple[TrafficClass, ...]


def heartbeat_paths(ours: Node, peer: Node) -> tuple[tuple[str, str], ...]:
    """The pairs of addresses that heartbeats go between, in order, never IPv4 with IPv6."""
    found: list[tuple[str, str]] = []
    for family in ("ipv4", "ipv6"):
        here, there = ([each for each in node.heard_at if family_of(each) == family] for node in (ours, peer))
        found += zip(here, there, strict=False)
    return tuple(found)


_T = TypeVar("_T", Node, Drive, Pool, Subsystem, Volume, Host)


def _find(kind: str, things: tuple[_T, ...], name: str) -> _T:
    for thing in things:
        if thing.name == name:
            return thing
    known = ", ".join(each.name for each in things) or "none"
    raise NotFound(
        "SPEC-090", f"there is no {kind} {name!r}", why=f"the array has: {known}",
        remedy=f"use one of these names, or add the {kind} to array.yaml and apply it",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """The whole array as the admin wants it.  The lookups raise ``NotFound`` (SPEC-090)."""

    name: str
    nodes: tuple[Node, ...]
    drives: tuple[Drive, ...]
    pools: tuple[Pool, ...]
    subsystems: tuple[Subsystem, ...]
    volumes: tuple[Volume, ...]
    hosts: tuple[Host, ...] = ()
    ha: HaMode = HaMode.NONE
    network: NetworkIntent | None = None
    shelf: Shelf | None = None
    ha_intent: HaIntent | None = None

    @property
    def active_active(self) -> bool:
        """Whether agents say which node serves what."""
        return self.ha is HaMode.ACTIVE_ACTIVE

    def node(self, name: str) -> Node:
        """The node of that name."""
        return _find("node", self.nodes, name)

    def drive(self, name: str) -> Drive:
        """The drive of that name."""
        return _find("drive", self.drives, name)

    def pool(self, name: str) -> Pool:
        """The pool of that name."""
        return _find("pool", self.pools, name)

    def subsystem(self, name: str) -> Subsystem:
        """The subsystem of that name."""
        return _find("subsystem", self.subsystems, name)

    def volume(self, name: str) -> Volume:
        """The volume of that name."""
        return _find("volume", self.volumes, name)

    def host(self, name: str) -> Host:
        """The host of that name."""
        return _find("host", self.hosts, name)

    def pool_of_drive(self, drive: str) -> Pool | None:
        """The pool that the drive is in, or ``None`` for a spare."""
        return next((pool for pool in self.pools if drive in pool.drives), None)

    def volumes_of(self, subsystem: str) -> tuple[Volume, ...]:
        """The volumes of a subsystem, in the order of the file."""
        return tuple(volume for volume in self.volumes if volume.subsystem == subsystem)
