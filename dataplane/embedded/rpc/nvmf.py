"""The nvmf_* methods about subsystems: names, parameters, results and error numbers of SPDK v26.05.

Why: the control plane must not be able to tell the engines apart.  This module must never hold state.
Source: lib/nvmf/nvmf_rpc.c.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.nvmf import render
from dataplane.embedded.nvmf.options import nqn_is_valid
from dataplane.embedded.nvmf.subsystem import SubsystemOptions, TargetError
from dataplane.embedded.nvmf.target import NamespaceRequest
from dataplane.embedded.rpc.keyring import KEYS, find_keys
from dataplane.embedded.rpc.nvmf_common import (
    ADDRESS_FIELDS,
    HOST,
    NQN,
    NSID,
    TGT,
    find_subsystem,
    find_target,
    internal,
    invalid,
    to_address,
)
from dataplane.embedded.rpc.registry import INVALID_PARAMS, RUNTIME, Param, Params, RpcFault, method
from dataplane.nvme.logs import AnaState

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_ANA_STATES = {
    "optimized": AnaState.OPTIMIZED,
    "non_optimized": AnaState.NON_OPTIMIZED,
    "inaccessible": AnaState.INACCESSIBLE,
}
LISTEN_ADDRESS = Param("listen_address", "object", required=True, fields=ADDRESS_FIELDS)
_SERIAL_MAX = 20
_MODEL_MAX = 40


# Subsystems


@method("nvmf_get_subsystems", RUNTIME, Param("nqn", "string"), TGT)
async def nvmf_get_subsystems(engine: Engine, p: Params) -> object:
    """All, or the one of that NQN."""
    target = find_target(engine, p)
    if "nqn" in p:
        found = target.find(p["nqn"])
        if found is None:
            raise RpcFault(-errno.ENODEV, os.strerror(errno.ENODEV))
        return [render.subsystem_json(found)]
    return [render.subsystem_json(subsystem) for subsystem in target.sorted_subsystems()]


@method(
    "nvmf_create_subsystem",
    RUNTIME,
    NQN,
    TGT,
    Param("serial_number", "string"),
    Param("model_number", "string"),
    Param("max_namespaces", "uint32"),
    Param("allow_any_host", "boolean"),
    Param("ana_reporting", "boolean"),
    Param("min_cntlid", "uint16"),
    Param("max_cntlid", "uint16"),
    Param("max_discard_size_kib", "uint64"),
    Param("max_write_zeroes_size_kib", "uint64"),
    Param("dmrsl", "uint32"),
    Param("wzsl", "uint8"),
    Param("passthrough", "boolean"),
    Param("enable_nssr", "boolean"),
)
async def nvmf_create_subsystem(engine: Engine, p: Params) -> object:
    """Make a subsystem that nobody reaches yet."""
    for name, limit in (("serial_number", _SERIAL_MAX), ("model_number", _MODEL_MAX)):
        text = p.get(name, "")
        if len(text) > limit or not all(" " <= letter <= "~" for letter in text):
            invalid()
    target = find_target(engine, p, f"Unable to find target {p.get('tgt_name')}")
    names = ("serial_number", "model_number", "ana_reporting", "dmrsl", "wzsl", "passthrough", "enable_nssr")
    given = {name: p[name] for name in names if name in p}
    given["max_namespaces"] = p.get("max_namespaces", 0) or SubsystemOptions().max_namespaces
    if "max_discard_size_kib" in p:
        given["dmrsl"] = (p["max_discard_size_kib"] << 1) & 0xFFFFFFFF
    if "max_write_zeroes_size_kib" in p:
        given["wzsl"] = _wzsl(p["max_write_zeroes_size_kib"])
    low, high = p.get("min_cntlid", 1), p.get("max_cntlid", 0xFFEF)
    try:
        subsystem = target.create_subsystem(p["nqn"], SubsystemOptions(**given))
    except TargetError as problem:
        internal(f"Unable to create subsystem {p['nqn']}", problem)
    subsystem.allow_any_host = p.get("allow_any_host", False)
    try:
        subsystem.set_cntlid_range(low, high)
    except TargetError as problem:
        await target.delete_subsystem(subsystem)
        raise RpcFault(INVALID_PARAMS, f"Invalid cntlid range [{low}-{high}]") from problem
    return True


def _wzsl(kib: int) -> int:
    if kib and (kib < 8 or kib & (kib - 1)):
        raise RpcFault(INVALID_PARAMS, f"Invalid max_write_zeroes_size_kib {kib}")
    return max(0, (kib >> 2).bit_length() - 1)


@method("nvmf_delete_subsystem", RUNTIME, NQN, TGT)
async def nvmf_delete_subsystem(engine: Engine, p: Params) -> object:
    """Drop the hosts and delete it."""
    await find_target(engine, p).delete_subsystem(find_subsystem(engine, p))
    return True


# Namespaces


@method(
    "nvmf_subsystem_add_ns",
    RUNTIME,
    NQN,
    TGT,
    Param(
        "namespace",
        "object",
        required=True,
        fields=(
            Param("nsid", "uint32"),
            Param("bdev_name", "string", required=True),
            Param("ptpl_file", "string"),
            Param("nguid", "string"),
            Param("eui64", "string"),
            Param("uuid", "uuid"),
            Param("anagrpid", "uint32"),
            Param("no_auto_visible", "boolean"),
            Param("hide_metadata", "boolean"),
        ),
    ),
    relaxed=True,
)
async def nvmf_subsystem_add_ns(engine: Engine, p: Params) -> object:
    """Add a namespace; answers its NSID."""
    raw: Params = p["namespace"]
    request = NamespaceRequest(
        raw["bdev_name"], raw.get("nsid", 0), _identifier(raw.get("nguid", ""), 16),
        _identifier(raw.get("eui64", ""), 8), raw.get("uuid"), raw.get("anagrpid", 0),
        raw.get("no_auto_visible", False), raw.get("ptpl_file"),
    )  # fmt: skip
    target = find_target(engine, p)
    try:
        return await target.add_namespace(find_subsystem(engine, p), request)
    except (TargetError, BdevError) as problem:
        invalid(problem)


def _identifier(text: str, size: int) -> bytes:
    if not text:
        return bytes(size)
    if len(text) != 2 * size or not all(letter in "0123456789abcdefABCDEF" for letter in text):
        invalid()
    return bytes.fromhex(text)


@method("nvmf_subsystem_remove_ns", RUNTIME, NQN, NSID, TGT)
async def nvmf_subsystem_remove_ns(engine: Engine, p: Params) -> object:
    """Take a namespace out once its I/O has ended."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    try:
        await target.remove_namespace(subsystem, p["nsid"])
    except TargetError as problem:
        invalid(problem)
    return True


