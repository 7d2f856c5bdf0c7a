"""What the array has decided and must never forget: allocation, identities and owners.

The spec says what the admin wants; the state adds what was decided once and is never recomputed: which slices
a volume lives on, its NSID, NGUID and UUID, which drives were adopted with which slice size, who owns each
ANA group.  Losing it loses the volumes.  Values only: ``controlplane.store`` keeps them, ``controlplane.planner``
makes the next one.

Invariants: a slice belongs to at most one volume; slice 0 of every drive belongs to the array itself; a slice
is in ``DriveRecord.clean`` only while it is free and known to read zeroes; a volume with ``unscrubbed`` slices has
never been exported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from controlplane.domain.desired import Array, Protection, Qos

RESERVED_SLICES: Final = 1
MAX_SLICES_PER_DRIVE: Final = 512
GROUP_OF_HOME: Final[Mapping[str, int]] = {"a": 1, "b": 2}
HOME_OF_GROUP: Final[Mapping[int, str]] = {1: "a", 2: "b"}


@dataclass(frozen=True, slots=True, order=True)
class SliceRef:
    """Slice ``index`` of drive ``drive``."""

    drive: str
    index: int

    def __str__(self) -> str:
        return f"{self.drive}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveRecord:
    """An adopted drive: its slices are ``slice_bytes`` each, ``slice_count`` of them, slice 0 reserved."""

    name: str
    slice_bytes: int
    slice_count: int
    size_bytes: int
    serial: str
    block_bytes: int = 0
    """Logical block size; 0 in a state from before it was kept, until the drive is seen again.  Never guessed: a
    write by a wrong block size lands elsewhere."""
    clean: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """A volume as it was cut.  ``rows[i]`` holds the slice of every leg of piece ``i`` (one leg without a
    mirror); the volume's bytes run over the rows in strips of ``chunk_bytes``."""

    name: str
    uuid: str
    nguid: str
    nsid: int
    subsystem: str
    pool: str
    home: str
    size_bytes: int
    slice_bytes: int
    chunk_bytes: int
    protection: Protection
    rows: tuple[tuple[SliceRef, ...], ...]
    unscrubbed: frozenset[SliceRef] = frozenset()
    hosts: tuple[str, ...] = ()
    qos: Qos = field(default_factory=Qos)
    read_only: bool = False

    @property
    def provisioned_bytes(self) -> int:
        """What the host sees: whole slices."""
        return len(self.rows) * self.slice_bytes

    @property
    def group(self) -> int:
        """The ANA group: fixed by the home node."""
        return GROUP_OF_HOME[self.home]

    @property
    def slices(self) -> Iterator[SliceRef]:
        """Every slice of every leg."""
        return (ref for row in self.rows for ref in row)

    @property
    def drives(self) -> tuple[str, ...]:
        """The drives the volume lives on, sorted."""
        return tuple(sorted({ref.drive for ref in self.slices}))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsystemRecord:
    """A subsystem that exists or is to exist; ``serial`` is the same on both nodes, ``next_nsid`` only grows
    until it wraps, so that a new volume does not take the number of one just deleted."""

    name: str
    nqn: str
    serial: str
    next_nsid: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything decided so far.  ``generation`` is raised by every write of the store."""

    array: Array
    uuid: str
    generation: int = 0
    drives: Mapping[str, DriveRecord] = field(default_factory=dict)
    subsystems: Mapping[str, SubsystemRecord] = field(default_factory=dict)
    volumes: Mapping[str, VolumeRecord] = field(default_factory=dict)
    owners: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Per subsystem name: the node that owns each ANA group; absent means the home node."""
    doomed: frozenset[str] = frozenset()
    """UUIDs of volumes whose deletion was agreed to: after a crash an engine may still show their sets."""

    def owner(self, subsystem: str, group: int) -> str:
        """The node that serves the group now (or is to): its home, unless it was switched over."""
        chosen = self.owners.get(subsystem, {}).get(group)
        if chosen is not None:
            return chosen
        home = HOME_OF_GROUP[group]
        names = [node.name for node in self.array.nodes]
        return home if home in names else names[0]

    def used_slices(self) -> dict[str, set[int]]:
        """Per drive: the indexes that volumes hold."""
        used: dict[str, set[int]] = {name: set() for name in self.drives}
        for volume in self.volumes.values():
            for ref in volume.slices:
                used.setdefault(ref.drive, set()).add(ref.index)
        return used

    def free_slices(self) -> dict[str, list[int]]:
        """Per drive: the indexes free to cut from, clean ones first, each part ascending."""
        used = self.used_slices()
        free: dict[str, list[int]] = {}
        for drive in self.drives.values():
            taken = used[drive.name]
            every = [i for i in range(RESERVED_SLICES, drive.slice_count) if i not in taken]
            free[drive.name] = sorted(every, key=lambda i, clean=drive.clean: (i not in clean, i))  # type: ignore[misc]
        return free

    def scrubbed(self, volume: str, refs: frozenset[SliceRef]) -> State:
        """The state after ``refs`` of ``volume`` were written zero."""
        record = self.volumes[volume]
        changed = replace(record, unscrubbed=record.unscrubbed - refs)
        return replace(self, volumes={**self.volumes, volume: changed})


def derived_uuid(parent: str, name: str) -> str:
    """A UUID that both nodes compute alike (version 5 of ``name`` in the space of ``parent``)."""
    # By hand in a third of the time: a plan names every mirrored piece of every volume.  SHA-1 is what version 5 is
    # made of (RFC 9562, 5.5); nothing here is secret.
    space = bytes.fromhex(parent.replace("-", ""))
    digest = bytearray(hashlib.sha1(space + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
