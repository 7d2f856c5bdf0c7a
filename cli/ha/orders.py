"""Orders to the agents, and what came of them in words.

An order goes to the leader's agent, which carries it out or refuses it with a reason; nothing here decides.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cli.ha.power import say_power
from cli.output import Output
from controlplane.domain.desired import Array
from controlplane.domain.errors import NotFound, Refused, Unreachable, UsageError
from controlplane.domain.state import GROUP_OF_HOME, State
from controlplane.reconcile.agent_view import AgentView
from controlplane.reconcile.agents import ORDER_S, Agents, newest
from ha import history
from ha.model import NODES, GroupId, NodeName, other


def agents_of(array: Array) -> Agents:
    """The agents of an array that has any.  Raises ``Refused`` HA-061."""
    if not array.active_active:
        raise Refused(
            "HA-061",
            f"array {array.name} has no high availability",
            why="it was applied with 'ha: none', so it has no agents",
            remedy="ws7000 array switchover moves groups by hand; docs/guides/ha.md says how to set agents up",
        )
    return Agents(array)


def switch_over_by_agents(out: Output, state: State, *, to: str, subsystem: str | None, dry_run: bool) -> None:
    """Move the groups of one subsystem, or of all, as planned; ``home`` for each group's home."""
    agents = Agents(state.array)
    moves = moving(state, owners_of(agents), to=to, subsystem=subsystem)
    if not dry_run:
        agents.switchover(to, subsystem, out.say)
    told = [f"{group}: from node {owner or 'nobody'} to node {target}" for group, (owner, target) in moves.items()]
    head = "would move" if dry_run else "moved"
    body = {
        "name": state.array.name,
        "changed": bool(moves) and not dry_run,
        "moves": [{"group": str(group), "from": owner, "to": target} for group, (owner, target) in moves.items()],
    }
    lines = [f"array {state.array.name}: {head} {len(moves)} ANA group{'s' if len(moves) != 1 else ''}"]
    out.value("Switchover", body, [*lines, *(f"  {line}" for line in told)])


def owners_of(agents: Agents) -> Mapping[GroupId, NodeName]:
    """Who owns what by the newest record that an agent knows; nothing where none answers."""
    record = newest(agents.views())
    return record.owners if record else {}


def moving(
    state: State, owners: Mapping[GroupId, NodeName], *, to: str, subsystem: str | None
) -> dict[GroupId, tuple[NodeName | None, NodeName]]:
    """The groups that such an order moves: from whom, and to whom.  Raises ``NotFound`` (PLAN-014, PLAN-015)."""
    if to not in (*NODES, "home"):
        raise NotFound(
            "PLAN-014",
            f"there is no node {to!r}",
            why=f"the array has {', '.join(node.name for node in state.array.nodes)}",
            remedy="name one of these, or home",
        )
    if subsystem is not None and subsystem not in state.subsystems:
        raise NotFound(
            "PLAN-015",
            f"there is no subsystem {subsystem!r}",
            why=f"the array has {', '.join(state.subsystems) or 'none'}",
            remedy="see ws7000 subsystem list",
        )
    found: dict[GroupId, tuple[NodeName | None, NodeName]] = {}
    for name in sorted(state.subsystems):
        for number in GROUP_OF_HOME.values() if subsystem in (None, name) else ():
            group = GroupId(name, number)
            target = next((node for node in NODES if node == to), group.home)
            if owners.get(group) != target:
                found[group] = (owners.get(group), target)
    return found


def take_over(out: Output, agents: Agents, *, node: NodeName | None, peer_is_off: bool) -> None:
    """Begin a forced takeover by ``node``, or by the only one whose agent answers, once its peer's name was typed."""
    chosen = node or _only_one(agents)
    peer = other(chosen)
    if peer_is_off:
        say_power(out, agents.array, peer)
    _agreed(out, peer)
    agents.controls[chosen].take_over(peer_is_off=peer_is_off, deadline_s=ORDER_S)
    body = {"name": agents.array.name, "node": chosen, "peer_is_off": peer_is_off}
    out.value("HaTakeover", body, [f"node {chosen} takes everything over; ws7000 ha status shows how far it is"])


def _only_one(agents: Agents) -> NodeName:
    answering = [name for name, view in agents.views().items() if isinstance(view, AgentView)]
    found = [name for name in NODES if name in answering]
    if len(found) != 1:
        raise UsageError(
            "HA-067",
            "which node is to take over is not clear",
            why=f"{'both agents answer' if found else 'no agent answers'}",
            remedy="name it with --node; where both nodes run, ws7000 ha switchover is what you want",
        )
    return found[0]


def _agreed(out: Output, peer: NodeName) -> None:
    """The operator's word, typed: two nodes that both serve is what everything here is there to prevent."""
    if not (out.for_people and sys.stdin.isatty()):
        raise Refused(
            "HA-067",
            "nobody has said that the other node is off",
            why="a takeover by force rests on the word of a person who has looked, typed on a terminal",
            remedy=f"run the command on a terminal, without -o json, and type {peer}",
        )
    out.say(f"Node {peer} must have no power: look, do not guess.  Its hosts lose their connections to it.")
    typed = click.prompt("Type the name of the node that is off", err=True, default="", show_default=False)
    if typed != peer:
        raise Refused(
            "HA-067",
            f"not agreed: {typed!r} was typed, not {peer!r}",
            why="nothing is taken over by force unless the node that is off is named",
            remedy=f"make sure that node {peer} is off, and type {peer}",
        )


def events(out: Output, agents: Agents, state: Path, *, last: int, node: str | None) -> list[dict[str, Any]]:
    """The newest events of the agents by their time; of an agent that does not answer, what its folder here has."""
    found: list[dict[str, Any]] = []
    for name, control in agents.controls.items():
        if node not in (None, name):
            continue
        try:
            found += control.history(last)
        except Unreachable as problem:
            kept = history.read(state / f"agent-{name}", last)
            out.say(f"warning: {problem.what}; " + (f"{len(kept)} events are read from its folder" if kept else
                    f"node {name} is left out"))  # fmt: skip
            found += kept
    return sorted(found, key=lambda event: str(event.get("at", "")))[-last:]
