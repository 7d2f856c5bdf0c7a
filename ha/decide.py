"""The decision of the HA manager: what a node does, given what it sees and remembers.

    decide(policy, memory, seen, now) -> Decision(memory, actions, sentence)

Theory of operation.  Each node runs one data plane; one life of it is an incarnation with a reservation key of its
own. The journal on the quorum drives holds the record: which incarnations are members, and which of them owns each
ANA group.  A node serves a group if, and only if, the newest record that it knows gives it the group, names this very
incarnation as a member, and the lease has not ended.  Nothing else makes it serve, so all that can go wrong is to act
by an old record; and whoever writes a record that takes something away has either heard the owner say that it let go,
or has shut it out of every drive before.

The life of a node (``memory.MOVES`` is the table; a move that is not in it cannot be made)::

    ABSENT --data plane runs--> OUTSIDE --admitted--> JOINING --registered, record read--> MEMBER
                                   |  ^                  |                                 |   ^
                     nobody leads  |  |  not admitted    |                   peer has gone |   | won, epoch written
                                   v  |<-----------------+                                 v   |
                                 TAKING  <-------------------------------------------------  TAKING
                                   |
                                   +--- lost the race: OUTSIDE (and the data plane of a member is killed)
    any phase --data plane gone--> ABSENT

Who decides what: ``lease`` how long this node may serve and whether its peer still can; ``takeover`` the order of a
takeover; ``joining`` how a node gets onto the drives; ``member`` what a member does beside serving, ``leading`` what
its leader writes, ``orders`` what the operator may ask for.  This module must do no I/O, read no clock and draw no
random number; it never raises for anything that is seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ha import joining, member, orders, takeover
from ha.leading import unregistered
from ha.lease import blind, heard, lease_until, must_stop, peer_gone
from ha.memory import Event, Kind, Memory, Turn
from ha.model import (
    NO_KEY,
    Actions,
    EngineState,
    GroupId,
    Kill,
    NodeName,
    Outcome,
    Phase,
    Says,
    Seen,
    TakeOver,
    Work,
    other,
)
from ha.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to remember, what to do, and one sentence that says why: log line, status line and simulator trace."""

    memory: Memory
    actions: Actions
    sentence: str


def first(node: str) -> Memory:
    """The memory of an agent that has just been started."""
    assert node in ("a", "b")
    return Memory(node="a" if node == "a" else "b")


def decide(policy: Policy, memory: Memory, seen: Seen, now: int) -> Decision:
    """One cycle; see the module."""
    turn = Turn(policy, seen, now)
    gap = now - memory.cycled_at > 2 * policy.heartbeat_ms
    memory = replace(memory, cycled_at=now, awake_since=now if gap else memory.awake_since)
    memory = _hear(turn, _engine(turn, memory))
    if memory.rebuild is not None and seen.outcome is not None and seen.outcome.number == memory.rebuild.number:
        memory = member.rebuilt(turn, memory, seen.outcome)
    memory, outcome, work = memory.finished(seen.outcome)
    given = memory.number
    memory = orders.orders(turn, memory)
    why = must_stop(turn, memory)
    if why:
        memory = replace(memory, spoiled=memory.key)
        sentence = f"ends its data plane: {why}"
    else:
        memory, sentence = _cycle(turn, memory, outcome, work)
    return _decision(turn, memory, given, sentence)


def _engine(turn: Turn, memory: Memory) -> Memory:
    """Follow the data plane: a new incarnation is a stranger, an ended one takes all that it was with it."""
    engine = turn.seen.engine
    alive = engine.state is EngineState.ALIVE
    if memory.phase is not Phase.ABSENT and (not alive or engine.key != memory.key):
        refused = [f.number for f in (memory.save,) if f is not None]
        refused += [m.order for m in memory.moving.values()]
        memory = replace(
            memory.moved(Event.ENGINE_GONE, turn.now), ended=memory.key, takeover=None, rebuild=None, released={},
            moving={}, save=None, saving=0, pause=None, repair=None, kick=None, cancel=False, taken_at=None, took=False,
            attempted=None, hands_on=False,
        )  # fmt: skip
        for number in dict.fromkeys(refused):
            memory = memory.answered(number, "HA-009", "the data plane of this node ended meanwhile")
    if engine.state is EngineState.DEAD and engine.key:
        memory = replace(memory, ended=engine.key)
    if memory.phase is Phase.ABSENT and alive and engine.key:
        memory = replace(memory.moved(Event.ENGINE_UP, turn.now), key=engine.key, registered=frozenset())
    return memory


