"""``bdev_nvme_*`` methods: options, attaching, detaching, listing, health and raw commands.

This module must never reach past ``engine.nvme``; what it adds is SPDK's parameters, checks, sentences and codes.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme_rpc.c, nvme_rpc.c.
"""

from __future__ import annotations

import base64
import binascii
import errno
import ipaddress
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.initiator.connection import Reply, TransportLost, TransportReset
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.describe import controller_json, health_json, io_paths_json
from dataplane.embedded.initiator.module import AttachRequest, PathFilter
from dataplane.embedded.initiator.options import DHGROUP_NAMES, DIGEST_NAMES, POLICIES, SELECTORS
from dataplane.embedded.initiator.reconnect import Address, LossPolicy
from dataplane.embedded.rpc.keyring import KEYS, find_keys
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
from dataplane.nvme.commands import SQE_SIZE, AdminOp, Command, Completion, Feature, LogId, get_features, status_field
from dataplane.nvme.logs import SmartLog
from dataplane.nvme.pdu import Digests
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

_DECODE: Final = (INTERNAL_ERROR, DECODE_FAILED)
_INVALID: Final = (INVALID_PARAMS, "Invalid argument")
_FROM_HOST, _TO_HOST, _BOTH_WAYS = 1, 2, 3
_NAME_MAX: Final = 511
_LENGTHS: Final = {"traddr": 256, "trsvcid": 32, "subnqn": 223, "hostnqn": 223, "hostaddr": 256, "hostsvcid": 32}
_FAMILIES: Final = ("ipv4", "ipv6", "ib", "fc", "intra_host")
_QUEUES_MAX: Final = 1 << 16
_OTHER_TRANSPORTS: Final = "The embedded engine attaches NVMe over TCP only, not {}"
_PATH: Final = tuple(Param(name, "string") for name in ("traddr", "adrfam", "trsvcid"))
_MULTIPATH: Final = Param(
    "multipath_opts",
    "object",
    fields=(
        Param("policy", "enum", values=POLICIES),
        Param("selector", "enum", values=SELECTORS),
        Param("min_io", "uint32"),
    ),
)


def _fault(number: int) -> RpcFault:
    """The error of SPDK's ``spdk_jsonrpc_send_error_response(-errno, strerror(errno))``."""
    return RpcFault(-number, os.strerror(number))


# -- options


@method(
    "bdev_nvme_set_options",
    STARTUP | RUNTIME,
    Param("action_on_timeout", "enum", values=("none", "reset", "abort")),
    *(Param(name, "uint64") for name in ("timeout_us", "timeout_admin_us")),
    *(Param(name, "uint64") for name in ("nvme_adminq_poll_period_us", "nvme_ioq_poll_period_us")),
    *(Param(name, "uint32") for name in ("keep_alive_timeout_ms", "arbitration_burst", "io_queue_requests")),
    *(Param(f"{level}_priority_weight", "uint32") for level in ("low", "medium", "high")),
    *(Param(name, "uint32") for name in ("transport_retry_count", "reconnect_delay_sec")),
    *(Param(name, "uint32") for name in ("fast_io_fail_timeout_sec", "tcp_connect_timeout_ms")),
    *(Param(name, "uint32") for name in ("rdma_srq_size", "rdma_max_cq_size")),
    *(Param(name, "int32") for name in ("bdev_retry_count", "ctrlr_loss_timeout_sec")),
    *(Param(name, "uint8") for name in ("transport_ack_timeout", "transport_tos")),
    Param("rdma_cm_event_timeout_ms", "uint16"),
    *(Param(name, "boolean") for name in ("delay_cmd_submit", "disable_auto_failback", "generate_uuids")),
    *(Param(name, "boolean") for name in ("nvme_error_stat", "io_path_stat", "allow_accel_sequence")),
    *(Param(name, "boolean") for name in ("rdma_umr_per_io", "enable_flush")),
    Param("dhchap_digests", "array", item="enum", values=DIGEST_NAMES, max_items=32),
    Param("dhchap_dhgroups", "array", item="enum", values=DHGROUP_NAMES, max_items=32),
    _MULTIPATH,
    decode_error=_DECODE,
)
async def bdev_nvme_set_options(engine: Engine, p: Params) -> object:
    """Options for controllers attached later."""
    try:
        options = engine.nvme.options.merge(p)
    except ValueError:
        raise _fault(errno.EINVAL) from None
    try:
        engine.nvme.set_options(options)
    except BdevError as error:
        raise RpcFault(-error.errno, str(error)) from None
    return True


# -- attaching and detaching


