"""``bdev_raid_*``.

Left out: superblocks; asking for one is answered with ENOTSUP.
Source: SPDK v26.05 module/bdev/raid/bdev_raid_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import NULL_UUID, BdevError
from dataplane.embedded.bdev.raid import LEVELS, MAX_LEGS, LegRefused
from dataplane.embedded.rpc.registry import (
    DECODE_FAILED,
    INTERNAL_ERROR,
    PARSE_ERROR,
    RUNTIME,
    STARTUP,
    Param,
    Params,
    RpcFault,
    method,
)

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_DECODE: Final = (PARSE_ERROR, DECODE_FAILED)
_NAME: Final = Param("name", "string", required=True)
_LEVEL_WORDS: Final = (*LEVELS, "raid5f", "5f")


@method(
    "bdev_raid_get_bdevs",
    RUNTIME,
    Param("category", "enum", required=True, values=("online", "configuring", "offline", "all")),
    decode_error=_DECODE,
)
async def bdev_raid_get_bdevs(engine: Engine, p: Params) -> object:
    """Sets in one state, or all."""
    wanted = p["category"]
    return [
        {"name": raid.name} | raid.to_json() for raid in engine.raids.sets.values() if wanted in ("all", raid.state)
    ]


@method(
    "bdev_raid_create",
    RUNTIME,
    _NAME,
    Param("strip_size_kb", "uint32"),
    Param("raid_level", "enum", required=True, values=_LEVEL_WORDS),
    Param("base_bdevs", "array", required=True, item="string", max_items=MAX_LEGS),
    Param("uuid", "uuid"),
    Param("superblock", "boolean"),
    decode_error=_DECODE,
)
async def bdev_raid_create(engine: Engine, p: Params) -> object:
    """Describe a set; it is online when its base bdevs are there."""
    if not all(p["base_bdevs"]):
        words = os.strerror(errno.EINVAL)
        raise RpcFault(-errno.EINVAL, f"The base bdev name cannot be empty: {words}")
    level = LEVELS.get(p["raid_level"], p["raid_level"])
    try:
        if p.get("superblock", False):
            raise BdevError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        await engine.raids.create(
            p["name"], level, p.get("strip_size_kb", 0), p["base_bdevs"], p.get("uuid", NULL_UUID)
        )
    except BdevError as error:
        raise RpcFault(-error.errno, f"Failed to create RAID bdev {p['name']}: {error}") from error
    return True


@method("bdev_raid_delete", RUNTIME, _NAME, Param("clear_sb", "boolean"), decode_error=_DECODE)
async def bdev_raid_delete(engine: Engine, p: Params) -> object:
    """Take a set away; its base bdevs stay."""
    raid = engine.raids.find(p["name"])
    if raid is None:
        raise RpcFault(-errno.ENODEV, f"raid bdev {p['name']} not found")
    try:
        await engine.raids.delete(raid)
    except BdevError as error:
        raise RpcFault(INTERNAL_ERROR, os.strerror(error.errno)) from error
    return True


@method(
    "bdev_raid_add_base_bdev",
    RUNTIME,
    Param("base_bdev", "string", required=True),
    Param("raid_bdev", "string", required=True),
    decode_error=(INTERNAL_ERROR, DECODE_FAILED),
)
async def bdev_raid_add_base_bdev(engine: Engine, p: Params) -> object:
    """Fill an empty place of a set; answered when the leg is part of it, or its rebuild has begun."""
    raid = engine.raids.find(p["raid_bdev"])
    if raid is None:
        raise RpcFault(-errno.ENODEV, f"raid bdev {p['raid_bdev']} is not found in config")
    try:
        await engine.raids.add_base(raid, p["base_bdev"])
    except LegRefused as error:
        raise RpcFault(-error.errno, f"Failed to add base bdev to RAID bdev: {error}") from error
    except BdevError as error:
        what = f"Failed to add base bdev {p['base_bdev']} to RAID bdev {p['raid_bdev']}"
        raise RpcFault(-error.errno, f"{what}: {error}") from error
    return True


@method("bdev_raid_remove_base_bdev", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_raid_remove_base_bdev(engine: Engine, p: Params) -> object:
    """Take a leg out: a mirror goes on without it, another set goes offline."""
    try:
        await engine.raids.remove_base(p["name"])
    except BdevError as error:
        raise RpcFault(-error.errno, "Failed to remove base bdev from raid bdev") from error
    return True


@method(
    "bdev_raid_set_options",
    STARTUP | RUNTIME,
    Param("process_window_size_kb", "uint32"),
    Param("process_max_bandwidth_mb_sec", "uint32"),
    decode_error=_DECODE,
)
async def bdev_raid_set_options(engine: Engine, p: Params) -> object:
    """For rebuilds that begin from now on."""
    window_kb = p.get("process_window_size_kb", engine.raids.process_window_size_kb)
    if window_kb == 0:
        raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
    engine.raids.process_window_size_kb = window_kb
    bandwidth = p.get("process_max_bandwidth_mb_sec", engine.raids.process_max_bandwidth_mb_sec)
    engine.raids.process_max_bandwidth_mb_sec = bandwidth
    return True
