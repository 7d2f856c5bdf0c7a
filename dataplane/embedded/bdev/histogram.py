"""How long I/O took, counted in buckets whose width grows with the time: pure arithmetic.

Why: a mean hides the slow few, which are what hosts complain about.  This module must never read a clock.

Invariants: every time falls into one bucket; what is shorter than the first bucket or longer than the last is
counted there; buckets of one range are equally wide, and each range is twice as wide as the one before.
Source: SPDK v26.05 include/spdk/histogram_data.h.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from typing import Final

_BITS: Final = 64
MAX_GRANULARITY: Final = 16
"""More would be millions of counters; SPDK has no bound, and ends with want of memory."""
DEFAULT_GRANULARITY: Final = 7
ENDLESS: Final = (1 << _BITS) - 1


@dataclass(slots=True)
class Histogram:
    """``1 << granularity`` buckets in each range; ``io_type`` is empty for all kinds.  Times are in ticks.

    One that is not ``enabled`` any more counts nothing, and its counters are not shown.
    """

    granularity: int = DEFAULT_GRANULARITY
    min_ticks: int = 0
    max_ticks: int = ENDLESS
    io_type: str = ""
    enabled: bool = True
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def min_range(self) -> int:
        """The first range that has counters."""
        return self._range(self.min_ticks)

    @property
    def max_range(self) -> int:
        """The last one."""
        return self._range(self.max_ticks - 1)

    @property
    def buckets(self) -> int:
        """How many there are."""
        return (self.max_range - self.min_range + 1) << self.granularity

    def _range(self, ticks: int) -> int:
        return max(0, ticks.bit_length() - self.granularity)

    def bucket(self, ticks: int) -> int:
        """The index of the bucket that a time falls into."""
        found, index = self._range(ticks), 0
        if found < self.min_range:
            return 0
        if found > self.max_range:
            return self.buckets - 1
        index = (ticks >> max(0, found - 1)) & ((1 << self.granularity) - 1)
        return ((found - self.min_range) << self.granularity) + index

    def took(self, kind: str, ticks: int) -> None:
        """One I/O of a kind, good or not, took so long."""
        if self.enabled and self.io_type in ("", kind):
            self.tally(ticks)

    def tally(self, ticks: int) -> None:
        """Count one time."""
        bucket = self.bucket(ticks)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def end(self, bucket: int) -> int:
        """The first time that is too long for this bucket."""
        in_range, index = divmod(bucket, 1 << self.granularity)
        found = self.min_range + in_range
        if found == 0:
            return index + 1
        return (1 << (found + self.granularity - 1)) + ((index + 1) << (found - 1))

    def encoded(self) -> str:
        """All counters, 64 bits each, little endian, as Base64."""
        packed = bytearray(8 * self.buckets)
        for bucket, count in self.counts.items():
            struct.pack_into("<Q", packed, 8 * bucket, count)
        return base64.b64encode(packed).decode()

    def below(self, borders: list[int]) -> list[int]:
        """How many I/Os were counted up to each border, and in all.  A border counts up to the end of its bucket."""
        found = [0] * (len(borders) + 1)
        at = so_far = start = 0
        for bucket in range(self.buckets):
            so_far += self.counts.get(bucket, 0)
            while at < len(borders) and start > borders[at]:
                at += 1
                found[at] = found[at - 1]
            found[at] = so_far
            start = self.end(bucket)
        return found
