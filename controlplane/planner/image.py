"""The image each node is to have, rendered from the state.

Both nodes get the same stack, built from the same map with the same UUIDs, so that a takeover moves no
metadata; they differ only in their listeners, their CNTLID range and the ANA state of each group.  A volume
that still has unscrubbed slices gets its stack but no namespace: nobody may read what was there before.
Where agents say which node serves what (high availability), no ANA state is wanted of a listener.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from controlplane.domain.desired import (
    Drive,
    FabricsDrive,
    FileDrive,
    Node,
    PcieDrive,
    Protection,
    Shelf,
    shelf_nqn,
)
from controlplane.domain.image import (
    AnaState,
    DriveImage,
    ListenerKey,
    NamespaceImage,
    NodeImage,
    RaidImage,
    SplitImage,
    SubsystemImage,
    mirror_bdev,
    slice_bdev,
    volume_bdev,
)
from controlplane.domain.state import HOME_OF_GROUP, State, SubsystemRecord, VolumeRecord, derived_uuid
from controlplane.planner.cut import MAX_NAMESPACES

MODEL: Final = "WS7000"
CNTLIDS: Final = {"a": (1, 32759), "b": (32760, 65519)}
"""Disjoint halves of 1..FFEFh, so that a host never sees one CNTLID twice in a subsystem."""
MAX_RAID_MEMBERS: Final = 255
"""SPDK counts base bdevs in a uint8_t (module/bdev/raid/bdev_raid.h); larger volumes are nested."""


def source_text(array_name: str, shelf: Shelf | None, drive: Drive) -> str:
    """What a drive is attached by, in one comparable line."""
    match drive.source:
        case PcieDrive(address=address):
            return f"pcie:{address}"
        case FabricsDrive() as fabrics:
            key = ListenerKey(fabrics.transport, fabrics.address, fabrics.service)
            return f"{key}/{fabrics.nqn}"
        case FileDrive():
            assert shelf is not None, "the resolver gives every file drive a shelf"
            key = ListenerKey("tcp", shelf.address, shelf.service)
            return f"{key}/{shelf_nqn(array_name, drive.name)}"


def key_name(host: str) -> str:
    """The name of a host's DH-HMAC-CHAP key in the keyring."""
    return f"host-{host}"


def wanted_raids(state: State) -> dict[str, RaidImage]:
    """The RAID sets of every volume, by name: the same on each node."""
    return {raid.name: raid for volume in state.volumes.values() for raid in volume_stack(volume)}


def wanted_images(state: State) -> dict[str, NodeImage]:
    """What each node is to have, by its name; what they share is rendered once for all of them."""
    raids, namespaces = wanted_raids(state), _namespaces(state)
    return {node.name: _wanted(state, node, raids, namespaces) for node in state.array.nodes}


def wanted_image(state: State, node: Node) -> NodeImage:
    """Everything ``node`` is to have for ``state``."""
    return _wanted(state, node, wanted_raids(state), _namespaces(state))


def _wanted(
    state: State, node: Node, raids: Mapping[str, RaidImage], namespaces: Mapping[str, Mapping[int, NamespaceImage]]
) -> NodeImage:
    return NodeImage(
        node=node.name,
        drive_options=True,
        transports=frozenset(port.transport for port in node.ports),
        drives={drive.name: _drive(state, drive) for drive in state.array.drives},
        splits={
            drive.name: SplitImage(drive=drive.name, count=drive.slice_count, slice_bytes=drive.slice_bytes)
            for drive in state.drives.values()
        },
        raids=raids,
        qos={volume_bdev(v.name): v.qos for v in state.volumes.values() if not v.qos.unlimited},
        agents=state.array.active_active,
        keys=frozenset(key_name(host.name) for host in state.array.hosts if host.secret_file),
        subsystems={
            record.nqn: _subsystem(state, node, record, namespaces.get(record.name, {}))
            for record in state.subsystems.values()
        },
    )


