"""What is to be sent on a connection, gathered so that many small answers cost one system call.

Why: a completion is 24 bytes, and under load there are many at once.  This module must never hold back what
nothing else will follow: who sends last calls ``flush``, and what came with the same bytes is answered together
when the block of ``with`` is left.  Invariant: bytes leave in the order of ``send``.
"""

from __future__ import annotations

import asyncio

from dataplane.nvme.layout import Raw

_JOIN_BELOW = 1 << 15  # copying a smaller piece costs less than one more system call


def fitted(data: Raw, length: int) -> Raw:
    """``data`` cut or filled with zeroes to ``length`` bytes, which the host made room for."""
    if len(data) >= length:
        return data if len(data) == length else memoryview(data)[:length]
    return bytes(data) + bytes(length - len(data))


class Outbox:
    """The pieces that wait for the transport."""

    __slots__ = ("_closed", "_loop", "_pieces", "_planned", "_transport", "held")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[Raw] = []
        self._planned = False
        self._closed = False
        self.held = False

    def __enter__(self) -> None:
        """Gather until the block is left, but for what is large."""
        self.held = True

    def __exit__(self, kind: object, problem: object, trace: object) -> None:
        """Nothing more comes for now."""
        self.held = False
        self.flush()

    def send(self, *pieces: Raw) -> None:
        """Take these along with the next flush."""
        self._pieces += pieces

    def plan(self) -> None:
        """Flush once everything that is ready now has had its turn; what is large leaves at once while held."""
        if self.held:
            if self._pieces and len(self._pieces[-1]) >= _JOIN_BELOW:
                self.flush()
        elif not self._planned:
            self._planned = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Give everything to the transport; what the peer cannot take yet waits there."""
        self._planned = False
        pieces, self._pieces = self._pieces, []
        if not pieces or self._closed or self._transport.is_closing():
            return
        small: list[Raw] = []
        for piece in pieces:
            if len(piece) < _JOIN_BELOW:
                small.append(piece)
                continue
            if small:
                self._transport.write(b"".join(small))
                small = []
            self._transport.write(piece)
        if small:
            self._transport.write(small[0] if len(small) == 1 else b"".join(small))

    def end(self, last: Raw) -> None:
        """Send what waits, then ``last`` and the end of the stream; whatever is given afterwards is dropped."""
        if not self._closed and not self._transport.is_closing():
            self.send(last)
            self.flush()
            self._transport.write_eof()
        self._closed = True
        self._pieces.clear()
