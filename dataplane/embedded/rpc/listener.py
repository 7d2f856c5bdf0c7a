"""The UNIX socket on which the engine takes JSON-RPC.

Why: SPDK's clients pipeline requests on one connection and expect answers as they are ready; the lock file keeps
a second engine off the same path.  This module must never be stopped by what a peer sends: too long, too deep
or no JSON only closes that connection.  With ``poll_us`` it looks at its connections at intervals only, as SPDK does
(``polls``); without, it serves whatever comes at once.

Invariants: requests of a connection start in the order they arrived; at most 64 connections are open; while a
peer does not read its answers, nothing more is read from it and nothing more is begun, so that what waits for it is
bounded; what fails at one connection ends no other; only the owner of the process may connect.
Source: SPDK v26.05 lib/rpc/rpc.c, lib/jsonrpc/jsonrpc_server_tcp.c.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from controlplane.domain.errors import Conflict, UsageError
from dataplane.embedded.rpc import wire
from dataplane.embedded.rpc.dispatch import Answers, answer_one, unpack
from dataplane.embedded.rpc.jsontext import JsonSyntaxError, Reader
from dataplane.embedded.rpc.polls import Polls

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 64
MAX_PATH_BYTES: Final = 107
"""``sun_path`` less its terminator."""
MAX_BEGUN: Final = 1024
"""Requests of one connection that are under way; those that came after them wait."""
_TOGETHER: Final = 16  # requests begun before their answers are looked at: an answer may be megabytes
_BACKLOG: Final = 512


class Connection(asyncio.Protocol):
    """One peer: reads values, starts a task for each, writes answers as they come."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._polls = listener.polls
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[object, Answers]] = deque()
        self._unread = False
        self._planned = False
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._listener.connections.add(self)
        if self._polls is not None:
            self._polls.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """The peer is gone: what it asked for goes on, its answers are dropped (as in SPDK)."""
        self._transport = None
        self._unread = False
        if self._polls is not None:
            self._polls.gone(self)
        self._listener.forget(self)
        self._plan()

    def pause_writing(self) -> None:
        """The peer does not read: stop taking requests."""
        self._unread = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread = False
        self._plan()
        self._resume_reading()

    def _resume_reading(self) -> None:
        if not self._unread and self._transport is not None and not self._closing:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes came: at once, or with the next poll, they are looked at."""
        if self._polls is None:
            self._read(data)
        elif not self._polls.received(self, data) and self._transport is not None:
            self._transport.pause_reading()

    def turn(self, send: bytes, read: bytes, *, ended: bool) -> None:
        """One poll of this connection."""
        if self._transport is None or self._transport.is_closing():
            return
        if send:
            self._transport.write(send)
        if read:
            self._resume_reading()
            self._read(read)
        self._plan()
        if ended or (self._closing and not self._tasks and not self._waiting):
            self._finish()

    def _read(self, data: bytes) -> None:
        """Start everything that is complete."""
        if self._closing:
            return
        self._reader.feed(data)
        try:
            while (found := self._reader.next()) is not None:
                value, count = found
                if count > wire.MAX_VALUES:
                    raise JsonSyntaxError("too many values")
                items, answers = unpack(value)
                self._waiting += [(item, answers) for item in items]
                self._plan()
        except JsonSyntaxError:
            # There is no place to go on from in a stream of JSON, so SPDK closes at once, without an answer.
            log.warning("closing a connection that sent no JSON")
            self.close()
            return
        if self._reader.pending_bytes >= wire.RECEIVE_LIMIT_BYTES:
            log.warning("closing a connection whose request exceeds %d bytes", wire.RECEIVE_LIMIT_BYTES)
            self._finish()

    def eof_received(self) -> bool:
        """The peer sends no more: answer what it asked, then close."""
        if self._polls is None:
            self._finish()
        else:
            self._polls.ended(self)
        return True

    def _finish(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.pause_reading()
        if not self._tasks and not self._waiting:
            self.close()

    def _plan(self) -> None:
        if self._waiting and not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Start a few of those that wait; the next few when these have had their turn."""
        self._planned = False
        for _ in range(_TOGETHER):
            if not self._waiting or self._full() or len(self._tasks) >= MAX_BEGUN:
                return
            task = asyncio.get_running_loop().create_task(self._serve(*self._waiting.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        self._plan()

    def _full(self) -> bool:
        """Whether enough answers wait for the peer, or for the next poll."""
        return self._unread or (self._polls is not None and self._polls.unsent_bytes(self) >= wire.RECEIVE_LIMIT_BYTES)

    async def _serve(self, item: object, answers: Answers) -> None:
        await self._listener.resumed.wait()
        text = answers.add(await answer_one(self._listener.engine, item))
        if not text or self._transport is None or self._transport.is_closing():
            return
        if self._polls is None:
            self._transport.write(text.encode() + b"\n")
        else:
            self._polls.answered(self, text.encode() + b"\n")

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._plan()
        if self._closing and not self._tasks and not self._waiting and self._polls is None:
            self.close()

    def close(self) -> None:
        """Close when everything written has been sent."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()


class Listener:
    """The socket, its lock file and its connections.

    While ``resumed`` is cleared, requests are taken but not begun (SPDK pauses so during initialisation).
    """

    def __init__(self, engine: Engine, path: str, *, poll_us: int = 0) -> None:
        self.engine = engine
        self.path = path
        self.polls: Polls[Connection] | None = Polls(wire.RECEIVE_LIMIT_BYTES) if poll_us else None
        self._poll_s = poll_us / 1e6
        self._polling: asyncio.TimerHandle | None = None
        self.connections: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._lock_fd = -1
        self._accepting: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self.resumed = asyncio.Event()
        self.resumed.set()

    def bind(self) -> None:
        """Take the path; raises ``Conflict`` ENG-001 when an engine has it, ``UsageError`` ENG-002 otherwise."""
        if len(os.fsencode(self.path)) > MAX_PATH_BYTES:
            raise self._unusable(f"the path is longer than {MAX_PATH_BYTES} bytes")
        self._lock_fd = self._lock()
        try:
            self._socket = self._listen()
        except OSError as error:
            self.close()
            raise self._unusable(os.strerror(error.errno or 0)) from error

    def _lock(self) -> int:
        """Lock the lock file; again when its last holder removed it between our opening and our locking."""
        name = f"{self.path}.lock"
        while True:
            try:
                lock_fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._unusable(os.strerror(error.errno or 0)) from error
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock_fd)
                raise Conflict(
                    "ENG-001",
                    f"another engine already serves the socket {self.path}",
                    why=f"it holds the lock on {name}",
                    remedy="stop that engine, or give this one another socket with -r",
                    where=self.path,
                ) from error
            try:
                if os.stat(name).st_ino == os.fstat(lock_fd).st_ino:
                    return lock_fd
            except FileNotFoundError:
                pass
            os.close(lock_fd)

    def _unusable(self, why: str) -> UsageError:
        return UsageError(
            "ENG-002",
            f"the socket {self.path} cannot be made",
            why=why,
            remedy="give a short path in a directory that exists and that you may write to",
            where=self.path,
        )

    def _listen(self) -> socket.socket:
        if os.path.lexists(self.path):
            os.unlink(self.path)  # the lock is ours, so nobody serves it
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        before = os.umask(0o077)
        try:
            listening.bind(self.path)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        finally:
            os.umask(before)
        return listening

    def start(self) -> None:
        """Accept connections from now on; peers that connected before have waited."""
        self._accepting = asyncio.get_running_loop().create_task(self._accept())
        if self.polls is not None:
            self._poll(self.polls)

    def _poll(self, polls: Polls[Connection]) -> None:
        if self.resumed.is_set():
            for connection, send, read, ended in polls.poll():
                connection.turn(send, read, ended=ended)
        self._polling = asyncio.get_running_loop().call_later(self._poll_s, self._poll, polls)

    async def _accept(self) -> None:
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                peer, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                self._places.release()
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(0.1)  # out of file descriptors, most likely: let some be closed
                continue
            except asyncio.CancelledError:
                self._places.release()
                raise
            try:
                await loop.connect_accepted_socket(lambda: Connection(self), peer)
            except OSError as error:  # this one failed, the next may not
                self._places.release()
                peer.close()
                log.warning("a connection could not be served: %s", error.strerror)

    def forget(self, connection: Connection) -> None:
        """A connection ended: its place is free."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._places.release()

    def close(self) -> None:
        """Close everything and remove both files."""
        if self._accepting is not None:
            self._accepting.cancel()
        if self._polling is not None:
            self._polling.cancel()
        if self._socket is not None:
            self._unlink(self.path)
            self._socket.close()
            self._socket = None
        for connection in list(self.connections):
            connection.close()
        if self._lock_fd >= 0:
            self._unlink(f"{self.path}.lock")
            os.close(self._lock_fd)
            self._lock_fd = -1

    @staticmethod
    def _unlink(path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
