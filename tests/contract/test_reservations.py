"""Reservations as hosts meet them, on both engines: who may read and write, what each command answers, who is told.

The engines of this module are its own, since the transport of the others masks reservations.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from reserving import Party, host_uuid

from dataplane.nvme import commands, identify, logs, reservations
from dataplane.nvme.commands import Cns, Feature, IoOp, LogId
from dataplane.nvme.reservations import (
    AcquireAction,
    NotificationType,
    PersistThroughPowerLoss,
    RegisterAction,
    ReleaseAction,
)
from dataplane.nvme.status import Status
from dataplane.rpc.methods import nvmf

NQN = "nqn.2026-01.io.ws7000:contract:reservations"
UUID = "5e000000-0000-4000-8000-000000000001"
OK, CONFLICT, INVALID = Status.SUCCESS, Status.RESERVATION_CONFLICT, Status.INVALID_FIELD
ALL_TYPES = (1, 2, 3, 4, 5, 6)
A, B, C = 0xA, 0xB, 0xC
ON, OFF = PersistThroughPowerLoss.ON, PersistThroughPowerLoss.OFF
PREEMPT, ABORT = AcquireAction.PREEMPT, AcquireAction.PREEMPT_AND_ABORT

Story = Callable[[Party, Party, Party], Awaitable[None]]


@pytest.fixture(scope="module")
def pair(engines: Any, start_pair: Any) -> Iterator[tuple[Any, Any]]:
    """Two engines whose transport offers reservations."""
    both = start_pair(engines.kind)
    for each in both:
        each.run(nvmf.create_transport("TCP"))
    yield both
    for each in both:
        each.stop()


@pytest.fixture
def served(pair: tuple[Any, Any]) -> Iterator[Any]:
    """The first of them."""
    yield pair[0]
    for each in pair:
        each.sweep()


def offer(engine: Any, ptpl_file: Path | None = None, port: int | None = None, uuid: str = UUID) -> int:
    """A device as namespace 1 of a subsystem; the port."""
    engine.malloc("m0", uuid=uuid)
    engine.subsystem(NQN, allow_any_host=True)
    add(engine, ptpl_file)
    return int(engine.listen(NQN, port=port))


def add(engine: Any, ptpl_file: Path | None) -> None:
    """Namespace 1, with its file."""
    engine.run(
        nvmf.add_ns(
            NQN, bdev_name="m0", nsid=1, nguid=f"{1:032x}", uuid=UUID, ana_group=1, auto_visible=True,
            ptpl_file=str(ptpl_file) if ptpl_file else None,
        )
    )  # fmt: skip


@asynccontextmanager
async def parties(port: int, *names: str) -> AsyncIterator[list[Party]]:
    """Hosts, connected."""
    made = [await Party.connect(name, NQN, port) for name in names]
    try:
        yield made
    finally:
        for each in made:
            await each.close()


def play(port: int, story: Story) -> None:
    """The story of the hosts a, b and c."""

    async def whole() -> None:
        async with asyncio.timeout(60), parties(port, "a", "b", "c") as (a, b, c):
            await story(a, b, c)

    asyncio.run(whole())


async def keys(party: Party) -> dict[int, bool]:
    """Key of each registrant and whether it is shown as the holder."""
    return {row.key: row.holder for row in (await party.report()).registrants}


async def told(party: Party, kind: NotificationType) -> None:
    """The host gets the event and finds one notification of that kind."""
    assert await party.events.get() == reservations.LOG_AVAILABLE
    (page,) = await party.page()
    assert (page.kind, page.available, page.nsid) == (kind, 0, 1)


def test_what_controller_and_namespace_say(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, _b: Party, _c: Party) -> None:
        association = a.association
        assert association.identity.oncs & identify.ONCS_RESERVATIONS
        assert association.identity.ctratt & identify.CTRATT_HOST_ID_128
        space = identify.IdentifyNamespace.parse(await association.identify(Cns.NAMESPACE, nsid=1))
        shared = identify.IndependentNamespace.parse(await association.identify(Cns.INDEPENDENT_NAMESPACE, nsid=1))
        assert space.rescap == shared.rescap == reservations.RESCAP_ALL_TYPES
        _, effects = logs.parse_effects_log(await association.log(LogId.COMMAND_EFFECTS, 4096))
        assert {effects[code] for code in reservations.COMMANDS} == {
            logs.EFFECT_SUPPORTED | logs.EFFECT_NAMESPACE_SCOPE
        }
        supported = await association.log(LogId.SUPPORTED, 1024)
        assert supported[4 * LogId.RESERVATION] == 1
        features = await association.log(LogId.FEATURE_EFFECTS, 1024)
        assert features[4 * Feature.RESERVATION_NOTIFICATION] == features[4 * Feature.RESERVATION_PERSISTENCE] == 1

    play(port, story)


@pytest.mark.parametrize("rtype", ALL_TYPES)
def test_who_may_read_and_write(served: Any, rtype: int) -> None:
    port = offer(served)
    registrant_reads = rtype != 2
    registrant_writes = rtype >= 3
    stranger_reads = rtype in (1, 3, 5)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B)] == [OK, OK]
        assert await a.acquire(A, rtype) == OK
        assert [await a.read(), await a.write()] == [OK, OK]
        assert await b.read() == (OK if registrant_reads else CONFLICT)
        assert await c.read() == (OK if stranger_reads else CONFLICT)
        for party, may in ((b, registrant_writes), (c, False)):
            expected = OK if may else CONFLICT
            assert await party.write() == expected
            assert await party.send(commands.flush(1)) == expected
            assert await party.send(commands.write_zeroes(1, 0, 1)) == expected
            assert await party.send(*commands.deallocate(1, [(0, 1)])) == expected
        assert await c.acquire(C, rtype) == await c.release(C, rtype) == CONFLICT
        assert await b.acquire(B, rtype) == (OK if rtype >= 5 else CONFLICT)
        assert await c.register(C) == OK
        assert await a.release(A, rtype) == OK
        assert [await each.write() for each in (a, b, c)] == [OK, OK, OK]

    play(port, story)


def test_keys_come_change_and_go(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert await a.register(0) == INVALID
        assert await a.register(A) == await a.register(A) == OK
        assert await a.register(B) == CONFLICT
        assert await a.register(B, C, RegisterAction.REPLACE) == CONFLICT
        assert await a.register(0, A, RegisterAction.REPLACE) == INVALID
        assert await a.register(B, A, RegisterAction.REPLACE) == OK
        assert await a.register(A, C, RegisterAction.REPLACE, iekey=True) == OK
        assert await b.register(B, 0, RegisterAction.REPLACE) == CONFLICT
        assert await b.register(B, 0, RegisterAction.REPLACE, iekey=True) == OK
        assert await c.register(0, 0, RegisterAction.UNREGISTER) == CONFLICT
        assert await b.register(0, A, RegisterAction.UNREGISTER) == CONFLICT
        assert await b.send(*reservations.register(1, B, B, RegisterAction.REGISTER)) == OK
        assert await b.send(reservations.register(1, B, 0)[0]._replace(cdw10=7), bytes(16)) == INVALID
        report = await a.report()
        assert [(row.key, row.host_id) for row in report.registrants] == [(A, a.hostid.bytes), (B, b.hostid.bytes)]
        assert [row.cntlid for row in report.registrants] == [a.association.cntlid, b.association.cntlid]
        assert (report.generation, report.rtype, report.persist) == (2, 0, False)
        assert await b.register(0, A, RegisterAction.UNREGISTER, iekey=True) == OK
        assert await a.register(0, A, RegisterAction.UNREGISTER) == OK
        report = await c.report()
        assert (report.generation, report.registrants) == (4, ())

    play(port, story)


def test_fields_that_are_wrong(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, _c: Party) -> None:
        command, data = reservations.register(1, 0, A)
        assert await a.send(command.with_data(8, in_capsule=True), data[:8]) == INVALID
        assert await a.send(without_data(IoOp.RESERVATION_ACQUIRE)) == INVALID
        assert await a.send(without_data(IoOp.RESERVATION_RELEASE)) == INVALID
        assert await a.send(without_data(IoOp.RESERVATION_REPORT)) == INVALID
        assert await a.register(A, cptpl=ON) == INVALID
        assert await a.register(A) == await b.register(B) == OK
        assert await a.acquire(A, 1, iekey=True) == await a.release(A, 1, iekey=True) == INVALID
        command, data = reservations.acquire(1, A, reservations.ReservationType.WRITE_EXCLUSIVE)
        assert await a.send(command._replace(cdw10=7 << 8), data) == INVALID
        assert await a.send(command._replace(cdw10=1 << 8 | 5), data) == INVALID
        assert await a.acquire(B, 1) == await a.release(B, 1) == CONFLICT
        assert await a.release(A, 1) == OK  # nothing is held
        assert await a.acquire(A, 1) == await a.acquire(A, 1) == OK
        assert await a.acquire(A, 3) == CONFLICT
        assert await a.release(A, 3) == INVALID
        assert await b.release(B, 1) == OK  # a registrant that holds nothing
        assert (await a.report()).rtype == 1
        command, data = reservations.release(1, A, reservations.ReservationType.WRITE_EXCLUSIVE)
        assert await a.send(command._replace(cdw10=1 << 8 | 4), data) == INVALID
        short = reservations.report(1, 4096, extended=False)
        assert await a.send(short, read_size=4096) == Status.HOST_ID_INCONSISTENT
        assert await a.send(reservations.report(1, 32), read_size=32) == Status.INTERNAL_ERROR

    play(port, story)


def without_data(opcode: IoOp) -> commands.Command:
    """A reservation command that sends and takes nothing."""
    return commands.Command(opcode, nsid=1, cdw11=1)


@pytest.mark.parametrize("rtype", ALL_TYPES)
@pytest.mark.parametrize("action", [PREEMPT, ABORT])
def test_a_registrant_preempts_the_holder(served: Any, rtype: int, action: AcquireAction) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B), await c.register(C)] == [OK, OK, OK]
        assert await a.acquire(A, rtype) == OK
        assert await b.acquire(B, 1, action, A) == OK
        report = await c.report()
        assert {row.key: row.holder for row in report.registrants} == {B: True, C: False}
        # With all registrants holding, a preempted one leaves and the type stays.
        assert (report.rtype, report.generation) == (rtype if rtype >= 5 else 1, 4)
        assert await a.write() == CONFLICT
        assert await b.write() == OK
        await told(a, NotificationType.REGISTRATION_PREEMPTED)
        if rtype < 5:
            await told(c, NotificationType.RESERVATION_RELEASED)
        assert b.events.empty()

    play(port, story)


@pytest.mark.parametrize("action", [PREEMPT, ABORT])
def test_preempting_without_a_holder_of_that_key(served: Any, action: AcquireAction) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B), await c.register(C)] == [OK, OK, OK]
        assert await a.acquire(A, 3, action, B) == OK
        assert ((await a.report()).rtype, await keys(a)) == (0, {A: False, C: False})
        assert await a.acquire(A, 3, action, 0) == OK  # nobody has key 0
        assert await c.acquire(C, 3) == await b.register(B) == OK
        assert await a.acquire(A, 3, action, 0) == CONFLICT
        assert await a.acquire(A, 3, action, 0xDEAD) == OK
        assert await a.acquire(A, 3, action, B) == OK
        assert await keys(a) == {A: False, C: True}
        assert await c.acquire(C, 2, action, C) == OK  # its own: the type changes
        assert ((await a.report()).rtype, await keys(a)) == (2, {A: False, C: True})
        assert [await a.read(), await c.read()] == [CONFLICT, OK]
        assert await a.acquire(A, 1, action, A) == OK  # it leaves itself
        assert await keys(c) == {C: True}
        assert await a.acquire(A, 1, action, C) == CONFLICT

    play(port, story)


@pytest.mark.parametrize("rtype", [5, 6])
def test_key_zero_preempts_all_others_where_all_hold(served: Any, rtype: int) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B), await c.register(C)] == [OK, OK, OK]
        assert await a.acquire(A, rtype) == OK
        assert await b.acquire(B, 1, PREEMPT, 0xDEAD) == CONFLICT
        assert await b.acquire(B, 1, PREEMPT, 0) == OK
        report = await a.report()
        assert (report.rtype, await keys(a)) == (rtype, {B: True})
        for party in (a, c):
            await told(party, NotificationType.REGISTRATION_PREEMPTED)
            assert await party.write() == CONFLICT
        assert await b.register(0, B, RegisterAction.UNREGISTER) == OK
        assert ((await b.report()).rtype, await a.write()) == (0, OK)

    play(port, story)


def test_release_and_clear_are_told(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B)] == [OK, OK]
        for rtype in (3, 4, 5, 6):
            assert await a.acquire(A, rtype) == await a.release(A, rtype) == OK
            await told(b, NotificationType.RESERVATION_RELEASED)
        for rtype in (1, 2):
            assert await a.acquire(A, rtype) == await a.release(A, rtype) == OK
        assert await a.acquire(A, 4) == OK
        assert await a.register(0, A, RegisterAction.UNREGISTER) == OK
        await told(b, NotificationType.RESERVATION_RELEASED)
        assert await a.register(A) == await b.release(B, 0, ReleaseAction.CLEAR) == OK
        await told(a, NotificationType.RESERVATION_PREEMPTED)
        report = await c.report()
        assert (report.rtype, report.registrants) == (0, ())
        assert b.events.empty()
        assert c.events.empty()

    play(port, story)


def test_notifications_wait_and_can_be_masked(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, _c: Party) -> None:
        assert (await b.page())[0] == reservations.Notification()
        assert [await a.register(A), await b.register(B)] == [OK, OK]
        for _ in range(3):
            assert await a.acquire(A, 3) == await a.release(A, 3) == OK
        assert await b.events.get() == reservations.LOG_AVAILABLE
        first, second = await b.page(2, retain=True)
        assert [(page.count, page.available) for page in (first, second)] == [(1, 0), (2, 1)]
        assert [page.count for page in await b.page(2)] == [3, 0]
        mask = commands.set_features(Feature.RESERVATION_NOTIFICATION, 1 << 2, nsid=1)
        assert await b.admin(mask) == OK
        assert await a.get(Feature.RESERVATION_NOTIFICATION) == 1 << 2  # one mask for all hosts
        assert await a.acquire(A, 3) == await a.release(A, 3) == OK
        assert await a.release(A, 0, ReleaseAction.CLEAR) == OK
        await told(b, NotificationType.RESERVATION_PREEMPTED)
        everywhere = commands.set_features(Feature.RESERVATION_NOTIFICATION, 0, nsid=commands.NSID_ALL)
        assert await b.admin(everywhere) == OK
        assert await a.get(Feature.RESERVATION_NOTIFICATION) == 0
        assert await a.admin(commands.get_features(Feature.RESERVATION_NOTIFICATION, nsid=2)) == INVALID
        assert await a.admin(commands.get_features(Feature.RESERVATION_PERSISTENCE, nsid=2)) == INVALID
        assert await a.admin(commands.set_features(Feature.RESERVATION_PERSISTENCE, 1, nsid=1)) == INVALID
        command = commands.get_features(Feature.HOST_IDENTIFIER, size=16, cdw11=1)
        assert bytes((await a.association.admin(command, read_size=16)).check(16)) == a.hostid.bytes

    play(port, story)


def test_a_reservation_is_of_the_host_and_outlives_its_connections(served: Any) -> None:
    port = offer(served)

    async def story(a: Party, b: Party, _c: Party) -> None:
        assert await a.register(A) == await a.acquire(A, 1) == OK
        async with parties(port, "a") as (again,):
            assert await again.write() == OK
            assert await again.register(A) == OK
            await a.close()
            assert await b.write() == CONFLICT
            assert await again.release(A, 1) == OK
        assert await keys(b) == {A: False}

    play(port, story)


def test_no_more_registrants_than_sixteen(served: Any) -> None:
    port = offer(served)

    async def whole() -> None:
        async with asyncio.timeout(60), parties(port, *(f"h{number}" for number in range(17))) as hosts:
            answers = [await host.register(number) for number, host in enumerate(hosts, 1)]
            assert answers == [OK] * 16 + [Status.INTERNAL_ERROR]
            assert len((await hosts[16].report()).registrants) == 16

    asyncio.run(whole())


@pytest.mark.parametrize("rtype", ALL_TYPES)
def test_what_is_to_persist_is_there_again(pair: tuple[Any, Any], served: Any, tmp_path: Path, rtype: int) -> None:
    """Across the removal of the namespace, and in another engine process that finds the file."""
    path = tmp_path / "reservation.json"
    port = offer(served, path)

    async def before(a: Party, b: Party, _c: Party) -> None:
        space = identify.IdentifyNamespace.parse(await a.association.identify(Cns.NAMESPACE, nsid=1))
        assert space.rescap == reservations.RESCAP_ALL_TYPES | reservations.RESCAP_PERSIST
        assert await a.register(A, cptpl=ON) == await b.register(B) == await a.acquire(A, rtype) == OK
        assert await a.get(Feature.RESERVATION_PERSISTENCE) == 1
        assert (await a.report()).persist

    async def after(a: Party, b: Party, c: Party) -> None:
        report = await c.report()
        assert (report.rtype, report.persist, report.generation) == (rtype, True, 0)
        assert [(row.key, row.host_id, row.holder, row.cntlid) for row in report.registrants] == [
            (A, a.hostid.bytes, True, 0xFFFF), (B, b.hostid.bytes, False, 0xFFFF),
        ]  # fmt: skip
        assert [await a.write(), await c.write()] == [OK, CONFLICT]

    play(port, before)
    served.run(nvmf.remove_ns(NQN, 1))
    add(served, path)
    play(port, after)
    play(offer(pair[1], path), after)


def test_the_file_has_one_form(served: Any, tmp_path: Path) -> None:
    path = tmp_path / "reservation.json"
    port = offer(served, path)

    async def story(a: Party, _b: Party, _c: Party) -> None:
        assert await a.register(A, cptpl=ON) == await a.acquire(A, 1) == OK

    play(port, story)
    assert json.loads(path.read_text()) == {
        "ptpl": True, "rtype": 1, "crkey": A, "bdev_uuid": UUID, "holder_uuid": str(host_uuid("a")),
        "registrants": [{"rkey": A, "host_uuid": str(host_uuid("a"))}],
    }  # fmt: skip


def test_what_is_not_to_persist_is_gone(served: Any, tmp_path: Path) -> None:
    path = tmp_path / "reservation.json"
    port = offer(served, path)

    async def before(a: Party, b: Party, _c: Party) -> None:
        assert await a.register(A, cptpl=ON) == await a.acquire(A, 1) == await a.release(A, 1) == OK
        # Register looks at CPTPL first, even when it then fails.
        assert await b.register(0, cptpl=OFF) == INVALID
        assert not (await a.report()).persist
        assert await a.register(A, cptpl=ON) == await a.release(A, 0, ReleaseAction.CLEAR) == OK

    async def after(a: Party, _b: Party, _c: Party) -> None:
        report = await a.report()
        assert (report.rtype, report.persist, report.registrants) == (0, False, ())

    play(port, before)
    served.run(nvmf.remove_ns(NQN, 1))
    add(served, path)
    play(port, after)


GOOD: dict[str, Any] = {
    "ptpl": True, "rtype": 1, "crkey": A, "bdev_uuid": UUID, "holder_uuid": str(host_uuid("a")),
    "registrants": [{"rkey": A, "host_uuid": str(host_uuid("a"))}],
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", json.dumps(GOOD)[:-5], json.dumps({**GOOD, "bdev_uuid": str(host_uuid("x"))}),
        json.dumps({**GOOD, "crkey": B}), json.dumps({**GOOD, "registrants": GOOD["registrants"] * 17}),
        json.dumps({**GOOD, "more": 1}), json.dumps({**GOOD, "rtype": -1}),
    ],
    ids=["empty", "half", "array", "cut", "other device", "nobody's key", "too many", "unknown", "type"],
)  # fmt: skip
def test_a_file_that_cannot_be_refuses_the_namespace(served: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "reservation.json"
    offer(served, path)
    served.run(nvmf.remove_ns(NQN, 1))
    path.write_text(text)
    space = {"bdev_name": "m0", "nsid": 1, "ptpl_file": str(path)}
    assert served.number("nvmf_subsystem_add_ns", nqn=NQN, namespace=space) == -32602
    assert path.read_text() == text
    path.write_text(json.dumps(GOOD))
    add(served, path)


def test_writes_in_flight_have_ended_when_preempt_and_abort_completes(served: Any) -> None:
    """The victim keeps its queue full; what it wrote is looked at after the completion and never changes again."""
    port = offer(served)

    async def story(a: Party, b: Party, c: Party) -> None:
        assert [await a.register(A), await b.register(B), await a.acquire(A, 3)] == [OK, OK, OK]
        writes = [asyncio.create_task(b.write(lba, bytes([lba % 250 + 1]))) for lba in range(100)]
        await asyncio.sleep(0)
        assert await a.acquire(A, 3, ABORT, B) == OK
        command = commands.read(1, 0, 100, 512)
        seen = bytes((await a.association.io(command, read_size=51200)).check(51200))
        answers = await asyncio.gather(*writes)
        assert set(answers) <= {OK, CONFLICT}
        for lba, answer in enumerate(answers):
            done = seen[lba * 512] == lba % 250 + 1
            assert done == (answer == OK), lba
        assert await b.write() == CONFLICT
        again = bytes((await c.association.io(command, read_size=51200)).check(51200))
        assert again == seen

    play(port, story)
