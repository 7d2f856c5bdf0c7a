"""Two nodes with their agents as real processes: what fails, and who serves then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ha_lab import HaLab, ha_lab

from dataplane.launch import EngineKind

ALL = {"default/1", "default/2"}


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[HaLab]:
    with ha_lab(kind, tmp_path) as made:
        yield made


def test_each_node_serves_its_own_groups(lab: HaLab) -> None:
    found = lab.settled()
    assert lab.serving(found) == {"a": {"default/1"}, "b": {"default/2"}}
    assert found["a"]["epoch"] == found["b"]["epoch"] == 1
    assert found["a"]["peer"]["paths"]["p0"] == {"hears_us": True, "heard": True}
    assert lab.control("a").load() == lab.control("b").load()


def test_the_peer_takes_over_when_an_engine_ends(lab: HaLab) -> None:
    lab.kill_engine("a")
    found = lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL)
    assert found["b"]["epoch"] == 2
    assert list(found["b"]["members"]) == ["b"]
    assert found["b"]["takeover"][0]["what"] == "the data plane of node a has ended"
    takeovers = [entry for entry in lab.control("b").history() if entry["event"] == "takeover"]
    assert len(takeovers) == 1


def test_a_hung_engine_is_ended_by_its_own_node(lab: HaLab) -> None:
    lab.stop_engine("b")
    lab.wait_for(lambda at: set(at["a"]["engine"]["raised"]) == ALL)
    assert lab.engine_ended("b")


def test_an_engine_does_not_outlive_its_agent(lab: HaLab) -> None:
    lab.kill_agent("a")
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL)
    assert lab.engine_ended("a")


def test_a_stopped_agent_does_not_keep_its_engine(lab: HaLab) -> None:
    lab.signal_agent("a", signal.SIGSTOP)
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL)
    assert lab.engine_ended("a")
    lab.signal_agent("a", signal.SIGCONT)
    lab.wait_for(lambda at: at["a"]["phase"] == "absent")


def test_a_switchover_and_back(lab: HaLab) -> None:
    lab.control("a").switchover("b")
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL and not at["a"]["engine"]["raised"])
    lab.control("a").failback()
    found = lab.settled()
    assert lab.serving(found) == {"a": {"default/1"}, "b": {"default/2"}}
    assert found["a"]["epoch"] == 1
