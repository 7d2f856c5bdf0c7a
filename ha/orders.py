"""Orders of the operator: taken in, or answered at once with what is in the way.

Only the leader changes who serves what, so that changes have one order; what a node cannot do is told with a code,
and changes nothing. This module must never write a record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ha.lease import heard
from ha.memory import Memory, Moving, Turn
from ha.model import GroupId, Move, NodeName, Pause, Phase, Repaired, Save, TakeOver, other

_NOT_LEADING: Final = "HA-004"


def orders(turn: Turn, memory: Memory) -> Memory:
    """Take new orders in; what this node cannot do is answered at once."""
    for order in turn.seen.orders:
        if isinstance(order, TakeOver):
            continue  # ``decide`` sees to it: it is no leader's business
        if isinstance(order, Save) and memory.phase in (Phase.OUTSIDE, Phase.TAKING) and memory.save is None:
            # A node that begins alone finds out first whether the drives hold an array.
            memory = replace(memory, save=order)
        elif isinstance(order, Pause) and not order.paused and _unguarded(turn, memory):
            why = f"the agent of node {other(memory.node)} is not heard, and its data plane has no lease meanwhile"
            memory = memory.answered(order.number, "HA-005", why)
        elif isinstance(order, Pause) and not order.paused and memory.paused and _leaderless(turn, memory):
            # Nobody is left to write it; with hands on, this node finds out what became of the leader.
            memory = replace(memory, hands_on=True).answered(order.number)
        elif not memory.leads:
            leader = memory.record.leader if memory.record and memory.phase is Phase.MEMBER else None
            why = f"node {leader} leads" if leader else f"this node is {memory.phase}"
            memory = memory.answered(order.number, _NOT_LEADING, why)
        else:
            memory = _order(turn, memory, order)
    return memory


def _unguarded(turn: Turn, memory: Memory) -> bool:
    """Whether to resume would fence a data plane that may live and that nothing ends before."""
    record = memory.record
    return memory.paused and record is not None and other(memory.node) in record.members and not heard(turn)


def _leaderless(turn: Turn, memory: Memory) -> bool:
    """Whether this member follows a leader that is not heard to be one."""
    says = turn.seen.peer.says
    if memory.phase is not Phase.MEMBER or memory.leads:
        return False
    return says is None or not heard(turn) or says.phase is not Phase.MEMBER


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
    why = hindered(turn, memory, order.to, groups)
    if order.groups - record.owners.keys():
        why = f"there is no group {min(order.groups - record.owners.keys())}"
    if why or service is None:
        return memory.answered(order.number, "HA-005", why or "the map is not known")
    if not groups:
        return memory.answered(order.number)
    memory = replace(memory, homing=False)
    moving = {**memory.moving, **{group: Moving(to=order.to, since=turn.now, order=order.number) for group in groups}}
    return replace(memory, moving=moving)


def hindered(turn: Turn, memory: Memory, to: NodeName, groups: Iterable[GroupId]) -> str:
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
