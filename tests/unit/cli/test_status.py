"""The words for how things are, from plain images."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planner_model import Model

from controlplane.domain.image import AnaState, NodeImage, Unknown
from controlplane.planner.labels import Blank
from controlplane.reconcile import status
from controlplane.reconcile.reconciler import View
from controlplane.reconcile.status import Health


def without(view: View, node: str) -> View:
    return replace(view, seen={**view.seen, node: Unknown(node=node, reason="no answer")})


def changed(view: View, node: str, **parts: object) -> View:
    image = view.seen[node]
    assert isinstance(image, NodeImage)
    return replace(view, seen={**view.seen, node: replace(image, **parts)})  # type: ignore[arg-type]


def image(view: View, node: str) -> NodeImage:
    found = view.seen[node]
    assert isinstance(found, NodeImage)
    return found


def volume(view: View, name: str) -> status.Judgement:
    return status.volume_status(view, view.state.volumes[name])


def test_everything_there_is_ok(view: View) -> None:
    assert {volume(view, name).health for name in view.state.volumes} == {Health.OK}
    assert {status.drive_status(view, name).health for name in view.state.drives} == {Health.OK}
    assert {status.node_status(view, name).health for name in ("a", "b")} == {Health.OK}
    for record in view.state.subsystems.values():
        assert status.subsystem_status(view, record).health is Health.OK
    for pool in view.state.array.pools:
        inside = [v for v in view.state.volumes.values() if v.pool == pool.name]
        assert status.pool_status(view, pool.drives, inside) == status.Judgement(health=Health.OK)


def test_a_silent_owner_is_unknown_and_a_silent_standby_degrades(view: View) -> None:
    home = {name: record.home for name, record in view.state.volumes.items()}
    blind = without(view, "b")
    for name, node in home.items():
        judged = volume(blind, name)
        assert judged.health is (Health.UNKNOWN if node == "b" else Health.DEGRADED)
        assert judged.nodes["b"] is Health.UNKNOWN
        assert "node b: no answer" in judged.reasons
    assert status.node_status(blind, "b").health is Health.UNKNOWN
    assert status.drive_status(blind, "d0").health is Health.DEGRADED


def test_two_silent_nodes_are_never_missing(view: View) -> None:
    blind = without(without(view, "a"), "b")
    assert {volume(blind, name).health for name in view.state.volumes} == {Health.UNKNOWN}
    assert status.drive_status(blind, "d0").health is Health.UNKNOWN
    for record in view.state.subsystems.values():
        assert status.subsystem_status(blind, record).health is Health.UNKNOWN
    pool = view.state.array.pools[0]
    assert status.pool_status(blind, pool.drives, []).health is Health.UNKNOWN


def test_a_restarted_engine_is_missing_and_its_volumes_too(model: Model, view: View) -> None:
    empty = replace(view, seen={**view.seen, "b": NodeImage(node="b")})
    assert status.node_status(empty, "b").health is Health.MISSING
    owned = {name: record.home for name, record in model.state.volumes.items()}
    for name, node in owned.items():
        assert volume(empty, name).health is (Health.MISSING if node == "b" else Health.DEGRADED)


def test_a_lost_leg_degrades_a_mirror(view: View) -> None:
    record = next(v for v in view.state.volumes.values() if v.pool == "safe")
    raids = dict(image(view, record.home).raids)
    pair = raids[f"vol-{record.name}.m0"]
    raids[pair.name] = replace(pair, members=("", pair.members[1]))
    judged = volume(changed(view, record.home, raids=raids), record.name)
    assert judged.health is Health.DEGRADED
    assert f"set {pair.name} has lost its leg {pair.members[0]}" in judged.reasons[0]


def test_an_offline_or_foreign_set_is_missing(view: View) -> None:
    record = view.state.volumes["v1"]
    raids = dict(image(view, record.home).raids)
    top = raids["vol-v1"]
    for members in ((), tuple(reversed(top.members))):
        raids["vol-v1"] = replace(top, members=members)
        assert volume(changed(view, record.home, raids=raids), "v1").health is Health.MISSING


def test_a_volume_that_is_not_exported_is_missing(view: View) -> None:
    record = view.state.volumes["v1"]
    nqn = view.state.subsystems["default"].nqn
    sub = image(view, record.home).subsystems[nqn]
    others = {nsid: ns for nsid, ns in sub.namespaces.items() if nsid != record.nsid}
    hidden = changed(view, record.home, subsystems={nqn: replace(sub, namespaces=others)})
    assert volume(hidden, "v1").health is Health.MISSING


def test_a_volume_whose_group_nobody_serves_is_missing(view: View) -> None:
    record = view.state.volumes["v1"]
    nqn = view.state.subsystems["default"].nqn
    sub = image(view, record.home).subsystems[nqn]
    mute = {key: dict.fromkeys(states, AnaState.INACCESSIBLE) for key, states in sub.listeners.items()}
    quiet = changed(view, record.home, subsystems={nqn: replace(sub, listeners=mute)})
    assert volume(quiet, "v1").health is Health.MISSING
    assert status.subsystem_status(quiet, view.state.subsystems["default"]).health is Health.MISSING


def test_a_group_served_twice_is_named(view: View) -> None:
    nqn = view.state.subsystems["default"].nqn
    sub = image(view, "b").subsystems[nqn]
    loud = {key: dict.fromkeys(states, AnaState.OPTIMIZED) for key, states in sub.listeners.items()}
    twice = changed(view, "b", subsystems={nqn: replace(sub, listeners=loud)})
    judged = status.subsystem_status(twice, view.state.subsystems["default"])
    assert judged.health is Health.DEGRADED
    assert judged.reasons == ("node b: it serves ANA group 1, which it does not own",)


def test_an_unscrubbed_volume_is_missing_and_says_why(view: View) -> None:
    record = view.state.volumes["v1"]
    raw = replace(record, unscrubbed=frozenset(record.slices))
    judged = status.volume_status(view, raw)
    assert judged.health is Health.MISSING
    assert "not yet written zero" in judged.reasons[0]


@pytest.mark.parametrize("part", [{"size_bytes": 0}, {"serial": "another"}])
def test_a_drive_that_is_not_the_one_adopted(view: View, part: dict[str, object]) -> None:
    model_drive = replace(view.state.drives["d0"], serial="Sd0")
    state = replace(view.state, drives={**view.state.drives, "d0": model_drive})
    seen = image(view, "a").drives
    wrong = {**seen, "d0": replace(seen["d0"], **part)}  # type: ignore[arg-type]
    judged = status.drive_status(changed(replace(view, state=state), "a", drives=wrong), "d0")
    assert judged.nodes["a"] is Health.MISSING


def test_a_drive_that_one_node_does_not_reach_degrades_its_pool(view: View) -> None:
    fewer = {name: drive for name, drive in image(view, "a").drives.items() if name != "d0"}
    cut = changed(view, "a", drives=fewer)
    assert status.drive_status(cut, "d0").health is Health.DEGRADED
    judged = status.pool_status(cut, view.state.array.pools[0].drives, [])
    assert judged.health is Health.DEGRADED
    assert judged.reasons == ("drive d0 is DEGRADED",)


def test_a_drive_without_its_label_is_degraded(view: View) -> None:
    bare = replace(view, labels={**view.labels, "d0": Blank()})
    assert status.drive_status(bare, "d0").health is Health.DEGRADED


def test_a_node_that_differs_says_in_what(view: View) -> None:
    judged = status.node_status(changed(view, "a", transports=frozenset()), "a")
    assert judged.health is Health.DEGRADED
    assert "open the TCP transport" in judged.reasons[0]
