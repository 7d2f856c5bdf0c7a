"""The objects of the array as items: what ``list`` and ``show`` write, for people and for programs.

An item is a JSON value whose keys carry their units; the columns say how it shows in a table.  Pure functions
over one ``View``, so that a list is as true as the look it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cli.output import Column, Item
from cli.plan_lines import ranges
from controlplane.domain.desired import Volume
from controlplane.domain.image import NodeImage
from controlplane.domain.state import GROUP_OF_HOME, State, VolumeRecord
from controlplane.domain.units import show_size
from controlplane.planner.diff_bdevs import qos_text
from controlplane.planner.image import source_text
from controlplane.reconcile import status
from controlplane.reconcile.reconciler import View


def text(key: str) -> Callable[[Item], str]:
    """Shows ``item[key]``; lists with commas, nothing as ``-``."""

    def show(item: Item) -> str:
        value = item[key]
        if value is None or value == "" or value == []:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)

    return show


def many(key: str) -> Callable[[Item], str]:
    """Shows the names in ``item[key]`` as ranges."""
    return lambda item: ranges(item[key]) or "-"


def size(key: str) -> Callable[[Item], str]:
    """Shows ``item[key]`` bytes."""
    return lambda item: "-" if item[key] is None else show_size(item[key])


def by_node(item: Item) -> str:
    """The words of the nodes in order, as in ``OK/MISSING``."""
    return "/".join(item["state_by_node"].values()) or str(item["state"])


def _judged(judgement: status.Judgement) -> dict[str, Any]:
    return {
        "state": judgement.health.value,
        "state_by_node": {name: health.value for name, health in judgement.nodes.items()},
        "reasons": list(judgement.reasons),
    }


VOLUME_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="SIZE", show=size("provisioned_bytes")),
    Column(title="POOL", show=text("pool")),
    Column(title="PROTECTION", show=text("protection")),
    Column(title="SUBSYSTEM", show=text("subsystem")),
    Column(title="NSID", show=text("nsid")),
    Column(title="HOME", show=text("home")),
    Column(title="OWNER", show=text("owner")),
    Column(title="HOSTS", show=text("hosts")),
    Column(title="STATE", show=text("state")),
    Column(title="BY NODE", show=by_node, wide=True),
    Column(title="ASKED", show=size("size_bytes"), wide=True),
    Column(title="CHUNK", show=size("chunk_bytes"), wide=True),
    Column(title="DRIVES", show=many("drives"), wide=True),
    Column(title="LIMITS", show=text("limits"), wide=True),
    Column(title="READ ONLY", show=text("read_only"), wide=True),
    Column(title="UUID", show=text("uuid"), wide=True),
)


def volumes(view: View) -> list[dict[str, Any]]:
    """Every volume that was cut, and those that wait for their drives."""
    state = view.state
    found = [_volume(view, record) for record in state.volumes.values()]
    found += [_waiting(state, volume) for volume in state.array.volumes if volume.name not in state.volumes]
    return sorted(found, key=lambda item: str(item["name"]))


def _volume(view: View, record: VolumeRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "size_bytes": record.size_bytes,
        "provisioned_bytes": record.provisioned_bytes,
        "chunk_bytes": record.chunk_bytes,
        "slice_bytes": record.slice_bytes,
        "pool": record.pool,
        "protection": record.protection.value,
        "subsystem": record.subsystem,
        "nqn": view.state.subsystems[record.subsystem].nqn,
        "nsid": record.nsid,
        "uuid": record.uuid,
        "nguid": record.nguid,
        "ana_group": record.group,
        "home": record.home,
        "owner": view.state.owner(record.subsystem, record.group),
        "hosts": list(record.hosts),
        "drives": list(record.drives),
        "limits": "" if record.qos.unlimited else qos_text(record.qos),
        "rw_iops": record.qos.rw_iops,
        "rw_bytes_per_s": record.qos.rw_bytes_per_s,
        "read_bytes_per_s": record.qos.read_bytes_per_s,
        "write_bytes_per_s": record.qos.write_bytes_per_s,
        "read_only": record.read_only,
        **_judged(status.volume_status(view, record)),
    }


def _waiting(state: State, volume: Volume) -> dict[str, Any]:
    """A volume without slices yet: the same keys, with nothing where nothing was decided."""
    undecided = dict.fromkeys(("provisioned_bytes", "slice_bytes", "nsid", "uuid", "nguid", "ana_group", "owner"))
    return {
        **undecided,
        "name": volume.name,
        "size_bytes": volume.size_bytes,
        "chunk_bytes": volume.chunk_bytes,
        "pool": volume.pool,
        "protection": state.array.pool(volume.pool).protection.value,
        "subsystem": volume.subsystem,
        "nqn": state.array.subsystem(volume.subsystem).nqn,
        "home": volume.home,
        "hosts": list(volume.hosts),
        "drives": [],
        "limits": "" if volume.qos.unlimited else qos_text(volume.qos),
        "rw_iops": volume.qos.rw_iops,
        "rw_bytes_per_s": volume.qos.rw_bytes_per_s,
        "read_bytes_per_s": volume.qos.read_bytes_per_s,
        "write_bytes_per_s": volume.qos.write_bytes_per_s,
        "read_only": volume.read_only,
        "state": status.Health.MISSING.value,
        "state_by_node": {},
        "reasons": ["it has no slices yet: a drive of its pool has not been seen"],
    }


DRIVE_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="SOURCE", show=text("source")),
    Column(title="SIZE", show=size("size_bytes")),
    Column(title="SERIAL", show=text("serial")),
    Column(title="POOL", show=text("pool")),
    Column(title="SLICES", show=text("slices")),
    Column(title="FREE", show=text("free_slices")),
    Column(title="STATE", show=by_node),
    Column(title="SLICE SIZE", show=size("slice_bytes"), wide=True),
    Column(title="FAILURE DOMAIN", show=text("failure_domain"), wide=True),
    Column(title="VOLUMES", show=text("volumes"), wide=True),
)


def drives(view: View) -> list[dict[str, Any]]:
    """Every drive of the array."""
    state = view.state
    free = state.free_slices()
    found = []
    for drive in state.array.drives:
        record, facts = state.drives.get(drive.name), view.facts.get(drive.name)
        pool = state.array.pool_of_drive(drive.name)
        known = record or facts
        found.append(
            {
                "name": drive.name,
                "source": source_text(state.array.name, state.array.shelf, drive),
                "size_bytes": known.size_bytes if known else None,
                "serial": known.serial if known else drive.serial,
                "pool": pool.name if pool else None,
                "slices": record.slice_count if record else None,
                "free_slices": len(free[drive.name]) if record else None,
                "slice_bytes": record.slice_bytes if record else None,
                "failure_domain": drive.failure_domain,
                "volumes": sorted(v.name for v in state.volumes.values() if drive.name in v.drives),
                **_judged(status.drive_status(view, drive.name)),
            }
        )
    return found


POOL_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="PROTECTION", show=text("protection")),
    Column(title="DRIVES", show=lambda item: str(len(item["drives"]))),
    Column(title="SIZE", show=size("size_bytes")),
    Column(title="USED", show=size("used_bytes")),
    Column(title="FREE", show=size("free_bytes")),
    Column(title="VOLUMES", show=lambda item: str(len(item["volumes"]))),
    Column(title="STATE", show=text("state")),
    Column(title="DRIVE NAMES", show=many("drives"), wide=True),
)


def pools(view: View) -> list[dict[str, Any]]:
    """Every pool; sizes count raw slices, the reserved one of each drive left out."""
    state = view.state
    used, free = state.used_slices(), state.free_slices()
    found = []
    for pool in state.array.pools:
        adopted = [state.drives[name] for name in pool.drives if name in state.drives]
        inside = [volume for volume in state.volumes.values() if volume.pool == pool.name]
        taken = sum(len(used[drive.name]) * drive.slice_bytes for drive in adopted)
        left = sum(len(free[drive.name]) * drive.slice_bytes for drive in adopted)
        found.append(
            {
                "name": pool.name,
                "protection": pool.protection.value,
                "drives": list(pool.drives),
                "size_bytes": taken + left,
                "used_bytes": taken,
                "free_bytes": left,
                "volumes": sorted(volume.name for volume in inside),
                **_judged(status.pool_status(view, pool.drives, inside)),
            }
        )
    return found


NODE_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="ENGINE", show=text("engine")),
    Column(title="DRIVES", show=text("drives")),
    Column(title="SUBSYSTEMS", show=text("subsystems")),
    Column(title="STATE", show=text("state")),
    Column(title="RPC", show=text("rpc"), wide=True),
    Column(title="PORTS", show=text("ports"), wide=True),
    Column(title="NOT OURS", show=text("unmanaged"), wide=True),
)


def nodes(view: View, versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Both nodes; the counts are of this array's objects, nothing where the node could not be observed."""
    found = []
    for node in view.state.array.nodes:
        seen = view.seen[node.name]
        image = seen if isinstance(seen, NodeImage) else None
        found.append(
            {
                "name": node.name,
                "engine": versions.get(node.name) or None,
                "rpc": node.rpc,
                "ports": [f"{port.transport}://{port.address}:{port.service}" for port in node.ports],
                "drives": len(image.drives) if image else None,
                "subsystems": len(image.subsystems) if image else None,
                "unmanaged": list(image.unmanaged) if image else [],
                **_judged(status.node_status(view, node.name)),
            }
        )
    return found


