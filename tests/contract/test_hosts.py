"""What a host meets: paths, ANA, durability, masking, discovery, limits.  The host is our own NVMe/TCP initiator."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dataplane.embedded.initiator.connection import TransportLost
from dataplane.embedded.initiator.host import Host, HostConnection, HostOptions
from dataplane.embedded.initiator.reconnect import LossPolicy
from dataplane.nvme import commands
from dataplane.nvme.status import NvmeError, Status
from dataplane.rpc.methods import nvmf, raid
from dataplane.rpc.values import ListenAddress

NQN = "nqn.2026-01.io.ws7000:contract:volume"
HOST = "nqn.2026-01.io.ws7000:host:a"
OTHER_HOST = "nqn.2026-01.io.ws7000:host:b"
BLOCK = 512
LOCAL = "127.0.0.1"
EAGER = HostOptions(loss=LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=0.05), connect_timeout_s=5)
Story = Callable[[Host], Awaitable[None]]


def play(story: Story, hostnqn: str = HOST) -> None:
    """Run the story of one host; it leaves nothing behind."""

    async def whole() -> None:
        async with asyncio.timeout(60), Host(hostnqn) as host:
            await story(host)

    asyncio.run(whole())


def pattern(seed: str, blocks: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(blocks * BLOCK)


async def engine_call(function: Callable[..., Any], *args: Any) -> None:
    """A call to an engine while the host goes on."""
    await asyncio.to_thread(function, *args)


async def ana(connection: HostConnection, path: int, state: str, group: int = 1) -> None:
    """Wait until the host knows that state of a path."""
    while connection.paths[path].ana.get(group) != state:
        await connection.change()


def two_paths(engine: Any, other: Any, first: str = "optimized", second: str = "inaccessible") -> list[tuple[str, int]]:
    """The same namespace on two engines, as two nodes serve a volume (each with memory of its own here)."""
    for node in (engine, other):
        node.malloc("m0")
    ports = [
        engine.serve(NQN, "m0", ana_state=first, min_cntlid=1, max_cntlid=99),
        other.serve(NQN, "m0", ana_state=second, min_cntlid=100, max_cntlid=199),
    ]
    return [(LOCAL, port) for port in ports]


def test_reads_see_what_was_written(engine: Any) -> None:
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(host: Host) -> None:
        space = (await host.connect(NQN, [(LOCAL, port)], EAGER)).namespace(1)
        assert (space.block_size, space.num_blocks) == (BLOCK, 8192)
        data = pattern("written", 600)
        await space.write(5, data)
        assert bytes(await space.read(5, 600)) == data
        await space.write(100, pattern("again", 1), fua=True)
        assert (
            bytes(await space.read(99, 3))
            == data[94 * BLOCK : 95 * BLOCK] + pattern("again", 1) + data[96 * BLOCK : 97 * BLOCK]
        )
        await space.flush()
        await space.write_zeroes(50, 10)
        assert bytes(await space.read(50, 10)) == bytes(10 * BLOCK)
        await space.deallocate(0, 8)

    play(story)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (commands.read(1, 8192, 1, BLOCK), Status.LBA_OUT_OF_RANGE),
        (commands.read(1, 8191, 2, BLOCK), Status.LBA_OUT_OF_RANGE),
        (commands.read(2, 0, 1, BLOCK), Status.INVALID_NAMESPACE),
        (commands.write_zeroes(1, 8192, 1), Status.LBA_OUT_OF_RANGE),
        (commands.Command(0x7E, nsid=1), Status.INVALID_OPCODE),
    ],
    ids=["behind the end", "across the end", "no namespace", "zeroes behind the end", "no command"],
)
def test_what_a_host_may_not_do_has_its_status(engine: Any, command: Any, status: Status) -> None:
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        reply = await connection.controllers[0].require().io(command, read_size=2 * BLOCK)
        assert reply.completion.code == status

    play(story)


def test_an_inaccessible_path_is_not_used_and_refuses(engine: Any, other: Any) -> None:
    paths = two_paths(engine, other)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, paths, EAGER)
        space = connection.namespace(1)
        for lba in range(20):
            await space.write(lba, pattern(str(lba), 1))
        assert [path.ana[1] for path in connection.paths] == ["optimized", "inaccessible"]
        assert [path.ios for path in connection.paths] == [20, 0]
        standby = connection.controllers[1].require()
        reply = await standby.io(commands.read(1, 0, 1, BLOCK), read_size=BLOCK)
        assert reply.completion.code == Status.ANA_INACCESSIBLE
        assert not reply.completion.dnr

    play(story)


def test_after_a_switchover_the_other_path_takes_the_io(engine: Any, other: Any) -> None:
    """Inaccessible on the old path before optimized on the new one, as the planner orders it."""
    paths = two_paths(engine, other)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, paths, EAGER)
        space = connection.namespace(1)
        await space.write(0, pattern("before", 1))
        await engine_call(engine.set_ana, NQN, paths[0][1], "inaccessible")
        waiting = asyncio.create_task(space.write(0, pattern("after", 1)))
        await ana(connection, 0, "inaccessible")
        await engine_call(other.set_ana, NQN, paths[1][1], "optimized")
        await waiting
        await ana(connection, 1, "optimized")
        used = [path.ios for path in connection.paths]
        assert bytes(await space.read(0, 1)) == pattern("after", 1)
        assert [path.ios for path in connection.paths] == [used[0], used[1] + 1]
        assert connection.counters.failed == 0

    play(story)


def test_a_non_optimized_path_is_used_when_it_is_the_best(engine: Any, other: Any) -> None:
    paths = two_paths(engine, other, "inaccessible", "non_optimized")

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, paths, EAGER)
        await connection.namespace(1).write(0, pattern("x", 1))
        assert [path.ios for path in connection.paths] == [0, 1]

    play(story)


def test_groups_of_one_subsystem_are_on_different_nodes(engine: Any, other: Any) -> None:
    for node in (engine, other):
        node.malloc("m0")
        node.malloc("m1")
        node.subsystem(NQN, allow_any_host=True, min_cntlid=1 if node is engine else 100)
        node.namespace(NQN, "m0", 1, group=1)
        node.namespace(NQN, "m1", 2, group=2)
    ports = [node.listen(NQN, "inaccessible") for node in (engine, other)]
    engine.set_ana(NQN, ports[0], "optimized", 1)
    other.set_ana(NQN, ports[1], "optimized", 2)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port) for port in ports], EAGER)
        await connection.namespace(1).write(0, pattern("x", 1))
        assert [path.ios for path in connection.paths] == [1, 0]
        await connection.namespace(2).write(0, pattern("x", 1))
        assert [path.ios for path in connection.paths] == [1, 1]

    play(story)


def test_setting_the_group_that_a_namespace_has_waits_for_its_io(engine: Any) -> None:
    """The drain barrier: ANA alone does not wait for I/O under way; this does, and no answer is lost by it."""
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")
    engine.rpc("bdev_set_qos_limit", name="m0", w_mbytes_per_sec=8)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        association = connection.controllers[0].require()
        data = pattern("x", 128)
        writes = [
            asyncio.create_task(association.io(commands.write(1, lba, 128, BLOCK), data)) for lba in range(0, 8192, 128)
        ]
        while not any(write.done() for write in writes):
            await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        await engine_call(engine.set_ana, NQN, port, "inaccessible")
        await engine_call(engine.run, nvmf.set_ns_ana_group(NQN, 1, 1))
        counted = engine.rpc("bdev_get_iostat", names=["m0"])["bdevs"][0]["num_write_ops"]
        replies = await asyncio.gather(*writes)
        done = sum(reply.completion.code == 0 for reply in replies)
        assert {reply.completion.code for reply in replies} <= {0, Status.ANA_INACCESSIBLE}
        assert done == counted, "everything that reached the device had reached it before the barrier was answered"
        assert engine.rpc("bdev_get_iostat", names=["m0"])["bdevs"][0]["num_write_ops"] == counted

    play(story)


def test_a_masked_namespace_is_invisible_until_the_host_is_added(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    engine.subsystem(NQN, allow_any_host=True)
    engine.namespace(NQN, "m0", 1)
    engine.namespace(NQN, "m1", 2, auto_visible=False)
    port = engine.listen(NQN)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        assert set(connection.namespaces) == {1}
        reply = await connection.controllers[0].require().io(commands.read(2, 0, 1, BLOCK), read_size=BLOCK)
        assert (reply.completion.code, reply.completion.dnr) == (Status.INVALID_NAMESPACE, True)
        await engine_call(engine.run, nvmf.ns_add_host(NQN, 2, HOST))
        while 2 not in connection.namespaces:
            await connection.change()
        await connection.namespace(2).write(0, pattern("x", 1))
        await engine_call(engine.run, nvmf.ns_remove_host(NQN, 2, HOST))
        while 2 in connection.namespaces:
            await connection.change()

    async def stranger(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        assert set(connection.namespaces) == {1}

    play(story)
    engine.run(nvmf.ns_add_host(NQN, 2, HOST))
    play(stranger, OTHER_HOST)


def test_namespaces_show_the_identities_they_were_given(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN, allow_any_host=True)
    engine.namespace(NQN, "m0", 5, group=3)
    port = engine.listen(NQN)

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        space = connection.namespace(5)
        assert space.uuid == "00000000-0000-0000-0000-000000000005"
        assert connection.paths[0].ana[3] == "optimized"

    play(story)


def test_a_host_that_is_not_allowed_is_refused(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0")
    port = engine.listen(NQN)
    engine.run(nvmf.add_host(NQN, HOST))

    async def refused(host: Host) -> None:
        with pytest.raises(TransportLost, match="SCT 1h SC 84h"):
            await host.connect(NQN, [(LOCAL, port)], EAGER)

    async def allowed(host: Host) -> None:
        assert (await host.connect(NQN, [(LOCAL, port)], EAGER)).paths[0].live

    play(refused, OTHER_HOST)
    play(allowed)


def test_removing_a_host_disconnects_it(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0")
    port = engine.listen(NQN)
    engine.run(nvmf.add_host(NQN, HOST))

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        (seen,) = engine.run(nvmf.get_controllers(NQN))
        assert (seen.host_nqn, seen.host_id) == (HOST, str(host.hostid))
        assert seen.io_qpairs == 2, "the admin queue is counted too"
        await engine_call(engine.run, nvmf.remove_host(NQN, HOST))
        while connection.paths[0].live:
            await connection.change()
        assert engine.run(nvmf.get_controllers(NQN)) == ()

    play(story)


def test_discovery_shows_a_host_only_what_it_may_connect_to(engine: Any) -> None:
    engine.subsystem(NQN)
    port = engine.listen(NQN)
    engine.run(nvmf.add_host(NQN, HOST))
    engine.subsystem(NQN + ":open", allow_any_host=True)
    open_port = engine.listen(NQN + ":open")

    def sees(*expected: tuple[str, str]) -> Story:
        async def story(host: Host) -> None:
            entries = await host.discover(LOCAL, port)
            found = {(entry.subnqn, entry.trsvcid.strip()) for entry in entries if entry.subtype == 2}
            assert found == set(expected)

        return story

    everyone = (NQN + ":open", str(open_port))
    play(sees((NQN, str(port)), everyone))
    play(sees(everyone), OTHER_HOST)


def test_controller_identifiers_stay_in_their_range_and_then_run_out(engine: Any) -> None:
    engine.malloc("m0")
    port = engine.serve(NQN, "m0", min_cntlid=300, max_cntlid=301)

    async def story(host: Host) -> None:
        made = [await host.connect(NQN, [(LOCAL, port)], EAGER) for _ in range(2)]
        assert {connection.paths[0].cntlid for connection in made} == {300, 301}
        with pytest.raises(TransportLost):
            await host.connect(NQN, [(LOCAL, port)], EAGER)

    play(story)


def test_a_short_keep_alive_timeout_is_raised_to_the_least_of_the_transport(engine: Any) -> None:
    """The host asks for 5 s and gets ``min_kato``, 10 s."""
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        association = connection.controllers[0].require()
        reply = await association.admin(commands.get_features(commands.Feature.KEEP_ALIVE_TIMER))
        assert reply.completion.cdw0 == 10_000
        assert (await association.admin(commands.keep_alive())).completion.code == 0

    play(story)


def test_a_removed_listener_ends_its_connections(engine: Any, other: Any) -> None:
    paths = two_paths(engine, other, "optimized", "optimized")

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, paths, EAGER)
        await engine_call(engine.run, nvmf.remove_listener(NQN, ListenAddress.of("tcp", *paths[0])))
        while connection.paths[0].live:
            await connection.change()
        await connection.namespace(1).write(0, pattern("x", 1))
        assert connection.counters.failed == 0

    play(story)


def test_stripes_land_on_their_columns(engine: Any) -> None:
    """Strip n of a raid0 over three columns is strip n // 3 of column n % 3."""
    for index in range(3):
        engine.malloc(f"m{index}")
    strip = 128
    engine.run(raid.create("v", level="raid0", base_bdevs=["m0", "m1", "m2"], strip_size_bytes=strip * BLOCK))
    port = engine.serve(NQN, "v")
    data = pattern("strips", 9 * strip)

    async def write(host: Host) -> None:
        await (await host.connect(NQN, [(LOCAL, port)], EAGER)).namespace(1).write(0, data)

    async def look(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        for column in range(3):
            found = bytes(await connection.namespace(column + 1).read(0, 3 * strip))
            strips = [data[n * strip * BLOCK : (n + 1) * strip * BLOCK] for n in range(column, 9, 3)]
            assert found == b"".join(strips), column

    play(write)
    engine.sweep_to_devices()
    port = engine.serve(NQN, "m0", "m1", "m2")
    play(look)


def test_both_legs_of_a_mirror_hold_the_same(engine: Any) -> None:
    for index in range(2):
        engine.malloc(f"m{index}")
    engine.run(raid.create("v", level="raid1", base_bdevs=["m0", "m1"]))
    port = engine.serve(NQN, "v")
    data = pattern("mirror", 64)

    async def write(host: Host) -> None:
        space = (await host.connect(NQN, [(LOCAL, port)], EAGER)).namespace(1)
        await space.write(7, data)
        await space.write_zeroes(8, 2)

    async def look(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        expected = data[:BLOCK] + bytes(2 * BLOCK) + data[3 * BLOCK :]
        for nsid in (1, 2):
            assert bytes(await connection.namespace(nsid).read(7, 64)) == expected

    play(write)
    engine.sweep_to_devices()
    port = engine.serve(NQN, "m0", "m1")
    play(look)


def test_a_concatenation_goes_on_where_the_first_ends(engine: Any) -> None:
    for index in range(2):
        engine.malloc(f"m{index}")
    engine.run(raid.create("v", level="concat", base_bdevs=["m0", "m1"], strip_size_bytes=64 * BLOCK))
    port = engine.serve(NQN, "v")
    data = pattern("border", 4)

    async def write(host: Host) -> None:
        await (await host.connect(NQN, [(LOCAL, port)], EAGER)).namespace(1).write(8190, data)

    async def look(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        assert bytes(await connection.namespace(1).read(8190, 2)) == data[: 2 * BLOCK]
        assert bytes(await connection.namespace(2).read(0, 2)) == data[2 * BLOCK :]

    play(write)
    engine.sweep_to_devices()
    port = engine.serve(NQN, "m0", "m1")
    play(look)


def test_reservations_are_not_offered(engine: Any) -> None:
    """Both engines keep them per process, so two nodes would disagree; the array never offers them."""
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(host: Host) -> None:
        connection = await host.connect(NQN, [(LOCAL, port)], EAGER)
        assert not connection.controllers[0].identity.oncs & 1 << 5

    play(story)


def test_a_subsystem_that_is_not_there(engine: Any) -> None:
    engine.subsystem(NQN, allow_any_host=True)
    port = engine.listen(NQN)

    async def story(host: Host) -> None:
        with pytest.raises(TransportLost, match="SCT 1h SC 82h"):
            await host.connect(NQN + "x", [(LOCAL, port)], EAGER)
        with pytest.raises((TransportLost, NvmeError)):
            await host.discover(LOCAL, 1)

    play(story)
