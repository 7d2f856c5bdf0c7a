"""Taking over: the one place where its order stands.

    win the quorum drives -> fence all others -> verify by Reservation Report -> read the journal -> write the next
    epoch -> make the sets what it says -> (then ``decide`` raises ANA and kicks the hosts)

Why this order: the quorum drives are raced for one by one, in the same order on both nodes, so that of two nodes that
try at once exactly one goes on.  Nothing is read before everybody else is shut out, or it could change after it was
read.  Nothing is served before a majority holds the record that says so.  This module must never reorder these steps
and never serve.

A start of both nodes and the forming of a new array are the same thing with a registration before each fence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ha.memory import Event, Kind, Memory, Step, Takeover, Turn
from ha.model import (
    Answer,
    Fence,
    GroupId,
    Load,
    NodeName,
    Outcome,
    ReadJournal,
    Record,
    Save,
    ServiceMap,
    SnapshotAt,
    Verify,
    WriteRecord,
    other,
)
from ha.serving import bearing, lost_by, mirrored

MAX_ROUNDS: Final = 3


def start(
    turn: Turn,
    memory: Memory,
    service: ServiceMap,
    kind: Kind,
    why: str,
    save: Save | None = None,
    *,
    forced: bool = False,
) -> Memory:
    """Begin: PEER_GONE for a member, ALONE for a node that is outside."""
    event = Event.PEER_GONE if kind is Kind.FAILOVER else Event.ALONE
    takeover = Takeover(
        kind=kind, why=why, started_at=turn.now, order=service.quorum, left=service.quorum, save=save, forced=forced
    )
    moved = replace(memory.moved(event, turn.now), takeover=takeover, timeline=(), moving={}, kick=None)
    return moved.noted(turn.now, why)


def advance(turn: Turn, memory: Memory, outcome: Outcome | None) -> Memory:
    """One cycle of a takeover: take the outcome of the step's work in, then go on until work is on its way."""
    assert memory.takeover is not None
    if outcome is not None and memory.takeover.step in _TAKE_IN:
        memory = _TAKE_IN[memory.takeover.step](turn, memory, outcome)
    while memory.takeover is not None and memory.operation is None and turn.now >= memory.takeover.wait_until:
        service, before = turn.seen.map, memory
        if service is None:
            return give_up(turn, memory, "the map of the array is not known here")
        memory = _BEGIN[memory.takeover.step](turn, memory, service)
        if memory is before:  # waits for the map
            break
    return memory


def give_up(turn: Turn, memory: Memory, why: str) -> Memory:
    """Stop trying for now; nothing was served on the way.  A failover that could not be completed is tried again
    from its first step while its node may live."""
    takeover = memory.takeover
    assert takeover is not None
    memory = memory.noted(turn.now, f"not possible now: {why}")
    if takeover.save is not None:
        memory = memory.answered(takeover.save.number, "HA-008", why)
    if takeover.kind is Kind.FAILOVER:
        # Tried again from its first step; ``decide`` calls it off when the peer lives after all and nothing was sent.
        again = Takeover(
            kind=takeover.kind,
            why=takeover.why,
            started_at=takeover.started_at,
            order=takeover.order,
            left=takeover.order,
            touched=takeover.touched,
            forced=takeover.forced,
            wait_until=turn.now + turn.policy.retry_ms,
        )
        return replace(memory, takeover=again, operation=None)
    return replace(memory.moved(Event.GIVEN_UP, turn.now), takeover=None, retry_at=turn.now + turn.policy.retry_ms)


def _lost(turn: Turn, memory: Memory, drive: str) -> Memory:
    """Another node was first at ``drive``: this one is shut out, or is about to be."""
    memory = memory.noted(turn.now, f"lost at drive {drive}: another node has taken over")
    takeover = memory.takeover
    assert takeover is not None
    if takeover.save is not None:
        memory = memory.answered(
            takeover.save.number, "HA-002", f"drive {drive} was reserved by another node meanwhile"
        )
    spoiled = memory.key if takeover.kind is Kind.FAILOVER else memory.spoiled
    return replace(memory.moved(Event.LOST, turn.now), takeover=None, spoiled=spoiled, retry_at=turn.now + 1)


def _sorted(outcome: Outcome, answer: Answer) -> frozenset[str]:
    return frozenset(drive for drive, said in outcome.answers.items() if said is answer)


# ------------------------------------------------------------------ race and fence


