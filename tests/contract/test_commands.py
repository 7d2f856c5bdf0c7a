"""I/O commands as hosts send them: what each does, what it refuses, and with which status."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest
from wire_host import BLOCK, HOST, NQN, Host, Wire, play, read, write

from dataplane.nvme import commands, identify
from dataplane.nvme.commands import Cns, Command, IoOp
from dataplane.nvme.pdu import FatalError
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev, nvme

DRIVE = "nqn.2026-01.io.ws7000:contract:drive"
BLOCKS = 8192  # of the devices that ``engine.malloc`` makes
A, B, C = (letter * BLOCK for letter in (b"a", b"b", b"c"))


def compare(lba: int, blocks: int = 1, nsid: int = 1) -> Command:
    return commands.compare(nsid, lba, blocks, BLOCK)


async def pair(io: Wire, first: Command, one: bytes, second: Command, two: bytes) -> tuple[int, int]:
    """The statuses of two commands sent one right after the other, marked as the halves of one."""
    halves = commands.fused(first, second)
    cids = io.submit(halves[0], one), io.submit(halves[1], two)
    return (await io.wait(cids[0]))[0].code, (await io.wait(cids[1]))[0].code


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with one device in memory."""
    engine.malloc("m0")
    return int(engine.serve(NQN, "m0"))


# Compare


def test_compare_tells_whether_the_blocks_hold_the_data(port: int) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(write(4, 2), A + B)
        assert await host.io.status(compare(4, 2), A + B) == 0
        assert await host.io.status(compare(4, 2), A + C) == Status.COMPARE_FAILURE
        assert await host.io.status(compare(5), B) == 0
        large = bytes(range(256)) * 2 * 64
        await host.io.ok(write(100, 64), large)
        assert await host.io.status(compare(100, 64), large) == 0
        assert await host.io.status(compare(BLOCKS), A) == Status.LBA_OUT_OF_RANGE
        assert await host.io.status(compare(4, 2)._replace(length=BLOCK), A) == Status.DATA_SGL_LENGTH_INVALID

    play(port, story)


@pytest.mark.parametrize("device", ["file", "null", "part", "set"])
def test_compare_works_on_every_device(engine: Any, tmp_path: Path, device: str) -> None:
    """Where a device cannot compare, the engine reads and compares."""
    name = make(engine, tmp_path, device)
    port = engine.serve(NQN, name)

    async def story(host: Host) -> None:
        await host.io.ok(write(2), A)
        held = bytes(BLOCK) if device == "null" else A
        assert await host.io.status(compare(2), held) == 0
        assert await host.io.status(compare(2), B) == Status.COMPARE_FAILURE
        assert await pair(host.io, compare(2), held, write(2), B) == (0, 0)
        if device != "null":
            assert await host.io.ok(read(2)) == B

    play(port, story)


def make(engine: Any, folder: Path, device: str) -> str:
    """A device of that kind; its name."""
    match device:
        case "file":
            path = folder / "drive"
            path.write_bytes(bytes(1 << 20))
            engine.run(bdev.aio_create("d", path=str(path), block_size_bytes=BLOCK, fallocate=True))
            return "d"
        case "null":
            engine.run(bdev.null_create("d", block_size_bytes=BLOCK, size_bytes=1 << 20))
            return "d"
        case "part":
            engine.malloc("m")
            engine.run(bdev.split_create("m", count=2, size_bytes=1 << 20))
            return "mp1"
    engine.malloc("m0")
    engine.malloc("m1")
    engine.rpc("bdev_raid_create", name="d", raid_level="raid1", base_bdevs=["m0", "m1"])
    return "d"


# Fused Compare and Write


def test_a_fused_pair_writes_only_what_it_expected_to_find(port: int) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(write(7), A)
        assert await pair(host.io, compare(7), A, write(7), B) == (0, 0)
        assert await host.io.ok(read(7)) == B
        refused = (Status.COMPARE_FAILURE, Status.ABORTED_FAILED_FUSED)
        assert await pair(host.io, compare(7), A, write(7), C) == refused
        assert await host.io.ok(read(7)) == B

    play(port, story)


