"""What a node does when a drive is lost, comes back, or refuses: when I/O waits and when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from node_lab import DRIVE, NodeLab, Seen, pattern

from dataplane.nvme.commands import IoOp
from dataplane.nvme.status import Status
from dataplane.rpc.methods import nvmf

NO_DEVICE, INVALID_PARAMS = -19, -32602
CONFLICT = {"sct": 0, "sc": Status.RESERVATION_CONFLICT}
MOST = (1 << 32) - 1
WAITING = "reconnect_is_delayed"


@pytest.fixture
def lab(engine: Any, other: Any) -> Iterator[NodeLab]:
    made = NodeLab(engine, other)
    yield made
    made.close()


def notifications(node: Any, since: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.rpc("notify_get_notifications", id=since)
    return found


# -- lost and found


def test_io_waits_for_a_lost_drive_and_ends_well_when_it_is_back(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        assert await seen.write(1) == 0
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        (write,) = await seen.begin(2)
        await seen.states("resetting")
        await seen.states(WAITING)
        assert not write.done()
        assert "d0n1" in await seen.call(lab.devices)
        await seen.call(lab.bring_back, port)
        assert await write == 0
        await seen.states("enabled")
        assert (await seen.read(1), await seen.read(2)) == (pattern("1"), pattern("2"))

    lab.play(story)


def test_writes_that_a_connection_took_along_are_written_again(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)
    lab.slow(2)

    async def story(seen: Seen) -> None:
        lbas = range(0, 32 * 128, 128)
        writes = await seen.begin(*lbas, blocks=128)
        await seen.until(lambda: lab.written() > 0)
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        assert not all(write.done() for write in writes)
        await seen.call(lab.slow, 0)
        await seen.call(lab.bring_back, port)
        assert await asyncio.gather(*writes) == [0] * 32
        for lba in lbas:
            assert await seen.read(lba, 128) == pattern(str(lba), 128)

    lab.play(story)


def test_a_deleted_subsystem_is_waited_for_as_well(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.shelf.run, nvmf.delete_subsystem(DRIVE))
        await seen.states(WAITING)
        (write,) = await seen.begin(3)
        await seen.call(lab.serve)
        await seen.call(lab.bring_back, port)
        assert await write == 0
        assert await seen.read(3) == pattern("3")

    lab.play(story)


def test_without_a_delay_a_lost_drive_fails_io_until_it_is_back(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port, ctrlr_loss_timeout_sec=0, reconnect_delay_sec=0)

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, port)
        await seen.states("failed")
        assert await seen.write(1) == Status.INTERNAL_ERROR
        assert "d0n1" in await seen.call(lab.devices)
        await seen.call(lab.bring_back, port)
        await seen.states("enabled")
        assert await seen.write(1) == 0

    lab.play(story)


def test_a_drive_lost_for_too_long_goes_with_its_device(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port, ctrlr_loss_timeout_sec=2)

    async def story(seen: Seen) -> None:
        before = notifications(lab.node)
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        (write,) = await seen.begin(1)
        await seen.states()
        assert await write != 0
        await seen.until(lambda: "d0n1" not in lab.devices())
        news = [(each["type"], each["ctx"]) for each in notifications(lab.node, before[-1]["id"] + 1)]
        assert ("bdev_unregister", "d0n1") in news

    lab.play(story)


def test_io_gives_up_sooner_than_the_node_does(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port, fast_io_fail_timeout_sec=1)

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        assert await seen.write(1) == Status.INTERNAL_ERROR
        assert lab.states() in ([WAITING], ["resetting"])
        await seen.call(lab.bring_back, port)
        await seen.states("enabled")
        assert await seen.write(1) == 0

    lab.play(story)


# -- refused


def test_a_refused_write_is_tried_as_often_as_was_said(lab: NodeLab) -> None:
    lab.options(bdev_retry_count=3)
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.inject, IoOp.WRITE, err_count=3, **CONFLICT)
        assert await seen.write(1) == 0
        await seen.call(lab.inject, IoOp.WRITE, err_count=4, **CONFLICT)
        assert await seen.write(2) == Status.RESERVATION_CONFLICT
        assert await seen.write(3) == 0

    lab.play(story)


def test_without_a_limit_a_refused_write_stalls(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.inject, IoOp.WRITE, err_count=MOST, **CONFLICT)
        (write,) = await seen.begin(1)
        await seen.until(lambda: lab.written() > 10)
        assert not write.done()
        assert await seen.read(1) == pattern("1")
        await seen.rpc("bdev_nvme_remove_error_injection", name="d0", cmd_type="io", opc=IoOp.WRITE)
        assert await write == 0

    lab.play(story)


def test_without_retries_the_first_refusal_counts(lab: NodeLab) -> None:
    lab.options(bdev_retry_count=0)
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.inject, IoOp.WRITE, **CONFLICT)
        assert await seen.write(1) == Status.RESERVATION_CONFLICT
        assert await seen.write(1) == 0
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        assert await seen.write(1) == Status.INTERNAL_ERROR

    lab.play(story)


def test_a_write_that_is_held_is_never_sent(lab: NodeLab) -> None:
    """It ends with its queue at the latest, with the status that was asked for."""
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        before = lab.written()
        await seen.call(lab.inject, IoOp.WRITE, do_not_submit=True, timeout_in_us=1 << 40, **CONFLICT)
        (held,) = await seen.begin(1)
        assert await seen.write(2) == 0
        assert not held.done()
        assert lab.written() == before + 1
        assert await seen.rpc("bdev_nvme_reset_controller", name="d0") is True
        assert await held == Status.RESERVATION_CONFLICT
        assert await seen.write(1) == 0
        assert lab.written() == before + 2

    lab.play(story)


def test_injections_are_forgotten_with_the_queue(lab: NodeLab) -> None:
    lab.options(bdev_retry_count=0)
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.inject, IoOp.WRITE, err_count=9, **CONFLICT)
        assert await seen.rpc("bdev_nvme_reset_controller", name="d0") is True
        assert await seen.write(1) == 0

    lab.play(story)


@pytest.mark.parametrize(
    ("changed", "number"),
    [
        ({"name": "zz"}, NO_DEVICE),
        ({"cmd_type": "both"}, -22),
        ({"opc": 256}, -22),
        ({"opc": None}, -22),
        ({"surplus": 1}, -22),
    ],
    ids=str,
)
def test_an_injection_that_is_refused(lab: NodeLab, changed: dict[str, Any], number: int) -> None:
    lab.attach(*lab.paths("optimized"), export=False)
    given = {"name": "d0", "cmd_type": "io", "opc": 1, **changed}
    for verb in ("add", "remove"):
        assert lab.node.number(f"bdev_nvme_{verb}_error_injection", **given) == number


# -- reset, disabled and enabled


@pytest.mark.parametrize("verb", ["reset", "disable"])
def test_what_is_in_flight_at_a_reset_fails(lab: NodeLab, verb: str) -> None:
    """An array that resets a controller by hand must know: even a drive with patience fails these."""
    (port,) = lab.paths("optimized")
    lab.attach(port)
    lab.slow(2)

    async def story(seen: Seen) -> None:
        writes = await seen.begin(*range(0, 32 * 128, 128), blocks=128)
        await seen.until(lambda: lab.written() > 0)
        assert await seen.rpc(f"bdev_nvme_{verb}_controller", name="d0") is True
        await seen.call(lab.slow, 0)
        found = set(await asyncio.gather(*writes))
        assert Status.ABORTED_SQ_DELETION in found
        assert found <= {0, Status.ABORTED_SQ_DELETION, Status.INTERNAL_ERROR}
        assert await seen.rpc("bdev_nvme_enable_controller", name="d0") is True
        assert await seen.write(1) == 0

    lab.play(story)


def test_a_disabled_drive_fails_io_and_keeps_its_device(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        for _ in range(2):
            assert await seen.rpc("bdev_nvme_disable_controller", name="d0") is True
            assert lab.states() == ["disabled"]
        assert await seen.write(1) == Status.INTERNAL_ERROR
        assert await seen.rpc("bdev_nvme_reset_controller", name="d0") is True
        assert lab.states() == ["disabled"]
        assert "d0n1" in await seen.call(lab.devices)
        for _ in range(2):
            assert await seen.rpc("bdev_nvme_enable_controller", name="d0") is True
            assert lab.states() == ["enabled"]
        assert await seen.write(1) == 0

    lab.play(story)


def test_a_lost_drive_that_is_disabled_is_not_looked_for(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, port)
        await seen.states(WAITING)
        (write,) = await seen.begin(1)
        assert await seen.rpc("bdev_nvme_disable_controller", name="d0") is True
        assert await write == Status.INTERNAL_ERROR
        await seen.call(lab.bring_back, port)
        assert await seen.call(lab.states) == ["disabled"]
        assert await seen.rpc("bdev_nvme_enable_controller", name="d0") is True
        assert await seen.write(1) == 0

    lab.play(story)


def test_enabling_what_does_not_answer_fails_and_goes_on_trying(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port)

    async def story(seen: Seen) -> None:
        assert await seen.rpc("bdev_nvme_disable_controller", name="d0") is True
        await seen.call(lab.lose, port)
        assert await seen.call(lab.node.number, "bdev_nvme_enable_controller", name="d0") == -1
        (write,) = await seen.begin(1)
        await seen.call(lab.bring_back, port)
        assert await write == 0

    lab.play(story)


@pytest.mark.parametrize("verb", ["reset", "enable", "disable"])
@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"name": "zz"}, NO_DEVICE),
        ({"name": "d0", "cntlid": 0xFFF0}, NO_DEVICE),
        ({"name": "d0", "cntlid": 1 << 16}, INVALID_PARAMS),
        ({"cntlid": 1}, INVALID_PARAMS),
        ({"name": "d0", "surplus": 1}, INVALID_PARAMS),
    ],
    ids=str,
)
def test_a_controller_that_is_not_meant(lab: NodeLab, verb: str, given: dict[str, Any], number: int) -> None:
    lab.attach(*lab.paths("optimized"), export=False)
    assert lab.node.number(f"bdev_nvme_{verb}_controller", **given) == number
    assert lab.states() == ["enabled"]
