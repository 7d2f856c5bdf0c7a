"""Admin commands as hosts send them: Identify, log pages, features, events, keep alive."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from wire_host import HOST, NQN, Host, play

from dataplane.nvme import commands, fabrics, identify, logs
from dataplane.nvme.commands import AdminOp, Cns, Command, Feature, LogId
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev, framework, nvmf

RESERVATIONS = {0x80, 0x82, 0x83}
"""What speaks of reservations, which an array masks: SPDK lists it none the less."""


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with two namespaces, their groups apart, and ANA."""
    engine.subsystem(NQN, allow_any_host=True)
    for nsid in (1, 2):
        engine.malloc(f"m{nsid}")
        engine.namespace(NQN, f"m{nsid}", nsid, group=nsid)
    return int(engine.listen(NQN))


# Identify


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (commands.identify(Cns.NAMESPACE, nsid=1), 0),
        (commands.identify(Cns.NAMESPACE, nsid=5), 0),
        (commands.identify(Cns.NAMESPACE, nsid=0), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.NAMESPACE, nsid=9), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.NAMESPACE, nsid=commands.NSID_ALL), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.CONTROLLER), 0),
        (commands.identify(Cns.CONTROLLER, nsid=7), 0),
        (commands.identify(Cns.CONTROLLER, size=4092), Status.INVALID_FIELD),
        (commands.identify(Cns.ACTIVE_NSIDS), 0),
        (commands.identify(Cns.ACTIVE_NSIDS, nsid=0xFFFFFFFE), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.NS_DESCRIPTORS, nsid=1), 0),
        (commands.identify(Cns.NS_DESCRIPTORS, nsid=5), Status.INVALID_FIELD),
        (commands.identify(Cns.NS_DESCRIPTORS, nsid=9), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.CSI_NAMESPACE, nsid=1), 0),
        (commands.identify(Cns.CSI_NAMESPACE, nsid=5), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.CSI_NAMESPACE, nsid=1, csi=2), 0),
        (commands.identify(Cns.CSI_CONTROLLER), 0),
        (commands.identify(Cns.CSI_CONTROLLER, csi=9), 0),
        (commands.identify(Cns.CSI_ACTIVE_NSIDS), 0),
        (commands.identify(Cns.CSI_ACTIVE_NSIDS, csi=2), Status.INVALID_FIELD),
        (commands.identify(Cns.INDEPENDENT_NAMESPACE, nsid=1), 0),
        (commands.identify(Cns.INDEPENDENT_NAMESPACE, nsid=5), 0),
        (commands.identify(Cns.INDEPENDENT_NAMESPACE, nsid=9), Status.INVALID_NAMESPACE),
        (commands.identify(Cns.COMMAND_SETS, cntid=0xFFFF), 0),
        (commands.identify(Cns.COMMAND_SETS, cntid=0x7777), Status.INVALID_FIELD),
        *((commands.identify(cns, nsid=1), Status.INVALID_FIELD) for cns in (0x04, 0x09, 0x0A, 0x10, 0x11, 0x12)),
        *((commands.identify(cns), Status.INVALID_FIELD) for cns in (0x13, 0x14, 0x15, 0x16, 0x17, 0x1D, 0xFF)),
    ],
)
def test_identify(port: int, command: Command, status: int) -> None:
    async def story(host: Host) -> None:
        assert await host.admin.status(command) == status

    play(port, story)