@pytest.mark.parametrize(
    ("first", "second", "statuses"),
    [
        (compare(7), write(8), (Status.INVALID_FIELD, Status.ABORTED_FAILED_FUSED)),
        (compare(BLOCKS), write(BLOCKS), (Status.LBA_OUT_OF_RANGE, Status.ABORTED_FAILED_FUSED)),
        (compare(7, 2), write(7, 2), (Status.INTERNAL_ERROR, Status.ABORTED_FAILED_FUSED)),
        (write(7), write(7), (Status.INVALID_OPCODE, Status.ABORTED_MISSING_FUSED)),
        (compare(7), compare(7), (Status.ABORTED_MISSING_FUSED, Status.INVALID_OPCODE)),
        (write(7), compare(7), (Status.INVALID_OPCODE, Status.ABORTED_MISSING_FUSED)),
        (compare(7, nsid=2), write(7), (Status.INVALID_NAMESPACE, Status.ABORTED_MISSING_FUSED)),
        (compare(7, nsid=0), write(7), (Status.INVALID_NAMESPACE, Status.ABORTED_MISSING_FUSED)),
    ],
    ids=[
        "other blocks", "behind the end", "more than is atomic", "no compare", "no write", "wrong way round",
        "no namespace", "no namespace identifier",
    ],
)  # fmt: skip
def test_a_pair_that_cannot_be_run(port: int, first: Command, second: Command, statuses: tuple[int, int]) -> None:
    async def story(host: Host) -> None:
        blocks = (first.cdw12 & 0xFFFF) + 1
        assert await pair(host.io, first, A * blocks, second, B * blocks) == statuses
        assert await host.io.ok(read(7, 2)) == bytes(2 * BLOCK)

    play(port, story)


def test_halves_without_their_partner_are_aborted(port: int) -> None:
    """Halves belong together only when nothing comes between them; the command between is run."""

    async def story(host: Host) -> None:
        first, second = commands.fused(compare(7), write(7))
        missing = Status.ABORTED_MISSING_FUSED
        alone = host.io.submit(first, bytes(BLOCK))
        assert await host.io.ok(read(0)) == bytes(BLOCK)
        assert (await host.io.wait(alone))[0].code == missing
        assert await host.io.status(second, A) == missing
        older, newer = host.io.submit(first, bytes(BLOCK)), host.io.submit(first, bytes(BLOCK))
        assert (await host.io.wait(older))[0].code == missing
        assert await host.io.status(second, A) == 0
        assert (await host.io.wait(newer))[0].code == 0
        assert await host.io.ok(read(7)) == A

    play(port, story)


def test_a_pair_waits_for_the_data_of_both_halves(port: int) -> None:
    """What comes meanwhile is run meanwhile, and does not stand between them: only the order of arrival counts."""

    async def story(host: Host) -> None:
        first, second = (
            half._replace(sgl_type=commands.SGL_TRANSPORT) for half in commands.fused(compare(7), write(7))
        )
        one, two = host.io.submit(first), host.io.submit(second)
        asked = await host.io.asked_for(one), await host.io.asked_for(two)
        assert await host.io.ok(read(7)) == bytes(BLOCK)
        host.io.give(asked[1], B)
        assert await host.io.ok(read(7)) == bytes(BLOCK)
        host.io.give(asked[0], bytes(BLOCK))
        assert [(await host.io.wait(cid))[0].code for cid in (one, two)] == [0, 0]
        assert await host.io.ok(read(7)) == B

    play(port, story)


