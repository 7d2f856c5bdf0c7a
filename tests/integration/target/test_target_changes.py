"""What hosts see and are told while an administrator changes things under them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dataplane.nvme import commands, identify, logs
from dataplane.nvme.commands import Cns, Feature, LogId
from dataplane.nvme.logs import AnaState, AsyncEvent, EventType, Notice
from dataplane.nvme.status import Status

ANA_EVENT = AsyncEvent(EventType.NOTICE, Notice.ANA_CHANGE, LogId.ANA)
NAMESPACE_EVENT = AsyncEvent(EventType.NOTICE, Notice.NAMESPACE_ATTRIBUTE_CHANGED, LogId.CHANGED_NAMESPACES)


async def changed(admin: Any) -> list[int]:
    return identify.parse_nsid_list(await admin.ok(commands.get_log_page(LogId.CHANGED_NAMESPACES, 4096)))


async def ana_states(admin: Any) -> list[int]:
    page = logs.AnaLog.parse(await admin.ok(commands.get_log_page(LogId.ANA, 4096)))
    return [group.state for group in page.groups]


def test_an_ana_group_moves_and_hosts_are_told_once_until_they_look(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()

        async def set_state(state: str, **group: int) -> None:
            await bench.rpc(
                "nvmf_subsystem_listener_set_ana_state", nqn=lab.nqn, listen_address=bench.address(),
                ana_state=state, **group,
            )  # fmt: skip

        waiting = host.admin.submit(commands.async_event_request())
        await set_state("inaccessible", anagrpid=2)
        assert await host.event(waiting) == ANA_EVENT
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0
        completion, _ = await host.io.run(commands.read(2, 0, 1, 512))
        assert (completion.code, completion.dnr) == (Status.ANA_INACCESSIBLE, False)
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=2))
        assert (identify.IdentifyNamespace.parse(raw).nsze, identify.IdentifyNamespace.parse(raw).nuse) == (4096, 0)
        feature = commands.get_features(Feature.ERROR_RECOVERY, nsid=2)
        assert await host.admin.status(feature) == Status.ANA_INACCESSIBLE

        second = host.admin.submit(commands.async_event_request())
        await set_state("inaccessible")
        assert await ana_states(host.admin) == [AnaState.INACCESSIBLE, AnaState.INACCESSIBLE]
        await set_state("optimized", anagrpid=1)
        assert await host.event(second) == ANA_EVENT
        retained = commands.get_log_page(LogId.ANA, 4096, retain_event=True)
        assert logs.AnaLog.parse(await host.admin.ok(retained)).groups[0].state == AnaState.OPTIMIZED
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0

    lab.run(scenario)


def test_namespaces_come_and_go(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        waiting = host.admin.submit(commands.async_event_request())
        await bench.add_bdev("m3")
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "m3"})
        assert await host.event(waiting) == NAMESPACE_EVENT
        assert await changed(host.admin) == [3]
        assert await host.nsids() == [1, 2, 3]

        waiting = host.admin.submit(commands.async_event_request())
        await bench.rpc("bdev_malloc_delete", name="m3")
        assert await host.event(waiting) == NAMESPACE_EVENT
        await bench.rpc("nvmf_subsystem_remove_ns", nqn=lab.nqn, nsid=2)
        assert await changed(host.admin) == [2, 3]
        completion, _ = await host.io.run(commands.read(2, 0, 1, 512))
        assert (completion.code, completion.dnr) == (Status.INVALID_NAMESPACE, True)
        assert bench.engine.bdevs.get("m2").claimed_by is None

    lab.run(scenario)


def test_a_namespace_is_seen_by_the_hosts_it_was_given_to(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.add_bdev("m3")
        namespace = {"bdev_name": "m3", "nsid": 3, "no_auto_visible": True}
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace=namespace)
        host, stranger = await bench.host(), await bench.host(host="nqn.2025-01.io.ws7000:stranger")
        assert await host.nsids() == await stranger.nsids() == [1, 2]
        assert await host.io.status(commands.read(3, 0, 1, 512)) == Status.INVALID_NAMESPACE
        waiting = host.admin.submit(commands.async_event_request())
        await bench.rpc("nvmf_ns_add_host", nqn=lab.nqn, nsid=3, host=lab.hostnqn)
        assert await host.event(waiting) == NAMESPACE_EVENT
        assert await changed(host.admin) == [3]
        assert (await host.nsids(), await stranger.nsids()) == ([1, 2, 3], [1, 2])
        assert await host.io.status(commands.read(3, 0, 1, 512)) == 0
        assert await stranger.io.status(commands.read(3, 0, 1, 512)) == Status.INVALID_NAMESPACE
        await bench.rpc("nvmf_ns_remove_host", nqn=lab.nqn, nsid=3, host=lab.hostnqn)
        assert await host.io.status(commands.read(3, 0, 1, 512)) == Status.INVALID_NAMESPACE

    lab.run(scenario)


@pytest.mark.parametrize("kind", ["slow_bdev", "hasty_bdev"])
def test_a_change_waits_for_io_in_flight_and_new_io_waits_for_the_change(lab: Any, kind: str) -> None:
    async def scenario(bench: Any) -> None:
        slow = getattr(lab, kind)("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3})
        host = await bench.host()
        first = host.io.submit(commands.read(3, 0, 1, 512))
        await slow.started.wait()
        moving = asyncio.create_task(bench.rpc("nvmf_subsystem_set_ns_ana_group", nqn=lab.nqn, nsid=3, anagrpid=5))
        second = host.io.submit(commands.read(3, 1, 1, 512))
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0
        assert not moving.done()
        assert {first, second}.isdisjoint(host.io.done)
        slow.go.set()
        assert await moving is True
        assert (await host.io.wait(first))[0].code == (await host.io.wait(second))[0].code == 0
        assert (await ana_states(host.admin)) == [1, 1, 1]

    lab.run(scenario)


@pytest.mark.parametrize("kind", ["slow_bdev", "hasty_bdev"])
def test_io_that_waits_for_a_change_goes_with_its_connection(lab: Any, kind: str) -> None:
    async def scenario(bench: Any) -> None:
        slow = getattr(lab, kind)("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3})
        host = await bench.host()
        host.io.submit(commands.read(3, 0, 1, 512))
        await slow.started.wait()
        removing = asyncio.create_task(bench.rpc("nvmf_subsystem_remove_ns", nqn=lab.nqn, nsid=3))
        late = commands.write(3, 8, 1, 512).with_data(512, in_capsule=True)
        host.io.submit(late, b"late".ljust(512))
        assert await host.io.status(commands.read(1, 0, 1, 512)) == 0
        queue = bench.engine.nvmf.find(lab.nqn).controllers[host.cntlid].queues[1]
        await host.io.close()
        while not queue.gone:
            await asyncio.sleep(0)
        assert not queue.closed.done()  # the read is still in the device
        slow.go.set()
        await removing
        await queue.closed
        assert bytes(slow.store) == bytes(len(slow.store))

    lab.run(scenario)


def test_removing_a_listener_drops_only_who_came_that_way(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        other_port = await bench.listen()
        here, there = await bench.host(), await bench.host(port=other_port)
        await bench.rpc("nvmf_subsystem_remove_listener", nqn=lab.nqn, listen_address=bench.address())
        await here.admin.ended()
        await here.io.ended()
        assert await there.io.status(commands.read(1, 0, 1, 512)) == 0
        left = await bench.rpc("nvmf_subsystem_get_controllers", nqn=lab.nqn)
        assert [item["cntlid"] for item in left] == [there.cntlid]
        await bench.rpc("nvmf_delete_subsystem", nqn=lab.nqn)
        await there.admin.ended()
        assert bench.engine.bdevs.get("m1").claimed_by is None

    lab.run(scenario)
