"""What the agents say, in sentences for people and as one object for programs.

Pure: the views of the agents and the stored state in, text out.  Nothing is called well that nobody has said: what an
agent that does not answer would know is UNKNOWN.  Of two agents that know different records the newer one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.domain.desired import Array
from controlplane.domain.state import GROUP_OF_HOME, State, VolumeRecord
from controlplane.reconcile.agent_view import AgentView, PathView, TakeoverView
from controlplane.reconcile.agents import Heard, Unheard, newest
from controlplane.reconcile.status import Health
from ha.model import NODES, GroupId, NodeName, Phase, other

_PHASES = {
    Phase.ABSENT: "no data plane runs there",
    Phase.OUTSIDE: "its data plane runs and may not use the drives",
    Phase.JOINING: "it was admitted and registers on the drives",
    Phase.MEMBER: "it is a member and serves what the record gives it",
    Phase.TAKING: "it fences the other node, or forms the array",
}


def health(views: Mapping[str, Heard]) -> Health:
    """OK: both are members, each group is served by its owner, nothing failed.  MISSING: a group that nobody serves."""
    record = newest(views)
    if record is None:
        return Health.UNKNOWN
    members = [view for view in views.values() if isinstance(view, AgentView) and view.phase is Phase.MEMBER]
    if not record.owners:
        return Health.MISSING
    for group, owner in record.owners.items():
        view = views.get(owner)
        if not isinstance(view, AgentView):
            return Health.UNKNOWN
        if group not in view.raised:
            return Health.MISSING
    whole = len(members) == len(NODES) and not (record.failed or record.resync or record.paused or _silent(views))
    return Health.OK if whole and all(path.whole for path in _paths(views).values()) else Health.DEGRADED


def _silent(views: Mapping[str, Heard]) -> frozenset[str]:
    heard = [view.silent for view in views.values() if isinstance(view, AgentView)]
    return frozenset().union(*heard)


class _Path:
    """A path as both ends tell it; None for what nobody has said."""

    def __init__(self) -> None:
        self.hears: dict[str, bool | None] = dict.fromkeys(NODES, None)

    def tell(self, node: NodeName, path: PathView) -> None:
        """An end's own hearing counts more than what the other concludes of it."""
        self.hears[node] = path.we_hear_peer
        if self.hears[other(node)] is None:
            self.hears[other(node)] = path.peer_hears_us

    @property
    def whole(self) -> bool:
        return all(self.hears.values())


def _paths(views: Mapping[str, Heard]) -> dict[str, _Path]:
    found: dict[str, _Path] = {}
    for node in NODES:
        view = views.get(node)
        for path in view.paths if isinstance(view, AgentView) else ():
            found.setdefault(path.name, _Path()).tell(node, path)
    return dict(sorted(found.items()))


def _addresses(array: Array) -> dict[str, str]:
    """What lies behind the name of a path; the names are those of ``agent_config``."""
    from controlplane.domain.desired import heartbeat_paths

    pairs = heartbeat_paths(array.node("a"), array.node("b"))
    return {f"path-{number}": f"{here} and {there}" for number, (here, there) in enumerate(pairs, start=1)}


# ------------------------------------------------------------------ what a node alone could serve


def lost_volumes(state: State, lost: frozenset[str]) -> dict[str, str]:
    """Volumes that nobody can serve without the ``lost`` drives, each with a reason."""
    found = {}
    for name, volume in sorted(state.volumes.items()):
        for row in volume.rows:
            gone = sorted({leg.drive for leg in row if leg.drive in lost})
            if len(gone) == len({leg.drive for leg in row}):
                found[name] = f"it has no copy beside drive {' and '.join(gone)}"
                break
    return found


def one_legged(state: State, lost: frozenset[str]) -> list[str]:
    """Volumes that go on without one of their copies."""
    gone = lost_volumes(state, lost)
    return [
        name for name, volume in sorted(state.volumes.items()) if name not in gone and set(volume.drives) & set(lost)
    ]


# ------------------------------------------------------------------ for programs


def body(state: State, views: Mapping[str, Heard]) -> dict[str, Any]:
    """All of it as one object."""
    record = newest(views)
    lost = (record.failed if record else frozenset()) | _silent(views)
    return {
        "name": state.array.name,
        "state": health(views).value,
        "policy": state.array.ha_intent.policy.value if state.array.ha_intent else "",
        "formed": bool(record and record.epoch),
        "epoch": record.epoch if record else None,
        "sequence": record.sequence if record else None,
        "generation": record.generation if record else None,
        "leader": record.leader if record else None,
        "paused": record.paused if record else None,
        "members": sorted(record.members) if record else [],
        "groups": [_group(state, views, record, group) for group in _every_group(state)],
        "nodes": [_node(node, views.get(node)) for node in NODES],
        "paths": [{"name": name, "heard_by": dict(path.hears)} for name, path in _paths(views).items()],
        "failed_drives": sorted(record.failed) if record else [],
        "silent_drives": sorted(_silent(views)),
        "rebuilding_groups": sorted(map(str, record.resync)) if record else [],
        "refused_volumes": sorted(record.refused) if record else [],
        "unservable_volumes": sorted(lost_volumes(state, lost)),
        "sentences": lines(state, views),
    }


