"""How long this node may serve, and whether its peer still can.

Both sides of one bargain, so they stand in one place.  A node serves until ``lease_lasts`` after the newest sign that
it gave and that certainly counted: a heartbeat that its peer acknowledged, or its own slot on a majority of the
quorum drives. Its peer takes over no sooner than ``takeover_wait`` after the newest sign that it received, and it
received each no earlier than it was sent.  A node that is the only member is in no such bargain, and stops only for
what cannot last.  ``policy`` holds the arithmetic.  This module must never act."""

from __future__ import annotations

from ha.memory import Memory, Turn
from ha.model import EngineState, Phase, other


def lease_until(turn: Turn, memory: Memory) -> int | None:
    """When this node has to stop; None where it serves nothing by the record, or hands are off."""
    record = memory.record
    if memory.phase not in (Phase.MEMBER, Phase.TAKING) or record is None or memory.paused:
        return None
    if record.members.get(memory.node) != memory.key:
        return None
    signs = [memory.lease_from]
    signs += [at for at in (turn.seen.peer.acked_at, turn.seen.slots.own_at) if at is not None]
    # What a hung data plane's agent still sends must not keep it: its own answers count as well.
    engine_at = turn.seen.engine.answered_at if turn.seen.engine.answered_at is not None else memory.lease_from
    if other(memory.node) not in record.members:
        # Nobody waits for this lease to end: to stop for being slow would leave nobody.
        return min(max(signs), engine_at) + turn.policy.boot_ms
    return min(max(signs) + turn.policy.lease_lasts_ms, engine_at + turn.policy.engine_ms)


def blind(turn: Turn, memory: Memory) -> bool:
    """Whether a majority of the quorum drives, which had answered this node, has not done so for a lease.  A node
    that has no way to ask them is not blind: its data plane has ended, or has just begun."""
    slots = turn.seen.slots
    if slots.own_at is None or slots.read_at is None:
        return False
    return turn.now - max(slots.own_at, slots.read_at, memory.since) > turn.policy.takeover_wait_ms


def _alone_blind(turn: Turn, memory: Memory) -> bool:
    """Whether the peer can serve where this node cannot.  This node ends its data plane by itself, for its lease may
    have been renewed a moment ago: fenced while it lives, it would have hosts meet a Reservation Conflict."""
    says, record = turn.seen.peer.says, memory.record
    if says is None or record is None or memory.paused or not heard(turn) or not blind(turn, memory):
        return False
    return says.phase is Phase.MEMBER and says.key == record.members.get(says.node) and not says.blind


def heard(turn: Turn) -> bool:
    """Whether the peer's agent was heard within the time that counts."""
    return turn.seen.peer.heard_at is not None and turn.now - turn.seen.peer.heard_at <= turn.policy.takeover_wait_ms


def peer_gone(turn: Turn, memory: Memory) -> str:
    """Why the peer, a member by the record, cannot be serving any more or is to be fenced; empty while it may live."""
    record, says = memory.record, turn.seen.peer.says
    peer = other(memory.node)
    if record is None or memory.paused or peer not in record.members:
        return ""
    key = record.members[peer]
    if says is not None and turn.seen.peer.heard_at is not None and turn.seen.peer.heard_at >= memory.peer_since:
        if says.ended == key:
            return f"the data plane of node {peer} has ended"
        if says.key not in (0, key) and says.phase in (Phase.OUTSIDE, Phase.JOINING):
            return f"node {peer} runs another data plane than the one that was admitted"
    return _silent(turn, memory)


def _silent(turn: Turn, memory: Memory) -> str:
    """Silence on both ways.  What this node cannot see, because its own reads of the slots do not come back, proves
    nothing."""
    record = memory.record
    assert record is not None
    slots = turn.seen.slots
    if slots.read_at is None or turn.now - slots.read_at > 3 * turn.policy.slot_ms + turn.policy.epsilon_ms:
        return ""
    last = max(memory.peer_at or 0, slots.peer_at or 0, memory.peer_since, memory.awake_since)
    wait = turn.policy.takeover_wait_ms
    mine = sum(1 for owner in record.owners.values() if owner == memory.node)
    theirs = len(record.owners) - mine
    if mine < theirs or (mine == theirs and memory.node == "b"):
        wait += turn.policy.yield_ms
    if turn.now - last <= wait:
        return ""
    # The time that it waited, not the one that has passed: a sentence that grew would be a new one in each cycle.
    return f"node {other(memory.node)} has been silent on the network and on the drives for more than {wait} ms"


def must_stop(turn: Turn, memory: Memory) -> str:
    """Why this node's data plane has to be killed at once; empty while it may go on."""
    if turn.seen.engine.state is not EngineState.ALIVE or memory.phase not in (Phase.MEMBER, Phase.TAKING):
        return ""
    record, says = memory.record, turn.seen.peer.says
    if record is None or record.members.get(memory.node) != memory.key:
        return ""
    # A drive that was given up is fenced when it comes back, before every member registers there again.
    refused = turn.seen.drives.conflicts & memory.registered - record.failed - record.stale
    if refused:
        return f"drive {min(refused)} refused this node: it has been fenced"
    newer = says is not None and says.leader == says.node and says.at > record.at
    if newer and says is not None and says.members.get(memory.node) != memory.key:
        return f"node {says.node} leads epoch {says.at[0]} without this node"
    if _alone_blind(turn, memory):
        return "it does not reach the quorum drives, and its peer does"
    until = lease_until(turn, memory)
    if until is not None and turn.now > until:
        return "the lease has ended: neither the peer nor the quorum drives confirmed this node in time"
    return ""
