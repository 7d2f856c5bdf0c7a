"""An engine that exports one device, for measuring its I/O.

Why: both engines are brought up by the same calls, so that only the engine differs.  It must never leave a process
or a file behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from controlplane.domain.units import MIB
from dataplane.launch import EngineKind, EngineProcess, free_ports
from dataplane.rpc.methods import bdev, nvmf
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress

Device = Literal["malloc", "file"]
DEVICES: Final[tuple[Device, ...]] = ("malloc", "file")
NQN: Final = "nqn.2014-08.org.nvmexpress:uuid:5f7b3f0e-0000-4000-8000-0000000000bb"
ADDRESS: Final = "127.0.0.1"
BLOCK_BYTES: Final = 4096
DEVICE_BYTES: Final = 256 * MIB
ENGINE_MEMORY_MIB: Final = 768
_BDEV: Final = "measured"
_UUID: Final = "5f7b3f0e-0000-4000-8000-0000000000cc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running engine and where its namespace 1 of ``NQN`` is."""

    kind: EngineKind
    pid: int
    port: int

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the engine."""
        return resident_bytes(self.pid)

    @property
    def processor_s(self) -> float:
        """Processor time that the engine has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def alone(target: Target, targets: Sequence[Target]) -> Iterator[None]:
    """While the block runs, only ``target`` of ``targets`` runs: one that polls would take its core away."""
    others = [other for other in targets if other is not target]
    for other in others:
        os.kill(other.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other.pid, signal.SIGCONT)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, from /proc."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def exporting(kind: EngineKind, device: Device, folder: Path) -> Iterator[Target]:
    """An engine on the first core that exports ``device``."""
    engine = EngineProcess.start(kind, folder / f"{kind}-{device}.sock", core=0, memory_mib=ENGINE_MEMORY_MIB)
    try:
        engine.ready()
        cores = sorted(os.sched_getaffinity(0))
        if kind == "embedded" and len(cores) > 1:
            os.sched_setaffinity(engine.process.pid, {cores[0]})  # SPDK pins itself, so both have a core each
        (port,) = free_ports(1)
        with Session(str(engine.socket)) as session:
            session.run(nvmf.create_transport("TCP"))
            if device == "malloc":
                session.run(bdev.malloc_create(_BDEV, block_size_bytes=BLOCK_BYTES, size_bytes=DEVICE_BYTES))
            else:
                path = folder / f"{kind}.img"
                path.write_bytes(os.urandom(MIB) * (DEVICE_BYTES // MIB))
                session.run(bdev.aio_create(_BDEV, path=str(path), block_size_bytes=BLOCK_BYTES))
            subsystem = nvmf.create_subsystem(
                NQN,
                serial_number="BENCH",
                model_number="WS7000 bench",
                max_namespaces=1,
                min_cntlid=1,
                max_cntlid=0xFFEF,
                allow_any_host=True,
            )
            session.run(subsystem)
            namespace = nvmf.add_ns(
                NQN, bdev_name=_BDEV, nsid=1, nguid=_UUID.replace("-", ""), uuid=_UUID, ana_group=1, auto_visible=True
            )
            session.run(namespace)
            session.run(nvmf.add_listener(NQN, ListenAddress.of("tcp", ADDRESS, port), ana_state="optimized"))
        yield Target(kind=kind, pid=engine.process.pid, port=port)
    finally:
        engine.stop()
