"""The power of a node through a Redfish service that is a process of its own; IPMI is refused where nobody answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from ha_lab import HaLab, ha_lab
from planner_model import Model, ha_array
from redfish_service import USER, Habits, redfish_service
from redfish_service import Bmc as Service

from cli.main import main
from controlplane.domain.desired import Bmc
from controlplane.domain.errors import Refused, Unreachable
from controlplane.store.file import FileStore
from dataplane.launch import free_ports
from ha.adapters.power import PeerPower, ask
from ha.config import AgentConfig
from ha.power import Asked

PASSWORD: Final = "correct-horse-battery"
ALL: Final = {"default/1", "default/2"}
ROOT: Final = Path(__file__).resolve().parents[3]

sushy = pytest.mark.skipif(find_spec("sushy") is None, reason="sushy is not installed: pip install 'ws7000[power]'")
pyghmi = pytest.mark.skipif(find_spec("pyghmi") is None, reason="pyghmi is not installed: pip install 'ws7000[power]'")


def bmc_at(folder: Path, url: str, password: str = PASSWORD) -> Bmc:
    path = folder / "bmc.password"
    path.touch(mode=0o600)
    path.write_text(password + "\n", encoding="ascii")
    return Bmc(user=USER, password_file=str(path), redfish=url)


def power(bmc: Bmc, action: str, within_s: float = 20.0) -> str:
    return asyncio.run(ask("b", bmc, action, within_s))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with redfish_service(tmp_path / "service", Habits(password=PASSWORD)) as made:
        yield made


@sushy
@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "basic"])
def test_power_is_asked_and_switched(tmp_path: Path, sessions: bool) -> None:
    with redfish_service(tmp_path / "service", Habits(password=PASSWORD, sessions=sessions)) as service:
        bmc = bmc_at(tmp_path, service.url)
        assert power(bmc, "status") == "on"
        assert power(bmc, "cycle") == "on"
        assert power(bmc, "off") == "off"
        assert power(bmc, "off") == "off", "there is nothing to do"
        assert power(bmc, "cycle") == "off", "a node that is off is not turned on by the way"
        assert power(bmc, "on") == "on"
        assert service.resets == ["PowerCycle", "ForceOff", "On"]
        assert (service.folder / "ended").exists() is sessions, "a BMC has few places for sessions"


@sushy
def test_a_bmc_that_cannot_cycle_restarts(tmp_path: Path) -> None:
    habits = Habits(password=PASSWORD, allows=("On", "ForceOff", "ForceRestart"))
    with redfish_service(tmp_path / "service", habits) as service:
        assert power(bmc_at(tmp_path, service.url), "cycle") == "on"
        assert service.resets == ["ForceRestart"]


@sushy
@pytest.mark.parametrize("habits", [{"garbled": True}, {"stuck": True}, {"mute": True}, {"allows": ("On",)}, {}])
def test_a_bmc_that_does_not_do_it_is_named(tmp_path: Path, habits: dict[str, Any]) -> None:
    with redfish_service(tmp_path / "service", Habits(password=PASSWORD, **habits)) as service:
        given = PASSWORD if habits else "guessed-wrong-horse"
        with pytest.raises(Unreachable) as caught:
            power(bmc_at(tmp_path, service.url, given), "off", within_s=1.0)
        assert caught.value.code == "HA-073"
        assert given not in json.dumps(caught.value.to_json())
        assert service.resets == (["ForceOff"] if habits == {"stuck": True} else [])


@sushy
def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        power(bmc_at(tmp_path, f"http://127.0.0.1:{free_ports(1)[0]}"), "status", within_s=2.0)
    assert caught.value.code == "HA-073"


@sushy
def test_the_certificate_is_verified(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bmc",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    (folder / "service.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
    with redfish_service(folder, Habits(password=PASSWORD)) as service:
        bmc = bmc_at(tmp_path, service.url)
        with pytest.raises(Unreachable, match="HA-073"):
            power(bmc, "status", within_s=5.0)
        assert power(replace(bmc, ca_file=str(certificate)), "status") == "on"
        assert power(replace(bmc, verify=False), "status") == "on"


def test_a_password_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    bmc = bmc_at(tmp_path, "https://192.0.2.1")
    Path(bmc.password_file).chmod(0o644)
    with pytest.raises(Refused) as caught:
        power(bmc, "status")
    assert caught.value.code == "HA-072"
    Path(bmc.password_file).unlink()
    with pytest.raises(Refused, match="HA-072"):
        power(bmc, "status")


@pytest.mark.parametrize(("way", "library"), [("redfish", "sushy"), ("ipmi", "pyghmi")])
def test_without_the_extra_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, library: str
) -> None:
    (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError({library!r})\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    bmc = bmc_at(tmp_path, "https://192.0.2.1")
    with pytest.raises(Refused) as caught:
        power(bmc if way == "redfish" else replace(bmc, redfish="", ipmi="192.0.2.1"), "status")
    assert caught.value.code == "HA-070"
    assert library in caught.value.why


@pyghmi
def test_ipmi_where_nobody_answers(tmp_path: Path) -> None:
    bmc = replace(bmc_at(tmp_path, ""), redfish="", ipmi="127.0.0.1")
    with pytest.raises(Unreachable) as caught:
        power(bmc, "status", within_s=30.0)
    assert caught.value.code == "HA-073"


def test_ipmi_against_a_bmc() -> None:
    pytest.skip("nothing here answers IPMI: only that nobody answers is tested")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"node": "b", "within_s": 1, "bmc": {"user": "u"}}'])
def test_a_configuration_that_is_none(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ha.power", "-", "status"], input=text, capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, json.loads(done.stdout)["error"]["code"], done.stderr) == (2, "HA-071", "")


def test_nothing_secret_goes_to_the_child(tmp_path: Path) -> None:
    text = Asked(node="b", bmc=bmc_at(tmp_path, "https://192.0.2.1"), within_s=1.0).to_json()
    assert PASSWORD not in text
    assert Asked.of(text).bmc.password_file.endswith("bmc.password")


# ------------------------------------------------------------------ what an agent does after a takeover


@pytest.fixture
def lab(tmp_path: Path, service: Service) -> Iterator[HaLab]:
    with ha_lab("embedded", tmp_path, configured=powered(tmp_path, service.url)) as made:
        yield made


def powered(folder: Path, url: str) -> Callable[[AgentConfig], AgentConfig]:
    return lambda config: replace(config, power="after-takeover", peer_bmc=bmc_at(folder, url))


def told(lab: HaLab) -> list[str]:
    return [str(entry["sentence"]) for entry in lab.control("b").history() if entry["event"] == "power"]


@sushy
def test_a_silent_node_is_power_cycled_once_it_is_served_for(lab: HaLab, service: Service) -> None:
    lab.kill_agent("a")
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL and len(told(lab)) == 2)
    assert told(lab)[1] == "node a was power-cycled"
    assert service.resets == ["PowerCycle"]
    events = [str(entry["event"]) for entry in lab.control("b").history()]
    assert events.index("takeover") < events.index("power")
    kept = [path for path in lab.folder("b").iterdir() if path.is_file()]
    assert kept
    assert not [path for path in kept if PASSWORD.encode() in path.read_bytes()]


def test_a_node_whose_agent_is_heard_is_left_alone(lab: HaLab, service: Service) -> None:
    lab.kill_engine("a")
    lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL and len(told(lab)) == 1)
    assert told(lab) == ["the power of node a is left alone: its agent is heard"]
    assert service.resets == []


@sushy
def test_a_bmc_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    with (
        redfish_service(tmp_path / "service", Habits(password=PASSWORD, mute=True)) as service,
        ha_lab("embedded", tmp_path, configured=powered(tmp_path, service.url)) as lab,
    ):
        lab.kill_agent("a")
        lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == ALL and len(told(lab)) == 1)
        assert "is asked to power-cycle it" in told(lab)[0]
        before = lab.status()["b"]
        assert before["lease_left_ms"] > 0
        lab.control("b").pause()
        lab.wait_for(lambda at: at["b"]["paused"])
        lab.control("b").pause(paused=False)
        lab.agents["b"].terminate()
        assert lab.agents["b"].wait() == 0, "it does not wait for the BMC"


@pytest.mark.parametrize(
    ("forced", "heard_at", "said"),
    [(True, None, "the operator said that it is off"), (False, 9_950, "its agent is heard")],
)
def test_when_a_node_is_left_alone(tmp_path: Path, forced: bool, heard_at: int | None, said: str) -> None:
    heard: list[str] = []
    config = AgentConfig(
        array="lab", node="b", engine="", control="", folder="", secret_file="", policy="fast", paths=(),
        power="after-takeover", peer_bmc=bmc_at(tmp_path, "https://192.0.2.1"),
    )  # fmt: skip
    PeerPower(config, 300, heard.append).taken(forced=forced, heard_at=heard_at, now=10_000)
    PeerPower(replace(config, power="off"), 300, heard.append).taken(forced=False, heard_at=None, now=10_000)
    assert [said in each for each in heard] == [True]


@sushy
def test_a_node_is_not_cycled_again_and_again(tmp_path: Path, service: Service) -> None:
    heard: list[str] = []
    config = AgentConfig(
        array="lab", node="b", engine="", control="", folder="", secret_file="", policy="fast", paths=(),
        power="after-takeover", peer_bmc=bmc_at(tmp_path, service.url),
    )  # fmt: skip

    async def twice() -> None:
        done = asyncio.Event()

        def tell(what: str) -> None:
            heard.append(what)
            if what.endswith("was power-cycled"):
                done.set()

        peer = PeerPower(config, 300, tell)
        for now in (10_000, 500_000):
            peer.taken(forced=False, heard_at=None, now=now)
        await done.wait()
        done.clear()
        peer.taken(forced=False, heard_at=None, now=700_000)
        await done.wait()

    asyncio.run(twice())
    assert service.resets == ["PowerCycle"] * 2
    assert sum("less than 10 minutes ago" in each for each in heard) == 1


# ------------------------------------------------------------------ what the operator does


class Operator:
    """The command line over an applied array whose node b has a BMC."""

    def __init__(self, folder: Path, bmc: Bmc | None) -> None:
        model = Model(ha_array())
        model.settle(ha_array())
        nodes = tuple(replace(node, bmc=bmc if node.name == "b" else None) for node in model.state.array.nodes)
        state = replace(model.state, generation=0, array=replace(model.state.array, nodes=nodes))
        FileStore(folder / "state").save(state)
        self._words = ("--state", str(folder / "state"))

    def run(self, *words: str) -> tuple[int, str, str]:
        ran = CliRunner().invoke(main, ["ha", *words, *self._words])
        return ran.exit_code, ran.stdout, ran.stderr


@sushy
def test_the_operator_asks_and_switches(tmp_path: Path, service: Service) -> None:
    operator = Operator(tmp_path, bmc_at(tmp_path, service.url))
    assert operator.run("power", "status", "--node", "b")[:2] == (0, "node b: its power is on\n")
    status, _, error = operator.run("power", "off", "--node", "b")
    assert (status, "HA-074" in error) == (6, True), "nobody agreed"
    assert service.resets == []
    assert operator.run("power", "off", "--node", "b", "--yes")[:2] == (0, "node b: its power is off\n")
    found = json.loads(operator.run("power", "status", "--node", "b", "-o", "json")[1])
    assert (found["kind"], found["name"], found["power"]) == ("NodePower", "b", "off")
    assert operator.run("power", "on", "--node", "b")[0] == 0
    assert service.resets == ["ForceOff", "On"]


def test_a_node_without_a_bmc(tmp_path: Path) -> None:
    status, _, error = Operator(tmp_path, None).run("power", "status", "--node", "b")
    assert (status, "HA-071" in error) == (2, True)


@sushy
@pytest.mark.parametrize("state", ["Off", "On"])
def test_a_takeover_by_force_says_what_the_bmc_says(tmp_path: Path, state: str) -> None:
    with redfish_service(tmp_path / "service", Habits(password=PASSWORD, power=state)) as service:
        operator = Operator(tmp_path, bmc_at(tmp_path, service.url))
        status, _, error = operator.run("takeover", "--peer-is-off", "--node", "a")
        assert f"says that its power is {state.lower()}" in error
        assert ("WARNING" in error) is (state == "On")
        assert (status, "HA-067" in error) == (6, True), "the word of a person is needed all the same"


def test_a_takeover_by_force_without_an_answer_says_so(tmp_path: Path) -> None:
    bmc = bmc_at(tmp_path, "https://192.0.2.1")
    Path(bmc.password_file).unlink()
    _, _, error = Operator(tmp_path, bmc).run("takeover", "--peer-is-off", "--node", "a")
    assert "cannot be asked: HA-072" in error
