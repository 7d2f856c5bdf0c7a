"""What the nvmf_* methods share: how the target, a subsystem and an address are found in the parameters.

This module must never change anything.  Source: SPDK v26.05 lib/nvmf/nvmf_rpc.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from dataplane.embedded.nvmf.options import ADDRESS_FAMILIES, Address
from dataplane.embedded.nvmf.subsystem import Subsystem
from dataplane.embedded.nvmf.target import NvmfTarget
from dataplane.embedded.rpc.registry import INTERNAL_ERROR, INVALID_PARAMS, Param, Params, RpcFault

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

NQN = Param("nqn", "string", required=True)
NSID = Param("nsid", "uint32", required=True)
HOST = Param("host", "string", required=True)
TGT = Param("tgt_name", "string")
ADDRESS_FIELDS = (
    Param("trtype", "string", required=True),
    Param("adrfam", "string"),
    Param("traddr", "string", required=True),
    Param("trsvcid", "string"),
)
_TRSTRING_MAX = 32
_TRADDR_MAX = 255
_TRSVCID_MAX = 31


def invalid(cause: Exception | None = None) -> NoReturn:
    """Answer -32602, as most methods do for whatever is not there or not possible."""
    raise RpcFault(INVALID_PARAMS, "Invalid parameters") from cause


def internal(message: str = "Internal error", cause: Exception | None = None) -> NoReturn:
    """Answer -32603."""
    raise RpcFault(INTERNAL_ERROR, message) from cause


def find_target(engine: Engine, p: Params, message: str = "Unable to find a target.") -> NvmfTarget:
    """The target, which may be named; another name is refused with ``message``."""
    target: NvmfTarget = engine.nvmf
    if p.get("tgt_name", target.name) != target.name:
        internal(message)
    return target


def find_subsystem(engine: Engine, p: Params, message: str = "Unable to find a target.") -> Subsystem:
    """The subsystem ``nqn``."""
    found = find_target(engine, p, message).find(p["nqn"])
    if found is None:
        invalid()
    return found


def to_address(raw: Params) -> Address:
    """A transport address as SPDK reads it."""
    trtype, family = raw["trtype"].upper(), raw.get("adrfam")
    trsvcid = raw.get("trsvcid", "")
    adrfam = "IPv4" if family is None else ADDRESS_FAMILIES.get(family.lower())
    too_long = len(trtype) > _TRSTRING_MAX or len(raw["traddr"]) > _TRADDR_MAX or len(trsvcid) > _TRSVCID_MAX
    if adrfam is None or too_long:
        invalid()
    return Address(trtype, adrfam, raw["traddr"], trsvcid)
