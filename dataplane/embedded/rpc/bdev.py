"""``bdev_*`` methods that hold for every bdev: listing, options, examination, limits, counters.

Source: SPDK v26.05 lib/bdev/bdev_rpc.c.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import Bdev, BdevError
from dataplane.embedded.bdev.histogram import DEFAULT_GRANULARITY, MAX_GRANULARITY, Histogram
from dataplane.embedded.bdev.qos import KINDS, RateLimits
from dataplane.embedded.bdev.stats import TICKS_PER_SECOND
from dataplane.embedded.rpc.registry import (
    DECODE_FAILED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    RUNTIME,
    STARTUP,
    Param,
    Params,
    RpcFault,
    method,
)

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_DECODE: Final = (INTERNAL_ERROR, DECODE_FAILED)
_NOT_DEFINED: Final = (1 << 64) - 1
_MAX_WAIT_MS: Final = 1 << 40
_MIN_NSEC: Final = 1000
_MAX_NSEC: Final = 120_000_000_000
_NSEC_PER_USEC: Final = 1000
_NAME: Final = Param("name", "string", required=True)
IO_TYPES: Final = (
    "read", "write", "unmap", "flush", "reset", "nvme_admin", "nvme_io", "nvme_io_md", "write_zeroes", "zcopy",
    "get_zone_info", "zone_management", "zone_append", "compare", "compare_and_write", "abort", "seek_hole",
    "seek_data", "copy", "nvme_iov_md", "nvme_nssr", "write_uncorrectable",
)  # fmt: skip
"""Every kind that lib/bdev shows, in its order."""


def describe(bdev: Bdev) -> dict[str, object]:
    """One bdev as rpc_dump_bdev_info writes it."""
    supported, hints = bdev.supported_io_types(), bdev.hints
    body: dict[str, object] = {
        "name": bdev.name,
        "aliases": list(bdev.aliases),
        "product_name": bdev.product_name,
        "block_size": bdev.block_size,
        "num_blocks": bdev.num_blocks,
        "preferred_write_alignment": hints.write_alignment,
        "preferred_write_granularity": hints.write_granularity,
        "optimal_write_size": hints.optimal_write,
        "preferred_unmap_alignment": hints.unmap_alignment,
        "preferred_unmap_granularity": hints.unmap_granularity,
        "uuid": bdev.uuid,
    }
    if bdev.product_name == "Malloc disk":
        body["numa_id"] = -1
    body["assigned_rate_limits"] = bdev.qos_limits
    body["claimed"] = bdev.claimed_by is not None
    if bdev.claimed_by is not None:
        body["claim_type"] = "exclusive_write"
    body["zoned"] = False
    body["supported_io_types"] = {kind: supported.get(kind, False) for kind in IO_TYPES}
    body["driver_specific"] = bdev.driver_specific()
    return body


async def _wait_for(engine: Engine, name: str, timeout_ms: int) -> Bdev:
    """The bdev, as soon as it is there; ENODEV at once without a timeout, ETIMEDOUT after one."""
    found = engine.bdevs.find(name)
    if found is not None or timeout_ms == 0:
        return engine.bdevs.get(name)
    appeared: asyncio.Future[Bdev] = asyncio.get_running_loop().create_future()

    def look(bdev: Bdev) -> None:
        if name in (bdev.name, *bdev.aliases) and not appeared.done():
            appeared.set_result(bdev)

    engine.bdevs.added.append(look)
    try:
        return await asyncio.wait_for(appeared, min(timeout_ms, _MAX_WAIT_MS) / 1000)
    except TimeoutError:
        raise BdevError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
    finally:
        engine.bdevs.added.remove(look)


@method("bdev_get_bdevs", RUNTIME, Param("name", "string"), Param("timeout", "uint64"), decode_error=_DECODE)
async def bdev_get_bdevs(engine: Engine, p: Params) -> object:
    """All bdevs, or one; ``timeout`` in milliseconds waits for it to appear."""
    if "name" in p:
        return [describe(await _wait_for(engine, p["name"], p.get("timeout", 0)))]
    return [describe(bdev) for bdev in engine.bdevs]


@method(
    "bdev_set_options",
    STARTUP,
    Param("bdev_io_pool_size", "uint32"),
    Param("bdev_io_cache_size", "uint32"),
    Param("bdev_auto_examine", "boolean"),
    Param("iobuf_small_cache_size", "uint32"),
    Param("iobuf_large_cache_size", "uint32"),
)
async def bdev_set_options(engine: Engine, p: Params) -> object:
    """Examination matters here; pool sizes are checked and kept, since there is no pool to size."""
    wanted = engine.options.bdev | p.to_dict()
    if wanted["bdev_io_pool_size"] < wanted["bdev_io_cache_size"] * 2:
        sizes = f"{wanted['bdev_io_pool_size']} too small for cache size {wanted['bdev_io_cache_size']}"
        raise RpcFault(INVALID_PARAMS, f"Pool size {sizes}")
    engine.options.bdev = wanted
    engine.bdevs.auto_examine = bool(wanted["bdev_auto_examine"])
    return True


@method("bdev_wait_for_examine", RUNTIME)
async def bdev_wait_for_examine(engine: Engine, p: Params) -> object:  # noqa: ARG001 - examining ends at once here
    """True: a bdev is examined before the call that made it returns."""
    return True


@method(
    "bdev_examine",
    RUNTIME,
    Param("name", "string", required=True),
    decode_error=(INVALID_PARAMS, DECODE_FAILED),
)
async def bdev_examine(engine: Engine, p: Params) -> object:
    """Let a bdev be examined although ``bdev_auto_examine`` is off."""
    engine.bdevs.examine(p["name"])
    return True


@method(
    "bdev_set_qos_limit",
    RUNTIME,
    Param("name", "string", required=True),
    *(Param(kind, "uint64") for kind in KINDS),
    decode_error=_DECODE,
)
async def bdev_set_qos_limit(engine: Engine, p: Params) -> object:
    """Set limits; those that are not given stay as they are, 0 takes one away."""
    bdev = engine.bdevs.get(p["name"])
    wanted = {kind: p[kind] for kind in KINDS if kind in p and p[kind] != _NOT_DEFINED}
    if not wanted:
        raise RpcFault(-errno.EINVAL, "No rate limits specified")
    limits = bdev.limits or RateLimits()
    for kind, value in wanted.items():
        limits.set(kind, value, time.monotonic())
    bdev.limits = limits if limits.active else None
    limits.refill(time.monotonic())
    return True


@method(
    "bdev_get_iostat",
    RUNTIME,
    Param("per_channel", "boolean"),
    Param("reset_mode", "enum", values=("all", "maxmin", "error", "none")),
    Param("names", "array", item="string", max_items=1024),
    decode_error=_DECODE,
)
async def bdev_get_iostat(engine: Engine, p: Params) -> object:
    """Counters in nanosecond ticks.  There is one channel here: the loop."""
    names = p.get("names")
    if p.get("per_channel", False) and (names is None or len(names) != 1):
        raise RpcFault(-errno.EINVAL, os.strerror(errno.EINVAL))
    bdevs = list(engine.bdevs) if names is None else [engine.bdevs.get(name) for name in names]
    body: dict[str, object] = {"tick_rate": TICKS_PER_SECOND, "ticks": time.monotonic_ns()}
    if p.get("per_channel", False):
        body |= {"name": bdevs[0].name, "channels": [{"thread_id": 1} | bdevs[0].stats.to_json()]}
    else:
        body["bdevs"] = [{"name": bdev.name} | bdev.stats.to_json() for bdev in bdevs]
    for bdev in bdevs:
        bdev.stats.reset(p.get("reset_mode", "none"))
    return body


@method(
    "bdev_reset_iostat",
    RUNTIME,
    Param("name", "string"),
    Param("mode", "enum", values=("all", "maxmin", "error", "none")),
    decode_error=_DECODE,
)
async def bdev_reset_iostat(engine: Engine, p: Params) -> object:
    """Start counting afresh."""
    mode = p.get("mode", "all")
    if mode == "none":
        return True
    bdevs = [engine.bdevs.get(p["name"])] if "name" in p else list(engine.bdevs)
    for bdev in bdevs:
        bdev.stats.reset(mode)
    return True


@method(
    "bdev_enable_histogram",
    RUNTIME,
    _NAME,
    Param("enable", "boolean", required=True),
    Param("opc", "string"),
    Param("granularity", "uint8"),
    Param("min_nsec", "uint64"),
    Param("max_nsec", "uint64"),
    decode_error=_DECODE,
)
async def bdev_enable_histogram(engine: Engine, p: Params) -> object:
    """Begin to count how long I/O takes, or stop."""
    bdev = engine.bdevs.get(p["name"])
    if p.get("opc", "read") not in IO_TYPES:
        raise RpcFault(INTERNAL_ERROR, "Invalid Io type")
    before = bdev.histogram
    if not p["enable"]:
        if before is not None:
            before.enabled = False
        return True
    # A tick is a nanosecond here.
    made = Histogram(
        granularity=p.get("granularity", DEFAULT_GRANULARITY),
        min_ticks=p.get("min_nsec", _MIN_NSEC),
        max_ticks=p.get("max_nsec", _MAX_NSEC),
        io_type=p.get("opc", ""),
    )
    if made.min_ticks >= made.max_ticks or made.granularity > MAX_GRANULARITY:
        raise BdevError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if before is None or not before.enabled:
        bdev.stats.histogram = made
    return True


def _histogram(engine: Engine, name: str) -> Histogram:
    found = engine.bdevs.get(name).histogram
    if found is None:
        raise BdevError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if not found.enabled:
        raise RpcFault(INTERNAL_ERROR, os.strerror(errno.EFAULT))
    return found


@method("bdev_get_histogram", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_get_histogram(engine: Engine, p: Params) -> object:
    """All buckets; ENOMEM where nothing was ever counted, as in SPDK."""
    return _shown(_histogram(engine, p["name"]))


def _shown(histogram: Histogram) -> dict[str, object]:
    return {
        "histogram": histogram.encoded(),
        "granularity": histogram.granularity,
        "min_range": histogram.min_range,
        "max_range": histogram.max_range,
        "tsc_rate": TICKS_PER_SECOND,
    }


@method(
    "bdev_get_histogram_borders",
    RUNTIME,
    _NAME,
    Param("borders", "array", required=True, item="uint64", max_items=256),
    decode_error=_DECODE,
)
async def bdev_get_histogram_borders(engine: Engine, p: Params) -> object:
    """How many I/Os took up to each of the borders, in microseconds, and in all; without borders, all buckets."""
    histogram = _histogram(engine, p["name"])
    if not p["borders"]:
        return _shown(histogram)
    return {"borders_count": histogram.below([border * _NSEC_PER_USEC for border in p["borders"]])}
