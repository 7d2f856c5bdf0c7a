"""What the leader writes next.

Every change of who serves what is a record, and only the leader writes one, one at a time.  A write that did not reach
a majority is never repeated: the next attempt is another record with a higher sequence, so that no two records have
one place in the order.  This module must never fence a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ha.lease import heard
from ha.memory import Memory, Moving, Turn
from ha.model import Fence, GroupId, NodeName, Phase, Record, ServiceMap, SnapshotAt, WriteRecord, other
from ha.orders import hindered
from ha.serving import legs_on, lost_by, namespaces, out_legs


def lead(turn: Turn, memory: Memory, service: ServiceMap, record: Record) -> Memory:
    """The next record, if something asks for one; or work that has to come before it."""
    if memory.repair is not None:
        return memory.begun(Fence(drives=(memory.repair[1],), key=memory.key, register=True), turn.policy.drive_ms)
    changed = _changes(turn, memory, service, record)
    if changed is None:
        return _homeward(turn, memory, record)
    snapshot: bytes | None = None
    saving = 0
    if memory.save is not None:
        save = memory.save
        area = 1 - record.snapshot.area if record.snapshot else 0
        at = SnapshotAt(area=area, size_bytes=len(save.snapshot), sha256=save.digest, generation=save.generation)
        owners = {g: record.owners.get(g) or _first_owner(g, changed.members, memory.node) for g in service.groups}
        changed = replace(changed, snapshot=at, owners={**changed.owners, **owners})
        snapshot, saving = save.snapshot, save.number
    sequence = max(memory.highest, record.sequence) + 1
    changed = replace(changed, sequence=sequence)
    previous = memory.after(record)
    drives = tuple(drive for drive in service.quorum if drive not in changed.failed)
    work = WriteRecord(drives=drives, record=changed, previous=previous, snapshot=snapshot)
    memory = replace(memory, highest=sequence, attempted=changed, save=None, saving=saving, cancel=False)
    return memory.begun(work, turn.policy.journal_ms)


def unregistered(turn: Turn, memory: Memory) -> frozenset[str]:
    """The drives that this member is yet to register on."""
    if memory.record is None or turn.seen.map is None or memory.phase is not Phase.MEMBER:
        return frozenset()
    return frozenset(turn.seen.map.drives) - memory.registered - memory.record.failed


def expire(turn: Turn, memory: Memory) -> Memory:
    """A move that takes too long is taken back, by a record, since the owner may have released already."""
    late = {g: m for g, m in memory.moving.items() if turn.now - m.since > turn.policy.drain_ms}
    if not late:
        return memory
    for moving in {m.order: m for m in late.values()}.values():
        memory = memory.answered(moving.order, "HA-005", f"its I/O did not end within {turn.policy.drain_ms} ms")
    return replace(memory, moving={g: m for g, m in memory.moving.items() if g not in late}, cancel=True)


def _first_owner(group: GroupId, members: Mapping[NodeName, int], me: NodeName) -> NodeName:
    return group.home if group.home in members else me


def _changes(turn: Turn, memory: Memory, service: ServiceMap, record: Record) -> Record | None:
    """The record with everything in it that has come up since; None when nothing has."""
    changed = record
    peer, says = other(memory.node), turn.seen.peer.says
    asks_in = says is not None and heard(turn) and says.phase is Phase.OUTSIDE and peer not in record.members
    if asks_in and says is not None and says.key and _may_return(turn, memory):
        changed = replace(changed, members={**changed.members, peer: says.key})
    owners = dict(changed.owners)
    for group, moving in memory.moving.items():
        if _released(turn, memory, record, group):
            owners[group] = moving.to
    if record.snapshot is not None and record.snapshot.generation == service.generation:
        owners = {group: owner for group, owner in owners.items() if group in service.groups}
    for group in service.groups:
        owners.setdefault(group, _first_owner(group, changed.members, memory.node))
    failed = record.failed | _dead(turn, memory, record)
    refused = record.refused
    for drive in sorted(failed - record.failed):
        refused |= lost_by(service, drive, record)
    failed -= memory.mended
    done, everywhere = _rebuilt_groups(turn, memory, record)
    stale = (record.stale | (memory.mended & record.failed)) - failed
    waiting = unregistered(turn, memory) | _unregistered_there(turn, record, peer) | memory.mended
    settled = frozenset(d for d in record.stale - waiting if legs_on(service, d) <= done & everywhere)
    changed = replace(
        changed, owners=owners, failed=failed, stale=stale - settled, refused=refused, resync=record.resync - done,
        paused=memory.pause[1] if memory.pause is not None else record.paused,
    )  # fmt: skip
    if record.refused:
        changed = replace(changed, refused=_refused(service, changed, changed.failed | (stale & waiting)))
    if memory.evicted_at is not None and _calm(turn, memory, record) and record.evictions:
        changed = replace(changed, evictions={})
    if changed == record and memory.save is None and not memory.cancel and memory.pause is None:
        return None
    return changed


def _rebuilt_groups(turn: Turn, memory: Memory, record: Record) -> tuple[frozenset[GroupId], frozenset[GroupId]]:
    """The groups whose owner has made their mirrors equal, and those in which the standby misses no leg either: one
    that did would write to the others alone after a move."""
    peer, says = other(memory.node), turn.seen.peer.says
    mine = memory.owned()
    everything = frozenset(record.owners)
    if peer not in record.members:
        return memory.rebuilt & mine, everything
    theirs = everything - mine
    if says is None or says.at != record.at:  # what it rebuilt under an older record may be out again
        return memory.rebuilt & mine, frozenset()
    done = (memory.rebuilt & mine) | (says.rebuilt & theirs)
    return done, (says.rebuilt & mine) | (turn.seen.engine.whole & theirs)


def _unregistered_there(turn: Turn, record: Record, peer: NodeName) -> frozenset[str]:
    """The drives that the peer, a member, is not known to be registered on: a volume shown before would meet
    refusals."""
    says = turn.seen.peer.says
    if peer not in record.members:
        return frozenset()
    return says.unregistered if says is not None and says.at == record.at else record.stale


def _refused(service: ServiceMap, record: Record, away: frozenset[str]) -> frozenset[str]:
    """What still cannot be served, where ``away`` are the drives that not every member can use."""
    none = replace(record, refused=frozenset(), failed=frozenset(), stale=frozenset())
    lost: frozenset[str] = frozenset()
    for drive in sorted(away):
        lost |= lost_by(service, drive, none)
        none = replace(none, failed=none.failed | {drive})
    sourceless = frozenset(
        namespace.volume
        for group, namespace in namespaces(service)
        for mirror in namespace.mirrors
        if len(out_legs(mirror, record, resync=group in record.resync)) == len(mirror.legs)
    )
    return (lost | sourceless) & record.refused


def _may_return(turn: Turn, memory: Memory) -> bool:
    record = memory.record
    assert record is not None
    if record.paused:
        return False
    if memory.evicted_at is None:
        return True
    return turn.now - memory.evicted_at >= turn.policy.quarantine_for_ms(record.evictions.get(other(memory.node), 0))


def _released(turn: Turn, memory: Memory, record: Record, group: GroupId) -> bool:
    """Whether the owner of a moving group has drained it under exactly this record."""
    if record.owners.get(group) == memory.node:
        return memory.released.get(group) == record.sequence
    says = turn.seen.peer.says
    return says is not None and says.at == record.at and says.releases.get(group) == record.sequence


def _dead(turn: Turn, memory: Memory, record: Record) -> frozenset[str]:
    """Drives that no member gets an answer from."""
    silent = turn.seen.drives.silent
    if memory.mended_at is not None and turn.now - memory.mended_at < turn.policy.drive_dead_ms:
        silent -= record.stale  # it answered the fence a moment ago
    if other(memory.node) in record.members:
        says = turn.seen.peer.says
        silent &= says.silent if says is not None else frozenset()
    return silent - record.failed


def _calm(turn: Turn, memory: Memory, record: Record) -> bool:
    return other(memory.node) in record.members and turn.now - memory.peer_since >= turn.policy.hold_ms


def _may_go_home(turn: Turn, memory: Memory, record: Record) -> bool:
    return memory.homing or (turn.policy.failback and _calm(turn, memory, record))


def _homeward(turn: Turn, memory: Memory, record: Record) -> Memory:
    """Start moves that nobody ordered: groups go home after a start of both nodes, or after a calm time where the
    policy says so; and away from a node without a link."""
    if memory.moving or record.paused:
        return memory
    peer, says = other(memory.node), turn.seen.peer.says
    if says is None or not heard(turn):
        return memory
    up: Mapping[NodeName, int] = {memory.node: turn.seen.ports_up, peer: says.ports_up}
    to: dict[GroupId, NodeName] = {}
    for group, owner in record.owners.items():
        away = other(owner)
        if not up[owner] and up[away]:
            to[group] = away
        elif owner != group.home and up[group.home] and _may_go_home(turn, memory, record):
            to[group] = group.home
    ready = {g: node for g, node in to.items() if not hindered(turn, memory, node, (g,))}
    if not ready:
        return memory
    return replace(memory, moving={g: Moving(to=node, since=turn.now) for g, node in ready.items()})
