"""Abort: what only waits ends, once, with Aborted by Request; what a device has begun goes on."""

from __future__ import annotations

import asyncio
from typing import Any

from dataplane.embedded.bdev.waits import abortable
from dataplane.nvme import commands, pdu
from dataplane.nvme.pdu import H2CData
from dataplane.nvme.status import Status

READ = commands.read(1, 0, 8, 512)


async def abort(host: Any, cid: int) -> int:
    """DWORD 0 of the Abort: bit 0 is set when the command was not aborted."""
    completion = (await host.admin.run(commands.abort(1, cid)))[0]
    assert completion.code == 0
    return int(completion.cdw0)


async def arrived(host: Any) -> None:
    """Everything that the I/O queue was sent before is with the target now."""
    await host.io.ok(commands.read(2, 0, 1, 512))


def whole_budget(bench: Any) -> bool:
    budget = bench.engine.nvmf.budget
    return bool(budget.left == budget.total)


def test_a_command_at_a_closed_gate_is_aborted(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        gate = bench.engine.nvmf.find(lab.nqn).gate(1)
        gate.closed = True
        held, other = host.io.submit(READ), host.io.submit(READ)
        await arrived(host)
        assert await abort(host, held) == 0
        assert (await host.io.wait(held))[0].code == Status.ABORTED_BY_REQUEST
        assert await abort(host, held) == 1
        gate.open()
        assert (await host.io.wait(other))[0].code == 0
        assert gate.inside == 0
        assert whole_budget(bench)

    lab.run(scenario)


def test_a_fused_pair_at_a_closed_gate_is_aborted_as_one(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        gate = bench.engine.nvmf.find(lab.nqn).gate(1)
        pair = commands.fused(commands.compare(1, 0, 1, 512), commands.write(1, 0, 1, 512))
        for index in (0, 1):
            gate.closed = True
            cids = [host.io.submit(half, bytes(512)) for half in pair]
            await arrived(host)
            assert await abort(host, cids[index]) == 0
            codes = [(await host.io.wait(cid))[0].code for cid in cids]
            assert codes == [Status.ABORTED_BY_REQUEST] * 2
            gate.open()
        cids = [host.io.submit(half, bytes(512)) for half in pair]
        assert [(await host.io.wait(cid))[0].code for cid in cids] == [0, 0]
        assert gate.inside == 0
        assert whole_budget(bench)

    lab.run(scenario)


def test_a_command_that_waits_for_the_budget_is_aborted(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        budget = bench.engine.nvmf.budget
        everything = budget.left
        assert budget.try_take(everything)
        to_host, from_host = host.io.submit(READ), host.io.submit(commands.write(1, 0, 32, 512), bytes(16384))
        await host.admin.ok(commands.keep_alive())
        for cid in (from_host, to_host):
            waiting = host.admin.submit(commands.abort(1, cid))
            assert (await host.io.wait(cid))[0].code == Status.ABORTED_BY_REQUEST
            assert (await host.admin.wait(waiting))[0].cdw0 == 0
        budget.give(everything)
        assert await host.io.status(READ) == 0
        assert whole_budget(bench)

    lab.run(scenario)


def test_a_command_whose_data_comes_after_the_abort_does_not_run(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        cid = host.io.submit(commands.write(1, 0, 16, 512))
        asked = await host.io.asked_for(cid)
        waiting = [host.admin.submit(commands.abort(1, cid)) for _ in range(2)]
        await host.admin.ok(commands.keep_alive())
        half = H2CData(cid, asked.ttag, 0, b"x" * 4096, last=False)
        host.io.write(*pdu.h2c_data(half, host.io.agreed))
        await arrived(host)
        rest = H2CData(cid, asked.ttag, 4096, b"x" * 4096, last=True)
        host.io.write(*pdu.h2c_data(rest, host.io.agreed))
        assert (await host.io.wait(cid))[0].code == Status.ABORTED_BY_REQUEST
        assert [(await host.admin.wait(each))[0].cdw0 for each in waiting] == [0, 0]
        assert await host.io.ok(commands.read(1, 0, 16, 512)) == bytes(8192)
        assert whole_budget(bench)

    lab.run(scenario, transport={"abort_timeout_sec": 60})


def test_a_device_says_whether_a_command_can_be_taken_back(lab: Any) -> None:
    class Holding(lab.slow_bdev):  # type: ignore[misc, name-defined]
        """Holds writes back before it begins them, and reads after."""

        async def do_write(self, lba: int, data: Any) -> None:
            self.started.set()
            with abortable():
                await self.go.wait()
            self.store[lba * 512 : lba * 512 + len(data)] = data

    async def scenario(bench: Any) -> None:
        slow = Holding("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("bdev_split_create", base_bdev="slow", split_count=1)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slowp0", "nsid": 3})
        host = await bench.host()
        begun = host.io.submit(commands.read(3, 0, 1, 512))
        await slow.started.wait()
        held = host.io.submit(commands.write(3, 0, 1, 512).with_data(512, in_capsule=True), b"w" * 512)
        later = host.io.submit(commands.write(3, 1, 1, 512).with_data(512, in_capsule=True), b"w" * 512)
        await arrived(host)
        assert await abort(host, begun) == 1
        assert await abort(host, held) == 0
        assert (await host.io.wait(held))[0].code == Status.ABORTED_BY_REQUEST
        slow.go.set()
        assert [(await host.io.wait(cid))[0].code for cid in (begun, later)] == [0, 0]
        assert slow.store[:1024] == bytes(512) + b"w" * 512
        assert whole_budget(bench)

    lab.run(scenario)


def test_what_waits_in_a_device_goes_with_its_connection(lab: Any) -> None:
    class Holding(lab.slow_bdev):  # type: ignore[misc, name-defined]
        async def do_write(self, lba: int, data: Any) -> None:
            with abortable():
                self.started.set()
                await self.go.wait()
            raise AssertionError(f"{len(data)} bytes at {lba} of a host that is gone")

    async def scenario(bench: Any) -> None:
        slow = Holding("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3})
        host = await bench.host()
        host.io.submit(commands.write(3, 0, 1, 512).with_data(512, in_capsule=True), b"w" * 512)
        pair = commands.fused(commands.compare(1, 0, 1, 512), commands.write(1, 0, 1, 512))
        host.io.submit(pair[0], bytes(512))
        await slow.started.wait()
        (queue,) = [each for each in bench.engine.nvmf.queues if each.qid]
        await host.io.close()
        await asyncio.shield(queue.closed)
        assert whole_budget(bench)
        await bench.rpc("nvmf_subsystem_remove_ns", nqn=lab.nqn, nsid=3)  # would wait for I/O under way
        slow.go.set()

    lab.run(scenario)


def test_what_comes_to_wait_after_its_connection_is_gone_goes_too(lab: Any) -> None:
    class Losing(lab.slow_bdev):  # type: ignore[misc, name-defined]
        """Begins a write, and then finds that nobody is there to take it: a drive that left in the middle."""

        async def do_write(self, lba: int, data: Any) -> None:  # noqa: ARG002 - none of it is written
            self.started.set()
            await self.go.wait()
            with abortable():
                await asyncio.Event().wait()

    async def scenario(bench: Any) -> None:
        losing = Losing("losing")
        bench.engine.bdevs.add(losing)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "losing", "nsid": 3})
        host = await bench.host()
        host.io.submit(commands.write(3, 0, 1, 512).with_data(512, in_capsule=True), b"w" * 512)
        await losing.started.wait()
        (queue,) = [each for each in bench.engine.nvmf.queues if each.qid]
        await host.io.close()
        while not queue.gone:
            await asyncio.sleep(0)
        assert not queue.closed.done()
        losing.go.set()
        await asyncio.shield(queue.closed)
        assert whole_budget(bench)

    lab.run(scenario)
