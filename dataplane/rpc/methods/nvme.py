"""NVMe devices as drives: options, attaching, raw commands.

The default of ``multipath`` differs between SPDK's documentation and its code (module/bdev/nvme/
bdev_nvme_rpc.c), so attaching always says it.  Raw commands: see ``send_cmd``.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import (
    ListenAddress,
    NvmeCompletion,
    NvmeControllerInfo,
    NvmeNamespaceInfo,
    NvmePath,
    TransportId,
)

SQE_BYTES = 64


def set_options(
    *,
    enable_flush: bool | None = None,
    bdev_retry_count: int | None = None,
    transport_retry_count: int | None = None,
    ctrlr_loss_timeout_s: int | None = None,
    reconnect_delay_s: int | None = None,
    fast_io_fail_timeout_s: int | None = None,
    timeout_us: int | None = None,
    timeout_admin_us: int | None = None,
    action_on_timeout: str | None = None,
    keep_alive_timeout_ms: int | None = None,
    tcp_connect_timeout_ms: int | None = None,
) -> Call[None]:
    """Options of all NVMe devices; refused as soon as one is attached.

    ``enable_flush`` is off by default: a host's flush would then not reach a drive's volatile cache.
    ``bdev_retry_count`` -1 and ``ctrlr_loss_timeout_s`` -1 retry for ever, so that a lost leg stalls instead of
    dropping; the latter needs a ``reconnect_delay_s`` above 0.  ``action_on_timeout``: none, reset, abort.
    """
    return Call(
        "bdev_nvme_set_options",
        {
            "enable_flush": enable_flush,
            "bdev_retry_count": bdev_retry_count,
            "transport_retry_count": transport_retry_count,
            "ctrlr_loss_timeout_sec": ctrlr_loss_timeout_s,
            "reconnect_delay_sec": reconnect_delay_s,
            "fast_io_fail_timeout_sec": fast_io_fail_timeout_s,
            "timeout_us": timeout_us,
            "timeout_admin_us": timeout_admin_us,
            "action_on_timeout": action_on_timeout,
            "keep_alive_timeout_ms": keep_alive_timeout_ms,
            "tcp_connect_timeout_ms": tcp_connect_timeout_ms,
        },
        parse=reply.done,
    )


def attach_controller_tcp(
    name: str,
    *,
    address: str,
    port: int | str,
    subnqn: str,
    hostnqn: str | None = None,
    host_address: str | None = None,
    multipath: str = "disable",
    ctrlr_loss_timeout_s: int | None = None,
    reconnect_delay_s: int | None = None,
    fast_io_fail_timeout_s: int | None = None,
    io_queues: int | None = None,
    header_digest: bool | None = None,
    data_digest: bool | None = None,
    psk: str | None = None,
    dhchap_key: str | None = None,
    dhchap_ctrlr_key: str | None = None,
) -> Call[tuple[str, ...]]:
    """Connect to an NVMe/TCP subsystem; the names of its namespaces' devices, ``<name>n<nsid>``.  Keys are
    names of the keyring."""
    return _attach(
        name,
        "TCP",
        {
            **_fabric(address, port, subnqn, hostnqn, host_address),
            **_behaviour(multipath, ctrlr_loss_timeout_s, reconnect_delay_s, fast_io_fail_timeout_s, io_queues),
            "hdgst": header_digest,
            "ddgst": data_digest,
            "psk": psk,
            "dhchap_key": dhchap_key,
            "dhchap_ctrlr_key": dhchap_ctrlr_key,
        },
    )


def attach_controller_rdma(
    name: str,
    *,
    address: str,
    port: int | str,
    subnqn: str,
    hostnqn: str | None = None,
    host_address: str | None = None,
    multipath: str = "disable",
    ctrlr_loss_timeout_s: int | None = None,
    reconnect_delay_s: int | None = None,
    fast_io_fail_timeout_s: int | None = None,
    io_queues: int | None = None,
    dhchap_key: str | None = None,
    dhchap_ctrlr_key: str | None = None,
) -> Call[tuple[str, ...]]:
    """Connect to an NVMe/RDMA subsystem; as for TCP."""
    return _attach(
        name,
        "RDMA",
        {
            **_fabric(address, port, subnqn, hostnqn, host_address),
            **_behaviour(multipath, ctrlr_loss_timeout_s, reconnect_delay_s, fast_io_fail_timeout_s, io_queues),
            "dhchap_key": dhchap_key,
            "dhchap_ctrlr_key": dhchap_ctrlr_key,
        },
    )


def attach_controller_pcie(
    name: str,
    *,
    bdf: str,
    multipath: str = "disable",
    ctrlr_loss_timeout_s: int | None = None,
    reconnect_delay_s: int | None = None,
    fast_io_fail_timeout_s: int | None = None,
    io_queues: int | None = None,
) -> Call[tuple[str, ...]]:
    """Attach the PCIe drive at ``bdf`` (``0000:5e:00.0``), which a user-space driver must hold."""
    return _attach(
        name,
        "PCIe",
        {
            "traddr": bdf,
            **_behaviour(multipath, ctrlr_loss_timeout_s, reconnect_delay_s, fast_io_fail_timeout_s, io_queues),
        },
    )


def _fabric(
    address: str, port: int | str, subnqn: str, hostnqn: str | None, host_address: str | None
) -> dict[str, Any]:
    where = ListenAddress.of("", address, port)
    return {
        "adrfam": where.adrfam,
        "traddr": where.traddr,
        "trsvcid": where.trsvcid,
        "subnqn": subnqn,
        "hostnqn": hostnqn,
        "hostaddr": host_address,
    }


def _behaviour(
    multipath: str, loss_s: int | None, delay_s: int | None, fast_fail_s: int | None, io_queues: int | None
) -> dict[str, Any]:
    return {
        "multipath": multipath,
        "ctrlr_loss_timeout_sec": loss_s,
        "reconnect_delay_sec": delay_s,
        "fast_io_fail_timeout_sec": fast_fail_s,
        "num_io_queues": io_queues,
    }


def _attach(name: str, trtype: str, rest: dict[str, Any]) -> Call[tuple[str, ...]]:
    return Call(
        "bdev_nvme_attach_controller",
        {"name": name, "trtype": trtype, **rest},
        parse=lambda raw: reply.strings(raw, "bdev_nvme_attach_controller"),
    )


def detach_controller(name: str) -> Call[None]:
    """Take the device and everything on it away, all its paths; ENODEV when there is none."""
    return Call("bdev_nvme_detach_controller", {"name": name}, parse=reply.done)


def get_controllers(name: str | None = None) -> Call[tuple[NvmeControllerInfo, ...]]:
    """The attached devices, or the one of that name (EINVAL when there is none)."""
    return Call(
        "bdev_nvme_get_controllers",
        {"name": name},
        parse=lambda raw: reply.objects(raw, "bdev_nvme_get_controllers", _controller),
    )


def _controller(entry: Fields) -> NvmeControllerInfo:
    return NvmeControllerInfo(name=entry.text("name"), paths=entry.each("ctrlrs", _path))


def _path(entry: Fields) -> NvmePath:
    host = entry.inner("host")
    return NvmePath(
        state=entry.text("state"),
        transport=_transport(entry.inner("trid")),
        alternates=entry.each("alternate_trids", _transport, []),
        cntlid=entry.number("cntlid"),
        host_nqn=host.text("nqn", ""),
        host_address=host.text("addr", ""),
        numa_id=entry.maybe_number("numa_id"),
    )


def _transport(entry: Fields) -> TransportId:
    return TransportId(
        trtype=entry.text("trtype"),
        traddr=entry.text("traddr", ""),
        adrfam=entry.text("adrfam", ""),
        trsvcid=entry.text("trsvcid", ""),
        subnqn=entry.text("subnqn", ""),
    )


def namespace(entry: Fields) -> NvmeNamespaceInfo:
    """One element of a bdev's ``driver_specific.nvme``."""
    drive, space = entry.inner("ctrlr_data"), entry.inner("ns_data")
    return NvmeNamespaceInfo(
        transport=_transport(entry.inner("trid")),
        nsid=space.number("id"),
        cntlid=drive.number("cntlid"),
        serial_number=drive.text("serial_number", ""),
        model_number=drive.text("model_number", ""),
        firmware_revision=drive.text("firmware_revision", ""),
        subnqn=drive.text("subnqn", ""),
        ana_state=space.text("ana_state", ""),
        can_share=space.flag("can_share", default=False),
    )


