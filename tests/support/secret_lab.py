"""What tests of DH-HMAC-CHAP have in common: secrets in files, a host that knows them, and one that speaks message
by message, so that it can say something wrong on purpose."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataplane.embedded.initiator.association import Association, AssociationOptions, open_association
from dataplane.embedded.initiator.authentication import Credentials
from dataplane.embedded.initiator.connection import Connection, Endpoint, open_connection
from dataplane.nvme import auth, commands, fabrics
from dataplane.nvme.auth import Challenge, Failure, Kind, Negotiate, Protocol
from dataplane.nvme.dhchap import Digest, Question, Secret
from dataplane.nvme.fabrics import ConnectData
from dataplane.nvme.ffdhe import DhGroup
from dataplane.nvme.status import Status
from dataplane.rpc.methods import keyring

NQN = "nqn.2026-01.io.ws7000:contract:secret"
HOST = "nqn.2026-01.io.ws7000:host:a"
LOCAL = "127.0.0.1"
BLOCK = 512
HOSTID = bytes(range(16))
ALL = Protocol(tuple(Digest), tuple(DhGroup))
QUICK = (DhGroup.NULL,)


def secret(seed: str, transform: Digest | None = None, size: int = 32) -> Secret:
    return Secret(hashlib.shake_256(seed.encode()).digest(size), transform)


MINE, THEIRS, OTHER = secret("host"), secret("controller", Digest.SHA384, 48), secret("other")


class Keys:
    """Puts secrets into files and into the keyring of an engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, value: Secret) -> Path:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(value.text())
        return path

    def add(self, engine: Any, name: str, value: Secret) -> str:
        engine.run(keyring.file_add_key(name, str(self.write(name, value))))
        return name


def options(port: int, credentials: Credentials, subnqn: str = NQN) -> AssociationOptions:
    return AssociationOptions(subnqn, HOST, HOSTID, Endpoint(LOCAL, port), credentials=credentials)


def known(
    host: Secret | None = MINE,
    controller: Secret | None = None,
    digests: tuple[Digest, ...] = tuple(Digest),
    groups: tuple[DhGroup, ...] = QUICK,
) -> Credentials:
    return replace(Credentials.of(host, controller), digests=digests, groups=groups)


async def use(association: Association) -> None:
    """Write and read back."""
    data = hashlib.shake_256(b"data").digest(8 * BLOCK)
    (await association.io(commands.write(1, 0, 8, BLOCK), data)).check()
    assert bytes((await association.io(commands.read(1, 0, 8, BLOCK), read_size=8 * BLOCK)).check()) == data


def connected(
    port: int, credentials: Credentials, then: Callable[[Association], Awaitable[None]] = use, subnqn: str = NQN
) -> None:
    """Connect, do something, leave."""

    async def whole() -> None:
        async with asyncio.timeout(60):
            association = await open_association(options(port, credentials, subnqn))
            try:
                await then(association)
            finally:
                await association.close()

    asyncio.run(whole())


class Wire:
    """One queue, connected and not authenticated."""

    def __init__(self, queue: Connection, cntlid: int, required: bool) -> None:
        self.queue, self.cntlid, self.required = queue, cntlid, required

    async def send(self, message: bytes) -> int:
        """The status of sending it."""
        reply = await self.queue.execute(auth.auth_send(len(message)), message, timeout_s=20)
        return reply.completion.code

    async def receive(self, size: int = auth.RECEIVE_SIZE) -> bytes:
        reply = await self.queue.execute(auth.auth_receive(size), read_size=size, timeout_s=20)
        return bytes(reply.check())

    async def failure(self) -> int:
        """The reason that is received instead of an answer."""
        found = Failure.parse(await self.receive(), padded=True)
        assert found.kind is Kind.FAILURE1
        return found.reason

    async def challenge(self, offer: Protocol, tid: int = 5) -> Challenge:
        assert await self.send(Negotiate(tid, (offer,)).pack()) == Status.SUCCESS
        return Challenge.parse(await self.receive(), padded=True)

    async def gone(self) -> None:
        """Return when the controller has hung up."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.queue.on_lost = lambda _, reason: lost.set_result(reason)
        if self.queue.lost is None:
            await lost


def answer(asked: Challenge, shared: bytes = b"", host: Secret = MINE) -> bytes:
    question = Question(Digest(asked.digest), asked.tid, asked.seqnum, asked.challenge, shared)
    return question.host_answer(host, HOST, NQN)


def speak(port: int, story: Callable[[Wire], Awaitable[None]]) -> None:
    """Connect an admin queue and no more, then do as the story says."""

    async def whole() -> None:
        async with asyncio.timeout(60):
            queue = await open_connection(Endpoint(LOCAL, port), 32, 1 << 17, 5)
            try:
                data = ConnectData(HOSTID, fabrics.CNTLID_DYNAMIC, NQN, HOST).pack()
                reply = await queue.execute(fabrics.connect(0, 32, 10_000), data, timeout_s=20)
                reply.check()
                cdw0 = reply.completion.cdw0
                await story(Wire(queue, cdw0 & 0xFFFF, cdw0 >> 16 == fabrics.CONNECT_ATR >> 16))
            finally:
                await queue.close()

    asyncio.run(whole())
