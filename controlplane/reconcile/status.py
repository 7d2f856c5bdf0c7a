"""How things are: a word for each volume, drive, pool, subsystem and node, judged from one look.

Why apart from the planner: a plan says what to do about a difference, this says what a difference means for those
who use the array.  Pure functions over a ``View``; nothing here asks an engine.

What the words mean:
- OK: all of it is there, on every node that is to have it;
- DEGRADED: it works, but something that it is to survive with is missing;
- MISSING: it does not work, or is not there;
- UNKNOWN: the node that would tell could not be observed.  Never taken for OK, nor for MISSING.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.domain.image import AnaState, NodeImage, Seen, Unknown, volume_bdev
from controlplane.domain.state import GROUP_OF_HOME, SubsystemRecord, VolumeRecord
from controlplane.planner.diff import diff_node
from controlplane.planner.image import volume_stack, wanted_image
from controlplane.planner.labels import wanted_label
from controlplane.reconcile.reconciler import View


class Health(StrEnum):
    """From best to worst."""

    OK = "OK"
    DEGRADED = "DEGRADED"
    UNKNOWN = "UNKNOWN"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A word, what each node contributes to it, and the reasons in sentences."""

    health: Health
    nodes: Mapping[str, Health] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()


def worst(healths: Iterable[Health]) -> Health:
    """The worst of them; OK for none."""
    order = list(Health)
    return max(healths, key=order.index, default=Health.OK)


def volume_status(view: View, volume: VolumeRecord) -> Judgement:
    """A volume works as long as its owner serves it; without the other node it is degraded."""
    owner = view.state.owner(volume.subsystem, volume.group)
    nodes: dict[str, Health] = {}
    reasons: list[str] = []
    for name, seen in sorted(view.seen.items()):
        nodes[name], why = _volume_on(view, volume, seen, serves=name == owner)
        reasons += [f"node {name}: {text}" for text in why]
    return Judgement(health=_by_owner(nodes, owner), nodes=nodes, reasons=tuple(reasons))


def _by_owner(nodes: Mapping[str, Health], owner: str) -> Health:
    serving = nodes.get(owner, Health.UNKNOWN)
    if serving is not Health.OK:
        return serving
    return Health.OK if worst(nodes.values()) is Health.OK else Health.DEGRADED


def _volume_on(view: View, volume: VolumeRecord, seen: Seen, *, serves: bool) -> tuple[Health, list[str]]:
    if isinstance(seen, Unknown):
        return Health.UNKNOWN, [seen.reason]
    if volume.unscrubbed:
        return Health.MISSING, [f"{len(volume.unscrubbed)} slices are not yet written zero, so it is not exported"]
    gone = _stack_faults(volume, seen)
    nqn = view.state.subsystems[volume.subsystem].nqn
    subsystem = seen.subsystems.get(nqn)
    namespace = subsystem.namespaces.get(volume.nsid) if subsystem is not None else None
    if namespace is None or namespace.bdev != volume_bdev(volume.name):
        gone.append((Health.MISSING, f"no namespace {volume.nsid} of {nqn} exports it"))
    if serves and AnaState.OPTIMIZED not in _ana(seen, nqn, volume.group):
        gone.append((Health.MISSING, f"no listener serves ANA group {volume.group}"))
    return worst(health for health, _ in gone), [text for _, text in gone]


def _stack_faults(volume: VolumeRecord, seen: NodeImage) -> list[tuple[Health, str]]:
    faults: list[tuple[Health, str]] = []
    for wanted in volume_stack(volume):
        found = seen.raids.get(wanted.name)
        if found is None or not found.members:
            faults.append((Health.MISSING, f"set {wanted.name} is {'not there' if found is None else 'offline'}"))
        elif "" in found.members:
            legs = [leg for leg, present in zip(wanted.members, found.members, strict=False) if not present]
            faults.append((Health.DEGRADED, f"set {wanted.name} has lost its leg {', '.join(legs)}"))
        elif found.members != wanted.members:
            faults.append((Health.MISSING, f"set {wanted.name} is built from other slices than its own"))
    return faults


def _ana(seen: NodeImage, nqn: str, group: int) -> set[AnaState]:
    subsystem = seen.subsystems.get(nqn)
    if subsystem is None:
        return set()
    return {states[group] for states in subsystem.listeners.values() if group in states}


