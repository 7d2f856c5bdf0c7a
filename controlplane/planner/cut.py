"""Cut new volumes: their slices, NSIDs, UUIDs and homes.

Why apart from ``allocate``: what is free, taken and used is counted once and kept while many volumes are cut, so that
the work grows with the volumes and not with their square.  ``Cutter`` must never touch a volume that exists.

Placement: the pieces of a volume go to the drives of its stripe in turn; the stripe is the drives with most
free slices.  The legs of a mirrored piece lie on different drives, in different failure domains where the
spec names them.

Invariant: a volume that is refused has taken nothing.
"""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from controlplane.domain.desired import Pool, Protection, Volume
from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.state import SliceRef, State, VolumeRecord, derived_uuid
from controlplane.domain.units import show_size

MAX_NAMESPACES: Final = 1024
"""NSIDs 1..1024 in a subsystem; SPDK also caps the ANA group ids with it."""


class Cutter:
    """Cuts one volume after another out of a state, and gives the state with all of them."""

    def __init__(self, state: State) -> None:
        self._before = state
        self._free = state.free_slices()
        self._clean = {name: set(drive.clean) for name, drive in state.drives.items()}
        self._domains = {drive.name: drive.failure_domain or drive.name for drive in state.array.drives}
        self._subsystems = dict(state.subsystems)
        self._volumes = dict(state.volumes)
        self._nsids: dict[str, set[int]] = {name: set() for name in state.subsystems}
        self._load = {node.name: 0 for node in state.array.nodes}
        for volume in state.volumes.values():
            self._count(volume)

    def _count(self, volume: VolumeRecord) -> None:
        self._nsids.setdefault(volume.subsystem, set()).add(volume.nsid)
        if volume.home in self._load:
            self._load[volume.home] += volume.provisioned_bytes

    def state(self) -> State:
        """The state with every volume that was cut."""
        before = self._before
        if len(self._volumes) == len(before.volumes):
            return before
        drives = {name: replace(drive, clean=frozenset(self._clean[name])) for name, drive in before.drives.items()}
        return replace(before, volumes=self._volumes, subsystems=self._subsystems, drives=drives)

    def cut(self, volume: Volume, pool: Pool) -> list[str]:
        """Cut ``volume`` from the free slices of its pool; what is to be said about it."""
        slice_bytes = self._before.drives[pool.drives[0]].slice_bytes
        if volume.chunk_bytes > slice_bytes or slice_bytes % volume.chunk_bytes:
            raise Refused(
                "PLAN-005",
                f"volume {volume.name}: chunks of {show_size(volume.chunk_bytes)} do not divide slices of "
                f"{show_size(slice_bytes)}",
                remedy="choose a chunk that divides the slice size",
            )
        left = {name: list(indexes) for name, indexes in self._free.items() if name in pool.drives}
        rows = self._place(volume, pool, -(-volume.size_bytes // slice_bytes), left)
        nsid = self._next_nsid(volume.subsystem)
        # The generation makes a volume that was deleted and created again a different one to its hosts.
        identity = derived_uuid(self._before.uuid, f"volume/{volume.name}/{self._before.generation + 1}")
        refs = [ref for row in rows for ref in row]
        record = VolumeRecord(
            name=volume.name,
            uuid=identity,
            nguid=uuidlib.UUID(derived_uuid(identity, "nguid")).hex,
            nsid=nsid,
            subsystem=volume.subsystem,
            pool=pool.name,
            home=volume.home or min(self._load, key=lambda name: (self._load[name], name)),
            size_bytes=volume.size_bytes,
            slice_bytes=slice_bytes,
            chunk_bytes=volume.chunk_bytes,
            protection=pool.protection,
            rows=rows,
            unscrubbed=frozenset(ref for ref in refs if ref.index not in self._clean[ref.drive]),
            hosts=volume.hosts,
            qos=volume.qos,
            read_only=volume.read_only,
        )
        self._take(record, left)
        if record.provisioned_bytes == volume.size_bytes:
            return []
        return [
            f"volume {volume.name}: {show_size(volume.size_bytes)} asked, {show_size(record.provisioned_bytes)} "
            f"given ({len(rows)} slices of {show_size(slice_bytes)})"
        ]

    def _take(self, record: VolumeRecord, left: dict[str, list[int]]) -> None:
        """Nothing can go wrong any more: the volume has its place."""
        for ref in record.slices:
            self._clean[ref.drive].discard(ref.index)
        self._free.update(left)
        self._volumes[record.name] = record
        subsystem = self._subsystems[record.subsystem]
        self._subsystems[record.subsystem] = replace(subsystem, next_nsid=record.nsid % MAX_NAMESPACES + 1)
        self._count(record)

    def _place(
        self, volume: Volume, pool: Pool, count: int, free: dict[str, list[int]]
    ) -> tuple[tuple[SliceRef, ...], ...]:
        """The slices of a new volume, taken out of ``free``."""
        legs = 2 if pool.protection is Protection.MIRROR else 1
        available = sum(len(refs) for refs in free.values())
        if count * legs > available:
            raise self._no_room(volume, pool, count * legs, available)
        width = min(volume.stripe_width or len(pool.drives), len(pool.drives))
        by_room = sorted(free, key=lambda name: (-len(free[name]), name))
        stripe = sorted(by_room[: max(width * legs, legs)])
        used = dict.fromkeys(pool.drives, 0)
        rows = []
        for _ in range(count):
            row: list[SliceRef] = []
            for _leg in range(legs):
                taken = {self._domains[ref.drive] for ref in row}
                name = _next_drive(stripe, by_room, free, used, taken, self._domains)
                if name is None:
                    raise self._no_room(volume, pool, count * legs, available)
                used[name] += 1
                row.append(SliceRef(name, free[name].pop(0)))
            rows.append(tuple(row))
        return tuple(rows)

    def _no_room(self, volume: Volume, pool: Pool, wanted: int, available: int) -> Ws7000Error:
        slice_bytes = self._before.drives[pool.drives[0]].slice_bytes
        legs = "two legs on different drives" if pool.protection is Protection.MIRROR else "one leg"
        return Refused(
            "PLAN-006",
            f"volume {volume.name} does not fit in pool {pool.name}",
            why=f"it takes {wanted} slices of {show_size(slice_bytes)} ({legs}), {available} are free",
            remedy="add drives to the pool, remove a volume, or ask for less",
            details={"slices_wanted": wanted, "slices_free": available},
        )

    def _next_nsid(self, name: str) -> int:
        subsystem, taken = self._subsystems[name], self._nsids[name]
        for step in range(MAX_NAMESPACES):
            nsid = (subsystem.next_nsid - 1 + step) % MAX_NAMESPACES + 1
            if nsid not in taken:
                return nsid
        raise Refused(
            "PLAN-007",
            f"subsystem {name} is full: {MAX_NAMESPACES} volumes",
            remedy="put the volume into another subsystem",
        )


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