def send_cmd(
    name: str,
    *,
    kind: str,
    sqe: bytes,
    data: bytes | None = None,
    data_len_bytes: int | None = None,
) -> Call[NvmeCompletion]:
    """Send a raw command of ``kind`` admin or io to the drive ``name`` (module/bdev/nvme/nvme_rpc.c).

    ``sqe`` is the 64-byte submission queue entry; the engine fills in the command id and the data pointer, the
    namespace id must be set.  Give ``data`` for a command that sends data, ``data_len_bytes`` for one that
    fetches some, neither for one without data; never both, for the engine compares them wrongly.  With
    multipath only the first path is used.  The engine ignores a time limit here, so the session's deadline is
    the only one.
    """
    if len(sqe) != SQE_BYTES:
        raise ValueError(f"a submission queue entry has {SQE_BYTES} bytes, not {len(sqe)}")
    if data is not None and data_len_bytes is not None:
        raise ValueError("a command either sends data or fetches some")
    return Call(
        "bdev_nvme_send_cmd",
        {
            "name": name,
            "cmd_type": kind,
            "data_direction": "h2c" if data_len_bytes is None else "c2h",
            "cmdbuf": _encode(sqe),
            "data": None if data is None else _encode(data),
            "data_len": data_len_bytes,
        },
        parse=_completion,
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii")


def _completion(raw: Json) -> NvmeCompletion:
    """NVMe base 2.0, figure 89: DW0 is the result, the status is in the upper half of DW3, its bit 0 the phase."""
    top = Fields(raw, "bdev_nvme_send_cmd")
    entry, data = _decode(top, "cpl"), _decode(top, "data")
    if len(entry) != 16:
        raise ReplyError("bdev_nvme_send_cmd.cpl", f"has {len(entry)} bytes, not 16")
    cdw0, status = struct.unpack_from("<I10xH", entry)
    return NvmeCompletion(
        cdw0=cdw0,
        sc=status >> 1 & 0xFF,
        sct=status >> 9 & 0x7,
        more=bool(status >> 14 & 1),
        dnr=bool(status >> 15 & 1),
        data=data,
    )


def _decode(top: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(top.text(name, ""), altchars=b"-_", validate=True)
    except binascii.Error as problem:
        raise ReplyError(f"{top.path}.{name}", "is not base64") from problem
