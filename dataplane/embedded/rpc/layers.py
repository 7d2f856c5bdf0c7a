"""``bdev_error_*`` and ``bdev_delay_*``: devices that fail, or wait, on demand.

Source: SPDK v26.05 module/bdev/error/vbdev_error_rpc.c, module/bdev/delay/vbdev_delay_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, TypeVar

from dataplane.embedded.bdev.base import Bdev, BdevError
from dataplane.embedded.bdev.delay import LATENCY_TYPES, DelayBdev, DelayConfig
from dataplane.embedded.bdev.error import ERROR_TYPES, IO_TYPES, ErrorBdev, Injection
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

B = TypeVar("B", bound=Bdev)
_DECODE: Final = (INTERNAL_ERROR, DECODE_FAILED)
_NAME: Final = Param("name", "string", required=True)


def _find(engine: Engine, name: str, kind: type[B]) -> B:
    bdev = engine.bdevs.get(name)
    if not isinstance(bdev, kind):
        raise BdevError(errno.ENODEV, os.strerror(errno.ENODEV))
    return bdev


@method(
    "bdev_error_create",
    RUNTIME,
    Param("base_name", "string", required=True),
    Param("uuid", "uuid"),
    decode_error=_DECODE,
)
async def bdev_error_create(engine: Engine, p: Params) -> object:
    """``EE_<base_name>``, now or when the base appears."""
    engine.errors.create(p["base_name"], p.get("uuid"))
    return True


@method("bdev_error_delete", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_error_delete(engine: Engine, p: Params) -> object:
    """Remove it; what is pending ends."""
    await engine.bdevs.remove(_find(engine, p["name"], ErrorBdev))
    return True


@method(
    "bdev_error_inject_error",
    RUNTIME,
    _NAME,
    Param("io_type", "enum", required=True, values=("clear", *IO_TYPES, "all")),
    Param("error_type", "enum", required=True, values=ERROR_TYPES),
    Param("nvme_sct", "uint32"),
    Param("nvme_sc", "uint32"),
    Param("num", "uint32"),
    Param("queue_depth", "uint64"),
    Param("corrupt_offset", "uint64"),
    Param("corrupt_value", "uint8"),
    decode_error=_DECODE,
)
async def bdev_error_inject_error(engine: Engine, p: Params) -> object:
    """What the next I/Os of a kind meet; "clear" takes back what is left."""
    status = p.get("nvme_sct", 0) << 8 | p.get("nvme_sc", 0)
    if (p["error_type"] == "nvme_failure") != (status != 0):
        raise RpcFault(-errno.EINVAL, "nvme_sct or nvme_sc should be specified for NVMe error injection")
    if p["error_type"] == "corrupt_data" and not p.get("corrupt_value", 0):
        raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
    _find(engine, p["name"], ErrorBdev).inject(
        p["io_type"],
        Injection(
            error_type=p["error_type"],
            num=p.get("num", 1),
            queue_depth=p.get("queue_depth", 0),
            corrupt_offset=p.get("corrupt_offset", 0),
            corrupt_value=p.get("corrupt_value", 0),
            status=status,
        ),
    )
    return True


@method("bdev_error_resume_pending", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_error_resume_pending(engine: Engine, p: Params) -> object:
    """Let I/O that was made to wait go on."""
    _find(engine, p["name"], ErrorBdev).resume()
    return True


@method(
    "bdev_delay_create",
    RUNTIME,
    Param("base_bdev_name", "string", required=True),
    _NAME,
    Param("uuid", "uuid"),
    *(Param(f"{line}_latency", "uint64", required=True) for line in LATENCY_TYPES),
    decode_error=_DECODE,
)
async def bdev_delay_create(engine: Engine, p: Params) -> object:
    """Its name; it is there now, or when the base appears.  Latencies in microseconds."""
    us = {line: p[f"{line}_latency"] for line in LATENCY_TYPES}
    engine.delays.create(DelayConfig(p["base_bdev_name"], p["name"], p.get("uuid"), us))
    return p["name"]


@method("bdev_delay_delete", RUNTIME, _NAME, decode_error=_DECODE)
async def bdev_delay_delete(engine: Engine, p: Params) -> object:
    """Remove it; nothing waits any more."""
    await engine.delays.delete(_find(engine, p["name"], DelayBdev))
    return True


@method(
    "bdev_delay_update_latency",
    RUNTIME,
    Param("delay_bdev_name", "string", required=True),
    Param("latency_type", "enum", required=True, values=LATENCY_TYPES),
    Param("latency_us", "uint64", required=True),
    decode_error=_DECODE,
)
async def bdev_delay_update_latency(engine: Engine, p: Params) -> object:
    """Of one line, for I/O that ends from now on."""
    bdev = engine.delays.bdevs.get(p["delay_bdev_name"])
    if bdev is None:
        raise RpcFault(INVALID_PARAMS, "The requested bdev does not exist.")
    bdev.latencies.us[p["latency_type"]] = p["latency_us"]
    return True
