"""What the runs say: a table, the same as values, and a chart that needs no library.

The chart has one row for each fault and one dot for each run, on a logarithmic axis: medians hide what a host minds.
This module must never measure and never leave a run out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final
from xml.sax.saxutils import escape

from cli.ha.failover.measure import HEARTBEAT_LOST, Run

BOUNDS_MS: Final = {
    "switchover": 100.0,
    "data-plane-crash": 250.0,
    "data-plane-hang": 700.0,
    "node-silent": 700.0,
}
"""What is aimed at, in milliseconds without an answer."""
STEPS: Final = (
    "detect", "race", "fence", "verify", "read", "write", "load", "taken", "raised", "fence to raised",
)  # fmt: skip
HOST: Final = ("noticed", "usable", "resumed")

_LEFT: Final = 230
_WIDTH: Final = 960
_ROW: Final = 46
_TOP: Final = 58
_TICKS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def share(values: Sequence[float], part: float) -> float:
    """The smallest of ``values`` that ``part`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum; of fewer than a hundred the last two are the same."""
    return {"p50": share(values, 0.5), "p99": share(values, 0.99), "max": max(values)}


def by_kind(runs: Iterable[Run]) -> dict[tuple[str, str], list[Run]]:
    """By engine and fault, in the order in which they came."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.engine, run.fault), []).append(run)
    return found


def body(runs: Sequence[Run], command: str, begun_again: int) -> dict[str, Any]:
    """All of it, as JSON has it; times in milliseconds."""
    return {
        "command": command,
        "begun_again": begun_again,
        "summary": [_summary(engine, fault, found) for (engine, fault), found in by_kind(runs).items()],
        "runs": [asdict(run) for run in runs],
    }


def _summary(engine: str, fault: str, runs: Sequence[Run]) -> dict[str, Any]:
    def of(name: str, key: str) -> dict[str, dict[str, float]]:
        values = [getattr(run, name)[key] for run in runs if key in getattr(run, name)]
        return {key: spread(values)} if values else {}

    steps: dict[str, Any] = {}
    for key in STEPS:
        steps |= of("steps", key)
    host: dict[str, Any] = {}
    for key in HOST:
        host |= of("host", key)
    return {
        "engine": engine,
        "fault": fault,
        "policy": runs[0].policy,
        "runs": len(runs),
        "gap_ms": spread([run.gap_ms for run in runs]),
        "elsewhere_ms": spread([run.elsewhere_ms for run in runs]),
        "bound_ms": BOUNDS_MS.get(fault),
        "errors": sum(run.errors for run in runs),
        "violations": sorted({run.violation for run in runs if run.violation}),
        "takeovers": sum(1 for run in runs if run.took_over),
        "accesses": sum(run.accesses for run in runs),
        "steps_ms": steps,
        "host_ms": host,
    }


def lines(summary: Sequence[dict[str, Any]]) -> list[str]:
    """The tables, for people."""
    out = [f"{'':34}{'runs':>5}{'no answer for, ms: p50':>24}{'p99':>8}{'max':>8}{'aim':>6}{'errors':>8}  history"]
    for each in summary:
        gap, bound = each["gap_ms"], each["bound_ms"]
        history = "; ".join(each["violations"]) or "linearizable"
        if each["fault"] == HEARTBEAT_LOST:
            history += f", {each['takeovers']} takeovers"
        out.append(
            f"{each['engine'] + ' ' + each['fault']:34}{each['runs']:5}{gap['p50']:24.0f}{gap['p99']:8.0f}"
            f"{gap['max']:8.0f}{bound or 0:6.0f}{each['errors']:8}  {history}"
        )
    for key, title, names in (
        ("steps_ms", "agent, ms, p50 (max): detect and raised since the fault, else since it decided", STEPS),
        ("host_ms", "host, ms since the fault, p50 (max)", HOST),
    ):
        out += ["", title]
        for each in summary:
            told = [f"{name} {each[key][name]['p50']:.0f} ({each[key][name]['max']:.0f})" for name in names
                    if name in each[key]]  # fmt: skip
            if told:
                out.append(f"  {each['engine']} {each['fault']}: {', '.join(told)}")
    return out


def chart(runs: Sequence[Run], command: str) -> str:
    """An SVG image with the command in it."""
    rows = list(by_kind(runs).items())
    height = _TOP + _ROW * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        '<text x="12" y="22" font-size="15">Longest time without an answer to the host, by fault</text>',
        f'<text x="12" y="40" fill="#555">{escape(command)}</text>',
    ]
    bottom = _TOP + _ROW * len(rows)
    parts += [
        f'<line x1="{_x(tick):.1f}" y1="{_TOP}" x2="{_x(tick):.1f}" y2="{bottom}" stroke="#ddd"/>'
        f'<text x="{_x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick}</text>'
        for tick in _TICKS_MS
    ]
    parts.append(f'<text x="{_WIDTH - 12}" y="{bottom + 34}" text-anchor="end">milliseconds</text>')
    for number, ((engine, fault), found) in enumerate(rows):
        parts += _row(_TOP + _ROW * number, engine, fault, [run.gap_ms for run in found])
    return "\n".join([*parts, "</svg>", ""])


def _row(top: int, engine: str, fault: str, gaps: Sequence[float]) -> list[str]:
    middle = top + _ROW // 2
    half = share(gaps, 0.5)
    parts = [
        f'<text x="12" y="{middle + 4}">{escape(engine)} {escape(fault)} ({len(gaps)})</text>',
        f'<line x1="{_LEFT}" y1="{middle}" x2="{_WIDTH - 12}" y2="{middle}" stroke="#eee"/>',
    ]
    if fault in BOUNDS_MS:
        at = _x(BOUNDS_MS[fault])
        parts.append(f'<line x1="{at:.1f}" y1="{top + 6}" x2="{at:.1f}" y2="{top + _ROW - 6}" stroke="#c00"/>')
    # Apart from each other up and down, so that dots do not hide dots.
    for number, gap in enumerate(gaps):
        y = middle + (number % 7 - 3) * 3
        parts.append(f'<circle cx="{_x(gap):.1f}" cy="{y}" r="2.5" fill="#2563a8" fill-opacity="0.6"/>')
    parts.append(
        f'<line x1="{_x(half):.1f}" y1="{middle - 12}" x2="{_x(half):.1f}" y2="{middle + 12}" stroke="black" '
        'stroke-width="2"/>'
    )
    return parts


def _x(value_ms: float) -> float:
    low, high = math.log(_TICKS_MS[0]), math.log(_TICKS_MS[-1])
    position = (math.log(max(_TICKS_MS[0], min(value_ms, _TICKS_MS[-1]))) - low) / (high - low)
    return _LEFT + position * (_WIDTH - 24 - _LEFT)
