"""Authentication of a queue: DH-HMAC-CHAP from the controller's side.

Why: without it an NQN is a claim.  Who may connect is decided in ``admin``; whether they are who they say, here.
This module must never log or keep a secret: a key file is read for each response, and forgotten.

Invariants: a queue that must authenticate carries no other command until it has (``required``); a response is
compared in constant time; a queue that failed is disconnected a moment after it was told why; one authentication
command of a queue is looked at at a time; nobody reaches a calculation without the step before it, so that a
stranger costs two Diffie-Hellman calculations a connection at most.
Sources: NVMe base 2.0c section 8.13.5; SPDK v26.05 lib/nvmf/auth.c.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.keyring import KeyPair
from dataplane.embedded.offload import calculate
from dataplane.nvme import auth
from dataplane.nvme.auth import BadMessage, Challenge, Failure, Header, Kind, Negotiate, Reason, Reply
from dataplane.nvme.commands import Command, FabricsType, Feature
from dataplane.nvme.dhchap import BadSecret, Digest, Question
from dataplane.nvme.ffdhe import BadPublicValue, DhGroup, DhKey
from dataplane.nvme.layout import Raw
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.tcp import TcpQueue

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S: Final = 120.0
FAILURE_DELAY_S: Final = 0.1  # so that the host reads why before its connection goes


class Step(Enum):
    """Where an exchange stands; the values are those that ``nvmf_subsystem_get_qpairs`` shows."""

    NEGOTIATE = "negotiate"
    CHALLENGE = "challenge"
    REPLY = "reply"
    SUCCESS1 = "success1"
    SUCCESS2 = "success2"
    FAILURE1 = "failure1"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The hash functions and DH groups that the target takes part in (``nvmf_set_config``)."""

    digests: frozenset[Digest] = frozenset(Digest)
    groups: frozenset[DhGroup] = frozenset(DhGroup)

    def with_names(self, digests: list[str] | None, groups: list[str] | None) -> Allowed:
        """With the names that were set; None changes nothing."""
        return Allowed(
            self.digests if digests is None else frozenset(item for item in Digest if item.label in digests),
            self.groups if groups is None else frozenset(item for item in DhGroup if item.label in groups),
        )

    def to_json(self) -> dict[str, object]:
        """As ``nvmf_set_config`` takes it."""
        return {
            "dhchap_digests": [item.label for item in sorted(self.digests)],
            "dhchap_dhgroups": [item.label for item in sorted(self.groups)],
        }

    def choose(self, offer: auth.Protocol) -> tuple[Digest, DhGroup]:
        """The strongest of both that the host offers too; raises ``BadMessage``."""
        digest = max((item for item in self.digests if item in offer.digests), default=None)
        if digest is None:
            raise BadMessage(Reason.HASH_UNUSABLE, "no hash function in common")
        group = max((item for item in self.groups if item in offer.groups), default=None)
        if group is None:
            raise BadMessage(Reason.GROUP_UNUSABLE, "no DH group in common")
        return digest, group


class Authentication:
    """The exchange of one queue, and those after it: a host may authenticate again at any time."""

    def __init__(self, queue: TcpQueue, controller: Controller, *, required: bool) -> None:
        self.queue = queue
        self.controller = controller
        self.required = required
        self.step = Step.NEGOTIATE
        self.digest: Digest | None = None
        self.group = DhGroup.NULL
        self._tid = 0
        self._seqnum = 0
        self._challenge = b""
        self._key: DhKey | None = None
        self._answer = b""
        self._reason = Reason.FAILED
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._arm()

    def to_json(self) -> dict[str, object]:
        """As ``nvmf_subsystem_get_qpairs`` shows it."""
        digest = "unknown" if self.digest is None else self.digest.label
        return {"state": self.step.value, "digest": digest, "dhgroup": self.group.label}

    # Time

    def _arm(self) -> None:
        """The host has the time of its keep alive for each step."""
        kato_ms = self.controller.features.values[Feature.KEEP_ALIVE_TIMER]
        self._set_timer(kato_ms / 1000 or DEFAULT_TIMEOUT_S, self._time_is_up)

    def _set_timer(self, delay_s: float, then: Callable[[], None]) -> None:
        self.close()
        if not self.queue.gone:
            self._timer = asyncio.get_running_loop().call_later(delay_s, then)

    def close(self) -> None:
        """The queue is gone, or nothing is waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        if self.required:
            self._disconnect("authentication timed out")
        else:
            # A host that began again and stopped has still proved itself once.
            self._end(Step.COMPLETED)

    def _disconnect(self, reason: str) -> None:
        self._end(Step.ERROR)
        self.queue.disconnect(reason)

    def _end(self, step: Step) -> None:
        self.step = step
        self._key = None
        self.close()

    # Commands

    async def execute(self, command: Command, data: Raw) -> bytes:
        """Authentication Send or Receive; what goes to the host.  Raises ``NvmeError``."""
        async with self._turn:
            if self.queue.gone:
                raise NvmeError(Status.ABORTED_SQ_DELETION)
            if self.step is Step.COMPLETED:
                self.step, self.digest = Step.NEGOTIATE, None
                self._arm()
            if not auth.is_well_formed(command):
                raise NvmeError(Status.INVALID_FIELD, dnr=True)
            if command.fctype == FabricsType.AUTH_RECEIVE:
                return await self._give(command.length)
            try:
                await self._take(data)
            except BadMessage as problem:
                self._fail(problem)
            return b""

    def _fail(self, problem: BadMessage) -> None:
        """The host is told with its next Receive; until then the queue stays as it is."""
        host, nqn = self.controller.hostnqn, self.controller.subsystem.nqn
        log.warning("authentication of %s to %s, queue %d: %s", host, nqn, self.queue.qid, problem)
        self.step, self._reason = Step.FAILURE1, problem.reason

    # From the host

    async def _take(self, data: Raw) -> None:
        header = Header.parse(data)
        match header.kind:
            case Kind.NEGOTIATE:
                self._expect(Step.NEGOTIATE)
                self._tid = header.tid
                self._negotiate(Negotiate.parse(data))
            case Kind.REPLY:
                self._expect(Step.REPLY)
                await self._check_reply(data)
            case Kind.SUCCESS2:
                self._expect(Step.SUCCESS2)
                self._check_tid(auth.Success2.parse(data).tid)
                self._succeed()
            case Kind.FAILURE2:
                self._expect(Step.SUCCESS2)
                failure = Failure.parse(data)
                self._check_tid(failure.tid)
                log.warning("%s does not take %s for itself: %s", self.controller.hostnqn,
                            self.controller.subsystem.nqn, failure.words)  # fmt: skip
                self.step = Step.ERROR
            case _:
                raise BadMessage(Reason.INCORRECT_MESSAGE, f"message {header.kind:03X}h")

    def _expect(self, step: Step) -> None:
        if self.step is not step:
            raise BadMessage(Reason.INCORRECT_MESSAGE, f"a message out of turn: {self.step.value}")

    def _check_tid(self, tid: int) -> None:
        if tid != self._tid:
            raise BadMessage(Reason.INCORRECT_PAYLOAD, f"transaction {tid}, not {self._tid}")

    def _negotiate(self, offer: Negotiate) -> None:
        self.digest, self.group = self.queue.target.settings.authentication.choose(offer.dhchap)
        self._arm()
        self.step = Step.CHALLENGE

    async def _check_reply(self, data: Raw) -> None:
        assert self.digest is not None
        reply = Reply.parse(data, self.digest.size)
        self._check_tid(reply.tid)
        keys = self.controller.subsystem.host_keys.get(self.controller.hostnqn)
        if keys is None:
            raise BadMessage(Reason.FAILED, "the host has no key")
        try:
            expected, self._answer = await calculate(lambda: self._calculate(keys, reply))
        except (BdevError, BadSecret, BadPublicValue) as problem:
            raise BadMessage(Reason.FAILED, str(problem)) from None
        self._still(Step.REPLY)
        if not hmac.compare_digest(expected, reply.response):
            raise BadMessage(Reason.FAILED, "the response is wrong")
        if reply.challenge and not self._answer:
            raise BadMessage(Reason.FAILED, "the host asks for a key of the controller, and there is none")
        self._arm()
        self.step = Step.SUCCESS1

    def _calculate(self, keys: KeyPair, reply: Reply) -> tuple[bytes, bytes]:
        """What the host should have answered, and our own answer; off the loop."""
        assert self.digest is not None
        assert keys.host is not None
        host, nqn = self.controller.hostnqn, self.controller.subsystem.nqn
        shared = b"" if self._key is None else self._key.share(reply.public)
        ours = Question(self.digest, self._tid, self._seqnum, self._challenge, shared)
        expected = ours.host_answer(keys.host.secret(), host, nqn)
        if not reply.challenge or keys.controller is None:
            return expected, b""
        theirs = Question(self.digest, self._tid, reply.seqnum, reply.challenge, shared)
        return expected, theirs.controller_answer(keys.controller.secret(), host, nqn)

    def _still(self, step: Step) -> None:
        """After a calculation: the connection, or the time, may be over."""
        if self.queue.gone or self.step is not step:
            raise NvmeError(Status.ABORTED_SQ_DELETION)

    def _succeed(self) -> None:
        self.required = False
        self._end(Step.COMPLETED)

    # To the host

    async def _give(self, size: int) -> bytes:
        try:
            match self.step:
                case Step.CHALLENGE:
                    return await self._make_challenge(size)
                case Step.SUCCESS1:
                    return self._make_success(size)
                case Step.FAILURE1:
                    pass
                case _:
                    raise BadMessage(Reason.INCORRECT_MESSAGE, f"nothing to receive: {self.step.value}")
        except BadMessage as problem:
            self._fail(problem)
        self.step = Step.FAILURE1
        self._set_timer(FAILURE_DELAY_S, lambda: self._disconnect("authentication failed"))
        if size < auth.FAILURE_SIZE:
            raise NvmeError(Status.INVALID_FIELD, dnr=True)
        return Failure(Kind.FAILURE1, self._tid, self._reason).pack()

    async def _make_challenge(self, size: int) -> bytes:
        assert self.digest is not None
        group = self.group
        self._key = None
        if group is not DhGroup.NULL:
            random = secrets.token_bytes(group.exponent_size)
            self._key = await calculate(lambda: DhKey.make(group, random))
            self._still(Step.CHALLENGE)
        self._seqnum = self.controller.subsystem.next_auth_seqnum()
        self._challenge = secrets.token_bytes(self.digest.size)
        public = b"" if self._key is None else self._key.public
        message = Challenge(self._tid, self.digest, group, self._seqnum, self._challenge, public).pack()
        _check_room(message, size)
        self._arm()
        self.step = Step.REPLY
        return message

    def _make_success(self, size: int) -> bytes:
        assert self.digest is not None
        message = auth.Success1(self._tid, self.digest.size, self._answer).pack()
        _check_room(message, size)
        if self._answer:
            self._arm()
            self.step = Step.SUCCESS2
        else:
            self._succeed()
        return message


def _check_room(message: bytes, size: int) -> None:
    if size < len(message):
        raise BadMessage(Reason.INCORRECT_PAYLOAD, f"{len(message)} bytes do not fit into {size}")
