"""The host's side of DH-HMAC-CHAP against a controller that says something wrong: what it is told, and the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from scripted_controller import Peer, play

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.initiator.authentication import Credentials, NotAuthenticated, Parties, authenticate
from dataplane.embedded.initiator.connection import Connection
from dataplane.nvme.auth import Challenge, Failure, Kind, Negotiate, Reason, Reply, Success1, Success2
from dataplane.nvme.commands import FabricsType
from dataplane.nvme.dhchap import Digest, Question, Secret
from dataplane.nvme.ffdhe import DhGroup, prime
from dataplane.nvme.status import NvmeError, Status

HOST, NQN = "nqn.2026-01.io.ws7000:host:a", "nqn.2026-01.io.ws7000:sub"
MINE, THEIRS = Secret(b"m" * 32), Secret(b"t" * 48, Digest.SHA384)
BOTH = Credentials.of(MINE, THEIRS)
ASKED = Challenge(0, Digest.SHA256, DhGroup.NULL, 9, b"c" * 32)
RIGHT = Success1(0, 32)


async def take(peer: Peer) -> bytes:
    """What the host sends with an Authentication Send, completed."""
    got = await peer.command()
    assert got.command.fctype == FabricsType.AUTH_SEND
    peer.complete(got.command.cid)
    return bytes(got.data)


async def give(peer: Peer, message: bytes) -> None:
    """Answer an Authentication Receive, with as many bytes as there are."""
    got = await peer.command()
    assert got.command.fctype == FabricsType.AUTH_RECEIVE
    if message:
        peer.data(got.command.cid, 0, message)
    peer.complete(got.command.cid)


def refused(credentials: Credentials, *messages: bytes | Callable[[Reply], bytes], told: Reason | None) -> str:
    """Play the controller's messages; why the host gives up.  ``told``: what it says in AUTH_Failure2, if it does."""
    reasons: list[str] = []

    async def script(peer: Peer) -> None:
        assert Negotiate.parse(await take(peer)).tid == 0
        reply = Reply(0, b"")
        for message in messages:
            await give(peer, message(reply) if callable(message) else message)
            if message is not messages[-1]:
                reply = Reply.parse(await take(peer), 32)
        if told is not None:
            assert Failure.parse(await take(peer)) == Failure(Kind.FAILURE2, 0, told)

    async def act(connection: Connection) -> None:
        with pytest.raises(NotAuthenticated) as caught:
            await authenticate(connection, Parties(HOST, NQN), credentials, 5)
        reasons.append(str(caught.value))

    play(script, act)
    return reasons[0]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", Reason.INCORRECT_PAYLOAD),
        (b"\1\1\0", Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, tid=1).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, seqnum=0).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, digest=0).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, digest=4).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, digest=Digest.SHA512).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, group=6).pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, challenge=b"").pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, public=b"1234").pack(), Reason.INCORRECT_PAYLOAD),
        (replace(ASKED, group=DhGroup.FFDHE2048).pack(), Reason.INCORRECT_PAYLOAD),
        (ASKED.pack()[:10] + b"\xff\xff" + ASKED.pack()[12:], Reason.INCORRECT_PAYLOAD),
        (RIGHT.pack(), Reason.INCORRECT_MESSAGE),
        (Success2(0).pack(), Reason.INCORRECT_MESSAGE),
        (Negotiate(0, ()).pack(), Reason.INCORRECT_MESSAGE),
        (b"\7\7\0\0\0\0\0\0", Reason.INCORRECT_MESSAGE),
    ],
)
def test_a_challenge_that_cannot_be_used(message: bytes, reason: Reason) -> None:
    assert "does not authenticate" in refused(BOTH, message, told=reason)


def test_a_choice_that_was_not_offered() -> None:
    only = replace(BOTH, digests=(Digest.SHA512,))
    assert "not offered" in refused(only, ASKED.pack(), told=Reason.INCORRECT_PAYLOAD)
    only = replace(BOTH, groups=(DhGroup.FFDHE2048,))
    assert "not offered" in refused(only, ASKED.pack(), told=Reason.INCORRECT_PAYLOAD)


