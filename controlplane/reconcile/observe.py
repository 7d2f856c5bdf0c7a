"""What is there now, read afresh from a node's engine and joined into one ``NodeImage``.

SPDK spreads one truth over several methods: ``nvmf_get_subsystems`` knows no visibility of namespaces,
``framework_get_config`` knows no ANA state, ``nvmf_subsystem_get_listeners`` knows both addresses and states but
freezes the subsystem's admin queue for a moment.  So this module reads on demand, for one plan, and must never
be called on a timer.  A node that does not answer is ``Unknown``, never empty.

Reads are pipelined in two rounds: what is there, then the details of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.domain.desired import Qos, subsystem_nqn
from controlplane.domain.errors import Unreachable, Ws7000Error
from controlplane.domain.image import (
    VOLUME_PREFIX,
    AnaState,
    DriveImage,
    ListenerKey,
    NamespaceImage,
    NodeImage,
    RaidImage,
    Seen,
    SplitImage,
    SubsystemImage,
    Unknown,
    drive_bdev,
    slice_bdev,
)
from controlplane.domain.state import State
from controlplane.planner.allocate import DriveFacts
from dataplane.rpc import values as v
from dataplane.rpc.call import Call
from dataplane.rpc.errors import RpcError
from dataplane.rpc.methods import bdev, framework, keyring, nvme, nvmf, raid
from dataplane.rpc.session import Session

DEADLINE_S = 30.0
_ENODEV = -19


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A node as it is, and what its drives said of themselves."""

    seen: Seen
    facts: Mapping[str, DriveFacts] = field(default_factory=dict)


@dataclass(slots=True)
class _First:
    """Replies of the first round."""

    transports: tuple[v.TransportInfo, ...]
    subsystems: tuple[v.SubsystemInfo, ...]
    nvmf_config: tuple[v.ConfigEntry, ...]
    bdev_options: dict[str, Any]
    limits: Mapping[str, v.QosLimits]
    cuts: Mapping[str, v.SplitConfig]
    controllers: tuple[v.NvmeControllerInfo, ...]
    raids: tuple[v.RaidInfo, ...]
    keys: tuple[v.KeyInfo, ...]
    version: v.EngineVersion


def observe(session: Session, state: State, node: str) -> Observation:
    """Everything of this array on ``node``; an engine that cannot be reached gives ``Unknown``."""
    try:
        return _observe(session, state, node)
    except Unreachable as problem:
        return Observation(seen=Unknown(node=node, reason=f"{problem.what} ({problem.code})"))


def _observe(session: Session, state: State, node: str) -> Observation:
    first = _first_round(session)
    ours = _our_subsystems(state, first.subsystems)
    drives = [c.name for c in first.controllers if _is_our_drive(state, c.name)]
    cuts = {name: cut for name in drives if (cut := first.cuts.get(drive_bdev(name))) is not None}
    details = _details(session, state, ours, drives, cuts)
    facts: dict[str, DriveFacts] = {}
    images: dict[str, DriveImage] = {}
    splits: dict[str, SplitImage] = {}
    for controller in first.controllers:
        if controller.name not in drives:
            continue
        info = details.get(drive_bdev(controller.name))
        images[controller.name] = _drive(controller, info)
        if isinstance(info, v.BdevInfo):
            facts[controller.name] = _facts(info)
        if controller.name in cuts:
            splits[controller.name] = _split(state, controller.name, cuts[controller.name], details)
    sets = _our_sets(first.raids, set(drives))
    visibility = nvmf.subsystem_config(first.nvmf_config)
    subsystems = {
        info.nqn: _subsystem(info, visibility.get(info.nqn), details[f"listeners/{info.nqn}"]) for info in ours
    }
    foreign = [f"subsystem {s.nqn}" for s in first.subsystems if s.nqn not in subsystems]
    foreign += [f"drive {c.name}" for c in first.controllers if c.name not in images]
    foreign += [f"RAID set {r.name}" for r in first.raids if r.name not in sets]
    image = NodeImage(
        node=node,
        engine=first.version.text,
        drive_options=_options_hold(first.bdev_options),
        auto_examine=bool(first.bdev_options.get("bdev_set_options", {}).get("bdev_auto_examine", True)),
        transports=frozenset(t.trtype.lower() for t in first.transports),
        drives=images,
        splits=splits,
        raids=_raids(sets),
        qos=_limits(sets, first.limits),
        keys=frozenset(key.name for key in first.keys if key.name.startswith("host-") and not key.removed),
        subsystems=subsystems,
        unmanaged=tuple(sorted(foreign)),
    )
    return Observation(seen=image, facts=facts)