def test_what_identify_says_of_namespaces(port: int) -> None:
    async def story(host: Host) -> None:
        async def ask(cns: Cns, nsid: int = 0) -> bytes:
            return await host.admin.ok(commands.identify(cns, nsid=nsid))

        assert identify.parse_nsid_list(await ask(Cns.ACTIVE_NSIDS)) == [1, 2]
        assert identify.parse_nsid_list(await ask(Cns.ACTIVE_NSIDS, 1)) == [2]
        assert identify.parse_nsid_list(await ask(Cns.CSI_ACTIVE_NSIDS)) == [1, 2]
        assert await ask(Cns.NAMESPACE, 5) == bytes(4096)
        assert await ask(Cns.INDEPENDENT_NAMESPACE, 5) == bytes(4096)
        assert await ask(Cns.CSI_NAMESPACE, 1) == bytes(4096)
        independent = identify.IndependentNamespace.parse(await ask(Cns.INDEPENDENT_NAMESPACE, 2))
        assert (independent.nmic, independent.anagrpid, independent.nstat) == (1, 2, 1)
        ids = identify.NamespaceIds.parse(await ask(Cns.NS_DESCRIPTORS, 2))
        assert (ids.nguid[-1], ids.uuid[-1], ids.eui64, ids.csi) == (2, 2, b"", None)
        sets = await host.admin.ok(commands.identify(Cns.COMMAND_SETS, cntid=0xFFFF))
        assert sets == b"\1".ljust(4096, b"\0")

    play(port, story)


# Log pages


def test_pages_that_hold_nothing_are_zeroes_of_any_length(port: int) -> None:
    """No failed command is kept, and there is no medium whose health could be told."""

    async def story(host: Host) -> None:
        await host.io.status(commands.read(1, 1 << 40, 1, 512))
        for page in (LogId.ERROR, LogId.SMART, LogId.MI_EFFECTS):
            for size, offset in ((64, 0), (512, 0), (4096, 1 << 20)):
                assert await host.admin.ok(commands.get_log_page(page, size, offset=offset)) == bytes(size), page
        assert await host.admin.ok(commands.get_log_page(LogId.SMART, 512, nsid=1)) == bytes(512)

    play(port, story)


def test_the_other_pages(port: int) -> None:
    async def story(host: Host) -> None:
        async def page(log: LogId, size: int, **more: Any) -> bytes:
            return await host.admin.ok(commands.get_log_page(log, size, **more))

        slot = logs.FirmwareSlotLog.parse(await page(LogId.FIRMWARE_SLOT, 512))
        identity = identify.IdentifyController.parse(await host.admin.ok(commands.identify(Cns.CONTROLLER)))
        assert (slot.afi, slot.revision1) == (1, identity.fr)
        supported = await page(LogId.SUPPORTED, 1024)
        found = {number for number in range(256) if supported[4 * number] & 1}
        assert found - RESERVATIONS == {0, 1, 2, 3, 4, 5, 0x0C, 0x12, 0x13}
        admin, io = logs.parse_effects_log(await page(LogId.COMMAND_EFFECTS, 4096))
        whole, part, quiet, change = 0x300001, 0x200001, 0x100001, 0x100003
        assert admin == {0x02: whole, 0x06: whole, 0x08: part, 0x09: whole, 0x0A: whole, 0x0C: part, 0x18: part}
        assert io == {0: change, 1: change, 2: quiet, 5: quiet, 8: change, 9: change, 0x19: change}
        effects = struct.unpack("<256I", await page(LogId.FEATURE_EFFECTS, 1024))
        features = {number for number, effect in enumerate(effects) if effect & 1}
        assert features - RESERVATIONS == {1, 2, 4, 5, 6, 7, 8, 9, 0x0A, 0x0B, 0x0F, 0x16, 0x81}
        ana = await page(LogId.ANA, 16 + 2 * 36)
        read = logs.AnaLog.parse(ana)
        assert (read.change_count, [(each.group, each.state, each.nsids) for each in read.groups]) == (
            0, [(1, 1, (1,)), (2, 1, (2,))],
        )  # fmt: skip
        assert await page(LogId.ANA, 36, offset=16) == ana[16:52]
        without = logs.AnaLog.parse(await page(LogId.ANA, 16 + 2 * 32, specific=1))
        assert [each.nsids for each in without.groups] == [(), ()]

    play(port, story)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (commands.get_log_page(0xC0, 512), Status.INVALID_LOG_PAGE),
        (commands.get_log_page(0x06, 512), Status.INVALID_LOG_PAGE),
        (commands.get_log_page(LogId.DISCOVERY, 512), Status.INVALID_LOG_PAGE),
        (commands.get_log_page(LogId.ANA, 512, offset=2), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.ANA, 512, offset=16 + 2 * 36), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.ANA, 512, nsid=1), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.ERROR, 512, nsid=1), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.FIRMWARE_SLOT, 512, offset=512), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.CHANGED_NAMESPACES, 512, offset=4096), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.COMMAND_EFFECTS, 512, offset=4096), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.SUPPORTED, 512, offset=1024), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.FEATURE_EFFECTS, 512, offset=1024), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.ANA, 512)._replace(length=256), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.SMART, 512)._replace(length=0, sgl_type=0), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.SMART, 512)._replace(cdw11=0xFFFF), Status.INVALID_FIELD),
        (commands.get_log_page(LogId.SMART, 512, nsid=commands.NSID_ALL), 0),
    ],
)
def test_log_pages_that_cannot_be_read(port: int, command: Command, status: int) -> None:
    async def story(host: Host) -> None:
        assert await host.admin.status(command) == status

    play(port, story)


