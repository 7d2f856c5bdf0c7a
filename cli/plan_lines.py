"""A plan in sentences that somebody can judge who has never seen the inside.

Steps that say the same on both nodes become one line; many alike become one line with a range, unless ``-o wide``
asks for each.  A step that destroys something is never folded into others.  Pure: a plan in, lines out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from controlplane.domain.errors import Ws7000Error
from controlplane.domain.image import VOLUME_PREFIX, RaidImage
from controlplane.domain.units import show_size
from controlplane.planner import steps as s
from controlplane.planner.plan import Proposal
from controlplane.planner.steps import Phase, Plan, Risk, Step

ALIKE: Final = 3
"""More than this many alike become one line."""
_HEADINGS: Final = (
    (Phase.DRAIN, "Stop serving where another node takes over"),
    (Phase.KEY_REMOVE, "Take away from hosts"),
    (Phase.DRIVE_DETACH, "Take apart"),
    (Phase.SPLIT_CREATE, "Prepare the drives"),
    (Phase.QOS, "Build the volumes"),
    (Phase.LISTENER_ADD, "Offer to hosts"),
    (Phase.ANA_RAISE, "Start serving"),
)
"""The last phase of each part of a plan, and what the part does."""
_NUMBERED: Final = re.compile(r"^(.*?)(\d+)$")
_KINDS: Final = {"raid0": "stripe sets", "raid1": "mirrors", "concat": "chains"}
_Line = tuple[tuple[str, ...], str, Step]


def heading(phase: Phase) -> str:
    """The part of the plan that a phase belongs to."""
    return next(title for last, title in _HEADINGS if phase <= last)


def plan_lines(plan: Plan, *, wide: bool = False) -> list[str]:
    """The stages as numbered parts with one line a step or group of steps."""
    told: list[str] = []
    parts = groupby(plan.stages, key=lambda stage: heading(stage.phase))
    for number, (title, stages) in enumerate(parts, 1):
        told.append(f"{number}. {title}")
        for stage in stages:
            told += [f"   {_on(nodes)}: {text}{_risk(step)}" for nodes, text, step in folded(stage.steps, wide=wide)]
    return told


def remarks(plan: Plan) -> list[str]:
    """What a plan says beside its steps."""
    told = [f"note: {note}" for note in plan.notes]
    told += [f"waits: volume {name}, until every drive of its pool has been seen" for name in plan.pending]
    told += [
        f"left alone on node {node}: {what} (not this array's)"
        for node, things in plan.unmanaged.items()
        for what in things
    ]
    return told


def summary(proposal: Proposal) -> str:
    """One line: how much, where, at which risk."""
    plan = proposal.plan
    if not plan.steps:
        return "nothing to do: the nodes are as array.yaml wants them"
    nodes = sorted({step.node for step in plan.steps})
    count = len(plan.steps)
    risk = {Risk.NONE: "no risk", Risk.PATH_LOSS: "risk: PATH LOSS", Risk.DATA_LOSS: "risk: DATA LOSS"}[plan.worst]
    return f"{count} step{'s' if count != 1 else ''} on node{'s' if len(nodes) > 1 else ''} {', '.join(nodes)}; {risk}"


def _on(nodes: tuple[str, ...]) -> str:
    return ", ".join(nodes)


def _risk(step: Step) -> str:
    match step.risk:
        case Risk.DATA_LOSS:
            return f"  [DATA LOSS: what {step.destroys or step.subject} holds is gone for good]"
        case Risk.PATH_LOSS:
            return "  [PATH LOSS: hosts lose this path]"
        case _:
            return ""


def folded(steps: Sequence[Step], *, wide: bool) -> list[_Line]:
    """Lines of one stage: (nodes, sentence, a step of the line)."""
    merged: dict[tuple[str, Risk, str], list[Step]] = {}
    for step in steps:
        merged.setdefault((step.sentence, step.risk, step.destroys), []).append(step)
    lines: list[_Line] = [
        (tuple(sorted({step.node for step in same})), sentence, same[0]) for (sentence, _, _), same in merged.items()
    ]
    if wide:
        return lines
    groups: dict[object, list[_Line]] = {}
    for line in lines:
        nodes, sentence, step = line
        key = _alike(step)
        groups.setdefault((nodes, step.risk, key) if key and not step.destroys else sentence, []).append(line)
    shown: list[_Line] = []
    for same_kind in groups.values():
        if len(same_kind) <= ALIKE:
            shown += same_kind
            continue
        nodes, _sentence, first = same_kind[0]
        shown.append((nodes, _many([step for _, _, step in same_kind]), first))
    return shown


def _alike(step: Step) -> tuple[object, ...]:
    """What steps have in common that may share a line; empty for those that never do."""
    match step:
        case s.CreateRaid(raid=raid) | s.DeleteRaid(raid=raid):
            return (type(step), raid.level, len(raid.members), raid.strip_bytes)
        case s.ChangeSplit(split=split, present=present):
            return (type(step), present, split.count, split.slice_bytes)
        case s.NamespaceAccess():
            return (type(step), step.nqn, step.host_nqn, step.visible)
        case s.AddNamespace() | s.RemoveNamespace():
            return (type(step), step.nqn)
        case s.ChangeHost() | s.ChangeListener():
            return (type(step), step.nqn, step.present)
        case s.ChangeKey():
            return (type(step), step.present)
        case s.SetAna():
            return (type(step), step.nqn, step.group, step.state)
        case s.AttachDrive() | s.DetachDrive() | s.LabelDrive() | s.Scrub():
            return (type(step),)
        case _:
            return ()


def _many(steps: list[Step]) -> str:
    """The sentence for many steps of one kind."""
    count, names = len(steps), ranges(_name(step) for step in steps)
    match steps[0]:
        case s.AttachDrive():
            return f"attach {count} drives: {names}"
        case s.DetachDrive():
            return f"detach {count} drives: {names}"
        case s.LabelDrive():
            return f"adopt {count} drives, writing this array's label on each: {names}"
        case s.ChangeSplit(split=split, present=True):
            return f"cut {count} drives into {split.count} slices of {show_size(split.slice_bytes)} each: {names}"
        case s.ChangeSplit():
            return f"give up the slices of {count} drives: {names}"
        case s.CreateRaid(raid=raid):
            return f"build {count} {_sets(raid)}: {names}"
        case s.DeleteRaid(raid=raid):
            return f"take down {count} {_sets(raid)}: {names}"
        case s.Scrub():
            scrubs = [step for step in steps if isinstance(step, s.Scrub)]
            size = show_size(sum(len(step.slices) * step.slice_bytes for step in scrubs))
            return f"write zeroes over the slices of {count} new volumes ({size}): {names}"
        case _:
            return _many_for_hosts(steps, count, names)


def _many_for_hosts(steps: list[Step], count: int, names: str) -> str:
    match steps[0]:
        case s.AddNamespace(nqn=nqn):
            return f"export {count} volumes as namespaces of {nqn}: {names}"
        case s.RemoveNamespace(nqn=nqn):
            return f"stop exporting {count} volumes of {nqn}: {names}"
        case s.NamespaceAccess(host_nqn=host, visible=visible):
            return f"{'show' if visible else 'hide'} {count} volumes {'to' if visible else 'from'} {host}: {names}"
        case s.ChangeHost(nqn=nqn, present=present):
            return f"{'allow' if present else 'disallow'} {count} hosts on {nqn}: {names}"
        case s.ChangeKey(present=present):
            change = ("put", "into") if present else ("take", "out of")
            return f"{change[0]} the secrets of {count} hosts {change[1]} the keyring: {names}"
        case s.ChangeListener(nqn=nqn, present=True):
            return f"listen on {count} addresses for {nqn}, inaccessible at first: {names}"
        case s.ChangeListener(nqn=nqn):
            return f"stop listening on {count} addresses for {nqn}: {names}"
        case s.SetAna(nqn=nqn, group=group, state=state):
            return f"ANA group {group} of {nqn} becomes {state.value.replace('_', '-')} on {count} addresses: {names}"
        case other:
            raise AssertionError(f"{type(other).__name__} is never folded")


def _name(step: Step) -> str:
    if isinstance(step, s.SetAna):
        return str(step.listener)
    return step.subject.removeprefix(VOLUME_PREFIX)


def _sets(raid: RaidImage) -> str:
    chunk = f", chunks of {show_size(raid.strip_bytes)}" if raid.strip_bytes else ""
    members = len(raid.members)
    return f"{_KINDS.get(raid.level, raid.level)} of {members} member{'s' if members != 1 else ''}{chunk}"


def ranges(names: Iterable[str], most: int = 6) -> str:
    """Names with runs of numbers as ranges: ``d00..d23, spare``; what is beyond ``most`` parts is counted."""
    parts: list[list[str]] = []
    for name in names:
        if parts and _follows(parts[-1][-1], name):
            parts[-1].append(name)
        else:
            parts.append([name])
    texts = [
        text
        for part in parts
        for text in ([(f"{part[0]}..{part[-1]}", len(part))] if len(part) > 2 else [(name, 1) for name in part])
    ]
    rest = sum(count for _, count in texts[most:])
    shown = [text for text, _ in texts[:most]]
    return ", ".join([*shown, f"and {rest} more"] if rest else shown)


def _follows(before: str, after: str) -> bool:
    one, two = _NUMBERED.match(before), _NUMBERED.match(after)
    if one is None or two is None or one[1] != two[1]:
        return False
    return int(two[2]) == int(one[2]) + 1 and len(two[2]) in (len(one[2]), len(str(int(two[2]))))


_SIGN_ADDS: Final = (
    s.AddNamespace, s.CreateSubsystem, s.CreateRaid, s.AttachDrive, s.LabelDrive, s.CreateTransport,
)  # fmt: skip
_SIGN_REMOVES: Final = (s.RemoveNamespace, s.DeleteSubsystem, s.DeleteRaid, s.DetachDrive)


def sign(step: Step) -> str:
    """``+`` for what is to come, ``-`` for what is to go, ``~`` for what is to change."""
    match step:
        case s.ChangeSplit(present=present) | s.ChangeListener(present=present):
            return "+" if present else "-"
        case s.ChangeHost(present=present) | s.ChangeKey(present=present) | s.NamespaceAccess(visible=present):
            return "+" if present else "-"
        case _ if isinstance(step, _SIGN_ADDS):
            return "+"
        case _ if isinstance(step, _SIGN_REMOVES):
            return "-"
        case _:
            return "~"


def diff_lines(plan: Plan, *, wide: bool = False) -> list[str]:
    """Every difference in one line, with its sign."""
    return [
        f"{sign(step)} {_on(nodes)}: {text}{_risk(step)}"
        for stage in plan.stages
        for nodes, text, step in folded(stage.steps, wide=wide)
    ]


def plan_json(array: str, proposal: Proposal, problems: Sequence[Ws7000Error]) -> dict[str, Any]:
    """The whole plan for programs; ``steps`` are in order."""
    plan = proposal.plan
    return {
        "name": array,
        "empty": not plan.steps,
        "refused": bool(problems),
        "risk": plan.worst.value,
        "steps": [
            {
                "node": step.node,
                "phase": stage.phase.name.lower(),
                "step": type(step).__name__,
                "subject": step.subject,
                "sentence": step.sentence,
                "risk": step.risk.value,
                "destroys": step.destroys,
                "precondition": step.precondition,
                "effect": step.effect,
                "inverse": step.inverse,
            }
            for stage in plan.stages
            for step in stage.steps
        ],
        "notes": list(plan.notes),
        "pending": list(plan.pending),
        "unmanaged": {node: list(things) for node, things in plan.unmanaged.items()},
        "problems": [problem.to_json() for problem in problems],
    }
