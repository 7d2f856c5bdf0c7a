"""What changes the array: apply and switchover, with progress, consent and the result in words.

Consent: what would be destroyed is named, and either ``--destroy NAME``, ``--yes``, or a person who types the name
on a terminal agrees to it.  Without a terminal nobody is asked, and nothing is destroyed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cli.access import load_array, say_unknown, stored_state
from cli.options import Settings
from cli.output import Output
from cli.plan_lines import diff_lines, plan_json, plan_lines, remarks, summary
from controlplane.domain.errors import ExitCode, Refused, Ws7000Error
from controlplane.planner.plan import Consent, Proposal, refuse_loss
from controlplane.reconcile.reconciler import Applied, Reconciler, View, unknown_nodes
from controlplane.reconcile.switchover import moved_owners

if TYPE_CHECKING:
    from collections.abc import Callable

    from controlplane.domain.desired import Array
    from controlplane.reconcile.apply import Progress


def propose(settings: Settings, out: Output, array: Array) -> tuple[View, Proposal]:
    """Look at the nodes and plan; silent nodes are named."""
    with Reconciler.in_folder(array, settings.state) as reconciler:
        view, proposal = reconciler.propose()
    say_unknown(unknown_nodes(view), out)
    return view, proposal


def show_plan(settings: Settings, out: Output, array: Array, *, as_diff: bool = False) -> tuple[View, Proposal]:
    """Plan and write the plan; raises the refusals after it was written."""
    view, proposal = propose(settings, out, array)
    write_plan(out, array.name, view, proposal, as_diff=as_diff)
    return view, proposal


def write_plan(out: Output, name: str, view: View, proposal: Proposal, *, as_diff: bool = False) -> None:
    """The plan in the wanted form, then its refusals as an error."""
    plan, wide = proposal.plan, out.settings.format.value == "wide"
    losses = [str(loss.details["name"]) for loss in refuse_loss(view.state, proposal, Consent())]
    if not proposal.refused or not out.for_people:
        told = [f"array {name}: {summary(proposal)}"]
        told += diff_lines(plan, wide=wide) if as_diff else plan_lines(plan, wide=wide)
        told += remarks(plan)
        if losses:
            words = " ".join(f"--destroy {loss}" for loss in losses)
            told.append(f"apply will refuse this unless the loss is agreed to: {words}")
        body = plan_json(name, proposal, proposal.problems) | {"needs_consent": losses}
        out.value("Diff" if as_diff else "Plan", body, told)
    raise_problems(proposal)


def raise_problems(proposal: Proposal) -> None:
    """Raise the first refusal, carrying all."""
    if not proposal.problems:
        return
    first = proposal.problems[0]
    first.details = {**first.details, "problems": [problem.to_json() for problem in proposal.problems]}
    raise first


def apply_array(settings: Settings, *, destroy: tuple[str, ...], yes: bool) -> None:
    """Make the nodes what array.yaml says."""
    out = Output(settings)
    array = load_array(settings, out)
    with Reconciler.in_folder(array, settings.state) as reconciler:
        applied = _with_consent(
            out, Consent(everything=yes, names=frozenset(destroy)), lambda consent: _run(out, reconciler, consent)
        )
    destroyed = {step.destroys for plan in applied.plans for step in plan.steps}
    for name in sorted(set(destroy) - destroyed):
        out.say(f"note: --destroy {name} was not needed: nothing of that name lost its data")
    _write_applied(out, array.name, applied)


def switch_over(settings: Settings, *, to: str, subsystem: str | None, dry_run: bool) -> None:
    """Move ANA groups; the array as it was applied is the one that counts, not what the file says now."""
    out = Output(settings)
    state = stored_state(settings, out)
    if state.array.active_active:
        from cli.ha.orders import switch_over_by_agents

        switch_over_by_agents(out, state, to=to, subsystem=subsystem, dry_run=dry_run)
        return
    with Reconciler.in_folder(state.array, settings.state) as reconciler:
        if dry_run:
            view = reconciler.look()
            moved = replace(view, state=replace(view.state, owners=moved_owners(view.state, to, subsystem)))
            say_unknown(unknown_nodes(view), out)
            write_plan(out, state.array.name, *reconciler.propose(moved))
            return
        with out.progress() as advance:
            applied = reconciler.switchover(to, subsystem, listen=_told(out, advance))
    _write_applied(out, state.array.name, applied)


def _run(out: Output, reconciler: Reconciler, consent: Consent) -> Applied:
    with out.progress() as advance:
        return reconciler.apply(consent, listen=_told(out, advance))


def _told(out: Output, advance: Callable[[int, int, str], None]) -> Callable[[Progress], None]:
    def listen(progress: Progress) -> None:
        step = progress.step
        if progress.waits:
            out.say(progress.waits)
            return
        advance(progress.done, progress.total, f"{step.node}: {step.sentence}" if step else "")

    return listen


def _with_consent(out: Output, consent: Consent, run: Callable[[Consent], Applied]) -> Applied:
    """Run; when a loss is refused and a person is there, ask for its name and run again."""
    while True:
        try:
            return run(consent)
        except Refused as refusal:
            names = _losses(refusal)
            if not names or not out.for_people or not sys.stdin.isatty():
                raise
            consent = replace(consent, names=consent.names | {_typed(out, name, refusal) for name in names})


def _losses(refusal: Refused) -> list[str]:
    """Names that consent would help for; empty when something else was refused too."""
    found: Any = refusal.details.get("problems") or [refusal.to_json()]
    if any(body["code"] != "PLAN-011" for body in found):
        return []
    return [str(body["details"]["name"]) for body in found]


def _typed(out: Output, name: str, refusal: Ws7000Error) -> str:
    out.say(f"This destroys the data of {name}, for good.")
    typed = click.prompt(f"Type {name} to agree", err=True, default="", show_default=False)
    if typed != name:
        raise Refused(
            "CLI-002",
            f"not agreed: {typed!r} was typed, not {name!r}",
            why="nothing is destroyed unless its name is typed",
            remedy=f"apply again and type {name}, or keep it in array.yaml",
        ) from refusal
    return name


def _write_applied(out: Output, name: str, applied: Applied) -> None:
    steps = sum(len(plan.steps) for plan in applied.plans)
    rounds = len(applied.plans)
    words = (
        f"array {name}: {steps} step{'s' if steps != 1 else ''} done in {rounds} round{'s' if rounds != 1 else ''}; "
        f"generation {applied.state.generation}"
        if applied.changed
        else f"array {name}: nothing to do; generation {applied.state.generation}"
    )
    body = {
        "name": name,
        "changed": applied.changed,
        "steps": steps,
        "rounds": rounds,
        "generation": applied.state.generation,
    }
    # What waited in an earlier round was seen to in a later one; only notes of all rounds still hold.
    notes = [line for plan in applied.plans for line in remarks(replace(plan, pending=()))]
    for line in dict.fromkeys(notes):
        out.say(line)
    out.value("Applied", body, [words])


def differs(proposal: Proposal) -> int:
    """The exit status of ``diff`` and ``plan --check``."""
    return int(ExitCode.DIFFERS if proposal.plan.steps else ExitCode.OK)
