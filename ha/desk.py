"""The agent's end of the control socket: callers are met here, and their requests answered in their order.

Why: many commands may ask at once, and none of them may cost the agent the time that it needs for its heartbeats.
It must never hold the loop up and never decide.  A caller that is slow, silent or half gone costs one of a fixed number
of places for a bounded time.  An order that was accepted goes on when its caller has left.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from controlplane.domain import errors
from controlplane.domain.errors import Conflict, Refused, Unreachable
from ha.control import HISTORY_LINES, MAX_HISTORY_LINES, MAX_LINE_BYTES, TOO_LONG, Request, late, orders_of, snapshot_of
from ha.model import GroupId, Order, Reply

MAX_CALLERS: Final = 16
IDLE_S: Final = 60.0
"""How long a caller may take for a request, and how long a half-closed one is waited for."""
SEND_S: Final = 5.0
LONGEST_S: Final = 600.0
"""After which nobody is waited for any more, whatever was asked."""

Json = Any


class Node(Protocol):
    """What the agent does for callers.  None of it may block."""

    def status(self) -> Mapping[str, Json]:
        """The node as it stands."""

    async def history(self, limit: int) -> list[dict[str, object]]:
        """The newest ``limit`` events, oldest first."""

    def saved(self) -> tuple[int, bytes] | None:
        """The newest state with its generation; None where no array was formed.  Raises HA-034."""

    def groups(self) -> frozenset[GroupId] | None:
        """The ANA groups of the array; None while it is not known."""

    async def learn(self, snapshot: bytes) -> None:
        """What the array is, for an agent that has never read it; it counts until the journal is read.  Raises HA-032
        for what is no state."""

    def built(self, generation: int) -> None:
        """The data plane that runs now has the objects of that generation of the state."""

    async def member(self) -> None:
        """Returns when this node is a member."""

    async def carry_out(self, make: Callable[[int], Order]) -> Reply:
        """Give an order; returns when ``decide`` has answered it."""


class Desk:
    """Answers callers at ``path`` for ``node``, on the running loop."""

    def __init__(self, path: str, node: Node) -> None:
        self._path = path
        self._node = node
        self._listening: asyncio.Server | None = None
        self._callers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen.  Whoever calls this holds the lock of the agent's folder, so a socket that lies there is a dead
        one's."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        beside = f"{self._path}.new"
        Path(beside).unlink(missing_ok=True)
        sock.bind(beside)
        # Before anybody can find it, so that no moment exists in which others may connect.
        os.chmod(beside, 0o600)
        os.replace(beside, self._path)
        self._listening = await asyncio.start_unix_server(self._meet, sock=sock, limit=MAX_LINE_BYTES)

    @property
    def callers(self) -> int:
        """How many are connected."""
        return len(self._callers)

    async def close(self) -> None:
        """Send everybody away."""
        if self._listening is not None:
            self._listening.close()
        Path(self._path).unlink(missing_ok=True)
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        # Without this, a small answer that nobody takes would lie in the transport for ever.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            if len(self._callers) > MAX_CALLERS:
                await _send(writer, _failure(_too_many()))
            else:
                await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the caller left, or is to leave
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await _send(writer, _failure(_ends()))
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()
            self._callers.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests one after the other; the next one is read ahead, to notice a caller that leaves."""
        line = await _line(reader)
        while line:
            ahead = asyncio.ensure_future(_line(reader))
            answer = asyncio.ensure_future(self._answer(line))
            try:
                await asyncio.wait((answer, ahead), return_when=asyncio.FIRST_COMPLETED)
                if not answer.done() and ahead.done() and not ahead.exception() and not ahead.result():
                    await asyncio.wait((answer,), timeout=0 if _left(writer) else IDLE_S)
                elif not answer.done():
                    await asyncio.wait((answer,))
                if not answer.done():
                    return
                await _send(writer, answer.result())
                if line is TOO_LONG:  # what follows cannot be told from the rest of it
                    return
                line = await ahead
            finally:
                answer.cancel()
                ahead.cancel()
                await asyncio.gather(answer, ahead, return_exceptions=True)

    async def _answer(self, line: bytes) -> Mapping[str, Json]:
        try:
            async with asyncio.timeout(LONGEST_S):
                return {"result": await self._result(Request.of(line))}
        except errors.Ws7000Error as problem:
            return _failure(problem)
        except TimeoutError:
            return _failure(late("what was asked", LONGEST_S, self._path))

    async def _result(self, request: Request) -> Json:
        node = self._node
        match request.method:
            case "status":
                return node.status()
            case "history":
                return await node.history(min(request.number("limit", HISTORY_LINES), MAX_HISTORY_LINES))
            case "load":
                found = node.saved()
                if found is None:
                    return None
                return {"generation": found[0], "snapshot_b64": base64.b64encode(found[1]).decode()}
            case "learn":
                await node.learn(snapshot_of(request))
                return {}
            case "built":
                node.built(request.number("generation"))
                return {}
            case "rejoin_wait":
                await node.member()
                return {}
        for make in orders_of(request, node.groups()):
            reply = await node.carry_out(make)
            if reply.code:
                raise Refused(reply.code, reply.why, remedy=f"see ws7000 explain {reply.code}")
        return {}


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next request; empty when there is none."""
    try:
        return await asyncio.wait_for(reader.readline(), IDLE_S)
    except ValueError:
        return TOO_LONG
    except OSError:
        return b""


def _left(writer: asyncio.StreamWriter) -> bool:
    """Whether the caller has closed both ways, and not only its own."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket"), 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


async def _send(writer: asyncio.StreamWriter, answer: Mapping[str, Json]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), SEND_S)


def _failure(problem: errors.Ws7000Error) -> Mapping[str, Json]:
    return {"error": {**problem.to_json(), "kind": type(problem).__name__}}


def _too_many() -> Conflict:
    return Conflict(
        "HA-037",
        "too many commands talk to the agent at the same time",
        why=f"it serves {MAX_CALLERS} callers at once, so that none of them can hold it up",
        remedy="end some of them, and try again",
    )


def _ends() -> Unreachable:
    return Unreachable(
        "HA-035",
        "the agent ends before it could answer",
        why="it was told to stop; an order that it had accepted may have been carried out",
        remedy="start it, and look at ws7000 ha status",
    )