def _every_group(state: State) -> list[GroupId]:
    return [GroupId(name, number) for name in sorted(state.subsystems) for number in GROUP_OF_HOME.values()]


def _in(state: State, group: GroupId) -> list[VolumeRecord]:
    return [
        volume
        for volume in state.volumes.values()
        if (volume.subsystem, volume.group) == (group.subsystem, group.number)
    ]


def _group(state: State, views: Mapping[str, Heard], record: AgentView | None, group: GroupId) -> dict[str, Any]:
    owner = record.owners.get(group) if record else None
    view = views.get(owner) if owner else None
    served = group in view.raised if isinstance(view, AgentView) else None
    return {
        "name": str(group),
        "subsystem": group.subsystem,
        "ana_group": group.number,
        "home": group.home,
        "owner": owner,
        "served": served,
        "volumes": sorted(volume.name for volume in _in(state, group)),
        "size_bytes": sum(volume.provisioned_bytes for volume in _in(state, group)),
        "why": _why(views, record, group, owner),
    }


def _why(views: Mapping[str, Heard], record: AgentView | None, group: GroupId, owner: NodeName | None) -> str:
    """Why the group is where it is."""
    if owner is None or record is None:
        return "no record that an agent knows names an owner"
    view = views.get(owner)
    if isinstance(view, AgentView) and group not in view.raised:
        if record.paused:
            return f"node {owner} owns it and does not serve it: the array is paused"
        return f"node {owner} owns it and does not serve it yet"
    if owner == group.home:
        return "it is at home"
    if group.home not in record.members:
        return f"its home, node {group.home}, is no member"
    return f"it was moved from its home, node {group.home}, which is a member again"


def _node(node: str, view: Heard | None) -> dict[str, Any]:
    if not isinstance(view, AgentView):
        return {"name": node, "state": Health.UNKNOWN.value, "why": view.problem.what if view else "it was not asked"}
    return {
        "name": node,
        "state": (Health.OK if view.phase is Phase.MEMBER else Health.DEGRADED).value,
        "phase": view.phase.value,
        "engine": view.engine.value,
        "answered_ms": view.answered_ms,
        "serves": sorted(map(str, view.raised)),
        "lease_left_ms": view.lease_left_ms,
        "peer_heard_ms": view.peer_heard_ms,
        "peer_slot_ms": view.peer_slot_ms,
        "own_slot_ms": view.own_slot_ms,
        "built_generation": view.built,
        "evictions": view.evictions.get(node, 0),
        "watchdog_problem": view.watchdog,
        "sentence": view.sentence,
        "last_takeover": None if view.takeover is None else _takeover(view.takeover),
    }


def _takeover(takeover: TakeoverView) -> dict[str, Any]:
    steps = [{"at_ms": at_ms, "what": what} for at_ms, what in takeover.steps]
    return {"ago_ms": takeover.ago_ms, "took_ms": takeover.took_ms, "steps": steps}


# ------------------------------------------------------------------ for people


def lines(state: State, views: Mapping[str, Heard]) -> list[str]:
    """All of it in sentences, what matters most first."""
    record = newest(views)
    told = [_heading(state, views, record)]
    told += _nodes(views)
    told += _owners(state, views, record)
    told += _heartbeats(state.array, views)
    told += _drives(state, views, record)
    told += list(_alone(state, views, record))
    told += [
        line
        for view in views.values()
        if isinstance(view, AgentView) and view.takeover
        for line in _last_takeover(view.node, view.takeover)
    ]
    return told


def _heading(state: State, views: Mapping[str, Heard], record: AgentView | None) -> str:
    name, word = state.array.name, health(views).value
    if record is None:
        return f"array {name}: {word}; no agent answers"
    if not record.epoch:
        known = any(isinstance(view, AgentView) and view.generation for view in views.values())
        why = "no node is a member yet" if known else "no agent knows of an array on these drives; ws7000 array apply"
        return f"array {name}: {word}; nobody serves: {why}"
    paused = "; PAUSED: nobody takes over, moves or stops" if record.paused else ""
    leader = f"node {record.leader} leads" if record.leader else "nobody leads"
    return f"array {name}: {word}; epoch {record.epoch}, record {record.sequence}, {leader}{paused}"


