"""``bdev_nvme_*`` methods about paths: their policy and order, what went over them, taking controllers out and back.

This module must never reach past ``engine.nvme``; what it adds is SPDK's parameters, checks, sentences and codes.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme_rpc.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.describe import path_iostat_json
from dataplane.embedded.initiator.options import POLICIES, SELECTORS, MultipathOptions
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
_INVALID: Final = (INVALID_PARAMS, "Invalid argument")
_NOT_GIVEN: Final = (1 << 32) - 1
"""``rr_min_io`` of a policy that says nothing about it; SPDK keeps the same number."""


def _fault(error: BdevError) -> RpcFault:
    return RpcFault(-error.errno, os.strerror(error.errno))


# -- which path


@method(
    "bdev_nvme_set_multipath_policy",
    RUNTIME,
    Param("name", "string", required=True),
    Param("policy", "enum", required=True, values=POLICIES),
    Param("selector", "enum", values=SELECTORS),
    Param("rr_min_io", "uint32"),
    decode_error=_DECODE,
)
async def bdev_nvme_set_multipath_policy(engine: Engine, p: Params) -> object:
    """How the paths of a bdev share its I/O from now on."""
    active = p["policy"] == "active_active"
    if "selector" in p and not active:
        raise RpcFault(*_DECODE)
    selector = p.get("selector", "round_robin" if active else "")
    min_io = p.get("rr_min_io", _NOT_GIVEN)
    if selector == "round_robin" and min_io == _NOT_GIVEN:
        min_io = 1
    try:
        engine.nvme.share(p["name"], MultipathOptions(p["policy"], selector, min_io))
    except BdevError as error:
        raise _fault(error) from None
    return True


@method(
    "bdev_nvme_set_preferred_path",
    RUNTIME,
    Param("name", "string", required=True),
    Param("cntlid", "uint16", required=True),
    decode_error=_DECODE,
)
async def bdev_nvme_set_preferred_path(engine: Engine, p: Params) -> object:
    """Which path of a bdev is asked first from now on."""
    try:
        engine.nvme.prefer(p["name"], p["cntlid"])
    except BdevError as error:
        raise _fault(error) from None
    return True


@method("bdev_nvme_get_path_iostat", RUNTIME, Param("name", "string", required=True), decode_error=_DECODE)
async def bdev_nvme_get_path_iostat(engine: Engine, p: Params) -> object:
    """What went over each path of a bdev; only where the option ``io_path_stat`` is set."""
    if not engine.nvme.options.io_path_stat:
        raise RpcFault(-errno.EPERM, "RPC not enabled if enable_io_path_stat is false")
    try:
        bdev = engine.nvme.bdev(p["name"])
    except BdevError as error:
        raise _fault(error) from None
    return {"name": bdev.name, "stats": path_iostat_json(bdev.namespace)}


# -- controllers


def _controllers(engine: Engine, p: Params) -> list[Controller]:
    """All under the name, or the one with the identifier; -19 when there is none."""
    group = engine.nvme.groups.get(p["name"])
    wanted = p.get("cntlid", 0)
    found = [each for each in (group.controllers if group else []) if wanted in (0, each.cntlid)]
    if not found:
        raise RpcFault(-errno.ENODEV, os.strerror(errno.ENODEV))
    return found


async def _one_by_one(controllers: list[Controller], act: Callable[[Controller], Awaitable[int]]) -> object:
    """Until one refuses."""
    for controller in controllers:
        number = await act(controller)
        if number:
            raise RpcFault(-number, os.strerror(number))
    return True


@method(
    "bdev_nvme_reset_controller",
    RUNTIME,
    Param("name", "string", required=True),
    Param("cntlid", "uint16"),
    decode_error=_INVALID,
)
async def bdev_nvme_reset_controller(engine: Engine, p: Params) -> object:
    """Disconnect and connect again: every controller under the name, or the one with the identifier."""
    return await _one_by_one(_controllers(engine, p), Controller.reset)


@method(
    "bdev_nvme_enable_controller",
    RUNTIME,
    Param("name", "string", required=True),
    Param("cntlid", "uint16"),
    decode_error=_INVALID,
)
async def bdev_nvme_enable_controller(engine: Engine, p: Params) -> object:
    """Connect what was disabled."""
    return await _one_by_one(_controllers(engine, p), Controller.enable)


@method(
    "bdev_nvme_disable_controller",
    RUNTIME,
    Param("name", "string", required=True),
    Param("cntlid", "uint16"),
    decode_error=_INVALID,
)
async def bdev_nvme_disable_controller(engine: Engine, p: Params) -> object:
    """Disconnect, and stay so until enabled; the bdevs stay."""
    return await _one_by_one(_controllers(engine, p), Controller.disable)
