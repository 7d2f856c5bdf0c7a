"""Preempt and abort while a drive is slow, and a file that cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.embedded.nvmf import reserved
from dataplane.nvme import commands, reservations
from dataplane.nvme.reservations import AcquireAction, PersistThroughPowerLoss, ReservationType
from dataplane.nvme.status import Status

A, B = 0xA, 0xB
WEAK = ReservationType.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
ABORT = reservations.acquire(3, A, WEAK, AcquireAction.PREEMPT_AND_ABORT, preempt_key=B)


async def two_hosts_on_a_slow_drive(lab: Any, bench: Any) -> tuple[Any, Any, Any]:
    """Both registered for namespace 3, the first one holding, the second one's write stuck in the drive."""
    slow = lab.slow_bdev("slow")
    bench.engine.bdevs.add(slow)
    await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3, "anagrpid": 1})
    fencing, victim = await bench.host(hostid=b"a" * 16), await bench.host(hostid=b"b" * 16)
    for host, key in ((fencing, A), (victim, B)):
        await host.io.ok(*reservations.register(3, 0, key))
    await fencing.io.ok(*reservations.acquire(3, A, WEAK))
    victim.stuck = victim.io.submit(commands.write(3, 0, 1, 512).with_data(512, in_capsule=True), b"v" * 512)
    await slow.started.wait()
    return slow, fencing, victim


def test_preempt_and_abort_completes_after_what_the_victim_had_in_flight(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        slow, fencing, victim = await two_hosts_on_a_slow_drive(lab, bench)
        abort = fencing.io.submit(*ABORT)
        # From the moment of the preemption on, the victim is kept out; a report is answered meanwhile.
        while len(reservations.parse_report(await fencing.io.ok(reservations.report(3))).registrants) > 1:
            continue
        assert await victim.io.status(commands.write(3, 1, 1, 512), b"n" * 512) == Status.RESERVATION_CONFLICT
        assert abort not in fencing.io.done
        assert slow.store[:512] == bytes(512)
        slow.go.set()
        assert (await fencing.io.wait(abort))[0].code == 0
        assert slow.store[:512] == b"v" * 512
        assert (await victim.io.wait(victim.stuck))[0].code == 0

    lab.run(scenario)


def test_it_waits_for_a_victim_whose_connection_is_gone(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        slow, fencing, victim = await two_hosts_on_a_slow_drive(lab, bench)
        await victim.close()
        abort = fencing.io.submit(*ABORT)
        while len(reservations.parse_report(await fencing.io.ok(reservations.report(3))).registrants) > 1:
            continue
        assert abort not in fencing.io.done
        slow.go.set()
        assert (await fencing.io.wait(abort))[0].code == 0
        assert slow.store[:512] == b"v" * 512

    lab.run(scenario)


def test_it_is_interrupted_when_the_drive_does_not_answer(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserved, "ABORT_TIMEOUT_S", 0.0)

    async def scenario(bench: Any) -> None:
        slow, fencing, victim = await two_hosts_on_a_slow_drive(lab, bench)
        assert await fencing.io.status(*ABORT) == Status.COMMAND_INTERRUPTED
        # The victim is preempted all the same, and the namespace goes on.
        assert await victim.io.status(commands.write(3, 1, 1, 512), b"n" * 512) == Status.RESERVATION_CONFLICT
        await fencing.io.ok(*reservations.release(3, A, WEAK))
        slow.go.set()
        assert (await victim.io.wait(victim.stuck))[0].code == 0

    lab.run(scenario)


def test_a_copy_is_the_write_that_it_is(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        holder, stranger = await bench.host(hostid=b"a" * 16), await bench.host(hostid=b"b" * 16)
        await holder.io.ok(*reservations.register(1, 0, A))
        await holder.io.ok(*reservations.acquire(1, A, ReservationType.WRITE_EXCLUSIVE))
        copy = commands.Command(commands.IoOp.COPY, nsid=1)
        assert await stranger.io.status(copy) == Status.RESERVATION_CONFLICT

    lab.run(scenario)


def test_masked_commands_are_not_there(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        io = (await bench.host()).io
        completion, _ = await io.run(*reservations.register(1, 0, A))
        assert (completion.code, completion.dnr) == (Status.INVALID_OPCODE, True)
        assert await io.status(reservations.report(1)) == Status.INVALID_OPCODE

    lab.run(scenario, transport={"masked_oncs": ["reservs"]})


def test_a_file_that_cannot_be_written_fails_the_command_and_changes_nothing(lab: Any, tmp_path: Path) -> None:
    path = tmp_path / "gone" / "reservation.json"

    async def scenario(bench: Any) -> None:
        await bench.add_bdev("m3")
        space = {"bdev_name": "m3", "nsid": 3, "anagrpid": 1, "ptpl_file": str(path)}
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace=space)
        io = (await bench.host()).io
        persist = reservations.register(3, 0, A, persist=PersistThroughPowerLoss.ON)
        assert await io.status(*persist) == Status.INTERNAL_ERROR
        # Nothing changed: otherwise the second attempt would find its work done, and nothing stored.
        assert not reservations.parse_report(await io.ok(reservations.report(3))).registrants
        path.parent.mkdir()
        await io.ok(*persist)
        assert [item.name for item in path.parent.iterdir()] == [path.name]
        assert f'"rkey": {A}' in path.read_text()

    lab.run(scenario)