def _first_round(session: Session) -> _First:
    # The longest answers first: they are decoded while the engine still writes the others.
    sets, bdev_config, nvmf_config, subsystems, transports, controllers, keys, version = session.run_all(
        [
            raid.get_bdevs("all"),
            framework.get_config("bdev"),
            framework.get_config("nvmf"),
            nvmf.get_subsystems(),
            nvmf.get_transports(),
            nvme.get_controllers(),
            keyring.get_keys(),
            framework.get_version(),
        ],
        deadline_s=DEADLINE_S,
    )
    options = {
        entry.method: dict(entry.params)
        for entry in bdev_config
        if entry.method in ("bdev_nvme_set_options", "bdev_set_options")
    }
    return _First(
        transports=transports,
        subsystems=subsystems,
        nvmf_config=nvmf_config,
        bdev_options=options,
        limits=bdev.limits_in_config(bdev_config),
        cuts=bdev.splits_in_config(bdev_config),
        controllers=controllers,
        raids=sets,
        keys=keys,
        version=version,
    )


def _options_hold(options: Mapping[str, Any]) -> bool:
    """Whether the promises about durability and lost drives hold on this engine."""
    nvme_options = options.get("bdev_nvme_set_options", {})
    return bool(nvme_options.get("enable_flush")) and nvme_options.get("bdev_retry_count") == -1


def _our_subsystems(state: State, infos: tuple[v.SubsystemInfo, ...]) -> list[v.SubsystemInfo]:
    prefix = subsystem_nqn(state.array.name, "")
    named = {record.nqn for record in state.subsystems.values()} | {s.nqn for s in state.array.subsystems}
    return [info for info in infos if info.nqn in named or info.nqn.startswith(prefix)]


def _our_sets(raids: tuple[v.RaidInfo, ...], drives: set[str]) -> dict[str, v.RaidInfo]:
    """Sets of volumes that stand on our drives alone; a set that has lost every member still goes by its name."""
    named = {info.name: info for info in raids if info.name.startswith(VOLUME_PREFIX)}
    known: dict[str, bool] = {}

    def stands(info: v.RaidInfo) -> bool:
        if info.name not in known:
            known[info.name] = all(
                stands(named[base]) if base in named else not base or base.rpartition("n1p")[0] in drives
                for base in info.base_names
            )
        return known[info.name]

    return {name: info for name, info in named.items() if stands(info)}


def _is_our_drive(state: State, name: str) -> bool:
    return name in state.drives or any(drive.name == name for drive in state.array.drives)


def _details(
    session: Session,
    state: State,
    ours: list[v.SubsystemInfo],
    drives: list[str],
    cuts: Mapping[str, v.SplitConfig],
) -> dict[str, Any]:
    """Second round: one call each for drives, the slices that tell the cut, and listeners; none for a volume."""
    wanted: dict[str, Call[Any]] = {}
    for name in drives:
        wanted[drive_bdev(name)] = bdev.get_bdev(drive_bdev(name))
        record = state.drives.get(name)
        if record is not None and name in cuts:
            more = cuts[name].count > record.slice_count
            for index in (record.slice_count - 1, record.slice_count) if more else (record.slice_count - 1,):
                wanted[slice_bdev(name, index)] = bdev.get_bdev(slice_bdev(name, index))
    for subsystem in ours:
        wanted[f"listeners/{subsystem.nqn}"] = nvmf.get_listeners(subsystem.nqn)
    replies = session.pipeline(list(wanted.values()), deadline_s=DEADLINE_S) if wanted else []
    found: dict[str, Any] = {}
    for key, reply in zip(wanted, replies, strict=True):
        if isinstance(reply, RpcError) and reply.number == _ENODEV:
            continue
        if isinstance(reply, Ws7000Error):
            raise reply
        found[key] = reply
    return found


