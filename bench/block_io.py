"""I/O of the embedded engine beside SPDK's target: the same host program, the same devices, in turns.

The figures to quote are the ratios, of medians taken in the same run; absolute numbers belong to the machine.
``processor us`` is what the engine itself spent on one command: of SPDK it says nothing, since SPDK polls.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench import hosts
from bench.hosts import Workload
from bench.target import DEVICES, Device, Target, alone, exporting
from dataplane.launch import EngineKind

RUN_S: Final = 2
_MIXED: Final = 50
_KIB: Final = 1024
_PATTERNS: Final = {"read": 100, "write": 0, "mixed": _MIXED}
WORKLOADS: Final = (
    *(
        Workload(name=f"4 KiB random {name}, depth {depth}", io_bytes=4 * _KIB, depth=depth, read_percent=share)
        for name, share in _PATTERNS.items()
        for depth in (1, 32, 128)
    ),
    Workload(name="128 KiB sequential read, depth 32", io_bytes=128 * _KIB, depth=32, sequential=True),
    Workload(name="128 KiB sequential write, depth 32", io_bytes=128 * _KIB, depth=32, read_percent=0, sequential=True),
    Workload(name="4 KiB random read, 64 connections", io_bytes=4 * _KIB, depth=1, queues=64),
    Workload(name="4 KiB random mixed, 64 connections", io_bytes=4 * _KIB, depth=1, queues=64, read_percent=_MIXED),
)
_FILL: Final = Workload(name="fill", io_bytes=128 * _KIB, depth=8, read_percent=0, sequential=True)
RATIOS: Final = ("iops", "p50_us", "p99_us")

Runs = list[dict[str, float]]
Report = dict[str, Any]


def measure(
    kinds: Sequence[EngineKind],
    *,
    rounds: int,
    devices: Sequence[Device] = DEVICES,
    only: str = "",
    say: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Every workload whose name contains ``only``, on every engine in turns; (minimum, median, maximum)."""
    perf = hosts.find_perf()
    report: Report = {"host": perf.name if perf else "bench.load", "rounds": rounds, "run_s": RUN_S}
    report["not measured"] = [
        what for what, there in (("spdk", "spdk" in kinds), ("spdk_nvme_perf", perf)) if not there
    ]
    report["devices"] = {}
    for device in devices:
        found: dict[str, dict[EngineKind, Runs]] = {}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ws7000-bench-")))
            targets = [stack.enter_context(exporting(kind, device, folder)) for kind in kinds]
            for target in targets:
                with alone(target, targets):
                    hosts.run_load(target, _FILL, RUN_S)  # reading what was never written is too cheap
            for work in (work for work in WORKLOADS if only in work.name):
                for _ in range(rounds):
                    for target in targets:
                        say(f"{device}: {work.name}: {target.kind}")
                        runs = found.setdefault(work.name, {}).setdefault(target.kind, [])
                        with alone(target, targets):
                            runs.append(_one(target, work, perf))
        report["devices"][device] = {name: _summary(runs) for name, runs in found.items()}
    return report


def _one(target: Target, work: Workload, perf: Path | None) -> dict[str, float]:
    before = target.processor_s
    figures = hosts.run_perf(perf, target, work, RUN_S) if perf else hosts.run_load(target, work, RUN_S)
    # The warm-up is work as well; connecting is not worth counting.
    commands = figures.iops * (RUN_S + hosts.WARM_UP_S)
    return asdict(figures) | {"processor_us": (target.processor_s - before) * 1e6 / commands}


def _summary(runs: dict[EngineKind, Runs]) -> dict[str, Any]:
    engines = {
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
    summary: dict[str, Any] = {"engines": engines}
    if "spdk" in engines and "embedded" in engines:
        summary["embedded / spdk"] = {name: engines["embedded"][name][1] / engines["spdk"][name][1] for name in RATIOS}
    return summary


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"host program: {report['host']}; median (minimum - maximum) of {report['rounds']} runs of {RUN_S} s"]
    if report["not measured"]:
        lines.append(f"not measured, since not there or not asked for: {', '.join(report['not measured'])}")
    for device, works in report["devices"].items():
        for name, summary in works.items():
            lines.append(f"{device}: {name}")
            for kind, figures in summary["engines"].items():
                lines.append(f"  {kind:9}" + "".join(_cell(figures, *column) for column in _COLUMNS))
            ratios = summary.get("embedded / spdk")
            if ratios:
                lines.append("  embedded / spdk: " + ", ".join(f"{key} {value:.3f}" for key, value in ratios.items()))
    return "\n".join(lines) + "\n"


_COLUMNS: Final = (
    ("iops", "IOPS", 1.0),
    ("bytes_per_s", "MB/s", 1e6),
    ("p50_us", "p50 us", 1.0),
    ("p99_us", "p99 us", 1.0),
    ("processor_us", "processor us", 1.0),
)


def _cell(figures: dict[str, tuple[float, float, float]], name: str, unit: str, scale: float) -> str:
    low, mid, high = (value / scale for value in figures[name])
    return f"  {mid:.0f} ({low:.0f} - {high:.0f}) {unit}"
