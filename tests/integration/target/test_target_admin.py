"""Who may connect, what a controller says, and the features hosts ask for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dataplane.nvme import commands, fabrics, identify, logs
from dataplane.nvme.commands import AdminOp, Cns, Command, Feature, LogId
from dataplane.nvme.fabrics import Property
from dataplane.nvme.status import Status

OTHER = "nqn.2025-01.io.ws7000:other"


def test_connect_is_refused_with_the_field_that_is_wrong(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        assert await wire.status(commands.keep_alive()) == Status.COMMAND_SEQUENCE_ERROR
        unknown = await wire.connect(nqn="nqn.2025-01.io.ws7000:none")
        assert (unknown.code, unknown.cdw0) == (Status.FABRICS_INVALID_PARAM, 256 | 1 << 16)
        static = await wire.connect(cntlid=5)
        assert (static.code, static.cdw0) == (Status.FABRICS_INVALID_PARAM, 16 | 1 << 16)
        deep = await wire.connect(entries=129)
        assert (deep.code, deep.cdw0) == (Status.FABRICS_INVALID_PARAM, 44)
        assert (await wire.connect(qid=1, cntlid=77)).cdw0 == 16 | 1 << 16
        assert (await wire.connect()).code == 0
        assert (await wire.connect()).code == Status.INVALID_OPCODE
        await wire.close()

    lab.run(scenario)


def test_only_allowed_hosts_connect(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        assert (await wire.connect()).code == Status.FABRICS_INVALID_HOST
        await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn)
        assert (await wire.connect(host=OTHER)).code == Status.FABRICS_INVALID_HOST
        assert (await wire.connect()).code == 0
        await wire.enable()
        await bench.rpc("nvmf_subsystem_remove_host", nqn=lab.nqn, host=lab.hostnqn)
        await wire.ended()
        assert await bench.rpc("nvmf_subsystem_get_controllers", nqn=lab.nqn) == []
        await wire.close()

    lab.run(scenario, allow_any_host=False)


def test_controller_identifiers_come_from_the_range_and_are_used_again(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wires = [await bench.wire() for _ in range(3)]
        assert [(await wire.connect()).cdw0 for wire in wires[:2]] == [100, 101]
        assert (await wires[2].connect()).code == Status.INTERNAL_ERROR
        await wires[0].close()
        while len(bench.engine.nvmf.find(lab.nqn).controllers) > 1:
            await asyncio.sleep(0)
        assert (await wires[2].connect()).cdw0 == 100
        for wire in wires[1:]:
            await wire.close()

    lab.run(scenario, min_cntlid=100, max_cntlid=101)


def test_io_queues_need_an_enabled_controller_of_the_same_host(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        admin, io = await bench.wire(), await bench.wire()
        cntlid = (await admin.connect()).cdw0
        assert (await io.connect(qid=1, cntlid=cntlid)).cdw0 == 42
        assert await admin.status(commands.identify(Cns.CONTROLLER)) == Status.COMMAND_SEQUENCE_ERROR
        await admin.enable()
        assert (await io.connect(qid=1, cntlid=cntlid, host=OTHER)).code == Status.FABRICS_INVALID_PARAM
        assert (await io.connect(qid=200, cntlid=cntlid)).code == Status.INVALID_QUEUE_ID
        assert (await io.connect(qid=1, cntlid=cntlid)).code == 0
        again = await bench.wire()
        assert (await again.connect(qid=1, cntlid=cntlid)).code == Status.INVALID_QUEUE_ID
        await admin.ok(fabrics.property_set(Property.CC, 0))
        await io.ended()
        csts = (await admin.run(fabrics.property_get(Property.CSTS)))[0]
        assert (csts.code, csts.cdw0) == (0, 0)
        await admin.enable()
        assert (await again.connect(qid=1, cntlid=cntlid)).code == 0
        for wire in (admin, io, again):
            await wire.close()

    lab.run(scenario)


def test_properties(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        wire = await bench.wire()
        await wire.connect()
        cap = (await wire.run(fabrics.property_get(Property.CAP, wide=True)))[0]
        value = fabrics.Capabilities.parse(fabrics.property_value(cap.cdw0, cap.cdw1))
        assert (value.mqes, value.css, value.timeout, value.contiguous) == (127, 1, 30, True)
        assert (await wire.run(fabrics.property_get(Property.VS)))[0].cdw0 == 0x20000
        assert await wire.status(fabrics.property_get(0x1000)) == Status.FABRICS_INVALID_PARAM
        assert await wire.status(fabrics.property_set(Property.VS, 1)) == Status.FABRICS_INVALID_PARAM
        assert await wire.status(fabrics.property_set(Property.CC, 1 << 7)) == Status.FABRICS_INVALID_PARAM
        assert await wire.status(fabrics.disconnect()) == Status.INVALID_OPCODE
        await wire.enable()
        assert (await wire.run(fabrics.property_get(Property.CSTS)))[0].cdw0 == fabrics.CSTS_READY
        await wire.ok(fabrics.property_set(Property.CC, 0x464001))
        csts = (await wire.run(fabrics.property_get(Property.CSTS)))[0].cdw0
        assert csts & fabrics.CSTS_SHUTDOWN_MASK == fabrics.CSTS_SHUTDOWN_COMPLETE
        await wire.close()

    lab.run(scenario)


def test_identify(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        controller = identify.IdentifyController.parse(await host.admin.ok(commands.identify(Cns.CONTROLLER)))
        assert (controller.sn, controller.cntlid, controller.nn, controller.mdts) == ("S1", 1, 8, 5)
        assert controller.cmic & identify.CMIC_ANA
        assert controller.oncs & identify.ONCS_RESERVATIONS
        assert controller.oncs & identify.ONCS_WRITE_ZEROES
        assert controller.fuses == identify.FUSES_COMPARE_AND_WRITE
        assert (controller.ioccsz, controller.subnqn, controller.anagrpmax) == (260, lab.nqn, 8)
        assert await host.nsids() == [1, 2]
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=2))
        namespace = identify.IdentifyNamespace.parse(raw)
        assert (namespace.nsze, namespace.block_size, namespace.anagrpid, namespace.nmic) == (4096, 512, 2, 1)
        ids = identify.NamespaceIds.parse(await host.admin.ok(commands.identify(Cns.NS_DESCRIPTORS, nsid=2)))
        assert ids.nguid == ids.uuid == namespace.nguid != bytes(16)
        independent = await host.admin.ok(commands.identify(Cns.INDEPENDENT_NAMESPACE, nsid=2))
        assert identify.IndependentNamespace.parse(independent).anagrpid == 2
        limits = await host.admin.ok(commands.identify(Cns.CSI_CONTROLLER))
        assert identify.IdentifyNvmController.parse(limits).wzsl == 12
        assert await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=5)) == bytes(4096)
        for command, status in (
            (commands.identify(Cns.NAMESPACE, nsid=9), Status.INVALID_NAMESPACE),
            (commands.identify(Cns.NS_DESCRIPTORS, nsid=5), Status.INVALID_FIELD),
            (commands.identify(0x55), Status.INVALID_FIELD),
            (commands.identify(Cns.CONTROLLER, size=512), Status.INVALID_FIELD),
        ):
            assert await host.admin.status(command) == status

    lab.run(scenario)


def test_features(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(kato_ms=12_500, hostid=bytes(range(16)))
        admin = host.admin

        async def value(feature: Feature) -> int:
            return int((await admin.run(commands.get_features(feature)))[0].cdw0)

        assert await value(Feature.KEEP_ALIVE_TIMER) == 20_000
        assert await value(Feature.NUMBER_OF_QUEUES) == 126 | 126 << 16
        assert await value(Feature.VOLATILE_WRITE_CACHE) == 1
        await admin.ok(commands.set_features(Feature.VOLATILE_WRITE_CACHE, 0))
        assert await value(Feature.VOLATILE_WRITE_CACHE) == 0
        await admin.ok(commands.set_features(Feature.KEEP_ALIVE_TIMER, 30_000))
        assert await value(Feature.KEEP_ALIVE_TIMER) == 30_000
        identifier = commands.get_features(Feature.HOST_IDENTIFIER, size=16, cdw11=1)
        assert await admin.ok(identifier) == bytes(range(16))
        behavior = bytes((1,)).ljust(512, b"\0")
        await admin.ok(commands.set_features(Feature.HOST_BEHAVIOR, size=512), behavior)
        assert await admin.ok(commands.get_features(Feature.HOST_BEHAVIOR, size=512)) == behavior
        for command, status in (
            (commands.set_features(Feature.KEEP_ALIVE_TIMER, 0), Status.KEEP_ALIVE_INVALID),
            (commands.set_features(Feature.NUMBER_OF_QUEUES, 0), Status.COMMAND_SEQUENCE_ERROR),
            (commands.set_features(Feature.NUMBER_OF_QUEUES, 0xFFFF), Status.INVALID_FIELD),
            (commands.set_features(Feature.INTERRUPT_COALESCING, 1), Status.FEATURE_NOT_CHANGEABLE),
            (commands.set_features(Feature.HOST_IDENTIFIER, 1), Status.COMMAND_SEQUENCE_ERROR),
            (commands.set_features(Feature.ARBITRATION, 1, nsid=1), Status.FEATURE_NOT_NAMESPACE_SPECIFIC),
            (commands.set_features(1 << 31 | Feature.ARBITRATION), Status.FEATURE_NOT_SAVEABLE),
            (commands.get_features(0x7E), Status.INVALID_FIELD),
            (commands.get_features(Feature.ARBITRATION, nsid=9), Status.INVALID_NAMESPACE),
            (Command(0x11), Status.INVALID_OPCODE),
            (Command(AdminOp.KEEP_ALIVE, nsid=1), Status.INVALID_FIELD),
        ):
            assert await admin.status(command) == status, command

    lab.run(scenario)


def test_log_pages(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        admin = (await bench.host()).admin
        whole = await admin.ok(commands.get_log_page(LogId.ANA, 4096))
        assert [group.nsids for group in logs.AnaLog.parse(whole).groups] == [(1,), (2,)]
        part = await admin.ok(commands.get_log_page(LogId.ANA, 36, offset=16))
        assert part == whole[16:52]
        effects = logs.parse_effects_log(await admin.ok(commands.get_log_page(LogId.COMMAND_EFFECTS, 4096)))
        assert set(effects[1]) == {0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0D, 0x0E, 0x11, 0x15, 0x19}
        supported = await admin.ok(commands.get_log_page(LogId.SUPPORTED, 1024))
        assert [page for page in range(256) if supported[4 * page]] == [0, 1, 2, 3, 4, 5, 0x0C, 0x12, 0x13, 0x80]
        for page in (LogId.ERROR, LogId.SMART, LogId.FIRMWARE_SLOT, LogId.FEATURE_EFFECTS, LogId.MI_EFFECTS):
            assert len(await admin.ok(commands.get_log_page(page, 512))) == 512
        for command, status in (
            (commands.get_log_page(0xC0, 512), Status.INVALID_LOG_PAGE),
            (commands.get_log_page(LogId.ANA, 512, offset=2), Status.INVALID_FIELD),
            (commands.get_log_page(LogId.ANA, 512, offset=1 << 20), Status.INVALID_FIELD),
            (commands.get_log_page(LogId.ANA, 512, nsid=1), Status.INVALID_FIELD),
            (commands.get_log_page(LogId.ANA, 512)._replace(length=256), Status.INVALID_FIELD),
        ):
            assert await admin.status(command) == status, command

    lab.run(scenario)


def test_a_silent_host_is_dropped_and_one_that_keeps_alive_is_not(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        lively, silent = await bench.host(kato_ms=300), await bench.host(kato_ms=300)
        dropped = asyncio.create_task(silent.admin.ended())
        while not dropped.done():
            await lively.admin.ok(commands.keep_alive())
        await silent.io.ended()
        controllers = await bench.rpc("nvmf_subsystem_get_controllers", nqn=lab.nqn)
        assert [item["cntlid"] for item in controllers] == [lively.cntlid]

    lab.run(scenario, transport={"kas": 1, "min_kato": 100})


def test_event_requests_are_limited_aborted_and_forgotten_when_reused(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        admin = (await bench.host()).admin
        waiting = [admin.submit(commands.async_event_request()) for _ in range(4)]
        assert await admin.status(commands.async_event_request()) == Status.ASYNC_EVENT_LIMIT
        aborted = (await admin.run(commands.abort(0, waiting[0])))[0]
        assert (aborted.code, aborted.cdw0) == (0, 0)
        assert (await admin.wait(waiting[0]))[0].code == Status.ABORTED_BY_REQUEST
        assert (await admin.run(commands.abort(0, 0x7777)))[0].cdw0 == 1
        admin.cid = waiting[1] - 1
        await admin.ok(commands.keep_alive())  # under the identifier of an event request
        await bench.rpc("nvmf_subsystem_remove_ns", nqn=lab.nqn, nsid=2)
        assert (await admin.wait(waiting[3]))[0].code == 0

    lab.run(scenario)


@pytest.mark.parametrize("state", ["optimized", "non_optimized", "inaccessible"])
def test_listeners_can_be_born_in_any_ana_state(lab: Any, state: str) -> None:
    async def scenario(bench: Any) -> None:
        port = await bench.listen(ana_state=state)
        host = await bench.host(port=port)
        wanted = Status.ANA_INACCESSIBLE if state == "inaccessible" else 0
        assert await host.io.status(commands.read(1, 0, 1, 512)) == wanted

    lab.run(scenario)
