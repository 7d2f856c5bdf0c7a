"""The nvmf_* methods about the target as a whole: start-up settings, transports, referrals, counts.

Why: the control plane must not be able to tell the engines apart.  This module must never hold state.
Sources: SPDK v26.05 lib/nvmf/nvmf_rpc.c, module/event/subsystems/nvmf/nvmf_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from dataplane.embedded.nvmf import render
from dataplane.embedded.nvmf.options import TransportOptions
from dataplane.embedded.nvmf.subsystem import TargetError
from dataplane.embedded.nvmf.target import Referral
from dataplane.embedded.rpc.nvmf_common import ADDRESS_FIELDS, TGT, find_target, internal, invalid, to_address
from dataplane.embedded.rpc.registry import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    RUNTIME,
    STARTUP,
    Param,
    Params,
    RpcFault,
    decode_some,
    method,
)
from dataplane.nvme.dhchap import Digest
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.ffdhe import DhGroup

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

REFERRAL_ADDRESS = Param("address", "object", required=True, fields=ADDRESS_FIELDS)
_KNOWN_TRTYPES = {"TCP", "RDMA", "FC", "PCIE", "VFIOUSER"}
_ONCS_BITS = {"nvmcmps": 0, "nvmdsmsv": 2, "nvmwzsv": 3, "reservs": 5, "nvmcpys": 8}


# Before the framework starts


def _discovery_filter(text: str) -> frozenset[str]:
    words = [word for word in text.split(",") if word]
    known = {"match_any", "transport", "address", "svcid"}
    if not set(words) <= known or ("match_any" in words and len(set(words)) > 1):
        invalid()
    return frozenset(words) - {"match_any"}


@method(
    "nvmf_set_config",
    STARTUP,
    Param(
        "admin_cmd_passthru",
        "object",
        fields=tuple(
            Param(name, "boolean")
            for name in (
                "identify_ctrlr", "identify_uuid_list", "get_log_page", "get_set_features", "sanitize",
                "security_send_recv", "fw_update", "nvme_mi", "vendor_specific",
            )
        ),
    ),
    Param("poll_groups_mask", "string"),
    Param("discovery_filter", "string"),
    Param("dhchap_digests", "array", item="enum", values=tuple(item.label for item in Digest), max_items=32),
    Param("dhchap_dhgroups", "array", item="enum", values=tuple(item.label for item in DhGroup), max_items=32),
    Param("dup_host_policy", "enum", values=("allow", "restrict_per_listener")),
)  # fmt: skip
async def nvmf_set_config(engine: Engine, p: Params) -> object:
    """Keep what applies here; pass-through and poll groups are kept only to be shown."""
    settings = engine.nvmf.settings
    chosen = _discovery_filter(p["discovery_filter"]) if "discovery_filter" in p else None
    if chosen is not None:
        settings.discovery_filter = chosen
    if "admin_cmd_passthru" in p:
        settings.admin_cmd_passthru = dict(p["admin_cmd_passthru"])
    names = p.get("dhchap_digests"), p.get("dhchap_dhgroups")
    settings.authentication = settings.authentication.with_names(*names)
    settings.dup_host_policy = p.get("dup_host_policy", settings.dup_host_policy)
    return True


@method("nvmf_set_max_subsystems", STARTUP, Param("max_subsystems", "uint32", required=True), needs_params=False)
async def nvmf_set_max_subsystems(engine: Engine, p: Params) -> object:
    """Once only; 0, and a call without parameters, leave the choice to the engine."""
    if engine.nvmf.settings.max_subsystems:
        internal("Must not call more than once")
    engine.nvmf.settings.max_subsystems = p.get("max_subsystems", 0)
    return True


@method("nvmf_set_crdt", STARTUP, Param("crdt1", "uint16"), Param("crdt2", "uint16"), Param("crdt3", "uint16"))
async def nvmf_set_crdt(engine: Engine, p: Params) -> object:
    """Command retry delay times in 100 ms; kept to be shown."""
    engine.nvmf.settings.crdt = (p.get("crdt1", 0), p.get("crdt2", 0), p.get("crdt3", 0))
    return True


# Transports


_COUNTS32 = (
    "in_capsule_data_size", "max_io_size", "max_aq_depth", "iobuf_small_cache_size", "iobuf_large_cache_size",
    "abort_timeout_sec", "ack_timeout", "data_wr_pool_size", "min_kato",
)  # fmt: skip
_SWITCHES = ("dif_insert_or_strip", "zcopy", "disable_command_passthru")
_OF_TCP = (Param("c2h_success", "boolean"), Param("control_msg_num", "uint16"), Param("sock_priority", "uint32"))
"""What the TCP transport decodes itself when it is made (lib/nvmf/tcp.c): a wrong one fails later, otherwise."""


@method(
    "nvmf_create_transport",
    RUNTIME,
    Param("trtype", "string", required=True),
    TGT,
    Param("max_queue_depth", "uint16"),
    Param("max_io_qpairs_per_ctrlr", "uint16"),
    Param("kas", "uint16"),
    *(Param(param.name, "any") for param in _OF_TCP),
    *(Param(name, "uint32") for name in _COUNTS32),
    *(Param(name, "uint32") for name in ("io_unit_size", "num_shared_buffers", "buf_cache_size",
                                         "acceptor_poll_rate")),
    *(Param(name, "boolean") for name in _SWITCHES),
    Param("masked_oncs", "array", item="enum", values=tuple(_ONCS_BITS)),
    Param("masked_fuses", "array", item="enum", values=("fcws",)),
    relaxed=True,
)  # fmt: skip
async def nvmf_create_transport(engine: Engine, p: Params) -> object:
    """Only TCP; what concerns SPDK's buffers and pollers is kept to be shown."""
    target = find_target(engine, p)
    name = p["trtype"].upper()
    if name not in _KNOWN_TRTYPES - {"PCIE"}:
        raise RpcFault(INVALID_PARAMS, f"Invalid transport type '{p['trtype']}'")
    if name in target.transports:
        internal(f"Transport type '{p['trtype']}' already exists")
    refused = RpcFault(INTERNAL_ERROR, "Failed to create transport.")
    own = decode_some(p, _OF_TCP, refused)
    given = {key: p[key] for key in (*_COUNTS32, *_SWITCHES, "kas") if key in p}
    given |= {key: value for key, value in own.items() if key != "control_msg_num"}
    options = TransportOptions(**given)
    io_size = options.max_io_size
    wrong_size = io_size < 8192 or io_size & (io_size - 1)
    if name != "TCP" or wrong_size or not options.kas or not options.min_kato:
        internal(f"Transport type '{p['trtype']}' create failed")
    if options.sock_priority > 16:
        raise refused
    mask = 0
    for word in p.get("masked_oncs", []):
        mask |= 1 << _ONCS_BITS[word]
    step = options.kas * 100
    given |= {
        "max_queue_depth": depth if (depth := p.get("max_queue_depth", 128)) >= 2 else 128,
        "max_io_qpairs_per_ctrlr": p.get("max_io_qpairs_per_ctrlr", 127),
        "max_aq_depth": max(32, options.max_aq_depth) if options.max_aq_depth <= 4096 else 128,
        "in_capsule_data_size": min(options.in_capsule_data_size, io_size),
        "min_kato": -(-options.min_kato // step) * step,
        "oncs": 0xFFFF & ~mask,
        "fuses": 0xFFFE if "fcws" in p.get("masked_fuses", []) else 0xFFFF,
    }
    target.transports[name] = TransportOptions(**given)
    return True


@method("nvmf_get_transports", RUNTIME, Param("trtype", "string"), TGT)
async def nvmf_get_transports(engine: Engine, p: Params) -> object:
    """All, or the one of that type."""
    target = find_target(engine, p)
    if "trtype" in p and p["trtype"].upper() not in target.transports:
        raise RpcFault(-errno.ENODEV, os.strerror(errno.ENODEV))
    return [options.to_json() for options in target.transports.values()]


@method("nvmf_get_stats", RUNTIME, TGT)
async def nvmf_get_stats(engine: Engine, p: Params) -> object:
    """Counts of queues and I/O."""
    return find_target(engine, p).stats()


# Discovery


def _referral(p: Params) -> Referral:
    address = to_address(p["address"])
    if address.trtype not in _KNOWN_TRTYPES:
        invalid()
    return Referral(address, p.get("subnqn") or DISCOVERY_NQN, p.get("secure_channel", False))


@method(
    "nvmf_discovery_add_referral",
    RUNTIME,
    REFERRAL_ADDRESS,
    TGT,
    Param("secure_channel", "boolean"),
    Param("subnqn", "string"),
    relaxed=True,
)
async def nvmf_discovery_add_referral(engine: Engine, p: Params) -> object:
    """Point hosts to another discovery service, or straight to a subsystem."""
    target = find_target(engine, p)
    referral = _referral(p)
    if not referral.address.trsvcid:
        internal("Service ID is required.")
    try:
        target.add_referral(referral)
    except TargetError as problem:
        internal(cause=problem)
    return True


@method("nvmf_discovery_remove_referral", RUNTIME, REFERRAL_ADDRESS, TGT, Param("subnqn", "string"))
async def nvmf_discovery_remove_referral(engine: Engine, p: Params) -> object:
    """Take a referral back."""
    target = find_target(engine, p)
    try:
        target.remove_referral(_referral(p))
    except TargetError as problem:
        internal("Unable to remove a referral.", problem)
    return True


@method("nvmf_discovery_get_referrals", RUNTIME, TGT)
async def nvmf_discovery_get_referrals(engine: Engine, p: Params) -> object:
    """All referrals."""
    return [render.referral_json(item) for item in find_target(engine, p, "Unable to find a target").referrals]
