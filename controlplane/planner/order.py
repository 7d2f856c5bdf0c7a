"""In which order: steps of all nodes, sorted into stages.

Invariant: within a stage no step needs another; between stages each one may need all before it.  Every prefix
of the result is safe: what is exported stands on complete sets, and a group is raised only after it was
lowered and drained wherever else it was served (I1).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from controlplane.planner.steps import Phase, Stage, Step


def into_stages(placed: Iterable[tuple[Phase, int, Step]]) -> tuple[Stage, ...]:
    """Stages in order of phase and depth; equal steps are kept once."""
    ordered = sorted(placed, key=lambda item: (item[0], item[1]))
    stages = []
    for (phase, _depth), members in groupby(ordered, key=lambda item: (item[0], item[1])):
        # Several listeners of one group ask for the same drain.
        unique = {(step.node, step.subject, step.sentence): step for _phase, _depth, step in members}
        stages.append(Stage(phase=phase, steps=tuple(unique.values())))
    return tuple(stages)
