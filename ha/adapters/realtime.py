"""Keeping the agent on time: its memory locked, its scheduling, its garbage.

Why: a lease is 300 ms long, and a page that has to be read back from a hung drive, a busy machine or a long collection
could each cost one.  Each measure is taken where it is permitted and said to be missing where not; none of them is
needed for safety, which rests on the drives.  This module must never fail the agent.

Memory is locked only where no limit applies to it.  Under a limit, locking what comes later (MCL_FUTURE) would turn
a page too many into an allocation that fails.

Garbage: what exists after the start lives as long as the agent, so it is frozen and never looked at again.  The
automatic collector, which runs in the middle of anything, is off.  What few cycles arise (errors with their frames)
are collected from time to time when nothing is on its way; that looks at little, since the rest is frozen.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from pathlib import Path
from typing import Final

PRIORITY: Final = 20
"""Of SCHED_FIFO: above what is ordinary, below interrupts; the leash has more."""
COLLECT_EVERY_MS: Final = 10_000
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_CAP_IPC_LOCK: Final = 14


def lock_memory() -> str:
    """Keep all pages in memory; what prevented it, or nothing."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and not _has_capability(_CAP_IPC_LOCK):
        return f"its memory is not locked: only {soft} bytes may be (RLIMIT_MEMLOCK)"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        return f"its memory is not locked: {os.strerror(ctypes.get_errno())}"
    return ""


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def schedule_first(priority: int = PRIORITY) -> str:
    """Run this thread before everything ordinary; what prevented it, or nothing."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as problem:
        return f"it does not run in real time: {problem.strerror}"
    return ""


def freeze_garbage() -> None:
    """See the module; once, when everything has been made."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Sweeper:
    """Collects from time to time."""

    def __init__(self, now: int) -> None:
        self._last = now

    def idle(self, now: int) -> None:
        """Nothing is on its way: the moment for it, when it is time."""
        if now - self._last >= COLLECT_EVERY_MS:
            self._last = now
            gc.collect()
