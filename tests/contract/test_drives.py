"""NVMe drives: a shelf exports them, a node attaches them and sends them raw commands, as the control plane does."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from dataplane.nvme import commands
from dataplane.nvme.commands import Cns
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev, framework, nvme, raid
from dataplane.rpc.values import NvmeCompletion

DRIVE = "nqn.2026-01.io.ws7000:contract:drive"
EIO, EALREADY, EPERM = -5, -114, -1
BLOCK = 512


@pytest.fixture
def drive(engine: Any, other: Any) -> Any:
    """``engine`` with drive d0 of 8 MiB attached, served by ``other``."""
    other.malloc("m0", 8)
    port = other.serve(DRIVE, "m0")
    assert attach(engine, port) == ("d0n1",)
    return engine


def attach(engine: Any, port: int, **more: Any) -> Any:
    return engine.run(
        nvme.attach_controller_tcp(
            "d0", address="127.0.0.1", port=port, subnqn=DRIVE, ctrlr_loss_timeout_s=-1, reconnect_delay_s=1, **more
        )
    )


def send(engine: Any, command: Any, **data: Any) -> NvmeCompletion:
    completion: NvmeCompletion = engine.run(nvme.send_cmd("d0", kind="io", sqe=command.pack(), **data))
    return completion


def options(engine: Any) -> dict[str, Any]:
    """The options of drives as the engine would save them."""
    entries = engine.run(framework.get_config("bdev"))
    return dict(next(entry.params for entry in entries if entry.method == "bdev_nvme_set_options"))


def test_options_that_keep_promises_are_shown_in_the_configuration(engine: Any) -> None:
    """The control plane reads here whether a host's flush and a lost drive are treated as it promises."""
    assert (options(engine)["enable_flush"], options(engine)["bdev_retry_count"]) == (True, -1), "as launched"
    engine.run(nvme.set_options(enable_flush=False, bdev_retry_count=3, ctrlr_loss_timeout_s=5, reconnect_delay_s=2))
    changed = options(engine)
    assert (changed["enable_flush"], changed["bdev_retry_count"], changed["ctrlr_loss_timeout_sec"]) == (False, 3, 5)
    engine.run(nvme.set_options(enable_flush=True, bdev_retry_count=-1, ctrlr_loss_timeout_s=-1, reconnect_delay_s=1))
    assert (options(engine)["enable_flush"], options(engine)["bdev_retry_count"]) == (True, -1)


def test_an_attached_drive_tells_who_it_is(drive: Any, other: Any) -> None:
    (info,) = drive.run(nvme.get_controllers())
    assert info.name == "d0"
    (path,) = info.paths
    assert (path.state, path.transport.trtype, path.transport.subnqn) == ("enabled", "TCP", DRIVE)
    assert drive.run(nvme.get_controllers("d0")) == (info,)
    device = drive.run(bdev.get_bdev("d0n1"))
    assert (device.size_bytes, device.uuid) == (8 << 20, "00000000-0000-0000-0000-000000000001")
    assert (device.nvme[0].serial_number, device.nvme[0].nsid, device.nvme[0].subnqn) == ("SN1", 1, DRIVE)
    assert device.nvme[0].model_number == "WS7000"


def test_options_cannot_change_while_a_drive_is_attached(drive: Any) -> None:
    assert drive.refused(nvme.set_options(enable_flush=True)).number == EPERM


def test_detaching_takes_everything_on_the_drive_along(drive: Any) -> None:
    drive.run(bdev.split_create("d0n1", count=2, size_bytes=2 << 20))
    drive.run(raid.create("v", level="raid1", base_bdevs=["d0n1p0", "d0n1p1"]))
    drive.run(nvme.detach_controller("d0"))
    assert drive.run(nvme.get_controllers()) == ()
    assert not {"d0n1", "d0n1p0", "v"} & {info.name for info in drive.run(bdev.get_bdevs())}
    assert drive.refused(nvme.detach_controller("d0")).no_such_device


def test_a_second_attach_of_a_name_is_refused(drive: Any, free_port: Any) -> None:
    call = nvme.attach_controller_tcp("d0", address="127.0.0.1", port=free_port(), subnqn=DRIVE, multipath="disable")
    assert drive.refused(call).number == EALREADY


def test_attaching_a_subsystem_that_is_not_there_fails(engine: Any, other: Any) -> None:
    other.malloc("m0")
    port = other.serve(DRIVE, "m0")
    call = nvme.attach_controller_tcp("d0", address="127.0.0.1", port=port, subnqn=DRIVE + "x", multipath="disable")
    assert engine.refused(call).number == EIO
    assert engine.run(nvme.get_controllers()) == ()


def test_raw_writes_are_read_back(drive: Any) -> None:
    data = hashlib.shake_256(b"label").digest(8 * BLOCK)
    assert send(drive, commands.write(1, 16, 8, BLOCK, fua=True), data=data).ok
    assert send(drive, commands.flush(1)).ok
    read = send(drive, commands.read(1, 16, 8, BLOCK), data_len_bytes=8 * BLOCK)
    assert (read.ok, read.data) == (True, data)
    assert send(drive, commands.write_zeroes(1, 18, 2)).ok
    read = send(drive, commands.read(1, 16, 8, BLOCK), data_len_bytes=8 * BLOCK)
    assert read.data == data[: 2 * BLOCK] + bytes(2 * BLOCK) + data[4 * BLOCK :]


def test_a_raw_admin_command(drive: Any) -> None:
    call = nvme.send_cmd("d0", kind="admin", sqe=commands.identify(Cns.CONTROLLER).pack(), data_len_bytes=4096)
    reply = drive.run(call)
    assert reply.ok
    assert (len(reply.data), reply.data[4:24].decode().strip()) == (4096, "SN1")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (commands.read(1, 1 << 20, 1, BLOCK), Status.LBA_OUT_OF_RANGE),
        (commands.read(9, 0, 1, BLOCK), Status.INVALID_NAMESPACE),
        (commands.Command(0x7E, nsid=1), Status.INVALID_OPCODE),
    ],
    ids=["out of range", "no namespace", "no command"],
)
def test_an_nvme_error_is_no_rpc_error(drive: Any, command: Any, status: Status) -> None:
    """The call succeeds; what the drive said stands in the completion."""
    reply = send(drive, command, data_len_bytes=BLOCK)
    assert (reply.ok, reply.status) == (False, status)


def test_write_zeroes_of_the_whole_range_in_one_command(drive: Any) -> None:
    assert send(drive, commands.write(1, 0, 1, BLOCK), data=b"x" * BLOCK).ok
    assert send(drive, commands.write_zeroes(1, 0, 8192)).ok
    assert send(drive, commands.read(1, 0, 1, BLOCK), data_len_bytes=BLOCK).data == bytes(BLOCK)


def test_the_same_drive_on_two_nodes_has_one_identity(engine: Any, other: Any) -> None:
    """Splits and sets on it then have the same names and UUIDs on both."""
    other.malloc("m0", 8)
    port = other.serve(DRIVE, "m0")
    seen = []
    for _ in range(2):
        attach(engine, port)
        engine.run(bdev.split_create("d0n1", count=2, size_bytes=2 << 20))
        seen.append([engine.run(bdev.get_bdev(name)).uuid for name in ("d0n1", "d0n1p0", "d0n1p1")])
        engine.run(bdev.split_delete("d0n1"))
        engine.run(nvme.detach_controller("d0"))
    assert seen[0] == seen[1]
