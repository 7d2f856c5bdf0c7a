"""An agent that does nothing but hold a lease: run as ``python lease_agent.py PAGE PID LEASE_MS``, PID 0 for nobody.

It starts the leash, waits until the process is guarded, arms, prints a line, and renews until it is ended.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from ha.adapters.lease_page import AgentPage, Process, now_ms
from ha.adapters.process import Leash

TICK_S = 0.01


def main(page_path: str, pid: str, lease_ms: str) -> None:
    page = AgentPage(Path(page_path))
    leash = Leash(page)
    victim = Process.of(int(pid)) or page.before.data_plane
    tell = True
    while True:
        leash.ensure()
        if leash.guards(victim) or page.order().lease_until_ns is not None:
            page.write(victim, key=1, lease_until_ms=now_ms() + int(lease_ms))
            if tell:
                sys.stdout.write("armed\n")
                sys.stdout.flush()
                tell = False
        else:
            page.write(victim, key=1)
        select.select([], [], [], TICK_S)  # the tick of an agent


if __name__ == "__main__":
    main(*sys.argv[1:])
