"""Checks that need more than one value: references, counts, addresses, protection, high availability.

Each function looks at one subject and reports everything it finds; none stops at the first.  Counting checks
hold their tongue while the section they count has refused entries (``report.whole``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from ipaddress import ip_address

from controlplane.domain import names
from controlplane.domain.desired import (
    Array,
    Drive,
    FileDrive,
    Pool,
    Protection,
    TrafficClass,
    Volume,
)
from controlplane.domain.units import show_size
from controlplane.spec import limits
from controlplane.spec.model import ArraySpec, ShelfSpec
from controlplane.spec.problems import shown
from controlplane.spec.report import Report
from controlplane.spec.yaml_source import Path


def unique_names(kind: str, word: str, titles: Sequence[str], report: Report) -> None:
    """No two entries of a section have one name."""
    first: dict[str, int] = {}
    for index, name in enumerate(titles):
        if name in first:
            report.problem(
                "SPEC-030", (kind, index, "name"), f"the {word} {name!r} is given twice",
                f"it stands already in line {report.line((kind, first[name]))}", "rename or remove one of the two",
            )  # fmt: skip
        first.setdefault(name, index)


def reference(kind: str, word: str, name: str, known: Collection[str], path: Path, report: Report) -> bool:
    """True if ``name`` exists; reports it otherwise, unless a refused entry may have defined it."""
    if name in known:
        return True
    if not report.forgiven(kind, name):
        existing = list(known)
        few = ", ".join(existing[:8]) + (", ..." if len(existing) > 8 else "")
        report.problem(
            "SPEC-031", path, f"there is no {word} {shown(name)}",
            f"the file defines: {few}" if existing else f"the file defines no {kind}",
            report.guess(name, existing) or f"define the {word}, or use one that exists",
        )  # fmt: skip
    return False


def nodes(spec: ArraySpec, report: Report) -> None:
    """One or two nodes, each reachable at addresses that nobody else has."""
    unique_names("nodes", "node", [node.name for node in spec.nodes], report)
    if not spec.nodes and report.whole("nodes"):
        report.problem(
            "SPEC-004",
            ("nodes",),
            "the array has no node",
            "a node is what serves the drives to the hosts",
            "add node a",
        )
    if len(spec.nodes) > limits.NODES.value:
        report.problem(
            "SPEC-041", ("nodes", 2), f"{len(spec.nodes)} nodes are more than {limits.NODES.value}",
            limits.NODES.source, "keep a and b",
        )  # fmt: skip
    taken: dict[object, Path] = {}
    for index, node in enumerate(spec.nodes):
        _rpc(node.rpc, ("nodes", index, "rpc"), taken, report)
        if not node.ports:
            report.problem(
                "SPEC-012", ("nodes", index, "ports"), f"node {node.name} has no data port",
                "hosts could not reach it", "add one, as in - {transport: tcp, address: 127.0.0.1}",
            )  # fmt: skip
        most = limits.LISTENERS_PER_SUBSYSTEM
        if len(node.ports) > most.value:
            report.problem(
                "SPEC-041", ("nodes", index, "ports", most.value),
                f"node {node.name} has {len(node.ports)} data ports, more than {most.value}",
                f"every port is a listener of every subsystem ({most.source})", f"keep {most.value}",
            )  # fmt: skip
        for number, port in enumerate(node.ports):
            key = (port.address, port.service)
            _address(key, ("nodes", index, "ports", number), taken, report)
    # Drives that are files have a shelf even if the file gives none; then its default port is taken too.
    if spec.shelf is not None or any(entry.file for entry in spec.drives):
        shelf = spec.shelf or ShelfSpec()
        _address((shelf.address, shelf.service), ("drives" if spec.shelf is None else "shelf",), taken, report)


def _rpc(rpc: str, path: Path, taken: dict[object, Path], report: Report) -> None:
    key: object = rpc
    if names.is_socket_path(rpc):
        full = report.absolute(rpc)
        key = full
        if len(full.encode("utf-8", "replace")) > names.SOCKET_PATH_MAX:
            report.problem(
                "SPEC-019", path, f"the full path {shown(full)} is too long for a UNIX socket",
                f"the kernel takes at most {names.SOCKET_PATH_MAX} bytes (unix(7))",
                "give a short absolute path, as in /run/ws7000/a.sock",
            )  # fmt: skip
    else:
        host, port = names.split_host_port(rpc)
        key = (host, port)
        if not _is_loopback(host):
            report.warn(
                "SPEC-063", path, f"the engine's JSON-RPC is reached over the network at {rpc}",
                "it has neither authentication nor encryption: who reaches it owns the array",
                "use the path of a UNIX socket, or a separate management network",
            )  # fmt: skip
    _address(key, path, taken, report)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(key: object, path: Path, taken: dict[object, Path], report: Report) -> None:
    if key in taken:
        words = f"{key[0]} port {key[1]}" if isinstance(key, tuple) else str(key)
        report.problem(
            "SPEC-034", path, f"{words} is given twice",
            f"line {report.line(taken[key])} has it already, and only one process can listen there",
            "give each its own address or port",
        )  # fmt: skip
    taken.setdefault(key, path)


def pool(pool_value: Pool, path: Path, drives: dict[str, Drive], report: Report) -> None:
    """Slices that fit, and drives enough (and apart enough) for the protection."""
    if pool_value.slices_per_drive is not None and pool_value.slice_bytes is not None:
        report.problem(
            "SPEC-042", (*path, "slice_size"), f"pool {pool_value.name} has slices_per_drive and slice_size",
            "each of the two follows from the other", "keep one of them, or neither",
        )  # fmt: skip
    for name in pool_value.drives:
        source = drives[name].source if name in drives else None
        if isinstance(source, FileDrive) and not _slices_fit(pool_value, name, source, path, report):
            break
    if report.whole("drives"):
        _placement(pool_value, path, drives, report)


def _slices_fit(value: Pool, drive: str, source: FileDrive, path: Path, report: Report) -> bool:
    slice_bytes = value.slice_bytes or limits.SLICE_STEP_BYTES.value
    count = source.size_bytes // slice_bytes
    if count < 2:
        report.problem(
            "SPEC-042", path, f"drive {drive} ({show_size(source.size_bytes)}) is too small for pool {value.name}",
            f"slice 0 is the array's own, and at least one more of {show_size(slice_bytes)} must fit",
            f"make the files at least {show_size(2 * slice_bytes)}, better 64MiB",
        )  # fmt: skip
        return False
    if value.slice_bytes and count > limits.SLICES_PER_DRIVE.value:
        report.warn(
            "SPEC-064", (*path, "slice_size"),
            f"only {show_size(limits.SLICES_PER_DRIVE.value * slice_bytes)} of drive {drive} will be used",
            f"a drive has at most {limits.SLICES_PER_DRIVE.value} slices ({limits.SLICES_PER_DRIVE.source})",
            "use larger slices",
        )  # fmt: skip
        return False
    return True


def _placement(value: Pool, path: Path, drives: dict[str, Drive], report: Report) -> None:
    count = len(value.drives)
    if not count:
        report.problem(
            "SPEC-012", (*path, "drives"), f"pool {value.name} has no drive", "there is nothing to cut volumes from",
            "name its drives, or write all",
        )  # fmt: skip
        return
    if value.protection is not Protection.MIRROR:
        return
    if count < 2:
        report.problem(
            "SPEC-035", (*path, "drives"), f"pool {value.name} mirrors, but has one drive",
            "the two copies of a slice must lie on two drives", "add a drive, or write 'protection: none'",
        )  # fmt: skip
        return
    domains = Counter(drives[name].failure_domain or f"drive {name}" for name in value.drives if name in drives)
    domain, most = max(domains.items(), key=lambda item: item[1], default=("", 0))
    if 2 * most > count:
        report.problem(
            "SPEC-035", (*path, "drives"), f"pool {value.name} cannot mirror evenly: {most} of {count} drives are in "
            f"failure domain {domain}",
            "the two copies of a slice must lie in two failure domains, so none may hold more than half of the drives",
            "balance the failure domains of the pool's drives",
        )  # fmt: skip


def volume(value: Volume, path: Path, array: Array, report: Report) -> None:
    """A volume against its pool, and what is odd about it."""
    found = next((each for each in array.pools if each.name == value.pool), None)
    if found is not None:
        _stripe(value, found, path, report)
        if found.slice_bytes is not None and value.size_bytes < found.slice_bytes:
            report.problem(
                "SPEC-038", (*path, "size"),
                f"volume {value.name} ({show_size(value.size_bytes)}) is smaller than a slice",
                f"volumes are whole slices, and those of pool {found.name} have {show_size(found.slice_bytes)}",
                f"use at least {show_size(found.slice_bytes)}, or smaller slices",
            )  # fmt: skip
    if not value.hosts and report.whole("hosts"):
        report.warn(
            "SPEC-060", path, f"volume {value.name} is visible to no host", "it names none under hosts",
            "add 'hosts: [NAME]' when a host is to use it",
        )  # fmt: skip
    if value.read_only:
        report.warn(
            "SPEC-061", (*path, "read_only"), f"volume {value.name} is read-only by agreement only",
            "the engine has no write protection per host: it is the host that mounts it read-only",
            "keep hosts that must not write out of its list",
        )  # fmt: skip


def _stripe(value: Volume, found: Pool, path: Path, report: Report) -> None:
    if value.stripe_width is None or not report.whole("drives", "pools"):
        return
    legs = 2 if found.protection is Protection.MIRROR else 1
    need = value.stripe_width * legs
    if need > len(found.drives):
        each = "two drives (a mirrored pair)" if legs == 2 else "one drive"
        report.problem(
            "SPEC-036", (*path, "stripe"),
            f"volume {value.name} stripes over {value.stripe_width} columns, "
            f"pool {found.name} has {len(found.drives)} drives",
            f"each column takes {each}, so {need} are needed",
            f"use a stripe of at most {len(found.drives) // legs}, or leave it out",
        )  # fmt: skip


def counts(array: Array, report: Report) -> None:
    """What one engine can hold."""
    # The discovery subsystem takes one of the engine's places.
    most = limits.SUBSYSTEMS.value - 1
    if len(array.subsystems) > most:
        report.problem(
            "SPEC-041", ("subsystems",), f"{len(array.subsystems)} subsystems are more than {most}",
            limits.SUBSYSTEMS.source, "put several volumes into one subsystem",
        )  # fmt: skip
    spaces = limits.NAMESPACES_PER_SUBSYSTEM
    held = Counter(each.subsystem for each in array.volumes)
    for name, count in held.items():
        if count > spaces.value:
            report.problem(
                "SPEC-041", ("volumes",), f"subsystem {name} has {count} volumes, more than {spaces.value}",
                spaces.source, "divide them among several subsystems",
            )  # fmt: skip


def unused_drives(array: Array, paths: dict[str, Path], report: Report) -> None:
    """Drives that no pool uses: spares, or a forgotten line."""
    if not report.whole("drives", "pools"):
        return
    used = {name for each in array.pools for name in each.drives}
    spare = [drive.name for drive in array.drives if drive.name not in used]
    if spare:
        few = ", ".join(spare[:8]) + (", ..." if len(spare) > 8 else "")
        report.warn(
            "SPEC-062", paths[spare[0]], f"in no pool: {few}", "drives outside of pools hold no data",
            "add them to a pool, unless they are spares",
        )  # fmt: skip


def traffic(classes: Sequence[TrafficClass], report: Report) -> None:
    """Classes of traffic that do not contradict each other."""
    seen: dict[tuple[str, object], int] = {}
    for index, each in enumerate(classes):
        path: Path = ("network", "classes", index)
        for key, value in (("name", each.name), ("dscp", each.dscp), ("priority", each.priority)):
            if (key, value) in seen:
                first = report.line(("network", "classes", seen[key, value]))
                report.problem(
                    "SPEC-045", (*path, key), f"{key} {value} is given to two classes", f"line {first} has it already",
                    f"give each class its own {key}",
                )  # fmt: skip
            seen.setdefault((key, value), index)
        if each.strict and each.share_percent is not None:
            report.problem(
                "SPEC-045", (*path, "share"), f"class {each.name} is strict and has a share",
                "strict traffic goes before every share", "remove one of the two",
            )  # fmt: skip
    total = sum(each.share_percent or 0 for each in classes)
    if total > 100:
        report.problem(
            "SPEC-045", ("network", "classes"), f"the shares add up to {total}%", "a link has 100%", "lower the shares"
        )
