"""Who is to own which ANA group after a planned move: pure, so that a dry run and the real thing agree."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain.errors import NotFound
from controlplane.domain.state import GROUP_OF_HOME, State


def moved_owners(state: State, to: str, subsystem: str | None = None) -> Mapping[str, Mapping[int, str]]:
    """``State.owners`` with the groups of one subsystem, or of all, at node ``to``; ``home`` gives them back to
    their homes.  Raises ``NotFound`` (PLAN-014, PLAN-015)."""
    names = [node.name for node in state.array.nodes]
    if to not in (*names, "home"):
        raise NotFound(
            "PLAN-014",
            f"there is no node {to!r}",
            why=f"the array has {', '.join(names)}",
            remedy="name one of these, or home",
        )
    chosen = [name for name in state.subsystems if subsystem in (None, name)]
    if subsystem is not None and not chosen:
        raise NotFound(
            "PLAN-015",
            f"there is no subsystem {subsystem!r}",
            why=f"the array has {', '.join(state.subsystems) or 'none'}",
            remedy="see ws7000 subsystem list",
        )
    owners = {name: dict(groups) for name, groups in state.owners.items()}
    for name in chosen:
        owners[name] = {} if to == "home" else dict.fromkeys(GROUP_OF_HOME.values(), to)
    return {name: groups for name, groups in owners.items() if groups}