def test_a_namespace_change_is_told_once_and_listed(engine: Any, port: int) -> None:
    engine.malloc("m3")

    async def story(host: Host) -> None:
        changed = commands.get_log_page(LogId.CHANGED_NAMESPACES, 4096)
        first = host.admin.submit(commands.async_event_request())
        await asyncio.to_thread(engine.namespace, NQN, "m3", 3)
        event = await host.event(first)
        assert (event.kind, event.info, event.log) == (logs.EventType.NOTICE, 0, LogId.CHANGED_NAMESPACES)
        second = host.admin.submit(commands.async_event_request())
        await asyncio.to_thread(engine.run, nvmf.remove_ns(NQN, 2))
        listed = struct.unpack("<1024I", await host.admin.ok(changed))
        assert {nsid for nsid in listed if nsid} == {2, 3}
        assert second not in host.admin.done, "no event until the list was read"
        assert await host.admin.ok(changed) == bytes(4096), "reading clears it"
        await asyncio.to_thread(engine.run, nvmf.remove_ns(NQN, 3))
        assert (await host.event(second)).log == LogId.CHANGED_NAMESPACES

    play(port, story)


def test_more_changes_than_the_list_holds(engine: Any) -> None:
    engine.subsystem(NQN, allow_any_host=True, max_namespaces=1030)
    engine.run(bdev.null_create("n", block_size_bytes=512, size_bytes=1 << 20))
    port = engine.listen(NQN)

    def change(nsids: range) -> None:
        for nsid in nsids:
            engine.namespace(NQN, "n", nsid)
            engine.run(nvmf.remove_ns(NQN, nsid))

    async def story(host: Host) -> None:
        changed = commands.get_log_page(LogId.CHANGED_NAMESPACES, 4096, retain_event=True)
        await asyncio.to_thread(change, range(1, 1026))
        listed = struct.unpack("<1024I", await host.admin.ok(changed))
        assert (listed[0], set(listed[1:])) == (0xFFFFFFFF, {0})
        assert await host.admin.ok(changed) == bytes(4096)

    play(port, story)


# Features


def test_features_have_their_defaults(port: int) -> None:
    async def story(host: Host) -> None:
        async def value(feature: int, **more: int) -> int:
            completion = (await host.admin.run(commands.get_features(feature, **more)))[0]
            assert completion.code == 0, feature
            return completion.cdw0

        expected = {
            Feature.ARBITRATION: 0, Feature.POWER_MANAGEMENT: 0, Feature.TEMPERATURE_THRESHOLD: 0,
            Feature.ERROR_RECOVERY: 0, Feature.VOLATILE_WRITE_CACHE: 1, Feature.NUMBER_OF_QUEUES: 126 | 126 << 16,
            Feature.INTERRUPT_COALESCING: 0, Feature.WRITE_ATOMICITY: 0, Feature.ASYNC_EVENT: 0x900,
            Feature.KEEP_ALIVE_TIMER: 0,
        }  # fmt: skip
        assert {feature: await value(feature) for feature in expected} == expected
        assert await value(Feature.INTERRUPT_VECTOR, cdw11=3) == 3 | 1 << 16
        await host.admin.ok(commands.set_features(Feature.VOLATILE_WRITE_CACHE, 0))
        for select in (0, 1, 2, 3, 7):
            assert await value(Feature.VOLATILE_WRITE_CACHE, select=select) == 0, "SEL is not looked at"

    play(port, story)


