"""Plans: what they do, in which order, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_model import MIB, Model

from controlplane.domain.desired import (
    Array,
    PcieDrive,
    Pool,
    Protection,
    Qos,
    Subsystem,
    Volume,
    subsystem_nqn,
)
from controlplane.domain.image import AnaState, Unknown
from controlplane.planner import labels
from controlplane.planner import steps as s
from controlplane.planner.image import volume_stack, wanted_image
from controlplane.planner.plan import Consent, make_plan, refuse_loss
from controlplane.planner.steps import Phase, Risk


def codes(problems: object) -> list[str]:
    return [problem.code for problem in problems]  # type: ignore[attr-defined]


def test_a_new_array_comes_up_and_the_second_plan_is_empty(array: Array, model: Model) -> None:
    assert model.settle(array) > 50
    assert not model.propose(array).plan
    nqn = array.subsystem("default").nqn
    assert model.owners(nqn, 1) == ["a"]
    assert model.owners(nqn, 2) == ["b"]


def test_both_nodes_show_the_same_identity_with_disjoint_controllers(array: Array, model: Model) -> None:
    model.settle(array)
    a, b = (model.nodes[n].subsystems[array.subsystem("default").nqn] for n in ("a", "b"))
    assert a.namespaces == b.namespaces
    assert a.serial == b.serial
    assert a.max_cntlid < b.min_cntlid
    assert model.nodes["a"].raids == model.nodes["b"].raids


def test_phases_are_in_order_and_ana_is_raised_last(array: Array, model: Model) -> None:
    first = model.propose(array)
    assert first.plan.stages[-1].phase is Phase.DRIVE_ATTACH, "nothing is built before the drives were looked at"
    model.save(first.state)
    for step in first.plan.steps:
        model.run(step)
    phases = [stage.phase for stage in model.propose(array).plan.stages]
    assert phases == sorted(phases)
    assert phases.index(Phase.LISTENER_ADD) < phases.index(Phase.ANA_RAISE)
    assert phases[-1] is Phase.ANA_RAISE


def test_a_new_volume_is_scrubbed_before_it_is_exported(array: Array, model: Model) -> None:
    model.settle(array)
    for volume in model.state.volumes.values():
        assert {(ref.drive, ref.index) for ref in volume.slices} <= model.zeroed
        assert not volume.unscrubbed


def test_slices_of_a_deleted_volume_are_scrubbed_again(array: Array, model: Model) -> None:
    model.settle(array)
    old = set(model.state.volumes["v1"].slices)
    model.zeroed.clear()
    without = replace(array, volumes=tuple(v for v in array.volumes if v.name != "v1"))
    model.settle(without)
    model.settle(replace(without, volumes=(*without.volumes, replace(array.volumes[0], name="v9"))))
    new = set(model.state.volumes["v9"].slices)
    assert new & old
    assert {(ref.drive, ref.index) for ref in new} <= model.zeroed


def test_switchover_lowers_drains_and_only_then_raises(array: Array, model: Model) -> None:
    model.settle(array)
    model.save(replace(model.state, owners={"default": {1: "b"}}))
    plan = model.propose(array).plan
    kinds = [(step.node, type(step), getattr(step, "state", None)) for step in plan.steps]
    assert kinds == [
        ("a", s.SetAna, AnaState.INACCESSIBLE),
        ("a", s.Drain, None),
        ("b", s.SetAna, AnaState.OPTIMIZED),
    ]
    model.settle(array)
    assert model.owners(array.subsystem("default").nqn, 1) == ["b"]


def test_a_restarted_engine_gets_everything_back_and_nothing_is_scrubbed(array: Array, model: Model) -> None:
    model.settle(array)
    before = model.nodes["b"]
    model.zeroed.clear()
    model.restart("b")
    model.settle(array)
    assert model.nodes["b"] == before
    assert not model.zeroed


def test_removing_a_volume_needs_consent_by_name(array: Array, model: Model) -> None:
    model.settle(array)
    without = replace(array, volumes=array.volumes[1:])
    proposal = model.propose(without)
    assert proposal.plan.worst is Risk.DATA_LOSS
    assert codes(refuse_loss(model.state, proposal, Consent())) == ["PLAN-011"]
    assert not refuse_loss(model.state, proposal, Consent(names=frozenset({"v1"})))
    assert not refuse_loss(model.state, proposal, Consent(everything=True))


def test_consent_is_asked_even_when_no_engine_shows_the_volume(array: Array, model: Model) -> None:
    model.settle(array)
    model.restart("a")
    model.restart("b")
    proposal = model.propose(replace(array, volumes=array.volumes[1:]))
    assert codes(refuse_loss(model.state, proposal, Consent())) == ["PLAN-011"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size_bytes": 12 * MIB}, "PLAN-001"),
        ({"size_bytes": MIB}, "PLAN-001"),
        ({"home": "b"}, "PLAN-002"),
        ({"chunk_bytes": 131072}, "PLAN-002"),
    ],
)
def test_what_is_fixed_for_life_is_refused(array: Array, model: Model, change: dict[str, object], code: str) -> None:
    model.settle(array)
    changed = replace(array.volumes[0], **change)  # type: ignore[arg-type]
    assert codes(model.propose(replace(array, volumes=(changed, *array.volumes[1:]))).problems) == [code]


def test_a_drive_in_use_cannot_be_removed(array: Array, model: Model) -> None:
    model.settle(array)
    fewer = replace(array, drives=array.drives[1:], pools=(Pool(name="fast", drives=("d1", "d2")), array.pools[1]))
    assert set(codes(model.propose(fewer).problems)) == {"PLAN-003"}


def test_a_free_drive_can_be_removed_and_added(array: Array, model: Model) -> None:
    empty = replace(array, volumes=())
    model.settle(empty)
    fewer = replace(empty, drives=array.drives[1:], pools=(Pool(name="fast", drives=("d1", "d2")), array.pools[1]))
    model.settle(fewer)
    assert "d0" not in model.nodes["a"].drives
    assert "d0" not in model.state.drives
    model.settle(empty)
    assert "d0" in model.nodes["a"].splits


def test_a_volume_that_does_not_fit_says_how_much_is_missing(array: Array, model: Model) -> None:
    big = Volume(name="big", size_bytes=64 * MIB, pool="fast")
    model.settle(replace(array, volumes=()))
    problems = model.propose(replace(array, volumes=(big,))).problems
    assert codes(problems) == ["PLAN-006"]
    assert problems[0].details == {"slices_wanted": 64, "slices_free": 45}


def test_an_unknown_node_is_never_taken_for_an_empty_one(array: Array, model: Model) -> None:
    model.settle(array)
    seen = {"a": model.nodes["a"], "b": Unknown(node="b", reason="connection refused")}
    proposal = make_plan(array, model.state, seen, model.facts, model.labels)
    assert codes(proposal.problems) == ["PLAN-010"]
    assert not proposal.plan


def test_a_foreign_drive_is_adopted_only_with_consent(array: Array, model: Model) -> None:
    first = model.propose(array)
    model.save(first.state)
    for step in first.plan.steps:
        model.run(step)
    model.labels["d0"] = labels.Foreign(what="data that is not this product's")
    model.labels["d1"] = labels.Label(array_uuid="other", drive="d1", slice_bytes=MIB, slice_count=16)
    proposal = model.propose(array)
    refusals = refuse_loss(model.state, proposal, Consent())
    assert [r.details["name"] for r in refusals] == ["d0", "d1"]


def test_a_drive_that_lost_its_label_under_volumes_is_refused(array: Array, model: Model) -> None:
    model.settle(array)
    model.labels["d0"] = labels.Blank()
    assert codes(model.propose(array).problems) == ["PLAN-013"]


def test_a_swapped_drive_is_refused(array: Array, model: Model) -> None:
    model.settle(array)
    image = model.nodes["b"]
    swapped = {**image.drives, "d2": replace(image.drives["d2"], serial="OTHER")}
    model.nodes["b"] = replace(image, drives=swapped)
    assert codes(model.propose(array).problems) == ["PLAN-012"]


def test_mirror_legs_lie_on_different_failure_domains(array: Array) -> None:
    drives = tuple(replace(d, failure_domain="left" if i % 2 else "right") for i, d in enumerate(array.drives))
    wide = replace(
        array,
        drives=drives,
        pools=(Pool(name="safe", drives=tuple(d.name for d in drives), protection=Protection.MIRROR),),
        volumes=(Volume(name="m", size_bytes=20 * MIB, pool="safe"),),
    )
    model = Model(wide)
    model.settle(wide)
    domain = {d.name: d.failure_domain for d in drives}
    for x, y in model.state.volumes["m"].rows:
        assert domain[x.drive] != domain[y.drive]


def test_pieces_alternate_over_the_stripe(array: Array, model: Model) -> None:
    model.settle(array)
    rows = model.state.volumes["v1"].rows
    assert [row[0].drive for row in rows[:3]] != [rows[0][0].drive] * 3
    assert len({row[0].drive for row in rows}) == 3


def test_more_than_255_pieces_are_nested(array: Array) -> None:
    wide = replace(array, volumes=(Volume(name="w", size_bytes=600 * MIB, pool="fast"),))
    model = Model(wide, size_bytes=512 * MIB)
    model.settle(wide)
    stack = list(volume_stack(model.state.volumes["w"]))
    assert [r.level for r in stack] == ["raid0", "raid0", "raid0", "concat"]
    assert max(len(r.members) for r in stack) == 255
    assert sum(len(r.members) for r in stack[:-1]) == 600


def test_limits_are_set_changed_and_lifted(array: Array, model: Model) -> None:
    limited = replace(array.volumes[0], qos=Qos(rw_iops=5000))
    model.settle(replace(array, volumes=(limited, *array.volumes[1:])))
    assert model.nodes["a"].qos == {"vol-v1": Qos(rw_iops=5000)}
    assert model.nodes["b"].qos == model.nodes["a"].qos
    model.settle(array)
    assert model.nodes["a"].qos == {}


def test_hosts_come_and_go(array: Array, model: Model) -> None:
    model.settle(array)
    fewer = replace(array, volumes=tuple(replace(v, hosts=("h1",)) for v in array.volumes))
    plan = model.propose(fewer).plan
    assert plan.worst is Risk.PATH_LOSS
    model.settle(fewer)
    sub = model.nodes["a"].subsystems[array.subsystem("default").nqn]
    assert set(sub.hosts) == {"nqn.2014-08.test:h1"}


def test_the_image_of_an_unscrubbed_volume_has_no_namespace(array: Array, model: Model) -> None:
    model.settle(array)
    record = model.state.volumes["v1"]
    dirty = replace(record, unscrubbed=frozenset(record.slices))
    state = replace(model.state, volumes={**model.state.volumes, "v1": dirty})
    image = wanted_image(state, array.node("a"))
    assert record.nsid not in image.subsystems[array.subsystem("default").nqn].namespaces
    assert "vol-v1" in image.raids


def test_foreign_objects_are_told_and_left_alone(array: Array, model: Model) -> None:
    model.settle(array)
    model.nodes["a"] = replace(model.nodes["a"], unmanaged=("subsystem nqn.x",))
    plan = model.propose(array).plan
    assert not plan
    assert plan.unmanaged == {"a": ("subsystem nqn.x",)}


def test_an_engine_that_examines_by_itself_is_refused(array: Array, model: Model) -> None:
    model.nodes["b"] = replace(model.nodes["b"], auto_examine=True)
    assert codes(model.propose(array).problems) == ["PLAN-017"]


def test_a_switchover_cut_before_the_drain_is_drained_by_the_next_plan(array: Array, model: Model) -> None:
    model.settle(array)
    model.save(replace(model.state, owners={"default": {1: "b"}}))
    model.run(model.propose(array).plan.steps[0])
    assert [type(step) for step in model.propose(array).plan.steps] == [s.Drain, s.SetAna]


def test_after_a_restart_of_both_nothing_is_built_on_a_drive_nobody_has_looked_at(array: Array, model: Model) -> None:
    model.settle(array)
    model.restart("a")
    model.restart("b")
    plan = model.propose(array).plan
    assert plan.stages[-1].phase is Phase.DRIVE_ATTACH
    for step in plan.steps:
        model.run(step)
    model.labels["d1"] = labels.Blank()
    assert codes(model.propose(array).problems) == ["PLAN-013"]


@pytest.mark.parametrize("offset", [0, 1024, 4096, 65536, 131071])
def test_a_drive_is_blank_only_if_its_whole_beginning_is(offset: int) -> None:
    start = bytearray(labels.LOOK_BYTES)
    assert labels.decode(bytes(start)) == labels.Blank()
    start[offset] = 1
    assert isinstance(labels.decode(bytes(start)), labels.Foreign)


def test_a_label_is_read_back_and_damage_is_noticed() -> None:
    label = labels.Label(array_uuid="u", drive="d0", slice_bytes=MIB, slice_count=16)
    raw = labels.encode(label)
    assert labels.decode(raw) == label
    for at in (9, 14, 25, 40):
        broken = bytearray(raw)
        broken[at] ^= 0xFF
        assert isinstance(labels.decode(bytes(broken)), labels.Foreign)


def test_what_only_spdk_does_is_refused_before_anything_changes(array: Array, model: Model) -> None:
    model.nodes["a"] = replace(model.nodes["a"], engine="SPDK v26.05 (WS7000 embedded engine 0.1.0)")
    secret = replace(array, hosts=(replace(array.hosts[0], secret_file="/etc/k"), array.hosts[1]))
    port = replace(array.nodes[0].ports[0], transport="rdma")
    rdma = replace(array, nodes=(replace(array.nodes[0], ports=(port,)), array.nodes[1]))
    pcie = replace(
        array, drives=(replace(array.drives[0], source=PcieDrive(address="0000:01:00.0")), *array.drives[1:])
    )
    for wanted in (rdma, pcie):
        assert codes(model.propose(wanted).problems) == ["PLAN-018"]
    for wanted in (array, secret):
        assert not model.propose(wanted).problems


def test_an_empty_drive_moves_to_a_pool_with_other_slices(array: Array, model: Model) -> None:
    pools = (
        Pool(name="fast", drives=("d0", "d1"), slice_bytes=MIB),
        Pool(name="big", drives=("d2",), slice_bytes=4 * MIB),
    )
    first = replace(array, pools=pools, volumes=())
    model.settle(first)
    assert model.nodes["a"].splits["d1"].slice_bytes == MIB
    moved = (
        Pool(name="fast", drives=("d0",), slice_bytes=MIB),
        Pool(name="big", drives=("d1", "d2"), slice_bytes=4 * MIB),
    )
    volume = Volume(name="v", size_bytes=16 * MIB, pool="big")
    model.settle(replace(first, pools=moved, volumes=(volume,)))
    assert model.nodes["b"].splits["d1"].slice_bytes == 4 * MIB
    assert model.state.volumes["v"].slice_bytes == 4 * MIB
    assert model.labels["d1"] == labels.wanted_label(model.state, "d1")


def test_a_drive_in_no_pool_is_attached_and_whole(array: Array, model: Model) -> None:
    model.settle(replace(array, volumes=(), pools=(array.pools[0],)))
    assert "d5" in model.nodes["a"].drives
    assert "d5" not in model.nodes["a"].splits


def test_a_drive_with_volumes_keeps_its_slices_whatever_the_pool_says(array: Array, model: Model) -> None:
    model.settle(array)
    before = model.state.drives["d0"]
    changed = replace(array, pools=(replace(array.pools[0], slice_bytes=4 * MIB), array.pools[1]))
    model.settle(changed)
    assert model.state.drives["d0"] == before


def test_a_subsystem_comes_and_goes_with_its_volumes(array: Array, model: Model) -> None:
    model.settle(array)
    tenant = Subsystem(name="tenant", nqn=subsystem_nqn("t", "tenant"))
    volume = Volume(name="theirs", size_bytes=MIB, pool="fast", subsystem="tenant", hosts=("h2",))
    model.settle(replace(array, subsystems=(*array.subsystems, tenant), volumes=(*array.volumes, volume)))
    shown = model.nodes["a"].subsystems[tenant.nqn]
    assert set(shown.hosts) == {"nqn.2014-08.test:h2"}
    assert [ns.bdev for ns in shown.namespaces.values()] == ["vol-theirs"]
    model.settle(array)
    assert tenant.nqn not in model.nodes["a"].subsystems


def test_a_pool_with_new_drives_comes_and_goes(array: Array, model: Model) -> None:
    fewer = replace(array, drives=array.drives[:3], pools=array.pools[:1], volumes=(array.volumes[0],))
    model.settle(fewer)
    model.settle(array)
    assert set(model.nodes["b"].drives) == {f"d{i}" for i in range(6)}
    model.settle(fewer)
    assert set(model.nodes["b"].drives) == {"d0", "d1", "d2"}


@pytest.mark.parametrize("left", [("", "d4n1p1"), ()])
def test_a_mirror_that_lost_a_leg_is_not_built_anew(array: Array, model: Model, left: tuple[str, ...]) -> None:
    model.settle(array)
    image = model.nodes["b"]
    broken = replace(image.raids["vol-v2.m0"], members=left)
    model.nodes["b"] = replace(image, raids={**image.raids, "vol-v2.m0": broken})
    assert codes(model.propose(array).problems) == ["PLAN-019"]
    without = replace(array, volumes=tuple(v for v in array.volumes if v.name != "v2"))
    assert not model.propose(without).problems


def test_a_node_cannot_be_taken_out_unseen(array: Array, model: Model) -> None:
    model.settle(array)
    assert codes(model.propose(replace(array, nodes=array.nodes[:1])).problems) == ["PLAN-008"]


def test_a_second_node_can_be_added(array: Array) -> None:
    alone = replace(array, nodes=array.nodes[:1])
    model = Model(array)
    model.nodes.pop("b")
    model.state = replace(model.state, array=replace(alone, volumes=(), subsystems=()))
    model.settle(replace(alone, volumes=tuple(replace(v, home="a") for v in array.volumes)))
    model.restart("b")
    both = replace(array, volumes=tuple(replace(v, home="a") for v in array.volumes))
    model.settle(both)
    assert model.owners(array.subsystem("default").nqn, 1) == ["a"]
    assert model.owners(array.subsystem("default").nqn, 2) == ["b"]


def run_all(model: Model, plan: s.Plan) -> None:
    for step in plan.steps:
        model.run(step)


def test_a_drive_that_is_reached_elsewhere_is_looked_at_before_anything_is_built(array: Array, model: Model) -> None:
    model.settle(array)
    source = replace(array.drives[2].source, address="198.51.100.9")  # type: ignore[type-var]
    moved = replace(array, drives=(*array.drives[:2], replace(array.drives[2], source=source), *array.drives[3:]))
    wanted = replace(moved, volumes=(*array.volumes, Volume(name="new", size_bytes=MIB, pool="fast")))
    proposal = model.propose(wanted)
    assert not proposal.problems
    assert max(stage.phase for stage in proposal.plan.stages) is Phase.DRIVE_ATTACH
    model.save(proposal.state)
    run_all(model, proposal.plan)
    model.labels["d2"] = labels.Foreign(what="a file system")
    assert codes(model.propose(wanted).problems) == ["PLAN-013"]


def test_a_switchover_waits_for_drives_to_be_looked_at(array: Array, model: Model) -> None:
    model.settle(array)
    model.restart("b")
    model.save(replace(model.state, owners={"default": {1: "b"}}))
    assert not [step for step in model.propose(array).plan.steps if isinstance(step, s.SetAna)]
    model.settle(array)
    assert model.owners(array.subsystem("default").nqn, 1) == ["b"]


def test_an_old_state_deletes_nothing_without_consent(array: Array, model: Model) -> None:
    model.settle(array)
    old = model.state
    more = replace(array, volumes=(*array.volumes, Volume(name="v9", size_bytes=MIB, pool="fast")))
    model.settle(more)
    model.state = old
    proposal = model.propose(array)
    assert codes(refuse_loss(model.state, proposal, Consent())) == ["PLAN-011"]
    assert codes(model.propose(more).problems) == ["PLAN-023"]


def test_consent_once_given_holds_after_a_crash(array: Array, model: Model) -> None:
    model.settle(array)
    fewer = replace(array, volumes=array.volumes[1:])
    model.save(model.propose(fewer).state)
    again = model.propose(fewer)
    assert again.plan
    assert not refuse_loss(model.state, again, Consent())


def test_a_drive_that_cannot_be_read_holds_up_building_but_not_a_switchover(array: Array, model: Model) -> None:
    model.settle(array)
    model.save(replace(model.state, owners={"default": {1: "b"}}))
    silent = {name: label for name, label in model.labels.items() if name != "d0"}
    proposal = make_plan(array, model.state, model.nodes, model.facts, silent)
    assert not proposal.problems
    assert [type(step) for step in proposal.plan.steps] == [s.SetAna, s.Drain, s.SetAna]
    more = replace(array, volumes=(*array.volumes, Volume(name="v9", size_bytes=9 * MIB, pool="fast")))
    assert codes(make_plan(more, model.state, model.nodes, model.facts, silent).problems) == ["PLAN-024"]


def test_a_listener_that_goes_is_lowered_first(array: Array, model: Model) -> None:
    model.settle(array)
    port = replace(array.nodes[0].ports[0], service=4421)
    moved = replace(array, nodes=(replace(array.nodes[0], ports=(port,)), array.nodes[1]))
    model.save(replace(model.state, owners={"default": {1: "b"}}))
    model.settle(moved)
    assert model.owners(array.subsystem("default").nqn, 1) == ["b"]


def test_another_drive_of_this_array_under_a_wrong_name_is_refused(array: Array, model: Model) -> None:
    bare = replace(array, volumes=())
    model.settle(bare)
    model.labels["d0"] = labels.wanted_label(model.state, "d1")
    assert codes(model.propose(bare).problems) == ["PLAN-013"]


def test_the_nqn_of_a_subsystem_is_fixed(array: Array, model: Model) -> None:
    model.settle(array)
    renamed = replace(array, subsystems=(replace(array.subsystems[0], nqn="nqn.2014-08.test:other"),))
    assert codes(model.propose(renamed).problems) == ["PLAN-002"]


def test_a_renamed_pool_in_use_is_refused(array: Array, model: Model) -> None:
    model.settle(array)
    pools = (replace(array.pools[0], name="quick"), array.pools[1])
    volumes = tuple(replace(v, pool="quick") if v.pool == "fast" else v for v in array.volumes)
    assert set(codes(model.propose(replace(array, pools=pools, volumes=volumes)).problems)) == {"PLAN-002"}