def _nodes(views: Mapping[str, Heard]) -> Iterator[str]:
    for node in NODES:
        view = views.get(node)
        if isinstance(view, Unheard):
            yield f"node {node}: UNKNOWN, its agent does not answer ({view.problem.why or view.problem.what})"
        elif isinstance(view, AgentView):
            serves = f"; it serves {_few(sorted(map(str, view.raised)))}" if view.raised else "; it serves nothing"
            yield f"node {node}: {_PHASES[view.phase]}{serves}"
            if view.sentence:
                yield f"  it says: {view.sentence}"
            yield f"  {_lease(view)}"
            if view.watchdog:
                yield f"  watchdog: {view.watchdog}"


def _lease(view: AgentView) -> str:
    if view.lease_left_ms is None:
        return "lease: none, so that its data plane is not guarded; it may serve nothing, or hands are off"
    signs = [
        (view.peer_heard_ms, "it heard the other node over the network"),
        (view.own_slot_ms, "it wrote its heartbeat to most of the quorum drives"),
        (view.peer_slot_ms, "it saw the other node's heartbeat on the drives"),
    ]
    said = [f"{text} {ago} ms ago" for ago, text in signs if ago is not None]
    return f"lease: {view.lease_left_ms} ms are left unless it is renewed" + (f"; {', '.join(said)}" if said else "")


def _owners(state: State, views: Mapping[str, Heard], record: AgentView | None) -> Iterator[str]:
    for group in _every_group(state):
        item = _group(state, views, record, group)
        volumes = f"volumes {_few(item['volumes'])}" if item["volumes"] else "no volume"
        owner = f"node {item['owner']}" if item["owner"] else "nobody"
        yield f"{item['name']} ({volumes}) belongs to {owner}: {item['why']}"


def _heartbeats(array: Array, views: Mapping[str, Heard]) -> Iterator[str]:
    where = _addresses(array)
    for name, path in _paths(views).items():
        between = f" ({where[name]})" if name in where else ""
        yield f"heartbeats on {name}{between}: " + ", ".join(
            f"node {node} {_HEARS[path.hears[node]]} node {other(node)}" for node in NODES
        )


_HEARS: Mapping[bool | None, str] = {True: "hears", False: "does not hear", None: "may or may not hear"}


def _drives(state: State, views: Mapping[str, Heard], record: AgentView | None) -> Iterator[str]:
    failed = record.failed if record else frozenset()
    for drive in sorted(failed):
        users = [name for name, volume in sorted(state.volumes.items()) if drive in volume.drives]
        yield (
            f"drive {drive} is given up ({f'volumes {_few(users)}' if users else 'no volume'}): once it is back or "
            f"replaced, say ws7000 ha drive-repaired {drive}"
        )
    for drive in sorted(_silent(views) - failed):
        by = [name for name, view in views.items() if isinstance(view, AgentView) and drive in view.silent]
        yield f"drive {drive} does not answer node {' and '.join(by)}"
    for volume in sorted(record.refused) if record else ():
        yield f"volume {volume} is not served: a drive that it cannot do without is given up"
    for group in sorted(record.resync) if record else ():
        yield f"the mirrors of {group} are made equal again; until then one leg holds what was acknowledged"


def _alone(state: State, views: Mapping[str, Heard], record: AgentView | None) -> Iterator[str]:
    failed = record.failed if record else frozenset()
    for node in NODES:
        view = views.get(node)
        if not isinstance(view, AgentView):
            yield f"node {node} alone: UNKNOWN what it could serve"
            continue
        if view.phase is not Phase.MEMBER:
            yield f"node {node} alone: it could serve nothing before it is a member"
            continue
        lost = failed | view.silent
        gone, one = lost_volumes(state, lost), one_legged(state, lost)
        if gone:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(gone.items())[:4])
            yield f"node {node} alone: it could serve all but {_few(list(gone))} ({reasons})"
        elif one:
            yield f"node {node} alone: it could serve every volume, {_few(one)} without a second copy"
        else:
            yield f"node {node} alone: it could serve every volume"


def _last_takeover(node: str, takeover: TakeoverView) -> list[str]:
    told = [f"last takeover by node {node}: {_ago(takeover.ago_ms)} ago, {takeover.took_ms} ms to its last step"]
    return told + [f"  {at_ms:>6} ms  {what}" for at_ms, what in takeover.steps]


def _ago(ms: int) -> str:
    """A length of time for people."""
    seconds = ms // 1000
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s" if seconds else f"{ms} ms"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
