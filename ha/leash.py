"""The leash: kills the data plane when its lease has ended, whatever became of the agent.

    python -m ha.leash PAGE

Why a process of its own: the agent may be stopped, killed, swapped out or stuck, and its data plane would go on
serving while the peer takes over.  Drives then refuse its commands, so nothing is lost; but hosts would see those
refusals instead of dropped connections (I8).

What it must never do: open a socket, decide anything, write to a file, a pipe or a terminal while it guards (that may
block), kill a process that is not the one on the page.

What always holds
- It holds a pidfd of the data plane, and has compared the start time after opening it: another process that has got
  the same number is never killed.
- It sleeps until the lease's end, reads the page again, and kills when the clock is past the end.  It reads the page at
  least every ``_GLANCE_NS``, since a lease can be made shorter too: the long one of a node that was the only member
  ends when the other node is admitted.  While nothing is armed it looks every ``_LOOK_NS`` for whether something is.
- A page that cannot be read counts as a lease that has ended, if there was one when it could be read last: the agent
  heals a damaged page within a tick, so one that stays so has no agent that could renew, and a lease that nobody can
  read is one that nobody can prove.  A kill without need costs a failover; a kill left out may cost a host its I/O.
  Where nothing was armed, nothing was promised to the peer, and it goes on looking.
- It ends when the page says so, or when the data plane is gone and no agent is left.  It outlives the agent,
  and pays no heed to the signals that end a session or a service; a service manager must not kill it
  with the agent (KillMode=process).
- One leash to a page: a second one ends with ``EXIT_TAKEN``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import select
import signal
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from ha.adapters.lease_page import NOBODY, LeashPage, LeashState, Order, Process, Unreadable, now_ns

EXIT_TAKEN: Final = 3
EXIT_USAGE: Final = 2
EXIT_FAILED: Final = 1
_LOOK_NS: Final = 20_000_000
_GLANCE_NS: Final = 50_000_000
_READS: Final = 10
"""Before a page counts as unreadable; one that is read while it is written twice is torn in both slots, once."""
_PRIORITY: Final = 50
_MCL_CURRENT_AND_FUTURE: Final = 3
_CLOCK_BOOTTIME: Final = 7
_TIMER_ABSTIME: Final = 1
_TIMER: Final = struct.Struct("@qqqq")


class Alarm:
    """A timer of CLOCK_BOOTTIME: it fires at once after a suspension that was longer than what was left."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(_CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def at(self, when_ns: int) -> None:
        """Fire then, once."""
        spec = _TIMER.pack(0, 0, *divmod(max(when_ns, 1), 1_000_000_000))
        if self._libc.timerfd_settime(self.fd, _TIMER_ABSTIME, spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")


class Guard:
    """The data plane that is guarded, by its pidfd; None and ``NOBODY`` when there is none (any more)."""

    def __init__(self) -> None:
        self.process = NOBODY
        self.fd: int | None = None

    def hold(self, process: Process) -> None:
        """Guard this one instead; one that is gone already is not held."""
        self.let_go()
        if process.pid <= 0:
            return
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            return
        # Only now is it sure whom the descriptor stands for: the number may have been given away before.
        # One that has ended and was not waited for yet (a zombie) still has its number, and nothing to guard.
        if Process.of(process.pid) != process or not _may_signal(fd) or _has_ended(fd):
            os.close(fd)
            return
        self.process, self.fd = process, fd

    def let_go(self) -> None:
        """Guard nothing."""
        if self.fd is not None:
            os.close(self.fd)
        self.process, self.fd = NOBODY, None

    def kill(self) -> None:
        """SIGKILL; nothing if it is gone meanwhile."""
        if self.fd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, signal.SIGKILL)


def _has_ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _may_signal(fd: int) -> bool:
    try:
        signal.pidfd_send_signal(fd, 0)
    except OSError:
        return False
    return True


class Leash:
    """One page, one data plane."""

    def __init__(self, page: LeashPage, state: LeashState) -> None:
        self._page = page
        self._state = state
        self._alarm = Alarm()
        self._guard = Guard()
        self._order = Order()

    def run(self) -> None:
        """Until there is nothing left to guard."""
        self._page.say(self._state)
        while True:
            readable = self._look()
            if self._order.end:
                return
            self._kill_if_over(readable=readable)
            if self._guard.fd is None and not self._order.agent.alive and self._order.agent != NOBODY:
                return
            self._sleep(readable=readable)

    def _look(self) -> bool:
        """Read the page; False when it cannot be read."""
        for _ in range(_READS):
            try:
                order = self._page.order()
            except (Unreadable, OSError):
                continue
            if order.data_plane != self._guard.process:
                self._guard.hold(order.data_plane)
            self._order = order
            self._say(guards=self._guard.process, armed=order.lease_until_ns is not None)
            return True
        return False

    def _kill_if_over(self, *, readable: bool) -> None:
        until = self._order.lease_until_ns
        if until is None or self._guard.fd is None or (readable and now_ns() <= until):
            return
        victim = self._guard.process
        self._guard.kill()
        self._say(killed=victim)

    def _sleep(self, *, readable: bool) -> None:
        """Until the lease's end, the end of the data plane, or the next look."""
        until = self._order.lease_until_ns
        guarded = self._guard.fd is not None and until is not None and readable
        # One nanosecond later than the end, so that the clock is past it.
        now = now_ns()
        ends = until + 1 if guarded and until is not None and until >= now else now + _LOOK_NS
        self._alarm.at(min(ends, now + _GLANCE_NS))
        poll = select.poll()
        poll.register(self._alarm.fd, select.POLLIN)
        if self._guard.fd is not None:
            poll.register(self._guard.fd, select.POLLIN)
        for fd, _ in poll.poll():
            if fd == self._guard.fd:
                self._guard.let_go()
                self._say(guards=NOBODY)

    def _say(self, **changes: Process | bool) -> None:
        state = replace(self._state, **changes)  # type: ignore[arg-type]
        if state != self._state:
            self._state = state
            self._page.say(state)


def lock_memory() -> bool:
    """Keep every page of this process in memory; False where that is not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.mlockall(_MCL_CURRENT_AND_FUTURE)) == 0


def real_time() -> bool:
    """Run before everything that is not real-time; False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """The process; returns its exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m ha.leash PAGE\n")
        return EXIT_USAGE
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(each, signal.SIG_IGN)
    path = Path(arguments[0])
    try:
        lock = os.open(path.with_suffix(".leash"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        page = LeashPage(path)
    except BlockingIOError:
        return EXIT_TAKEN
    except OSError as error:
        sys.stderr.write(f"leash: {error}\n")
        return EXIT_FAILED
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000", encoding="ascii")
    gc.collect()
    gc.freeze()
    gc.disable()
    me = Process.of(os.getpid()) or NOBODY
    Leash(page, LeashState(leash=me, memory_locked=lock_memory(), real_time=real_time())).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
