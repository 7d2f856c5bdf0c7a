"""``bdev_nvme_add_error_injection`` and its counterpart: drives that refuse on demand.

This module must never reach past ``engine.nvme``; what it adds is SPDK's parameters, checks, sentences and codes.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.injection import Injection, Injections
from dataplane.embedded.rpc.registry import RUNTIME, Param, Params, RpcFault, method

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_UNDECODED: Final = (-errno.EINVAL, "Failed to parse the request")
_WHICH: Final = (
    Param("name", "string", required=True),
    Param("cmd_type", "enum", required=True, values=("admin", "io")),
    Param("opc", "uint8", required=True),
)


@method(
    "bdev_nvme_add_error_injection",
    RUNTIME,
    *_WHICH,
    Param("do_not_submit", "boolean"),
    Param("timeout_in_us", "uint64"),
    Param("err_count", "uint32"),
    *(Param(name, "uint8") for name in ("sct", "sc")),
    decode_error=_UNDECODED,
)
async def bdev_nvme_add_error_injection(engine: Engine, p: Params) -> object:
    """The next commands of this opcode to the first controller under the name end with this status.

    The I/O queues that there are now are meant; those of a later connection know nothing of it.
    """
    code = (p.get("sct", 0) & 7) << 8 | p.get("sc", 0)
    hold_s = p.get("timeout_in_us", 0) / 1e6 if p.get("do_not_submit", False) else None
    for injections in _injections(_controller(engine, p), p["cmd_type"]):
        injections.add(p["opc"], Injection(code, p.get("err_count", 1), hold_s))
    return True


@method("bdev_nvme_remove_error_injection", RUNTIME, *_WHICH, decode_error=_UNDECODED)
async def bdev_nvme_remove_error_injection(engine: Engine, p: Params) -> object:
    """No more errors for this opcode, whether there were any or not."""
    for injections in _injections(_controller(engine, p), p["cmd_type"]):
        injections.remove(p["opc"])
    return True


def _controller(engine: Engine, p: Params) -> Controller:
    found = engine.nvme.controller(p["name"])
    if found is None:
        raise RpcFault(-errno.ENODEV, os.strerror(errno.ENODEV))
    return found


def _injections(controller: Controller, cmd_type: str) -> list[Injections]:
    if cmd_type == "admin":
        return [controller.injected]
    return [queue.injected for queue in controller.association.queues] if controller.association else []
