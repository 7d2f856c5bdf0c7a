"""What ``bdev_get_iostat`` counts for one bdev.

Why: a limit that was set and a leg that slowed down must be visible as numbers.  This module must never read a
clock: times are handed in, in nanoseconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from dataplane.embedded.bdev.histogram import Histogram
from dataplane.nvme.status import Status

TICKS_PER_SECOND: Final = 1_000_000_000
"""Our tick is one nanosecond; SPDK's is one cycle of the time stamp counter."""


_NAMES: Final[dict[int, str]] = {
    Status.INTERNAL_ERROR: "failed",
    Status.ABORTED_BY_REQUEST: "aborted",
    Status.COMPARE_FAILURE: "miscompare",
}
"""What lib/bdev calls these; any other status is an ``nvme_error``."""


@dataclass(slots=True)
class OpStat:
    """One kind of I/O: how many, how much, how long."""

    ops: int = 0
    size_bytes: int = 0
    ticks: int = 0
    max_ticks: int = 0
    min_ticks: int = 0

    def count(self, size_bytes: int, ticks: int) -> None:
        """One I/O that ended well after ``ticks``."""
        if ticks < self.min_ticks or not self.ops:  # comparisons, since this is counted for every I/O
            self.min_ticks = ticks
        if ticks > self.max_ticks:
            self.max_ticks = ticks
        self.ops += 1
        self.size_bytes += size_bytes
        self.ticks += ticks


@dataclass(slots=True)
class IoStat:
    """All counters of one bdev since it was registered or last reset."""

    read: OpStat = field(default_factory=OpStat)
    write: OpStat = field(default_factory=OpStat)
    unmap: OpStat = field(default_factory=OpStat)
    copy: OpStat = field(default_factory=OpStat)
    errors: Counter[str] = field(default_factory=Counter)
    histogram: Histogram | None = None

    def done(self, kind: str, size_bytes: int, ticks: int) -> None:
        """One I/O ended well after ``ticks``."""
        if self.histogram is not None:
            self.histogram.took(kind, ticks)
        if kind == "read":
            self.read.count(size_bytes, ticks)
        elif kind == "write":
            self.write.count(size_bytes, ticks)
        elif kind == "unmap":
            self.unmap.count(size_bytes, ticks)
        elif kind == "copy":
            self.copy.count(size_bytes, ticks)

    def failed(self, kind: str, status: int, ticks: int) -> None:
        """One I/O ended with this status after ``ticks``."""
        if self.histogram is not None:
            self.histogram.took(kind, ticks)
        self.errors[_NAMES.get(status, "nvme_error")] += 1

    def to_json(self) -> dict[str, object]:
        """The fields in SPDK's order (lib/bdev/bdev.c: spdk_bdev_dump_io_stat_json)."""
        body: dict[str, object] = {}
        named = (
            ("read", "read", self.read),
            ("written", "write", self.write),
            ("unmapped", "unmap", self.unmap),
            ("copied", "copy", self.copy),
        )
        for done, name, stat in named:
            body[f"bytes_{done}"] = stat.size_bytes
            body[f"num_{name}_ops"] = stat.ops
        for _, name, stat in named:
            body[f"{name}_latency_ticks"] = stat.ticks
            body[f"max_{name}_latency_ticks"] = stat.max_ticks
            body[f"min_{name}_latency_ticks"] = stat.min_ticks
        body["io_error"] = dict(self.errors)
        return body

    def reset(self, mode: str) -> None:
        """``all``, ``maxmin``, ``error`` or ``none`` (lib/bdev: spdk_bdev_reset_stat_mode)."""
        if mode == "all":
            self.read, self.write, self.unmap, self.copy = OpStat(), OpStat(), OpStat(), OpStat()
            self.errors.clear()
        elif mode == "maxmin":
            for stat in (self.read, self.write, self.unmap, self.copy):
                stat.max_ticks = stat.min_ticks = 0
        elif mode == "error":
            self.errors.clear()