HOST_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="NQN", show=text("nqn")),
    Column(title="SUBSYSTEMS", show=text("subsystems")),
    Column(title="VOLUMES", show=text("volumes")),
    Column(title="SECRET", show=text("has_secret")),
)


def hosts(view: View) -> list[dict[str, Any]]:
    """Every host and what it may see."""
    state = view.state
    found = []
    for host in state.array.hosts:
        seen = [volume for volume in state.volumes.values() if host.name in volume.hosts]
        found.append(
            {
                "name": host.name,
                "nqn": host.nqn,
                "subsystems": sorted({volume.subsystem for volume in seen}),
                "volumes": sorted(volume.name for volume in seen),
                "has_secret": host.secret_file is not None,
            }
        )
    return found


def _owners(item: Item) -> str:
    return ",".join(f"{group}:{node}" for group, node in item["owners"].items())


SUBSYSTEM_COLUMNS: Final = (
    Column(title="NAME", show=text("name")),
    Column(title="NQN", show=text("nqn")),
    Column(title="VOLUMES", show=lambda item: str(len(item["volumes"]))),
    Column(title="HOSTS", show=lambda item: str(len(item["hosts"]))),
    Column(title="OWNERS", show=_owners),
    Column(title="STATE", show=text("state")),
    Column(title="BY NODE", show=by_node, wide=True),
    Column(title="SERIAL", show=text("serial"), wide=True),
)


