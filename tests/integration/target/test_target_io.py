"""Reads, writes and the rest: the data that comes back, and the status of what cannot be done."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dataplane.nvme import commands, pdu
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.status import Status

KINDS = ["slow_bdev", "hasty_bdev"]
ALL_DIGESTS = [pdu.Digests(header, data) for header in (False, True) for data in (False, True)]


@pytest.mark.parametrize("agreed", ALL_DIGESTS)
@pytest.mark.parametrize("blocks", [1, 8, 9, 256])
def test_what_was_written_is_read_back(lab: Any, agreed: pdu.Digests, blocks: int) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(agreed=agreed)
        data = os.urandom(512 * blocks)
        small = len(data) <= 4096
        command = commands.write(1, 7, blocks, 512).with_data(len(data), in_capsule=small)
        await host.io.ok(command, data)
        assert await host.io.ok(commands.read(1, 7, blocks, 512)) == data
        assert await host.io.ok(commands.read(2, 7, blocks, 512)) == bytes(len(data))

    lab.run(scenario)


def test_many_commands_run_side_by_side(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(entries=64)
        blocks = [os.urandom(16384) for _ in range(60)]
        sent = [host.io.submit(commands.write(1, 32 * n, 32, 512), data) for n, data in enumerate(blocks)]
        assert [(await host.io.wait(cid))[0].code for cid in sent] == [0] * 60
        asked = [host.io.submit(commands.read(1, 32 * n, 32, 512)) for n in range(60)]
        assert [(await host.io.wait(cid))[1] for cid in asked] == blocks

    lab.run(scenario)


def test_payloads_are_aligned_as_the_host_wants_them(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await lab.wire.open(bench.port, hpda=31)
        assert (await wire.connect()).code == 0
        await wire.enable()
        cid = wire.submit(commands.identify(commands.Cns.CONTROLLER))
        raw = await wire.reader.readexactly(24)
        assert (raw[3], int.from_bytes(raw[4:8], "little")) == (128, 128 + 4096)
        wire.queue += wire.pdus.feed(raw)
        assert (await wire.wait(cid))[0].code == 0
        await wire.close()

    lab.run(scenario)


def test_without_success_in_the_data_a_completion_follows(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        cid = host.io.submit(commands.read(1, 0, 8, 512))
        first, second = await host.io.next(), await host.io.next()
        assert isinstance(first, pdu.C2HData)
        assert (first.last, first.success) == (True, False)
        assert isinstance(second, pdu.CapsuleResp)
        assert second.completion.cid == cid

    lab.run(scenario, transport={"c2h_success": False})


def test_zeroes_and_deallocation(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        await host.io.ok(commands.write(1, 0, 64, 512), b"x" * 32768)
        await host.io.ok(commands.write_zeroes(1, 8, 8))
        await host.io.ok(*commands.deallocate(1, [(32, 8), (48, 8)]))
        await host.io.ok(commands.flush(1))
        data = await host.io.ok(commands.read(1, 0, 64, 512))
        assert data[:4096] == b"x" * 4096
        assert data[4096:8192] == bytes(4096)
        assert data[8192:16384] == b"x" * 8192

    lab.run(scenario)


@pytest.mark.parametrize(
    ("command", "data", "status"),
    [
        (commands.read(1, 4095, 2, 512), b"", Status.LBA_OUT_OF_RANGE),
        (commands.read(1, 1 << 63, 1, 512), b"", Status.LBA_OUT_OF_RANGE),
        (commands.read(3, 0, 1, 512), b"", Status.INVALID_NAMESPACE),
        (commands.read(0, 0, 1, 512), b"", Status.INVALID_NAMESPACE),
        (commands.read(99, 0, 1, 512), b"", Status.INVALID_NAMESPACE),
        (commands.read(1, 0, 2, 512)._replace(length=512), b"", Status.DATA_SGL_LENGTH_INVALID),
        (commands.write(1, 0, 2, 512)._replace(length=512), b"w" * 512, Status.DATA_SGL_LENGTH_INVALID),
        (commands.write(1, 4095, 2, 512), b"w" * 1024, Status.LBA_OUT_OF_RANGE),
        (commands.write_zeroes(1, 4090, 16), b"", Status.LBA_OUT_OF_RANGE),
        (commands.write_zeroes(1, 0, 1, deallocate=True), b"", Status.INVALID_FIELD),
        (*commands.deallocate(1, [(4000, 97)]), Status.INTERNAL_ERROR),
        (Command(IoOp.VERIFY, nsid=1), b"", Status.INVALID_OPCODE),
        (Command(IoOp.RESERVATION_REPORT, nsid=1), b"", Status.INVALID_FIELD),
        (commands.read(1, 0, 1, 512)._replace(flags=0x43), b"", Status.INVALID_FIELD),
    ],
)
def test_what_cannot_be_done_has_its_status(lab: Any, command: Command, data: bytes, status: Status) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        assert await host.io.status(command, data) == status
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0

    lab.run(scenario)


def test_data_that_does_not_match_its_digest_fails_its_command_alone(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(agreed=pdu.Digests(header=True, data=True))
        command = commands.write(1, 0, 1, 512).with_data(512, in_capsule=True).with_cid(500)
        *pieces, _ = pdu.capsule_cmd(command, b"y" * 512, host.io.agreed)
        host.io.write(*pieces, b"\0\0\0\0")
        assert (await host.io.wait(500))[0].code == Status.TRANSIENT_TRANSPORT_ERROR
        large = commands.write(1, 0, 16, 512).with_cid(501)
        host.io.write(*pdu.capsule_cmd(large, b"", host.io.agreed))
        asked = await host.io.next()
        assert isinstance(asked, pdu.R2T)
        *pieces, _ = pdu.h2c_data(pdu.H2CData(501, asked.ttag, 0, b"z" * 8192, last=True), host.io.agreed)
        host.io.write(*pieces, b"\0\0\0\0")
        assert (await host.io.wait(501))[0].code == Status.TRANSIENT_TRANSPORT_ERROR
        assert await host.io.ok(commands.read(1, 0, 16, 512)) == bytes(8192)

    lab.run(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_identifier_in_use_is_refused(lab: Any, kind: str) -> None:
    async def scenario(bench: Any) -> None:
        slow = getattr(lab, kind)("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3})
        host = await bench.host()
        twice = pdu.capsule_cmd(commands.read(3, 0, 1, 512).with_cid(9))[0]
        host.io.write(twice, twice)
        assert (await host.io.wait(9))[0].code == Status.COMMAND_ID_CONFLICT
        slow.go.set()
        assert (await host.io.wait(9))[1] == bytes(512)

    lab.run(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_of_a_device_is_an_internal_error(lab: Any, kind: str) -> None:
    class Broken(getattr(lab, kind)):  # type: ignore[misc]
        async def do_read(self, lba: int, blocks: int) -> bytes:
            raise RuntimeError(f"a defect at {lba}, {blocks}")

    async def scenario(bench: Any) -> None:
        bench.engine.bdevs.add(Broken("broken"))
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "broken", "nsid": 3})
        host = await bench.host()
        assert await host.io.status(commands.read(3, 0, 1, 512)) == Status.INTERNAL_ERROR
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0

    lab.run(scenario)