@method(
    "bdev_nvme_attach_controller",
    RUNTIME,
    *(Param(name, "string", required=True) for name in ("name", "trtype", "traddr")),
    *(Param(name, "string") for name in ("adrfam", "trsvcid", "priority", "subnqn", "hostnqn", "hostaddr")),
    *(Param(name, "string") for name in ("hostsvcid", "psk")),
    *KEYS,
    *(Param(name, "boolean") for name in ("prchk_reftag", "prchk_guard", "hdgst", "ddgst")),
    Param("allow_unrecognized_csi", "boolean"),
    Param("fabrics_connect_timeout_us", "uint64"),
    Param("multipath", "enum", values=("failover", "multipath", "disable")),
    Param("ctrlr_loss_timeout_sec", "int32"),
    *(Param(name, "uint32") for name in ("num_io_queues", "reconnect_delay_sec", "fast_io_fail_timeout_sec")),
    Param("max_bdevs", "uint32"),
    _MULTIPATH,
    decode_error=_DECODE,
)
async def bdev_nvme_attach_controller(engine: Engine, p: Params) -> object:
    """Connect to a controller, or add a path to one; the names of its bdevs."""
    if p.get("max_bdevs", 128) == 0:
        raise RpcFault(-errno.EINVAL, "max_bdevs cannot be zero")
    _check_texts(p)
    hostnqn = p.get("hostnqn", "") or engine.nvme.hostnqn
    _check_known(engine, p, hostnqn)
    queues = p.get("num_io_queues", 1024)
    if not 0 < queues <= _QUEUES_MAX:
        raise RpcFault(-errno.EINVAL, f"num_io_queues out of bounds, min: 1 max: {_QUEUES_MAX}")
    if not 0 < len(p["name"].encode()) <= _NAME_MAX:
        raise _fault(errno.EINVAL)
    options = engine.nvme.options
    loss = LossPolicy(
        p.get("ctrlr_loss_timeout_sec", options.ctrlr_loss_timeout_sec),
        p.get("reconnect_delay_sec", options.reconnect_delay_sec),
        p.get("fast_io_fail_timeout_sec", options.fast_io_fail_timeout_sec),
    )
    multipath_opts = options.multipath_opts.merge(p.get("multipath_opts"))
    if loss.problem() is not None or not multipath_opts.valid():
        raise _fault(errno.EINVAL)
    if "psk" in p:
        raise RpcFault(-errno.EOPNOTSUPP, "The embedded engine attaches without TLS only")
    keys = find_keys(engine, p)
    if keys is None:
        raise _fault(errno.ENOKEY)
    if p["trtype"].upper() != "TCP":
        raise RpcFault(-errno.ENODEV, _OTHER_TRANSPORTS.format(p["trtype"]))
    request = AttachRequest(
        name=p["name"],
        address=_address(p),
        subnqn=p.get("subnqn", ""),
        hostnqn=hostnqn,
        source=_source(p),
        digests=Digests(p.get("hdgst", False), p.get("ddgst", False)),
        loss=loss,
        multipath=p.get("multipath", "multipath") == "multipath",
        multipath_opts=multipath_opts,
        max_bdevs=p.get("max_bdevs", 128),
        num_io_queues=queues,
        fabrics_timeout_us=p.get("fabrics_connect_timeout_us"),
        keys=keys,
    )
    try:
        return await engine.nvme.attach(request)
    except BdevError as error:
        raise _fault(error.errno) from None


@method(
    "bdev_nvme_set_keys",
    RUNTIME,
    Param("name", "string", required=True),
    *KEYS,
    decode_error=(INVALID_PARAMS, DECODE_FAILED),
)
async def bdev_nvme_set_keys(engine: Engine, p: Params) -> object:
    """Give the controllers under a name other keys, and authenticate with them."""
    keys = find_keys(engine, p)
    if keys is None:
        raise _fault(errno.ENOKEY)
    try:
        await engine.nvme.set_keys(p["name"], keys)
    except BdevError as error:
        raise _fault(error.errno) from None
    return True


def _check_texts(p: Params) -> None:
    """Lengths and the address family, in SPDK's words."""
    for name, longest in _LENGTHS.items():
        if len(p.get(name, "").encode()) > longest:
            raise RpcFault(-errno.EINVAL, f"{name} too long: {p[name]}")
        if name == "traddr" and "adrfam" in p and p["adrfam"].lower() not in _FAMILIES:
            raise RpcFault(-errno.EINVAL, f"Failed to parse adrfam: {p['adrfam']}")


