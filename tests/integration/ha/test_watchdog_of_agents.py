"""The watchdog as an agent keeps it: a FIFO stands for the device, and shows what is written to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ha_lab import VOLUMES, HaLab
from small_lab import small_lab

from dataplane.launch import EngineKind
from ha.model import NODES

ALL = {"default/1", "default/2"}


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[HaLab]:
    """The array is formed by node a; node b needs a watchdog and has none."""
    with small_lab(kind, tmp_path, *VOLUMES) as lab:
        made = HaLab(lab)
        try:
            made.configure()
            made.reconfigure("b", watchdog="required", watchdog_device=str(tmp_path / "watchdog"))
            for node in NODES:
                made.start_agent(node)
            made.form()
            yield made
        except BaseException as problem:
            problem.add_note(made.show())
            raise
        finally:
            made.close()


def test_who_has_no_watchdog_stays_outside_and_who_serves_keeps_it(lab: HaLab, tmp_path: Path) -> None:
    found = lab.wait_for(
        lambda at: set(at["a"]["engine"]["raised"]) == ALL and at["b"]["sentence"].startswith("stays outside: HA-046")
    )
    assert found["b"]["phase"] == "outside"
    assert list(found["a"]["members"]) == ["a"]
    assert found["b"]["watchdog"]["problem"] == "No such file or directory"
    assert found["a"]["watchdog"] == {"armed": False, "identity": "", "timeout_s": 0, "problem": ""}

    lab.kill_agent("b")
    os.mkfifo(tmp_path / "watchdog")
    device = os.open(tmp_path / "watchdog", os.O_RDONLY | os.O_NONBLOCK)
    try:
        lab.reconfigure("b", watchdog="automatic")
        lab.start_agent("b")
        lab.wait_for(lambda at: at["b"]["phase"] == "member" and at["b"]["watchdog"]["armed"])
        begun = os.read(device, 1000)
        # One was taken up at the start and let go, for nothing was served; then it was armed.
        assert b"V" not in begun.lstrip(b"\0V")
        kept = b""
        while len(kept) < 3:
            kept += read(device)
        assert kept == bytes(len(kept)), "signs of life, and nothing else"

        lab.signal_agent("b", signal.SIGTERM)
        lab.agents["b"].wait()
        rest = read(device)
        assert rest == bytes(len(rest)), "it was left running, for something was served"

        lab.wait_for(lambda at: list(at["a"]["members"]) == ["a"])
        lab.start_agent("b")
        lab.wait_for(lambda at: at["b"]["phase"] == "absent" and not at["b"]["watchdog"]["armed"])
        assert read(device).endswith(b"V"), "taken up, and stopped"
    finally:
        os.close(device)


def read(device: int) -> bytes:
    """What has come since."""
    try:
        return os.read(device, 1000)
    except BlockingIOError:
        return b""


def test_a_pause_stops_it(lab: HaLab, tmp_path: Path) -> None:
    lab.kill_agent("b")
    os.mkfifo(tmp_path / "watchdog")
    device = os.open(tmp_path / "watchdog", os.O_RDONLY | os.O_NONBLOCK)
    try:
        lab.reconfigure("b", watchdog="automatic")
        lab.start_agent("b")
        lab.wait_for(lambda at: at["b"]["watchdog"]["armed"] and at["b"]["phase"] == "member")
        lab.control("a").pause()
        lab.wait_for(lambda at: at["b"]["paused"] and not at["b"]["watchdog"]["armed"])
        assert read(device).endswith(b"V")
        lab.control("a").pause(paused=False)
        lab.wait_for(lambda at: at["b"]["watchdog"]["armed"])
    finally:
        os.close(device)
