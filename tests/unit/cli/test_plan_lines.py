"""Plans in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_model import Model, small_array

from cli.plan_lines import diff_lines, folded, heading, plan_json, plan_lines, ranges, remarks, sign, summary
from controlplane.domain.image import DriveImage
from controlplane.planner import steps as s
from controlplane.planner.plan import Proposal
from controlplane.planner.steps import Phase, Plan, Risk, Stage


def attach(node: str, name: str) -> s.AttachDrive:
    source = f"tcp://192.0.2.1:4420/nqn.2014-08.test:{name}"
    return s.AttachDrive(
        node=node, subject=name, sentence=f"attach drive {name} ({source})", drive=DriveImage(name=name, source=source)
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["d1"], "d1"),
        (["d1", "d2"], "d1, d2"),
        (["d1", "d2", "d3"], "d1..d3"),
        ([f"d{i:02}" for i in range(24)], "d00..d23"),
        ([f"d{i}" for i in range(8, 12)], "d8..d11"),
        (["d1", "d3", "d5"], "d1, d3, d5"),
        (["a1", "a2", "a3", "b1", "c"], "a1..a3, b1, c"),
        (["d9", "d010", "d011"], "d9, d010, d011"),
        ([f"{c}" for c in "abcdefgh"], "a, b, c, d, e, f, and 2 more"),
        (["a", "b", "c", "d", "e", "f1", "f2", "f3", "g"], "a, b, c, d, e, f1..f3, and 1 more"),
    ],
)
def test_ranges(names: list[str], text: str) -> None:
    assert ranges(names) == text


def test_every_phase_has_a_heading_and_they_follow_each_other() -> None:
    titles = [heading(phase) for phase in sorted(Phase)]
    assert len(set(titles)) == sum(before != after for before, after in zip(["", *titles], titles, strict=False))


def test_the_same_on_both_nodes_is_one_line() -> None:
    lines = folded([attach("a", "d1"), attach("b", "d1")], wide=False)
    assert [(nodes, text) for nodes, text, _ in lines] == [
        (("a", "b"), "attach drive d1 (tcp://192.0.2.1:4420/nqn.2014-08.test:d1)")
    ]


def test_many_alike_are_one_line_unless_wide() -> None:
    steps = [attach(node, f"d{i:02}") for i in range(24) for node in ("a", "b")]
    assert [text for _, text, _ in folded(steps, wide=False)] == ["attach 24 drives: d00..d23"]
    assert len(folded(steps, wide=True)) == 24


def test_what_destroys_stands_alone() -> None:
    fatal = [
        s.LabelDrive(
            node="a",
            subject=f"d{i}",
            sentence=f"adopt drive d{i}, which holds data, and overwrite it",
            drive=f"d{i}",
            slice_bytes=1,
            slice_count=2,
            risk=Risk.DATA_LOSS,
            destroys=f"d{i}",
        )
        for i in range(9)
    ]
    assert len(folded(fatal, wide=False)) == 9
    shown = plan_lines(Plan(stages=(Stage(phase=Phase.DRIVE_LABEL, steps=tuple(fatal)),)))
    assert shown[1].endswith("[DATA LOSS: what d0 holds is gone for good]")


def test_a_new_array_reads_like_this() -> None:
    model = Model(small_array())
    model.settle(replace(small_array(), volumes=(), subsystems=()))
    shown = "\n".join(plan_lines(model.propose(small_array()).plan))
    assert "1. Build the volumes\n" in shown
    assert "   a: write zeroes over 6 slices of new volume v1" in shown
    assert "Start serving\n   a: ANA group 1 of " in shown


def test_every_step_of_a_life_can_be_said_and_signed() -> None:
    model = Model(small_array())
    plans = []
    for wanted in (small_array(), replace(small_array(), volumes=(), hosts=(), subsystems=())):
        for _ in range(5):
            proposal = model.propose(wanted)
            plans.append(proposal)
            if proposal.state != model.state:
                model.save(proposal.state)
            for step in proposal.plan.steps:
                model.run(step)
    signs = {sign(step) for proposal in plans for step in proposal.plan.steps}
    assert signs == {"+", "-", "~"}
    for proposal in plans:
        told = diff_lines(proposal.plan)
        assert len(told) <= len(diff_lines(proposal.plan, wide=True)) <= len(proposal.plan.steps)
        assert plan_json("t", proposal, ())["empty"] is (not proposal.plan.steps)


def test_summary_and_remarks() -> None:
    plan = Plan(
        stages=(Stage(phase=Phase.DRIVE_ATTACH, steps=(attach("a", "d1"), attach("b", "d1"))),),
        notes=("v1 is rounded up",),
        pending=("v2",),
        unmanaged={"a": ("subsystem nqn.x",)},
    )
    model = Model(small_array())
    assert summary(Proposal(plan=plan, state=model.state)) == "2 steps on nodes a, b; no risk"
    assert summary(Proposal(plan=Plan(), state=model.state)).startswith("nothing to do")
    assert remarks(plan) == [
        "note: v1 is rounded up",
        "waits: volume v2, until every drive of its pool has been seen",
        "left alone on node a: subsystem nqn.x (not this array's)",
    ]
