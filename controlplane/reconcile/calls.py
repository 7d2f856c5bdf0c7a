"""How a step becomes engine calls.  Pure: a step in, calls out; running them is ``apply``'s business.

Reading and writing of drive blocks goes through raw NVMe commands (``bdev_nvme_send_cmd``), since the engine
has no other way to write a slice that no namespace exports.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from controlplane.domain.errors import Ws7000Error
from controlplane.domain.image import DriveImage, ListenerKey, drive_bdev, slice_bdev
from controlplane.planner import labels
from controlplane.planner import steps as s
from dataplane.nvme import commands
from dataplane.rpc.call import Call
from dataplane.rpc.methods import bdev, keyring, nvme, nvmf, raid
from dataplane.rpc.values import ListenAddress

RECONNECT_DELAY_S: Final = 1
NEVER_GIVE_UP: Final = -1
HIDDEN_COMMANDS: Final = ("reservs", "nvmcmps")
"""Never offered to hosts.  Reservations are kept per process, so two nodes would disagree.  A Compare that does not
match is repeated like any other error of a drive (SPDK v26.05, module/bdev/nvme/bdev_nvme.c), with
``bdev_retry_count`` -1 for ever: the host would never get its answer."""
HIDDEN_FUSED: Final = ("fcws",)
"""Compare and Write, for the same reason."""
MAX_IO_BYTES: Final = 1 << 20
MAX_READ_BYTES: Final = 128 * 1024
"""Of one raw command: what SPDK's targets take (max_io_size), and MDTS of nearly every drive."""
_MAX_NLB: Final = 65536
"""NLB is 16 bits, 0-based (NVM command set 1.0, Write Zeroes)."""


def address(key: ListenerKey) -> ListenAddress:
    """The engine's spelling of a listener."""
    return ListenAddress.of(key.transport, key.address, key.service)


def calls_for(step: s.Step) -> list[Call[Any]]:
    """The calls of one step, none of which depends on another."""
    match step:
        case s.SetAna():
            return [nvmf.set_ana_state(step.nqn, address(step.listener), step.state.value, ana_group=step.group)]
        case s.Drain():
            # Setting the group it already has pauses the namespace until its I/O has ended (SPDK v26.05,
            # nvmf_rpc.c); changing ANA alone does not wait.
            return [nvmf.set_ns_ana_group(step.nqn, nsid, group) for nsid, group in step.namespaces]
        case s.NamespaceAccess():
            change = nvmf.ns_add_host if step.visible else nvmf.ns_remove_host
            return [change(step.nqn, step.nsid, step.host_nqn)]
        case s.AddNamespace():
            ns = step.namespace
            return [
                nvmf.add_ns(
                    step.nqn,
                    bdev_name=ns.bdev,
                    nsid=ns.nsid,
                    nguid=ns.nguid,
                    uuid=ns.uuid,
                    ana_group=ns.group,
                    auto_visible=False,
                )
            ]
        case s.RemoveNamespace():
            return [nvmf.remove_ns(step.nqn, step.nsid)]
        case s.ChangeListener():
            where = address(step.listener)
            if step.present:
                return [nvmf.add_listener(step.nqn, where, ana_state="inaccessible")]
            return [nvmf.remove_listener(step.nqn, where)]
        case s.ChangeHost():
            if step.present:
                return [nvmf.add_host(step.nqn, step.host_nqn, dhchap_key=step.key or None)]
            return [nvmf.remove_host(step.nqn, step.host_nqn)]
        case s.ChangeKey():
            return [keyring.file_add_key(step.key, step.path) if step.present else keyring.file_remove_key(step.key)]
        case s.CreateSubsystem(subsystem=sub):
            return [
                nvmf.create_subsystem(
                    sub.nqn,
                    serial_number=sub.serial,
                    model_number=sub.model,
                    max_namespaces=sub.max_namespaces,
                    min_cntlid=sub.min_cntlid,
                    max_cntlid=sub.max_cntlid,
                    ana_reporting=True,
                    allow_any_host=False,
                )
            ]
        case s.DeleteSubsystem():
            return [nvmf.delete_subsystem(step.nqn)]
        case s.CreateTransport():
            return [
                nvmf.create_transport(step.transport.upper(), masked_oncs=HIDDEN_COMMANDS, masked_fuses=HIDDEN_FUSED)
            ]
        case _:
            return _bdev_calls(step)