def _check_known(engine: Engine, p: Params, hostnqn: str) -> None:
    """A controller of that name exists: does this one fit beside it?"""
    known = engine.nvme.controller(p["name"])
    if known is None:
        return
    name = p["name"]
    if p.get("multipath") == "disable":
        raise RpcFault(-errno.EALREADY, f"A controller named {name} already exists and multipath is disabled")
    source = known.options.endpoint.source or ("", 0)
    mine = (p["traddr"], p.get("trsvcid", ""), p.get("hostaddr", ""), p.get("hostsvcid", ""))
    theirs = (known.address.traddr, known.address.trsvcid, source[0], str(source[1] or ""))
    already = f"A controller named {name} already exists"
    if mine == theirs:
        raise RpcFault(-errno.EALREADY, f"{already} with the specified network path")
    if p.get("subnqn", "") != known.options.subnqn:
        raise RpcFault(-errno.EINVAL, f"{already}, but uses a different subnqn ({known.options.subnqn})")
    if hostnqn != known.options.hostnqn:
        raise RpcFault(-errno.EINVAL, f"{already}, but uses a different hostnqn ({known.options.hostnqn})")
    if p.get("prchk_reftag", False) or p.get("prchk_guard", False):
        raise RpcFault(-errno.EINVAL, f"{already}. To add a path, do not specify PI options.")


def _address(p: Params) -> Address:
    """The address and port; EIO where SPDK's connection attempt would find out."""
    port = p.get("trsvcid", "")
    try:
        version = ipaddress.ip_address(p["traddr"]).version
    except ValueError:
        raise _fault(errno.EIO) from None
    if p.get("adrfam", "").lower() != f"ipv{version}" or not _is_port(port) or not p.get("subnqn"):
        raise _fault(errno.EIO)
    return Address(p["traddr"], port)


def _source(p: Params) -> tuple[str, int] | None:
    if not p.get("hostaddr"):
        return None
    port = p.get("hostsvcid", "") or "0"
    if port != "0" and not _is_port(port):
        raise _fault(errno.EIO)
    return p["hostaddr"], int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16


@method(
    "bdev_nvme_detach_controller",
    RUNTIME,
    Param("name", "string", required=True),
    Param("trtype", "string"),
    *_PATH,
    *(Param(name, "string") for name in ("subnqn", "hostaddr", "hostsvcid")),
    decode_error=_DECODE,
)
async def bdev_nvme_detach_controller(engine: Engine, p: Params) -> object:
    """Disconnect from a controller, or from some of its paths."""
    _check_texts(p)
    try:
        await engine.nvme.detach(p["name"], PathFilter(**{name: p[name] for name in p if name != "name"}))
    except BdevError as error:
        raise _fault(error.errno) from None
    return True


# -- looking


@method("bdev_nvme_get_controllers", RUNTIME, Param("name", "string"), decode_error=_DECODE)
async def bdev_nvme_get_controllers(engine: Engine, p: Params) -> object:
    """All controllers, or those under one name."""
    groups = engine.nvme.groups
    if "name" in p and p["name"] not in groups:
        raise RpcFault(-errno.EINVAL, f"Controller {p['name']} does not exist")
    chosen = [groups[p["name"]]] if "name" in p else list(groups.values())
    return [{"name": group.name, "ctrlrs": [controller_json(each) for each in group.controllers]} for group in chosen]


@method(
    "bdev_nvme_get_io_paths",
    RUNTIME,
    Param("name", "string"),
    decode_error=(INVALID_PARAMS, "bdev_nvme_get_io_paths requires no parameters"),
)
async def bdev_nvme_get_io_paths(engine: Engine, p: Params) -> object:
    """The paths of every bdev, or of one.  SPDK shows one group per thread; this engine is one thread."""
    bdevs = [bdev for bdev in engine.nvme.bdevs() if p.get("name", bdev.name) == bdev.name]
    if not any(True for _ in engine.nvme.bdevs()):
        return {"poll_groups": []}
    paths = [path for bdev in bdevs for path in io_paths_json(bdev.name, bdev.namespace)]
    return {"poll_groups": [{"thread": "app_thread", "io_paths": paths}]}


@method(
    "bdev_nvme_get_controller_health_info",
    RUNTIME,
    Param("name", "string", required=True),
    decode_error=(INTERNAL_ERROR, "Invalid parameters"),
    needs_params=False,
)
async def bdev_nvme_get_controller_health_info(engine: Engine, p: Params) -> object:
    """The SMART log of the first controller under the name."""
    if "name" not in p:
        raise RpcFault(INTERNAL_ERROR, "Missing device name")
    controller = engine.nvme.controller(p["name"])
    if controller is None:
        raise RpcFault(INTERNAL_ERROR, "Device not found")
    try:
        association = controller.require()
        (await association.admin(get_features(Feature.TEMPERATURE_THRESHOLD))).check()
        raw = await association.log(LogId.SMART, SmartLog.SIZE, nsid=0xFFFFFFFF)
    except (TransportLost, NvmeError):
        raise RpcFault(INTERNAL_ERROR, "Internal error.") from None
    return health_json(controller.identity, controller.address.traddr, SmartLog.parse(raw), raw)