@method("nvmf_subsystem_set_ns_ana_group", RUNTIME, NQN, NSID, Param("anagrpid", "uint32", required=True), TGT)
async def nvmf_subsystem_set_ns_ana_group(engine: Engine, p: Params) -> object:
    """Move a namespace to another ANA group."""
    subsystem = find_subsystem(engine, p)
    async with subsystem.paused(p["nsid"]):
        try:
            subsystem.move_namespace(p["nsid"], p["anagrpid"])
        except TargetError as problem:
            invalid(problem)
    return True


@method("nvmf_ns_add_host", RUNTIME, NQN, NSID, HOST, TGT)
async def nvmf_ns_add_host(engine: Engine, p: Params) -> object:
    """Let a host see a namespace."""
    return await _show(engine, p, visible=True)


@method("nvmf_ns_remove_host", RUNTIME, NQN, NSID, HOST, TGT)
async def nvmf_ns_remove_host(engine: Engine, p: Params) -> object:
    """Let a host see a namespace no more."""
    return await _show(engine, p, visible=False)


async def _show(engine: Engine, p: Params, *, visible: bool) -> object:
    subsystem = find_subsystem(engine, p)
    async with subsystem.paused(p["nsid"]):
        if not nqn_is_valid(p["host"]):
            invalid()
        try:
            subsystem.show_namespace(p["nsid"], p["host"], visible=visible)
        except TargetError as problem:
            invalid(problem)
    return True


# Hosts


@method(
    "nvmf_subsystem_add_host",
    RUNTIME,
    NQN,
    HOST,
    TGT,
    Param("psk", "string"),
    *KEYS,
    relaxed=True,
)
async def nvmf_subsystem_add_host(engine: Engine, p: Params) -> object:
    """Allow a host, with keys only when it has proved that it knows them.  There is no TLS: a PSK is refused."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    keys = find_keys(engine, p)
    if keys is None:
        invalid()
    if "psk" in p:
        internal()
    try:
        target.add_host(subsystem, p["host"], keys)
    except TargetError as problem:
        internal(cause=problem)
    return True


@method("nvmf_subsystem_set_keys", RUNTIME, NQN, HOST, TGT, *KEYS)
async def nvmf_subsystem_set_keys(engine: Engine, p: Params) -> object:
    """Give an allowed host other keys, or take those that are not named; who is connected stays so."""
    target, subsystem = find_target(engine, p, "Invalid parameters"), find_subsystem(engine, p, "Invalid parameters")
    keys = find_keys(engine, p)
    if keys is None:
        invalid()
    try:
        target.set_keys(subsystem, p["host"], keys)
    except TargetError as problem:
        raise RpcFault(-errno.EINVAL, os.strerror(errno.EINVAL)) from problem
    return True


@method("nvmf_subsystem_remove_host", RUNTIME, NQN, HOST, TGT, Param("timeout_ms", "uint64"))
async def nvmf_subsystem_remove_host(engine: Engine, p: Params) -> object:
    """Allow a host no more and drop its connections; ``timeout_ms`` 0 waits for ever."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    try:
        target.remove_host(subsystem, p["host"])
    except TargetError as problem:
        internal(cause=problem)
    timeout_ms = p.get("timeout_ms", 0)
    try:
        async with asyncio.timeout(timeout_ms / 1000 if timeout_ms else None):
            await target.disconnect_host(subsystem, p["host"])
    except TimeoutError as problem:
        internal("Timeout reached during host removal", problem)
    return True


