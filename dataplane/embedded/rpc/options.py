"""Tunables of SPDK that the embedded engine has no use for, and its logging.

Why: a start-up configuration written for SPDK must load.  What is accepted here is checked as SPDK checks it and
shown again where SPDK shows it; it changes nothing, except the log level.  Left out, and so answered with "Method
not found": log flags, trace points, CPU masks, governors, every scheduler but ``static``, every socket
implementation but ``posix`` and ``ssl``.

Source: SPDK v26.05 module/event/subsystems/iobuf, lib/sock/sock_rpc.c, lib/event/{app,log}_rpc.c.
"""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dataplane.embedded.bdev.base import BdevError
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

NOTICE: Final = 25
LEVELS: Final = {"ERROR": logging.ERROR, "WARNING": logging.WARNING, "NOTICE": NOTICE}
LEVELS.update({"INFO": logging.INFO, "DEBUG": logging.DEBUG})
LOGGER: Final = "dataplane.embedded"
_LEVEL: Final = Param("level", "enum", required=True, values=tuple(LEVELS))
_DECODE: Final = (INTERNAL_ERROR, DECODE_FAILED)
_INVALID: Final = RpcFault(INVALID_PARAMS, "Invalid parameters")
_IOBUF_LEAST: Final = {
    "small_pool_count": 64,
    "large_pool_count": 8,
    "small_bufsize": 4096,
    "large_bufsize": 8192,
}


def _sock(recv_bytes: int) -> dict[str, Any]:
    return {
        "recv_buf_size": recv_bytes,
        "send_buf_size": recv_bytes,
        "enable_recv_pipe": True,
        "enable_quickack": False,
        "enable_placement_id": 0,
        "enable_zerocopy_send_server": True,
        "enable_zerocopy_send_client": False,
        "zerocopy_threshold": 0,
        "tls_version": 0,
        "enable_ktls": False,
    }


@dataclass(slots=True)
class Options:
    """What was set, with SPDK's defaults."""

    bdev: dict[str, Any] = field(
        default_factory=lambda: {
            "bdev_io_pool_size": 65535,
            "bdev_io_cache_size": 256,
            "bdev_auto_examine": True,
            "iobuf_small_cache_size": 128,
            "iobuf_large_cache_size": 16,
        }
    )
    iobuf: dict[str, Any] = field(
        default_factory=lambda: {
            "small_pool_count": 8192,
            "large_pool_count": 1024,
            "small_bufsize": 8192,
            "large_bufsize": 135168,
            "enable_numa": False,
        }
    )
    sock: dict[str, dict[str, Any]] = field(default_factory=lambda: {"posix": _sock(2 << 20), "ssl": _sock(4096)})
    sock_default: str = "posix"
    scheduler_period_us: int = 1_000_000
    log_level: str = "NOTICE"
    print_level: str = "INFO"


@method(
    "iobuf_set_options",
    STARTUP,
    *(Param(name, "uint64" if name.endswith("count") else "uint32") for name in _IOBUF_LEAST),
    Param("enable_numa", "boolean"),
    decode_error=(INVALID_PARAMS, DECODE_FAILED),
    needs_params=True,
)
async def iobuf_set_options(engine: Engine, p: Params) -> object:
    """Sizes of SPDK's buffer pools."""
    wanted = engine.options.iobuf | p.to_dict()
    if any(wanted[name] < least for name, least in _IOBUF_LEAST.items()):
        raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
    engine.options.iobuf = wanted
    return True


_IMPL: Final = Param("impl_name", "string", required=True)


@method("sock_impl_get_options", STARTUP | RUNTIME, _IMPL)
async def sock_impl_get_options(engine: Engine, p: Params) -> object:
    """What was set for a socket implementation."""
    if p["impl_name"] not in engine.options.sock:
        raise _INVALID
    return engine.options.sock[p["impl_name"]]


@method(
    "sock_impl_set_options",
    STARTUP,
    _IMPL,
    *(Param(name, "boolean" if isinstance(value, bool) else "uint32") for name, value in _sock(0).items()),
)
async def sock_impl_set_options(engine: Engine, p: Params) -> object:
    """Keep what was asked for."""
    if p["impl_name"] not in engine.options.sock:
        raise _INVALID
    given = {name: value for name, value in p.items() if name != "impl_name"}
    engine.options.sock[p["impl_name"]] |= given
    return True


@method("sock_set_default_impl", STARTUP, _IMPL)
async def sock_set_default_impl(engine: Engine, p: Params) -> object:
    """``posix`` or ``ssl``."""
    if p["impl_name"] not in engine.options.sock:
        raise _INVALID
    engine.options.sock_default = p["impl_name"]
    return True


@method("sock_get_default_impl", STARTUP | RUNTIME)
async def sock_get_default_impl(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """The default implementation."""
    return {"impl_name": engine.options.sock_default}


@method(
    "framework_set_scheduler",
    STARTUP | RUNTIME,
    Param("name", "string", required=True),
    Param("period", "uint64"),
)
async def framework_set_scheduler(engine: Engine, p: Params) -> object:
    """Only ``static``: there is one loop, and nothing to schedule."""
    if p["name"] != "static":
        raise RpcFault(INTERNAL_ERROR, os.strerror(-errno.EINVAL))
    engine.options.scheduler_period_us = p.get("period", 0) or engine.options.scheduler_period_us
    return True


@method(
    "framework_get_scheduler",
    STARTUP | RUNTIME,
    decode_error=(INVALID_PARAMS, "'rpc_get_scheduler' requires no arguments"),
)
async def framework_get_scheduler(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """The one scheduler."""
    return {
        "scheduler_name": "static",
        "scheduler_period": engine.options.scheduler_period_us,
        "isolated_core_mask": "0",
        "scheduling_core": 0,
    }


@method("log_set_print_level", STARTUP | RUNTIME, _LEVEL, decode_error=_DECODE)
async def log_set_print_level(engine: Engine, p: Params) -> object:
    """What goes to standard error."""
    engine.options.print_level = p["level"]
    logging.getLogger(LOGGER).setLevel(LEVELS[p["level"]])
    return True


@method("log_get_print_level", STARTUP | RUNTIME)
async def log_get_print_level(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """What goes to standard error."""
    return engine.options.print_level


@method("log_set_level", STARTUP | RUNTIME, _LEVEL, decode_error=_DECODE)
async def log_set_level(engine: Engine, p: Params) -> object:
    """SPDK's level for syslog, which this engine does not write."""
    engine.options.log_level = p["level"]
    return True


@method("log_get_level", STARTUP | RUNTIME)
async def log_get_level(engine: Engine, p: Params) -> object:  # noqa: ARG001 - it has no parameters
    """SPDK's level for syslog."""
    return engine.options.log_level