def _hear(turn: Turn, memory: Memory) -> Memory:
    """Count a heartbeat as a sign of life only if the member itself gives it: the agent of a data plane that is gone
    is heard as well."""
    says, record = turn.seen.peer.says, memory.record
    if says is None or record is None or turn.seen.peer.heard_at is None:
        return memory
    if says.key == record.members.get(says.node) and says.phase in (Phase.MEMBER, Phase.TAKING, Phase.JOINING):
        return replace(memory, peer_at=turn.seen.peer.heard_at)
    return memory


def _cycle(turn: Turn, memory: Memory, outcome: Outcome | None, work: Work | None) -> tuple[Memory, str]:
    memory = _by_force(turn, memory)
    match memory.phase:
        case Phase.ABSENT:
            return memory, "no data plane runs here"
        case Phase.OUTSIDE:
            memory, sentence = joining.outside(turn, memory, outcome)
            return _taking(turn, memory, None) if memory.phase is Phase.TAKING else (memory, sentence)
        case Phase.JOINING:
            return joining.joining(turn, memory, outcome, work)
        case Phase.TAKING:
            return _taking(turn, memory, outcome)
        case Phase.MEMBER:
            if outcome is not None and work is not None:
                memory = member.take_in(turn, memory, outcome, work)
            gone = peer_gone(turn, memory)
            if gone and turn.seen.map is not None:
                memory = takeover.start(turn, _unanswered(memory), turn.seen.map, Kind.FAILOVER, gone)
                return _taking(turn, memory, None)
            return member.member(turn, memory)


def _unanswered(memory: Memory) -> Memory:
    """Orders that a takeover overtakes."""
    for number in dict.fromkeys([memory.saving, *(m.order for m in memory.moving.values())]):
        memory = memory.answered(number, "HA-005", "a takeover came between")
    return replace(memory, saving=0, moving={})


def _taking(turn: Turn, memory: Memory, outcome: Outcome | None) -> tuple[Memory, str]:
    before = memory.takeover
    assert before is not None
    if before.kind is Kind.FAILOVER and not before.touched and not before.forced and not peer_gone(turn, memory):
        called = replace(memory.moved(Event.CALLED_OFF, turn.now), takeover=None)
        return called, "the peer is alive after all"
    says = turn.seen.peer.says
    if before.kind is not Kind.FAILOVER and says is not None and heard(turn) and says.phase is Phase.MEMBER:
        memory = takeover.give_up(turn, memory, f"node {says.node} serves")
    elif before.kind is not Kind.FAILOVER and not before.forced and memory.awake_since == turn.now:
        memory = takeover.give_up(turn, memory, "this agent was away, and much may have happened")
    else:
        memory = takeover.advance(turn, memory, outcome)
    if memory.takeover is not None:
        return memory, f"takes over, because {memory.takeover.why}: {memory.takeover.step}"
    if memory.phase is Phase.MEMBER and memory.record is not None:
        epoch = memory.record.epoch
        return member.member(turn, memory)[0], f"has taken over in epoch {epoch}"
    return memory, f"could not take over: {memory.timeline[-1][1]}"


def _by_force(turn: Turn, memory: Memory) -> Memory:
    """The operator's word replaces the waiting, never the fence."""
    for order in turn.seen.orders:
        if not isinstance(order, TakeOver):
            continue
        peer = other(memory.node)
        says = turn.seen.peer.says
        alive = (
            turn.seen.peer.heard_at is not None and turn.now - turn.seen.peer.heard_at <= turn.policy.takeover_wait_ms
        )
        if not order.peer_is_off:
            memory = memory.answered(order.number, "HA-006", f"nothing was said about the power of node {peer}")
        elif alive and says is not None and says.phase in (Phase.MEMBER, Phase.TAKING):
            memory = memory.answered(order.number, "HA-006", f"node {peer} is heard and serves: it has power")
        elif memory.phase is Phase.OUTSIDE and (drive := joining.foreign_drive(turn, memory)):
            memory = memory.answered(order.number, "HA-006", f"drive {drive} is registered by another array")
        elif turn.seen.map is None or memory.phase not in (Phase.OUTSIDE, Phase.MEMBER):
            memory = memory.answered(order.number, "HA-006", f"this node is {memory.phase}, or knows no array")
        elif turn.seen.unfit and memory.phase is Phase.OUTSIDE:
            memory = memory.answered(order.number, "HA-046", turn.seen.unfit)
        elif memory.phase is Phase.MEMBER and memory.record is not None and peer not in memory.record.members:
            memory = memory.answered(order.number, "HA-006", "this node serves everything already")
        else:
            kind = Kind.FAILOVER if memory.phase is Phase.MEMBER else Kind.BOOT
            why = f"the operator says that node {peer} has no power"
            memory = takeover.start(
                turn, _unanswered(replace(memory, operation=None)), turn.seen.map, kind, why, forced=True
            )
            memory = memory.answered(order.number)
    return memory


