"""Which path an I/O of a node takes to a drive: policies, ANA states, preference, failover and failback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node_lab import CHANGED, DRIVE, EXPORT, LAUNCHED, LOCAL, NodeLab, Seen, pattern

from dataplane.launch import EngineProcess
from dataplane.nvme.commands import IoOp
from dataplane.nvme.status import Status
from dataplane.rpc.methods import nvmf

NO_DEVICE, INVALID, NOT_PERMITTED, INTERNAL = -19, -22, -1, -32603
WAITING = "reconnect_is_delayed"
ACTIVE = {"policy": "active_active"}
LONG_US = 1 << 40


@pytest.fixture
def lab(engine: Any, other: Any) -> Iterator[NodeLab]:
    """The node counts what goes over each path."""
    made = NodeLab(engine, other)
    made.options(io_path_stat=True)
    yield made
    made.close()


async def share(seen: Seen, count: int) -> list[int]:
    """Write so often, one after another: how many went over each port, in the order of the ports' attaching."""
    ports = seen.lab.ports()
    before = seen.lab.path_writes()
    for lba in range(count):
        assert await seen.write(lba) == 0
    after = seen.lab.path_writes()
    return [after[port] - before[port] for port in ports]


async def usable(seen: Seen, *ports: int) -> None:
    """Return when exactly these are connected and accessible."""

    def reached() -> bool:
        paths = seen.lab.io_paths()
        return {port for port, path in paths.items() if path["connected"] and path["accessible"]} == set(ports)

    await seen.until(reached)


# -- one path at a time


def test_active_passive_uses_the_first_path_only(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        assert await share(seen, 5) == [5, 0]
        assert {port: path["current"] for port, path in lab.io_paths().items()} == {first: True, second: False}

    lab.play(story)


@pytest.mark.parametrize("failback", [True, False])
def test_a_path_that_returns_is_used_again_unless_failback_is_off(lab: NodeLab, failback: bool) -> None:
    lab.options(disable_auto_failback=not failback)
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, first)
        await usable(seen, second)
        assert await share(seen, 3) == [0, 3]
        await seen.call(lab.bring_back, first)
        await seen.states("enabled", "enabled")
        await usable(seen, first, second)
        assert await share(seen, 3) == ([3, 0] if failback else [0, 3])
        await seen.call(lab.lose, second)
        await usable(seen, first)
        assert await share(seen, 3) == [3, 0]

    lab.play(story)


def test_no_write_fails_when_its_path_is_lost_under_it(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)
    lab.slow(2)

    async def story(seen: Seen) -> None:
        lbas = range(0, 32 * 128, 128)
        writes = await seen.begin(*lbas, blocks=128)
        await seen.until(lambda: lab.written() > 0)
        await seen.call(lab.lose, first)
        await usable(seen, second)
        await seen.call(lab.slow, 0)
        assert await asyncio.gather(*writes) == [0] * 32
        assert lab.path_writes()[second] > 0
        for lba in lbas:
            assert await seen.read(lba, 128) == pattern(str(lba), 128)

    lab.play(story)


def test_a_preferred_path_is_asked_first(lab: NodeLab) -> None:
    lab.options(disable_auto_failback=True)
    first, second, third = lab.paths("optimized", "optimized", "optimized")
    lab.attach(first, second, third)

    async def story(seen: Seen) -> None:
        assert await share(seen, 2) == [2, 0, 0]
        assert await seen.rpc("bdev_nvme_set_preferred_path", name="d0n1", cntlid=lab.cntlid(1)) is True
        assert await share(seen, 2) == [0, 2, 0]
        assert await seen.rpc("bdev_nvme_set_preferred_path", name="d0n1", cntlid=lab.cntlid(2)) is True
        assert await share(seen, 2) == [0, 0, 2]
        await seen.call(lab.lose, third)
        await usable(seen, first, second)
        assert await share(seen, 2) == [0, 2, 0]

    lab.play(story)


