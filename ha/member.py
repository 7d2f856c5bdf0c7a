"""What a member does beside serving: follow the record, let go of what it is asked for, rebuild; and lead, where it
does.

Moving a group as planned: the leader asks, the owner lowers and drains and says under which record it did, the leader
gives the group away in the next record.  The owner raises it again only under a record newer than the one it released
it under.  This module must never choose who serves what.
"""

from __future__ import annotations

from dataclasses import replace

from ha.leading import expire, lead, unregistered
from ha.lease import heard
from ha.memory import Memory, Turn
from ha.model import (
    Answer,
    DetachDrives,
    Fence,
    GroupId,
    KickHosts,
    Operation,
    Outcome,
    ReadJournal,
    Rebuild,
    Record,
    Register,
    ServiceMap,
    Work,
    WriteRecord,
    other,
)
from ha.serving import to_rebuild


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
            return _repaired(memory, outcome, turn.now)
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
    resumed = (
        before is not None and before.paused and not record.paused
    )  # the peer has had no lease, and is to read this
    return replace(
        memory, record=record, saving=0, moving=moving_on,
        peer_since=turn.now if joined or resumed else memory.peer_since,
        peer_at=None if joined else memory.peer_at,
    )  # fmt: skip


def _followed(memory: Memory, outcome: Outcome) -> Memory:
    record = outcome.record
    if record is None or memory.record is None or record.at <= memory.record.at:
        return memory
    memory = _out_again(memory, memory.record, record)
    return replace(memory, record=record, highest=max(memory.highest, record.sequence), hands_on=False)


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


def _repaired(memory: Memory, outcome: Outcome, now: int) -> Memory:
    """A drive that was given up answers again, and nobody else is registered on it: its legs can be rebuilt."""
    if memory.repair is None:
        return memory
    number, drive = memory.repair
    memory = replace(memory, repair=None)
    if outcome.answers.get(drive) is not Answer.OK:
        said = outcome.answers.get(drive, Answer.FAILED)
        return memory.answered(number, "HA-007", f"drive {drive} answered {said} to the fence")
    return replace(memory.answered(number), mended=memory.mended | {drive}, mended_at=now)


def member(turn: Turn, memory: Memory) -> tuple[Memory, str]:
    """One cycle of a member: begin at most one piece of work, by urgency."""
    service, record = turn.seen.map, memory.record
    assert record is not None
    memory = _release(turn, memory, record)
    if memory.leads:
        memory = expire(turn, memory)
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
        new = unregistered(turn, memory)
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