def _decision(turn: Turn, memory: Memory, given: int, sentence: str) -> Decision:
    """The actions that follow from what is remembered now."""
    record = memory.record
    serve: frozenset[GroupId] = frozenset()
    drain: frozenset[GroupId] = frozenset()
    named = record is not None and record.members.get(memory.node) == memory.key
    if named and memory.phase in (Phase.MEMBER, Phase.TAKING) and memory.spoiled != memory.key:
        drain = member.asked(turn, memory)
        serve = memory.owned() - drain - memory.released.keys()
    kill = None
    if memory.spoiled == memory.key != 0 and turn.seen.engine.state is EngineState.ALIVE:
        kill = Kill(key=memory.key, why=sentence)
    new = max(
        (op for op in (memory.operation, memory.rebuild) if op is not None), key=lambda op: op.number, default=None
    )
    actions = Actions(
        says=_says(turn, memory),
        serve=serve,
        drain=drain,
        lease_until=lease_until(turn, memory),
        addresses=_addresses(turn, memory, named=named),
        operation=new if new is not None and new.number > given else None,
        kill=kill,
        replies=memory.replies,
    )
    return Decision(memory=replace(memory, replies=()), actions=actions, sentence=sentence)


def _says(turn: Turn, memory: Memory) -> Says:
    record = memory.record
    leads = memory.leads
    return Says(
        node=memory.node,
        phase=memory.phase,
        key=_own_key(turn, memory),
        ended=memory.ended,
        at=record.at if record else (0, 0),
        leader=record.leader if record and memory.phase is Phase.MEMBER else None,
        members=dict(record.members) if record and leads else {},
        releases=dict(memory.released),
        asks=member.asks(memory),
        rebuilt=(memory.rebuilt & memory.owned()) | (turn.seen.engine.whole - memory.owned()),
        failed=record.failed if record and leads else frozenset(),
        unregistered=unregistered(turn, memory),
        blind=memory.phase is Phase.MEMBER and blind(turn, memory),
        silent=turn.seen.drives.silent,
        built=turn.seen.engine.built,
        holds=turn.seen.holds,
        ports_up=turn.seen.ports_up,
        ports=turn.seen.ports,
    )


def _own_key(turn: Turn, memory: Memory) -> int:
    """The key to be known by; none while there is nothing that could be admitted."""
    if turn.seen.engine.state is not EngineState.ALIVE or memory.spoiled == memory.key:
        return NO_KEY
    return NO_KEY if memory.phase is Phase.OUTSIDE and not memory.ready else memory.key


def _addresses(turn: Turn, memory: Memory, *, named: bool) -> frozenset[NodeName]:
    """Whose data addresses belong here: a member's own, once a living peer has let go of them; and those of a peer that
    was shut out, from when its hosts were kicked until it is admitted again.  An agent that does not know the record
    yet leaves what is up as it is, for its data plane may be serving; what the peer holds it lets go."""
    record, says, peer = memory.record, turn.seen.peer.says, other(memory.node)
    held_there: frozenset[NodeName] = says.holds if says is not None else frozenset()
    if record is None and turn.seen.engine.state is EngineState.ALIVE:
        return turn.seen.holds - held_there
    if record is None or not named or memory.phase not in (Phase.MEMBER, Phase.TAKING):
        return frozenset()
    if memory.spoiled == memory.key:
        return frozenset()
    mine = memory.node not in held_there or peer not in record.members
    theirs = memory.took and peer not in record.members
    return frozenset(node for node, here in ((memory.node, mine), (peer, theirs)) if here)
