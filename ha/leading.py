"""What a member does beside serving: follow the record, and, where it leads, write the next one.

Every change of who serves what is a record, and only the leader writes one, one at a time.  A write that did not reach
a majority is never repeated: the next attempt is another record with a higher sequence, so that no two records have
one place in the order.  This module must never fence.

Moving a group as planned: the leader asks, the owner lowers and drains and says under which record it did, the leader
gives the group away in the next record.  The owner raises it again only under a record newer than the one it released
it under."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ha.lease import heard
from ha.memory import Memory, Moving, Turn
from ha.model import (
    Answer,
    DetachDrives,
    Fence,
    GroupId,
    KickHosts,
    Move,
    NodeName,
    Operation,
    Outcome,
    Pause,
    Phase,
    ReadJournal,
    Rebuild,
    Record,
    Register,
    Repaired,
    Save,
    ServiceMap,
    SnapshotAt,
    TakeOver,
    Work,
    WriteRecord,
    other,
)
from ha.serving import legs_on, lost_by, namespaces, out_legs, to_rebuild

_NOT_LEADING: Final = "HA-004"


def take_in(turn: Turn, memory: Memory, outcome: Outcome, work: Work) -> Memory:
    """The outcome of the work that a member did."""
    match work:
        case WriteRecord():
            return _written(turn, memory, outcome, work)
        case ReadJournal():
            return _followed(memory, outcome)
        case Register():
            fresh = frozenset(drive for drive, said in outcome.answers.items() if said is Answer.OK)
            return replace(memory, registered=memory.registered | fresh, retry_at=turn.now + turn.policy.retry_ms)
        case DetachDrives():
            if outcome.ok:
                return replace(memory, detached=memory.detached | frozenset(work.drives))
            return replace(memory, retry_at=turn.now + turn.policy.retry_ms)
        case Fence():
            return _repaired(memory, outcome)
        case KickHosts():
            said = "hosts were told" if outcome.ok else f"hosts could not be told: {outcome.problem}"
            return replace(memory.noted(turn.now, said), took=True)
        case _:
            return memory


def _written(turn: Turn, memory: Memory, outcome: Outcome, work: WriteRecord) -> Memory:
    service = turn.seen.map
    done = sum(1 for said in outcome.answers.values() if said is Answer.OK)
    if service is None or done < service.majority:
        memory = memory.answered(memory.saving, "HA-008", "the record is not on a majority of the quorum drives")
        return replace(memory, saving=0)
    memory = memory.answered(memory.saving)
    before = memory.record
    record = work.record
    moving_on = {g: m for g, m in memory.moving.items() if record.owners.get(g) != m.to}
    under_way = {moving.order for moving in moving_on.values()}
    for order in sorted({moving.order for moving in memory.moving.values()} - under_way):
        memory = memory.answered(order)
    if memory.pause is not None and record.paused == memory.pause[1]:
        memory = replace(memory.answered(memory.pause[0]), pause=None)
    memory = _out_again(memory, before, record)
    peer = other(memory.node)
    joined = before is not None and peer in record.members and before.members.get(peer) != record.members[peer]
    return replace(
        memory, record=record, saving=0, moving=moving_on, peer_since=turn.now if joined else memory.peer_since,
        peer_at=None if joined else memory.peer_at,
    )  # fmt: skip


def _followed(memory: Memory, outcome: Outcome) -> Memory:
    record = outcome.record
    if record is None or memory.record is None or record.at <= memory.record.at:
        return memory
    memory = _out_again(memory, memory.record, record)
    return replace(memory, record=record, highest=max(memory.highest, record.sequence))


def _out_again(memory: Memory, before: Record | None, record: Record) -> Memory:
    """Forget what was rebuilt once the record takes more legs out, and a failed drive with its registration."""
    more = before is None or record.stale - before.stale or record.resync - before.resync
    return replace(
        memory,
        rebuilt=frozenset() if more else memory.rebuilt,
        registered=memory.registered - record.failed,
        detached=memory.detached & record.failed,
        mended=memory.mended & record.failed,
    )


def _repaired(memory: Memory, outcome: Outcome) -> Memory:
    """A drive that was given up answers again, and nobody else is registered on it: its legs can be rebuilt."""
    if memory.repair is None:
        return memory
    number, drive = memory.repair
    memory = replace(memory, repair=None)
    if outcome.answers.get(drive) is not Answer.OK:
        said = outcome.answers.get(drive, Answer.FAILED)
        return memory.answered(number, "HA-007", f"drive {drive} answered {said} to the fence")
    return replace(memory.answered(number), mended=memory.mended | {drive})


# ------------------------------------------------------------------ one cycle


def member(turn: Turn, memory: Memory) -> tuple[Memory, str]:
    """One cycle of a member: begin at most one piece of work, by urgency."""
    service, record = turn.seen.map, memory.record
    assert record is not None
    memory = _release(turn, memory, record)
    if memory.leads:
        memory = _expire(turn, memory)
    if memory.operation is not None or service is None:
        return memory, _standing(turn, memory, record)
    if memory.kick is not None:
        return replace(
            memory.begun(KickHosts(node=memory.kick), turn.policy.load_ms), kick=None
        ), "makes the hosts leave"
    newest = max(turn.seen.newest, turn.seen.peer.says.at if turn.seen.peer.says else (0, 0))
    if not memory.leads and newest > record.at:
        drives = tuple(drive for drive in service.quorum if drive not in record.failed)
        return memory.begun(ReadJournal(drives=drives), turn.policy.journal_ms), "reads the newer record"
    if turn.now >= memory.retry_at:
        new = frozenset(service.drives) - memory.registered - record.failed
        if new:
            return memory.begun(Register(drives=tuple(sorted(new)), key=memory.key), turn.policy.drive_ms), "registers"
        gone = record.failed - memory.detached
        if gone:
            return memory.begun(DetachDrives(drives=tuple(sorted(gone))), turn.policy.load_ms), "gives failed drives up"
    given = memory.number
    if memory.leads:
        memory = lead(turn, memory, service, record)
    if memory.number == given and turn.now >= memory.retry_at:
        memory = _rebuild(memory, service, record)
    return memory, _standing(turn, memory, record)


def _release(turn: Turn, memory: Memory, record: Record) -> Memory:
    """Note what has been drained under this record; forget what a newer record has settled."""
    kept = {group: at for group, at in memory.released.items() if at >= record.sequence}
    for group in asked(turn, memory) & turn.seen.engine.drained:
        kept[group] = record.sequence
    return memory if kept == memory.released else replace(memory, released=kept)


def asked(turn: Turn, memory: Memory) -> frozenset[GroupId]:
    """The groups of this node that the leader wants released: of itself, or by what it says under this very epoch."""
    record, says = memory.record, turn.seen.peer.says
    if record is None:
        return frozenset()
    if record.leader == memory.node:
        wanted = frozenset(group for group, moving in memory.moving.items() if moving.to != memory.node)
    elif says is not None and says.leader == says.node == record.leader and says.at[0] == record.epoch:
        wanted = says.asks
    else:
        wanted = frozenset()
    return wanted & memory.owned()


def asks(memory: Memory) -> frozenset[GroupId]:
    """What the leader asks its peer to release."""
    if not memory.leads:
        return frozenset()
    return frozenset(group for group, moving in memory.moving.items() if moving.to == memory.node)


def _rebuild(memory: Memory, service: ServiceMap, record: Record) -> Memory:
    """Put legs back, one piece of work for all groups of this node that miss some; it goes on beside others."""
    if memory.rebuild is not None:
        return memory
    todo = to_rebuild(service, record, memory.owned() - memory.rebuilt)
    # A group whose mirrors have nothing to put back is whole as it is; the leader has to hear of it, too.
    whole = (record.resync & memory.owned()) - todo.keys()
    if not todo:
        return memory if whole <= memory.rebuilt else replace(memory, rebuilt=memory.rebuilt | whole)
    number = memory.number + 1
    add = tuple(leg for legs in todo.values() for leg in legs)
    work = Operation(number=number, work=Rebuild(groups=frozenset(todo), add=add), deadline_ms=None)
    return replace(memory, number=number, rebuild=work)


def rebuilt(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    """The end of a rebuild."""
    assert memory.rebuild is not None
    work = memory.rebuild.work
    assert isinstance(work, Rebuild)
    done = memory.rebuilt | work.groups if outcome.ok else memory.rebuilt
    return replace(
        memory, rebuild=None, rebuilt=done, retry_at=turn.now if outcome.ok else turn.now + turn.policy.retry_ms
    )


# ------------------------------------------------------------------ the leader


def orders(turn: Turn, memory: Memory) -> Memory:
    """Take new orders in; what this node cannot do is answered at once."""
    for order in turn.seen.orders:
        if isinstance(order, TakeOver):
            continue  # ``decide`` sees to it: it is no leader's business
        if isinstance(order, Save) and memory.phase in (Phase.OUTSIDE, Phase.TAKING) and memory.save is None:
            # A node that begins alone finds out first whether the drives hold an array.
            memory = replace(memory, save=order)
        elif not memory.leads:
            leader = memory.record.leader if memory.record and memory.phase is Phase.MEMBER else None
            why = f"node {leader} leads" if leader else f"this node is {memory.phase}"
            memory = memory.answered(order.number, _NOT_LEADING, why)
        else:
            memory = _order(turn, memory, order)
    return memory


def _order(turn: Turn, memory: Memory, order: Move | Pause | Save | Repaired) -> Memory:
    record = memory.record
    assert record is not None
    match order:
        case Move():
            return _wish(turn, memory, order)
        case Pause():
            return replace(memory, pause=(order.number, order.paused))
        case Save():
            held = record.snapshot.generation if record.snapshot else 0
            if order.form:
                return memory.answered(order.number, "HA-003", "an array is served already")
            if order.expects != held or memory.save is not None:
                why = f"the journal holds generation {held}, this change was made for {order.expects}"
                return memory.answered(order.number, "HA-055", why)
            return replace(memory, save=order)
        case Repaired():
            if order.drive not in record.failed or memory.repair is not None:
                return memory.answered(
                    order.number, "HA-007", f"drive {order.drive} is not failed, or another one is seen to"
                )
            return replace(memory, repair=(order.number, order.drive))


def _wish(turn: Turn, memory: Memory, order: Move) -> Memory:
    record, service = memory.record, turn.seen.map
    assert record is not None
    groups = frozenset(g for g in order.groups if record.owners.get(g) not in (None, order.to))
    why = _hindered(turn, memory, order.to, groups)
    if order.groups - record.owners.keys():
        why = f"there is no group {min(order.groups - record.owners.keys())}"
    if why or service is None:
        return memory.answered(order.number, "HA-005", why or "the map is not known")
    if not groups:
        return memory.answered(order.number)
    memory = replace(memory, homing=False)
    moving = {**memory.moving, **{group: Moving(to=order.to, since=turn.now, order=order.number) for group in groups}}
    return replace(memory, moving=moving)


def _hindered(turn: Turn, memory: Memory, to: NodeName, groups: Iterable[GroupId]) -> str:
    """Why a planned move cannot be made now; empty if it can."""
    record, says, peer = memory.record, turn.seen.peer.says, other(memory.node)
    assert record is not None
    if record.paused:
        return "hands are off: resume first"
    if peer not in record.members:
        return f"node {peer} is no member"
    if says is None or says.phase is not Phase.MEMBER or says.key != record.members[peer]:
        return f"node {peer} is not heard as a member"
    held = record.snapshot.generation if record.snapshot else 0
    if (says.built if to == peer else turn.seen.engine.built) < held:
        return f"node {to} has not been built to generation {held} yet: apply first"
    if record.stale or frozenset(groups) & record.resync:
        return "mirrors are being rebuilt where they are"
    return ""


def _expire(turn: Turn, memory: Memory) -> Memory:
    """A move that takes too long is taken back, by a record, since the owner may have released already."""
    late = {g: m for g, m in memory.moving.items() if turn.now - m.since > turn.policy.drain_ms}
    if not late:
        return memory
    for moving in {m.order: m for m in late.values()}.values():
        memory = memory.answered(moving.order, "HA-005", f"its I/O did not end within {turn.policy.drain_ms} ms")
    return replace(memory, moving={g: m for g, m in memory.moving.items() if g not in late}, cancel=True)


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
    settled = frozenset(drive for drive in record.stale if legs_on(service, drive) <= done & everywhere)
    changed = replace(
        changed, owners=owners, failed=failed, stale=stale - settled, refused=refused, resync=record.resync - done,
        paused=memory.pause[1] if memory.pause is not None else record.paused,
    )  # fmt: skip
    if memory.mended & record.failed:
        changed = replace(changed, refused=_refused(service, changed))
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


def _refused(service: ServiceMap, record: Record) -> frozenset[str]:
    """What cannot be served now that a drive came back."""
    none = replace(record, refused=frozenset(), failed=frozenset())
    lost: frozenset[str] = frozenset()
    for drive in sorted(record.failed):
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
    ready = {g: node for g, node in to.items() if not _hindered(turn, memory, node, (g,))}
    if not ready:
        return memory
    return replace(memory, moving={g: Moving(to=node, since=turn.now) for g, node in ready.items()})


def _standing(turn: Turn, memory: Memory, record: Record) -> str:
    """The sentence of a member when nothing else is to be said."""
    peer = other(memory.node)
    role = "leads" if memory.leads else f"follows node {record.leader} in"
    where = f"{role} epoch {record.epoch}, serves {len(memory.owned())} of {len(record.owners)} groups"
    if record.paused:
        return f"{where}; hands are off"
    if peer not in record.members:
        return f"{where}; node {peer} is out" + ("" if memory.leads else ": waits for the leader")
    if memory.moving:
        return f"{where}; moves {', '.join(str(group) for group in sorted(memory.moving))}"
    if not heard(turn):
        return f"{where}; node {peer} is silent on the network, its slot on the drives goes on"
    if memory.rebuild is not None:
        return f"{where}; rebuilds mirrors"
    return where
