"""Rate limits of a bdev: pure arithmetic on a bucket of tokens.

Why: a limit that is accepted must hold.  Like SPDK (lib/bdev/bdev.c), an I/O may start while its bucket is not
empty and takes its whole amount, so that a large I/O borrows from the future, and the bucket holds at most what
one millisecond fills.  This module must never read a clock or sleep: ``now`` is handed in, in seconds.

Invariant: over any span of T seconds at most ``rate * T`` plus one bucket plus one I/O is let through.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

MIB: Final = 1 << 20
MIN_IOS_PER_SEC: Final = 1000
MAX_MBYTES_PER_SEC: Final = ((1 << 64) - 1) // MIB
SLICE_SECONDS: Final = 0.001
KINDS: Final = ("rw_ios_per_sec", "rw_mbytes_per_sec", "r_mbytes_per_sec", "w_mbytes_per_sec")
_SMALLEST_BUCKET: Final = {"rw_ios_per_sec": 1.0}
_SMALLEST_BYTES: Final = 512.0


@dataclass(slots=True)
class Bucket:
    """Tokens that fill at ``rate`` per second up to ``capacity``; ``level`` goes below zero by borrowing."""

    rate: float
    capacity: float
    level: float
    at: float

    def take(self, now: float, amount: float) -> float:
        """Take ``amount``; the seconds to wait until the I/O may start."""
        self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        wait = 0.0 if self.level > 0 else (-self.level) / self.rate
        self.level -= amount
        return wait


@dataclass(slots=True)
class RateLimits:
    """The four limits of one bdev; 0 means none.  Shown in I/O per second and MiB per second."""

    limits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    buckets: dict[str, Bucket] = field(default_factory=dict)
    held: list[asyncio.Future[None]] = field(default_factory=list)

    def let_go(self) -> None:
        """Wake every I/O that waits, in the order of arrival: limits changed, or the device goes."""
        held = list(self.held)
        self.held.clear()
        for waiting in held:
            if not waiting.done():
                waiting.set_result(None)

    def refill(self, now: float) -> None:
        """Begin afresh with full buckets: the I/O that took from them is let go, and takes again."""
        for bucket in self.buckets.values():
            bucket.level, bucket.at = bucket.capacity, now
        self.let_go()

    @property
    def active(self) -> bool:
        """Whether any limit is set."""
        return bool(self.buckets)

    def set(self, kind: str, value: int, now: float) -> None:
        """Set one limit; I/O per second are rounded up to a multiple of 1000 as SPDK does."""
        if kind == "rw_ios_per_sec":
            value = -(-value // MIN_IOS_PER_SEC) * MIN_IOS_PER_SEC
            rate = float(value)
        else:
            value = min(value, MAX_MBYTES_PER_SEC)
            rate = float(value * MIB)
        self.limits[kind] = value
        if not value:
            self.buckets.pop(kind, None)
            return
        capacity = max(rate * SLICE_SECONDS, _SMALLEST_BUCKET.get(kind, _SMALLEST_BYTES))
        self.buckets[kind] = Bucket(rate, capacity, capacity, now)

    def take(self, now: float, size_bytes: int, *, is_write: bool) -> float:
        """Seconds that this I/O has to wait: the longest of the limits that count it."""
        amounts = {
            "rw_ios_per_sec": 1.0,
            "rw_mbytes_per_sec": float(size_bytes),
            "r_mbytes_per_sec": 0.0 if is_write else float(size_bytes),
            "w_mbytes_per_sec": float(size_bytes) if is_write else 0.0,
        }
        return max(
            (bucket.take(now, amounts[kind]) for kind, bucket in self.buckets.items() if amounts[kind]),
            default=0.0,
        )
