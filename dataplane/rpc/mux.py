"""One connection to an engine for many calls at once, each with a deadline of its own.

Why: the HA agent is one event loop that must never wait, and one hung drive must make its own answer late and nothing
else.  ``session`` ends its connection at the first missed deadline; here a call that is late fails alone, and its
answer, when it comes after all, is recognized by its number and dropped.

It must never send a call twice, never wait in a cycle, and never give an answer to another call.  Any doubt about the
stream (what is no JSON-RPC, an answer that nobody asked for, its end) ends the connection and all calls under way
with it: whoever holds it makes another one and observes anew.

At most ``limit`` calls are unanswered, late ones included; more are refused at once, never queued: that an engine
leaves so much unanswered is a fact that its caller has to see.  Who sends a known number of calls for as long as the
connection lives has places of its own (``reserve``), so that hung drives cannot take those of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import Any, Final, TypeVar

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc import errors, exchange, stream, wire
from dataplane.rpc.call import Call
from dataplane.rpc.methods import framework
from dataplane.rpc.schema import RELEASES, Schema

T = TypeVar("T")

MAX_UNANSWERED: Final = 64
CONNECT_MS: Final = 1_000


class Mux(asyncio.Protocol):
    """See the module; made by ``connect``."""

    def __init__(self, address: stream.Address, node: str) -> None:
        self.address = stream.show(address)
        self.node = node
        self.peer_pid = 0
        self._talk = wire.Conversation()
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self._reserved = 0
        self._last_number = 0
        self._schema: Schema | None = None
        self._why = ""
        self.ended: asyncio.Event = asyncio.Event()

    @classmethod
    async def connect(
        cls, address: str | os.PathLike[str] | tuple[str, int], *, node: str = "", deadline_ms: int = CONNECT_MS
    ) -> Mux:
        """Connect and learn the engine's release.  Raises ``Unreachable``, ``DeadlineExceeded``, or ``EngineError``
        RPC-017 for an engine that is too old."""
        where: stream.Address = address if isinstance(address, tuple) else os.fspath(address)
        loop = asyncio.get_running_loop()
        made = cls(where, node)
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                if isinstance(where, str):
                    await loop.create_unix_connection(lambda: made, where)
                else:
                    await loop.create_connection(lambda: made, where[0], where[1])
        except TimeoutError as problem:
            raise errors.too_late(made.address, node, "connect", deadline_ms / 1000) from problem
        except OSError as problem:
            raise errors.cannot_connect(made.address, node, problem.strerror or str(problem)) from problem
        try:
            version = await made.run(framework.get_version(), deadline_ms)
            made._schema = Schema.for_version(version.major, version.minor)
            if made._schema is None:
                raise errors.too_old(made.address, node, version.text, RELEASES[0])
        except BaseException:
            await made.close()
            raise
        return made

    @property
    def limit(self) -> int:
        """How many calls may be unanswered."""
        return MAX_UNANSWERED + self._reserved

    @property
    def unanswered(self) -> int:
        """How many are, those included that nobody waits for any more."""
        return len(self._talk.unanswered)

    def reserve(self, calls: int) -> None:
        """Places for as many calls beside those of everybody else; replaces what was reserved before."""
        self._reserved = calls

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        """Send the call before anything else happens, wait for its answer and no other; raises the errors of
        ``dataplane.rpc.errors``."""
        until = asyncio.get_running_loop().time() + deadline_ms / 1000
        try:
            async with asyncio.timeout_at(until):
                reply = await self._sent(call)
        except TimeoutError as problem:
            raise errors.too_late(self.address, self.node, call.method, deadline_ms / 1000) from problem
        found = exchange.outcome_of(call, reply, address=self.address, node=self.node)
        if isinstance(found, Ws7000Error):
            raise found
        return found  # type: ignore[no-any-return]

    def _sent(self, call: Call[Any]) -> asyncio.Future[wire.Reply]:
        if self._transport is None:
            raise errors.connection_lost(self.address, self.node, call.method, self._why)
        if self.unanswered >= self.limit:
            raise errors.TooManyCalls(call.method, self.limit, address=self.address, node=self.node)
        self._last_number += 1
        number = self._last_number
        checked = None if call.method in exchange.UNCHECKED else self._schema
        text = exchange.text_of(number, call, checked)
        answer: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._talk.sent(number)
        self._waiting[number] = answer
        self._transport.write(text)
        return answer

    async def close(self) -> None:
        """End the connection; calls under way end as lost."""
        if self._transport is not None:
            self._transport.abort()
        await self.ended.wait()

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who is at the other end."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            self.peer_pid = struct.unpack("3i", credentials)[0]
        else:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Give each answer to the call that waits for it."""
        try:
            replies = self._talk.feed(data)
            if self._talk.strays:
                raise wire.WireError("it answered more than it was asked")
        except wire.WireError as problem:
            self._lose(str(problem))
            return
        for reply in replies:
            answer = self._waiting.pop(reply.number)
            if not answer.done():  # else the caller has given it up
                answer.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """All calls under way are lost."""
        self._why = self._why or (str(exc) if exc is not None else "the engine closed it")
        self._transport = None
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(errors.connection_lost(self.address, self.node, "a call", self._why))
        self.ended.set()

    def _lose(self, why: str) -> None:
        self._why = why
        if self._transport is not None:
            self._transport.abort()
