"""The image of a node: the engine objects it has, or is to have, as plain comparable values.

``planner.image`` renders the wanted image from the state, ``reconcile.observe`` reads the seen image from the
target, and ``planner.diff`` compares the two.  One shape for both is what keeps the comparison honest: what is
not in here is neither planned nor noticed.

Invariant: an image holds only objects whose names say that they are this array's; all others are ``unmanaged``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controlplane.domain.desired import Qos

VOLUME_PREFIX: Final = "vol-"


class AnaState(StrEnum):
    """ANA states that SPDK can set (NVMe base 2.0, 8.1.3; persistent loss and change are not offered)."""

    OPTIMIZED = "optimized"
    NON_OPTIMIZED = "non_optimized"
    INACCESSIBLE = "inaccessible"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveImage:
    """An attached drive: ``source`` is what it was attached by, as text; sizes are 0 when never seen."""

    name: str
    source: str
    size_bytes: int = 0
    serial: str = ""
    connected: bool = True
    """False while the engine is reconnecting to it: no raw command may be sent then (SPDK v26.05 dies of it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitImage:
    """A drive cut into ``count`` slices of ``slice_bytes``."""

    drive: str
    count: int
    slice_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaidImage:
    """A RAID set.  ``depth`` 0 stands on slices, 1 and more on other sets; ``strip_bytes`` is 0 for raid1.

    ``members`` are base bdev names in order; a member that has dropped out of a raid1 is the empty string."""

    name: str
    level: str
    uuid: str
    strip_bytes: int
    members: tuple[str, ...]
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceImage:
    """A namespace of a subsystem; ``hosts`` are the host NQNs that see it."""

    nsid: int
    bdev: str
    nguid: str
    uuid: str
    group: int
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, order=True)
class ListenerKey:
    """A transport address: ``transport`` is lower case, ``service`` a TCP or RDMA port number."""

    transport: str
    address: str
    service: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}://{host}:{self.service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsystemImage:
    """A subsystem on one node; ``listeners`` maps an address to the ANA state of each group (see
    ``NodeImage.agents`` for when a wanted one has none)."""

    nqn: str
    serial: str
    model: str
    max_namespaces: int
    min_cntlid: int
    max_cntlid: int
    allow_any_host: bool = False
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Host NQN -> name of the DH-HMAC-CHAP key in the keyring, empty without one."""
    listeners: Mapping[ListenerKey, Mapping[int, AnaState]] = field(default_factory=dict)
    namespaces: Mapping[int, NamespaceImage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImage:
    """All engine objects of one node."""

    node: str
    engine: str = ""
    """What the engine says it is; empty where nobody asked."""
    drive_options: bool = False
    """Flush is passed to drives, and a lost or refused drive is retried for ever (never an error to a host)."""
    auto_examine: bool = False
    """The engine looks into every new bdev by itself; an array must not be built on such an engine."""
    transports: frozenset[str] = frozenset()
    drives: Mapping[str, DriveImage] = field(default_factory=dict)
    splits: Mapping[str, SplitImage] = field(default_factory=dict)
    raids: Mapping[str, RaidImage] = field(default_factory=dict)
    qos: Mapping[str, Qos] = field(default_factory=dict)
    """Limits by bdev name; a bdev without limits is absent."""
    keys: frozenset[str] = frozenset()
    subsystems: Mapping[str, SubsystemImage] = field(default_factory=dict)
    agents: bool = False
    """Of a wanted image: the agents of high availability say which node serves a group, so that ANA states of its
    listeners are neither wanted nor compared, and a listener's map of groups is empty."""
    unmanaged: tuple[str, ...] = ()
    """Objects on the engine that this array did not make; shown, never touched."""

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded engine, which serves TCP without authentication."""
        return "embedded" in self.engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A node that could not be observed: never the same as an empty one."""

    node: str
    reason: str


Seen = NodeImage | Unknown


def drive_bdev(drive: str) -> str:
    """The bdev of a drive's namespace 1, as the engine names it."""
    return f"{drive}n1"


def slice_bdev(drive: str, index: int) -> str:
    """The bdev of a slice, as ``bdev_split_create`` names it."""
    return f"{drive}n1p{index}"


def mirror_bdev(volume: str, piece: int) -> str:
    """The mirrored set of a volume's piece."""
    return f"{volume_bdev(volume)}.m{piece}"


def volume_bdev(volume: str) -> str:
    """The bdev that a volume's namespace exports."""
    return f"{VOLUME_PREFIX}{volume}"
