"""From nothing to two nodes that serve: engines, agents as ``ws7000 ha agent`` starts them, and one apply."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_lab import MIB, SmallLab, small_lab

from cli.ha import told
from cli.ha.agent_config import write_secret
from cli.main import main
from controlplane.domain.desired import HaIntent, HaMode, HaPolicy, Volume
from controlplane.domain.errors import Ws7000Error
from controlplane.domain.image import AnaState, NodeImage
from controlplane.reconcile.agents import Agents
from controlplane.reconcile.apply import Progress
from controlplane.reconcile.reconciler import Applied
from controlplane.reconcile.status import Health
from controlplane.spec.load import to_yaml
from dataplane.launch import EngineKind, free_udp_ports
from ha.adapters.lease_page import place_of
from ha.model import NODES, GroupId, NodeName

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-c", "from cli.main import main; main()"]


class Real:
    """A small lab with an agent process on each node."""

    def __init__(self, lab: SmallLab) -> None:
        self.lab = lab
        self.state = lab.folder / "state"
        self.agents: dict[NodeName, subprocess.Popen[bytes]] = {}
        self.told: list[str] = []

    def start_agent(self, node: NodeName) -> None:
        with (self.lab.folder / f"agent-{node}.log").open("ab") as log:
            self.agents[node] = subprocess.Popen(
                [*COMMAND, "ha", "agent", "--node", node, "-f", str(self.lab.folder / "array.yaml"), "--state",
                 str(self.state)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        while self.agents[node].poll() is None:
            try:
                self.asked.controls[node].status()
            except Ws7000Error:
                continue
            return
        raise AssertionError((self.lab.folder / f"agent-{node}.log").read_text(errors="replace"))

    @property
    def asked(self) -> Agents:
        return Agents(self.lab.array)

    def listen(self, progress: Progress) -> None:
        if progress.waits:
            self.told.append(progress.waits)

    def apply(self) -> Applied:
        with self.lab.reconciler() as reconciler:
            return reconciler.apply(listen=self.listen)

    def serving(self, node: str) -> set[int]:
        """The groups that the engine of ``node`` shows as optimized."""
        with self.lab.reconciler() as reconciler:
            seen = reconciler.look().seen[node]
        assert isinstance(seen, NodeImage)
        return {
            group
            for sub in seen.subsystems.values()
            for states in sub.listeners.values()
            for group, state in states.items()
            if state is AnaState.OPTIMIZED
        }

    def end(self) -> None:
        """The agents, and the engines with them: a leash ends when what it guards has ended."""
        for node, agent in self.agents.items():
            agent.kill()
            agent.wait()
            self.lab.engines[node].kill()
            place_of(self.state / f"agent-{node}").unlink(missing_ok=True)


@pytest.fixture
def real(kind: EngineKind, tmp_path: Path) -> Iterator[Real]:
    volumes = (
        Volume(name="wide", size_bytes=6 * MIB, pool="fast", home="a", hosts=("h1",)),
        Volume(name="safe", size_bytes=3 * MIB, pool="safe", home="b", hosts=("h1",)),
    )
    write_secret(tmp_path / "ha.secret")
    with small_lab(kind, tmp_path, *volumes) as lab:
        services = free_udp_ports(2)
        nodes = tuple(
            replace(node, agent=str(tmp_path / f"{node.name}.agent.sock"), heartbeat=service)
            for node, service in zip(lab.array.nodes, services, strict=True)
        )
        intent = HaIntent(policy=HaPolicy.SLOW, quorum_drives=3, secret_file=str(tmp_path / "ha.secret"))
        lab.array = replace(lab.array, nodes=nodes, ha=HaMode.ACTIVE_ACTIVE, ha_intent=intent)
        (tmp_path / "array.yaml").write_text(to_yaml(lab.array), encoding="utf-8")
        running = Real(lab)
        try:
            for node in NODES:
                running.start_agent(node)
            yield running
        finally:
            running.end()


def test_one_apply_makes_two_nodes_that_serve(real: Real) -> None:
    applied = real.apply()
    assert applied.changed
    views = real.asked.views()
    assert told.health(views) is Health.OK, told.lines(applied.state, views)
    assert (real.serving("a"), real.serving("b")) == ({1}, {2})
    assert not real.apply().changed
    real.asked.switchover("b")
    assert (real.serving("a"), real.serving("b")) == (set(), {1, 2})
    with real.lab.reconciler() as reconciler:
        assert not reconciler.propose()[1].plan, "the owners are the agents' business"


def test_the_commands_see_and_move_what_the_agents_serve(real: Real) -> None:
    real.apply()
    words = ["--state", str(real.state), "-o", "json"]

    def run(*command: str) -> dict[str, Any]:
        ran = CliRunner().invoke(main, [*command, *words])
        assert ran.exit_code == 0, ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    assert run("ha", "status", "--check")["state"] == "OK"
    advice = run("ha", "advise", "--seconds", "0.1")
    assert (advice["measured"], advice["load_now"]["a"] > 0) == (False, True)
    assert run("array", "switchover", "--to", "b")["moves"] == [{"group": "default/1", "from": "a", "to": "b"}]
    owners = {item["name"]: (item["owner"], item["state"]) for item in run("volume", "list")["items"]}
    assert owners == {"wide": ("b", "OK"), "safe": ("b", "OK")}
    assert not run("ha", "failback", "--dry-run")["changed"]
    assert run("ha", "pause")["paused"]
    assert run("ha", "status")["paused"]
    assert not run("ha", "resume")["paused"]
    assert {event["node"] for event in run("ha", "history")["items"]} == set(NODES)


def test_both_nodes_lost_power(real: Real) -> None:
    before = real.apply()
    for node in NODES:
        real.agents[node].kill()
        real.agents[node].wait()
        real.lab.restart(node)
    for node in NODES:
        real.start_agent(node)
    after = real.apply()
    assert after.state.volumes == before.state.volumes
    views = real.asked.views()
    assert {name: getattr(view, "members", None) for name, view in views.items()} == dict.fromkeys(
        NODES, frozenset(NODES)
    )
    # Writes may have been on their way when the power went, so the mirrors are made equal before they may move.
    while any(view.resync for view in real.asked.heard().values()):
        os.sched_yield()
    real.asked.failback()
    assert (real.serving("a"), real.serving("b")) == ({1}, {2})


def test_a_node_comes_back_after_a_failover(real: Real) -> None:
    applied = real.apply()
    real.lab.engines["a"].kill()
    agents = real.asked
    while (view := agents.views()["b"]) and getattr(view, "members", None) != {"b"}:
        os.sched_yield()
    agents.wait_served(real.told.append)
    assert real.serving("b") == {1, 2}
    real.lab.restart("a")
    again = real.apply()
    assert again.state.volumes == applied.state.volumes
    assert {name: getattr(view, "members", None) for name, view in agents.views().items()} == dict.fromkeys(
        NODES, frozenset(NODES)
    )
    agents.failback()
    assert (real.serving("a"), real.serving("b")) == ({1}, {2})
    record = agents.heard()["a"]
    assert record.owners == {GroupId("default", number): node for number, node in ((1, "a"), (2, "b"))}
