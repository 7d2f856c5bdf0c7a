"""The power of a node for the operator: asked of its BMC, or switched, and told in words.

Nothing here decides about the array: a node that loses its power is fenced and stood in for by the other one's agent.
"""

from __future__ import annotations

import asyncio
import sys

import click

from cli.output import Output
from controlplane.domain.desired import Array, Bmc
from controlplane.domain.errors import Refused, UsageError, Ws7000Error
from ha.adapters.power import ask, told
from ha.model import NodeName

_ENDS_IT = ("off", "cycle")


def switch(out: Output, array: Array, node: NodeName, action: str, *, agreed: bool) -> None:
    """Carry it out and say how the power is now.  Raises HA-070 to HA-074."""
    bmc = _bmc(array, node)
    if action in _ENDS_IT and not agreed:
        _agreed(out, node, action)
    state = asyncio.run(ask(node, bmc, action))
    done = "" if action != "cycle" else "; it was left off" if state == "off" else "; it was power-cycled"
    body = {"name": node, "action": action, "power": state}
    out.value("NodePower", body, [f"node {node}: its power is {state}{done}"])


def say_power(out: Output, array: Array, node: NodeName) -> None:
    """What the BMC says before somebody gives their word that the node is off; nothing without a BMC."""
    bmc = array.node(node).bmc
    if bmc is None:
        return
    try:
        state = asyncio.run(ask(node, bmc, "status"))
    except Ws7000Error as problem:
        out.say(f"warning: whether node {node} is off cannot be asked: {told(problem)}")
    else:
        loud = "" if state == "off" else "WARNING: "
        out.say(f"{loud}the BMC of node {node} at {bmc.where} says that its power is {state}")


def _bmc(array: Array, node: NodeName) -> Bmc:
    bmc = array.node(node).bmc
    if bmc is None:
        raise UsageError(
            "HA-071",
            f"no BMC is configured for node {node}",
            why=f"array {array.name} was applied without a bmc for it",
            remedy="add bmc: {redfish: https://..., user: ..., password_file: ...} to the node, and apply",
        )
    return bmc


def _agreed(out: Output, node: NodeName, action: str) -> None:
    typed = ""
    if out.for_people and sys.stdin.isatty():
        out.say(f"{action} ends what runs on node {node} at once, without its operating system.")
        typed = click.prompt(f"Type the name of the node ({node})", err=True, default="", show_default=False)
    if typed != node:
        raise Refused(
            "HA-074",
            f"nobody agreed that node {node} is switched: {action}",
            why="what runs there ends at once, and the other node takes over what it served",
            remedy=f"run the command on a terminal and type {node}, or add --yes",
        )