def test_failover_keeps_a_second_address_for_when_the_first_is_lost(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second, multipath="failover")

    async def story(seen: Seen) -> None:
        assert lab.ports() == [first]
        assert await seen.write(1) == 0
        await seen.call(lab.lose, first)
        await seen.until(lambda: lab.ports() == [second] and lab.states() == ["enabled"])
        assert await seen.write(2) == 0
        await seen.call(lab.bring_back, first)
        await seen.call(lab.lose, second)
        await seen.until(lambda: lab.ports() == [first] and lab.states() == ["enabled"])
        assert (await seen.read(1), await seen.read(2)) == (pattern("1"), pattern("2"))

    lab.play(story)


def test_a_disabled_controller_gives_its_io_to_the_others(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        assert await seen.rpc("bdev_nvme_disable_controller", name="d0", cntlid=lab.cntlid(0)) is True
        assert lab.states() == ["disabled", "enabled"]
        assert await share(seen, 3) == [0, 3]
        assert await seen.rpc("bdev_nvme_enable_controller", name="d0") is True
        assert lab.states() == ["enabled", "enabled"]
        assert await share(seen, 3) == [3, 0]

    lab.play(story)


# -- several at once


@pytest.mark.parametrize("min_io", [1, 2, 3])
def test_round_robin_moves_on_after_so_many(lab: NodeLab, min_io: int) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second, multipath_opts={**ACTIVE, "selector": "round_robin", "min_io": min_io})

    async def story(seen: Seen) -> None:
        turns = [await share(seen, min_io) for _ in range(4)]
        assert sorted(turns[:2]) == [[0, min_io], [min_io, 0]]
        assert turns[2:] == turns[:2]
        assert all(path["current"] for path in lab.io_paths().values())

    lab.play(story)


def test_round_robin_goes_on_with_the_paths_that_are_left(lab: NodeLab) -> None:
    ports = lab.paths("optimized", "optimized", "optimized")
    lab.attach(*ports, multipath_opts=ACTIVE)

    async def story(seen: Seen) -> None:
        assert await share(seen, 6) == [2, 2, 2]
        await seen.call(lab.lose, ports[1])
        await usable(seen, ports[0], ports[2])
        assert await share(seen, 6) == [3, 0, 3]
        await seen.call(lab.bring_back, ports[1])
        await usable(seen, *ports)
        assert await share(seen, 6) == [2, 2, 2]

    lab.play(story)


def test_the_shortest_queue_takes_the_next_io(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second, multipath_opts={**ACTIVE, "selector": "queue_depth"})

    async def story(seen: Seen) -> None:
        assert await share(seen, 3) == [3, 0]
        await seen.call(
            lab.inject, IoOp.WRITE, do_not_submit=True, timeout_in_us=LONG_US, sc=Status.RESERVATION_CONFLICT
        )
        (held,) = await seen.begin(9)
        assert await share(seen, 4) == [0, 4]
        assert not held.done()
        assert await seen.rpc("bdev_nvme_reset_controller", name="d0", cntlid=lab.cntlid(0)) is True
        assert await held == Status.RESERVATION_CONFLICT
        assert await share(seen, 3) == [3, 0]

    lab.play(story)


# -- ANA


def test_paths_are_taken_by_their_ana_state(lab: NodeLab) -> None:
    ports = lab.paths("inaccessible", "non_optimized", "optimized")
    lab.attach(*ports, multipath_opts=ACTIVE)

    async def story(seen: Seen) -> None:
        assert await share(seen, 4) == [0, 0, 4]
        await seen.call(lab.ana, ports[2], "inaccessible")
        await usable(seen, ports[1])
        assert await share(seen, 4) == [0, 4, 0]
        await seen.call(lab.ana, ports[0], "non_optimized")
        await usable(seen, *ports[:2])
        assert await share(seen, 4) == [2, 2, 0]
        await seen.call(lab.ana, ports[0], "optimized")
        await seen.until(lambda: [path["current"] for path in lab.io_paths().values()] == [True, False, False])
        assert await share(seen, 4) == [4, 0, 0]

    lab.play(story)


