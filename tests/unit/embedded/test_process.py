"""The engine as a process: configuration, states, signals, the second one."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import EngineError, UsageError
from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc import config

DEADLINE_SECONDS = 30


class Running:
    """A started engine; ``line`` reads its log until a word appears."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dataplane.embedded", *arguments], stderr=subprocess.PIPE, text=True
        )

    def until(self, word: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if word in line:
                return line
        return ""

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)


def ask(path: Path, method: str, **params: object) -> Any:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_SECONDS)
        sock.connect(str(path))
        request = {"jsonrpc": "2.0", "id": 1, "method": method} | ({"params": params} if params else {})
        sock.sendall(json.dumps(request).encode())
        with sock.makefile() as file:
            answer = json.loads(file.readline())
    return answer.get("result", answer.get("error"))


@pytest.fixture
def started() -> Iterator[Any]:
    running: list[Running] = []

    def start(*arguments: str) -> Running:
        running.append(Running(*arguments))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def written(tmp_path: Path, *calls: dict[str, object], subsystem: str = "bdev") -> str:
    path = tmp_path / "config.json"
    body = {"subsystems": [{"subsystem": subsystem, "config": list(calls)}, {"subsystem": "vmd", "config": None}]}
    path.write_text("// written by a test\n" + json.dumps(body))
    return str(path)


NULL = {"method": "bdev_null_create", "params": {"name": "n", "num_blocks": 8, "block_size": 512}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_configuration_is_served_and_a_signal_ends_in_order(started: Any, tmp_path: Path, number: int) -> None:
    sock = tmp_path / "s"
    options = {"method": "bdev_set_options", "params": {"bdev_auto_examine": False}}
    # As nvmf_tgt is started, with flags that mean nothing here.
    engine = started("-r", str(sock), "-c", written(tmp_path, NULL, options), "-m", "0x1", "-s", "512", "--no-huge")
    assert "--cpumask --mem-size --no-huge" in engine.until("without effect")
    engine.until("serves")
    assert [bdev["name"] for bdev in ask(sock, "bdev_get_bdevs")] == ["n"]
    assert ask(sock, "framework_get_config", name="bdev")[0]["params"]["bdev_auto_examine"] is False
    assert engine.end(number) == 0
    assert not sock.exists()


def test_waiting_for_rpc(started: Any, tmp_path: Path) -> None:
    sock = tmp_path / "s"
    engine = started("-r", str(sock), "--wait-for-rpc", "-c", written(tmp_path, NULL))
    engine.until("serves")
    assert ask(sock, "bdev_get_bdevs")["code"] == -1
    assert "framework_start_init" in ask(sock, "rpc_get_methods", current=True)
    assert ask(sock, "iobuf_set_options", small_pool_count=10) == {"code": -22, "message": "Invalid argument"}
    assert ask(sock, "framework_start_init") is True
    assert ask(sock, "framework_wait_init") is True
    assert [bdev["name"] for bdev in ask(sock, "bdev_get_bdevs")] == ["n"]
    assert "framework_start_init" not in ask(sock, "rpc_get_methods", current=True)
    assert ask(sock, "spdk_kill_instance", sig_name="SIGTERM") is True
    assert engine.wait() == 0


def test_an_engine_that_polls_its_socket_answers_all_the_same(started: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    running = started("-r", str(path), "--wait-for-rpc", "--rpc-poll-us", "4000")
    assert running.until("serves")
    assert ask(path, "bdev_get_bdevs")["code"] == -1
    assert ask(path, "framework_start_init") is True
    assert ask(path, "framework_wait_init") is True
    assert ask(path, "bdev_get_bdevs") == []
    assert running.end() == 0


@pytest.mark.parametrize("interval", ["-1", "1000001", "often"])
def test_an_interval_that_cannot_be_is_refused(started: Any, tmp_path: Path, interval: str) -> None:
    running = started("-r", str(tmp_path / "s"), f"--rpc-poll-us={interval}")
    assert running.until("--rpc-poll-us")
    assert running.wait() == 2


def test_a_second_engine_is_refused_and_harms_nothing(started: Any, tmp_path: Path) -> None:
    sock = tmp_path / "s"
    first = started("-r", str(sock))
    first.until("serves")
    second = started("-r", str(sock))
    assert "ENG-001" in second.until("ENG-001")
    assert second.wait() == 5
    assert ask(sock, "framework_wait_init") is True
    assert first.end() == 0


def test_what_was_flushed_survives_being_killed(started: Any, tmp_path: Path) -> None:
    sock = tmp_path / "s"
    for _ in range(2):
        engine = started("-r", str(sock))
        engine.until("serves")
        assert engine.end(signal.SIGKILL) == -signal.SIGKILL
        assert sock.exists()
    engine = started("-r", str(sock))
    assert engine.until("serves")


def test_a_call_of_the_configuration_that_fails_ends_the_engine(started: Any, tmp_path: Path) -> None:
    path = written(tmp_path, NULL, NULL)
    engine = started("-r", str(tmp_path / "s"), "-c", path)
    assert "-17: File exists" in engine.until("ENG-004")
    assert engine.wait() == 1
    lenient = started("-r", str(tmp_path / "s"), "-c", path, "--json-ignore-init-errors")
    assert lenient.until("serves")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty or ends"), ('{"subsystems": [', "empty or ends"), ("{x}", "no JSON"), ("[]", "no list"),
        ('{"subsystems": 3}', "no list"), ('{"subsystems": [{"subsystem": "bdev"}]}', "needs"),
        ('{"subsystems": [{"subsystem": 1, "config": []}]}', "a name"),
        ('{"subsystems": [{"subsystem": "bdev", "config": [3]}]}', "something else"),
        ('{"subsystems": [{"subsystem": "bdev", "config": [{"method": "x", "params": []}]}]}', "an object"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_used(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load(str(path))
    assert (caught.value.code, why in caught.value.why) == ("ENG-003", True)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        config.load(str(tmp_path / "none"))


def test_unknown_methods_are_skipped_only_in_unknown_subsystems(tmp_path: Path) -> None:
    unknown: dict[str, object] = {"method": "no_such_method"}

    async def run(subsystem: str) -> None:
        engine = Engine()
        entries = config.load(written(tmp_path, unknown, subsystem=subsystem))
        await config.apply(engine, entries, ignore_errors=False)

    asyncio.run(run("nbd"))
    with pytest.raises(EngineError) as caught:
        asyncio.run(run("bdev"))
    assert caught.value.code == "ENG-004"