def subsystems(view: View) -> list[dict[str, Any]]:
    """Every subsystem; ``owners`` maps each ANA group to the node that serves it."""
    state = view.state
    found = []
    for record in state.subsystems.values():
        inside = [volume for volume in state.volumes.values() if volume.subsystem == record.name]
        found.append(
            {
                "name": record.name,
                "nqn": record.nqn,
                "serial": record.serial,
                "volumes": sorted(volume.name for volume in inside),
                "hosts": sorted({host for volume in inside for host in volume.hosts}),
                "owners": {str(group): state.owner(record.name, group) for group in GROUP_OF_HOME.values()},
                **_judged(status.subsystem_status(view, record)),
            }
        )
    return found


def whole(view: View, versions: Mapping[str, str]) -> dict[str, Any]:
    """The array as one item: how many objects are in which state, and the worst word of all."""
    of_kind = {
        "nodes": nodes(view, versions),
        "drives": drives(view),
        "pools": pools(view),
        "subsystems": subsystems(view),
        "volumes": volumes(view),
    }
    words = {status.Health(item["state"]) for items in of_kind.values() for item in items}
    return {
        "name": view.state.array.name,
        "uuid": view.state.uuid,
        "generation": view.state.generation,
        "ha": view.state.array.ha.value,
        "state": _overall(of_kind, words),
        "used_bytes": sum(item["used_bytes"] for item in of_kind["pools"]),
        "free_bytes": sum(item["free_bytes"] for item in of_kind["pools"]),
        **{kind: _by_word(items) for kind, items in of_kind.items()},
    }


def _overall(of_kind: Mapping[str, list[dict[str, Any]]], words: set[status.Health]) -> str:
    """What hosts notice decides: an array whose volumes all work is at worst DEGRADED."""
    worst = status.worst(words)
    serving = status.worst(status.Health(item["state"]) for item in of_kind["volumes"])
    if worst is not status.Health.OK and serving in (status.Health.OK, status.Health.DEGRADED):
        return status.Health.DEGRADED.value
    return worst.value


def _by_word(items: list[dict[str, Any]]) -> dict[str, int]:
    words = [str(item["state"]) for item in items]
    return {word.value: words.count(word.value) for word in status.Health if word.value in words}