def test_increments_by_compare_and_write_lose_none(port: int) -> None:
    """Eight queues of two hosts count in one block while a third writes beside it."""
    rounds = 12

    async def count(io: Wire) -> None:
        for _ in range(rounds):
            while True:
                held = await io.ok(read(3))
                more = struct.pack("<Q", struct.unpack_from("<Q", held)[0] + 1).ljust(BLOCK, b"\0")
                code = await pair(io, compare(3), held, write(3), more)
                if code == (0, 0):
                    break
                assert code == (Status.COMPARE_FAILURE, Status.ABORTED_FAILED_FUSED)

    async def story(host: Host) -> None:
        hosts = [await Host.open(port, nqn=NQN, host=HOST) for _ in range(8)]
        try:
            beside = [host.io.submit(write(4), A) for _ in range(20)]
            await asyncio.gather(*(count(each.io) for each in hosts))
            assert struct.unpack_from("<Q", await host.io.ok(read(3)))[0] == rounds * len(hosts)
            assert [(await host.io.wait(cid))[0].code for cid in beside] == [0] * len(beside)
        finally:
            for each in hosts:
                await each.close()

    play(port, story)


# Copy


def test_copy_moves_one_range_inside_a_namespace(port: int) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(write(0, 2), A + B)
        await host.io.ok(*commands.copy(1, 10, [(0, 2)]))
        assert await host.io.ok(read(10, 2)) == A + B
        await host.io.ok(*commands.copy(1, 10, [(10, 2)]))
        assert await host.io.ok(read(10, 2)) == A + B
        for command, status in (
            (commands.copy(1, 20, [(0, 1), (1, 1)]), Status.COMMAND_SIZE_LIMIT_EXCEEDED),
            (commands.copy(1, BLOCKS, [(0, 1)]), Status.INTERNAL_ERROR),
            (commands.copy(1, 0, [(BLOCKS - 1, 2)]), Status.INTERNAL_ERROR),
            (commands.copy(1, (1 << 64) - 1, [(0, 1)]), Status.INTERNAL_ERROR),
        ):
            assert await host.io.status(*command) == status, command
        command, source = commands.copy(1, 20, [(0, 1)])
        assert await host.io.status(command._replace(cdw12=1 << 8), source) == Status.INVALID_FIELD
        assert await host.io.status(command._replace(cdw12=1), source) == Status.DATA_SGL_LENGTH_INVALID
        assert await host.io.ok(read(20)) == bytes(BLOCK)

    play(port, story)


def test_copy_works_on_devices_that_cannot_copy(engine: Any, tmp_path: Path) -> None:
    port = engine.serve(NQN, make(engine, tmp_path, "file"))
    blocks = 1000

    async def story(host: Host) -> None:
        data = bytes(range(250)) * (blocks * BLOCK // 250)
        for at in range(0, blocks, 250):
            await host.io.ok(write(at, 250), data[at * BLOCK : (at + 250) * BLOCK])
        await host.io.ok(*commands.copy(1, 1024, [(0, blocks)]))
        for at in range(0, blocks, 250):
            assert await host.io.ok(read(1024 + at, 250)) == data[at * BLOCK : (at + 250) * BLOCK]
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=1))
        assert identify.IdentifyNamespace.parse(raw).mssrl == 263, "what a large buffer of SPDK holds"

    play(port, story)


# What is advertised


def test_what_is_offered_is_advertised(port: int) -> None:
    async def story(host: Host) -> None:
        controller = identify.IdentifyController.parse(await host.admin.ok(commands.identify(Cns.CONTROLLER)))
        assert controller.oncs == (
            identify.ONCS_COMPARE | identify.ONCS_DATASET_MANAGEMENT | identify.ONCS_WRITE_ZEROES | identify.ONCS_COPY
        )
        assert (controller.fuses, controller.ocfs, controller.acwu) == (identify.FUSES_COMPARE_AND_WRITE, 1, 0)
        assert controller.vwc == 5, "a cache, and no Flush of all namespaces at once"
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=1))
        namespace = identify.IdentifyNamespace.parse(raw)
        assert (namespace.mssrl, namespace.mcl, namespace.msrc, namespace.nacwu) == (0xFFFF, 0xFFFF, 0, 0)
        limits = identify.IdentifyNvmController.parse(await host.admin.ok(commands.identify(Cns.CSI_CONTROLLER)))
        assert (limits.vsl, limits.wzsl, limits.dmrl, limits.dmrsl, limits.dmsl) == (0, 12, 1, 2097152, 2097152)

    play(port, story)