@pytest.mark.parametrize(
    ("feature", "given", "kept"),
    [
        (Feature.ARBITRATION, 0xFFFFFFFF, 0xFFFFFF07),
        (Feature.POWER_MANAGEMENT, 0xFFFFFFE0, 0xE0),
        (Feature.ERROR_RECOVERY, 0xFFFEFFFF, 0xFFFF),
        (Feature.VOLATILE_WRITE_CACHE, 0xFFFFFFFE, 0),
        (Feature.WRITE_ATOMICITY, 0xFFFFFFFF, 1),
        (Feature.ASYNC_EVENT, 0xFFFFFFFF, 0x80000FFF),
        (Feature.KEEP_ALIVE_TIMER, 1, 10_000),
        (Feature.KEEP_ALIVE_TIMER, 10_001, 20_000),
    ],
    ids=str,
)
def test_what_is_kept_of_what_a_host_sets(port: int, feature: Feature, given: int, kept: int) -> None:
    async def story(host: Host) -> None:
        await host.admin.ok(commands.set_features(feature, given))
        completion = (await host.admin.run(commands.get_features(feature)))[0]
        assert hex(completion.cdw0) == hex(kept)

    play(port, story)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (commands.get_features(0x00), Status.INVALID_FIELD),
        (commands.get_features(Feature.LBA_RANGE_TYPE), Status.INVALID_FIELD),
        (commands.get_features(0x0C), Status.INVALID_FIELD),
        (commands.get_features(0x0E, size=8), Status.INVALID_FIELD),
        (commands.get_features(0x10), Status.INVALID_FIELD),
        (commands.get_features(0x11), Status.INVALID_FIELD),
        (commands.get_features(0x80), Status.INVALID_FIELD),
        (commands.get_features(Feature.ARBITRATION, nsid=9), Status.INVALID_NAMESPACE),
        (commands.get_features(Feature.ARBITRATION, nsid=1), 0),
        (commands.get_features(Feature.ERROR_RECOVERY, nsid=1), 0),
        (commands.get_features(Feature.ERROR_RECOVERY, nsid=commands.NSID_ALL), 0),
        (commands.get_features(Feature.TEMPERATURE_THRESHOLD, cdw11=9 << 16), Status.INVALID_FIELD),
        (commands.get_features(Feature.TEMPERATURE_THRESHOLD, cdw11=2 << 20), Status.INVALID_FIELD),
        (commands.get_features(Feature.HOST_IDENTIFIER, size=16), Status.INVALID_FIELD),
        (commands.get_features(Feature.HOST_IDENTIFIER, size=8, cdw11=1), Status.INVALID_FIELD),
        (commands.get_features(Feature.HOST_IDENTIFIER, size=16, cdw11=1), 0),
        (commands.get_features(Feature.HOST_BEHAVIOR, size=256), Status.INVALID_FIELD),
        (commands.set_features(Feature.ARBITRATION | 1 << 31), Status.FEATURE_NOT_SAVEABLE),
        (commands.set_features(0x7E | 1 << 31), Status.FEATURE_NOT_SAVEABLE),
        (commands.set_features(0x7E), Status.INVALID_FIELD),
        (commands.set_features(Feature.ARBITRATION, nsid=9), Status.INVALID_NAMESPACE),
        (commands.set_features(Feature.POWER_MANAGEMENT, 1), Status.INVALID_FIELD),
        (commands.set_features(Feature.ERROR_RECOVERY, 1 << 16), Status.INVALID_FIELD),
        (commands.set_features(Feature.NUMBER_OF_QUEUES, 0), Status.COMMAND_SEQUENCE_ERROR),
        (commands.set_features(Feature.NUMBER_OF_QUEUES, 0xFFFF), Status.INVALID_FIELD),
        (commands.set_features(Feature.INTERRUPT_COALESCING, 1), Status.FEATURE_NOT_CHANGEABLE),
        (commands.set_features(Feature.INTERRUPT_VECTOR, 1), Status.INVALID_FIELD),
        (commands.set_features(Feature.KEEP_ALIVE_TIMER, 0), Status.KEEP_ALIVE_INVALID),
        (commands.set_features(Feature.HOST_IDENTIFIER, 1), Status.COMMAND_SEQUENCE_ERROR),
        (Command(AdminOp.KEEP_ALIVE, nsid=1), Status.INVALID_FIELD),
        (Command(AdminOp.ABORT, nsid=1), Status.INVALID_FIELD),
        (Command(AdminOp.ASYNC_EVENT, nsid=1), Status.INVALID_FIELD),
        *((Command(opcode), Status.INVALID_OPCODE) for opcode in (0x00, 0x01, 0x04, 0x05, 0x0D, 0x10, 0x14, 0x1C)),
        *((Command(opcode), Status.INVALID_OPCODE) for opcode in (0x20, 0x7C, 0x80, 0x84, 0xC0)),
    ],
)
def test_features_and_commands_that_are_refused(port: int, command: Command, status: int) -> None:
    async def story(host: Host) -> None:
        assert await host.admin.status(command) == status

    play(port, story)


