"""What the control plane costs on each engine: start, apply, an apply with nothing to do, and raw requests.

The array: 24 file drives cut into 512 slices each, two nodes, a striped, a mirrored and a small volume.  The
figures to quote are the ratios, taken in the same run; absolute times belong to the machine.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.target import resident_bytes
from controlplane.domain.desired import (
    Array,
    Drive,
    FileDrive,
    Host,
    Node,
    Pool,
    Port,
    Protection,
    Shelf,
    Subsystem,
    Volume,
    subsystem_nqn,
)
from controlplane.domain.units import MIB
from controlplane.reconcile import shelf
from controlplane.reconcile.reconciler import Reconciler
from dataplane.launch import EngineKind, EngineProcess, free_ports
from dataplane.rpc.call import Call
from dataplane.rpc.methods import framework
from dataplane.rpc.session import Session

DRIVES = 24
HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:6d0f5a5c-0000-4000-8000-000000000001"

Figures = dict[str, float]
Report = dict[str, dict[str, tuple[float, ...]]]


def bench_array(folder: Path, slices: int) -> Array:
    """The array to measure."""
    names = tuple(f"d{i:02}" for i in range(DRIVES))

    def node(name: str) -> Node:
        port = Port(transport="tcp", address="127.0.0.1", service=free_ports(1)[0], family="ipv4")
        return Node(name=name, rpc=str(folder / f"{name}.sock"), ports=(port,), cores=())  # type: ignore[arg-type]

    def drive(name: str) -> Drive:
        return Drive(name=name, source=FileDrive(path=str(folder / f"{name}.img"), size_bytes=slices * MIB))

    return Array(
        name="bench",
        nodes=(node("a"), node("b")),
        drives=tuple(drive(name) for name in names),
        pools=(
            Pool(name="fast", drives=names[:12], slice_bytes=MIB),
            Pool(name="safe", drives=names[12:], slice_bytes=MIB, protection=Protection.MIRROR),
        ),
        subsystems=(Subsystem(name="default", nqn=subsystem_nqn("bench", "default")),),
        volumes=(
            Volume(name="wide", size_bytes=96 * MIB, pool="fast", hosts=("h1",)),
            Volume(name="safe", size_bytes=32 * MIB, pool="safe", hosts=("h1",)),
            Volume(name="small", size_bytes=MIB, pool="fast", hosts=("h1",)),
        ),
        hosts=(Host(name="h1", nqn=HOST_NQN),),
        shelf=Shelf(address="127.0.0.1", service=free_ports(1)[0]),
    )


def timed(job: Callable[[], Any]) -> float:
    """Seconds that ``job`` took."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def one_run(kind: EngineKind, slices: int) -> Figures:
    """Start three engines, bring the array up, and measure on the way."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="ws7000-bench-") as name:
        folder = Path(name)
        array = bench_array(folder, slices)
        shelf.prepare_files(array)
        engines = {}
        try:
            start = time.perf_counter()
            for core, part in enumerate(("shelf", "a", "b")):
                engines[part] = EngineProcess.start(kind, folder / f"{part}.sock", core=core % 2, memory_mib=768)
            for engine in engines.values():
                engine.ready()
            figures["start of three engines, s"] = time.perf_counter() - start
            with Session(str(engines["shelf"].socket)) as session:
                figures["shelf exports 24 drives, s"] = timed(lambda: shelf.serve(array, session))
            figures["node memory before, MiB"] = resident_bytes(engines["a"].process.pid) / MIB
            with Reconciler.in_folder(array, folder / "state") as reconciler:
                figures["first apply, s"] = timed(reconciler.apply)
                nothing = statistics.median(timed(reconciler.apply) for _ in range(5))
                figures["apply with nothing to do, s"] = nothing
                figures["nothing to do / first apply"] = nothing / figures["first apply, s"]
            figures["node memory after, MiB"] = resident_bytes(engines["a"].process.pid) / MIB
            with Session(str(engines["a"].socket), deadline_s=120) as session:
                figures |= _requests(session)
        finally:
            for engine in engines.values():
                engine.stop()
    return figures


def _requests(session: Session) -> Figures:
    version: Call[Any] = framework.get_version()
    session.run(version)
    single = statistics.median(timed(lambda: [session.run(version) for _ in range(24)]) for _ in range(5))
    many = statistics.median(timed(lambda: session.pipeline([version] * 24)) for _ in range(5))
    start = time.perf_counter()
    reply = session.call("bdev_get_bdevs")
    took = time.perf_counter() - start
    return {
        "24 calls in one pipeline, ms": many * 1000,
        "one after another / pipelined": single / many,
        "bdev_get_bdevs of a node, s": took,
        "bdev_get_bdevs reply, MiB": len(json.dumps(reply)) / MIB,
        "bdevs of a node": float(len(reply)),
    }


def measure(kinds: Sequence[EngineKind], *, rounds: int, slices: int) -> Report:
    """(minimum, median, maximum) of every figure, per engine; the engines take turns."""
    return in_turns(kinds, rounds, lambda kind: one_run(kind, slices))


def in_turns(kinds: Sequence[EngineKind], rounds: int, one: Callable[[EngineKind], Figures]) -> Report:
    """Run ``one`` so many times on each engine, in turns; (minimum, median, maximum) of every figure."""
    runs: dict[str, list[Figures]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            runs[kind].append(one(kind))
    return {
        kind: {
            name: (
                min(run[name] for run in each),
                statistics.median(run[name] for run in each),
                max(run[name] for run in each),
            )
            for name in each[0]
        }
        for kind, each in runs.items()
    }


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{'median (minimum - maximum)':50}" + "".join(f"{kind:>34}" for kind in report)]
    for name in dict.fromkeys(name for figures in report.values() for name in figures):
        cells = ("{1:.3f} ({0:.3f} - {2:.3f})".format(*figures[name]) for figures in report.values())
        lines.append(f"{name:50}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines) + "\n"
