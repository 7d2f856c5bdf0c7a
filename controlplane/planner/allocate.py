"""Decide once: slices, NSIDs, UUIDs, homes.  The result is stored and never recomputed.

``allocate`` takes the array that is wanted and the state that is, and returns the next state, with everything
that speaks against it.  It must never move a volume that exists, never give out a slice twice, never guess
the size of a drive that nobody has seen.

Placement: the pieces of a volume go to the drives of its stripe in turn; the stripe is the drives with most
free slices.  The legs of a mirrored piece lie on different drives, in different failure domains where the
spec names them.
"""

from __future__ import annotations

import hashlib
import uuid as uuidlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controlplane.domain.desired import Array, Pool, Protection, Volume
from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.state import (
    MAX_SLICES_PER_DRIVE,
    DriveRecord,
    SliceRef,
    State,
    SubsystemRecord,
    VolumeRecord,
    derived_uuid,
)
from controlplane.domain.units import MIB, show_size

MAX_NAMESPACES = 1024
"""NSIDs 1..1024 in a subsystem; SPDK also caps the ANA group ids with it."""


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
    state = _subsystems(state)
    free = state.free_slices()
    for volume in array.volumes:
        if volume.name in state.volumes:
            state = _refresh(state, volume)
            continue
        pool = array.pool(volume.pool)
        # Every drive of the pool has to be seen: only then do all of them have slices of one size.
        if any(name not in state.drives or name not in facts for name in pool.drives):
            pending.append(volume.name)
            continue
        try:
            state, note = _cut(state, volume, pool, free)
        except Ws7000Error as problem:
            problems.append(problem)
        else:
            notes += note
    return Allocation(state=state, pending=tuple(pending), notes=tuple(notes), problems=tuple(problems))


