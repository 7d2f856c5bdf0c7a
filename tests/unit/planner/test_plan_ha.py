"""Plans for an array whose agents own the ANA states: no plan ever raises, lowers or drains."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_model import MIB, Model, ha_array, small_array

from controlplane.domain.desired import HaMode, Volume
from controlplane.domain.image import AnaState
from controlplane.planner import steps as s
from controlplane.planner.steps import Risk

ANA = (s.SetAna, s.Drain)


@pytest.fixture
def model() -> Model:
    """An applied array, each group raised by its agent at home."""
    made = Model(ha_array())
    made.settle(ha_array())
    nqn = ha_array().subsystem("default").nqn
    made.serve(nqn, 1, "a")
    made.serve(nqn, 2, "b")
    return made


def test_listeners_of_a_new_array_stay_inaccessible() -> None:
    model = Model(ha_array())
    assert model.settle(ha_array()) > 50
    for image in model.nodes.values():
        for sub in image.subsystems.values():
            assert sub.listeners
            assert all(set(states.values()) == {AnaState.INACCESSIBLE} for states in sub.listeners.values())


@pytest.mark.parametrize("owner", ["a", "b"])
def test_whoever_serves_a_group_there_is_nothing_to_plan(model: Model, owner: str) -> None:
    nqn = ha_array().subsystem("default").nqn
    for group in (1, 2):
        model.serve(nqn, group, owner)
    proposal = model.propose(ha_array())
    assert not proposal.problems
    assert not proposal.plan


def test_owners_in_the_state_move_nothing(model: Model) -> None:
    model.save(replace(model.state, owners={"default": {1: "b", 2: "b"}}))
    assert not model.propose(ha_array()).plan


def test_a_listener_that_is_replaced_goes_without_lowering_and_comes_inaccessible(model: Model) -> None:
    nodes = ha_array().nodes
    port = replace(nodes[0].ports[0], service=4421)
    moved = replace(ha_array(), nodes=(replace(nodes[0], ports=(port,)), nodes[1]))
    steps = model.propose(moved).plan.steps
    assert [(type(step), step.node, step.risk) for step in steps] == [
        (s.ChangeListener, "a", Risk.PATH_LOSS),
        (s.ChangeListener, "a", Risk.NONE),
    ]
    model.settle(moved)
    sub = model.nodes["a"].subsystems[ha_array().subsystem("default").nqn]
    assert [set(states.values()) for states in sub.listeners.values()] == [{AnaState.INACCESSIBLE}]
    assert not model.propose(moved).plan


def test_volumes_come_and_go_while_their_group_is_served(model: Model) -> None:
    array = ha_array()
    more = replace(array, volumes=(*array.volumes, Volume(name="v9", size_bytes=2 * MIB, pool="fast", hosts=("h1",))))
    for wanted in (more, array):
        proposal = model.propose(wanted)
        assert not proposal.problems
        assert proposal.plan
        assert not [step for step in proposal.plan.steps if isinstance(step, ANA)]
        model.settle(wanted)
        assert not model.propose(wanted).plan


def test_a_node_that_comes_back_empty_is_built_and_raises_nothing(model: Model) -> None:
    model.serve(ha_array().subsystem("default").nqn, 1, "b")
    model.restart("a")
    model.settle(ha_array())
    states = model.nodes["a"].subsystems[ha_array().subsystem("default").nqn].listeners.values()
    assert all(set(each.values()) == {AnaState.INACCESSIBLE} for each in states)
    assert model.owners(ha_array().subsystem("default").nqn, 1) == ["b"]


def test_high_availability_cannot_be_taken_off_an_applied_array(model: Model) -> None:
    plain = replace(ha_array(), ha=HaMode.NONE, ha_intent=None)
    assert [problem.code for problem in model.propose(plain).problems] == ["PLAN-026"]


def test_high_availability_can_be_put_on() -> None:
    model = Model(small_array())
    model.settle(small_array())
    proposal = model.propose(ha_array())
    assert not proposal.problems
    assert not proposal.plan, "the agents take the groups over as they are"


def test_a_mirror_that_lost_a_leg_is_repaired_by_its_owner(model: Model) -> None:
    image = model.nodes["b"]
    name = next(name for name, raid in image.raids.items() if raid.level == "raid1")
    split = replace(image.raids[name], members=("", image.raids[name].members[1]))
    model.nodes["b"] = replace(image, raids={**image.raids, name: split})
    problems = model.propose(ha_array()).problems
    assert [problem.code for problem in problems] == ["PLAN-019"]
    assert "ws7000 ha drive-repaired" in problems[0].remedy
