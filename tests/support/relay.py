"""A TCP relay between a host and an engine, for what a network does: it cuts connections and spoils bytes.

Why: an engine that ends a connection says goodbye, a network does not.  The engine must listen on the address that
the host's controller is told to be on, which holds, since the relay connects to it there.  It lives in a thread of
its own, so that a test which waits for a command does not stop the traffic.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Self, TypeVar

_SPOIL_FROM_BYTES: Final = 8192  # a piece of this length is payload nearly as a whole
_RESET: Final = struct.pack("ii", 1, 0)

Value = TypeVar("Value")


class _End(asyncio.Protocol):
    """One side of a connection; what comes in goes out of ``other``."""

    def __init__(self, relay: Relay, towards: str) -> None:
        self._relay = relay
        self._towards = towards
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._relay.ends.add(self)
        if self.other is None:
            transport.pause_reading()  # until there is somewhere to write
            self._relay.join(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(self._relay.maybe_spoiled(data, self._towards))

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._relay.ends.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def reset(self) -> None:
        """End the connection with a reset; nothing that waits is sent."""
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()


class Relay:
    """Listens on ``port`` of loopback and passes everything on to ``target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.ends: set[_End] = set()
        self._to_spoil = {"host": 0, "engine": 0}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            self._loop.create_server(lambda: _End(self, "engine"), "127.0.0.1", 0), self._loop
        ).result(10)
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    # From the test's thread.

    def cut(self) -> int:
        """Reset every connection at both ends, whatever is on its way; how many there were."""
        return self._there(self._cut)

    def spoil(self, towards: str) -> None:
        """Flip one bit in the middle of the next long piece ``towards`` "host" or "engine"."""
        self._there(lambda: self._to_spoil.update({towards: self._to_spoil[towards] + 1}))

    def left_to_spoil(self, towards: str) -> int:
        """How many such pieces have not come by yet."""
        return self._there(lambda: self._to_spoil[towards])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._there(self._server.close)
        self._there(self._cut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _there(self, function: Callable[[], Value]) -> Value:
        async def call() -> Value:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    # In the relay's thread.

    def _cut(self) -> int:
        count = len(self.ends) // 2
        for end in list(self.ends):
            end.reset()
        return count

    def join(self, host: _End) -> None:
        """Connect to the engine for a host that has just come."""
        task = self._loop.create_task(self._join(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, host: _End) -> None:
        assert host.transport is not None
        engine = _End(self, "host")
        engine.other = host
        try:
            await self._loop.create_connection(lambda: engine, "127.0.0.1", self._target)
        except OSError:
            host.reset()
            return
        host.other = engine
        host.transport.resume_reading()

    def maybe_spoiled(self, piece: bytes, towards: str) -> bytes:
        """The piece, or one with a flipped bit."""
        if not self._to_spoil[towards] or len(piece) < _SPOIL_FROM_BYTES:
            return piece
        self._to_spoil[towards] -= 1
        middle = len(piece) // 2
        return piece[:middle] + bytes([piece[middle] ^ 1]) + piece[middle + 1 :]
