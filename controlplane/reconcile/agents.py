"""The HA agents of an array, over their control sockets: what they say, orders, and waiting for what they do.

Why: with high availability the agents alone raise and lower ANA and admit a node to the drives (I1, I6), so an apply
asks them where a plan would otherwise act.  This module must never decide who serves what, and never touch an
engine.

Invariants: each wait has a deadline, and says what it waits for; an order goes to one agent, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.domain.desired import Array
from controlplane.domain.errors import Conflict, NotFound, PartlyApplied, Refused, Unreachable, Ws7000Error
from controlplane.reconcile.agent_view import AgentView
from ha.control import Control
from ha.model import NODES, GroupId, Phase

ADMITTED_S: Final = 150.0
"""A node that was evicted twice stays out for a minute first (``Policy.quarantine_ms``)."""
SERVED_S: Final = 60.0
FORM_S: Final = 30.0
_NOT_YET: Final = ("HA-004", "HA-008")
"""What an agent answers to the order to form while it looks for a record by itself, and before it has seen the
reservations of most quorum drives."""
ORDER_S: Final = 60.0
ASK_S: Final = 5.0
AGAIN_S: Final = 0.05
Say = Callable[[str], None]


def silent(_text: str) -> None:
    """Nothing said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """A node whose agent did not answer."""

    node: str
    problem: Ws7000Error


Heard = AgentView | Unheard
Views = Mapping[str, Heard]


class Agents:
    """The agents of every node of ``array``; ``mark`` is the file by which this machine remembers that the array has
    been formed (``HaStore``), for when nobody leads."""

    def __init__(self, array: Array, mark: Path | None = None) -> None:
        self.array = array
        self._mark = mark
        self.controls: dict[str, Control] = {node.name: Control(node.agent, ASK_S) for node in array.nodes}

    def views(self) -> dict[str, Heard]:
        """What each agent says now."""
        return {name: self._ask(name) for name in self.controls}

    def _ask(self, name: str) -> Heard:
        try:
            return AgentView.of(name, self.controls[name].status())
        except Unreachable as problem:
            return Unheard(node=name, problem=problem)

    def heard(self, apart: Iterable[str] = ()) -> dict[str, AgentView]:
        """What every agent says but those of nodes ``apart``; raises ``Unreachable`` HA-060 naming those that do not
        answer."""
        views = self.views()
        left_out = set(apart)
        missing = {
            name: view.problem for name, view in views.items() if isinstance(view, Unheard) and name not in left_out
        }
        if missing:
            raise Unreachable(
                "HA-060",
                f"the agent of node {' and '.join(missing)} does not answer",
                why="; ".join(f"{problem.what}: {problem.why}".removesuffix(": ") for problem in missing.values())
                + "; without it nobody admits the node to the drives, nor raises its groups",
                remedy="start it on its node, then try again: "
                + "; ".join(f"ws7000 ha agent -f array.yaml --node {name}" for name in missing),
            )
        return {name: view for name, view in views.items() if isinstance(view, AgentView)}

    def built(self, generation: int, nodes: Iterable[str]) -> None:
        """Tell the agents of ``nodes`` that their engines have all objects of that generation of the state."""
        for name in nodes:
            self.controls[name].built(generation)

    # ------------------------------------------------------------------ the journal, for ``HaStore``

    def leader_load(self) -> tuple[int, bytes] | None:
        """Generation and snapshot of the newest state in the journal; None where no array has been formed."""
        views = self.views()
        if newest(views) is not None and not self.formed(views):
            return None
        return self.leader(views).load()

    def formed(self, views: Views) -> bool:
        """Whether an array lives on the drives: somebody has its record, or it was formed from here and is known."""
        heard = [view for view in views.values() if isinstance(view, AgentView)]
        if any(view.has_a_record for view in heard):
            return True
        return self._mark is not None and self._mark.exists() and any(view.generation for view in heard)

    def leader_save(self, expects: int, generation: int, snapshot: bytes, *, form: bool = False) -> None:
        """Put ``snapshot`` on a majority of the quorum drives; node a's agent forms the array."""
        if form:
            self._form(expects, generation, snapshot)
            return
        try:
            self.leader().save(generation, expects, snapshot, deadline_s=ORDER_S)
        except Refused as problem:
            if problem.code != "HA-055":
                raise
            raise Conflict(problem.code, problem.what, why=problem.why, remedy=problem.remedy) from problem

    def _form(self, expects: int, generation: int, snapshot: bytes) -> None:
        """Node a's agent learns which drives there are; once it has looked at them, it forms the array."""
        control = self.controls[NODES[0]]
        control.learn(snapshot)
        until = time.monotonic() + FORM_S
        while True:
            try:
                control.save(generation, expects, snapshot, form=True, deadline_s=ORDER_S)
            except Refused as problem:
                if problem.code not in _NOT_YET or time.monotonic() >= until:
                    raise
                time.sleep(AGAIN_S)
            else:
                return

    def taught(self) -> dict[str, Heard]:
        """``views``, after the state of the journal was given to agents that know of none: a node that is new to the
        array finds the drives by it.  While nobody leads there is nothing to give."""
        views = self.views()
        new = [name for name, view in views.items() if isinstance(view, AgentView) and not view.generation]
        record = newest(views)
        if new and record is not None and record.leader in views and isinstance(views[record.leader], AgentView):
            found = self.controls[record.leader].load()
            if found is not None:
                for name in new:
                    self.controls[name].learn(found[1])
        return views

    # ------------------------------------------------------------------ waiting

    def wait_admitted(self, nodes: Iterable[str], say: Say = silent) -> bool:
        """Wait until each of ``nodes`` may use its drives: it is a member, or no array has been formed on them yet.
        Whether there was anything to wait for.  Raises ``PartlyApplied`` HA-062."""
        wanted = sorted(nodes)

        def late(name: str, view: Heard) -> Ws7000Error:
            return PartlyApplied(
                "HA-062",
                f"node {name} was not admitted to the drives within {ADMITTED_S:g} s",
                why=_says(view),
                remedy="see ws7000 ha status; a paused array admits nobody, and a node that was evicted several times "
                "waits. Then apply again",
            )

        return _wait(
            self.taught,
            lambda views: [name for name in wanted if not self._admitted(views[name], views)],
            lambda view: f"waiting until its agent is a member ({_says(view)})",
            late,
            within_s=ADMITTED_S,
            say=say,
        )

    def _admitted(self, view: Heard, views: Views) -> bool:
        """A member may use the drives; and so may anybody as long as no array has been formed on them."""
        return isinstance(view, AgentView) and (view.phase is Phase.MEMBER or not self.formed(views))

    def wait_served(self, say: Say = silent) -> bool:
        """Wait until every group of the record is raised by its owner; not while the array is paused.
        Raises ``PartlyApplied`` HA-063."""

        def late(name: str, view: Heard) -> Ws7000Error:
            return PartlyApplied(
                "HA-063",
                f"node {name} does not serve {_owed(view)}, which it owns, after {SERVED_S:g} s",
                why=_says(view),
                remedy="see ws7000 ha status; all that the plan had to do has been done",
            )

        return _wait(
            self.views,
            _unserved,
            lambda view: f"waiting until its agent serves {_owed(view)} ({_says(view)})",
            late,
            within_s=SERVED_S,
            say=say,
        )

    # ------------------------------------------------------------------ orders

    def failback(self, say: Say = silent) -> None:
        """Send every group home, and return when it is served there; raises what the agent answers."""
        self.leader().failback(ORDER_S)
        self.wait_served(say)

    def switchover(self, to: str, subsystem: str | None = None, say: Say = silent) -> None:
        """Let the leader move groups, ``home`` for each group's home, and return when they are served there.  Raises
        what the agent answers."""
        if to == "home" and subsystem is not None:
            raise Refused(
                "HA-069",
                f"the groups of subsystem {subsystem} alone cannot be sent home",
                why="they have different homes, and an order of the agents names one node",
                remedy="ws7000 ha failback sends all groups home; ws7000 ha switchover --to NODE moves one subsystem",
            )
        node = next((name for name in NODES if name == to), None)
        if node is None and to != "home":
            raise NotFound(
                "PLAN-014",
                f"there is no node {to!r}",
                why=f"the array has {', '.join(self.controls)}",
                remedy="name one of these, or home",
            )
        if node is None:
            self.failback(say)
        else:
            self.leader().switchover(node, subsystem, ORDER_S)
            self.wait_served(say)

    def leader(self, views: Views | None = None) -> Control:
        """The agent that orders go to.  Raises ``Unreachable`` HA-068."""
        views = self.views() if views is None else views
        found = newest(views)
        if found is not None and found.leader is not None and isinstance(views.get(found.leader), AgentView):
            return self.controls[found.leader]
        raise Unreachable(
            "HA-068",
            "the agent that leads does not answer, so nobody takes the order",
            why="; ".join(f"node {name}: {_says(view)}" for name, view in views.items()),
            remedy="see ws7000 ha status; start the agents (ws7000 ha agent), or run this on the node that leads",
        )


