"""The discovery controller as hosts meet it: its log, its notices, referrals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from wire_host import HOST, NQN, Wire

from dataplane.embedded.initiator.host import Host as Initiator
from dataplane.nvme import commands, identify, logs
from dataplane.nvme.commands import Cns, Feature, LogId
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.status import Status
from dataplane.rpc.methods import nvmf
from dataplane.rpc.values import ListenAddress


def discover(port: int, story: Callable[[Wire], Awaitable[None]]) -> None:
    """One host at the discovery controller."""

    async def whole() -> None:
        async with asyncio.timeout(60):
            wire = await Wire.open(port)
            try:
                assert (await wire.connect(nqn=DISCOVERY_NQN, host=HOST, kato_ms=30_000)).code == 0
                await wire.enable()
                await story(wire)
            finally:
                await wire.close()

    asyncio.run(whole())


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with two namespaces, their groups apart, and ANA."""
    engine.subsystem(NQN, allow_any_host=True)
    for nsid in (1, 2):
        engine.malloc(f"m{nsid}")
        engine.namespace(NQN, f"m{nsid}", nsid, group=nsid)
    return int(engine.listen(NQN))


def test_what_a_discovery_controller_answers(port: int) -> None:
    async def story(wire: Wire) -> None:
        raw = await wire.ok(commands.identify(Cns.CONTROLLER))
        identity = identify.IdentifyController.parse(raw)
        assert (identity.cntrltype, identity.oncs, identity.nn) == (2, 0, 0)
        assert identity.fuses == identify.FUSES_COMPARE_AND_WRITE, "as SPDK says, which can do no I/O here either"
        for command, status in (
            (commands.identify(Cns.ACTIVE_NSIDS), Status.INVALID_FIELD),
            (commands.get_log_page(LogId.SMART, 512), Status.INVALID_LOG_PAGE),
            (commands.get_features(Feature.ARBITRATION), Status.INVALID_FIELD),
            (commands.set_features(Feature.ARBITRATION), Status.INVALID_FIELD),
            (commands.abort(0, 1), Status.INVALID_OPCODE),
            (commands.get_features(Feature.KEEP_ALIVE_TIMER), 0),
            (commands.keep_alive(), 0),
        ):
            assert await wire.status(command) == status, command
        supported = await wire.ok(commands.get_log_page(LogId.SUPPORTED, 1024))
        assert {number for number in range(256) if supported[4 * number] & 1} == {0, 0x12, 0x70}

    discover(port, story)


def test_a_change_of_the_discovery_log_is_told_and_counted(engine: Any, port: int) -> None:
    async def read(wire: Wire) -> logs.DiscoveryLog:
        return logs.DiscoveryLog.parse(await wire.ok(commands.get_log_page(LogId.DISCOVERY, 8192)))

    async def story(wire: Wire) -> None:
        before = await read(wire)
        waiting = wire.submit(commands.async_event_request())
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}
        await asyncio.to_thread(lambda: engine.rpc("nvmf_discovery_add_referral", address=address))
        try:
            event = logs.AsyncEvent.parse((await wire.wait(waiting))[0].cdw0)
            assert (event.info, event.log) == (logs.Notice.DISCOVERY_LOG_CHANGE, LogId.DISCOVERY)
            after = await read(wire)
            assert after.generation > before.generation
            (referral,) = [entry for entry in after.entries if entry.subtype == logs.SubsystemType.REFERRAL]
            assert (referral.traddr, referral.trsvcid, referral.subnqn) == ("127.0.0.1", "4420", DISCOVERY_NQN)
        finally:
            await asyncio.to_thread(lambda: engine.rpc("nvmf_discovery_remove_referral", address=address))

    discover(port, story)


def test_a_host_follows_referrals(engine: Any, other: Any, port: int) -> None:
    """Two engines that name each other: everything is found, and that it goes round is told."""
    there = other.serve(f"{NQN}:other")

    def address(number: int) -> dict[str, str]:
        return {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(number)}

    async def story() -> None:
        async with asyncio.timeout(60), Initiator(HOST) as host:
            found = await host.explore("127.0.0.1", port)
        assert [entry.subnqn for entry in found.entries] == [NQN, f"{NQN}:other"]
        assert found.asked == (("127.0.0.1", port), ("127.0.0.1", there))
        (back,) = found.not_asked
        assert (back.referral.trsvcid, back.reason) == (str(port), "it leads back to where it came from")

    engine.rpc("nvmf_discovery_add_referral", address=address(there))
    other.rpc("nvmf_discovery_add_referral", address=address(port))
    try:
        asyncio.run(story())
    finally:
        engine.rpc("nvmf_discovery_remove_referral", address=address(there))
        other.rpc("nvmf_discovery_remove_referral", address=address(port))


def test_a_listener_is_of_the_address_that_it_is_asked_for(engine: Any, port: int) -> None:
    """What discovery shows can be connected to."""

    async def story(wire: Wire) -> None:
        log = logs.DiscoveryLog.parse(await wire.ok(commands.get_log_page(LogId.DISCOVERY, 8192)))
        shown = [(e.subnqn, e.traddr, e.trsvcid) for e in log.entries if e.subtype == logs.SubsystemType.NVM]
        assert shown == [(NQN, "127.0.0.1", str(port))]

    discover(port, story)
    engine.run(nvmf.remove_listener(NQN, ListenAddress.of("tcp", "127.0.0.1", port)))