def drive_status(view: View, drive: str) -> Judgement:
    """A drive is OK when every node reaches it, it is the one adopted and carries its label."""
    nodes: dict[str, Health] = {}
    reasons: list[str] = []
    for name, seen in sorted(view.seen.items()):
        nodes[name], why = _drive_on(view, drive, seen)
        reasons += [f"node {name}: {why}"] if why else []
    health = worst(nodes.values())
    if health is not Health.OK and Health.OK in nodes.values():
        health = Health.DEGRADED
    if drive in view.state.drives and drive in view.labels:
        if view.labels[drive] != wanted_label(view.state, drive):
            reasons.append("it does not carry this array's label")
            health = worst((health, Health.DEGRADED))
    elif drive not in view.state.drives:
        reasons.append("it is not adopted")
    return Judgement(health=health, nodes=nodes, reasons=tuple(reasons))


def _drive_on(view: View, drive: str, seen: Seen) -> tuple[Health, str]:
    if isinstance(seen, Unknown):
        return Health.UNKNOWN, seen.reason
    found = seen.drives.get(drive)
    if found is None:
        return Health.MISSING, "it is not attached"
    if not found.size_bytes:
        return Health.MISSING, "it is attached but shows no namespace"
    record = view.state.drives.get(drive)
    if record is not None and found.serial and record.serial and found.serial != record.serial:
        return Health.MISSING, f"another drive stands in its place (serial {found.serial}, not {record.serial})"
    return Health.OK, ""


def pool_status(view: View, drives: Iterable[str], volumes: Iterable[VolumeRecord]) -> Judgement:
    """A pool works as long as its volumes do; a drive that is not OK degrades it."""
    reasons: list[str] = []
    of_volumes = [(volume.name, volume_status(view, volume).health) for volume in volumes]
    of_drives = [(name, drive_status(view, name).health) for name in drives]
    reasons += [f"volume {name} is {health}" for name, health in of_volumes if health is not Health.OK]
    reasons += [f"drive {name} is {health}" for name, health in of_drives if health is not Health.OK]
    health = worst(health for _, health in of_volumes)
    if health is Health.OK and any(each is not Health.OK for _, each in of_drives):
        known = [each for _, each in of_drives if each is not Health.UNKNOWN]
        health = Health.DEGRADED if known else Health.UNKNOWN
    return Judgement(health=health, reasons=tuple(reasons))


def subsystem_status(view: View, subsystem: SubsystemRecord) -> Judgement:
    """A subsystem works when each group is served by exactly its owner, and the other node stands by."""
    nodes: dict[str, Health] = {}
    reasons: list[str] = []
    owned = {view.state.owner(subsystem.name, group) for group in GROUP_OF_HOME.values()}
    for name, seen in sorted(view.seen.items()):
        nodes[name], why = _subsystem_on(view, subsystem, name, seen)
        reasons += [f"node {name}: {text}" for text in why]
    health = worst(nodes[name] for name in owned if name in nodes)
    if health is Health.OK and worst(nodes.values()) is not Health.OK:
        health = Health.DEGRADED
    return Judgement(health=health, nodes=nodes, reasons=tuple(reasons))


def _subsystem_on(view: View, subsystem: SubsystemRecord, node: str, seen: Seen) -> tuple[Health, list[str]]:
    if isinstance(seen, Unknown):
        return Health.UNKNOWN, [seen.reason]
    if subsystem.nqn not in seen.subsystems:
        return Health.MISSING, [f"{subsystem.nqn} is not there"]
    if not seen.subsystems[subsystem.nqn].listeners:
        return Health.MISSING, ["it has no listener"]
    faults: list[str] = []
    health = Health.OK
    for group in GROUP_OF_HOME.values():
        serves = AnaState.OPTIMIZED in _ana(seen, subsystem.nqn, group)
        owns = view.state.owner(subsystem.name, group) == node
        if owns and not serves:
            health = Health.MISSING
            faults.append(f"no listener serves ANA group {group}")
        elif serves and not owns:
            health = worst((health, Health.DEGRADED))
            faults.append(f"it serves ANA group {group}, which it does not own")
    return health, faults


def node_status(view: View, name: str) -> Judgement:
    """A node is OK when it is exactly as the stored state wants it."""
    seen = view.seen[name]
    if isinstance(seen, Unknown):
        return Judgement(health=Health.UNKNOWN, reasons=(seen.reason,))
    if not seen.drives and not seen.subsystems and view.state.drives:
        return Judgement(health=Health.MISSING, reasons=("its engine is empty: it was started anew",))
    steps = diff_node(wanted_image(view.state, view.state.array.node(name)), seen)
    if not steps:
        return Judgement(health=Health.OK)
    first = steps[0][2].sentence
    others = f", and {len(steps) - 1} more" if len(steps) > 1 else ""
    return Judgement(health=Health.DEGRADED, reasons=(f"it differs from what was applied; missing: {first}{others}",))
