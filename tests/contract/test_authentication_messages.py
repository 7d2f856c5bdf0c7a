"""DH-HMAC-CHAP message by message: what is refused, with which reason, and when the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from secret_lab import ALL, BLOCK, HOST, HOSTID, LOCAL, NQN, QUICK, THEIRS, Wire, answer, connected, known, speak

from dataplane.embedded.initiator.association import Association
from dataplane.embedded.initiator.connection import Endpoint, open_connection
from dataplane.nvme import auth, commands, fabrics
from dataplane.nvme.auth import Challenge, Failure, Kind, Negotiate, Protocol, Reason, Reply, Success1
from dataplane.nvme.dhchap import Digest, Question
from dataplane.nvme.fabrics import ConnectData
from dataplane.nvme.ffdhe import DhGroup, DhKey, prime
from dataplane.nvme.status import NvmeError, Status


def test_before_it_has_authenticated_a_queue_does_nothing_else(engine: Any, guarded: int) -> None:
    async def story(wire: Wire) -> None:
        assert wire.required
        refused = [
            fabrics.property_get(fabrics.Property.VS),
            fabrics.property_set(fabrics.Property.CC, 0x460001),
            commands.identify(commands.Cns.CONTROLLER),
            commands.keep_alive(),
            commands.Command(0x7E),
        ]
        if engine.kind == "embedded":
            # SPDK 26.05 refuses an event request here too, and then no change of the subsystem ever ends again.
            refused.append(commands.async_event_request())
        for command in refused:
            size = 4096 if command.length else 0
            reply = await wire.queue.execute(command, read_size=size, timeout_s=20)
            assert reply.completion.code == Status.AUTHENTICATION_REQUIRED
            assert not reply.completion.dnr
        shown = (await asyncio.to_thread(engine.rpc, "nvmf_subsystem_get_qpairs", nqn=NQN))[0]
        assert shown["state"] == "authenticating"
        assert shown["auth"] == {"state": "negotiate", "digest": "unknown", "dhgroup": "null"}
        asked = await wire.challenge(Protocol((Digest.SHA256,), QUICK))
        assert await wire.send(Reply(5, answer(asked)).pack()) == Status.SUCCESS
        assert Success1.parse(await wire.receive(), padded=True) == Success1(5, 32)
        reply = await wire.queue.execute(fabrics.property_get(fabrics.Property.VS), timeout_s=20)
        assert reply.completion.code == Status.SUCCESS

    speak(guarded, story)


def test_a_queue_that_fails_when_it_begins_again_is_disconnected(engine: Any, guarded: int) -> None:
    offer = Protocol((Digest.SHA256,), QUICK)

    async def story(wire: Wire) -> None:
        assert await wire.send(Reply(5, answer(await wire.challenge(offer))).pack()) == Status.SUCCESS
        assert Success1.parse(await wire.receive(), padded=True) == Success1(5, 32)
        version = fabrics.property_get(fabrics.Property.VS)
        asked = await wire.challenge(offer, 6)
        (await wire.queue.execute(version, timeout_s=20)).check()
        assert await wire.send(Reply(6, answer(replace(asked, tid=7))).pack()) == Status.SUCCESS
        (await wire.queue.execute(version, timeout_s=20)).check()
        assert await wire.failure() == Reason.FAILED
        await wire.gone()

    speak(guarded, story)


def test_every_queue_has_to_prove_it(engine: Any, guarded: int) -> None:
    async def story(association: Association) -> None:
        queue = await open_connection(Endpoint(LOCAL, guarded), 32, 1 << 17, 5)
        try:
            data = ConnectData(HOSTID, association.cntlid, NQN, HOST).pack()
            reply = await queue.execute(fabrics.connect(2, 32), data, timeout_s=20)
            reply.check()
            assert reply.completion.cdw0 == association.cntlid | fabrics.CONNECT_ATR
            reply = await queue.execute(commands.read(1, 0, 1, BLOCK), read_size=BLOCK, timeout_s=20)
            assert reply.completion.code == Status.AUTHENTICATION_REQUIRED
            wire = Wire(queue, 0, required=True)
            asked = await wire.challenge(Protocol((Digest.SHA512,), QUICK))
            assert await wire.send(Reply(5, answer(asked)).pack()) == Status.SUCCESS
            await wire.receive()
            (await queue.execute(commands.read(1, 0, 1, BLOCK), read_size=BLOCK, timeout_s=20)).check(BLOCK)
        finally:
            await queue.close()

    connected(guarded, known(), story)


def _negotiate(**changes: Any) -> bytes:
    return replace(Negotiate(5, (ALL,)), **changes).pack()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\0\0\0\0\5", Reason.INCORRECT_PAYLOAD),
        (b"\0\0\0\0\5\0", Reason.INCORRECT_PAYLOAD),
        (b"\0\0\0\0\5\0\0", Reason.INCORRECT_PAYLOAD),
        (_negotiate()[:-1], Reason.INCORRECT_PAYLOAD),
        (_negotiate() + b"\0", Reason.INCORRECT_PAYLOAD),
        (_negotiate(protocols=()), Reason.PROTOCOL_UNUSABLE),
        (_negotiate(protocols=(replace(ALL, protocol=2),)), Reason.PROTOCOL_UNUSABLE),
        (_negotiate(concatenation=1), Reason.CONCATENATION_MISMATCH),
        (_negotiate(protocols=(replace(ALL, digests=()),)), Reason.HASH_UNUSABLE),
        (_negotiate(protocols=(replace(ALL, digests=(0, 4, 255)),)), Reason.HASH_UNUSABLE),
        (_negotiate(protocols=(replace(ALL, groups=()),)), Reason.GROUP_UNUSABLE),
        (_negotiate(protocols=(replace(ALL, groups=(6, 200)),)), Reason.GROUP_UNUSABLE),
        (_negotiate(protocols=(replace(ALL, digests=(1,) * 31),)), Reason.INCORRECT_PAYLOAD),
        (_negotiate(protocols=(replace(ALL, groups=(1,) * 31),)), Reason.INCORRECT_PAYLOAD),
        (Reply(5, bytes(32)).pack(), Reason.INCORRECT_MESSAGE),
        (auth.Success2(5).pack(), Reason.INCORRECT_MESSAGE),
        (Failure(Kind.FAILURE2, 5, 1).pack(), Reason.INCORRECT_MESSAGE),
        (Failure(Kind.FAILURE1, 5, 1).pack(), Reason.INCORRECT_MESSAGE),
        (Success1(5, 32).pack(), Reason.INCORRECT_MESSAGE),
        (Challenge(5, 1, 0, 1, bytes(32)).pack(), Reason.INCORRECT_MESSAGE),
        (b"\7\7\0\0\5\0\0\0", Reason.INCORRECT_MESSAGE),
        (bytes(range(256)) * 16, Reason.INCORRECT_MESSAGE),
    ],
)
def test_a_first_message_that_cannot_be_used(engine: Any, guarded: int, message: bytes, reason: Reason) -> None:
    async def story(wire: Wire) -> None:
        assert await wire.send(message) == Status.SUCCESS
        assert await wire.failure() == reason
        await wire.gone()

    speak(guarded, story)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw[:15], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:-1], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw + b"\0" * 4, Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:4] + b"\6" + raw[5:], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:6] + b"\x30" + raw[7:], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:8] + b"\2" + raw[9:], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:8] + b"\1" + raw[9:], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:10] + b"\2\0" + raw[12:] + b"\0\0", Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:10] + b"\xff\xff" + raw[12:], Reason.INCORRECT_PAYLOAD),
        (lambda raw: raw[:16] + bytes(32) + raw[48:], Reason.FAILED),
        (lambda raw: raw[:-1] + b"\1", None),
        (lambda _: _negotiate(), Reason.INCORRECT_MESSAGE),
        (lambda _: auth.Success2(5).pack(), Reason.INCORRECT_MESSAGE),
    ],
    ids=[
        "short", "cut", "long", "another transaction", "HL", "CVALID 2", "CVALID without SEQNUM", "odd DHVLEN",
        "large DHVLEN", "response", "bytes of a challenge that is not valid", "negotiation again", "success too early",
    ],
)  # fmt: skip
def test_a_reply_that_cannot_be_used(
    engine: Any, guarded: int, change: Callable[[bytes], bytes], reason: Reason | None
) -> None:
    async def story(wire: Wire) -> None:
        asked = await wire.challenge(Protocol((Digest.SHA256,), QUICK))
        assert (asked.group, len(asked.challenge), asked.public) == (DhGroup.NULL, 32, b"")
        assert asked.seqnum
        assert await wire.send(change(Reply(5, answer(asked)).pack())) == Status.SUCCESS
        if reason is None:
            assert Success1.parse(await wire.receive(), padded=True) == Success1(5, 32)
            return
        assert await wire.failure() == reason
        await wire.gone()

    speak(guarded, story)


P = prime(DhGroup.FFDHE2048)


@pytest.mark.parametrize(
    ("public", "guess"),
    [(0, 0), (1, 1), (P - 1, 1), (P, 0), (P + 1, 1), (P + 2, None), (P - 2, None)],
    ids=["0", "1", "p - 1", "p", "p + 1", "above p", "outside of the group"],
)
def test_a_public_value_that_gives_the_shared_secret_away_is_refused(
    engine: Any, guarded: int, public: int, guess: int | None
) -> None:
    """Even with the response that would be right.  The private exponent of 2 is 1: the secret is their own value."""

    async def story(wire: Wire) -> None:
        asked = await wire.challenge(Protocol((Digest.SHA256,), (DhGroup.FFDHE2048,)))
        shared = asked.public if guess is None else guess.to_bytes(256)
        reply = Reply(5, answer(asked, shared), public=public.to_bytes(256))
        assert await wire.send(reply.pack()) == Status.SUCCESS
        assert await wire.failure() == Reason.FAILED
        await wire.gone()

    speak(guarded, story)


def test_a_public_value_of_another_length_is_read_as_a_number(engine: Any, guarded: int) -> None:
    async def story(wire: Wire) -> None:
        asked = await wire.challenge(Protocol((Digest.SHA256,), (DhGroup.FFDHE2048,)))
        mine = DhKey.make(DhGroup.FFDHE2048, bytes(31) + b"\1")
        reply = Reply(5, answer(asked, mine.share(asked.public)), public=bytes(8) + mine.public)
        assert await wire.send(reply.pack()) == Status.SUCCESS
        assert Success1.parse(await wire.receive(), padded=True) == Success1(5, 32)

    speak(guarded, story)


@pytest.mark.parametrize("last", ["success", "failure"])
def test_the_host_has_the_last_word_about_the_controller(engine: Any, guarded: int, last: str) -> None:
    async def story(wire: Wire) -> None:
        asked = await wire.challenge(Protocol((Digest.SHA384,), QUICK))
        ours = Question(Digest.SHA384, 5, 77, b"c" * 48)
        assert await wire.send(Reply(5, answer(asked), ours.challenge, 77).pack()) == Status.SUCCESS
        told = Success1.parse(await wire.receive(), padded=True)
        assert told == Success1(5, 48, ours.controller_answer(THEIRS, HOST, NQN))
        version = fabrics.property_get(fabrics.Property.VS)
        reply = await wire.queue.execute(version, timeout_s=20)
        assert reply.completion.code == Status.AUTHENTICATION_REQUIRED
        if last == "success":
            assert await wire.send(auth.Success2(5).pack()) == Status.SUCCESS
            (await wire.queue.execute(version, timeout_s=20)).check()
            return
        assert await wire.send(Failure(Kind.FAILURE2, 5, Reason.FAILED).pack()) == Status.SUCCESS
        reply = await wire.queue.execute(version, timeout_s=20)
        assert reply.completion.code == Status.AUTHENTICATION_REQUIRED
        assert await wire.failure() == Reason.INCORRECT_MESSAGE
        await wire.gone()

    speak(guarded, story)


@pytest.mark.parametrize(
    "message",
    [auth.Success2(6).pack(), auth.Success2(5).pack()[:-1], auth.Success2(5).pack() * 2],
    ids=["another transaction", "cut", "twice"],
)
def test_a_last_word_that_cannot_be_used(engine: Any, guarded: int, message: bytes) -> None:
    async def story(wire: Wire) -> None:
        asked = await wire.challenge(Protocol((Digest.SHA256,), QUICK))
        assert await wire.send(Reply(5, answer(asked), b"c" * 32, 1).pack()) == Status.SUCCESS
        await wire.receive()
        assert await wire.send(message) == Status.SUCCESS
        assert await wire.failure() == Reason.INCORRECT_PAYLOAD
        await wire.gone()

    speak(guarded, story)


def test_nothing_to_receive(engine: Any, guarded: int) -> None:
    async def story(wire: Wire) -> None:
        assert await wire.failure() == Reason.INCORRECT_MESSAGE
        await wire.gone()

    speak(guarded, story)


@pytest.mark.parametrize(("size", "reason"), [(47, Reason.INCORRECT_PAYLOAD), (8, Reason.INCORRECT_PAYLOAD), (4, None)])
def test_a_challenge_that_does_not_fit(engine: Any, guarded: int, size: int, reason: Reason | None) -> None:
    async def story(wire: Wire) -> None:
        assert await wire.send(Negotiate(5, (Protocol((Digest.SHA256,), QUICK),)).pack()) == Status.SUCCESS
        if reason is None:
            with pytest.raises(NvmeError) as caught:
                await wire.receive(size)
            assert (caught.value.code, caught.value.dnr) == (Status.INVALID_FIELD, True)
        else:
            assert Failure.parse(await wire.receive(size), padded=True).reason == reason
        await wire.gone()

    speak(guarded, story)


@pytest.mark.parametrize(
    "change",
    [
        {"cdw10": 0xE8010100}, {"cdw10": 0xE9010000}, {"cdw10": 0xE9000100}, {"cdw11": 4095}, {"cdw11": 0},
    ],
    ids=["SECP", "SPSP0", "SPSP1", "AL", "AL 0"],
)  # fmt: skip
def test_fields_of_the_commands(engine: Any, guarded: int, change: dict[str, int]) -> None:
    """A command that is wrong in itself has a status and ends nothing."""

    async def story(wire: Wire) -> None:
        receive = auth.auth_receive()._replace(**change)
        message = _negotiate(protocols=(Protocol((Digest.SHA256,), QUICK),))
        send = auth.auth_send(len(message))._replace(**change)
        for command, data, size in ((receive, b"", 4096), (send, message, 0)):
            reply = await wire.queue.execute(command, data, read_size=size, timeout_s=20)
            assert (reply.completion.code, reply.completion.dnr) == (Status.INVALID_FIELD, True)
        assert (await wire.challenge(Protocol((Digest.SHA256,), QUICK))).digest == Digest.SHA256

    speak(guarded, story)
