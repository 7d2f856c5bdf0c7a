"""What a host may hold and how long: the limits of ``nvmf.limits``, refused politely and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import Any

import pytest

from dataplane.embedded.nvmf import limits
from dataplane.nvme import commands, pdu

LARGE = commands.read(1, 0, 256, 512)


async def gone(queue: Any) -> None:
    """The engine has let go of that connection, and of what it held."""
    await asyncio.shield(queue.closed)


def queues_of(bench: Any, host: Any) -> list[Any]:
    ports = {str(wire.writer.get_extra_info("sockname")[1]) for wire in (host.admin, host.io)}
    return [queue for queue in bench.engine.nvmf.queues if queue.peer.trsvcid in ports]


def idle(bench: Any) -> bool:
    target = bench.engine.nvmf
    return target.budget.left == target.budget.total and target.door.inside == len(target.queues)


def test_a_thousand_connections_and_a_host_that_works(lab: Any) -> None:
    """Those that never say whom they want are refused beyond their share; whoever connects is served."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 4096:
        pytest.skip("the limit of open files is below 4096")

    async def scenario(bench: Any) -> None:
        good = await bench.host()
        silent = [await asyncio.open_connection("127.0.0.1", bench.port) for _ in range(1000)]
        refused = silent[limits.MAX_UNCONNECTED_PER_HOST :]
        for reader, _ in refused:
            try:
                assert await reader.read(1) == b""
            except ConnectionResetError:
                continue
        assert len(bench.engine.nvmf.queues) == limits.MAX_UNCONNECTED_PER_HOST + 2
        assert await good.io.status(LARGE) == 0
        queues = list(bench.engine.nvmf.queues)
        for _, writer in silent:
            writer.close()
        for queue in queues:
            if queue.controller is None:
                await gone(queue)
        again = await bench.host()
        assert await again.io.status(LARGE) == 0
        assert idle(bench)

    lab.run(scenario)


def test_connected_queues_do_not_count_as_strangers(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNCONNECTED_PER_HOST", 2)

    async def scenario(bench: Any) -> None:
        for _ in range(4):
            host = await bench.host()
            assert await host.io.status(LARGE) == 0

    lab.run(scenario)


def test_no_more_connections_than_the_process_may_open(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        good = await bench.host()
        bench.engine.nvmf.door.limit = 3
        last = await bench.wire()
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        await last.close()
        assert await good.io.status(LARGE) == 0

    lab.run(scenario)


def test_who_never_connects_is_let_go(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 0.05)

    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        (queue,) = bench.engine.nvmf.queues
        assert await wire.ended() is None
        await gone(queue)
        assert idle(bench)
        await wire.close()

    lab.run(scenario)


def test_data_that_never_comes_is_not_waited_for(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATA_TIMEOUT_S", 0.05)

    async def scenario(bench: Any) -> None:
        host = await bench.host()
        queues = queues_of(bench, host)
        await host.io.ok(commands.write(1, 0, 16, 512), bytes(8192))
        cid = host.io.submit(commands.write(1, 0, 16, 512))
        await host.io.asked_for(cid)
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total - 8192
        with pytest.raises(lab.ended):
            await host.io.drain()
        await gone(next(queue for queue in queues if queue.qid))
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total
        assert await host.admin.status(commands.keep_alive()) == 0, "the other queue goes on"

    lab.run(scenario)


def test_a_host_that_does_not_read_is_let_go(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_S", 0.2)

    async def scenario(bench: Any) -> None:
        good, slow = await bench.host(), await bench.host(entries=128)
        queue = next(queue for queue in queues_of(bench, slow) if queue.qid)
        slow.io.writer.transport.pause_reading()
        for _ in range(100):
            slow.io.submit(LARGE)
        await gone(queue)
        assert await good.io.status(LARGE) == 0
        assert idle(bench)

    lab.run(scenario)


def test_a_host_that_reads_late_is_served(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        slow = await bench.host(entries=128)
        queue = next(queue for queue in queues_of(bench, slow) if queue.qid)
        slow.io.writer.transport.pause_reading()
        cids = [slow.io.submit(LARGE) for _ in range(100)]
        while not queue._paused:
            await asyncio.sleep(0)
        slow.io.writer.transport.resume_reading()
        for cid in cids:
            assert (await slow.io.wait(cid))[0].code == 0
        assert await slow.io.status(commands.flush(1)) == 0
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total

    lab.run(scenario)


def test_answers_of_admin_commands_count_as_well(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host, budget = await bench.host(), bench.engine.nvmf.budget
        held = budget.left
        assert budget.try_take(held)
        cid = host.admin.submit(commands.identify(1))
        assert await host.admin.status(commands.keep_alive()) == 0
        assert cid not in host.admin.done
        budget.give(held)
        assert (await host.admin.wait(cid))[0].code == 0
        assert budget.left == budget.total

    lab.run(scenario)


def test_a_stranger_gets_nothing_of_the_budget(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        assert await wire.status(commands.write(1, 0, 256, 512)) == 0x00C
        assert idle(bench)
        await wire.close()

    lab.run(scenario)


def test_what_follows_a_termination_is_not_looked_at(lab: Any) -> None:
    """The reason reaches the host although it goes on sending, and nothing that it sends is executed."""

    async def scenario(bench: Any) -> None:
        host = await bench.host()
        bad = pdu.COMMON.pack(0x0B, 0, 24, 0, 24)
        write = commands.write(1, 0, 1, 512).with_data(512, in_capsule=True).with_cid(3)
        host.io.write(bad, *pdu.capsule_cmd(write, b"x" * 512), bytes(200_000))
        said = await host.io.terminated()
        assert said.fes == pdu.FatalError.INVALID_HEADER
        assert await host.io.ended() is said
        again = await bench.host()
        assert await again.io.ok(commands.read(1, 0, 1, 512)) == bytes(512)

    lab.run(scenario)
