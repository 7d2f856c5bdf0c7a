"""The machine's watchdog: restarts a node whose kernel or agent is stuck, so that it can join again.

Why: a node that hangs for good stays fenced and useless until somebody resets it.  Safety and the times of a takeover
never rest on it: its timeouts are whole seconds, and many machines have none.  This module must never keep alive on
its own: ``ping`` is called by the agent's loop, after a decision that was made in time, and by nothing else.

Three modes, as Patroni has them: ``off``; ``automatic``, used where there is one; ``required``, without which the
node does not serve (HA-046), and which must be able to reset the machine within ``TIMEOUT_S``.

- It is armed when the node becomes a member (``arm``), and let go in order when it is one no longer (``release``): the
  magic character before the close, or else the machine would be reset after a planned end of the agent.
- An agent that crashes leaves it running; the next one opens it again within ``TIMEOUT_S``, or the machine is reset.

Source: Documentation/watchdog/watchdog-api.rst and include/uapi/linux/watchdog.h of Linux.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from controlplane.domain.errors import Refused

Mode = Literal["off", "automatic", "required"]
DEVICE: Final = "/dev/watchdog"
TIMEOUT_S: Final = 10
PING_MS: Final = 1_000
"""Between two signs of life; many of them fit into the timeout."""
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
        if not device.magic_close:
            problem = problem or "it cannot be stopped: the machine is reset when the agent ends"
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
        """The node serves no more, and is well: stop the watchdog."""
        if self._device is None:
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


def _let_go(device: Device) -> None:
    with contextlib.suppress(OSError):
        device.write(b"V")
    device.close()
