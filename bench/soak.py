"""Whether an engine's memory stays where it is under load.

A minute of I/O over several connections, made anew each minute, and then a look at the resident memory: what every
connection or command leaves behind shows as a slope.  The first minute is left out of it: buffers find their size.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench import hosts
from bench.hosts import Workload
from bench.target import Device, exporting
from dataplane.launch import EngineKind

MINUTE_S: Final = 60.0 - hosts.WARM_UP_S
LOAD: Final = Workload(name="soak", io_bytes=16384, depth=16, queues=8, read_percent=50)
_MIB: Final = 1 << 20


def soak(
    kind: EngineKind, device: Device, minutes: int, say: Callable[[str], None] = lambda _line: None
) -> dict[str, Any]:
    """Resident MiB at the start and after every minute, the slope, and the rate that the load had."""
    with tempfile.TemporaryDirectory(prefix="ws7000-bench-") as folder, exporting(kind, device, Path(folder)) as target:
        resident_mib = [target.resident_bytes / _MIB]
        iops: list[float] = []
        for minute in range(1, minutes + 1):
            iops.append(hosts.run_load(target, LOAD, MINUTE_S).iops)
            resident_mib.append(target.resident_bytes / _MIB)
            say(f"{kind}, {device}: minute {minute}: {resident_mib[-1]:.1f} MiB at {iops[-1]:.0f} IOPS")
    return {
        "engine": kind,
        "device": device,
        "minutes": minutes,
        "resident_mib": resident_mib,
        "slope_mib_per_hour": _slope(resident_mib[1:]) * 60,
        "iops": statistics.median(iops),
    }


def _slope(values: list[float]) -> float:
    """Least squares, per step; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope
