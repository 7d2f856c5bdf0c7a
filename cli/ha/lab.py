"""Breaking what a lab started, to see what the other node makes of it: ``ws7000 ha simulate``.

Only processes that the lab's ``lab.json`` names are touched, each only while it is the very process that was written
down: pid and start time, so that a pid that was given to another meanwhile is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from controlplane.domain.errors import Refused
from ha.model import NODES

FILE: Final = "lab.json"
FAULTS: Final[Mapping[str, tuple[tuple[str, ...], signal.Signals]]] = {
    "data-plane-crash": (("engine",), signal.SIGKILL),
    "data-plane-hang": (("engine",), signal.SIGSTOP),
    "agent-crash": (("agent",), signal.SIGKILL),
    "agent-hang": (("agent",), signal.SIGSTOP),
    # Everything at once, as far as others can tell: the leash could still kill, so it is stopped first.
    "node-silent": (("leash", "agent", "engine"), signal.SIGSTOP),
}
"""Fault -> the roles it befalls, in order, and the signal."""
MEND: Final = "mend"
"""Lets what was stopped go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of the lab: ``role`` is engine, agent, leash or shelf; ``node`` a, b, or empty for the shelf."""

    role: str
    node: str
    pid: int
    started: int
    """Clock ticks since boot (proc(5), field 22 of stat)."""


def started_at(pid: int) -> int | None:
    """When the process began; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])


def write(folder: Path, processes: list[Process]) -> None:
    """Note down what the lab has started."""
    items = [{"role": p.role, "node": p.node, "pid": p.pid, "started": p.started} for p in processes]
    beside = folder / f"{FILE}.new"
    beside.write_text(json.dumps({"processes": items}, indent=2) + "\n", encoding="utf-8")
    beside.replace(folder / FILE)


def read(folder: Path) -> list[Process]:
    """What the lab has started.  Raises ``Refused`` HA-066 where there is no lab."""
    try:
        body: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return [
            Process(role=str(p["role"]), node=str(p["node"]), pid=int(p["pid"]), started=int(p["started"]))
            for p in body["processes"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Refused(
            "HA-066",
            f"{folder} is no lab",
            why=f"its {FILE} cannot be read: {problem}",
            remedy="faults are simulated only on what a lab has started; name its folder",
        ) from problem


def befall(folder: Path, fault: str, node: str) -> list[Process]:
    """Let the fault happen to the node; what it befell.  Raises ``Refused`` HA-066."""
    roles, number = FAULTS[fault]
    processes = [(role, p) for role in roles for p in read(folder) if (p.role, p.node) == (role, node)]
    return _signal(folder, [p for _, p in processes], number, f"no {' or '.join(roles)} of node {node}")


def mend(folder: Path, node: str) -> list[Process]:
    """Let every stopped process of the node go on; one that was killed meanwhile stays away."""
    mine = [p for p in read(folder) if p.node == node]
    return _signal(folder, mine, signal.SIGCONT, f"no process of node {node}")


def _signal(folder: Path, processes: list[Process], number: signal.Signals, nobody: str) -> list[Process]:
    reached = []
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            # The pidfd is taken before the start time is looked at, so what is signalled is what was compared.
            handle = os.pidfd_open(process.pid)
            try:
                if started_at(process.pid) == process.started:
                    signal.pidfd_send_signal(handle, number)
                    reached.append(process)
            finally:
                os.close(handle)
    if not reached:
        raise Refused(
            "HA-066",
            f"{nobody} runs in the lab {folder}",
            why=f"nodes are {' and '.join(NODES)}; what the lab had started has ended, or its pid is another's now",
            remedy="start the lab again, or name the folder of one that runs",
        )
    return reached