def test_features_of_the_controller_are_not_set_for_a_namespace(port: int) -> None:
    """SPDK says so in the wrong status code type (SCT 0h, where 0Fh means something else)."""

    async def story(host: Host) -> None:
        code = await host.admin.status(commands.set_features(Feature.ARBITRATION, 1, nsid=1))
        assert code in (Status.FEATURE_NOT_NAMESPACE_SPECIFIC, Status.DATA_SGL_LENGTH_INVALID)
        assert await host.admin.status(commands.set_features(Feature.ERROR_RECOVERY, 1, nsid=1)) == 0

    play(port, story)


def test_host_behavior_is_kept_or_refused(port: int) -> None:
    async def story(host: Host) -> None:
        behavior = commands.set_features(Feature.HOST_BEHAVIOR, size=512)
        given = bytes((1, 0, 1)).ljust(512, b"\0")
        await host.admin.ok(behavior, given)
        assert await host.admin.ok(commands.get_features(Feature.HOST_BEHAVIOR, size=512)) == given
        for wrong in (bytes((2,)), bytes((0, 0, 2))):
            assert await host.admin.status(behavior, wrong.ljust(512, b"\0")) == Status.INVALID_FIELD
        short = commands.set_features(Feature.HOST_BEHAVIOR, size=256)
        assert await host.admin.status(short, bytes(256)) == Status.INVALID_FIELD

    play(port, story)


def test_a_host_that_knows_of_retry_delays_is_told_one(port: int) -> None:
    """CRD 1 on what may be retried, once Host Behavior Support says that the host looks at it."""

    async def story(host: Host) -> None:
        async def crd(command: Command) -> int:
            status = (await host.io.run(command))[0].status
            assert status
            return status >> 12 & 3

        outside, wrong = commands.read(1, 1 << 40, 1, 512), commands.read(5, 0, 1, 512)
        assert [await crd(outside), await crd(wrong)] == [0, 0]
        behavior = commands.set_features(Feature.HOST_BEHAVIOR, size=512)
        await host.admin.ok(behavior, b"\1".ljust(512, b"\0"))
        assert [await crd(outside), await crd(wrong)] == [1, 0], "the second says Do Not Retry"
        assert (await host.admin.run(commands.get_features(0)))[0].status >> 12 & 3 == 1

    play(port, story)


def test_features_of_a_namespace_that_is_not_here(engine: Any, port: int) -> None:
    engine.set_ana(NQN, port, "inaccessible", 1)

    async def story(host: Host) -> None:
        for feature in (Feature.ERROR_RECOVERY, Feature.WRITE_ATOMICITY):
            for make in (commands.get_features, commands.set_features):
                assert await host.admin.status(make(feature, nsid=1)) == Status.ANA_INACCESSIBLE
                assert await host.admin.status(make(feature, nsid=2)) == 0
        assert await host.admin.status(commands.get_features(Feature.ARBITRATION, nsid=1)) == 0
        raw = await host.admin.ok(commands.identify(Cns.NAMESPACE, nsid=1))
        assert identify.IdentifyNamespace.parse(raw).nuse == 0

    play(port, story)