def _theirs(reply: Reply) -> bytes:
    return Question(Digest.SHA256, 0, reply.seqnum, reply.challenge).controller_answer(THEIRS, HOST, NQN)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (lambda reply: Success1(1, 32, _theirs(reply)).pack(), Reason.INCORRECT_PAYLOAD),
        (lambda _: RIGHT.pack(), Reason.INCORRECT_PAYLOAD),
        (lambda _: Success1(0, 32, b"r" * 32).pack(), Reason.FAILED),
        (lambda reply: Success1(0, 32, reply.response).pack(), Reason.FAILED),
        (lambda reply: Success1(0, 31, _theirs(reply)[:31]).pack(), Reason.INCORRECT_PAYLOAD),
        (lambda _: b"\1\3\0\0\0\0", Reason.INCORRECT_PAYLOAD),
        (lambda _: ASKED.pack(), Reason.INCORRECT_MESSAGE),
    ],
    ids=["transaction", "no response", "wrong", "reflected", "short", "cut", "a challenge again"],
)
def test_a_controller_that_does_not_prove_itself(message: Callable[[Reply], bytes], reason: Reason) -> None:
    assert "does not authenticate" in refused(BOTH, ASKED.pack(), message, told=reason)


@pytest.mark.parametrize("reason", [*Reason, 99])
def test_the_controllers_reason_is_passed_on(reason: int) -> None:
    failure = Failure(Kind.FAILURE1, 0, reason)
    assert refused(BOTH, failure.pack(), told=None) == f"the controller refuses the host: {failure.words}"
    assert refused(BOTH, ASKED.pack(), failure.pack(), told=None).startswith("the controller refuses the host")


def test_a_public_value_of_the_controller_that_hides_nothing() -> None:
    asked = replace(ASKED, group=DhGroup.FFDHE2048, public=(1).to_bytes(256))
    assert "no response can be calculated" in refused(BOTH, asked.pack(), told=None)


def test_a_secret_that_cannot_be_read_is_no_secret_that_is_shown() -> None:
    def unreadable() -> Secret:
        raise BdevError(126, "Required key not available")

    assert "Required key" in refused(Credentials(unreadable), ASKED.pack(), told=None)
    assert "base64" in refused(Credentials(lambda: Secret.parse("DHHC-1:00:A:")), ASKED.pack(), told=None)


def test_without_a_secret_nothing_is_sent() -> None:
    async def script(peer: Peer) -> None:
        assert await peer.next() is None

    async def act(connection: Connection) -> None:
        with pytest.raises(NotAuthenticated, match="no secret of the host"):
            await authenticate(connection, Parties(HOST, NQN), Credentials.of(None, THEIRS), 5)
        await connection.close()

    play(script, act)


def test_a_command_that_is_refused_is_an_error_of_its_own() -> None:
    async def script(peer: Peer) -> None:
        peer.complete((await peer.command()).command.cid, Status.INVALID_FIELD)

    async def act(connection: Connection) -> None:
        with pytest.raises(NvmeError) as caught:
            await authenticate(connection, Parties(HOST, NQN), BOTH, 5)
        assert caught.value.code == Status.INVALID_FIELD

    play(script, act)


@pytest.mark.parametrize("group", [DhGroup.NULL, DhGroup.FFDHE2048])
def test_an_exchange_that_succeeds(group: DhGroup) -> None:
    """Transactions and challenges differ from one exchange to the next."""
    seen: list[tuple[int, int, bytes]] = []
    parties = Parties(HOST, NQN)

    async def script(peer: Peer) -> None:
        for tid in (0, 1):
            offer = Negotiate.parse(await take(peer))
            assert offer.tid == tid
            public = (4).to_bytes(group.size) if group else b""
            await give(peer, replace(ASKED, tid=tid, group=group, public=public).pack())
            reply = Reply.parse(await take(peer), 32)
            seen.append((reply.tid, reply.seqnum, reply.challenge))
            if not group:
                asked = Question(Digest.SHA256, tid, ASKED.seqnum, ASKED.challenge)
                assert reply.response == asked.host_answer(MINE, HOST, NQN)
            # 4 is 2 squared, so the shared secret is the host's own public value squared.
            square = int.from_bytes(reply.public)
            shared = (pow(square, 2, prime(group)).to_bytes(group.size)) if group else b""
            answer = Question(Digest.SHA256, tid, reply.seqnum, reply.challenge, shared)
            await give(peer, Success1(tid, 32, answer.controller_answer(THEIRS, HOST, NQN)).pack())
            assert Success2.parse(await take(peer)).tid == tid

    async def act(connection: Connection) -> None:
        for _ in range(2):
            await authenticate(connection, parties, BOTH, 5)

    play(script, act)
    assert len({number for _, number, _ in seen}) == len({challenge for *_, challenge in seen}) == 2
    assert all(number for _, number, _ in seen)


def test_credentials_show_nothing() -> None:
    assert "Secret" not in repr(BOTH)
    assert "lambda" not in repr(BOTH)
