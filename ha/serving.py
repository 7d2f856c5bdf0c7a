"""What failed drives and mirrors that may differ cost: which legs are out, which volumes cannot be served.

The rule of mirrors: SPDK acknowledges a write when any leg took it, so after an unclean end the legs may differ where
writes were on their way.  Then the first leg whose drive is whole is the source, and every other leg is out until it
was rebuilt (``resync``).  A leg on a failed drive is out, and stays out, ``stale``, until it was rebuilt.  This
module must never look at anything but the map and the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ha.model import GroupId, GroupMap, Leg, MirrorMap, NamespaceMap, Record, ServiceMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearing:
    """``drop`` are the legs to take out (set, leg bdev), ``refuse`` the volumes to hide (NQN, NSID), ``volumes``
    their names."""

    drop: tuple[tuple[str, str], ...] = ()
    refuse: tuple[tuple[str, int], ...] = ()
    volumes: frozenset[str] = frozenset()


def bearing(service: ServiceMap, record: Record, groups: Iterable[GroupId]) -> Bearing:
    """What is to be done about ``groups`` before they are served."""
    drop: list[tuple[str, str]] = []
    refuse: list[tuple[str, int]] = []
    names: set[str] = set()
    for group in sorted(groups):
        at = service.groups.get(group)
        if at is None:
            continue
        for namespace in at.namespaces:
            if namespace.volume in record.refused or _lost(namespace, record.failed):
                refuse.append((at.nqn, namespace.nsid))
                names.add(namespace.volume)
                continue
            for mirror in namespace.mirrors:
                drop += [(mirror.name, leg.bdev) for leg in out_legs(mirror, record, resync=group in record.resync)]
    return Bearing(drop=tuple(drop), refuse=tuple(refuse), volumes=frozenset(names))


def out_legs(mirror: MirrorMap, record: Record, *, resync: bool) -> tuple[Leg, ...]:
    """The legs that must not be read."""
    left = [leg for leg in mirror.legs if leg.drive not in record.failed | record.stale]
    out = [leg for leg in mirror.legs if leg.drive in record.failed | record.stale]
    if resync:
        out += left[1:]
    return tuple(out)


def to_rebuild(
    service: ServiceMap, record: Record, groups: Iterable[GroupId]
) -> dict[GroupId, tuple[tuple[str, str], ...]]:
    """Per group that has any: the legs (set, leg bdev) that are out and whose drive can take them back."""
    found: dict[GroupId, tuple[tuple[str, str], ...]] = {}
    wanted = frozenset(groups)
    for group, namespace in namespaces(service):
        if group not in wanted or namespace.volume in record.refused:
            continue
        for mirror in namespace.mirrors:
            out = out_legs(mirror, record, resync=group in record.resync)
            back = tuple((mirror.name, leg.bdev) for leg in out if leg.drive not in record.failed)
            if back:
                found[group] = (*found.get(group, ()), *back)
    return found


def legs_on(service: ServiceMap, drive: str) -> frozenset[GroupId]:
    """The groups that have a mirror with a leg on ``drive``."""
    return frozenset(
        group
        for group, namespace in namespaces(service)
        if any(leg.drive == drive for mirror in namespace.mirrors for leg in mirror.legs)
    )


def _lost(namespace: NamespaceMap, failed: frozenset[str]) -> bool:
    if any(drive in failed for drive in namespace.bare):
        return True
    return any(all(leg.drive in failed for leg in mirror.legs) for mirror in namespace.mirrors)


def lost_by(service: ServiceMap, drive: str, record: Record) -> frozenset[str]:
    """The volumes that cannot bear the loss of ``drive`` beside what the record has given up already: bare on it, the
    last whole leg on it, or the source of a rebuild on it."""
    failed = record.failed | {drive}
    lost: set[str] = set()
    for group, namespace in namespaces(service):
        whole = [
            [leg for leg in mirror.legs if leg not in out_legs(mirror, record, resync=group in record.resync)]
            for mirror in namespace.mirrors
        ]
        if _lost(namespace, failed) or any(all(leg.drive == drive for leg in legs) for legs in whole):
            lost.add(namespace.volume)
    return frozenset(lost)


def namespaces(service: ServiceMap) -> Iterator[tuple[GroupId, NamespaceMap]]:
    """Every namespace with its group."""
    for group, at in service.groups.items():
        for namespace in at.namespaces:
            yield group, namespace


def mirrored(at: GroupMap) -> bool:
    """Whether the group holds a mirrored set."""
    return any(namespace.mirrors for namespace in at.namespaces)
