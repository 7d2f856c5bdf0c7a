"""Dataset Management as hosts send it: what is freed, what is a hint, what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from wire_host import BLOCK, NQN, Host, play, read, write

from dataplane.nvme import commands, identify
from dataplane.nvme.commands import Cns, Command, IoOp
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev

BLOCKS = 8192  # of the devices that ``engine.malloc`` makes
A, B, C = (letter * BLOCK for letter in (b"a", b"b", b"c"))


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with one device in memory."""
    engine.malloc("m0")
    return int(engine.serve(NQN, "m0"))


def test_dataset_management_takes_hints_and_one_range_to_free(port: int) -> None:
    """DMRL is 1: what comes after the first range is not looked at."""

    async def story(host: Host) -> None:
        await host.io.ok(write(0, 2), A + B)
        command, data = commands.deallocate(1, [(0, 1), (BLOCKS, 1)])
        await host.io.ok(command, data)
        assert await host.io.ok(read(0, 2)) == bytes(BLOCK) + B
        await host.io.ok(command._replace(cdw11=3), data)
        await host.io.ok(Command(IoOp.DATASET_MANAGEMENT, nsid=1, cdw10=255))
        assert await host.io.ok(read(1)) == B
        many, ranges = commands.deallocate(1, [(1, 1)] + [(2, 1)] * 255)
        await host.io.ok(many, ranges)
        assert await host.io.ok(read(1)) == bytes(BLOCK)

    play(port, story)


@pytest.mark.parametrize(
    ("ranges", "status"),
    [
        ([(BLOCKS, 1)], Status.INTERNAL_ERROR),
        ([(BLOCKS - 1, 2)], Status.INTERNAL_ERROR),
        ([((1 << 64) - 1, 2)], Status.INTERNAL_ERROR),
        ([(BLOCKS + 1, 0)], Status.INTERNAL_ERROR),
        ([(BLOCKS, 0)], 0),
        ([(0, 0)], 0),
    ],
    ids=str,
)
def test_ranges_that_do_not_fit(port: int, ranges: list[tuple[int, int]], status: int) -> None:
    async def story(host: Host) -> None:
        assert await host.io.status(*commands.deallocate(1, ranges)) == status

    play(port, story)


def test_more_ranges_than_data(port: int) -> None:
    async def story(host: Host) -> None:
        command, data = commands.deallocate(1, [(0, 1)])
        assert await host.io.status(command._replace(cdw10=1), data) == Status.DATA_SGL_LENGTH_INVALID

    play(port, story)


def test_without_limits_every_range_is_freed(engine: Any) -> None:
    engine.malloc("m0")
    engine.transport()
    engine.rpc("nvmf_create_subsystem", nqn=NQN, allow_any_host=True, max_namespaces=8, max_discard_size_kib=0)
    engine.namespace(NQN, "m0")
    port = engine.listen(NQN)

    async def story(host: Host) -> None:
        await host.io.ok(write(0, 3), A + B + C)
        await host.io.ok(*commands.deallocate(1, [(0, 1), (2, 1)]))
        assert await host.io.ok(read(0, 3)) == bytes(BLOCK) + B + bytes(BLOCK)
        status = await host.io.status(*commands.deallocate(1, [(1, 1), (BLOCKS, 1)]))
        assert status == Status.INTERNAL_ERROR
        assert await host.io.ok(read(1)) == bytes(BLOCK), "those before the one that does not fit are freed"
        raw = await host.admin.ok(commands.identify(Cns.CSI_CONTROLLER))
        assert identify.IdentifyNvmController.parse(raw).dmrl == 0

    play(port, story)


def test_a_device_that_cannot_free_says_so(engine: Any) -> None:
    engine.run(bdev.null_create("null", block_size_bytes=BLOCK, size_bytes=4 << 20))
    port = engine.serve(NQN, "null")

    async def story(host: Host) -> None:
        controller = identify.IdentifyController.parse(await host.admin.ok(commands.identify(Cns.CONTROLLER)))
        assert not controller.oncs & identify.ONCS_DATASET_MANAGEMENT
        assert await host.io.status(*commands.deallocate(1, [(0, 1)])) == Status.INTERNAL_ERROR
        assert await host.io.status(commands.flush(1)) == 0

    play(port, story)
