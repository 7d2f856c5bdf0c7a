"""The initiator against embedded targets on loopback: a shelf, two nodes that attach its drive, hosts on top."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from boxes import BLOCK, DRIVE, UUID, VOLUME, Lab, free_port, run

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.initiator.connection import TransportLost
from dataplane.embedded.initiator.host import Host, HostConnection, HostOptions
from dataplane.embedded.initiator.reconnect import LossPolicy
from dataplane.nvme.pdu import Digests
from dataplane.nvme.status import NvmeError, Status

HOST = "nqn.2025-01.io.ws7000:host"
EAGER = HostOptions(loss=LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=0.02), connect_timeout_s=2)


def pattern(tag: int, blocks: int) -> bytes:
    return (tag.to_bytes(8, "little") * (BLOCK // 8)) * blocks


async def until(connection: HostConnection, wanted: Callable[[], bool]) -> None:
    """Return when ``wanted`` holds; looks again at every change of a controller."""
    while not wanted():
        await connection.change()


@pytest.mark.parametrize("digests", [Digests(), Digests(header=True, data=True)], ids=["plain", "digests"])
@pytest.mark.parametrize("queues", [1, 3])
def test_every_kind_of_io_comes_back_as_it_went(digests: Digests, queues: int) -> None:
    async def scenario(made: Lab) -> None:
        _, port = await made.drive()
        async with Host(HOST) as host:
            options = HostOptions(digests=digests, io_queues=queues)
            ns = (await host.connect(DRIVE, [("127.0.0.1", port)], options)).namespace(1)
            assert (ns.block_size, ns.num_blocks, ns.uuid) == (BLOCK, 8192, UUID)
            for tag, blocks in enumerate((1, 16, 17, 256, 257, 4096), start=1):
                await ns.write(5, pattern(tag, blocks))
                assert bytes(await ns.read(5, blocks)) == pattern(tag, blocks)
            await ns.flush()
            await ns.write_zeroes(6, 4000)
            assert bytes(await ns.read(5, 2)) == pattern(6, 1) + bytes(BLOCK)
            await ns.deallocate(0, 8192)
            await asyncio.gather(*(ns.write(lba, pattern(lba, 1)) for lba in range(300)))
            assert bytes(await ns.read(0, 300)) == b"".join(pattern(lba, 1) for lba in range(300))

    run(scenario)


def test_a_range_outside_is_refused_as_the_drive_would() -> None:
    async def scenario(made: Lab) -> None:
        _, port = await made.drive(blocks=64)
        async with Host(HOST) as host:
            ns = (await host.connect(DRIVE, [("127.0.0.1", port)])).namespace(1)
            for lba, blocks in ((64, 1), (0, 65), (-1, 1)):
                with pytest.raises(NvmeError) as caught:
                    await ns.read(lba, blocks)
                assert caught.value.code == Status.LBA_OUT_OF_RANGE
            with pytest.raises(NvmeError):
                await ns.write(0, b"half a block")

    run(scenario)


def test_discovery_lists_what_is_served() -> None:
    async def scenario(made: Lab) -> None:
        _, port = await made.drive()
        async with Host(HOST) as host:
            found = await host.discover("127.0.0.1", port)
            assert (DRIVE, str(port)) in {(entry.subnqn, entry.trsvcid) for entry in found}

    run(scenario)


def test_no_path_and_no_subsystem_are_told_with_the_reason() -> None:
    async def scenario(made: Lab) -> None:
        _, port = await made.drive()
        async with Host(HOST) as host:
            with pytest.raises(TransportLost, match="Fabrics Invalid Param"):
                await host.connect("nqn.2025-01.io.ws7000:absent", [("127.0.0.1", port)])
            with pytest.raises(TransportLost, match="Connection refused"):
                await host.connect(DRIVE, [("127.0.0.1", await free_port())])

    run(scenario)


def test_io_follows_ana_without_an_error() -> None:
    async def scenario(made: Lab) -> None:
        _, shelf_port = await made.drive()
        a, port_a = await made.node(shelf_port, "optimized", 1)
        b, port_b = await made.node(shelf_port, "inaccessible", 101)
        async with Host(HOST) as host:
            volume = await host.connect(VOLUME, [("127.0.0.1", port_a), ("127.0.0.1", port_b)], EAGER)
            assert [path.ana for path in volume.paths] == [{1: "optimized"}, {1: "inaccessible"}]
            ns = volume.namespace(1)
            for tag in range(6):
                old, new = ((a, port_a), (b, port_b)) if tag % 2 == 0 else ((b, port_b), (a, port_a))
                await ns.write(tag, pattern(tag + 1, 1))
                await old[0].set_ana(VOLUME, old[1], "inaccessible")
                write = asyncio.create_task(ns.write(100 + tag, pattern(tag + 50, 1)))
                await asyncio.sleep(0)
                await new[0].set_ana(VOLUME, new[1], "optimized")
                await write
                assert bytes(await ns.read(100 + tag, 1)) == pattern(tag + 50, 1)
            assert b"".join([bytes(await ns.read(tag, 1)) for tag in range(6)]) == b"".join(
                pattern(tag + 1, 1) for tag in range(6)
            )
            assert (volume.counters.failed, volume.counters.lost) == (0, 0)
            assert all(path.ios for path in volume.paths)

    run(scenario)


def test_a_node_that_dies_takes_no_acknowledged_write_along() -> None:
    async def scenario(made: Lab) -> None:
        _, shelf_port = await made.drive()
        a, port_a = await made.node(shelf_port, "optimized", 1)
        b, port_b = await made.node(shelf_port, "inaccessible", 101)
        async with Host(HOST) as host:
            volume = await host.connect(VOLUME, [("127.0.0.1", port_a), ("127.0.0.1", port_b)], EAGER)
            ns = volume.namespace(1)
            acknowledged: dict[int, int] = {}
            stop = asyncio.Event()

            async def writer(lba: int) -> None:
                tag = lba
                while not stop.is_set():
                    tag += 1000
                    await ns.write(lba, pattern(tag, 1))
                    acknowledged[lba] = tag

            writers = [asyncio.create_task(writer(lba)) for lba in range(8)]
            while len(acknowledged) < 8:
                await asyncio.sleep(0)
            await a.engine.close()
            await until(volume, lambda: not volume.paths[0].live)
            before = dict(acknowledged)
            await b.set_ana(VOLUME, port_b, "optimized")
            while any(acknowledged[lba] == before[lba] for lba in before):
                await asyncio.sleep(0.001)
            stop.set()
            await asyncio.gather(*writers)
            for lba, tag in acknowledged.items():
                assert bytes(await ns.read(lba, 1)) == pattern(tag, 1)
            assert volume.counters.failed == 0
            assert [path.live for path in volume.paths] == [False, True]

    run(scenario)


def test_io_waits_for_a_target_that_comes_back() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = await made.drive()
        async with Host(HOST) as host:
            drive = await host.connect(DRIVE, [("127.0.0.1", port)], EAGER)
            ns = drive.namespace(1)
            await ns.write(0, pattern(1, 1))
            await shelf.engine.close()
            await until(drive, lambda: not drive.paths[0].live)
            write = asyncio.create_task(ns.write(1, pattern(2, 1)))
            await made.drive(port=port)
            await write
            assert bytes(await ns.read(0, 2)) == bytes(BLOCK) + pattern(2, 1)
            assert drive.counters.waits > 0
            assert drive.paths[0].state == "enabled"

    run(scenario)


def test_io_fails_at_once_where_nothing_may_come_back() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = await made.drive()
        async with Host(HOST) as host:
            options = HostOptions(loss=LossPolicy(), connect_timeout_s=2)
            drive = await host.connect(DRIVE, [("127.0.0.1", port)], options)
            ns = drive.namespace(1)
            await shelf.engine.close()
            await until(drive, lambda: drive.paths[0].state == "failed")
            with pytest.raises(NvmeError) as caught:
                await ns.read(0, 1)
            assert caught.value.code == Status.INTERNAL_ERROR

    run(scenario)


def test_a_controller_that_stays_away_for_too_long_goes_with_its_namespaces() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = await made.drive()
        async with Host(HOST) as host:
            loss = LossPolicy(ctrlr_loss_timeout_s=0.05, reconnect_delay_s=0.02)
            drive = await host.connect(DRIVE, [("127.0.0.1", port)], HostOptions(loss=loss))
            ns = drive.namespace(1)
            gone = asyncio.Event()
            drive.on_empty = lambda _: gone.set()
            await shelf.engine.close()
            with pytest.raises(NvmeError):
                await ns.read(0, 1)
            await gone.wait()
            assert (drive.paths, drive.namespaces) == ([], {})

    run(scenario)


def test_namespaces_come_and_go_while_connected() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = await made.drive()
        await shelf.rpc("bdev_malloc_create", name="second", num_blocks=64, block_size=BLOCK)
        async with Host(HOST) as host:
            drive = await host.connect(DRIVE, [("127.0.0.1", port)])
            await shelf.add_namespace(DRIVE, "second", 2, UUID.replace("6d", "7e"))
            await until(drive, lambda: 2 in drive.namespaces)
            assert drive.namespace(2).num_blocks == 64
            await shelf.rpc("nvmf_subsystem_remove_ns", nqn=DRIVE, nsid=1)
            await until(drive, lambda: 1 not in drive.namespaces)

    run(scenario)


class Fenced(Bdev):
    """A drive that another host holds: writes conflict until ``conflicts`` of them were answered."""

    product_name = "fenced"

    def __init__(self, conflicts: float) -> None:
        super().__init__("fenced", BLOCK, 64)
        self.left = conflicts
        self.store = bytearray(BLOCK * 64)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        return bytes(self.store[lba * BLOCK : (lba + blocks) * BLOCK])

    async def do_write(self, lba: int, data: Buffer) -> None:
        if self.left > 0:
            self.left -= 1
            raise NvmeError(Status.RESERVATION_CONFLICT)
        self.store[lba * BLOCK : lba * BLOCK + len(data)] = data


@pytest.mark.parametrize(("conflicts", "limit", "passes"), [(9, -1, True), (9, 5, False), (5, 5, True)])
def test_a_reservation_conflict_is_retried_as_often_as_allowed(conflicts: int, limit: int, passes: bool) -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = made.box(), await free_port()
        shelf.engine.bdevs.add(Fenced(conflicts))
        await shelf.serve(DRIVE, "fenced", port)
        async with Host(HOST) as host:
            drive = await host.connect(DRIVE, [("127.0.0.1", port)], HostOptions(retry_limit=limit))
            ns = drive.namespace(1)
            if passes:
                await ns.write(0, pattern(1, 1))
                assert bytes(await ns.read(0, 1)) == pattern(1, 1)
                assert drive.counters.retries == conflicts
                return
            with pytest.raises(NvmeError) as caught:
                await ns.write(0, pattern(1, 1))
            assert caught.value.code == Status.RESERVATION_CONFLICT
            assert (drive.counters.retries, drive.counters.failed) == (limit, 1)

    run(scenario)


class Hung(Fenced):
    """A drive whose first write ends only when ``go`` is set."""

    def __init__(self) -> None:
        super().__init__(1)
        self.go = asyncio.Event()

    async def do_write(self, lba: int, data: Buffer) -> None:
        if self.left > 0:
            self.left -= 1
            await self.go.wait()
            return
        await super().do_write(lba, data)


def test_a_write_that_hangs_takes_its_connection_along_and_is_sent_again() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = made.box(), await free_port()
        hung = Hung()
        shelf.engine.bdevs.add(hung)
        await shelf.serve(DRIVE, "fenced", port)
        async with Host(HOST) as host:
            options = HostOptions(loss=EAGER.loss, io_timeout_s=0.05)
            drive = await host.connect(DRIVE, [("127.0.0.1", port)], options)
            await drive.namespace(1).write(0, pattern(1, 1))
            assert bytes(await drive.namespace(1).read(0, 1)) == pattern(1, 1)
            assert drive.counters.lost == 1
        hung.go.set()

    run(scenario)