def test_a_fused_pair_of_admin_commands_is_refused(port: int) -> None:
    async def story(host: Host) -> None:
        halves = commands.fused(commands.keep_alive(), commands.keep_alive())
        cids = [host.admin.submit(half) for half in halves]
        assert [(await host.admin.wait(cid))[0].code for cid in cids] == [Status.INVALID_FIELD] * 2

    play(port, story)


# Events, keep alive


def test_event_requests_are_limited_and_can_be_aborted(port: int) -> None:
    async def story(host: Host) -> None:
        waiting = [host.admin.submit(commands.async_event_request()) for _ in range(4)]
        assert await host.admin.status(commands.async_event_request()) == Status.ASYNC_EVENT_LIMIT
        aborted = (await host.admin.run(commands.abort(0, waiting[1])))[0]
        assert (aborted.code, aborted.cdw0) == (0, 0)
        assert (await host.admin.wait(waiting[1]))[0].code == Status.ABORTED_BY_REQUEST
        again = host.admin.submit(commands.async_event_request())
        await host.admin.ok(commands.keep_alive())
        assert again not in host.admin.done

    play(port, story)


def test_an_ana_change_is_told_once_until_its_log_is_read(engine: Any, port: int) -> None:
    async def story(host: Host) -> None:
        first, second = (host.admin.submit(commands.async_event_request()) for _ in range(2))
        await asyncio.to_thread(engine.set_ana, NQN, port, "non_optimized", 1)
        while not {first, second} & host.admin.done.keys():
            host.admin.take(await host.admin.next())
        told = first if first in host.admin.done else second
        event = await host.event(told)
        assert (event.kind, event.info, event.log) == (logs.EventType.NOTICE, logs.Notice.ANA_CHANGE, LogId.ANA)
        await asyncio.to_thread(engine.set_ana, NQN, port, "inaccessible", 1)
        await host.admin.ok(commands.get_log_page(LogId.ANA, 88, retain_event=True))
        assert not {first, second} - {told} & host.admin.done.keys()
        page = logs.AnaLog.parse(await host.admin.ok(commands.get_log_page(LogId.ANA, 88)))
        assert [group.state for group in page.groups] == [logs.AnaState.INACCESSIBLE, logs.AnaState.OPTIMIZED]
        await asyncio.to_thread(engine.set_ana, NQN, port, "optimized", 1)
        assert (await host.event(({first, second} - {told}).pop())).log == LogId.ANA

    play(port, story)


def test_a_host_that_is_silent_too_long_is_disconnected(engines: Any) -> None:
    """The one that keeps alive stays.  On an engine of its own, whose least timeout is short."""
    engine = engines.waiting()
    try:
        engine.run(framework.start_init())
        engine.rpc("nvmf_create_transport", trtype="TCP", kas=5, min_kato=500)
        engine.malloc("m1")
        port = engine.serve(NQN, "m1")

        async def story(lively: Host) -> None:
            silent = await Host.open(port, nqn=NQN, host=HOST, kato_ms=500)
            gone = [asyncio.create_task(wire.ended()) for wire in (silent.admin, silent.io)]
            while not all(task.done() for task in gone):
                await lively.admin.ok(commands.keep_alive())
            assert [task.result() for task in gone] == [None, None]
            await silent.close()
            left = [each.cntlid for each in await asyncio.to_thread(engine.run, nvmf.get_controllers(NQN))]
            assert left == [lively.cntlid]
            await lively.io.ok(commands.read(1, 0, 1, 512))

        play(port, story, kato_ms=500)
    finally:
        engine.stop()


def test_a_host_without_a_keep_alive_timeout_may_set_one(port: int) -> None:
    async def story(host: Host) -> None:
        await host.admin.ok(commands.keep_alive())
        await host.admin.ok(commands.set_features(Feature.KEEP_ALIVE_TIMER, 15_000))
        await host.admin.ok(commands.keep_alive())
        csts = (await host.admin.run(fabrics.property_get(fabrics.Property.CSTS)))[0]
        assert csts.cdw0 == fabrics.CSTS_READY

    play(port, story)