def newest(views: Views) -> AgentView | None:
    """The view with the newest record; None where no agent answers."""
    heard = [view for view in views.values() if isinstance(view, AgentView)]
    return max(heard, key=lambda view: (view.epoch, view.sequence), default=None)


def left_out(views: Views) -> frozenset[str]:
    """Nodes that are no members of the newest record, so that no drive takes anything from them.  None while nobody
    leads: then it is not known who has been fenced."""
    record = newest(views)
    if record is None or record.leader is None:
        return frozenset()
    return frozenset(views) - record.members


def _unserved(views: Views) -> list[str]:
    """Members that do not serve all they own; whoever is no member owes nothing."""
    record = newest(views)
    if record is None or not record.epoch:
        return list(views)
    if record.paused:
        return []
    members = [name for name in views if name in record.members]
    return [name for name in members if isinstance(view := views[name], Unheard) or owed(view, record)]


def owed(view: AgentView, record: AgentView) -> frozenset[GroupId]:
    """Groups that the newest record gives the node and that it does not serve; its own may be an older one."""
    return frozenset(group for group, owner in record.owners.items() if owner == view.node) - view.raised


def _owed(view: Heard) -> str:
    named = sorted(map(str, owed(view, view))) if isinstance(view, AgentView) else []
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "") or "its groups"


def _says(view: Heard) -> str:
    if isinstance(view, Unheard):
        return view.problem.what
    return f"it is {view.phase.value}: {view.sentence}" if view.sentence else f"it is {view.phase.value}"


def _wait(
    look: Callable[[], Views],
    behind: Callable[[Views], list[str]],
    told: Callable[[Heard], str],
    late: Callable[[str, Heard], Ws7000Error],
    *,
    within_s: float,
    say: Say,
) -> bool:
    """Until nobody is behind; whether anybody was."""
    until = time.monotonic() + within_s
    said: dict[str, str] = {}
    while left := behind(views := look()):
        for name in left:
            if said.get(name) != (text := told(views[name])):
                said[name] = text
                say(f"{name}: {text}")
        if time.monotonic() >= until:
            raise late(left[0], views[left[0]])
        time.sleep(AGAIN_S)
    return bool(said)