def _has_drive(array: Array, name: str) -> bool:
    return any(drive.name == name for drive in array.drives)


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
    for name in sorted(state.drives):
        users = sorted(v.name for v in state.volumes.values() if name in v.drives)
        if users and not _has_drive(array, name):
            problems.append(
                Refused(
                    "PLAN-003",
                    f"drive {name} cannot be removed: {', '.join(users)} lies on it",
                    why="a volume does not outlive a drive that holds a slice of it",
                    remedy="remove these volumes first, or keep the drive",
                )
            )
        for user in users:
            pool = array.pool(state.volumes[user].pool)
            if _has_drive(array, name) and name not in pool.drives:
                problems.append(
                    Refused(
                        "PLAN-003",
                        f"drive {name} cannot leave pool {pool.name}: volume {user} lies on it",
                        why="the slices of a volume belong to its pool",
                        remedy=f"keep the drive in pool {pool.name}, or remove the volume",
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


def _refresh(state: State, volume: Volume) -> State:
    """Take over what may change of a volume that exists."""
    record = state.volumes[volume.name]
    changed = replace(record, hosts=volume.hosts, qos=volume.qos, read_only=volume.read_only)
    return replace(state, volumes={**state.volumes, volume.name: changed})


def _cut(state: State, volume: Volume, pool: Pool, free: dict[str, list[int]]) -> tuple[State, list[str]]:
    """Cut a new volume from the ``free`` slices of its pool, and take them out of there."""
    slice_bytes = state.drives[pool.drives[0]].slice_bytes
    count = -(-volume.size_bytes // slice_bytes)
    if volume.chunk_bytes > slice_bytes or slice_bytes % volume.chunk_bytes:
        raise Refused(
            "PLAN-005",
            f"volume {volume.name}: chunks of {show_size(volume.chunk_bytes)} do not divide slices of "
            f"{show_size(slice_bytes)}",
            remedy="choose a chunk that divides the slice size",
        )
    left = {name: list(indexes) for name, indexes in free.items() if name in pool.drives}
    rows = _place(state, volume, pool, count, left)
    subsystem = state.subsystems[volume.subsystem]
    nsid = _next_nsid(state, subsystem)
    # The generation makes a volume that was deleted and created again a different one to its hosts.
    identity = derived_uuid(state.uuid, f"volume/{volume.name}/{state.generation + 1}")
    refs = frozenset(ref for row in rows for ref in row)
    record = VolumeRecord(
        name=volume.name,
        uuid=identity,
        nguid=uuidlib.UUID(derived_uuid(identity, "nguid")).hex,
        nsid=nsid,
        subsystem=volume.subsystem,
        pool=pool.name,
        home=volume.home or _lighter_home(state),
        size_bytes=volume.size_bytes,
        slice_bytes=slice_bytes,
        chunk_bytes=volume.chunk_bytes,
        protection=pool.protection,
        rows=rows,
        unscrubbed=frozenset(ref for ref in refs if ref.index not in state.drives[ref.drive].clean),
        hosts=volume.hosts,
        qos=volume.qos,
        read_only=volume.read_only,
    )
    drives = {
        name: replace(drive, clean=drive.clean - {ref.index for ref in refs if ref.drive == name})
        for name, drive in state.drives.items()
    }
    free.update(left)
    notes = []
    if record.provisioned_bytes != volume.size_bytes:
        notes.append(
            f"volume {volume.name}: {show_size(volume.size_bytes)} asked, {show_size(record.provisioned_bytes)} "
            f"given ({count} slices of {show_size(slice_bytes)})"
        )
    return replace(
        state,
        volumes={**state.volumes, volume.name: record},
        subsystems={
            **state.subsystems,
            subsystem.name: replace(subsystem, next_nsid=nsid % MAX_NAMESPACES + 1),
        },
        drives=drives,
    ), notes


def _place(
    state: State, volume: Volume, pool: Pool, count: int, free: dict[str, list[int]]
) -> tuple[tuple[SliceRef, ...], ...]:
    """The slices of a new volume, taken out of ``free``."""
    legs = 2 if pool.protection is Protection.MIRROR else 1
    available = sum(len(refs) for refs in free.values())
    if count * legs > available:
        raise _no_room(state, volume, pool, count * legs, available)
    width = min(volume.stripe_width or len(pool.drives), len(pool.drives))
    by_room = sorted(free, key=lambda name: (-len(free[name]), name))
    stripe = sorted(by_room[: max(width * legs, legs)])
    used = dict.fromkeys(pool.drives, 0)
    domains = {drive.name: drive.failure_domain or drive.name for drive in state.array.drives}
    rows = []
    for _ in range(count):
        row: list[SliceRef] = []
        for _leg in range(legs):
            taken = {domains[ref.drive] for ref in row}
            name = _next_drive(stripe, by_room, free, used, taken, domains)
            if name is None:
                raise _no_room(state, volume, pool, count * legs, available)
            used[name] += 1
            row.append(SliceRef(name, free[name].pop(0)))
        rows.append(tuple(row))
    return tuple(rows)


def _next_drive(
    stripe: list[str],
    pool: list[str],
    free: Mapping[str, list[int]],
    used: Mapping[str, int],
    taken: set[str],
    domains: Mapping[str, str],
) -> str | None:
    """The drive for the next slice: of the stripe if it has room, else of the pool; least used by this volume
    first, so that the pieces alternate."""
    for names in (stripe, pool):
        able = [name for name in names if free[name] and domains[name] not in taken]
        if able:
            return min(able, key=lambda name: (used[name], -len(free[name]), name))
    return None


def _no_room(state: State, volume: Volume, pool: Pool, wanted: int, available: int) -> Ws7000Error:
    slice_bytes = state.drives[pool.drives[0]].slice_bytes
    legs = "two legs on different drives" if pool.protection is Protection.MIRROR else "one leg"
    return Refused(
        "PLAN-006",
        f"volume {volume.name} does not fit in pool {pool.name}",
        why=f"it takes {wanted} slices of {show_size(slice_bytes)} ({legs}), {available} are free",
        remedy="add drives to the pool, remove a volume, or ask for less",
        details={"slices_wanted": wanted, "slices_free": available},
    )


def _next_nsid(state: State, subsystem: SubsystemRecord) -> int:
    taken = {v.nsid for v in state.volumes.values() if v.subsystem == subsystem.name}
    for step in range(MAX_NAMESPACES):
        nsid = (subsystem.next_nsid - 1 + step) % MAX_NAMESPACES + 1
        if nsid not in taken:
            return nsid
    raise Refused(
        "PLAN-007",
        f"subsystem {subsystem.name} is full: {MAX_NAMESPACES} volumes",
        remedy="put the volume into another subsystem",
    )


def _lighter_home(state: State) -> str:
    """The node with fewer bytes at home; ``a`` when they are equal."""
    load = {node.name: 0 for node in state.array.nodes}
    for volume in state.volumes.values():
        if volume.home in load:
            load[volume.home] += volume.provisioned_bytes
    return min(load, key=lambda name: (load[name], name))
