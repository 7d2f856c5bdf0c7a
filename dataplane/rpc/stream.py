"""One connection to an engine: bytes out, bytes in, never past a deadline.

Why: an engine that is stopped, overloaded or half gone must cost its caller a known time and no more, whatever
it does: refuse to accept, accept and be silent, or send a byte now and then.  Every wait here ends at a point of
the monotonic clock that was fixed when the call began.  This module must never interpret what it carries.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import time
from typing import Final

Address = str | tuple[str, int]

_READ_BYTES: Final = 256 * 1024


class LateError(Exception):
    """The deadline passed."""


class GoneError(Exception):
    """There is no connection (any more); the text says why."""


def show(address: Address) -> str:
    """The address for people."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Stream:
    """A connected, non-blocking stream socket.  ``until`` is always a ``time.monotonic`` value."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()  # unlike select(), without a limit on descriptor numbers
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def connect(cls, address: Address, until: float) -> Stream:
        """Connect before ``until``; raises ``LateError`` or ``GoneError``."""
        try:
            sock = _connect_unix(address, until) if isinstance(address, str) else _connect_tcp(address, until)
        except TimeoutError as problem:
            raise LateError from problem
        except OSError as problem:
            raise GoneError(problem.strerror or str(problem)) from problem
        sock.settimeout(0.0)
        return cls(sock)

    def close(self) -> None:
        """Close; an unread answer is dropped."""
        self._sock.close()

    def interrupt(self) -> None:
        """Let whoever waits here see the end of the connection; safe from another thread."""
        with contextlib.suppress(OSError):  # closed already
            self._sock.shutdown(socket.SHUT_RDWR)

    def unasked(self) -> bytes:
        """What came in while nobody waited, without waiting for more.  Raises ``GoneError``."""
        self._poll.modify(self._sock, select.POLLIN)
        if not self._poll.poll(0):
            return b""
        try:
            return self._read()
        except BlockingIOError:
            return b""
        except OSError as problem:
            raise GoneError(problem.strerror or str(problem)) from problem

    def exchange(self, out: memoryview, until: float) -> tuple[int, bytes]:
        """Wait until something can be read, or written if ``out`` is not empty; return (bytes taken from
        ``out``, bytes that came).  Both directions go on at once: were one finished first, two full buffers
        could stop both sides.  Raises ``LateError``; ``GoneError`` when the other side ended."""
        self._poll.modify(self._sock, select.POLLIN | (select.POLLOUT if out else 0))
        left_s = until - time.monotonic()
        ready = self._poll.poll(left_s * 1000) if left_s > 0 else []
        if not ready:
            raise LateError
        taken, came = 0, b""
        events = ready[0][1]
        try:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                came = self._read()
            if out and events & select.POLLOUT:
                taken = self._sock.send(out)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as problem:
            came = came or self._left_behind()
            if not came:
                raise GoneError(problem.strerror or str(problem)) from problem
        return taken, came

    def _left_behind(self) -> bytes:
        """What the other side said before it ended: it need not have read all that was sent."""
        with contextlib.suppress(OSError):
            return self._sock.recv(_READ_BYTES)
        return b""

    def _read(self) -> bytes:
        came = self._sock.recv(_READ_BYTES)
        if not came:
            raise GoneError("the engine closed it")
        return came


def _left(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _connect_unix(path: str, until: float) -> socket.socket:
    """A non-blocking connect to a UNIX socket does not wait for a place in a full backlog (SPDK leaves
    connections beyond the 64th there); a blocking one with SO_SNDTIMEO does, and ends in EAGAIN."""
    left_s = _left(until)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        whole_s = int(left_s)
        limit = struct.pack("@ll", whole_s, max(1, int((left_s - whole_s) * 1_000_000)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.connect(path)
    except OSError as problem:
        sock.close()
        if problem.errno == errno.EAGAIN:
            raise TimeoutError from problem
        raise
    return sock


def _connect_tcp(address: tuple[str, int], until: float) -> socket.socket:
    """Numeric addresses only: a name's look-up has no deadline."""
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror as problem:
        raise OSError(errno.EINVAL, f"{host!r} is not a numeric IP address") from problem
    family, kind, proto, _, where = found[0]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, proto)
    try:
        sock.settimeout(_left(until))
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock
