"""Authentication of a queue: DH-HMAC-CHAP from the host's side.

Why: a controller that asks for it carries no other command before; and a host that has a secret of the controller
wants to know who it talks to before it sends data.  This module must never log, show or keep a secret: it is read
when a response is calculated, so a key file may change between two exchanges.

Invariants: with a controller's secret an exchange never succeeds without the controller's right response; what the
controller sends is checked before it is used; long calculations leave the loop free for other queues.
Sources: NVMe base 2.0c section 8.13.5; SPDK v26.05 lib/nvme/nvme_auth.c.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.initiator.connection import Connection, TransportLost
from dataplane.embedded.offload import calculate
from dataplane.nvme import auth
from dataplane.nvme.auth import BadMessage, Challenge, Failure, Header, Kind, Negotiate, Protocol, Reason
from dataplane.nvme.auth import Reply as AuthReply
from dataplane.nvme.dhchap import BadSecret, Digest, Question, Secret
from dataplane.nvme.ffdhe import BadPublicValue, DhGroup, DhKey


class NotAuthenticated(TransportLost):
    """Host and controller could not prove to each other who they are; nothing else may be sent."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the secrets come from, read at each use, and what may be used with them.

    ``controller``: the controller has to authenticate too.
    """

    host: Callable[[], Secret] | None = field(default=None, repr=False)
    controller: Callable[[], Secret] | None = field(default=None, repr=False)
    digests: tuple[Digest, ...] = tuple(Digest)
    groups: tuple[DhGroup, ...] = tuple(DhGroup)

    @classmethod
    def of(cls, host: Secret | None, controller: Secret | None = None) -> Credentials:
        """Of secrets that are known already."""
        return cls(
            None if host is None else lambda: host,
            None if controller is None else lambda: controller,
        )


NO_CREDENTIALS: Final = Credentials()


class Parties:
    """Who authenticates with whom; counts what must differ from one exchange to the next."""

    def __init__(self, hostnqn: str, subnqn: str) -> None:
        self.hostnqn = hostnqn
        self.subnqn = subnqn
        self._transactions = 0
        self._seqnum = secrets.randbits(32)

    def next_tid(self) -> int:
        """A transaction identifier."""
        self._transactions += 1
        return self._transactions - 1 & 0xFFFF

    def next_seqnum(self) -> int:
        """The number of a challenge: never 0."""
        self._seqnum = (self._seqnum + 1) & 0xFFFFFFFF or 1
        return self._seqnum


async def authenticate(
    queue: Connection, parties: Parties, credentials: Credentials, timeout_s: float | None = None
) -> None:
    """One exchange.  Raises ``NotAuthenticated``, ``TransportLost`` and ``NvmeError`` (a command was refused)."""
    exchange = _Exchange(queue, parties, credentials, timeout_s)
    try:
        await exchange.run()
    except BadMessage as problem:
        await exchange.send(Failure(Kind.FAILURE2, exchange.tid, problem.reason).pack())
        raise NotAuthenticated(f"the controller does not authenticate: {problem}") from None
    except (BdevError, BadSecret, BadPublicValue) as problem:
        raise NotAuthenticated(f"no response can be calculated: {problem}") from None


class _Exchange:
    def __init__(self, queue: Connection, parties: Parties, credentials: Credentials, timeout_s: float | None) -> None:
        self.queue = queue
        self.parties = parties
        self.credentials = credentials
        self.timeout_s = timeout_s
        self.tid = parties.next_tid()

    async def run(self) -> None:
        credentials = self.credentials
        if credentials.host is None:
            raise NotAuthenticated("there is no secret of the host")
        offer = Protocol(credentials.digests, credentials.groups)
        await self.send(Negotiate(self.tid, (offer,)).pack())
        challenge = Challenge.parse(await self._receive(Kind.CHALLENGE), padded=True)
        digest, group = self._check(challenge)
        read_host, seqnum = credentials.host, self.parties.next_seqnum() if credentials.controller else 0
        reply, expected = await calculate(lambda: self._calculate(read_host, digest, group, challenge, seqnum))
        await self.send(reply.pack())
        success = auth.Success1.parse(await self._receive(Kind.SUCCESS1), padded=True)
        self._check_tid(success.tid)
        if credentials.controller is None:
            return
        if len(success.response) != digest.size:
            raise BadMessage(Reason.INCORRECT_PAYLOAD, "no response of the right length")
        if not hmac.compare_digest(success.response, expected):
            raise BadMessage(Reason.FAILED, "the response is wrong")
        await self.send(auth.Success2(self.tid).pack())

    async def send(self, message: bytes) -> None:
        reply = await self.queue.execute(auth.auth_send(len(message)), message, timeout_s=self.timeout_s)
        reply.check()

    async def _receive(self, kind: Kind) -> bytes:
        size = auth.RECEIVE_SIZE
        reply = await self.queue.execute(auth.auth_receive(size), read_size=size, timeout_s=self.timeout_s)
        raw = bytes(reply.check())
        found = Header.parse(raw)
        if found.kind == Kind.FAILURE1:
            raise NotAuthenticated(f"the controller refuses the host: {Failure.parse(raw, padded=True).words}")
        if found.kind != kind:
            raise BadMessage(Reason.INCORRECT_MESSAGE, f"message {found.kind:03X}h instead of {kind:03X}h")
        return raw

    def _check_tid(self, tid: int) -> None:
        if tid != self.tid:
            raise BadMessage(Reason.INCORRECT_PAYLOAD, f"transaction {tid}, not {self.tid}")

    def _check(self, challenge: Challenge) -> tuple[Digest, DhGroup]:
        """What the controller chose must be what was offered, and its sizes those that go with it."""
        self._check_tid(challenge.tid)
        digest = next((item for item in self.credentials.digests if item == challenge.digest), None)
        group = next((item for item in self.credentials.groups if item == challenge.group), None)
        if digest is None or group is None:
            raise BadMessage(
                Reason.INCORRECT_PAYLOAD, f"hash function {challenge.digest}, group {challenge.group} not offered"
            )
        if len(challenge.challenge) != digest.size or bool(challenge.public) != (group is not DhGroup.NULL):
            raise BadMessage(
                Reason.INCORRECT_PAYLOAD,
                f"a challenge of {len(challenge.challenge)} bytes, a DH value of {len(challenge.public)}",
            )
        return digest, group

    def _calculate(
        self, read_host: Callable[[], Secret], digest: Digest, group: DhGroup, asked: Challenge, seqnum: int
    ) -> tuple[AuthReply, bytes]:
        """The reply, and what the controller must respond to the challenge in it; off the loop."""
        host, nqn = self.parties.hostnqn, self.parties.subnqn
        public = shared = challenge = expected = b""
        if group is not DhGroup.NULL:
            key = DhKey.make(group, secrets.token_bytes(group.exponent_size))
            public, shared = key.public, key.share(asked.public)
        question = Question(digest, self.tid, asked.seqnum, asked.challenge, shared)
        answer = question.host_answer(read_host(), host, nqn)
        if self.credentials.controller is not None:
            challenge = secrets.token_bytes(digest.size)
            ours = Question(digest, self.tid, seqnum, challenge, shared)
            expected = ours.controller_answer(self.credentials.controller(), host, nqn)
        return AuthReply(self.tid, answer, challenge, seqnum, public), expected
