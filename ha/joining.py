"""A node that is no member: it waits, asks to be admitted, joins; or begins alone where nobody leads.

The join protocol is the only way onto the drives beside a takeover (I6): a node registers when the leader's
heartbeats name its incarnation as a member, which the leader says only after that is on a majority of the journal.
Until it is registered it cannot read the drives, so it judges by Reservation Report and by the network alone.  This
module must never serve anything."""

from __future__ import annotations

from dataclasses import replace

from ha import takeover
from ha.keys import same_array
from ha.lease import heard
from ha.memory import Event, Kind, Memory, Turn
from ha.model import Answer, Outcome, Phase, ReadJournal, Register, Save, Work, other


def outside(turn: Turn, memory: Memory, outcome: Outcome | None) -> tuple[Memory, str]:
    """One cycle of a node that is outside."""
    if memory.spoiled == memory.key:
        return memory, "this data plane has been fenced; it is being ended"
    if turn.seen.engine.served:
        return _resume(turn, memory, outcome)
    if turn.seen.unfit:
        return _unfit(memory, turn.seen.unfit)
    if memory.save is not None:
        return _form(turn, memory, memory.save)
    service = turn.seen.map
    if service is None:
        return memory, "no array is known here yet: an apply makes one"
    says, peer = turn.seen.peer.says, other(memory.node)
    known = sum(1 for drive in service.quorum if drive in turn.seen.drives.registrants)
    memory = replace(memory, ready=known >= service.majority)
    foreign = foreign_drive(turn, memory)
    if foreign:
        return replace(memory, ready=False), f"stays outside (HA-002): drive {foreign} is registered by another array"
    if not memory.ready:
        return memory, f"waits for the drives: {known} of {len(service.quorum)} quorum drives report their reservations"
    if says is not None and heard(turn):
        if says.phase is Phase.MEMBER and says.leader == peer:
            if says.members.get(memory.node) == memory.key and _said_since(turn, memory):
                return replace(
                    memory.moved(Event.ADMITTED, turn.now), registered=frozenset(), retry_at=0
                ), f"node {peer} has admitted this node"
            return memory, f"asks node {peer}, which leads, to be admitted"
        if says.phase in (Phase.MEMBER, Phase.TAKING, Phase.JOINING):
            return memory, f"waits: node {peer} is {says.phase}"
        if says.phase is Phase.OUTSIDE and memory.node != "a" and says.key:
            return memory, "waits: both nodes are outside, and node a begins"
        settle = turn.policy.takeover_wait_ms if says.phase is Phase.OUTSIDE else turn.policy.boot_ms // 4
        why = f"no node is a member, and node {peer} is {says.phase}"
    else:
        settle = turn.policy.boot_ms if memory.node == "a" else 2 * turn.policy.boot_ms
        why = f"no node is a member, and node {peer} has not been heard for {settle} ms"
    begins = max(max(memory.since, memory.awake_since) + settle, memory.retry_at)
    if turn.now < begins:
        left_s = -(-(begins - turn.now) // 1000)  # whole seconds: the history gets each other sentence
        return memory, f"waits {left_s} s for node {peer} before it begins alone"
    return takeover.start(turn, memory, service, Kind.BOOT, why), why


def foreign_drive(turn: Turn, memory: Memory) -> str:
    """A quorum drive on which a node of another array is registered; empty where there is none.  To begin there would
    shut out who serves it, so it is never done, whoever is heard."""
    known = turn.seen.drives.registrants.items()
    return min((drive for drive, keys in known if any(not same_array(key, memory.key) for key in keys)), default="")


def _unfit(memory: Memory, why: str) -> tuple[Memory, str]:
    """Not ready, so that the leader does not admit it; and it does not begin alone."""
    if memory.save is not None:
        memory = replace(memory.answered(memory.save.number, "HA-046", why), save=None)
    return replace(memory, ready=False), f"stays outside: {why}"


def _said_since(turn: Turn, memory: Memory) -> bool:
    """Whether what the peer says was said since this agent runs without a gap: it has heard a heartbeat of that time.
    What lay in a socket meanwhile may name a member that has been shut out since."""
    acked_at = turn.seen.peer.acked_at
    return acked_at is not None and acked_at >= memory.awake_since


def _resume(turn: Turn, memory: Memory, outcome: Outcome | None) -> tuple[Memory, str]:
    """The agent was started again beside a data plane that has served: it goes on by the record, or it ends.  Until
    that is known the lease of the former agent holds."""
    service = turn.seen.map
    if outcome is not None and outcome.found:
        back = _read(turn, replace(memory, registered=frozenset(service.drives) if service else frozenset()), outcome)
        if back is not None:
            return back, "a member, as before its agent was started again"
        return replace(memory, spoiled=memory.key), "ends its data plane: the record does not name it any more"
    if outcome is not None and Answer.CONFLICT in outcome.answers.values():
        return replace(memory, spoiled=memory.key), "ends its data plane: it was fenced while its agent was away"
    if service is not None and memory.operation is None and turn.now >= memory.retry_at:
        memory = replace(memory, retry_at=turn.now + turn.policy.slot_ms)
        memory = memory.begun(ReadJournal(drives=service.quorum), turn.policy.journal_ms)
    return memory, "its agent was started again: reads whether the record still names it"


def _form(turn: Turn, memory: Memory, save: Save) -> tuple[Memory, str]:
    """Make the first record of a new array."""
    memory = replace(memory, save=None)
    service = turn.seen.map
    if not save.form:
        return memory.answered(save.number, "HA-009", "no array has been formed here"), "cannot save: no member"
    known = turn.seen.drives.registrants
    if service is None or sum(1 for drive in service.quorum if drive in known) < service.majority:
        why = "a majority of the quorum drives does not report its reservations"
        return memory.answered(save.number, "HA-008", why), f"cannot form the array: {why}"
    strangers = sorted(d for d, keys in known.items() if keys - {memory.key})
    if strangers:
        why = f"drive {strangers[0]} is registered by somebody else"
        return memory.answered(save.number, "HA-002", why), f"cannot form the array: {why}"
    return takeover.start(turn, memory, service, Kind.FORM, "a new array", save), "forms the array"


def joining(turn: Turn, memory: Memory, outcome: Outcome | None, work: Work | None) -> tuple[Memory, str]:
    """One cycle of a node that was admitted: register everywhere, then read the record."""
    says, service = turn.seen.peer.says, turn.seen.map
    named = says is not None and says.members.get(memory.node) == memory.key
    admitted = named and heard(turn) and _said_since(turn, memory)
    if service is None or (not admitted and memory.operation is None):
        return memory.moved(Event.NOT_ADMITTED, turn.now), "the leader does not admit this node any more"
    wanted = frozenset(service.drives) - says.failed if says is not None else frozenset(service.drives)
    if outcome is not None and outcome.answers and isinstance(work, Register):
        fresh = frozenset(drive for drive, said in outcome.answers.items() if said is Answer.OK)
        memory = replace(memory, registered=memory.registered | fresh, retry_at=turn.now + turn.policy.retry_ms)
    elif outcome is not None:
        joined = _read(turn, memory, outcome)
        if joined is not None:
            return joined, "a member"
        memory = replace(memory, retry_at=turn.now + turn.policy.retry_ms)
    missing = wanted - memory.registered
    if memory.operation is not None:
        return memory, "registers on the drives" if missing else "reads the record"
    if turn.now < memory.retry_at and (missing or outcome is None):
        return memory, "tries again soon: " + (
            f"not registered on {', '.join(sorted(missing))}" if missing else "the record does not name this node yet"
        )
    if missing:
        return memory.begun(Register(drives=tuple(sorted(missing)), key=memory.key), turn.policy.drive_ms), "registers"
    return memory.begun(ReadJournal(drives=service.quorum), turn.policy.journal_ms), "reads the record"


def _read(turn: Turn, memory: Memory, outcome: Outcome) -> Memory | None:
    """The member that the record makes of it; None where the record does not name it (yet)."""
    record = outcome.record
    if record is None or record.members.get(memory.node) != memory.key:
        return None
    event = Event.JOINED if memory.phase is Phase.JOINING else Event.RESUMED
    return replace(
        memory.moved(event, turn.now),
        lease_from=turn.now,
        record=record,
        highest=max(memory.highest, record.sequence),
        released={},
        rebuilt=frozenset(),
        peer_since=turn.now,
        peer_at=None,
        detached=record.failed,
    )
