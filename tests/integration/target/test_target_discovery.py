"""Discovery: what a host finds, and that it is told when that changes."""

from __future__ import annotations

from typing import Any

from dataplane.nvme import commands, logs
from dataplane.nvme.commands import Cns, LogId
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.identify import IdentifyController
from dataplane.nvme.logs import AsyncEvent, DiscoveryLog, SubsystemType
from dataplane.nvme.status import Status


async def look(admin: Any) -> DiscoveryLog:
    return DiscoveryLog.parse(await admin.ok(commands.get_log_page(LogId.DISCOVERY, 8192)))


def test_a_host_finds_what_it_may_use_and_hears_of_changes(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        assert (await wire.connect(nqn=DISCOVERY_NQN, kato_ms=15000)).code == 0
        await wire.enable()
        controller = IdentifyController.parse(await wire.ok(commands.identify(Cns.CONTROLLER)))
        assert (controller.cntrltype, controller.subnqn) == (2, DISCOVERY_NQN)
        assert (await look(wire)).entries == ()
        waiting = wire.submit(commands.async_event_request())
        await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn)
        event = AsyncEvent.parse((await wire.wait(waiting))[0].cdw0)
        assert event == AsyncEvent(logs.EventType.NOTICE, logs.Notice.DISCOVERY_LOG_CHANGE, LogId.DISCOVERY)
        found = await look(wire)
        assert [(item.subnqn, item.traddr, item.trsvcid, item.subtype) for item in found.entries] == [
            (lab.nqn, "127.0.0.1", str(bench.port), SubsystemType.NVM)
        ]
        await bench.rpc(
            "nvmf_discovery_add_referral",
            address={"trtype": "tcp", "traddr": "10.9.9.9", "trsvcid": "8009"},
        )
        after = await look(wire)
        assert (after.generation > found.generation, after.entries[1].subtype) == (True, SubsystemType.REFERRAL)
        for command, status in (
            (commands.identify(Cns.ACTIVE_NSIDS), Status.INVALID_FIELD),
            (commands.get_log_page(LogId.ANA, 512), Status.INVALID_LOG_PAGE),
            (commands.get_features(6), Status.INVALID_FIELD),
            (commands.abort(0, 1), Status.INVALID_OPCODE),
        ):
            assert await wire.status(command) == status
        await wire.close()

    lab.run(scenario, allow_any_host=False)


def test_the_discovery_subsystem_shows_itself_where_it_was_given_a_listener(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.rpc("nvmf_subsystem_add_listener", nqn=DISCOVERY_NQN, listen_address=bench.address())
        wire = await bench.wire()
        await wire.connect(nqn=DISCOVERY_NQN)
        await wire.enable()
        entries = (await look(wire)).entries
        assert [(item.subtype, item.eflags) for item in entries] == [(SubsystemType.CURRENT_DISCOVERY, 3), (2, 0)]
        assert (await wire.connect(nqn=DISCOVERY_NQN, qid=1)).code == Status.INVALID_OPCODE
        await wire.close()

    lab.run(scenario)
