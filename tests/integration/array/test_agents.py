"""Applying an array whose agents say who serves what: real engines and control sockets, modelled agents.

The agents' own work (drives, leases, ANA) has tests of its own; here is what an apply asks of them, and in which
order it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from agent_model import Desks, ModelArray
from small_lab import MIB, SmallLab, small_lab

from controlplane.domain.desired import Array, HaIntent, HaMode, Volume
from controlplane.domain.errors import Refused, Unreachable
from controlplane.domain.image import AnaState, NodeImage
from controlplane.planner.plan import Consent
from controlplane.planner.steps import AttachDrive, SetAna
from controlplane.reconcile.apply import Progress
from controlplane.reconcile.reconciler import Applied
from ha.model import GroupId, Move, NodeName, Save

GROUPS = frozenset({GroupId("default", 1), GroupId("default", 2)})


class HaLab:
    """Engines of the small lab under two modelled agents."""

    def __init__(self, lab: SmallLab, agents: ModelArray, desks: Desks) -> None:
        self.lab, self.agents, self.desks = lab, agents, desks
        self.told: list[str] = []

    def listen(self, progress: Progress) -> None:
        if progress.waits:
            self.told.append(progress.waits)

    def apply(self, array: Array | None = None) -> Applied:
        with self.lab.reconciler(array) as reconciler:
            return reconciler.apply(Consent(everything=True), self.listen)

    def ana(self, node: str) -> set[AnaState]:
        with self.lab.reconciler() as reconciler:
            seen = reconciler.look().seen[node]
        assert isinstance(seen, NodeImage)
        subsystems = seen.subsystems.values()
        return {state for sub in subsystems for states in sub.listeners.values() for state in states.values()}


@pytest.fixture
def ha(tmp_path: Path) -> Iterator[HaLab]:
    volumes = (
        Volume(name="wide", size_bytes=6 * MIB, pool="fast", home="a", hosts=("h1",)),
        Volume(name="safe", size_bytes=3 * MIB, pool="safe", home="b", hosts=("h1",)),
    )
    paths: dict[NodeName, Path] = {"a": tmp_path / "a.agent.sock", "b": tmp_path / "b.agent.sock"}
    with small_lab("embedded", tmp_path, *volumes) as lab:
        nodes = tuple(replace(node, agent=str(paths[node.name])) for node in lab.array.nodes)
        intent = HaIntent(quorum_drives=3, secret_file=str(tmp_path / "ha.secret"))
        lab.array = replace(lab.array, nodes=nodes, ha=HaMode.ACTIVE_ACTIVE, ha_intent=intent)
        agents = ModelArray(None, GROUPS)
        with Desks(agents, paths) as desks:
            yield HaLab(lab, agents, desks)


def test_the_first_apply_forms_the_array_and_sends_each_group_home(ha: HaLab) -> None:
    applied = ha.apply()
    assert not [step for plan in applied.plans for step in plan.steps if isinstance(step, SetAna)]
    assert [type(order) for order in ha.agents.orders] == [Save, Move, Move]
    first = ha.agents.orders[0]
    assert isinstance(first, Save)
    assert first.form
    assert ha.agents.record is not None
    assert {group: group.home == owner for group, owner in ha.agents.record.owners.items()} == dict.fromkeys(
        GROUPS, True
    )
    assert sorted(ha.agents.record.members) == ["a", "b"]
    assert {agent.built_to for agent in ha.agents.nodes.values()} == {applied.state.generation}
    assert ha.ana("a") == ha.ana("b") == {AnaState.INACCESSIBLE}, "the plan raised nothing"
    again = ha.apply()
    assert not again.changed
    assert again.state == applied.state
    assert len(ha.agents.orders) == 3


def test_without_an_agent_nothing_is_changed(ha: HaLab) -> None:
    ha.desks.stop("b")
    with pytest.raises(Unreachable) as caught:
        ha.apply()
    assert caught.value.code == "HA-060"
    assert "node b" in caught.value.what
    with ha.lab.reconciler() as reconciler:
        seen = reconciler.look().seen.values()
    assert not [image for image in seen if isinstance(image, NodeImage) and (image.drives or image.transports)]
    assert not (ha.lab.folder / "state" / "node-a.json").exists()


def test_later_changes_go_through_the_journal(ha: HaLab) -> None:
    ha.apply()
    more = (*ha.lab.array.volumes, Volume(name="late", size_bytes=MIB, pool="fast", home="b"))
    applied = ha.apply(replace(ha.lab.array, volumes=more))
    saves = [order for order in ha.agents.orders if isinstance(order, Save)]
    assert [save.form for save in saves] == [True] + [False] * (len(saves) - 1)
    assert all(later.expects == earlier.generation for earlier, later in pairwise(saves))
    assert saves[-1].generation == applied.state.generation
    assert "late" in applied.state.volumes


def test_a_restarted_node_is_waited_for_before_anything_is_built_on_its_drives(ha: HaLab) -> None:
    ha.apply()
    ha.lab.restart("b")
    ha.agents.nodes["b"].waits = 12
    applied = ha.apply()
    assert isinstance(applied.plans[0].steps[-1], AttachDrive), "drives first, then the agent's word"
    assert any("b: waiting until its agent is a member (it is outside" in text for text in ha.told)
    assert ha.ana("b") == {AnaState.INACCESSIBLE}


def test_a_fenced_node_that_is_off_is_left_out(ha: HaLab) -> None:
    ha.apply()
    record = ha.agents.record
    assert record is not None
    ha.agents.record = replace(record, epoch=2, members={"a": 0xA1}, owners=dict.fromkeys(GROUPS, "a"))
    ha.lab.engines["b"].kill()
    ha.lab.engines["b"].socket.unlink(missing_ok=True)
    ha.desks.stop("b")
    more = (*ha.lab.array.volumes, Volume(name="late", size_bytes=MIB, pool="fast", home="b"))
    applied = ha.apply(replace(ha.lab.array, volumes=more))
    assert {step.node for plan in applied.plans for step in plan.steps} == {"a"}
    assert not applied.state.volumes["late"].unscrubbed, "scrubbed through the node that is there"


def test_a_silent_member_is_not_left_out(ha: HaLab) -> None:
    ha.apply()
    ha.lab.engines["b"].kill()
    ha.lab.engines["b"].socket.unlink(missing_ok=True)
    with pytest.raises(Unreachable) as caught:
        ha.apply()
    assert caught.value.code == "PLAN-010"


def test_after_a_power_cut_the_drives_are_attached_before_anybody_leads(ha: HaLab) -> None:
    before = ha.apply()
    for name in ("a", "b"):
        ha.lab.restart(name)
        ha.agents.nodes[name].waits = 6
    applied = ha.apply()
    assert all(isinstance(step, AttachDrive) for step in applied.plans[0].steps)
    assert applied.plans[0].steps
    assert applied.state.volumes == before.state.volumes


def test_high_availability_is_not_taken_off(ha: HaLab) -> None:
    ha.apply()
    with pytest.raises(Refused) as caught:
        ha.apply(replace(ha.lab.array, ha=HaMode.NONE, ha_intent=None))
    assert caught.value.code == "PLAN-026"


def test_a_switchover_is_the_leaders(ha: HaLab) -> None:
    ha.apply()
    with ha.lab.reconciler() as reconciler:
        reconciler.switchover("b")
    assert ha.agents.record is not None
    assert set(ha.agents.record.owners.values()) == {"b"}
    assert ha.ana("a") == {AnaState.INACCESSIBLE}