def _drive(controller: v.NvmeControllerInfo, info: v.BdevInfo | None) -> DriveImage:
    path = controller.paths[0]
    transport = path.transport
    if transport.trtype.upper() == "PCIE":
        source = f"pcie:{transport.traddr}"
    else:
        key = ListenerKey(transport.trtype.lower(), transport.traddr, int(transport.trsvcid))
        source = f"{key}/{transport.subnqn}"
    serial = info.nvme[0].serial_number.strip() if info is not None and info.nvme else ""
    size = info.num_blocks * info.block_size_bytes if info is not None else 0
    return DriveImage(
        name=controller.name,
        source=source,
        size_bytes=size,
        serial=serial,
        connected=path.state == "enabled",
    )


def _facts(info: v.BdevInfo) -> DriveFacts:
    return DriveFacts(
        size_bytes=info.num_blocks * info.block_size_bytes,
        block_bytes=info.block_size_bytes,
        serial=info.nvme[0].serial_number.strip() if info.nvme else "",
    )


def _split(state: State, name: str, cut: v.SplitConfig, details: Mapping[str, Any]) -> SplitImage:
    """The cut of a drive.  The engine tells how many slices it was asked for, and makes those that fit: so the last
    expected one has to be there, and where more were asked for, the one behind it must not.  A cut that is not the
    expected one counts 0 slices, which differs from any."""
    record = state.drives.get(name)
    last = details.get(slice_bdev(name, record.slice_count - 1)) if record is not None else None
    if record is None or last is None or slice_bdev(name, record.slice_count) in details:
        return SplitImage(drive=name, count=0, slice_bytes=cut.part_bytes)
    return SplitImage(drive=name, count=record.slice_count, slice_bytes=last.num_blocks * last.block_size_bytes)


def _raids(sets: Mapping[str, v.RaidInfo]) -> dict[str, RaidImage]:
    depth: dict[str, int] = {}

    def depth_of(info: v.RaidInfo) -> int:
        if info.name not in depth:
            inner = [depth_of(sets[base]) for base in info.base_names if base in sets]
            depth[info.name] = 1 + max(inner) if inner else 0
        return depth[info.name]

    return {
        name: RaidImage(
            name=name,
            level=info.level,
            uuid=info.uuid,
            strip_bytes=info.strip_size_bytes,
            # A set that is not online serves nobody: it never equals a wanted one, and is built anew.
            members=tuple([base.name if base.configured else "" for base in info.bases])
            if info.state == "online"
            else (),
            depth=depth_of(info),
        )
        for name, info in sets.items()
    }


def _limits(sets: Mapping[str, v.RaidInfo], limits: Mapping[str, v.QosLimits]) -> dict[str, Qos]:
    """Limits of the sets that namespaces export; the inner ones of a volume have none of their own."""
    return {
        name: Qos(
            rw_iops=found.rw_ios_per_s or None,
            rw_bytes_per_s=found.rw_bytes_per_s or None,
            read_bytes_per_s=found.r_bytes_per_s or None,
            write_bytes_per_s=found.w_bytes_per_s or None,
        )
        for name, found in limits.items()
        if name in sets and "." not in name and sets[name].state == "online"
    }


def _subsystem(
    info: v.SubsystemInfo, config: v.SubsystemConfig | None, listeners: tuple[v.ListenerInfo, ...]
) -> SubsystemImage:
    visible = config.namespaces if config is not None else {}
    return SubsystemImage(
        nqn=info.nqn,
        serial=info.serial_number,
        model=info.model_number,
        max_namespaces=info.max_namespaces,
        min_cntlid=info.min_cntlid,
        max_cntlid=info.max_cntlid,
        allow_any_host=info.allow_any_host,
        hosts={host.nqn: host.dhchap_key for host in info.hosts},
        listeners={
            ListenerKey(x.address.trtype.lower(), x.address.traddr, int(x.address.trsvcid)): {
                group: AnaState(state) for group, state in x.ana_states.items()
            }
            for x in listeners
        },
        namespaces={
            ns.nsid: NamespaceImage(
                nsid=ns.nsid,
                bdev=ns.bdev_name,
                nguid=ns.nguid.lower(),
                uuid=ns.uuid,
                group=ns.ana_group,
                hosts=visible[ns.nsid].hosts if ns.nsid in visible else frozenset(),
            )
            for ns in info.namespaces
        },
    )
