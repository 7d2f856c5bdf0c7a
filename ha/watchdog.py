"""The machine's watchdog: restarts a node whose kernel or agent is stuck, so that it can join again.

Why: a node that hangs for good stays fenced and useless until somebody resets it.  Safety and the times of a takeover
never rest on it: its timeouts are whole seconds, and many machines have none.  This module must never keep alive on
its own: ``ping`` is called by the agent's loop, after a decision that was made in time, and by nothing else.

Three modes, as Patroni has them: ``off``; ``automatic``, used where there is one; ``required``, without which the
node does not serve (HA-046), and which must be able to reset the machine within ``TIMEOUT_S``.

- It is armed before the node serves (``arm``), and let go in order when it does so no longer (``release``): the magic
  character before the close, or else the machine would be reset after a planned end of the agent.
- An agent that crashes leaves it running; the next one opens it again within ``TIMEOUT_S``, or the machine is reset.
- While the array is paused it does not run: the agents may be away then, and nobody would take over what a reset ends.
- A node that serves already goes on when a required one fails, says so and tries it again: hosts would be worse off.

Source: Documentation/watchdog/watchdog-api.rst and include/uapi/linux/watchdog.h of Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, get_args

from controlplane.domain.errors import Refused

Mode = Literal["off", "automatic", "required"]
DEVICE: Final = "/dev/watchdog"
TIMEOUT_S: Final = 10
PING_MS: Final = 1_000
"""Between two signs of life; many of them fit into the timeout."""
AGAIN_MS: Final = 1_000
"""Between two attempts to open one that could not be used."""
_NO_WAY_OUT: Final = Path("/sys/class/watchdog")
_INFO: Final = struct.Struct("@II32s")
_INT: Final = struct.Struct("@i")
_READ, _READ_WRITE = 2, 3
_SET_TIMEOUT_FLAG: Final = 0x0080
_MAGIC_CLOSE_FLAG: Final = 0x0100


def _request(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("W") << 8 | number


_GET_SUPPORT: Final = _request(_READ, 0, _INFO.size)
_SET_TIMEOUT: Final = _request(_READ_WRITE, 6, _INT.size)
_GET_TIMEOUT: Final = _request(_READ, 7, _INT.size)


class Device(Protocol):
    """A watchdog that was opened, and so runs."""

    identity: str
    magic_close: bool
    """It goes on when it is closed without the magic character."""
    stoppable: bool
    """It can be stopped at all."""

    def set_timeout(self, timeout_s: int) -> int:
        """Ask for a timeout; returns the one that holds.  Raises ``OSError``."""

    def write(self, raw: bytes) -> None:
        """A sign of life, or the magic character.  Raises ``OSError``."""

    def close(self) -> None:
        """Leave it: it stops only if the magic character was the last that was written."""


class LinuxDevice:
    """``/dev/watchdog``."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        options, self.identity = 0, "unknown"
        with contextlib.suppress(OSError):
            raw = fcntl.ioctl(self._fd, _GET_SUPPORT, bytes(_INFO.size))
            options, _, name = _INFO.unpack(raw)
            self.identity = name.rstrip(b"\0").decode(errors="replace")
        self.magic_close = bool(options & _MAGIC_CLOSE_FLAG)
        self.stoppable = not _no_way_out(path)
        self._settable = bool(options & _SET_TIMEOUT_FLAG)

    def set_timeout(self, timeout_s: int) -> int:
        """The driver may round; one without the ability keeps its own."""
        if self._settable:
            return int(_INT.unpack(fcntl.ioctl(self._fd, _SET_TIMEOUT, _INT.pack(timeout_s)))[0])
        return int(_INT.unpack(fcntl.ioctl(self._fd, _GET_TIMEOUT, _INT.pack(0)))[0])

    def write(self, raw: bytes) -> None:
        """A driver takes every byte."""
        os.write(self._fd, raw)

    def close(self) -> None:
        """Leave it."""
        os.close(self._fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogState:
    """What status shows: ``problem`` says why there is none, or what is wrong with it."""

    armed: bool = False
    identity: str = ""
    timeout_s: int = 0
    problem: str = ""


class Watchdog:
    """The watchdog of this machine in one of the three modes."""

    def __init__(self, mode: Mode, path: str = DEVICE, open_device: Callable[[str], Device] = LinuxDevice) -> None:
        self.state = WatchdogState()
        self._mode: Mode = mode
        self._path = path
        self._open = open_device
        self._device: Device | None = None
        self._pinged_at: int | None = None

    def arm(self) -> None:
        """Before the node serves; nothing when it is armed.  Raises ``Refused`` HA-046 when one is required and is not
        there or too slow."""
        if self._mode == "off" or self._device is not None:
            return
        try:
            device = self._open(self._path)
        except OSError as error:
            self._without(error.strerror or str(error))
            return
        try:
            timeout_s = device.set_timeout(TIMEOUT_S)
            problem = "" if timeout_s <= TIMEOUT_S else f"its timeout is {timeout_s} s and cannot be {TIMEOUT_S} s"
        except OSError as error:
            timeout_s, problem = 0, f"its timeout is not known: {error.strerror}"
        if problem and self._mode == "required":
            _let_go(device)
            self._without(problem)
        self._device, self._pinged_at = device, None
        if not device.stoppable:
            problem = problem or "it cannot be stopped: the machine is reset when the agent ends"
        elif not device.magic_close:
            problem = problem or "it stops when the agent ends, even where that has crashed"
        self.state = WatchdogState(armed=True, identity=device.identity, timeout_s=timeout_s, problem=problem)

    def ping(self, now: int) -> None:
        """A decision was made in time, at ``now`` (ms).  Raises ``Refused`` HA-046 when a required one has failed."""
        if self._device is None or (self._pinged_at is not None and now - self._pinged_at < PING_MS):
            return
        try:
            self._device.write(b"\0")
        except OSError as error:
            device, self._device = self._device, None
            device.close()
            self._without(error.strerror or str(error))
            return
        self._pinged_at = now

    def release(self) -> None:
        """The node serves no more, and is well: stop the watchdog.  One that cannot be stopped is kept and goes on
        getting its signs of life."""
        if self._device is None or not self._device.stoppable:
            return
        device, self._device = self._device, None
        _let_go(device)
        self.state = WatchdogState(identity=device.identity)

    def _without(self, why: str) -> None:
        self.state = WatchdogState(problem=why)
        if self._mode == "required":
            raise Refused(
                "HA-046",
                f"this node is to serve only with a watchdog, and {self._path} cannot be used",
                why=why,
                remedy="load the driver (softdog where the machine has none), or set the watchdog to automatic",
            )


class Watch:
    """When the watchdog of a node runs.  ``note`` gets a sentence for the history."""

    def __init__(self, watchdog: Watchdog, mode: Mode, note: Callable[[str], None]) -> None:
        self._watchdog = watchdog
        self._mode: Mode = mode
        self._note = note
        self._noted = ""
        self._first = True
        self._failed_at: int | None = None
        self._why = ""

    @property
    def state(self) -> WatchdogState:
        """What status shows."""
        return self._watchdog.state

    def look(self, now: int, *, serves: bool, could: bool) -> str:
        """Before each decision: arm it or let it go.  ``serves``: the node is a member or about to be one, and not
        paused; ``could``: it has what it takes to become one.  Returns why it may not be admitted."""
        wanted = serves or (could and self._mode == "required")
        # One that a crashed agent has left running is to be taken up in any case.
        if wanted or self._first:
            self._arm(now)
        self._first = False
        if not wanted:
            self._watchdog.release()
        return self._why if wanted else ""

    def alive(self, now: int) -> None:
        """A cycle has been done."""
        try:
            self._watchdog.ping(now)
        except Refused as problem:
            self._failed_at, self._why = now, f"{problem}: {problem.why}"
        if self.state.problem != self._noted:
            self._noted = self.state.problem
            self._note(f"the watchdog: {self._noted or 'it can be used again'}")

    def end(self, *, served: bool) -> None:
        """The agent ends in order.  With something served here it is left running, as after a crash."""
        if not served:
            self._watchdog.release()

    def _arm(self, now: int) -> None:
        if self._failed_at is not None and now - self._failed_at < AGAIN_MS:
            return
        try:
            self._watchdog.arm()
        except Refused as problem:
            self._failed_at, self._why = now, f"{problem}: {problem.why}"
        else:
            self._failed_at, self._why = None if self.state.armed else now, ""


def mode_of(name: str) -> Mode:
    """The mode of that name; raises ``ValueError``."""
    for mode in get_args(Mode):
        if mode == name:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"there is no way {name!r} to use a watchdog")


def _no_way_out(path: str) -> bool:
    """Whether the kernel was told never to stop it; one whose kernel does not say so can be stopped."""
    name = "watchdog0" if path == DEVICE else Path(path).name
    try:
        return (_NO_WAY_OUT / name / "nowayout").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def _let_go(device: Device) -> None:
    with contextlib.suppress(OSError):
        device.write(b"V")
    device.close()
