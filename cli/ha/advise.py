"""Which subsystem to move so that the busier node has less to do.  Pure: loads in, advice out.

One move is looked for at a time, since each changes what the next one would be judged by, and since a planned move is
not free: hosts change their paths.  Nothing is advised for less than a tenth of the busier node's load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.domain.image import volume_bdev
from controlplane.domain.state import State
from controlplane.domain.units import show_rate, show_size
from dataplane.rpc.values import BdevStat, IostatInfo
from ha.model import NODES, GroupId, NodeName, other

WORTH_PERCENT: Final = 10
"""How much less the busier node must have to do for a move to be worth it."""
IDLE_IOPS: Final = 100
"""Below this many I/Os a second on both nodes together, what was measured says nothing of the days to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoad:
    """An ANA group: who serves it, what is in it, and what its volumes did a second while it was measured."""

    group: GroupId
    owner: NodeName
    volumes: int
    size_bytes: int
    iops: int = 0
    bytes_per_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """``subsystem`` and ``to`` are None where nothing is to be moved; ``to`` alone is set for "all groups home"."""

    subsystem: str | None
    to: NodeName | None
    home: bool
    measured: bool
    loads: Mapping[NodeName, int]
    after: Mapping[NodeName, int]
    sentence: str
    command: str = ""


def loads_of(
    state: State,
    owners: Mapping[GroupId, NodeName],
    before: Mapping[str, IostatInfo],
    after: Mapping[str, IostatInfo],
) -> list[GroupLoad]:
    """The groups of ``owners`` with what their volumes did on their owner between two readings of its counters.

    A volume that was not there both times, or whose counters began anew, has done nothing that is known."""
    found = []
    for group, owner in sorted(owners.items()):
        mine = [v for v in state.volumes.values() if (v.subsystem, v.group) == (group.subsystem, group.number)]
        iops = rate = 0
        if owner in before and owner in after:
            first, last = before[owner], after[owner]
            ticks = last.ticks - first.ticks
            old = {each.name: each for each in first.bdevs}
            new = {each.name: each for each in last.bdevs}
            names = [volume_bdev(volume.name) for volume in mine]
            did = [(old[name], new[name]) for name in names if name in old and name in new]
            ops = sum(max(0, _ops(b) - _ops(a)) for a, b in did)
            moved = sum(max(0, _bytes(b) - _bytes(a)) for a, b in did)
            iops = ops * last.tick_rate_hz // ticks if ticks > 0 else 0
            rate = moved * last.tick_rate_hz // ticks if ticks > 0 else 0
        found.append(
            GroupLoad(
                group=group,
                owner=owner,
                volumes=len(mine),
                size_bytes=sum(volume.provisioned_bytes for volume in mine),
                iops=iops,
                bytes_per_s=rate,
            )
        )
    return found


def _ops(stat: BdevStat) -> int:
    return stat.read_ops + stat.write_ops


def _bytes(stat: BdevStat) -> int:
    return stat.bytes_read + stat.bytes_written


def advise(groups: Sequence[GroupLoad], members: Iterable[str]) -> Advice:
    """The one move that helps the busier node most, or the reason why there is none."""
    measured = sum(each.iops for each in groups) >= IDLE_IOPS
    owners = {each.group: each.owner for each in groups}
    now = _loads(groups, owners, measured=measured)
    missing = [node for node in NODES if node not in set(members)]
    if missing:
        why = f"node {missing[0]} is no member, so node {other(missing[0])} serves all there is; nothing can be moved"
        return _nothing(now, why, measured=measured)
    moves = [(_loads(groups, {**owners, **move.owners}, measured=measured), move) for move in _moves(groups, owners)]
    if not moves or not max(now.values()):
        return _nothing(now, "there is nothing to move", measured=measured)
    # Of moves that help alike, the one that takes fewer groups along; then the way home; then by name.
    after, best = min(moves, key=lambda each: (max(each[0].values()), len(each[1].owners), each[1].name))
    busier = max(NODES, key=lambda node: now[node])
    if (max(now.values()) - max(after.values())) * 100 < WORTH_PERCENT * max(now.values()):
        even = f"node a has {_shown(now['a'], measured=measured)} and node b {_shown(now['b'], measured=measured)}"
        return _nothing(now, f"{even}; no single move makes the busier one's part a tenth smaller", measured=measured)
    what = "take every group home" if best.home else f"move subsystem {best.name} to node {best.to}"
    return Advice(
        subsystem=None if best.home else best.name,
        to=best.to,
        home=best.home,
        measured=measured,
        loads=now,
        after=after,
        sentence=f"{what}: node {busier} then has {_shown(after[busier], measured=measured)} instead of "
        f"{_shown(now[busier], measured=measured)}, and node {other(busier)} "
        f"{_shown(after[other(busier)], measured=measured)}",
        command="ws7000 ha failback" if best.home else f"ws7000 ha switchover --to {best.to} --subsystem {best.name}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    name: str
    owners: Mapping[GroupId, NodeName]
    to: NodeName | None = None
    home: bool = False


def _moves(groups: Sequence[GroupLoad], owners: Mapping[GroupId, NodeName]) -> list[_Move]:
    """Every subsystem to either node, and everything home; not those that move nothing."""
    found = [
        _Move(name=name, to=node, owners={g.group: node for g in groups if g.group.subsystem == name})
        for name in sorted({each.group.subsystem for each in groups})
        for node in NODES
    ]
    found.append(_Move(name="", home=True, owners={each.group: each.group.home for each in groups}))
    changed = [
        _Move(
            name=move.name,
            to=move.to,
            home=move.home,
            owners={group: node for group, node in move.owners.items() if owners[group] != node},
        )
        for move in found
    ]
    return [move for move in changed if move.owners]


def _loads(groups: Sequence[GroupLoad], owners: Mapping[GroupId, NodeName], *, measured: bool) -> dict[NodeName, int]:
    loads: dict[NodeName, int] = dict.fromkeys(NODES, 0)
    for each in groups:
        loads[owners[each.group]] += each.bytes_per_s if measured else each.size_bytes
    return loads


def _shown(load: int, *, measured: bool) -> str:
    return show_rate(load) if measured else f"{show_size(load)} of volumes"


def _nothing(now: Mapping[NodeName, int], why: str, *, measured: bool) -> Advice:
    return Advice(subsystem=None, to=None, home=False, measured=measured, loads=now, after=now, sentence=why)
