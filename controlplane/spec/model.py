"""The shape of array.yaml: every key, its kind, its default and one sentence on it.

The models accept what people type, shorthand included; ``resolve`` says what it means.  Unknown keys are refused,
nothing is converted from one type to another, and no value is looked at twice here: what needs two keys is in
``checks``.  The descriptions are shown by editors (JSON Schema), so they are sentences with units and defaults.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from controlplane.domain.desired import DEFAULT_CHUNK_BYTES, DEFAULT_HEARTBEAT, DEFAULT_SUBSYSTEM
from controlplane.spec import fields as f
from controlplane.spec import limits
from controlplane.spec.problems import nearest, shown

API_VERSION: Final = "ws7000/v1"
DEFAULT_SERVICE: Final = 4420
"""The IANA port of NVMe over Fabrics, and of RoCE; discovery would be 8009 (NVMe/TCP 1.0, 3.1.2)."""
DEFAULT_SHELF_SERVICE: Final = 4430
DEFAULT_HA_SECRET: Final = "./ha.secret"  # noqa: S105 - the name of a file


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TakeoverSpec(_Keys):
    """How the address of a port moves to the other node."""

    interface: f.Interface = Field(description="Network interface that carries it, called alike on both nodes.")
    prefix: Annotated[int, f.bounded(1, 128)] = Field(description="Length of the network prefix, as in 24.")


class PortSpec(_Keys):
    """A data port of a node."""

    transport: Literal["tcp", "rdma"] = Field(description="NVMe over TCP or over RDMA (RoCEv2).")
    address: f.Address = Field(description="IPv4 or IPv6 address that hosts connect to.")
    service: f.Service = Field(DEFAULT_SERVICE, description="TCP or RDMA port, 1 to 65535; default 4420.")
    takeover: TakeoverSpec | None = Field(None, description="The agents move the address; default: it stays.")


class BmcSpec(_Keys):
    """What switches the power of a node: a Redfish service, or IPMI."""

    redfish: f.Redfish | None = Field(None, description="Redfish service, as in https://10.0.0.21.")
    ipmi: f.Address | None = Field(None, description="IPv4 or IPv6 address for IPMI over LAN (UDP port 623).")
    user: f.User = Field(description="Account of the BMC.")
    password_file: f.PathText = Field(description="File with its password, readable by its owner alone.")
    verify: bool = Field(default=True, description="Verify the certificate of the Redfish service; default true.")
    ca_file: f.PathText | None = Field(None, description="File with the authority of that certificate.")


class NodeSpec(_Keys):
    """A storage head."""

    name: Literal["a", "b"] = Field(description="The nodes are called a and b.")
    rpc: f.Rpc = Field(description="Where the engine's JSON-RPC answers: path of a UNIX socket, or host:port.")
    ports: list[PortSpec] = Field(description="Data ports, 1 to 16 a node.")
    cores: f.Cores = Field(default=[], description="Cores of the engine, as in [1, 2-5]; default: its own choice.")
    agent: f.SocketPath | None = Field(None, description="Control socket of its agent; default: beside rpc.")
    heartbeat: f.Service = Field(DEFAULT_HEARTBEAT, description="UDP port of heartbeats, 1 to 65535; default 7700.")
    heartbeat_addresses: list[f.Address] = Field(
        default=[], description="Addresses of its heartbeats; default: those of the ports that do not move."
    )
    bmc: BmcSpec | None = Field(None, description="What switches its power; default: nobody.")


class ShelfSpec(_Keys):
    """Where the shelf process exports drives that are files."""

    address: f.Address = Field(default="127.0.0.1", description="Address it listens on; default 127.0.0.1.")
    service: f.Service = Field(default=DEFAULT_SHELF_SERVICE, description="TCP port; default 4430.")


class NvmeofSpec(_Keys):
    """The address of a drive behind an NVMe-oF shelf."""

    transport: Literal["tcp", "rdma"] = Field(description="NVMe over TCP or over RDMA (RoCEv2).")
    address: f.Address = Field(description="IPv4 or IPv6 address of the shelf.")
    service: f.Service = Field(DEFAULT_SERVICE, description="TCP or RDMA port, 1 to 65535; default 4420.")
    nqn: str = Field(description="NQN of the drive's subsystem; may hold a pattern such as d{00..23}.")


class DriveSpec(_Keys):
    """One drive, or several alike by a pattern ``{00..23}`` or a list."""

    name: str | None = Field(None, description="Name, may hold a pattern; default for files: the file's name.")
    pcie: f.PcieList | None = Field(None, description='PCIe address in quotes, or a list: "0000:01:00.0".')
    nvmeof: NvmeofSpec | None = Field(None, description="Address of a drive behind an NVMe-oF shelf.")
    file: f.PathText | None = Field(None, description="Path of a file, for trying out; may hold a pattern.")
    size: f.FileSize | None = Field(None, description="Size of the file (each), a multiple of 4KiB.")
    serial: f.SerialList | None = Field(None, description="Serial number(s), checked when the drive is adopted.")
    failure_domain: f.Name | None = Field(None, description="What it shares with others: a shelf, a power feed.")


class PoolSpec(_Keys):
    """Drives that volumes are cut from."""

    name: f.Name = Field(description="Name of the pool.")
    drives: f.PoolDrives = Field(description="Names (patterns allowed), or the word all.")
    protection: Literal["none", "mirror"] = Field("none", description="Survives nothing, or one drive of a pair.")
    slices_per_drive: Annotated[int, f.bounded(2, limits.SLICES_PER_DRIVE.value)] | None = Field(
        None, description="Slices a drive is cut into, 2 to 512; default: as few MiB a slice as 512 allow."
    )
    slice_size: f.SliceSize | None = Field(None, description="Size of a slice instead, in whole MiB.")


class SubsystemSpec(_Keys):
    """An NQN with namespaces; one per tenant."""

    name: f.Name = Field(description="Name of the subsystem (the tenant).")
    nqn: f.Nqn | None = Field(None, description="Its NQN; default nqn.2026-01.io.ws7000:ARRAY:NAME.")


class QosSpec(_Keys):
    """Upper bounds of a volume."""

    iops: f.QosIops | None = Field(None, description="Reads and writes a second, in steps of 1000.")
    rate: f.QosRate | None = Field(None, description="Reads and writes together, in steps of 1MiB/s.")
    read_rate: f.QosRate | None = Field(None, description="Reads alone, in steps of 1MiB/s.")
    write_rate: f.QosRate | None = Field(None, description="Writes alone, in steps of 1MiB/s.")


class VolumeSpec(_Keys):
    """What a host gets: one namespace."""

    name: f.Name = Field(description="Name of the volume.")
    size: f.Size = Field(description="Size with unit; rounded up to whole slices.")
    pool: str = Field(description="Pool it is cut from.")
    subsystem: str = Field(DEFAULT_SUBSYSTEM, description="Subsystem it is shown in; default: default.")
    stripe: Annotated[int, f.bounded(1, limits.BASE_BDEVS.value)] | None = Field(
        None, description="Columns, 1 to 255; a mirrored column takes two drives; default: the whole pool."
    )
    chunk: f.Chunk = Field(DEFAULT_CHUNK_BYTES, description="Bytes a column takes in turn; default 64KiB.",
                           json_schema_extra={"default": "64KiB"})  # fmt: skip
    home: Literal["a", "b"] | None = Field(None, description="Node that serves it; default: the lighter one.")
    qos: QosSpec | None = Field(None, description="Upper bounds; default: none.")
    hosts: list[str] = Field(default=[], description="Names of the hosts that see it; default: nobody does.")
    read_only: bool = Field(default=False, description="Hosts mount it read-only (advisory); default false.")


class HostSpec(_Keys):
    """An initiator."""

    name: f.Name = Field(description="Name of the host.")
    nqn: f.Nqn = Field(description="Its host NQN (/etc/nvme/hostnqn).")
    secret_file: f.PathText | None = Field(None, description="File with its DH-HMAC-CHAP secret; default: none.")


class HaSpec(_Keys):
    """How the nodes stand in for each other."""

    policy: Literal["fast", "slow"] = Field("fast", description="Set of timeouts; default fast.")
    quorum_drives: f.Quorum = Field(5, description="Drives that vote: 3, 5 or 7; default 5.")
    secret_file: f.PathText = Field(
        DEFAULT_HA_SECRET, description="File with the secret of heartbeats; default ha.secret beside this file."
    )
    failback: bool = Field(default=False, description="Groups come home by themselves; default false.")
    power: Literal["off", "after-takeover"] = Field(
        "off", description="Power-cycle a node that was shut out and is silent; default off: never."
    )


class ClassSpec(_Keys):
    """One class of traffic."""

    name: f.Name = Field(description="Name of the class: roce, cnp.")
    dscp: Annotated[int, f.bounded(0, 63)] = Field(description="DSCP of its packets, 0 to 63.")
    priority: Annotated[int, f.bounded(0, 7)] = Field(description="802.1p priority it is mapped to, 0 to 7.")
    lossless: bool = Field(default=False, description="Priority flow control; default false.")
    strict: bool = Field(default=False, description="Goes before every share; default false.")
    share: f.Share | None = Field(None, description="Part of the link when it is full, as in 50%.")


class NetworkSpec(_Keys):
    """What the fabric should do."""

    profile: Literal["nvidia", "huawei", "sonic", "custom"] = Field(description="Class map of the switches.")
    mtu: Annotated[int, f.bounded(1280, 9216)] = Field(9000, description="Bytes a packet, 1280 to 9216.")
    cable: f.Metres = Field(5, description="Longest cable in metres, 1m to 10000m; default 5m.",
                            json_schema_extra={"default": "5m"})  # fmt: skip
    classes: list[ClassSpec] | None = Field(None, description="Classes; default: those of the profile.")


def _ha(value: object) -> object:
    if isinstance(value, str):
        if value == "none":
            return None
        remedy = nearest(value, ["none"]) or "write 'ha: none', or a mapping such as {policy: fast}"
        f.fail("ws_choice", f"{shown(value)} is not one of the words allowed", "ha is none or a mapping", remedy)
    return value


class ArraySpec(_Keys):
    """An array of one or two nodes, their drives, and what hosts see of them."""

    apiVersion: Literal["ws7000/v1"] = Field(description="Version of this format: ws7000/v1.")  # noqa: N815
    kind: Literal["Array"] = Field(description="Always Array.")
    name: f.Name = Field(description="Name of the array; part of its NQNs.")
    nodes: list[NodeSpec] = Field(description="One or two nodes.")
    shelf: ShelfSpec | None = Field(None, description="Where file drives are exported.")
    drives: list[DriveSpec] = Field(description="Drives, one entry each or by patterns.")
    pools: list[PoolSpec] = Field(default=[], description="Pools.")
    subsystems: list[SubsystemSpec] = Field(default=[], description="Subsystems (tenants) beside default.")
    hosts: list[HostSpec] = Field(default=[], description="Hosts that volumes may be shown to.")
    volumes: list[VolumeSpec] = Field(default=[], description="Volumes.")
    ha: Annotated[
        HaSpec | None, BeforeValidator(_ha, json_schema_input_type=Literal["none"] | HaSpec)
    ] = Field(description="none, or how the nodes stand in for each other.")  # fmt: skip
    network: NetworkSpec | None = Field(None, description="What the fabric should do; default: left alone.")
