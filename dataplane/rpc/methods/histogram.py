"""How long I/O of a device takes: counted by the engine in its ticks, shown here in nanoseconds.

Source: SPDK v26.05 lib/bdev/bdev_rpc.c, include/spdk/histogram_data.h.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Final

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.methods import units
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import LatencyBucket, LatencyHistogram

_NS: Final = 1_000_000_000
DEFAULT_MAX_NS: Final = 1 << 32
"""Given always: SPDK's own upper bound overflows when it becomes ticks."""


def enable(
    name: str, *, io_type: str | None = None, granularity: int | None = None, max_ns: int = DEFAULT_MAX_NS
) -> Call[None]:
    """Count from now on, all I/O or that of one type.  SPDK counts on queues that are open now: export first."""
    params = {"name": name, "enable": True, "opc": io_type, "granularity": granularity, "max_nsec": max_ns}
    return Call("bdev_enable_histogram", params, parse=reply.done)


def disable(name: str) -> Call[None]:
    """Count no more, and forget what was counted."""
    return Call("bdev_enable_histogram", {"name": name, "enable": False}, parse=reply.done)


def get(name: str) -> Call[LatencyHistogram]:
    """The buckets that have I/O in them; an error where nothing is counted."""
    return Call("bdev_get_histogram", {"name": name}, parse=_histogram)


def count_below(name: str, borders_ns: Sequence[int]) -> Call[tuple[int, ...]]:
    """How many I/Os took at most so long, for each border (ascending, whole microseconds); the last number is all
    that is counted.  A border counts up to the end of its bucket."""

    def parse(raw: Json) -> tuple[int, ...]:
        counts = raw.get("borders_count") if isinstance(raw, dict) else None
        if not isinstance(counts, list):
            raise ReplyError("bdev_get_histogram_borders", "has no list borders_count")
        return tuple(count for count in counts if isinstance(count, int))

    borders = [units.us("borders_ns", border) for border in borders_ns]
    return Call("bdev_get_histogram_borders", {"name": name, "borders": borders}, parse=parse)


def _histogram(raw: Json) -> LatencyHistogram:
    top = Fields(raw, "bdev_get_histogram")
    granularity, first, last = top.number("granularity"), top.number("min_range"), top.number("max_range")
    rate = top.number("tsc_rate")
    try:
        packed = base64.b64decode(top.text("histogram"), validate=True)
    except binascii.Error as error:
        raise ReplyError("bdev_get_histogram", f"has no Base64 as histogram: {error}") from error
    if len(packed) != 8 * ((last - first + 1) << granularity):
        raise ReplyError("bdev_get_histogram", f"has {len(packed)} bytes of counters, which its ranges do not fit")
    found = []
    for bucket, (count,) in enumerate(struct.iter_unpack("<Q", packed)):
        if count:
            in_range, index = divmod(bucket, 1 << granularity)
            ticks = _end(first + in_range, index, granularity)
            found.append(LatencyBucket(end_ns=-(-ticks * _NS // rate), count=count))
    return LatencyHistogram(granularity=granularity, buckets=tuple(found))


def _end(found: int, index: int, granularity: int) -> int:
    """The first tick behind a bucket."""
    return (1 << (found + granularity - 1)) + ((index + 1) << (found - 1)) if found else index + 1
