"""``ws7000 ha`` over control sockets, and what needs no agent: configuration, secret, policies, a lab's faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from agent_model import Desks, ModelArray
from agent_views import GROUPS, RECORD
from planner_model import Model, ha_array

from cli.ha import lab
from cli.ha.agent_config import agent_config
from cli.ha.policies import meanings
from controlplane.domain.desired import Takeover
from controlplane.domain.errors import Refused
from controlplane.store.file import FileStore
from ha.config import AgentConfig
from ha.model import Move, NodeName, Pause, Repaired
from ha.policy import FAST, RULES

Run = Callable[..., Any]


class Setting:
    """An applied array whose agents answer; ``words`` are what each command needs."""

    def __init__(self, folder: Path, array: ModelArray, desks: Desks) -> None:
        self.folder, self.array, self.desks = folder, array, desks
        self.words = ("--state", str(folder / "state"))


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    model = Model(ha_array())
    model.settle(ha_array())
    paths: dict[NodeName, Path] = {"a": tmp_path / "a.agent.sock", "b": tmp_path / "b.agent.sock"}
    nodes = tuple(replace(node, agent=str(paths[node.name])) for node in model.state.array.nodes)
    state = replace(model.state, generation=0, array=replace(model.state.array, nodes=nodes))
    FileStore(tmp_path / "state").save(state)
    array = ModelArray(RECORD, frozenset(GROUPS))
    with Desks(array, paths) as desks:
        yield Setting(tmp_path, array, desks)


def test_status_for_people_and_programs(run: Run, setting: Setting) -> None:
    ran = run("ha", "status", *setting.words)
    assert ran.status == 0
    assert ran.out.startswith("array t: OK; epoch 3, record 17, node a leads\n")
    found = json.loads(run("ha", "status", *setting.words, "-o", "json").out)
    assert (found["kind"], found["state"], len(found["groups"])) == ("HaStatus", "OK", 2)
    assert run("ha", "status", "--check", *setting.words).status == 0
    setting.desks.stop("b")
    assert run("ha", "status", "--check", *setting.words).status == 3
    assert "node b: UNKNOWN" in run("ha", "top", "--once", *setting.words).out


def test_switchover_and_back(run: Run, setting: Setting) -> None:
    dry = run("ha", "switchover", "--to", "b", "--dry-run", *setting.words)
    assert dry.out == "array t: would move 1 ANA group\n  default/1: from node a to node b\n"
    assert not setting.array.orders
    ran = run("ha", "switchover", "--to", "b", "--subsystem", "default", *setting.words)
    assert ran.out == "array t: moved 1 ANA group\n  default/1: from node a to node b\n"
    assert isinstance(setting.array.orders[0], Move)
    assert setting.array.record is not None
    assert set(setting.array.record.owners.values()) == {"b"}
    assert run("ha", "failback", *setting.words).status == 0
    assert {group.home == owner for group, owner in setting.array.record.owners.items()} == {True}


def test_the_switchovers_of_array_and_subsystem_go_to_the_agents(run: Run, setting: Setting) -> None:
    body = json.loads(run("array", "switchover", "--to", "b", *setting.words, "-o", "json").out)
    assert body["changed"]
    assert body["moves"] == [{"group": "default/1", "from": "a", "to": "b"}]
    assert run("subsystem", "switchover", "default", "--to", "a", *setting.words).status == 0
    assert setting.array.record is not None
    assert set(setting.array.record.owners.values()) == {"a"}
    ran = run("subsystem", "switchover", "default", "--to", "home", *setting.words)
    assert (ran.status, "HA-069" in ran.err) == (6, True)
    ran = run("array", "switchover", "--to", "c", *setting.words)
    assert (ran.status, "PLAN-014" in ran.err) == (4, True)
    ran = run("ha", "switchover", "--to", "b", "--subsystem", "none", *setting.words)
    assert (ran.status, "PLAN-015" in ran.err) == (4, True)


def test_orders_go_to_the_leader(run: Run, setting: Setting) -> None:
    assert setting.array.record is not None
    setting.array.record = replace(setting.array.record, leader="b", failed=frozenset({"d1"}))
    assert run("ha", "pause", *setting.words).out == "array t: paused: nobody takes over, moves or stops\n"
    assert run("ha", "resume", *setting.words).status == 0
    assert run("ha", "drive-repaired", "d1", *setting.words).status == 0
    assert [type(order) for order in setting.array.orders] == [Pause, Pause, Repaired]
    assert setting.array.record.failed == frozenset()
    assert run("ha", "drive-repaired", "d99", *setting.words).status == 4
    setting.desks.stop("b")
    ran = run("ha", "pause", *setting.words)
    assert (ran.status, "HA-068" in ran.err) == (7, True)


def test_a_takeover_by_force_is_typed(run: Run, setting: Setting) -> None:
    ran = run("ha", "takeover", "--peer-is-off", *setting.words)
    assert (ran.status, "HA-067" in ran.err) == (2, True), "both agents answer"
    setting.desks.stop("b")
    ran = run("ha", "takeover", "--peer-is-off", *setting.words, stdin="b\n")
    assert (ran.status, "HA-067" in ran.err) == (6, True), "no terminal"
    assert not setting.array.orders


def test_history_of_both_nodes(run: Run, setting: Setting) -> None:
    run("ha", "pause", *setting.words)
    ran = run("ha", "history", *setting.words)
    assert ran.status == 0
    assert "Pause(" in ran.out
    folder = setting.folder / "state" / "agent-b"
    folder.mkdir()
    kept = {"at": "2025", "node": "b", "event": "start", "sentence": "b began"}
    (folder / "history.jsonl").write_text(json.dumps(kept) + "\n", encoding="utf-8")
    setting.desks.stop("b")
    ran = run("ha", "history", "--node", "b", *setting.words)
    assert "b began" in ran.out
    assert "read from its folder" in ran.err


def test_an_array_without_agents(run: Run, applied: Path) -> None:
    for words in (["status"], ["switchover", "--to", "b"], ["pause"], ["advise"]):
        ran = run("ha", *words, "--state", str(applied))
        assert (ran.status, "HA-061" in ran.err) == (6, True)


# ------------------------------------------------------------------ what needs no agent


def test_the_configuration_of_an_agent(tmp_path: Path) -> None:
    array = ha_array()
    node = array.node("b")
    moving = replace(node.ports[0], address="192.0.2.9", takeover=Takeover(interface="eth1", prefix=24))
    array = replace(array, nodes=(array.node("a"), replace(node, ports=(*node.ports, moving), heartbeat=7801)))
    ours, theirs = (agent_config(array, name, tmp_path) for name in ("a", "b"))  # type: ignore[arg-type]
    assert AgentConfig.from_json(ours.to_json()) == ours
    assert [(p.name, p.address, p.service, p.peer_address, p.peer_service) for p in ours.paths] == [
        ("path-1", "192.0.2.1", 7700, "192.0.2.2", 7801)
    ]
    assert [(p.name, p.address, p.service) for p in theirs.paths] == [("path-1", "192.0.2.2", 7801)]
    assert [(a.node, a.address, a.prefix, a.interface) for a in ours.addresses] == [("b", "192.0.2.9", 24, "eth1")]
    assert ours.addresses == theirs.addresses
    assert (ours.interfaces, theirs.interfaces) == ((), ("eth1",))
    assert (ours.policy, ours.failback, ours.control) == ("fast", False, "/run/a.agent.sock")
    assert Path(ours.folder) == tmp_path / "agent-a"


def test_an_agent_needs_the_socket_of_its_engine(tmp_path: Path) -> None:
    array = ha_array()
    far = replace(array, nodes=(replace(array.node("a"), rpc="10.0.0.1:5260"), array.node("b")))
    with pytest.raises(Refused) as caught:
        agent_config(far, "a", tmp_path)
    assert caught.value.code == "HA-061"
    assert agent_config(far, "a", tmp_path, engine="/run/a.sock").engine == "/run/a.sock"


LAB = """\
apiVersion: ws7000/v1
kind: Array
name: lab
ha: {policy: slow, quorum_drives: 3, failback: true}
shelf: {}
nodes:
  - {name: a, rpc: ./a.sock, ports: [{transport: tcp, address: 127.0.0.1, service: 4421}]}
  - {name: b, rpc: ./b.sock, heartbeat: 7701, ports: [{transport: tcp, address: 127.0.0.1, service: 4422}]}
