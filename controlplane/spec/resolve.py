"""From what was typed to what it means: ``ArraySpec`` to ``domain.desired.Array``.

Shorthand is opened and defaults are filled in here and nowhere else.  With problems in the report the result
must not be used: it was built only so that later checks had something to look at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from controlplane.domain.desired import (
    DEFAULT_SUBSYSTEM,
    Array,
    Bmc,
    Drive,
    FileDrive,
    HaIntent,
    HaMode,
    HaPolicy,
    Host,
    NetworkIntent,
    Node,
    Pool,
    Port,
    PowerPolicy,
    Protection,
    Qos,
    Shelf,
    Subsystem,
    Takeover,
    TrafficClass,
    Volume,
    family_of,
    subsystem_nqn,
)
from controlplane.domain.names import is_socket_path
from controlplane.spec import checks, checks_ha, limits
from controlplane.spec.drives import open_drives
from controlplane.spec.model import (
    ArraySpec,
    BmcSpec,
    HaSpec,
    HostSpec,
    NetworkSpec,
    NodeSpec,
    PoolSpec,
    ShelfSpec,
    VolumeSpec,
)
from controlplane.spec.patterns import PatternError, expand
from controlplane.spec.problems import shown
from controlplane.spec.report import Report
from controlplane.spec.yaml_source import Path

PROFILES: Final[dict[Literal["nvidia", "huawei", "sonic"], tuple[TrafficClass, ...]]] = {
    # NVIDIA Cumulus and Onyx "roce lossless": trust DSCP, RoCE 26 -> 3, CNP 48 -> 6 strict.
    "nvidia": (
        TrafficClass(name="roce", dscp=26, priority=3, lossless=True, share_percent=50),
        TrafficClass(name="cnp", dscp=48, priority=6, strict=True),
    ),
    # Huawei CloudEngine storage guide (EDOC1100155250): RoCE 24 -> 4 with 65 %, CNP 25 -> 6.
    "huawei": (
        TrafficClass(name="roce", dscp=24, priority=4, lossless=True, share_percent=65),
        TrafficClass(name="cnp", dscp=25, priority=6, strict=True),
    ),
    # SONiC's qos_config.j2 is lossless for DSCP 3 and 4 only; 26 would be a lossy class there.
    "sonic": (
        TrafficClass(name="roce", dscp=3, priority=3, lossless=True, share_percent=50),
        TrafficClass(name="cnp", dscp=48, priority=6, strict=True),
    ),
}


def resolve(spec: ArraySpec, report: Report) -> Array:
    """The array that a spec means; everything that speaks against it is in the report."""
    checks.nodes(spec, report)
    opened = open_drives(spec, report)
    if not opened and report.whole("drives"):
        report.problem(
            "SPEC-004", ("drives",), "the array has no drive", "there is nothing to store on",
            'add one, as in - {file: "drives/d{00..23}.img", size: 256MiB}',
        )  # fmt: skip
    drives = {drive.name: drive for _, drive in opened}
    paths = {drive.name: path for path, drive in reversed(opened)}
    array = Array(
        name=spec.name,
        nodes=tuple(_node(node, report, agents=spec.ha is not None) for node in spec.nodes),
        drives=tuple(drive for _, drive in opened),
        pools=_pools(spec, drives, report),
        subsystems=_subsystems(spec, report),
        volumes=(),
        hosts=_hosts(spec, report),
        ha=HaMode.NONE if spec.ha is None else HaMode.ACTIVE_ACTIVE,
        network=None if spec.network is None else _network(spec.network, report),
        shelf=_shelf(spec, [drive for _, drive in opened], report),
        ha_intent=None if spec.ha is None else _ha(spec.ha, report),
    )  # fmt: skip
    array = replace(array, volumes=_volumes(spec, array, report))
    checks.counts(array, report)
    checks.unused_drives(array, paths, report)
    checks_ha.high_availability(array, spec, report)
    return array


def _ha(ha: HaSpec, report: Report) -> HaIntent:
    return HaIntent(
        policy=HaPolicy(ha.policy),
        quorum_drives=ha.quorum_drives,
        secret_file=report.absolute(ha.secret_file),
        failback=ha.failback,
        power=PowerPolicy(ha.power),
    )


def _node(node: NodeSpec, report: Report, *, agents: bool) -> Node:
    given = node.agent or (checks_ha.agent_beside(node.rpc) if agents else "")
    return Node(
        name=node.name,
        rpc=report.absolute(node.rpc) if is_socket_path(node.rpc) else node.rpc,
        ports=tuple(
            Port(
                transport=p.transport,
                address=p.address,
                service=p.service,
                family=family_of(p.address),
                takeover=None if p.takeover is None else Takeover(
                    interface=p.takeover.interface, prefix=p.takeover.prefix
                ),
            )
            for p in node.ports
        ),
        cores=tuple(node.cores),
        agent=report.absolute(given) if given else "",
        heartbeat=node.heartbeat,
        heartbeat_addresses=tuple(node.heartbeat_addresses),
        bmc=None if node.bmc is None else _bmc(node.bmc, report),
    )  # fmt: skip


def _bmc(bmc: BmcSpec, report: Report) -> Bmc:
    return Bmc(
        user=bmc.user,
        password_file=report.absolute(bmc.password_file),
        redfish=bmc.redfish or "",
        ipmi=bmc.ipmi or "",
        verify=bmc.verify,
        ca_file=None if bmc.ca_file is None else report.absolute(bmc.ca_file),
    )


def _pools(spec: ArraySpec, drives: dict[str, Drive], report: Report) -> tuple[Pool, ...]:
    checks.unique_names("pools", "pool", [pool.name for pool in spec.pools], report)
    found = []
    owners: dict[str, int] = {}
    for index, pool in enumerate(spec.pools):
        path: Path = ("pools", index)
        members = _members(pool, path, drives, report)
        for number, name in members:
            _one_pool(name, number, index, spec, owners, report)
        value = Pool(
            name=pool.name,
            drives=tuple(dict.fromkeys(name for _, name in members)),
            protection=Protection(pool.protection),
            slices_per_drive=pool.slices_per_drive,
            slice_bytes=pool.slice_size,
        )
        checks.pool(value, path, drives, report)
        found.append(value)
    return tuple(found)


def _one_pool(name: str, number: int, pool: int, spec: ArraySpec, owners: dict[str, int], report: Report) -> None:
    """Report a drive that an earlier entry has already taken."""
    if name in owners:
        first = owners[name]
        twice = f"twice in pool {spec.pools[pool].name}"
        both = f"in pool {spec.pools[first].name} and in pool {spec.pools[pool].name}"
        report.problem(
            "SPEC-032", ("pools", pool, "drives", number), f"drive {name} is {twice if first == pool else both}",
            "the slices of a drive belong to one pool, once", "take it out of one of the two places",
        )  # fmt: skip
    owners.setdefault(name, pool)


def _members(pool: PoolSpec, path: Path, drives: dict[str, Drive], report: Report) -> list[tuple[int, str]]:
    """The drives of a pool, each with the index of the entry that names it."""
    if pool.drives == ["all"]:
        return [(0, name) for name in drives]
    members: list[tuple[int, str]] = []
    looked_at = 0
    for number, text in enumerate(pool.drives):
        where: Path = (*path, "drives", number)
        try:
            names = expand(text)
        except PatternError as error:
            report.problem("SPEC-017", where, f"{shown(text)} is no pattern", str(error), 'write it as in "d{00..11}"')
            continue
        members += [
            (number, name) for name in names if checks.reference("drives", "drive", name, drives, where, report)
        ]
        looked_at += len(names)
        if looked_at > 2 * limits.DRIVES.value:
            # Every drive was named twice by now, or names without a drive: enough was reported.
            break
    return members


def _subsystems(spec: ArraySpec, report: Report) -> tuple[Subsystem, ...]:
    checks.unique_names("subsystems", "subsystem", [each.name for each in spec.subsystems], report)
    found = [Subsystem(name=each.name, nqn=each.nqn or subsystem_nqn(spec.name, each.name)) for each in spec.subsystems]
    _unique_nqns("subsystems", [each.nqn for each in found], report)
    known = {each.name for each in found}
    if DEFAULT_SUBSYSTEM not in known and any(each.subsystem == DEFAULT_SUBSYSTEM for each in spec.volumes):
        found.append(Subsystem(name=DEFAULT_SUBSYSTEM, nqn=subsystem_nqn(spec.name, DEFAULT_SUBSYSTEM)))
    return tuple(found)


def _unique_nqns(kind: str, nqns: list[str], report: Report) -> None:
    first: dict[str, int] = {}
    for index, nqn in enumerate(nqns):
        if nqn in first:
            report.problem(
                "SPEC-043", (kind, index, "nqn"), f"the NQN {shown(nqn)} is given twice",
                f"line {report.line((kind, first[nqn]))} has it already, and an NQN names one thing in the world",
                "give each its own; two machines cloned from one image share a host NQN: nvme gen-hostnqn",
            )  # fmt: skip
        first.setdefault(nqn, index)


def _hosts(spec: ArraySpec, report: Report) -> tuple[Host, ...]:
    checks.unique_names("hosts", "host", [host.name for host in spec.hosts], report)
    _unique_nqns("hosts", [host.nqn for host in spec.hosts], report)
    return tuple(_host(host, report) for host in spec.hosts)


def _host(host: HostSpec, report: Report) -> Host:
    secret = None if host.secret_file is None else report.absolute(host.secret_file)
    return Host(name=host.name, nqn=host.nqn, secret_file=secret)


def _shelf(spec: ArraySpec, drives: list[Drive], report: Report) -> Shelf | None:
    files = any(isinstance(drive.source, FileDrive) for drive in drives)
    given = spec.shelf
    if given is not None and not files and report.whole("drives"):
        report.warn(
            "SPEC-065", ("shelf",), "the shelf has nothing to export", "no drive of this file is given as a file",
            "remove the shelf; drives behind a real shelf are given with nvmeof",
        )  # fmt: skip
    if given is None and files:
        given = ShelfSpec()
    return None if given is None else Shelf(address=given.address, service=given.service)


def _volumes(spec: ArraySpec, array: Array, report: Report) -> tuple[Volume, ...]:
    checks.unique_names("volumes", "volume", [volume.name for volume in spec.volumes], report)
    pools = {pool.name: None for pool in array.pools}
    subsystems = {each.name: None for each in array.subsystems}
    hosts = {host.name: None for host in array.hosts}
    nodes = {node.name: None for node in array.nodes}
    found = []
    for index, volume in enumerate(spec.volumes):
        path: Path = ("volumes", index)
        checks.reference("pools", "pool", volume.pool, pools, (*path, "pool"), report)
        checks.reference("subsystems", "subsystem", volume.subsystem, subsystems, (*path, "subsystem"), report)
        if volume.home is not None:
            checks.reference("nodes", "node", volume.home, nodes, (*path, "home"), report)
        for number, name in enumerate(volume.hosts):
            where: Path = (*path, "hosts", number)
            checks.reference("hosts", "host", name, hosts, where, report)
            if name in volume.hosts[:number]:
                report.problem(
                    "SPEC-030", where, f"the host {shown(name)} is named twice", "once is enough", "remove one of them"
                )
        value = _volume(volume)
        checks.volume(value, path, array, report)
        found.append(value)
    return tuple(found)


def _volume(volume: VolumeSpec) -> Volume:
    qos = Qos()
    if volume.qos is not None:
        qos = Qos(
            rw_iops=volume.qos.iops,
            rw_bytes_per_s=volume.qos.rate,
            read_bytes_per_s=volume.qos.read_rate,
            write_bytes_per_s=volume.qos.write_rate,
        )
    return Volume(
        name=volume.name,
        size_bytes=volume.size,
        pool=volume.pool,
        subsystem=volume.subsystem,
        stripe_width=volume.stripe,
        chunk_bytes=volume.chunk,
        home=volume.home,
        qos=qos,
        hosts=tuple(volume.hosts),
        read_only=volume.read_only,
    )


def _network(network: NetworkSpec, report: Report) -> NetworkIntent:
    classes: tuple[TrafficClass, ...] = ()
    if network.classes is not None:
        classes = tuple(
            TrafficClass(
                name=each.name,
                dscp=each.dscp,
                priority=each.priority,
                lossless=each.lossless,
                strict=each.strict,
                share_percent=each.share,
            )
            for each in network.classes
        )
        checks.traffic(classes, report)
    elif network.profile == "custom":
        report.problem(
            "SPEC-004", ("network",), "network has no key 'classes'", "the profile custom brings none of its own",
            "add classes, or name the switches: nvidia, huawei, sonic",
        )  # fmt: skip
    else:
        classes = PROFILES[network.profile]
    return NetworkIntent(profile=network.profile, mtu=network.mtu, cable_m=network.cable, classes=classes)