@pytest.mark.parametrize("failback", [True, False])
def test_io_follows_the_optimized_state(lab: NodeLab, failback: bool) -> None:
    """Failback or not: another ANA state is a reason to choose anew."""
    lab.options(disable_auto_failback=not failback)
    first, second = lab.paths("optimized", "inaccessible")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        assert await share(seen, 2) == [2, 0]
        await seen.call(lab.ana, first, "inaccessible")
        await seen.call(lab.ana, second, "optimized")
        await usable(seen, second)
        assert await share(seen, 2) == [0, 2]
        await seen.call(lab.ana, first, "optimized")
        await usable(seen, first, second)
        assert await share(seen, 2) == [2, 0]

    lab.play(story)


def test_io_waits_while_no_path_is_accessible(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "inaccessible")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        await seen.call(lab.ana, first, "inaccessible")
        await usable(seen)
        (write,) = await seen.begin(1)
        await seen.call(lab.ana, second, "non_optimized")
        assert await write == 0
        assert await share(seen, 2) == [0, 2]

    lab.play(story)


# -- two shelves


def test_the_death_of_a_shelf_costs_no_io(lab: NodeLab, tmp_path: Path) -> None:
    """The second path leads through another process."""
    (first,) = lab.paths("optimized")
    process = EngineProcess.start(lab.node.kind, tmp_path / "s.sock").ready()
    twin = type(lab.node)(process)
    try:
        twin.malloc("m0", 8)
        twin.subsystem(DRIVE, allow_any_host=True, min_cntlid=1000)
        twin.namespace(DRIVE, "m0")
        second = twin.listen(DRIVE)
        lab.attach(second, first, multipath_opts=ACTIVE)

        async def story(seen: Seen) -> None:
            assert await share(seen, 4) == [2, 2]
            writes = await seen.begin(*range(100))
            await seen.call(process.kill)
            assert await asyncio.gather(*writes) == [0] * 100
            await usable(seen, first)
            assert await share(seen, 4) == [0, 4]

        lab.play(story)
    finally:
        twin.stop()


# -- the methods


def policy(lab: NodeLab) -> dict[str, Any]:
    """As the device shows it."""
    (info,) = lab.node.rpc("bdev_get_bdevs", name="d0n1")
    return {key: value for key, value in info["driver_specific"].items() if key != "nvme"}


def saved(lab: NodeLab) -> list[dict[str, Any]]:
    """The policies that a saved configuration would set."""
    config = lab.node.rpc("framework_get_config", name="bdev")
    return [each["params"] for each in config if each["method"] == "bdev_nvme_set_multipath_policy"]


def test_the_policy_of_a_device_changes_while_it_is_used(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)
    assert (policy(lab), saved(lab)) == ({"mp_policy": "active_passive"}, [])

    async def story(seen: Seen) -> None:
        change = {"name": "d0n1", "policy": "active_active"}
        assert await seen.rpc("bdev_nvme_set_multipath_policy", **change) is True
        wanted = {"selector": "round_robin", "rr_min_io": 1}
        assert policy(lab) == {"mp_policy": "active_active", **wanted}
        assert saved(lab) == [{**change, **wanted}]
        assert await share(seen, 4) == [2, 2]
        change["selector"] = "queue_depth"
        assert await seen.rpc("bdev_nvme_set_multipath_policy", **change, rr_min_io=0) is True
        assert policy(lab) == {"mp_policy": "active_active", "selector": "queue_depth"}
        assert saved(lab) == [change]
        assert await share(seen, 4) == [4, 0]
        change = {"name": "d0n1", "policy": "active_passive"}
        assert await seen.rpc("bdev_nvme_set_multipath_policy", **change, rr_min_io=7) is True
        assert (policy(lab), saved(lab)) == ({"mp_policy": "active_passive"}, [change])
        assert await share(seen, 4) == [4, 0]

    lab.play(story)


