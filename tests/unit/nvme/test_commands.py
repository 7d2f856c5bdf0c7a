"""Submission and completion queue entries, byte by byte."""

from __future__ import annotations

import pytest

from dataplane.nvme import commands, fabrics, reservations
from dataplane.nvme.commands import Command, Completion, Feature, LogId, status_field
from dataplane.nvme.status import NvmeError, Status


def test_a_read_as_the_specification_lays_it_out() -> None:
    raw = commands.read(7, 0x1_2345_6789, 8, 512).with_cid(0xBEEF).pack()
    assert len(raw) == 64
    assert raw[0:4] == bytes([0x02, 0x40, 0xEF, 0xBE])
    assert raw[4:8] == (7).to_bytes(4, "little")
    assert raw[24:40] == bytes(8) + (4096).to_bytes(4, "little") + bytes(3) + b"\x5a"
    assert raw[40:48] == (0x1_2345_6789).to_bytes(8, "little")
    assert raw[48:52] == (7).to_bytes(4, "little")


def test_fua_and_deallocate_stand_in_dword_12() -> None:
    assert commands.write(1, 0, 1, 512, fua=True).cdw12 == 1 << 30
    assert commands.write_zeroes(1, 0, 256, deallocate=True).cdw12 == 255 | 1 << 25


def test_in_capsule_data_has_a_data_block_descriptor() -> None:
    command = commands.write(1, 0, 1, 512).with_data(512, in_capsule=True)
    assert command.pack()[32:40] == (512).to_bytes(4, "little") + b"\0\0\0\x01"


def test_ranges_of_dataset_management() -> None:
    command, data = commands.deallocate(3, [(8, 16), (1 << 40, 1)])
    assert (command.cdw10, command.cdw11, command.length, len(data)) == (1, 4, 32, 32)
    assert commands.parse_ranges(data, 2) == [(8, 16), (1 << 40, 1)]


def test_copy_and_fused_commands_as_the_specification_lays_them_out() -> None:
    command, data = commands.copy(3, 1 << 33, [(1 << 40, 65536), (7, 1)], fua=True)
    assert (command.slba, command.cdw12, command.length, len(data)) == (1 << 33, 1 << 30 | 1, 64, 64)
    assert data[8:18] == (1 << 40).to_bytes(8, "little") + b"\xff\xff"
    assert (commands.parse_source(data), commands.parse_source(data[32:])) == ((1 << 40, 65536), (7, 1))
    halves = commands.fused(commands.compare(1, 9, 2, 512), commands.write(1, 9, 2, 512))
    assert [(half.fuse, half.psdt, half.slba, half.length) for half in halves] == [(1, 1, 9, 1024), (2, 1, 9, 1024)]
    assert [half.pack()[0:2] for half in halves] == [b"\x05\x41", b"\x01\x42"]


def test_a_log_page_longer_than_64_ki_dwords() -> None:
    command = commands.get_log_page(LogId.ANA, 1 << 20, offset=1 << 33, specific=1, retain_event=True)
    assert command.cdw10 == 0x0C | 1 << 8 | 1 << 15 | 0xFFFF << 16
    assert (command.cdw11, command.cdw12, command.cdw13) == (3, 0, 2)


def test_set_features_with_and_without_data() -> None:
    assert commands.set_features(Feature.VOLATILE_WRITE_CACHE, 1).length == 0
    assert commands.set_features(Feature.HOST_BEHAVIOR, size=512).sgl_type == commands.SGL_IN_CAPSULE


def test_a_completion_gives_its_status() -> None:
    raw = Completion(1, 2, 3, 0, 5, status_field(Status.ANA_INACCESSIBLE, dnr=True)).pack()
    completion = Completion.parse(raw)
    assert (len(raw), completion.code, completion.dnr) == (16, 0x302, True)
    assert str(NvmeError(completion.code)) == "Ana Inaccessible (SCT 3h SC 02h)"


def test_connect_as_the_specification_lays_it_out() -> None:
    raw = fabrics.connect(3, 128, 15000, disable_flow_control=True).pack()
    assert (raw[0], raw[4]) == (0x7F, 0x01)
    assert raw[40:52] == bytes([0, 0, 3, 0, 127, 0, 4, 0]) + (15000).to_bytes(4, "little")
    wanted = fabrics.ConnectCommand.of(Command.parse(raw))
    assert wanted == fabrics.ConnectCommand(0, 3, 127, 4, 15000)
    data = fabrics.ConnectData(bytes(range(16)), 9, "nqn.sub", "nqn.host").pack()
    assert (len(data), data[16:18], data[256:264], data[512:521]) == (
        1024, b"\x09\0", b"nqn.sub\0", b"nqn.host\0",
    )  # fmt: skip


def test_properties() -> None:
    command = fabrics.property_set(fabrics.Property.CC, 0x460001)
    assert (command.fctype, command.cdw10, command.cdw11, command.cdw12) == (0, 0, 0x14, 0x460001)
    cc = fabrics.Configuration.parse(0x460001)
    assert (cc.enable, cc.sqes, cc.cqes, cc.pack()) == (True, 6, 4, 0x460001)
    assert fabrics.property_value(1, 2) == 1 | 2 << 32


@pytest.mark.parametrize(
    ("built", "opcode", "cdw10", "data"),
    [
        (reservations.register(1, 0, 0xAB), 0x0D, 0, "0000000000000000ab00000000000000"),
        (
            reservations.register(
                1, 0xAB, 0, reservations.RegisterAction.UNREGISTER, ignore_existing=True,
                persist=reservations.PersistThroughPowerLoss.ON,
            ),
            0x0D, 1 | 1 << 3 | 3 << 30, "ab000000000000000000000000000000",
        ),
        (
            reservations.acquire(
                1, 0xAB, reservations.ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
                reservations.AcquireAction.PREEMPT_AND_ABORT, preempt_key=0xCD,
            ),
            0x11, 2 | 6 << 8, "ab00000000000000cd00000000000000",
        ),
        (
            reservations.release(
                1, 0xAB, reservations.ReservationType.WRITE_EXCLUSIVE, reservations.ReleaseAction.CLEAR
            ),
            0x15, 1 | 1 << 8, "ab00000000000000",
        ),
    ],
)  # fmt: skip
def test_reservation_commands(built: tuple[Command, bytes], opcode: int, cdw10: int, data: str) -> None:
    command, raw = built
    assert (command.opcode, command.cdw10, raw.hex(), command.length) == (opcode, cdw10, data, len(raw))


def test_a_report_is_cut_where_the_buffer_ends() -> None:
    rows = tuple(reservations.Registrant(n, n == 1, bytes([n]) * 16, n) for n in (1, 2))
    report = reservations.ReservationReport(9, 6, persist=True, registrants=rows)
    raw = report.pack(extended=True)
    assert len(raw) == 64 + 2 * 64
    assert reservations.parse_report(raw[:-1]).registrants == rows[:1]
    with pytest.raises(ValueError, match="at least 24 bytes"):
        reservations.parse_report(raw[:23])
