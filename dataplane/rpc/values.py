"""What the engine answers, as values: one frozen class for each thing, units in the names.

Why: the rest of the product never reads the engine's JSON.  Fields that SPDK leaves out in some state have a
default that means "not said"; a field that every supported release sends is required, and its absence is a
``ReplyError`` that names it.  This module must never know a method name or do I/O.

Sources: lib/bdev/bdev_rpc.c, module/bdev/raid/bdev_raid.c, module/bdev/nvme/bdev_nvme.c, lib/nvmf/nvmf_rpc.c,
lib/keyring/keyring_rpc.c, lib/event/app_rpc.c of SPDK v26.05.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dataplane.rpc.redact import redact


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineVersion:
    """``text`` as the engine says it; 26.05.1 is (26, 5, 1)."""

    text: str
    major: int
    minor: int
    patch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """One line of the engine's own account of how it was configured: a method and its parameters."""

    method: str
    params: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"ConfigEntry({self.method}, {redact(self.params)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactor:
    """One polling core; ``busy_ticks`` / (busy + idle) is its true load, since polling burns all of it."""

    lcore: int
    busy_ticks: int
    idle_ticks: int
    threads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactorsInfo:
    """``pid`` tells one life of the engine from the next."""

    pid: int
    tick_rate_hz: int
    reactors: tuple[Reactor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QosLimits:
    """0 is no limit."""

    rw_ios_per_s: int = 0
    rw_bytes_per_s: int = 0
    r_bytes_per_s: int = 0
    w_bytes_per_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """How a device was asked to be cut: at most ``count`` parts (those that fit are made), of ``part_bytes`` each, or
    equal ones if that is 0."""

    count: int
    part_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmeNamespaceInfo:
    """One path of an NVMe bdev to its namespace: what the drive said about itself."""

    transport: TransportId
    nsid: int
    cntlid: int
    serial_number: str = ""
    model_number: str = ""
    firmware_revision: str = ""
    subnqn: str = ""
    ana_state: str = ""
    can_share: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BdevInfo:
    """A block device of the engine.  ``split_base``, ``split_offset_blocks``, ``aio_path`` and ``nvme`` are set for
    devices of those kinds; ``driver_specific`` is everything the engine says, read only."""

    name: str
    uuid: str
    aliases: tuple[str, ...]
    product_name: str
    block_size_bytes: int
    num_blocks: int
    claimed: bool
    claim_type: str = ""
    numa_id: int | None = None
    qos: QosLimits = QosLimits()
    io_types: frozenset[str] = frozenset()
    split_base: str = ""
    split_offset_blocks: int = 0
    aio_path: str = ""
    nvme: tuple[NvmeNamespaceInfo, ...] = ()
    driver_specific: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def size_bytes(self) -> int:
        """The size of the device."""
        return self.block_size_bytes * self.num_blocks


class RaidBase(NamedTuple):
    """One leg or column.  ``name`` is empty for a place whose device is gone; ``configured`` is False then.  A
    tuple, since a node has thousands of them."""

    name: str
    uuid: str
    configured: bool
    data_offset_blocks: int
    data_size_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaidProcess:
    """A rebuild that is under way."""

    kind: str
    target: str
    blocks_done: int
    percent_done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaidInfo:
    """``state`` is configuring, online or offline; ``operational`` counts the bases the set works with."""

    name: str
    uuid: str
    level: str
    state: str
    strip_size_bytes: int
    superblock: bool
    bases: tuple[RaidBase, ...]
    num_bases: int
    discovered: int
    operational: int
    process: RaidProcess | None = None

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the bases in their order; empty strings where one is gone."""
        return tuple([base.name for base in self.bases])


@dataclass(frozen=True, slots=True, kw_only=True)
class BdevStat:
    """Counters of one device since it was made; latencies are sums in ticks."""

    name: str
    bytes_read: int
    read_ops: int
    bytes_written: int
    write_ops: int
    bytes_unmapped: int
    unmap_ops: int
    read_latency_ticks: int
    write_latency_ticks: int
    io_errors: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IostatInfo:
    """``ticks`` is the moment of the reading on the engine's clock of ``tick_rate_hz``."""

    tick_rate_hz: int
    ticks: int
    bdevs: tuple[BdevStat, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBucket:
    """So many I/Os took less than ``end_ns``, and not less than the end of the bucket before."""

    end_ns: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyHistogram:
    """Buckets that have I/O in them, ascending; each is ``1 / (1 << granularity)`` as wide as the times in it."""

    granularity: int
    buckets: tuple[LatencyBucket, ...]

    @property
    def count(self) -> int:
        """All I/Os that were counted."""
        return sum(bucket.count for bucket in self.buckets)

    def percentile_ns(self, percent: float) -> int | None:
        """The end of the bucket that this part of all I/Os lies below; None where nothing was counted."""
        wanted, so_far = self.count * percent / 100, 0
        for bucket in self.buckets:
            so_far += bucket.count
            if so_far >= wanted:
                return bucket.end_ns
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportId:
    """Where an NVMe controller is: for PCIe ``traddr`` is the BDF and the rest is empty."""

    trtype: str
    traddr: str
    adrfam: str = ""
    trsvcid: str = ""
    subnqn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmePath:
    """One controller under a name; ``state`` is enabled, disabled, resetting, reconnect_is_delayed, failed or
    deleting.  The host fields are what it connected as."""

    state: str
    transport: TransportId
    alternates: tuple[TransportId, ...]
    cntlid: int
    host_nqn: str
    host_address: str = ""
    numa_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmeControllerInfo:
    """An attached NVMe device by its name; more than one path with multipath."""

    name: str
    paths: tuple[NvmePath, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NvmeCompletion:
    """The completion of a raw NVMe command (NVMe base 2.0, figure 89).  The RPC succeeds even when the command
    failed, so look at ``ok``."""

    cdw0: int
    sct: int
    sc: int
    more: bool
    dnr: bool
    data: bytes = b""

    @property
    def status(self) -> int:
        """SCT << 8 | SC, as ``dataplane.nvme.status.Status`` counts."""
        return self.sct << 8 | self.sc

    @property
    def ok(self) -> bool:
        """Whether the command succeeded."""
        return not self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where a subsystem can be reached, spelt as SPDK reports it (``TCP``, ``IPv4``), so that what was asked and
    what is seen compare equal."""

    trtype: str
    adrfam: str
    traddr: str
    trsvcid: str

    @classmethod
    def of(cls, trtype: str, address: str, port: int | str) -> ListenAddress:
        """From a transport (``tcp``), a numeric IP address and a port."""
        ip = ipaddress.ip_address(address)
        return cls(trtype=trtype.upper(), adrfam=f"IPv{ip.version}", traddr=address, trsvcid=str(port))

    def to_params(self) -> dict[str, Any]:
        """As the methods take it."""
        return {
            "trtype": self.trtype,
            "adrfam": self.adrfam,
            "traddr": self.traddr,
            "trsvcid": self.trsvcid,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """A host that may connect; the keys are *names* of the keyring, never key material."""

    nqn: str
    dhchap_key: str = ""
    dhchap_ctrlr_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """A namespace of a subsystem; ``nguid`` is 32 upper-case hex digits, ``ana_group`` 0 without ANA reporting."""

    nsid: int
    bdev_name: str
    uuid: str
    nguid: str
    ana_group: int
    ptpl_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsystemInfo:
    """A subsystem as ``nvmf_get_subsystems`` tells it.  Which hosts see which namespace, and whether ANA is
    reported, it does not tell: see ``SubsystemConfig``."""

    nqn: str
    serial_number: str
    model_number: str
    max_namespaces: int
    min_cntlid: int
    max_cntlid: int
    allow_any_host: bool
    hosts: tuple[HostInfo, ...]
    listen_addresses: tuple[ListenAddress, ...]
    namespaces: tuple[NamespaceInfo, ...]

    def namespace(self, nsid: int) -> NamespaceInfo | None:
        """The namespace of that number, or None."""
        return next((item for item in self.namespaces if item.nsid == nsid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceVisibility:
    """``auto_visible`` namespaces are seen by every host of the subsystem, others by ``hosts`` only."""

    auto_visible: bool
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsystemConfig:
    """What only the engine's configuration says about a subsystem; it does not say the ANA states."""

    nqn: str
    ana_reporting: bool
    namespaces: Mapping[int, NamespaceVisibility]
    secure_listeners: frozenset[ListenAddress]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerInfo:
    """A listener and its ANA state for each group (1 to max_namespaces); empty without ANA reporting."""

    address: ListenAddress
    ana_states: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostControllerInfo:
    """A controller (association) that a host holds with a subsystem."""

    cntlid: int
    host_nqn: str
    host_id: str
    io_qpairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportInfo:
    """A transport of the target; ``options`` is everything the engine says."""

    trtype: str
    max_queue_depth: int
    max_io_qpairs_per_ctrlr: int
    in_capsule_data_size_bytes: int
    max_io_size_bytes: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PollGroupStats:
    """One poll group: what connects to it and what it has done."""

    name: str
    admin_qpairs: int
    io_qpairs: int
    current_admin_qpairs: int
    current_io_qpairs: int
    pending_bdev_io: int
    completed_nvme_io: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsInfo:
    """Counters of the target."""

    tick_rate_hz: int
    poll_groups: tuple[PollGroupStats, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """A key by name; the material is never part of an answer."""

    name: str
    module: str
    removed: bool
    path: str = ""