@pytest.mark.parametrize(
    "opcode", [IoOp.VERIFY, IoOp.WRITE_UNCORRECTABLE, IoOp.RESERVATION_REPORT, 0x7C, 0x80], ids=hex
)
def test_what_is_not_offered_is_no_opcode(port: int, opcode: int) -> None:
    """Verify too: a device is not read back by the target.  Reservations are masked in an array."""

    async def story(host: Host) -> None:
        completion = (await host.io.run(Command(opcode, nsid=1)))[0]
        assert (completion.code, completion.dnr) == (Status.INVALID_OPCODE, True)

    play(port, story)


# Limits of reads and writes


@pytest.mark.parametrize(
    ("command", "data", "status"),
    [
        (read(BLOCKS - 1, 2), b"", Status.LBA_OUT_OF_RANGE),
        (read((1 << 64) - 1), b"", Status.LBA_OUT_OF_RANGE),
        (read((1 << 64) - 1, 2), b"", Status.LBA_OUT_OF_RANGE),
        (read(1 << 63), b"", Status.LBA_OUT_OF_RANGE),
        (read(1 << 32), b"", Status.LBA_OUT_OF_RANGE),
        (read(0, 2)._replace(length=BLOCK), b"", Status.DATA_SGL_LENGTH_INVALID),
        (read(0, 2)._replace(length=0, sgl_type=0), b"", Status.DATA_SGL_LENGTH_INVALID),
        (read(0)._replace(cdw12=0xFFFF), b"", Status.LBA_OUT_OF_RANGE),
        (write((1 << 64) - 1), A, Status.LBA_OUT_OF_RANGE),
        (write(0, 2)._replace(length=BLOCK), A, Status.DATA_SGL_LENGTH_INVALID),
        (commands.write_zeroes(1, (1 << 64) - 1, 2), b"", Status.LBA_OUT_OF_RANGE),
        (commands.write_zeroes(1, 0, 1 << 16), b"", Status.LBA_OUT_OF_RANGE),
        (commands.write_zeroes(1, 0, 1, deallocate=True), b"", Status.INVALID_FIELD),
        (commands.write_zeroes(1, BLOCKS, 1, deallocate=True), b"", Status.LBA_OUT_OF_RANGE),
        (commands.flush(commands.NSID_ALL), b"", Status.INVALID_NAMESPACE),
        (commands.flush(0), b"", Status.INVALID_NAMESPACE),
        (commands.flush(9), b"", Status.INVALID_NAMESPACE),
    ],
)
def test_what_does_not_fit_has_its_status(port: int, command: Command, data: bytes, status: Status) -> None:
    async def story(host: Host) -> None:
        assert await host.io.status(command, data) == status

    play(port, story)


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 0x00}, {"flags": 0x80}, {"flags": 0xC0}, {"flags": 0x7C}, {"cdw2": 1}, {"cdw3": 1}, {"mptr": 1},
        {"cdw14": 0xFFFFFFFF}, {"cdw15": 0xFFFFFFFF}, {"cdw13": 0xFF},
    ],
    ids=str,
)  # fmt: skip
def test_reserved_bits_and_the_kind_of_pointer_are_not_looked_at(port: int, changed: dict[str, int]) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(write(1)._replace(**changed), A)
        assert await host.io.ok(read(1)._replace(**changed)) == A

    play(port, story)


def test_a_buffer_larger_than_the_blocks_is_no_error(port: int) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(write(1)._replace(length=2 * BLOCK), A + B)
        assert await host.io.ok(read(1, 2)) == A + bytes(BLOCK)

    play(port, story)


