"""What authentication must not do: be gone round, wait for ever, or hold up the I/O of others."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from dataplane.embedded.offload import calculate
from dataplane.nvme import auth, commands, fabrics
from dataplane.nvme.auth import Challenge, Failure, Kind, Negotiate, Protocol, Reason, Reply
from dataplane.nvme.dhchap import Digest, Question, Secret
from dataplane.nvme.fabrics import CNTLID_DYNAMIC, ConnectData, Property
from dataplane.nvme.ffdhe import DhGroup
from dataplane.nvme.status import Status

SECRET = Secret(b"0123456789abcdef" * 2)
GUEST = "nqn.2025-01.io.ws7000:guest"
READ = commands.read(1, 0, 8, 512)
VERSION = fabrics.property_get(Property.VS)
SHORT = {"transport": {"kas": 1, "min_kato": 100}}


async def guard(bench: Any, lab: Any, folder: Path) -> None:
    """The host of the laboratory has to authenticate, a guest has not."""
    file = folder / "secret"
    file.touch(mode=0o600)
    file.write_text(SECRET.text())
    await bench.rpc("keyring_file_add_key", name="k", path=str(file))
    await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn, dhchap_key="k")


async def send(wire: Any, message: bytes) -> None:
    await wire.ok(auth.auth_send(len(message)), message)


async def receive(wire: Any) -> bytes:
    return bytes(await wire.ok(auth.auth_receive()))


async def authenticate(wire: Any, lab: Any, secret: Secret = SECRET) -> bytes:
    """The whole exchange without a group; the controller's last message."""
    await send(wire, Negotiate(1, (Protocol((Digest.SHA256,), (DhGroup.NULL,)),)).pack())
    asked = Challenge.parse(await receive(wire), padded=True)
    question = Question(Digest.SHA256, 1, asked.seqnum, asked.challenge)
    await send(wire, Reply(1, question.host_answer(secret, lab.hostnqn, lab.nqn)).pack())
    return await receive(wire)


@pytest.mark.parametrize(
    "command",
    [VERSION, commands.keep_alive(), commands.async_event_request(), READ],
    ids=["property", "keep alive", "event", "read"],
)
def test_what_comes_in_one_piece_with_connect_is_refused_too(lab: Any, tmp_path: Path, command: Any) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        data = ConnectData(b"h" * 16, CNTLID_DYNAMIC, lab.nqn, lab.hostnqn).pack()
        first = wire.submit(fabrics.connect(0, 32), data)
        second = wire.submit(command)
        assert (await wire.wait(first))[0].cdw0 & fabrics.CONNECT_ATR
        assert (await wire.wait(second))[0].code == Status.AUTHENTICATION_REQUIRED
        await wire.close()

    lab.run(scenario)


def test_io_that_comes_in_one_piece_with_connect_is_no_admin_command(lab: Any) -> None:
    """Opcode 2 is Read on this queue and Get Log Page on the other."""

    async def scenario(bench: Any) -> None:
        host = await bench.host()
        wire = await bench.wire()
        data = ConnectData(b"h" * 16, host.cntlid, lab.nqn, lab.hostnqn).pack()
        first, second = wire.submit(fabrics.connect(2, 32), data), wire.submit(READ)
        assert (await wire.wait(first))[0].code == 0
        assert (await wire.wait(second))[0].code == Status.COMMAND_SEQUENCE_ERROR
        assert len(await wire.ok(READ)) == 4096
        await wire.close()

    lab.run(scenario)


def test_a_host_that_does_not_go_on_is_disconnected(lab: Any, tmp_path: Path) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        assert (await wire.connect(kato_ms=100)).cdw0 & fabrics.CONNECT_ATR
        assert await wire.ended() is None
        assert await bench.rpc("nvmf_subsystem_get_qpairs", nqn=lab.nqn) == []
        await wire.close()

    lab.run(scenario, **SHORT)


def test_a_host_that_begins_again_and_stops_stays(lab: Any, tmp_path: Path) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        await wire.connect(kato_ms=100)
        await authenticate(wire, lab)
        await wire.enable()
        await send(wire, Negotiate(2, (Protocol((Digest.SHA512,), (DhGroup.NULL,)),)).pack())
        states = [""]
        while states[-1] != "completed":
            await wire.ok(commands.keep_alive())
            shown = (await bench.rpc("nvmf_subsystem_get_qpairs", nqn=lab.nqn))[0]
            assert shown["state"] == "enabled"
            states.append(shown["auth"]["state"])
        assert states[1] == "challenge"
        await authenticate(wire, lab)
        await wire.close()

    lab.run(scenario, **SHORT)


def test_a_wrong_response_ends_the_queue_and_is_logged_without_a_secret(
    lab: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        await wire.connect()
        told = Failure.parse(await authenticate(wire, lab, Secret(b"x" * 32)), padded=True)
        assert told == Failure(Kind.FAILURE1, 1, Reason.FAILED)
        await wire.ended()
        await wire.close()

    lab.run(scenario)
    assert "the response is wrong" in caplog.text
    hidden = ("DHHC", SECRET.text()[10:-1], SECRET.key.decode(), SECRET.key.hex())
    assert not any(part in caplog.text for part in hidden)


def test_a_calculation_leaves_the_loop_to_others(lab: Any, tmp_path: Path) -> None:
    """While the one thread that calculates is held, the host waits for its challenge, and nobody else for anything."""

    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        other = await bench.host(host=GUEST)
        wire = await bench.wire()
        await wire.connect()
        await send(wire, Negotiate(1, (Protocol((Digest.SHA256,), (DhGroup.FFDHE2048,)),)).pack())
        held = threading.Event()
        holding = asyncio.create_task(calculate(held.wait))
        try:
            waiting = asyncio.create_task(receive(wire))
            for _ in range(10):
                assert len(await other.io.ok(READ)) == 4096
            assert not waiting.done()
        finally:
            held.set()
        await holding
        assert len(Challenge.parse(await waiting, padded=True).public) == 256
        await wire.close()

    lab.run(scenario)


def test_a_host_that_leaves_during_a_calculation_leaves_nothing(lab: Any, tmp_path: Path) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        await wire.connect()
        await send(wire, Negotiate(1, (Protocol((Digest.SHA256,), (DhGroup.FFDHE2048,)),)).pack())
        held = threading.Event()
        holding = asyncio.create_task(calculate(held.wait))
        try:
            wire.submit(auth.auth_receive())
            wire.submit(auth.auth_receive())
            await wire.close()
            queues = list(bench.engine.nvmf.queues)
            while bench.engine.nvmf.queues:
                await asyncio.sleep(0)
        finally:
            held.set()
        await holding
        for queue in queues:
            await queue.closed
        assert await bench.rpc("nvmf_subsystem_get_controllers", nqn=lab.nqn) == []

    lab.run(scenario)


def test_a_removed_host_takes_its_keys_with_it(lab: Any, tmp_path: Path) -> None:
    async def scenario(bench: Any) -> None:
        await guard(bench, lab, tmp_path)
        wire = await bench.wire()
        await wire.connect()
        await bench.rpc("nvmf_subsystem_remove_host", nqn=lab.nqn, host=lab.hostnqn)
        await wire.ended()
        assert [key["refcnt"] for key in await bench.rpc("keyring_get_keys")] == [1]
        await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn, dhchap_key="k")
        await bench.rpc("nvmf_delete_subsystem", nqn=lab.nqn)
        assert [key["refcnt"] for key in await bench.rpc("keyring_get_keys")] == [1]
        await wire.close()

    lab.run(scenario)
