"""Decide once: slices, NSIDs, UUIDs, homes.  The result is stored and never recomputed.

``allocate`` takes the array that is wanted and the state that is, and returns the next state, with everything
that speaks against it.  It must never move a volume that exists, never give out a slice twice, never guess
the size of a drive that nobody has seen.

Where a new volume lies is ``cut``'s business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controlplane.domain.desired import Array, Pool, Volume
from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.state import (
    MAX_SLICES_PER_DRIVE,
    DriveRecord,
    State,
    SubsystemRecord,
    VolumeRecord,
)
from controlplane.domain.units import MIB, show_size
from controlplane.planner.cut import Cutter


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveFacts:
    """What has been seen of a drive: its size, block size and serial number."""

    size_bytes: int
    block_bytes: int
    serial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """``state`` is the next state as far as it could be decided; ``pending`` names volumes that wait for a drive
    to be seen; ``problems`` are refusals: with any of them the plan must not be applied."""

    state: State
    pending: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Ws7000Error, ...] = ()


def allocate(array: Array, state: State, facts: Mapping[str, DriveFacts]) -> Allocation:
    """The next state for ``array``, given the present one and what is known of the drives."""
    problems: list[Ws7000Error] = []
    notes: list[str] = []
    pending: list[str] = []
    problems += _lost_nodes(array, state)
    problems += _changed_volumes(array, state)
    problems += _changed_subsystems(array, state)
    if problems:
        return Allocation(state=state, problems=tuple(problems))
    state = _drop(array, state)
    problems += _lost_drives(array, state)
    if problems:
        return Allocation(state=state, problems=tuple(problems))
    state = replace(state, array=array)
    state, found = _adopt(state, facts)
    problems += found
    state = _refresh(array, _subsystems(state))
    new = [volume for volume in array.volumes if volume.name not in state.volumes]
    if not new:
        return Allocation(state=state, problems=tuple(problems))
    cutter = Cutter(state)
    for volume in new:
        pool = array.pool(volume.pool)
        # Every drive of the pool has to be seen: only then do all of them have slices of one size.
        if any(name not in state.drives or name not in facts for name in pool.drives):
            pending.append(volume.name)
            continue
        try:
            notes += cutter.cut(volume, pool)
        except Ws7000Error as problem:
            problems.append(problem)
    return Allocation(state=cutter.state(), pending=tuple(pending), notes=tuple(notes), problems=tuple(problems))


def _lost_nodes(array: Array, state: State) -> list[Ws7000Error]:
    """Nodes that the spec no longer has: nobody would look at them, and they may still serve (I1)."""
    names = {node.name for node in array.nodes}
    return [
        Refused(
            "PLAN-008",
            f"node {node.name} cannot be taken out of the array",
            why="its engine may still serve its ANA groups, and a plan that does not see it would raise them elsewhere",
            remedy=f"keep node {node.name} in array.yaml; to work on it, switch its groups over and stop its engine",
        )
        for node in state.array.nodes
        if node.name not in names
    ]


def _changed_volumes(array: Array, state: State) -> list[Ws7000Error]:
    """What of an existing volume may not change, and why not."""
    problems: list[Ws7000Error] = []
    for volume in array.volumes:
        record = state.volumes.get(volume.name)
        if record is None:
            continue
        if volume.size_bytes != record.size_bytes:
            verb = "growing" if volume.size_bytes > record.size_bytes else "shrinking"
            problems.append(
                Refused(
                    "PLAN-001",
                    f"volume {volume.name}: {verb} from {show_size(record.size_bytes)} to "
                    f"{show_size(volume.size_bytes)} is not offered yet",
                    why="both nodes would have to swap the stack below a namespace in use",
                    remedy="create a second volume and copy, or set the size back",
                )
            )
        pool = array.pool(volume.pool)
        fixed = {
            "pool": (record.pool, volume.pool),
            "subsystem": (record.subsystem, volume.subsystem),
            "home": (record.home, volume.home or record.home),
            "chunk": (record.chunk_bytes, volume.chunk_bytes),
            "protection": (record.protection.value, pool.protection.value),
        }
        problems += [
            Refused(
                "PLAN-002",
                f"volume {volume.name}: {key} is fixed for life ({before} cannot become {after})",
                why="its data lies in that layout, and hosts know it by that place",
                remedy="remove the volume and add it under the new terms; its data goes with it",
            )
            for key, (before, after) in fixed.items()
            if before != after
        ]
    return problems


def _drop(array: Array, state: State) -> State:
    """Without the volumes that are no longer wanted: their slices are free, and dirty."""
    wanted = {volume.name for volume in array.volumes}
    kept = {name: record for name, record in state.volumes.items() if name in wanted}
    names = {sub.name for sub in array.subsystems}
    subsystems = {name: record for name, record in state.subsystems.items() if name in names}
    owners = {name: groups for name, groups in state.owners.items() if name in names}
    doomed = state.doomed | {record.uuid for name, record in state.volumes.items() if name not in wanted}
    return replace(state, volumes=kept, subsystems=subsystems, owners=owners, doomed=doomed)


def _changed_subsystems(array: Array, state: State) -> list[Ws7000Error]:
    """The NQN is what hosts know a subsystem by."""
    return [
        Refused(
            "PLAN-002",
            f"subsystem {sub.name}: its NQN is fixed for life",
            why=f"hosts are connected to {state.subsystems[sub.name].nqn}",
            remedy="add another subsystem, or set the NQN back",
        )
        for sub in array.subsystems
        if sub.name in state.subsystems and state.subsystems[sub.name].nqn != sub.nqn
    ]


def _lost_drives(array: Array, state: State) -> list[Ws7000Error]:
    """Drives that the spec no longer has, or has in another pool, while volumes still lie on them."""
    problems: list[Ws7000Error] = []
    users_of: dict[str, list[str]] = {}
    for volume in sorted(state.volumes):
        for drive in state.volumes[volume].drives:
            users_of.setdefault(drive, []).append(volume)
    present = {drive.name for drive in array.drives}
    drives_of = {pool.name: frozenset(pool.drives) for pool in array.pools}
    for name in sorted(state.drives):
        users = users_of.get(name, [])
        if users and name not in present:
            problems.append(
                Refused(
                    "PLAN-003",
                    f"drive {name} cannot be removed: {', '.join(users)} lies on it",
                    why="a volume does not outlive a drive that holds a slice of it",
                    remedy="remove these volumes first, or keep the drive",
                )
            )
        for user in users:
            pool = state.volumes[user].pool
            if name in present and name not in drives_of[pool]:
                problems.append(
                    Refused(
                        "PLAN-003",
                        f"drive {name} cannot leave pool {pool}: volume {user} lies on it",
                        why="the slices of a volume belong to its pool",
                        remedy=f"keep the drive in pool {pool}, or remove the volume",
                    )
                )
    return problems


def default_slice_bytes(size_bytes: int, limit: int) -> int:
    """The smallest power-of-two number of MiB that cuts a drive of that size into at most ``limit`` slices."""
    slice_bytes = MIB
    while size_bytes // slice_bytes > limit:
        slice_bytes *= 2
    return slice_bytes


def _adopt(state: State, facts: Mapping[str, DriveFacts]) -> tuple[State, list[Ws7000Error]]:
    """Give every drive of a pool that has been seen its slices, all of one size within the pool.

    A drive that holds volumes keeps its slices for good; an empty one follows its pool, so that it can move from
    one pool to another.  A drive in no pool has no slices."""
    busy = {ref.drive for volume in state.volumes.values() for ref in volume.slices}
    drives: dict[str, DriveRecord] = {}
    problems: list[Ws7000Error] = []
    for pool in state.array.pools:
        for name in pool.drives:
            if name in state.drives:
                drives[name] = state.drives[name]
        known = [name for name in pool.drives if name in facts]
        slice_bytes = _pool_slice_bytes(pool, drives, busy, facts)
        for name in known:
            limit = pool.slices_per_drive or MAX_SLICES_PER_DRIVE
            count = min(facts[name].size_bytes // slice_bytes, limit)
            kept = drives.get(name)
            if kept is not None and (name in busy or (kept.slice_bytes, kept.slice_count) == (slice_bytes, count)):
                drives[name] = replace(kept, block_bytes=kept.block_bytes or facts[name].block_bytes)
                continue
            if count < 2:
                problems.append(_too_small(name, facts[name].size_bytes, slice_bytes))
                continue
            drives[name] = DriveRecord(
                name=name,
                slice_bytes=slice_bytes,
                slice_count=count,
                size_bytes=facts[name].size_bytes,
                serial=facts[name].serial,
                block_bytes=facts[name].block_bytes,
            )
    return replace(state, drives=drives), problems


def _pool_slice_bytes(
    pool: Pool, drives: Mapping[str, DriveRecord], busy: set[str], facts: Mapping[str, DriveFacts]
) -> int:
    """The slice size of a pool: that of its volumes; else as written; else else the one that cuts
    its smallest drive into at most so many slices."""
    in_use = {drives[name].slice_bytes for name in pool.drives if name in busy and name in drives}
    if in_use:
        return in_use.pop()
    if pool.slice_bytes:
        return pool.slice_bytes
    sizes = [facts[name].size_bytes for name in pool.drives if name in facts]
    sizes += [drives[name].size_bytes for name in pool.drives if name in drives]
    return default_slice_bytes(min(sizes, default=MIB), pool.slices_per_drive or MAX_SLICES_PER_DRIVE)


def _too_small(name: str, size_bytes: int, slice_bytes: int) -> Ws7000Error:
    return Refused(
        "PLAN-004",
        f"drive {name} is too small: {show_size(size_bytes)} for slices of {show_size(slice_bytes)}",
        why="one slice is reserved for the array, and at least one must be left for data",
        remedy="use a smaller slice size in a new pool, or a larger drive",
    )


def _subsystems(state: State) -> State:
    records = dict(state.subsystems)
    for sub in state.array.subsystems:
        if sub.name not in records:
            digest = hashlib.sha256(f"{state.uuid}/{sub.nqn}".encode()).hexdigest()
            records[sub.name] = SubsystemRecord(name=sub.name, nqn=sub.nqn, serial=f"WS{digest[:18].upper()}")
    return replace(state, subsystems=records)


def _mutable(volume: Volume | VolumeRecord) -> tuple[object, ...]:
    return volume.hosts, volume.qos, volume.read_only


def _refresh(array: Array, state: State) -> State:
    """Take over what may change of the volumes that exist."""
    volumes = dict(state.volumes)
    for volume in array.volumes:
        record = volumes.get(volume.name)
        if record is not None and _mutable(record) != _mutable(volume):
            volumes[volume.name] = replace(record, hosts=volume.hosts, qos=volume.qos, read_only=volume.read_only)
    return replace(state, volumes=volumes)