def test_more_than_mdts_terminates_the_connection(port: int) -> None:
    """SPDK closes when the host does, or half a minute later; the embedded engine within a second."""

    async def story(host: Host) -> None:
        controller = identify.IdentifyController.parse(await host.admin.ok(commands.identify(Cns.CONTROLLER)))
        most = (4096 << controller.mdts) // BLOCK
        assert len(await host.io.ok(read(0, most))) == most * BLOCK
        host.io.submit(read(0, most + 1))
        assert (await host.io.terminated()).fes == FatalError.LIMIT_EXCEEDED

    play(port, story)


def test_fua_is_taken_by_every_command_that_has_it(port: int) -> None:
    async def story(host: Host) -> None:
        fua = 1 << 30
        await host.io.ok(write(1)._replace(cdw12=fua), A)
        assert await host.io.ok(read(1)._replace(cdw12=fua)) == A
        await host.io.ok(*commands.copy(1, 2, [(1, 1)], fua=True))
        await host.io.ok(commands.write_zeroes(1, 1, 1)._replace(cdw12=fua))
        assert await host.io.ok(read(1, 2)) == bytes(BLOCK) + A

    play(port, story)


def test_more_zeroes_than_wzsl_is_no_error(engine: Any) -> None:
    engine.malloc("m0")
    engine.transport()
    engine.rpc("nvmf_create_subsystem", nqn=NQN, allow_any_host=True, max_namespaces=8, max_write_zeroes_size_kib=8)
    engine.namespace(NQN, "m0")

    async def story(host: Host) -> None:
        limits = identify.IdentifyNvmController.parse(await host.admin.ok(commands.identify(Cns.CSI_CONTROLLER)))
        assert limits.wzsl == 1
        await host.io.ok(write(0, 64), A * 64)
        await host.io.ok(commands.write_zeroes(1, 0, 64))
        assert await host.io.ok(read(0, 64)) == bytes(64 * BLOCK)

    play(engine.listen(NQN), story)


# Behind a drive


@pytest.fixture
def drive(engine: Any, other: Any) -> int:
    """A namespace of ``other`` as a drive of ``engine``, exported as it is."""
    other.malloc("m0")
    shelf = other.serve(DRIVE, "m0")
    engine.run(nvme.attach_controller_tcp("d0", address="127.0.0.1", port=shelf, subnqn=DRIVE, hostnqn=HOST))
    return int(engine.serve(NQN, "d0n1"))


def test_compare_and_copy_reach_a_drive(drive: int) -> None:
    """Not compared: a miscompare, which SPDK's node repeats for ever when it repeats other errors so."""

    async def story(host: Host) -> None:
        await host.io.ok(write(3), A)
        assert await host.io.status(compare(3), A) == 0
        assert await pair(host.io, compare(3), A, write(3), B) == (0, 0)
        await host.io.ok(*commands.copy(1, 4, [(3, 1)]))
        assert await host.io.ok(read(3, 2)) == B + B
        await host.io.ok(commands.write(1, 5, 1, BLOCK, fua=True), C)
        assert await host.io.ok(read(5)) == C
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=1))
        assert identify.IdentifyNamespace.parse(raw).mssrl == 0xFFFF

    play(drive, story)


@pytest.mark.parametrize("opcode", [IoOp.VERIFY, IoOp.WRITE_UNCORRECTABLE, 0x80], ids=hex)
def test_what_the_target_does_not_know_is_asked_of_the_drive(drive: int, opcode: int) -> None:
    """This drive does not know it either.  It says Do Not Retry, to the node: a host is not told what bdevs say so."""

    async def story(host: Host) -> None:
        completion = (await host.io.run(Command(opcode, nsid=1)))[0]
        assert (completion.code, completion.dnr) == (Status.INVALID_OPCODE, False)

    play(drive, story)