@method("nvmf_subsystem_allow_any_host", RUNTIME, NQN, Param("allow_any_host", "boolean", required=True), TGT)
async def nvmf_subsystem_allow_any_host(engine: Engine, p: Params) -> object:
    """Let every host in, or only those that were added."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    if subsystem.allow_any_host != p["allow_any_host"]:
        subsystem.allow_any_host = p["allow_any_host"]
        if subsystem.listeners:
            target.discovery_changed()
    return True


# Listeners


@method(
    "nvmf_subsystem_add_listener",
    RUNTIME,
    NQN,
    LISTEN_ADDRESS,
    TGT,
    Param("secure_channel", "boolean"),
    Param("ana_state", "enum", values=tuple(_ANA_STATES)),
    Param("sock_impl", "string"),
    relaxed=True,
)
async def nvmf_subsystem_add_listener(engine: Engine, p: Params) -> object:
    """Listen for the subsystem; there is no TLS here, so a secure channel is refused."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    address = to_address(p["listen_address"])
    if p.get("secure_channel", False):
        if subsystem.allow_any_host:
            internal("Cannot establish secure channel, when 'allow_any_host' is set")
        invalid()
    state = _ANA_STATES[p.get("ana_state", "optimized")]
    try:
        await target.add_listener(subsystem, address, state, sock_impl=p.get("sock_impl"))
    except TargetError as problem:
        invalid(problem)
    return True


@method("nvmf_subsystem_remove_listener", RUNTIME, NQN, LISTEN_ADDRESS, TGT)
async def nvmf_subsystem_remove_listener(engine: Engine, p: Params) -> object:
    """Listen there no more and drop who came that way."""
    target, subsystem = find_target(engine, p), find_subsystem(engine, p)
    address = to_address(p["listen_address"])
    if address.trtype not in target.transports:
        invalid()
    try:
        await target.remove_listener(subsystem, address)
    except TargetError as problem:
        invalid(problem)
    return True


@method(
    "nvmf_subsystem_listener_set_ana_state",
    RUNTIME,
    NQN,
    LISTEN_ADDRESS,
    Param("ana_state", "enum", required=True, values=tuple(_ANA_STATES)),
    TGT,
    Param("anagrpid", "uint32"),
)
async def nvmf_subsystem_listener_set_ana_state(engine: Engine, p: Params) -> object:
    """Set the state of one ANA group there, or of all."""
    target = find_target(engine, p)
    subsystem = target.find(p["nqn"])
    if subsystem is None:
        raise RpcFault(INVALID_PARAMS, f"Unable to find subsystem with NQN {p['nqn']}")
    address = to_address(p["listen_address"])
    async with subsystem.paused():
        listener = subsystem.find_listener(address)
        try:
            if listener is None:
                raise TargetError("there is no such listener")
            subsystem.set_ana_state(listener, _ANA_STATES[p["ana_state"]], p.get("anagrpid", 0))
        except TargetError as problem:
            internal(f"error setting ANA state: {-errno.EINVAL}", problem)
    return True


@method("nvmf_subsystem_get_listeners", RUNTIME, NQN, TGT)
async def nvmf_subsystem_get_listeners(engine: Engine, p: Params) -> object:
    """Listeners with their ANA states."""
    subsystem = find_subsystem(engine, p, "Unable to find a target")
    return [render.listener_json(subsystem, listener) for listener in subsystem.listeners]


@method("nvmf_subsystem_get_controllers", RUNTIME, NQN, TGT)
async def nvmf_subsystem_get_controllers(engine: Engine, p: Params) -> object:
    """Which hosts are connected."""
    subsystem = find_subsystem(engine, p, "Unable to find a target")
    return [render.controller_json(controller) for controller in subsystem.controllers.values()]


@method("nvmf_subsystem_get_qpairs", RUNTIME, NQN, TGT)
async def nvmf_subsystem_get_qpairs(engine: Engine, p: Params) -> object:
    """Their queues."""
    subsystem = find_subsystem(engine, p, "Unable to find a target")
    return [
        render.queue_json(queue, controller)
        for controller in subsystem.controllers.values()
        for queue in controller.queues.values()
    ]
