"""Abort as hosts send it: what is taken back, what goes on, and that every command ends once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from wire_host import BLOCK, NQN, Host, play, read, write

from dataplane.nvme import commands
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev

A, B, C = (letter * BLOCK for letter in (b"a", b"b", b"c"))


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with one device in memory."""
    engine.malloc("m0")
    return int(engine.serve(NQN, "m0"))


async def abort(host: Host, cid: int, sqid: int = 1) -> int:
    """DWORD 0 of an Abort that must itself succeed: bit 0 is set when the command was not aborted."""
    completion = (await host.admin.run(commands.abort(sqid, cid)))[0]
    assert completion.code == 0
    return completion.cdw0


def test_a_command_that_a_rate_limit_holds_back_is_aborted(engine: Any, port: int) -> None:
    engine.run(bdev.set_qos_limit("m0", r_bytes_per_s=1 << 20))

    async def story(host: Host) -> None:
        blocks = 256
        cids = [host.io.submit(read(0, blocks)) for _ in range(24)]
        await host.io.wait(cids[0])
        assert await abort(host, cids[-1]) == 0
        assert (await host.io.wait(cids[-1]))[0].code == Status.ABORTED_BY_REQUEST
        assert await abort(host, cids[-1]) == 1, "it is gone"
        await asyncio.to_thread(engine.run, bdev.set_qos_limit("m0", r_bytes_per_s=0))
        assert await host.io.ok(read(0, blocks)) == bytes(blocks * BLOCK)

    play(port, story)


def test_a_command_whose_data_does_not_come_is_not_aborted(port: int) -> None:
    """The transport waits a second (abort_timeout_sec) for it; then the command goes on as if nothing had been."""

    async def story(host: Host) -> None:
        cid = host.io.submit(write(5, 16))
        asked = await host.io.asked_for(cid)
        assert await abort(host, cid) == 1
        host.io.give(asked, A * 16)
        assert (await host.io.wait(cid))[0].code == 0
        assert await host.io.ok(read(5, 16)) == A * 16

    play(port, story)


def test_a_command_whose_data_comes_meanwhile_ends_once(port: int) -> None:
    """Aborted or done, as the answer to the Abort says; SPDK lets it run, the embedded engine does not."""

    async def story(host: Host) -> None:
        cid = host.io.submit(write(5, 16))
        asked = await host.io.asked_for(cid)
        waiting = host.admin.submit(commands.abort(1, cid))
        await host.admin.ok(commands.keep_alive())
        host.io.give(asked, A * 16)
        code = (await host.io.wait(cid))[0].code
        refused = (await host.admin.wait(waiting))[0].cdw0
        assert (code, refused) in ((Status.ABORTED_BY_REQUEST, 0), (0, 1))
        assert await host.io.ok(read(5, 16)) == (bytes(BLOCK) if code else A) * 16

    play(port, story)


def test_what_is_not_there_is_not_aborted(port: int) -> None:
    async def story(host: Host) -> None:
        assert await abort(host, 0x7777) == 1
        assert await abort(host, 1, sqid=9) == 1
        assert await abort(host, host.admin.cid + 1, sqid=0) == 1, "an Abort does not abort itself"
        alone = host.io.submit(commands.fused(commands.compare(1, 7, 1, BLOCK), write(7))[0], bytes(BLOCK))
        assert await abort(host, alone) == 1, "a half that waits for the other"
        await host.io.ok(read(0))
        assert (await host.io.wait(alone))[0].code == Status.ABORTED_MISSING_FUSED

    play(port, story)
