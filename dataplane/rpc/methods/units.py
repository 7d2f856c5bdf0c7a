"""The engine's units.  Every conversion is exact or refused.

Sources: module/bdev/split/vbdev_split.c:226 (split_size_mb counts MiB), module/bdev/raid/bdev_raid.c
(strip_size_kb and process_window_size_kb count KiB, process_max_bandwidth_mb_sec MiB), lib/bdev/bdev.c:10271
(…_mbytes_per_sec counts MiB).
"""

from __future__ import annotations

from typing import Final

from controlplane.domain.units import KIB, MIB
from dataplane.rpc.errors import UnitsError

_NS_PER_US: Final = 1000


def whole(name: str, size_bytes: int | None, unit_bytes: int, unit: str) -> int | None:
    """``size_bytes`` in units of ``unit_bytes``; None stays None."""
    if size_bytes is None:
        return None
    if size_bytes < 0 or size_bytes % unit_bytes:
        raise UnitsError(name, size_bytes, unit)
    return size_bytes // unit_bytes


def mib(name: str, size_bytes: int | None) -> int | None:
    """Whole MiB."""
    return whole(name, size_bytes, MIB, "MiB")


def kib(name: str, size_bytes: int | None) -> int | None:
    """Whole KiB."""
    return whole(name, size_bytes, KIB, "KiB")


def us(name: str, time_ns: int) -> int:
    """Whole microseconds."""
    if time_ns < 0 or time_ns % _NS_PER_US:
        raise UnitsError(name, time_ns, "microseconds")
    return time_ns // _NS_PER_US


def blocks(size_bytes: int, block_size_bytes: int) -> int:
    """Whole blocks."""
    if block_size_bytes <= 0 or size_bytes < 0 or size_bytes % block_size_bytes:
        raise UnitsError("size_bytes", size_bytes, f"blocks of {block_size_bytes} bytes")
    return size_bytes // block_size_bytes
