"""What the agents say becomes sentences, a word for the whole, and JSON for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from agent_views import GROUPS, NOW, RECORD, body, member, sight, view
from planner_model import Model, ha_array

from cli.ha import told
from controlplane.domain.errors import Unreachable, Ws7000Error
from controlplane.domain.state import State
from controlplane.reconcile.agent_view import AgentView, group_of
from controlplane.reconcile.agents import Agents, Heard, Unheard, newest
from controlplane.reconcile.status import Health
from ha.memory import Memory
from ha.model import Drives, Engine, EngineState, Peer, Phase, Seen


@pytest.fixture
def state() -> State:
    model = Model(ha_array())
    model.settle(ha_array())
    return model.state


SILENT = Unheard(
    node="b", problem=Unreachable("HA-030", "no HA agent answers at /run/b.agent.sock", why="no such file")
)


def both(**more: Heard) -> dict[str, Heard]:
    return {"a": view("a"), "b": view("b"), **more}


def said(state: State, views: dict[str, Heard]) -> str:
    return "\n".join(told.lines(state, views))


def test_all_is_well(state: State) -> None:
    views = both()
    assert told.health(views) is Health.OK
    text = said(state, views)
    assert "array t: OK; epoch 3, record 17, node a leads" in text
    assert "default/1 (volumes v1) belongs to node a: it is at home" in text
    assert "heartbeats on path-1 (192.0.2.1 and 192.0.2.2): node a hears node b, node b hears node a" in text
    assert "lease: 250 ms are left unless it is renewed; it heard the other node over the network 30 ms ago" in text
    assert "node a alone: it could serve every volume\n" in text


def test_a_node_that_was_fenced(state: State) -> None:
    record = replace(RECORD, epoch=4, sequence=18, owners=dict.fromkeys(GROUPS, "a"), members={"a": 0xA1})
    timeline = ((NOW - 5000, "silent for 320 ms"), (NOW - 4980, "won the quorum drives"), (NOW - 4800, "serves"))
    seen = sight("a", engine=replace(sight("a").engine, raised=frozenset(GROUPS)))
    views: dict[str, Heard] = {"a": view("a", member("a", record, timeline=timeline), seen), "b": SILENT}
    assert told.health(views) is Health.DEGRADED
    text = said(state, views)
    assert "node b: UNKNOWN, its agent does not answer (no such file)" in text
    assert "default/2 (volumes v2, v3) belongs to node a: its home, node b, is no member" in text
    assert "last takeover by node a: 5 s ago, 200 ms to its last step" in text
    assert "     20 ms  won the quorum drives" in text
    assert "node b alone: UNKNOWN what it could serve" in text


def test_a_group_that_is_away_from_home_although_its_node_is_back(state: State) -> None:
    record = replace(RECORD, owners=dict.fromkeys(GROUPS, "a"))
    seen = sight("a", engine=replace(sight("a").engine, raised=frozenset(GROUPS)))
    other = sight("b", engine=replace(sight("b").engine, raised=frozenset()))
    views: dict[str, Heard] = {"a": view("a", member("a", record), seen), "b": view("b", member("b", record), other)}
    assert told.health(views) is Health.OK, "both are members and all is served; where is a matter of taste"
    assert "it was moved from its home, node b, which is a member again" in said(state, views)


def test_a_group_that_nobody_serves_is_missing(state: State) -> None:
    idle = sight("b", engine=replace(sight("b").engine, raised=frozenset()))
    views = both(b=view("b", None, idle))
    assert told.health(views) is Health.MISSING
    assert "default/2 (volumes v2, v3) belongs to node b: node b owns it and does not serve it yet" in said(
        state, views
    )


def test_a_path_that_is_broken_one_way(state: State) -> None:
    half = Peer(heard_at=NOW - 30, acked_at=NOW - 40, paths={"path-1": (True, False)})
    views = both(a=view("a", None, sight("a", peer=half)))
    assert told.health(views) is Health.DEGRADED
    assert "node a does not hear node b, node b hears node a" in said(state, views)


def test_failed_drives_and_what_a_node_alone_could_serve(state: State) -> None:
    mirrored = state.volumes["v2"].drives
    record = replace(RECORD, failed=frozenset(mirrored[:1]))
    views: dict[str, Heard] = {node: view(node, member(node, record)) for node in ("a", "b")}  # type: ignore[arg-type]
    text = said(state, views)
    assert f"drive {mirrored[0]} is given up (volumes v2)" in text
    assert "node a alone: it could serve every volume, v2 without a second copy" in text
    bare = state.volumes["v1"].drives[0]
    views = both(b=view("b", None, sight("b", drives=Drives(silent=frozenset({bare})))))
    text = said(state, views)
    assert f"drive {bare} does not answer node b" in text
    assert "node b alone: it could serve all but" in text
    assert "node a alone: it could serve every volume\n" in text + "\n"


def test_paused(state: State) -> None:
    record = replace(RECORD, paused=True)
    views: dict[str, Heard] = {
        node: view(node, member(node, record), lease_until=None)  # type: ignore[arg-type]
        for node in ("a", "b")
    }
    assert told.health(views) is Health.DEGRADED
    assert "PAUSED" in said(state, views)
    assert "lease: none" in said(state, views)


def test_nobody_answers(state: State) -> None:
    views: dict[str, Heard] = {"a": replace(SILENT, node="a"), "b": SILENT}
    assert told.health(views) is Health.UNKNOWN
    assert newest(views) is None
    assert "no agent answers" in said(state, views)
    assert told.body(state, views)["state"] == "UNKNOWN"


def test_not_formed(state: State) -> None:
    fresh = view("a", Memory(node="a", phase=Phase.OUTSIDE), Seen(engine=Engine(state=EngineState.ALIVE, key=1)))
    other = view("b", Memory(node="b"), Seen())
    views: dict[str, Heard] = {"a": fresh, "b": other}
    assert not Agents(state.array).formed(views)
    assert told.health(views) is Health.MISSING
    assert "no agent knows of an array on these drives" in said(state, views)
    assert Agents(state.array).formed(both(b=other)), "one that knows is enough"


def test_the_object_for_programs(state: State) -> None:
    found = json.loads(json.dumps(told.body(state, both())))
    assert (found["state"], found["leader"], found["members"]) == ("OK", "a", ["a", "b"])
    assert [(group["name"], group["owner"], group["served"]) for group in found["groups"]] == [
        ("default/1", "a", True),
        ("default/2", "b", True),
    ]
    assert found["paths"] == [{"name": "path-1", "heard_by": {"a": True, "b": True}}]
    assert found["nodes"][0]["lease_left_ms"] == 250


def test_the_newer_record_counts(state: State) -> None:
    newer = replace(RECORD, epoch=5, leader="b")
    views = both(b=view("b", member("b", newer)))
    assert "epoch 5, record 17, node b leads" in said(state, views)


@pytest.mark.parametrize(
    "bent",
    [
        {"phase": "dancing"},
        {"owners": {"default": "a"}},
        {"owners": {"default/1": "c"}},
        {"node": "b"},
        {"epoch": None},
        {"engine": {}},
        {"lease_left_ms": "soon"},
    ],
)
def test_what_is_not_understood_is_no_status(bent: dict[str, object]) -> None:
    with pytest.raises(Ws7000Error) as caught:
        AgentView.of("a", body("a") | bent)
    assert caught.value.code == "HA-036"


def test_names_of_groups() -> None:
    assert group_of("tenant/x/2").subsystem == "tenant/x"
    for text in ("", "x", "/1", "x/y"):
        with pytest.raises(ValueError, match=r"group|literal"):
            group_of(text)
