"""Start an engine process of either kind, wait until it answers, stop it.

Why one place for both: the demo and the tests run the same steps on the embedded engine and on SPDK, and only
the command line differs.  This module must never touch a process it did not start.

``find_spdk`` looks in ``$WS7000_SPDK_PREFIX`` (``bin/nvmf_tgt`` below it) and then on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from controlplane.domain.errors import Unreachable
from dataplane.rpc.methods import framework
from dataplane.rpc.session import Session

EngineKind = Literal["embedded", "spdk"]
START_CONFIG: Final[dict[str, object]] = {
    "subsystems": [
        {
            "subsystem": "bdev",
            "config": [
                # An engine that examines bdevs by itself would read every slice of every drive, and would assemble
                # what the other node has in use.
                {"method": "bdev_set_options", "params": {"bdev_auto_examine": False}},
                {
                    "method": "bdev_nvme_set_options",
                    "params": {
                        "enable_flush": True,
                        "bdev_retry_count": -1,
                        "ctrlr_loss_timeout_sec": -1,
                        "reconnect_delay_sec": 1,
                    },
                },
            ],
        }
    ]
}
"""What every engine of an array starts with; the same file as examples/engine-start.json."""
READY_S = 60.0
STOP_S = 10.0
SPDK_MEMORY_MIB = 512
_POLL_S = 0.05


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listens on now, for the listeners of engines that are tried out."""
    held = [sockets.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def free_udp_ports(count: int) -> list[int]:
    """UDP ports of loopback that nobody uses now, for the heartbeats of agents that are tried out."""
    held = [sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM) for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def find_spdk() -> Path | None:
    """The ``nvmf_tgt`` to use, or None where SPDK is not installed."""
    prefix = os.environ.get("WS7000_SPDK_PREFIX")
    if prefix:
        given = Path(prefix) / "bin" / "nvmf_tgt"
        return given if os.access(given, os.X_OK) else None
    found = shutil.which("nvmf_tgt")
    return Path(found) if found else None


def command_line(
    kind: EngineKind, socket: Path, *, core: int = 0, memory_mib: int = SPDK_MEMORY_MIB, rpc_poll_us: int = 0
) -> list[str]:
    """The command that starts an engine without hardware: no PCIe, no huge pages, cores shared.  With
    ``rpc_poll_us`` the embedded engine looks at its RPC socket at intervals only; SPDK always does, every 4 ms."""
    if kind == "embedded":
        polls = ["--rpc-poll-us", str(rpc_poll_us)] if rpc_poll_us else []
        return [sys.executable, "-m", "dataplane.embedded", "-r", str(socket), *polls]
    target = find_spdk()
    if target is None:
        raise Unreachable(
            "ENG-010",
            "SPDK's nvmf_tgt was not found",
            why="it is neither below $WS7000_SPDK_PREFIX nor on PATH",
            remedy="install SPDK (https://spdk.io/doc/getting_started.html) and set WS7000_SPDK_PREFIX, "
            "or use the embedded engine",
        )
    return [
        str(target), "-r", str(socket), "-m", hex(1 << core), "--no-pci", "--no-huge", "-s", str(memory_mib),
        "--disable-cpumask-locks",
    ]  # fmt: skip


@dataclass(slots=True)
class EngineProcess:
    """A running engine: its process, its socket, its log."""

    kind: EngineKind
    socket: Path
    log: Path
    process: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        kind: EngineKind,
        socket: Path,
        *,
        core: int = 0,
        memory_mib: int = SPDK_MEMORY_MIB,
        rpc_poll_us: int = 0,
    ) -> Self:
        """Start an engine; it may not answer yet (see ``ready``)."""
        log = socket.with_suffix(".log")
        config = socket.with_suffix(".start.json")
        config.write_text(json.dumps(START_CONFIG, indent=2) + "\n", encoding="utf-8")
        command = command_line(kind, socket, core=core, memory_mib=memory_mib, rpc_poll_us=rpc_poll_us)
        with log.open("ab") as out:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter, or the operator's SPDK
                [*command, "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
        return cls(kind=kind, socket=socket, log=log, process=process)

    def ready(self, deadline_s: float = READY_S) -> Self:
        """Wait until the engine answers; raises ENG-011 when it ends or stays silent."""
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise self._dead(f"it ended with status {self.process.returncode}")
            if self.socket.exists():
                try:
                    with Session(str(self.socket)) as session:
                        session.run(framework.get_version(), deadline_s=5.0)
                except Unreachable:
                    pass
                else:
                    return self
            time.sleep(_POLL_S)
        raise self._dead(f"it did not answer within {deadline_s:.0f} s")

    def _dead(self, why: str) -> Unreachable:
        tail = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        return Unreachable(
            "ENG-011",
            f"the {self.kind} engine at {self.socket} did not start",
            why="; ".join([why, *tail]),
            remedy=f"see {self.log}",
        )

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.running:
            self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)