drives: [{file: "d{0..3}.img", size: 64MiB}]
pools: [{name: p, drives: all}]
"""


def test_print_config_writes_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "array.yaml").write_text(LAB, encoding="utf-8")
    words = ("-f", str(tmp_path / "array.yaml"), "--state", str(tmp_path / "state"))
    ran = run("ha", "agent", "--node", "b", "--print-config", "--watchdog", "automatic", *words)
    assert ran.status == 0
    config = AgentConfig.from_json(ran.out)
    assert (config.node, config.policy, config.failback, config.watchdog) == ("b", "slow", True, "automatic")
    assert config.secret_file == str(tmp_path / "ha.secret")
    assert not (tmp_path / "state").exists()


def test_keygen_never_writes_over(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ha.secret"
    assert run("ha", "keygen", str(path)).status == 0
    first = path.read_text(encoding="ascii")
    assert (len(bytes.fromhex(first.strip())), path.stat().st_mode & 0o777) == (32, 0o600)
    ran = run("ha", "keygen", str(path))
    assert (ran.status, "HA-065" in ran.err) == (5, True)
    assert path.read_text(encoding="ascii") == first


def test_policy_shows_every_time_and_every_rule(run: Run) -> None:
    ran = run("ha", "policy", "fast")
    assert "lease_ms:" in ran.out
    assert all(rule.text(FAST) in ran.out for rule in RULES)
    body = json.loads(run("ha", "policy", "slow", "-o", "json").out)
    assert (body["kind"], body["name"], len(body["rules"])) == ("HaPolicy", "slow", len(RULES))
    assert all(rule["holds"] and rule["left_ms"] <= rule["right_ms"] for rule in body["rules"])
    both = json.loads(run("ha", "policy", "-o", "json").out)
    assert [each["name"] for each in both["items"]] == ["fast", "slow"]


def test_every_time_of_a_policy_has_its_meaning() -> None:
    assert set(meanings()) == set(FAST.__slots__) - {"name"}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{like: fast, lease_ms: 320}", ""),
        ("{like: fast, lease_ms: 100}", "HA-001"),
        ("{like: fast, lease_ms: 1.5}", "HA-064"),
        ("{like: fast, lease_ms: true}", "HA-064"),
        ("{like: fast, lease_ms: -1}", "HA-064"),
        ("{like: fast, failback: 1}", "HA-064"),
        ("{like: quick}", "HA-064"),
        ("{lease_ms: 300}", "HA-064"),
        ("{like: fast, leese_ms: 300}", "HA-064"),
        ("[]", "HA-064"),
        ("{", "HA-064"),
    ],
)
def test_times_held_to_the_rules(run: Run, tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "times.yaml"
    path.write_text(text, encoding="utf-8")
    ran = run("ha", "policy", "--check", str(path))
    assert (ran.status == 0) == (not code), ran.err
    assert code in ran.err


SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def noted(process: subprocess.Popen[bytes], role: str = "engine", later: int = 0) -> lab.Process:
    began = lab.started_at(process.pid)
    assert began is not None
    return lab.Process(role=role, node="a", pid=process.pid, started=began + later)


def test_a_crash_and_a_hang_befall_what_the_lab_names(
    run: Run, tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    lab.write(tmp_path, [noted(process)])
    words = ("--lab", str(tmp_path), "--node", "a")
    ran = run("ha", "simulate", "data-plane-hang", *words)
    assert ran.out == f"node a: data-plane-hang: engine {process.pid}\n"
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    assert run("ha", "simulate", "mend", *words).status == 0
    assert os.WIFCONTINUED(os.waitpid(process.pid, os.WCONTINUED)[1])
    assert run("ha", "simulate", "data-plane-crash", *words).status == 0
    assert process.wait(30) == -signal.SIGKILL
    ran = run("ha", "simulate", "data-plane-crash", *words)
    assert (ran.status, "HA-066" in ran.err) == (6, True)


@pytest.mark.parametrize(("role", "later", "node"), [("agent", 0, "a"), ("engine", 1, "a"), ("engine", 0, "b")])
def test_nothing_else_is_touched(
    run: Run, tmp_path: Path, process: subprocess.Popen[bytes], role: str, later: int, node: str
) -> None:
    """Another role, another process under that pid, another node."""
    lab.write(tmp_path, [noted(process, role, later)])
    ran = run("ha", "simulate", "data-plane-crash", "--lab", str(tmp_path), "--node", node)
    assert (ran.status, "HA-066" in ran.err) == (6, True)
    assert process.poll() is None


def test_no_lab(run: Run, tmp_path: Path) -> None:
    ran = run("ha", "simulate", "node-silent", "--lab", str(tmp_path), "--node", "a")
    assert (ran.status, "HA-066" in ran.err) == (6, True)
