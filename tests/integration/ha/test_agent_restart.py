"""An agent that is killed and started again beside its data plane, which must not notice where it may go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ha_lab import HaLab, ha_lab

from controlplane.domain.errors import Ws7000Error
from dataplane.launch import EngineKind
from dataplane.rpc.methods import nvmf
from dataplane.rpc.session import Session
from ha.adapters.lease_page import LeashPage, place_of
from ha.model import NODES, NodeName

OPTIMIZED = "optimized"
HOME = {"a": {"default/1"}, "b": {"default/2"}}
ALL = HOME["a"] | HOME["b"]
GROUP: dict[NodeName, int] = {"a": 1, "b": 2}


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[HaLab]:
    with ha_lab(kind, tmp_path) as made:
        yield made


@contextmanager
def seen_by_hosts(lab: HaLab, node: NodeName) -> Iterator[set[str]]:
    """Every ANA state that the node's own group is seen in meanwhile, asked of the data plane time and again."""
    states: set[str] = set()
    problems: list[Ws7000Error] = []
    over, begun = threading.Event(), threading.Event()

    def look() -> None:
        try:
            with Session(lab.lab.engines[node].socket) as session:
                while not over.is_set():
                    for listener in session.run(nvmf.get_listeners(lab.lab.nqn)):
                        states.add(listener.ana_states[GROUP[node]])
                    begun.set()
        except Ws7000Error as problem:
            problems.append(problem)
            begun.set()

    looking = threading.Thread(target=look)
    looking.start()
    begun.wait()
    try:
        yield states
    finally:
        over.set()
        looking.join()
    assert not problems, problems


def heard_lately(status: Mapping[str, Any]) -> bool:
    """Whether the node hears its peer; one that was started again has not at first."""
    ago = status["peer"]["heard_ms_ago"]
    return ago is not None and ago < 1_000


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_paused_array_serves_while_its_agent_is_replaced(lab: HaLab, node: NodeName) -> None:
    """Of the leader as of the other one: no group is lowered for a moment, and ``resume`` finds both members."""
    lab.control("a").pause()
    lab.wait_for(lambda at: at["a"]["paused"] and at["b"]["paused"])
    with seen_by_hosts(lab, node) as states:
        lab.kill_agent(node)
        # Longer than any lease: the leash must have been told that there is none.
        lab.wait_for(lambda at: at["b" if node == "a" else "a"]["peer"]["heard_ms_ago"] > 4_000)
        lab.start_agent(node)
        lab.wait_for(lambda at: at[node]["phase"] == "member" and set(at[node]["engine"]["raised"]) == HOME[node])
        # Nobody resumes beside an agent that is not heard.
        lab.wait_for(lambda at: all(heard_lately(at[each]) for each in NODES))
        lab.control("a").pause(paused=False)
        found = lab.settled()
    assert states == {OPTIMIZED}
    assert not found["a"]["paused"]
    assert found["a"]["epoch"] == 1
    assert not lab.engine_ended(node)


@pytest.mark.parametrize("node", ["a", "b"])
def test_an_agent_that_comes_back_within_the_lease_keeps_its_groups(lab: HaLab, node: NodeName) -> None:
    with seen_by_hosts(lab, node) as states:
        lab.replace_agent(node)
        found = lab.settled()
    assert states == {OPTIMIZED}
    assert found["a"]["epoch"] == 1, "nobody took over"
    assert not lab.engine_ended(node)
    assert LeashPage(place_of(lab.folder(node))).order().lease_until_ns is not None


def test_the_data_plane_of_a_fenced_node_is_killed_by_its_next_agent(lab: HaLab) -> None:
    """Hands were off at node a when node b took over by the operator's word, so nothing but its next agent ends it."""
    lab.control("a").pause()
    lab.wait_for(lambda at: at["a"]["paused"] and at["b"]["paused"])
    lab.kill_agent("a")
    lab.wait_for(lambda at: at["b"]["peer"]["heard_ms_ago"] > 4_000)
    lab.control("b").take_over(peer_is_off=True)
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL)
    assert not lab.engine_ended("a")
    lab.start_agent("a")
    lab.wait_for(lambda at: lab.engine_ended("a") and at["a"]["phase"] == "absent")
    kills = [entry["sentence"] for entry in lab.control("a").history() if entry["event"] == "kill"]
    assert len(kills) == 1