def _begin_race(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    won = len(takeover.fenced)
    if won >= service.majority:
        return _step(turn, memory, Step.FENCE, f"won {won} of {len(service.quorum)} quorum drives")
    if won + len(takeover.left) < service.majority:
        return give_up(turn, memory, f"only {won} of {len(service.quorum)} quorum drives answer")
    drive = takeover.left[0]
    if takeover.kind is Kind.FAILOVER and drive not in memory.registered:
        # It was given up before: a refusal there says nothing about who is first.
        passed = replace(takeover, left=takeover.left[1:], silent=takeover.silent | {drive})
        return replace(memory, takeover=passed)
    memory = replace(memory, takeover=replace(takeover, touched=True))
    return memory.begun(_fence(takeover, memory, (drive,)), _patience(turn, takeover))


def _patience(turn: Turn, takeover: Takeover) -> int:
    """A failover is in a hurry; a start is not, and gives no drive up for being slow."""
    return turn.policy.drive_ms if takeover.kind is Kind.FAILOVER else turn.policy.load_ms


def _fence(takeover: Takeover, memory: Memory, drives: tuple[str, ...]) -> Fence:
    return Fence(drives=drives, key=memory.key, register=takeover.kind is not Kind.FAILOVER)


def _take_in_fence(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    refused = _sorted(outcome, Answer.CONFLICT)
    if refused:
        return _lost(turn, memory, min(refused))
    fenced = takeover.fenced | _sorted(outcome, Answer.OK)
    silent = (takeover.silent | outcome.answers.keys()) - fenced
    left = tuple(drive for drive in takeover.left if drive not in outcome.answers)
    return replace(memory, takeover=replace(takeover, fenced=fenced, silent=silent, left=left))


def _begin_fence(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    able = frozenset(service.drives)
    if takeover.kind is Kind.FAILOVER:
        able &= memory.registered
    rest = able - takeover.fenced - takeover.silent
    if rest:
        drives = tuple(drive for drive in service.drives if drive in rest)
        return memory.begun(_fence(takeover, memory, drives), _patience(turn, takeover))
    slow = takeover.silent & able
    if slow and not takeover.second:
        # What is not fenced costs its volumes: ask once more, with more patience.
        memory = replace(memory, takeover=replace(takeover, second=True))
        return memory.begun(_fence(takeover, memory, tuple(sorted(slow))), turn.policy.journal_ms)
    silent = frozenset(service.drives) - takeover.fenced
    memory = replace(memory, takeover=replace(takeover, silent=silent))
    done = f"fenced {len(takeover.fenced)} drives" + _naming(", not", silent)
    return _step(turn, memory, Step.VERIFY, done)


def _begin_verify(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    seen = takeover.checked if takeover.step is Step.VERIFY else frozenset()
    drives = tuple(drive for drive in service.drives if drive in takeover.fenced - seen)
    return memory.begun(Verify(drives=drives), turn.policy.drive_ms)


def _take_in_verify(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    takeover, service = memory.takeover, turn.seen.map
    assert takeover is not None
    if service is None:
        return give_up(turn, memory, "the map of the array is not known here")
    alone = frozenset(d for d, keys in outcome.registrants.items() if keys == frozenset((memory.key,)))
    gone = frozenset(d for d, keys in outcome.registrants.items() if memory.key not in keys)
    if gone:
        return _lost(turn, memory, min(gone))
    checked = takeover.checked | alone
    crowded = frozenset(outcome.registrants) - alone
    if takeover.step is Step.CONFIRM:
        return _confirmed(turn, memory, frozenset(outcome.answers) - alone)
    silent = takeover.silent | (frozenset(outcome.answers) - frozenset(outcome.registrants))
    rounds = takeover.rounds + 1
    if crowded and rounds < MAX_ROUNDS:
        # Somebody registered between our fence and our look: shut it out again.
        again = replace(
            takeover,
            checked=checked,
            silent=silent,
            rounds=rounds,
            step=Step.FENCE,
            fenced=takeover.fenced - crowded - silent,
        )
        return replace(memory, takeover=again).noted(turn.now, "fence again: " + ", ".join(sorted(crowded)))
    silent |= crowded
    memory = replace(memory, takeover=replace(takeover, checked=checked, silent=silent, fenced=checked))
    if len(checked & frozenset(service.quorum)) < service.majority:
        return give_up(turn, memory, "a majority of the quorum drives could not be verified")
    return _step(turn, memory, Step.READ, f"verified {len(checked)} drives" + _naming(", without", silent))


def _confirmed(turn: Turn, memory: Memory, doubtful: frozenset[str]) -> Memory:
    """What was on its way when its sender was shut out may have registered it again; by the old record it could serve,
    so that is looked for once more now that the new record lies on a majority."""
    takeover = memory.takeover
    assert takeover is not None
    if not doubtful:
        return _step(turn, memory, Step.LOAD, "nobody else is registered")
    again = Takeover(
        kind=takeover.kind, why=takeover.why, started_at=takeover.started_at, order=takeover.order,
        left=takeover.order, touched=True, save=takeover.save,
    )  # fmt: skip
    memory = replace(memory, takeover=again)
    return memory.noted(turn.now, "begins anew, for somebody may have registered on " + ", ".join(sorted(doubtful)))


def _naming(words: str, drives: frozenset[str]) -> str:
    return f"{words} {', '.join(sorted(drives))}" if drives else ""


def _step(turn: Turn, memory: Memory, step: Step, done: str) -> Memory:
    assert memory.takeover is not None
    return replace(memory, takeover=replace(memory.takeover, step=step)).noted(turn.now, done)


# ------------------------------------------------------------------ read and write


def _quorum_checked(takeover: Takeover, service: ServiceMap) -> tuple[str, ...]:
    return tuple(drive for drive in service.quorum if drive in takeover.checked)


def _begin_read(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    assert memory.takeover is not None
    drives = _quorum_checked(memory.takeover, service)
    return memory.begun(ReadJournal(drives=drives, fenced=True), turn.policy.journal_ms)


def _take_in_read(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    takeover, service = memory.takeover, turn.seen.map
    assert takeover is not None
    if service is None or not outcome.found:
        return give_up(turn, memory, outcome.problem or "the journal cannot be read from a majority")
    # An attempt that was cut short may have left its record on one drive: that drive is read, or given up.
    unread = frozenset(outcome.answers) - _sorted(outcome, Answer.OK)
    if unread:
        checked = takeover.checked - unread
        takeover = replace(takeover, checked=checked, fenced=checked, silent=takeover.silent | unread)
        memory = replace(memory, takeover=takeover)
    if len(takeover.checked & frozenset(service.quorum)) < service.majority:
        return give_up(turn, memory, "the journal cannot be read from a majority")
    found = outcome.record
    if takeover.kind is Kind.FORM:
        if found is not None:
            assert takeover.save is not None
            memory = memory.answered(takeover.save.number, "HA-003", f"they hold array {found.array_uuid}")
            return give_up(turn, replace(memory, takeover=replace(takeover, save=None)), "the drives hold an array")
        return _step(turn, memory, Step.WRITE, "the drives hold no array yet")
    if found is None:
        return give_up(turn, memory, "the drives hold no record of an array")
    if found.array_uuid != service.array_uuid:
        return give_up(turn, memory, f"the drives hold array {found.array_uuid}, not {service.array_uuid}")
    memory = replace(
        memory,
        highest=max(memory.highest, found.sequence),
        takeover=replace(takeover, found=found, map_until=turn.now + turn.policy.journal_ms),
    )
    return _step(turn, memory, Step.MAP, f"read record {found.sequence} of epoch {found.epoch}")


def _begin_map(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    """The map that belongs to the record comes by itself; what is served is decided by that one."""
    takeover = memory.takeover
    assert takeover is not None
    assert takeover.found is not None
    wanted = takeover.found.snapshot.generation if takeover.found.snapshot else service.generation
    if service.generation == wanted:
        return _step(turn, memory, Step.WRITE, f"read the map of generation {wanted}")
    if turn.now > takeover.map_until:
        return give_up(turn, memory, f"the map of generation {wanted} cannot be read")
    return memory


def next_record(memory: Memory, service: ServiceMap) -> tuple[Record, bytes | None]:
    """The first record of the next epoch, and the snapshot to go with it: everything to this node."""
    takeover = memory.takeover
    assert takeover is not None
    me, peer = memory.node, other(memory.node)
    found, save = takeover.found, takeover.save
    failed = (found.failed if found else frozenset()) | takeover.silent
    snapshot = found.snapshot if found else None
    if save is not None:
        snapshot = SnapshotAt(area=0, size_bytes=len(save.snapshot), sha256=save.digest, generation=save.generation)
    evictions = dict(found.evictions) if found else {}
    if takeover.kind is Kind.FAILOVER:
        evictions[peer] = evictions.get(peer, 0) + 1
    before = found.resync if found else frozenset()
    resync = before | _unclean(memory, service, found)
    refused = found.refused if found else frozenset()
    for drive in sorted(takeover.silent):
        refused |= lost_by(service, drive, found) if found else frozenset()
    owners: dict[GroupId, NodeName] = dict.fromkeys(service.groups, me)
    record = Record(
        array_uuid=service.array_uuid,
        epoch=(found.epoch if found else 0) + 1,
        sequence=memory.highest + 1,
        leader=me,
        owners=owners,
        members={me: memory.key},
        failed=failed,
        stale=(found.stale if found else frozenset()) - failed,
        resync=resync,
        refused=refused,
        evictions=evictions,
        paused=False,
        snapshot=snapshot,
    )
    return record, save.snapshot if save is not None else None


def _unclean(memory: Memory, service: ServiceMap, found: Record | None) -> frozenset[GroupId]:
    """Groups whose mirrors may differ now: all that somebody else served when it stopped, with writes on their way."""
    if found is None:
        return frozenset()
    mine = found.members.get(memory.node) == memory.key
    return frozenset(
        group
        for group, at in service.groups.items()
        if mirrored(at) and not (mine and found.owners.get(group) == memory.node)
    )


def _begin_write(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    record, snapshot = next_record(memory, service)
    previous = memory.after(takeover.found)
    memory = replace(memory, highest=record.sequence, attempted=record, takeover=replace(takeover, record=record))
    work = WriteRecord(drives=_quorum_checked(takeover, service), record=record, previous=previous, snapshot=snapshot)
    return memory.begun(work, turn.policy.journal_ms)


def _take_in_write(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    takeover, service = memory.takeover, turn.seen.map
    assert takeover is not None
    assert takeover.record is not None
    refused = _sorted(outcome, Answer.CONFLICT)
    if refused:
        return _lost(turn, memory, min(refused))
    if service is None or len(_sorted(outcome, Answer.OK)) < service.majority:
        return give_up(turn, memory, "the record of the next epoch is not on a majority of the quorum drives")
    return _step(turn, memory, Step.CONFIRM, f"wrote epoch {takeover.record.epoch}")


# ------------------------------------------------------------------ load


def _begin_load(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    takeover = memory.takeover
    assert takeover is not None
    record = takeover.record
    assert record is not None
    kept = _already_loaded(memory)
    todo = bearing(service, record, frozenset(record.owners) - kept)
    if not todo.drop and not todo.refuse:
        return taken(turn, memory, service)
    return memory.begun(Load(drop=todo.drop, refuse=todo.refuse), turn.policy.load_ms)


def _already_loaded(memory: Memory) -> frozenset[GroupId]:
    """Groups that this node serves as it is: their sets are what they have to be, and their rebuilds go on."""
    return memory.owned() if memory.record and memory.record.members.get(memory.node) == memory.key else frozenset()


def _take_in_load(turn: Turn, memory: Memory, outcome: Outcome) -> Memory:
    takeover, service = memory.takeover, turn.seen.map
    assert takeover is not None
    if not outcome.ok or service is None:
        # Serving mirrors whose legs differ would break what was read before: try again, serve nothing new meanwhile.
        later = replace(takeover, wait_until=turn.now + turn.policy.retry_ms)
        return replace(memory, takeover=later).noted(turn.now, f"the sets are not ready: {outcome.problem}")
    return taken(turn, memory.noted(turn.now, "the sets are what the record says"), service)


def taken(turn: Turn, memory: Memory, service: ServiceMap) -> Memory:
    """The end: the record of the new epoch is this node's, and ``decide`` serves by it."""
    takeover = memory.takeover
    assert takeover is not None
    if takeover.save is not None:
        memory = memory.answered(takeover.save.number)
    if memory.save is not None:
        memory = memory.answered(memory.save.number, "HA-003", "an array was found on them and is served")
    peer = other(memory.node)
    failover = takeover.kind is Kind.FAILOVER
    return replace(
        memory.moved(Event.TAKEN, turn.now),
        record=takeover.record,
        takeover=None,
        save=None,
        taken_at=turn.now,
        lease_from=turn.now,
        released={},
        rebuilt=frozenset(),
        registered=takeover.checked,
        homing=not failover,
        kick=peer if failover else None,
        took=False,
        evicted_at=turn.now if failover else memory.evicted_at,
        detached=frozenset(),
        timeline=(*memory.timeline, (turn.now, f"serves {len(service.groups)} groups")),
    )


_Begin = Callable[[Turn, Memory, ServiceMap], Memory]
_TakeIn = Callable[[Turn, Memory, Outcome], Memory]
_BEGIN: Final[Mapping[Step, _Begin]] = {
    Step.RACE: _begin_race,
    Step.FENCE: _begin_fence,
    Step.VERIFY: _begin_verify,
    Step.READ: _begin_read,
    Step.MAP: _begin_map,
    Step.WRITE: _begin_write,
    Step.CONFIRM: _begin_verify,
    Step.LOAD: _begin_load,
}


_TAKE_IN: Final[Mapping[Step, _TakeIn]] = {
    Step.RACE: _take_in_fence,
    Step.FENCE: _take_in_fence,
    Step.VERIFY: _take_in_verify,
    Step.READ: _take_in_read,
    Step.WRITE: _take_in_write,
    Step.CONFIRM: _take_in_verify,
    Step.LOAD: _take_in_load,
}