def test_a_policy_given_with_the_drive_is_saved_with_the_device_too(lab: NodeLab) -> None:
    lab.attach(*lab.paths("optimized"), multipath_opts={**ACTIVE, "min_io": 5})
    assert saved(lab) == [{"name": "d0n1", **ACTIVE, "selector": "round_robin", "rr_min_io": 5}]


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"name": "zz", **ACTIVE}, NO_DEVICE),
        ({"name": "plain", **ACTIVE}, NO_DEVICE),
        ({"name": "d0n1"}, INTERNAL),
        ({"name": "d0n1", "policy": "both"}, INTERNAL),
        ({"name": "d0n1", **ACTIVE, "selector": "any"}, INTERNAL),
        ({"name": "d0n1", "policy": "active_passive", "selector": "round_robin"}, INTERNAL),
        ({"name": "d0n1", **ACTIVE, "rr_min_io": 0}, INVALID),
        ({"name": "zz", **ACTIVE, "rr_min_io": 0}, INVALID),
        ({"name": "d0n1", **ACTIVE, "rr_min_io": -1}, INTERNAL),
    ],
    ids=str,
)
def test_a_policy_that_is_refused(lab: NodeLab, given: dict[str, Any], number: int) -> None:
    lab.attach(*lab.paths("optimized"))
    lab.node.malloc("plain")
    assert lab.node.number("bdev_nvme_set_multipath_policy", **given) == number
    assert policy(lab) == {"mp_policy": "active_passive"}


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"name": "zz", "cntlid": 1}, NO_DEVICE),
        ({"name": "plain", "cntlid": 1}, NO_DEVICE),
        ({"name": "d0n1", "cntlid": 0xFFF0}, NO_DEVICE),
        ({"name": "d0n1"}, INTERNAL),
        ({"name": "d0n1", "cntlid": 1 << 16}, INTERNAL),
    ],
    ids=str,
)
def test_a_preference_that_is_refused(lab: NodeLab, given: dict[str, Any], number: int) -> None:
    lab.attach(*lab.paths("optimized"))
    lab.node.malloc("plain")
    assert lab.node.number("bdev_nvme_set_preferred_path", **given) == number


KINDS = ("read", "write", "unmap", "copy")
STAT = {
    *("bytes_read", "bytes_written", "bytes_unmapped", "bytes_copied"), *(f"num_{kind}_ops" for kind in KINDS),
    *(f"{which}{kind}_latency_ticks" for kind in KINDS for which in ("", "max_", "min_")),
}  # fmt: skip


def test_what_went_over_a_path_is_counted(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.write(0, pattern("x", 4))
        await seen.read(0, 2)
        await seen.call(lab.inject, IoOp.WRITE, err_count=1, sc=Status.RESERVATION_CONFLICT)
        await seen.write(0)
        found = lab.node.rpc("bdev_nvme_get_path_iostat", name="d0n1")
        assert found["name"] == "d0n1"
        ((path,),) = [found["stats"]]
        assert (path["trid"]["traddr"], path["trid"]["trsvcid"]) == (LOCAL, str(port))
        stat = path["stat"]
        assert set(stat) == STAT
        assert (stat["bytes_written"], stat["num_write_ops"]) == (5 * 512, 2)
        assert (stat["bytes_read"], stat["num_read_ops"]) == (1024, 1)
        assert (stat["num_unmap_ops"], stat["num_copy_ops"]) == (0, 0)
        assert 0 < stat["max_write_latency_ticks"] <= stat["write_latency_ticks"]

    lab.play(story)


def test_paths_are_counted_only_where_that_was_asked_for(lab: NodeLab) -> None:
    assert lab.node.number("bdev_nvme_get_path_iostat", name="zz") == NO_DEVICE
    assert lab.node.number("bdev_nvme_get_path_iostat", name=5) == INTERNAL
    lab.options(**LAUNCHED, **CHANGED)
    lab.attach(*lab.paths("optimized"))
    assert lab.node.number("bdev_nvme_get_path_iostat", name="d0n1") == NOT_PERMITTED


def test_a_drive_whose_only_path_is_detached_is_gone(lab: NodeLab) -> None:
    first, second = lab.paths("optimized", "optimized")
    lab.attach(first, second)

    async def story(seen: Seen) -> None:
        assert await seen.rpc("bdev_nvme_detach_controller", name="d0", trsvcid=str(first)) is True
        assert lab.ports() == [second]
        assert await share(seen, 2) == [2]

    lab.play(story)
    lab.node.run(nvmf.delete_subsystem(EXPORT))
    assert lab.node.rpc("bdev_nvme_detach_controller", name="d0", trsvcid=str(second)) is True
    assert "d0n1" not in lab.devices()
