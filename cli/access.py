"""What commands work on: array.yaml, the stored state, and a look at the nodes.

``array`` verbs begin with the file; ``list`` and ``show`` begin with the stored state, because that is what was
applied.  A file that is named on the command line of those has to belong to the same array.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import lines
from cli.options import Settings
from cli.output import Output
from controlplane.domain.errors import NotFound, Refused, Unreachable

if TYPE_CHECKING:
    from controlplane.domain.desired import Array
    from controlplane.domain.image import Unknown
    from controlplane.domain.state import State
    from controlplane.reconcile.reconciler import View


def load_array(settings: Settings, out: Output) -> Array:
    """The array of ``-f``, its warnings said to stderr.  Raises ``SpecError``."""
    from controlplane.spec.load import load

    if settings.file == "-":
        loaded = load(sys.stdin.read(), "<stdin>")
    else:
        loaded = load(Path(settings.file), os.fspath(settings.file))
    for warning in loaded.warnings:
        for line in lines(warning, label="warning"):
            out.say(line)
    return loaded.array


def stored_state(settings: Settings, out: Output) -> State:
    """The newest stored state.  Raises ``NotFound`` (CLI-003) where nothing was applied yet."""
    from controlplane.store.file import FileStore

    state = FileStore(settings.state).load()
    if state is not None and state.array.active_active:
        state = _from_the_drives(settings, out, state)
    if state is None:
        raise NotFound(
            "CLI-003",
            f"no array has been applied with the state folder {settings.state}",
            why="lists and switchovers work on what was applied",
            remedy="apply one with ws7000 array apply, or name its folder with --state",
        )
    if settings.file_given:
        name = load_array(settings, out).name
        if name != state.array.name:
            raise Refused(
                "STORE-004",
                f"this state folder belongs to array {state.array.name}, not {name}",
                why="what is shown would be another array's",
                remedy="use another --state folder, or the right array.yaml",
            )
    return state


def _from_the_drives(settings: Settings, out: Output, copy: State) -> State:
    """The state in the journal on the drives; this machine's copy of it where nobody who answers leads."""
    from controlplane.reconcile.agents import Agents
    from controlplane.store.file import FileStore
    from controlplane.store.journal import FORMED, HaStore

    files = FileStore(settings.state, [node.name for node in copy.array.nodes])
    try:
        return HaStore(files, Agents(copy.array, settings.state / FORMED)).load() or copy
    except Unreachable as problem:
        out.say(f"warning: this is the copy of generation {copy.generation} in {settings.state}: {problem.what}")
        return copy


def look(settings: Settings, out: Output) -> View:
    """The stored state and how the nodes are now; a silent node is said to stderr and shown as UNKNOWN.

    With high availability the owners are those that the agents tell."""
    from dataclasses import replace

    from controlplane.reconcile.agents import newest
    from controlplane.reconcile.reconciler import Reconciler, unknown_nodes

    state = stored_state(settings, out)
    with Reconciler.in_folder(state.array, settings.state) as reconciler:
        record = None if reconciler.agents is None else newest(reconciler.agents.views())
        if record is not None:
            owners: dict[str, dict[int, str]] = {}
            for group, owner in record.owners.items():
                owners.setdefault(group.subsystem, {})[group.number] = owner
            state = replace(state, owners=owners)
        view = reconciler.look(state)
    say_unknown(unknown_nodes(view), out)
    return view


def say_unknown(nodes: list[Unknown], out: Output) -> None:
    """Name the nodes that could not be observed."""
    for node in nodes:
        out.say(f"warning: node {node.node} could not be observed: {node.reason}")
