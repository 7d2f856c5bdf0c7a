"""Methods that make and delete leaf bdevs and splits.

Source: SPDK v26.05 module/bdev/{aio,malloc,null,split}/*_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.aio import AioBdev, AioOptions
from dataplane.embedded.bdev.base import Bdev, BdevError
from dataplane.embedded.bdev.memory import MallocBdev, MemoryOptions, NullBdev
from dataplane.embedded.bdev.split import MIB
from dataplane.embedded.rpc.registry import (
    DECODE_FAILED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    RUNTIME,
    Param,
    Params,
    RpcFault,
    method,
)

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_DECODE: Final = (INTERNAL_ERROR, DECODE_FAILED)
_NAME: Final = Param("name", "string", required=True)
_ANY_NUMA: Final = -1


async def _publish(engine: Engine, bdev: Bdev) -> str:
    """Register; what a refused bdev holds is given back."""
    try:
        engine.bdevs.add(bdev)
    except BdevError:
        await bdev.close()
        raise
    return bdev.name


async def _delete(engine: Engine, name: str, kind: type[Bdev]) -> bool:
    """Remove a bdev of one kind; ENODEV for another kind, as SPDK."""
    bdev = engine.bdevs.get(name)
    if not isinstance(bdev, kind):
        raise BdevError(errno.ENODEV, os.strerror(errno.ENODEV))
    await engine.bdevs.remove(bdev)
    return True


@method(
    "bdev_aio_create",
    RUNTIME,
    _NAME,
    Param("filename", "string", required=True),
    Param("block_size", "uint32"),
    Param("readonly", "boolean"),
    Param("fallocate", "boolean"),
    Param("uuid", "uuid"),
    Param("nowait", "boolean"),
    decode_error=_DECODE,
)
async def bdev_aio_create(engine: Engine, p: Params) -> object:
    """A bdev on a file or block device; its name."""
    if engine.bdevs.is_taken(p["name"]):
        raise BdevError(errno.EEXIST, os.strerror(errno.EEXIST))
    return await _publish(engine, AioBdev(AioOptions(**p.to_dict())))


@method("bdev_aio_delete", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_aio_delete(engine: Engine, p: Params) -> object:
    """Remove it; everything built on it goes first."""
    return await _delete(engine, p["name"], AioBdev)


def _grow(engine: Engine, bdev: Bdev, num_blocks: int) -> None:
    """Make it larger; the call itself has the device open, so that it never shrinks."""
    if num_blocks < bdev.num_blocks:
        raise BdevError(errno.EBUSY, os.strerror(errno.EBUSY))
    engine.bdevs.resize(bdev, num_blocks)


@method("bdev_aio_rescan", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_aio_rescan(engine: Engine, p: Params) -> object:
    """Take the size that the file has now; an empty file is a drive that was pulled out."""
    bdev = engine.bdevs.get(p["name"])
    if not isinstance(bdev, AioBdev):
        raise BdevError(errno.ENODEV, os.strerror(errno.ENODEV))
    num_blocks = bdev.blocks_now()
    if num_blocks == 0:
        await engine.bdevs.remove(bdev)
    else:
        _grow(engine, bdev, num_blocks)
    return True


_MEMORY: Final = (
    Param("uuid", "uuid"),
    Param("num_blocks", "uint64", required=True),
    Param("block_size", "uint32", required=True),
    Param("physical_block_size", "uint32"),
    Param("md_size", "uint32"),
    Param("dif_type", "int32"),
    Param("dif_is_head_of_md", "boolean"),
    Param("dif_pi_format", "uint32"),
)


def _memory_options(name: str, p: Params) -> MemoryOptions:
    return MemoryOptions(
        name=name,
        num_blocks=p["num_blocks"],
        block_size=p["block_size"],
        physical_block_size=p.get("physical_block_size", 0),
        md_size=p.get("md_size", 0),
        dif_type=p.get("dif_type", 0),
        uuid=p.get("uuid"),
    )


@method(
    "bdev_malloc_create",
    RUNTIME,
    Param("name", "string"),
    *_MEMORY,
    Param("optimal_io_boundary", "uint32"),
    Param("md_interleave", "boolean"),
    Param("numa_id", "int32"),
    decode_error=_DECODE,
)
async def bdev_malloc_create(engine: Engine, p: Params) -> object:
    """A bdev in memory; its name, ``Malloc0`` and so on when none is given.  NUMA node 0 or any."""
    if p.get("numa_id", _ANY_NUMA) not in (_ANY_NUMA, 0):
        raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
    name = p.get("name")
    if name is None:
        bdev = MallocBdev(_memory_options(f"Malloc{engine.malloc_count}", p))
        engine.malloc_count += 1
    else:
        bdev = MallocBdev(_memory_options(name, p))
    return await _publish(engine, bdev)


@method("bdev_malloc_delete", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_malloc_delete(engine: Engine, p: Params) -> object:
    """Remove it and its contents."""
    return await _delete(engine, p["name"], MallocBdev)


_NULL_HINTS: Final = (
    "preferred_write_alignment",
    "preferred_write_granularity",
    "optimal_write_size",
    "preferred_unmap_alignment",
    "preferred_unmap_granularity",
)


@method(
    "bdev_null_create",
    RUNTIME,
    _NAME,
    *_MEMORY,
    *(Param(hint, "uint32") for hint in _NULL_HINTS),
    decode_error=_DECODE,
)
async def bdev_null_create(engine: Engine, p: Params) -> object:
    """A bdev that swallows writes; hints about preferred sizes can only be 0 here."""
    if any(p.get(hint, 0) for hint in _NULL_HINTS):
        raise BdevError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    return await _publish(engine, NullBdev(_memory_options(p["name"], p)))


@method("bdev_null_delete", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_null_delete(engine: Engine, p: Params) -> object:
    """Remove it."""
    return await _delete(engine, p["name"], NullBdev)


@method("bdev_null_resize", RUNTIME, _NAME, Param("new_size", "uint64", required=True), decode_error=_DECODE)
async def bdev_null_resize(engine: Engine, p: Params) -> object:
    """Make it larger; ``new_size`` in MiB."""
    bdev = engine.bdevs.get(p["name"])
    if not isinstance(bdev, NullBdev) or p["new_size"] < bdev.num_blocks * bdev.block_size // MIB:
        raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
    _grow(engine, bdev, p["new_size"] * MIB // bdev.block_size)
    return True


@method(
    "bdev_split_create",
    RUNTIME,
    Param("base_bdev", "string", required=True),
    Param("split_count", "uint32", required=True),
    Param("split_size_mb", "uint64"),
)
async def bdev_split_create(engine: Engine, p: Params) -> object:
    """Split a bdev now or when it appears; the names of the parts that exist."""
    try:
        return engine.splits.create(p["base_bdev"], p["split_count"], p.get("split_size_mb", 0))
    except BdevError as error:
        what = f"Failed to create {p['split_count']} split bdevs from '{p['base_bdev']}'"
        raise RpcFault(INVALID_PARAMS, f"{what}: {os.strerror(error.errno)}") from error


@method("bdev_split_delete", RUNTIME, Param("base_bdev", "string", required=True))
async def bdev_split_delete(engine: Engine, p: Params) -> object:
    """Remove the parts of a bdev."""
    try:
        await engine.splits.delete(p["base_bdev"])
    except BdevError as error:
        raise RpcFault(INVALID_PARAMS, os.strerror(error.errno)) from error
    return True