def _bdev_calls(step: s.Step) -> list[Call[Any]]:
    match step:
        case s.CreateRaid(raid=image):
            return [
                raid.create(
                    image.name,
                    level=image.level,
                    base_bdevs=image.members,
                    strip_size_bytes=image.strip_bytes or None,
                    uuid=image.uuid,
                )
            ]
        case s.DeleteRaid():
            return [raid.delete(step.raid.name)]
        case s.ChangeSplit():
            base = drive_bdev(step.split.drive)
            if step.present:
                return [bdev.split_create(base, count=step.split.count, size_bytes=step.split.slice_bytes)]
            return [bdev.split_delete(base)]
        case s.SetDriveOptions():
            return [drive_options()]
        case s.AttachDrive():
            return [attach(step.drive)]
        case s.DetachDrive():
            return [nvme.detach_controller(step.drive)]
        case s.SetQos(qos=qos):
            return [
                bdev.set_qos_limit(
                    step.bdev,
                    rw_ios_per_s=qos.rw_iops or 0,
                    rw_bytes_per_s=qos.rw_bytes_per_s or 0,
                    r_bytes_per_s=qos.read_bytes_per_s or 0,
                    w_bytes_per_s=qos.write_bytes_per_s or 0,
                )
            ]
        case _:
            raise AssertionError(f"{type(step).__name__} has no plain calls")


def drive_options() -> Call[None]:
    """What holds for every drive; refused by the engine once one is attached."""
    return nvme.set_options(
        enable_flush=True,
        bdev_retry_count=NEVER_GIVE_UP,
        ctrlr_loss_timeout_s=NEVER_GIVE_UP,
        reconnect_delay_s=RECONNECT_DELAY_S,
    )


def attach(drive: DriveImage) -> Call[tuple[str, ...]]:
    """Attach a drive by its source text, never to give up on it."""
    if drive.source.startswith("pcie:"):
        return nvme.attach_controller_pcie(drive.name, bdf=drive.source.removeprefix("pcie:"), multipath="disable")
    where, _, subnqn = drive.source.partition("://")[2].partition("/")
    host, _, port = where.rpartition(":")
    transport = drive.source.partition("://")[0]
    connect = nvme.attach_controller_tcp if transport == "tcp" else nvme.attach_controller_rdma
    return connect(
        drive.name,
        address=host.strip("[]"),
        port=int(port),
        subnqn=subnqn,
        multipath="disable",
        ctrlr_loss_timeout_s=NEVER_GIVE_UP,
        reconnect_delay_s=RECONNECT_DELAY_S,
    )


def read_start(drive: str, block_bytes: int, size_bytes: int) -> Call[Any]:
    """Read the first ``size_bytes`` of a drive, at least a block."""
    blocks = max(1, size_bytes // block_bytes)
    sqe = commands.read(1, 0, blocks, block_bytes).pack()
    return nvme.send_cmd(drive, kind="io", sqe=sqe, data_len_bytes=blocks * block_bytes)


def read_range(drive: str, block_bytes: int, offset_bytes: int, length_bytes: int) -> Iterator[Call[Any]]:
    """Reads of a range, each no larger than every drive takes; both ends on whole blocks."""
    for at in range(offset_bytes, offset_bytes + length_bytes, MAX_READ_BYTES):
        size_bytes = min(MAX_READ_BYTES, offset_bytes + length_bytes - at)
        sqe = commands.read(1, at // block_bytes, size_bytes // block_bytes, block_bytes).pack()
        yield nvme.send_cmd(drive, kind="io", sqe=sqe, data_len_bytes=size_bytes)


def write_label(drive: str, block_bytes: int, label: labels.Label) -> Call[Any]:
    """Write the label block; a flush has to follow."""
    blocks = max(1, labels.LABEL_BYTES // block_bytes)
    sqe = commands.write(1, 0, blocks, block_bytes, fua=True).pack()
    return nvme.send_cmd(drive, kind="io", sqe=sqe, data=labels.encode(label).ljust(blocks * block_bytes, b"\0"))


def flush(drive: str) -> Call[Any]:
    """Flush the drive's volatile cache."""
    return nvme.send_cmd(drive, kind="io", sqe=commands.flush(1).pack())


def write_zeroes(drive: str, block_bytes: int, offset_bytes: int, length_bytes: int) -> Iterator[Call[Any]]:
    """Write Zeroes commands over a range; as few as NLB allows."""
    lba, left = offset_bytes // block_bytes, length_bytes // block_bytes
    while left:
        blocks = min(left, _MAX_NLB)
        sqe = commands.write_zeroes(1, lba, blocks).pack()
        yield nvme.send_cmd(drive, kind="io", sqe=sqe)
        lba += blocks
        left -= blocks


def check_completions(what: str, drives: Iterable[str], replies: Iterable[Any]) -> None:
    """Raise for the first raw command that the engine refused or the drive failed."""
    for drive, reply in zip(drives, replies, strict=True):
        if isinstance(reply, Ws7000Error):
            raise reply
        if not reply.ok:
            raise Ws7000Error(
                "PLAN-020",
                f"drive {drive} failed to {what}",
                why=f"it answered status SCT {reply.sct:X}h SC {reply.sc:02X}h",
                remedy="look at the drive's health; the next apply tries again",
            )


__all__ = [
    "attach",
    "calls_for",
    "check_completions",
    "drive_options",
    "flush",
    "read_range",
    "read_start",
    "slice_bdev",
    "write_label",
    "write_zeroes",
]