def _drive(state: State, drive: Drive) -> DriveImage:
    record = state.drives.get(drive.name)
    return DriveImage(
        name=drive.name,
        source=source_text(state.array.name, state.array.shelf, drive),
        size_bytes=record.size_bytes if record else 0,
        serial=record.serial if record else drive.serial or "",
    )


def volume_stack(volume: VolumeRecord) -> Iterator[RaidImage]:
    """The RAID sets of a volume, inner ones first; the last is the bdev that is exported.

    Pieces are mirrored pairs or bare slices; up to 255 pieces are striped by one raid0, more by several that a
    concat joins (concat, since it allows members of different length)."""
    top = volume_bdev(volume.name)
    depth = 0
    if volume.protection is Protection.MIRROR:
        pieces = [mirror_bdev(volume.name, i) for i in range(len(volume.rows))]
        for name, row in zip(pieces, volume.rows, strict=True):
            legs = tuple(slice_bdev(ref.drive, ref.index) for ref in row)
            yield _raid(volume, name, "raid1", legs, depth)
        depth += 1
    else:
        pieces = [slice_bdev(row[0].drive, row[0].index) for row in volume.rows]
    if len(pieces) <= MAX_RAID_MEMBERS:
        yield _raid(volume, top, "raid0", tuple(pieces), depth)
        return
    parts = [pieces[i : i + MAX_RAID_MEMBERS] for i in range(0, len(pieces), MAX_RAID_MEMBERS)]
    names = [f"{top}.s{i}" for i in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        yield _raid(volume, name, "raid0", tuple(part), depth)
    yield _raid(volume, top, "concat", tuple(names), depth + 1)


def _raid(volume: VolumeRecord, name: str, level: str, members: tuple[str, ...], depth: int) -> RaidImage:
    top = volume_bdev(volume.name)
    return RaidImage(
        name=name,
        level=level,
        uuid=volume.uuid if name == top else derived_uuid(volume.uuid, name),
        strip_bytes=0 if level == "raid1" else volume.chunk_bytes,
        members=members,
        depth=depth,
    )


def _namespaces(state: State) -> dict[str, dict[int, NamespaceImage]]:
    """The namespaces of every subsystem, by its name: the same on each node."""
    nqn_of = {host.name: host.nqn for host in state.array.hosts}
    found: dict[str, dict[int, NamespaceImage]] = {}
    for volume in state.volumes.values():
        if not volume.unscrubbed:
            found.setdefault(volume.subsystem, {})[volume.nsid] = NamespaceImage(
                nsid=volume.nsid,
                bdev=volume_bdev(volume.name),
                nguid=volume.nguid,
                uuid=volume.uuid,
                group=volume.group,
                hosts=frozenset([nqn_of[name] for name in volume.hosts]),
            )
    return found


def _subsystem(
    state: State, node: Node, record: SubsystemRecord, namespaces: Mapping[int, NamespaceImage]
) -> SubsystemImage:
    nqn_of = {host.name: host.nqn for host in state.array.hosts}
    key_of = {host.name: key_name(host.name) if host.secret_file else "" for host in state.array.hosts}
    named = sorted({name for v in state.volumes.values() if v.subsystem == record.name for name in v.hosts})
    groups = {} if state.array.active_active else {
        group: AnaState.OPTIMIZED if state.owner(record.name, group) == node.name else AnaState.INACCESSIBLE
        for group in HOME_OF_GROUP
    }  # fmt: skip
    low, high = CNTLIDS[node.name]
    return SubsystemImage(
        nqn=record.nqn,
        serial=record.serial,
        model=MODEL,
        max_namespaces=MAX_NAMESPACES,
        min_cntlid=low,
        max_cntlid=high,
        hosts={nqn_of[name]: key_of[name] for name in named},
        listeners={ListenerKey(port.transport, port.address, port.service): groups for port in node.ports},
        namespaces=namespaces,
    )
