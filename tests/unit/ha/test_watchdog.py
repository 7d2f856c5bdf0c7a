"""The three modes of the watchdog, against a device that counts down as the kernel's does."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

import pytest

from controlplane.domain.errors import Refused
from ha.watchdog import PING_MS, TIMEOUT_S, LinuxDevice, Watch, Watchdog, mode_of

Mode = Literal["off", "automatic", "required"]


class Kernel:
    """A watchdog driver: runs once it is opened, resets the machine when nobody writes in time."""

    def __init__(self, *, longest_s: int = 60, fixed_s: int = 0, present: bool = True) -> None:
        self.identity = "Kernel's"
        self.magic_close = True
        self.stoppable = True
        self.present = present
        self.broken = False
        self.opened = 0
        self.running = False
        self.left_s = 0
        self._timeout_s = fixed_s or 60
        self._fixed = bool(fixed_s)
        self._longest_s = longest_s
        self._last = b""

    def open(self, path: str) -> Kernel:
        if not self.present:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self.opened += 1
        self.broken = False
        self.running = True
        self.left_s = self._timeout_s
        return self

    def set_timeout(self, timeout_s: int) -> int:
        if not self._fixed:
            self._timeout_s = min(timeout_s, self._longest_s)
        self.left_s = self._timeout_s
        return self._timeout_s

    def write(self, raw: bytes) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._last = raw
        self.left_s = self._timeout_s

    def close(self) -> None:
        self.running = self._last[-1:] != b"V"

    def reset(self) -> bool:
        return self.running and self.left_s <= 0

    def second(self) -> None:
        if self.running:
            self.left_s -= 1


def made(mode: Mode, kernel: Kernel) -> Watchdog:
    return Watchdog(mode, "/dev/watchdog", kernel.open)


def test_off_never_touches_it() -> None:
    kernel = Kernel()
    watchdog = made("off", kernel)
    watchdog.arm()
    watchdog.ping(0)
    watchdog.release()
    assert kernel.opened == 0


@pytest.mark.parametrize("mode", ["automatic", "required"])
def test_it_runs_while_the_node_serves_and_stops_after(mode: Mode) -> None:
    kernel = Kernel()
    watchdog = made(mode, kernel)
    watchdog.arm()
    watchdog.arm()
    assert kernel.opened == 1
    assert watchdog.state.armed
    assert watchdog.state.timeout_s == TIMEOUT_S
    for second in range(3 * TIMEOUT_S):
        for tick in range(0, 1000, 10):
            watchdog.ping(second * 1000 + tick)
        kernel.second()
        assert kernel.left_s >= TIMEOUT_S - PING_MS // 1000
    watchdog.release()
    assert not kernel.running
    assert not watchdog.state.armed


def test_an_agent_that_is_stuck_is_reset() -> None:
    kernel = Kernel()
    watchdog = made("automatic", kernel)
    watchdog.arm()
    watchdog.ping(0)
    for _ in range(TIMEOUT_S):
        kernel.second()
    assert kernel.left_s <= 0


def test_automatic_goes_on_without_one_and_says_why() -> None:
    watchdog = made("automatic", Kernel(present=False))
    watchdog.arm()
    watchdog.ping(0)
    assert watchdog.state.problem == "No such file or directory"


@pytest.mark.parametrize("kernel", [Kernel(present=False), Kernel(fixed_s=300)])
def test_required_refuses_what_is_not_there_or_too_slow(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="HA-046"):
        made("required", kernel).arm()
    assert not kernel.running


def test_automatic_takes_a_slow_one_and_says_so() -> None:
    watchdog = made("automatic", Kernel(fixed_s=300))
    watchdog.arm()
    assert watchdog.state.armed
    assert "300 s" in watchdog.state.problem


def test_one_that_fails_later_is_given_up_or_refused() -> None:
    for mode in ("automatic", "required"):
        kernel = Kernel()
        watchdog = made(mode, kernel)  # type: ignore[arg-type]
        watchdog.arm()
        kernel.broken = True
        if mode == "required":
            with pytest.raises(Refused, match="HA-046"):
                watchdog.ping(0)
        else:
            watchdog.ping(0)
        assert not watchdog.state.armed
        assert watchdog.state.problem


class Agent:
    """What the loop does each second, and what it noted down."""

    def __init__(self, mode: Mode, kernel: Kernel) -> None:
        self.kernel = kernel
        self.noted: list[str] = []
        self.watch = Watch(made(mode, kernel), mode, self.noted.append)
        self.now = 0

    def second(self, *, serves: bool = False, could: bool = False) -> str:
        self.now += 1000
        why = self.watch.look(self.now, serves=serves, could=could)
        self.watch.alive(self.now)
        self.kernel.second()
        return why


@pytest.mark.parametrize("mode", ["automatic", "required"])
def test_it_runs_from_before_the_node_serves_until_it_does_no_more(mode: Mode) -> None:
    agent = Agent(mode, Kernel())
    assert agent.second() == ""
    assert not agent.kernel.running
    assert agent.second(could=True) == ""
    assert agent.kernel.running == (mode == "required"), "what is required is armed before anybody admits the node"
    for _ in range(3 * TIMEOUT_S):
        assert agent.second(serves=True) == ""
        assert agent.kernel.running
        assert not agent.kernel.reset()
    agent.second()
    assert not agent.kernel.running
    assert agent.noted == []


def test_a_node_that_needs_one_is_unfit_until_it_is_there() -> None:
    agent = Agent("required", Kernel(present=False))
    agent.second()
    for _ in range(3):
        why = agent.second(could=True)
        assert "HA-046" in why
        assert "No such file" in why
    assert len(agent.noted) == 1
    agent.kernel.present = True
    assert agent.second(could=True) == ""
    assert agent.kernel.running
    assert agent.noted[1:] == ["the watchdog: it can be used again"]
    assert Agent("automatic", Kernel(present=False)).second(serves=True, could=True) == ""


def test_one_that_was_not_tried_again_yet_does_not_make_the_node_fit() -> None:
    agent = Agent("required", Kernel(present=False))
    assert agent.watch.look(0, serves=False, could=False) == ""
    assert "HA-046" in agent.watch.look(1, serves=False, could=True)


def test_one_that_a_crashed_agent_left_running_is_taken_up() -> None:
    kernel = Kernel()
    Agent("automatic", kernel).second(serves=True)
    assert kernel.running
    agent = Agent("automatic", kernel)
    for _ in range(2 * TIMEOUT_S):
        agent.second()
        assert not kernel.reset()
    assert not kernel.running


def test_one_that_cannot_be_stopped_is_kept_alive() -> None:
    kernel = Kernel()
    kernel.stoppable = False
    agent = Agent("automatic", kernel)
    for serves in (False, True, False):
        for _ in range(2 * TIMEOUT_S):
            agent.second(serves=serves)
            assert not kernel.reset()
    assert "cannot be stopped" in agent.watch.state.problem
    assert len(agent.noted) == 1


@pytest.mark.parametrize("served", [True, False])
def test_the_end_of_an_agent_stops_it_only_with_nothing_served(served: bool) -> None:
    agent = Agent("required", Kernel())
    agent.second(serves=True)
    agent.watch.end(served=served)
    assert agent.kernel.running == served


@pytest.mark.parametrize("mode", ["automatic", "required"])
def test_one_that_fails_while_the_node_serves_is_tried_again(mode: Mode) -> None:
    agent = Agent(mode, Kernel())
    agent.second(serves=True)
    agent.kernel.broken = True
    agent.second(serves=True)
    assert not agent.watch.state.armed
    agent.second(serves=True)
    agent.second(serves=True)
    assert agent.watch.state.armed
    assert [note for note in agent.noted if "error" in note] == ["the watchdog: Input/output error"]
    assert len(agent.noted) == 2


def test_a_mode_is_one_of_three() -> None:
    assert mode_of("required") == "required"
    with pytest.raises(ValueError, match="perhaps"):
        mode_of("perhaps")


def test_what_is_written_to_a_device_file(tmp_path: Path) -> None:
    """A FIFO takes the bytes and none of the questions; it is as much of a device as every machine has."""
    path = tmp_path / "watchdog"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    watchdog = Watchdog("automatic", str(path))
    watchdog.arm()
    assert "not known" in watchdog.state.problem
    watchdog.ping(0)
    watchdog.ping(PING_MS - 1)
    watchdog.ping(PING_MS)
    assert os.read(reader, 100) == b"\0\0"
    watchdog.release()
    assert os.read(reader, 100) == b"V"
    assert os.read(reader, 100) == b""
    with pytest.raises(Refused, match="HA-046"):
        Watchdog("required", str(path)).arm()
    os.close(reader)


def test_the_machines_own_device_answers_who_it_is() -> None:
    """Only softdog, loaded for the purpose: another one could reset the machine."""
    name = Path("/sys/class/watchdog/watchdog0/identity")
    if not name.exists() or "Software Watchdog" not in name.read_text(encoding="ascii"):
        pytest.skip("softdog is not loaded, and no other watchdog is tried")
    device = LinuxDevice("/dev/watchdog0")
    try:
        assert device.identity == "Software Watchdog"
        assert device.set_timeout(30) == 30
    finally:
        device.write(b"V")
        device.close()
