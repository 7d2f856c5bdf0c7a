"""The leash as the agent sees it: started once, found again by the next agent.

Why: a data plane may serve only while a leash holds it, so the agent has to know that one does, and which data plane.
This module must never end a leash (the page's ``end`` does), and must never wait.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from controlplane.domain.errors import Unreachable
from ha.adapters.lease_page import AgentPage, LeashState, Process, now_ms
from ha.leash import EXIT_TAKEN

RETRY_MS: Final = 1_000
_NO_FAULT: Final = (0, -signal.SIGKILL, EXIT_TAKEN)


class Leash:
    """The leash of one page."""

    def __init__(self, page: AgentPage) -> None:
        self._page = page
        self._child = 0
        self._retry_at = 0

    @property
    def state(self) -> LeashState:
        """What the running leash says; a state of nobody when none runs."""
        said = self._page.leash()
        return said if said.leash.alive else LeashState(killed=said.killed)

    def guards(self, data_plane: Process) -> bool:
        """Whether a leash runs and holds this very process; ``state.armed`` says whether it has read a lease, too.  Ask
        both before anything is served."""
        return data_plane.pid > 0 and self.state.guards == data_plane

    def ensure(self) -> None:
        """Start one unless one runs or is just starting; to be called at each tick.  It runs in a session of its own
        and outlives this process.  Raises ``Unreachable`` HA-045 when it does not start."""
        if self._child:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid == 0:
                return
            self._child = 0
            if os.waitstatus_to_exitcode(status) not in _NO_FAULT:
                self._retry_at = now_ms() + RETRY_MS
                raise _no_leash(f"it ended with status {os.waitstatus_to_exitcode(status)}")
        if now_ms() < self._retry_at or self.state.leash.alive:
            return
        command = (sys.executable, "-m", "ha.leash", str(self._page.path))
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        try:
            self._child = os.posix_spawn(command[0], command, os.environ, file_actions=(nothing,), setsid=True)
        except OSError as error:
            self._retry_at = now_ms() + RETRY_MS
            raise _no_leash(str(error)) from error


def _no_leash(why: str) -> Unreachable:
    return Unreachable(
        "HA-045",
        "the leash cannot be started",
        why=why,
        remedy="see what it wrote to the agent's log; nothing is served by this node without it",
    )