# -- raw commands


@method(
    "bdev_nvme_send_cmd",
    RUNTIME,
    Param("name", "string", required=True),
    Param("cmd_type", "enum", required=True, values=("admin", "io")),
    Param("data_direction", "enum", required=True, values=("h2c", "c2h")),
    Param("cmdbuf", "string", required=True),
    *(Param(name, "string") for name in ("data", "metadata")),
    *(Param(name, "uint32") for name in ("data_len", "metadata_len", "timeout_ms")),
    decode_error=_INVALID,
)
async def bdev_nvme_send_cmd(engine: Engine, p: Params) -> object:
    """Send one command as it stands and return its completion, whatever the status.

    ``timeout_ms`` is taken and ignored, as in SPDK: callers keep a deadline of their own.  So is metadata: over
    fabrics there is none apart from the data, and a command that fetches some is answered with what was given.
    """
    command = Command.parse(_decode(p["cmdbuf"], SQE_SIZE))
    if p.get("metadata_len") == 0:
        raise RpcFault(*_INVALID)  # SPDK has no memory of this length to give
    data, metadata = _payload(p, "data", "data_len"), _payload(p, "metadata", "metadata_len")
    controller = engine.nvme.controller(p["name"])
    if controller is None:
        raise RpcFault(*_INVALID)
    # Identifier, data pointer and PSDT belong to the transport, whatever the caller wrote there.
    command = command._replace(flags=Command(0).flags | command.fuse, mptr=0, address=0, length=0, sgl_type=0)
    reply = await _send(controller, command, data, admin=p["cmd_type"] == "admin")
    answer = {"cpl": _encode(reply.completion.pack())}
    if p["data_direction"] == "c2h":
        if data:
            answer["data"] = _encode(bytes(reply.data) + data[len(reply.data) :])
        if metadata:
            answer["metadata"] = _encode(metadata)
    return answer


async def _send(controller: Controller, command: Command, data: bytes, *, admin: bool) -> Reply:
    """The opcode says which way the data goes, not the caller's direction: that is about the answer (as in SPDK)."""
    if not controller.live:
        raise RpcFault(INTERNAL_ERROR, os.strerror(errno.ENXIO))
    association = controller.require()
    if len(data) > (association.admin_transfer if admin else association.max_transfer):
        raise RpcFault(INTERNAL_ERROR, os.strerror(errno.EINVAL))
    way = (command.fctype if command.opcode == AdminOp.FABRICS else command.opcode) & _BOTH_WAYS
    out = data if way == _FROM_HOST else b""
    size = len(data) if way == _TO_HOST else 0
    if data and not out:
        command = command.with_data(len(data), in_capsule=False)
    try:
        if admin:
            return await association.admin(command, out, read_size=size, patient=True)
        return await association.io(command, out, read_size=size)
    except TransportLost as lost:
        # What SPDK's driver completes commands with whose queue went away.
        asked = isinstance(lost, TransportReset)
        return Reply(Completion(status=status_field(Status.ABORTED_SQ_DELETION, dnr=asked)))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def _decode(text: str, size: int | None = None) -> bytes:
    """Base64url as SPDK decodes it: with padding, nothing else."""
    if not {"+", "/"}.isdisjoint(text):
        raise RpcFault(*_INVALID)  # the other alphabet, which Python takes as well
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RpcFault(*_INVALID) from None
    if not text or (size is not None and len(raw) != size):
        raise RpcFault(*_INVALID)
    return raw


def _payload(p: Params, content: str, length: str) -> bytes:
    """The bytes given, or as many zeroes as are asked for.

    When both are given they have to agree, in SPDK's way: a length that comes first is compared with that of the
    text without regard to padding, one that follows with the true one.
    """
    if content not in p:
        return bytes(p.get(length, 0))
    raw = _decode(p[content])
    given = p.get(length)
    names = list(p)
    if given is not None and names.index(content) < names.index(length):
        wrong = given != len(raw)
    else:
        wrong = bool(given) and given != len(p[content]) // 4 * 3
    if wrong:
        raise RpcFault(*_INVALID)
    return raw
