"""The sockets of the heartbeats: one UDP socket to each path, bound to the path's own address.

Why not asyncio's transports: they keep a datagram that cannot be sent at once and send it later, and a late heartbeat
is worth nothing.  Here it is dropped; the next one is due soon.  This module must never look into a datagram, never
wait, and never let an error of one path reach the loop or another path.

- A path that cannot be opened or sent on (no such address yet, no route, link down) is closed and tried again with the
  heartbeats, every ``RETRY_MS``; ``problems`` says why it is down (HA-049).
- That nobody listens at the other end (ECONNREFUSED) is no fault of the path.
- Each socket is connected, so that the kernel drops what does not come from the peer's address and port.
- Heartbeats are marked DSCP CS6 (network control, RFC 2474 and 4594) with priority 6, the highest that needs no
  privilege, so that a queue full of data does not hold them back: on an Ethernet with priority flow control, map CS6
  to a lossy queue of its own that is served first, never to the lossless one of RoCE, which can be paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controlplane.domain.errors import Refused, Unreachable
from ha.adapters.lease_page import now_ms
from ha.config import HeartbeatPath
from ha.heartbeat import MAX_DATAGRAM, SECRET_BYTES

Heard = Callable[[bytes, str, int], object]
"""Takes a datagram, the name of its path, and when it was read: ``Hearing.feed``."""
RETRY_MS: Final = 200
_DSCP_CS6: Final = 48 << 2
_PRIORITY: Final = 6
_AT_ONCE: Final = 64
"""Datagrams that are read before the loop goes on; a flood must not keep the agent from deciding."""
_NOT_NOW: Final = (errno.EAGAIN, errno.ENOBUFS, errno.EINTR)


def read_secret(path: Path) -> bytes:
    """The key of the heartbeats; raises ``Refused`` HA-044."""
    try:
        text = path.read_text(encoding="ascii")
        mode = path.stat().st_mode
        secret = bytes.fromhex(text.strip())
    except (OSError, ValueError) as error:
        raise _no_secret(path, str(error)) from error
    if mode & 0o077:
        raise _no_secret(path, f"others may read it (mode {mode & 0o777:o})")
    if len(secret) < SECRET_BYTES:
        raise _no_secret(path, f"it has {len(secret)} bytes instead of {SECRET_BYTES}")
    return secret


def _no_secret(path: Path, why: str) -> Refused:
    return Refused(
        "HA-044",
        f"the secret of the heartbeats in {path} cannot be used",
        why=why,
        remedy=f"put {SECRET_BYTES} random bytes as hexadecimal digits into it, mode 600, the same on both nodes",
    )


@dataclass(slots=True)
class _Line:
    """One path; ``socket`` is None while it is down."""

    path: HeartbeatPath
    socket: socket.socket | None = None
    retry_at: int = 0
    problem: Unreachable | None = None
    dropped: int = 0


@dataclass(slots=True)
class Network:
    """Every path of this node.  To be used inside the running loop only."""

    paths: Sequence[HeartbeatPath]
    heard: Heard
    clock: Callable[[], int] = now_ms
    _lines: dict[str, _Line] = field(default_factory=dict)

    def open(self) -> None:
        """Begin to listen, on the paths where that is possible already."""
        self._lines = {path.name: _Line(path) for path in self.paths}
        for line in self._lines.values():
            self._open(line)

    def send(self, datagrams: Iterable[tuple[str, bytes]]) -> None:
        """Send each over its path, or not at all."""
        for name, datagram in datagrams:
            line = self._lines[name]
            if line.socket is None and self.clock() >= line.retry_at:
                self._open(line)
            if line.socket is None:
                line.dropped += 1
                continue
            try:
                line.socket.send(datagram)
            except OSError as error:
                line.dropped += 1
                self._failed(line, error)

    @property
    def problems(self) -> Mapping[str, Unreachable]:
        """Why paths are down, by name."""
        return {name: line.problem for name, line in self._lines.items() if line.problem}

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many datagrams each path did not take."""
        return {name: line.dropped for name, line in self._lines.items()}

    def close(self) -> None:
        """Stop to listen."""
        for line in self._lines.values():
            self._close(line)

    def _open(self, line: _Line) -> None:
        path = line.path
        line.retry_at = self.clock() + RETRY_MS
        try:
            line.socket = _socket(path)
        except OSError as error:
            line.problem = _down(path, error)
            return
        line.problem = None
        asyncio.get_running_loop().add_reader(line.socket, self._read, line)

    def _read(self, line: _Line) -> None:
        for _ in range(_AT_ONCE):
            if line.socket is None:
                return
            try:
                datagram = line.socket.recv(MAX_DATAGRAM + 1)
            except OSError as error:
                self._failed(line, error)
                return
            self.heard(datagram, line.path.name, self.clock())

    def _failed(self, line: _Line, error: OSError) -> None:
        if error.errno in _NOT_NOW or error.errno == errno.ECONNREFUSED:
            return
        line.problem = _down(line.path, error)
        self._close(line)

    def _close(self, line: _Line) -> None:
        if line.socket is not None:
            asyncio.get_running_loop().remove_reader(line.socket)
            line.socket.close()
            line.socket = None


def _socket(path: HeartbeatPath) -> socket.socket:
    kind = (socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
    family, _, _, _, own = socket.getaddrinfo(path.address, path.service, 0, *kind)[0]
    peer = socket.getaddrinfo(path.peer_address, path.peer_service, family, *kind)[0][4]
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        _mark(made)
        made.bind(own)
        made.connect(peer)
    except OSError:
        made.close()
        raise
    return made


def _mark(made: socket.socket) -> None:
    """Ask for preference; a kernel that does not give it is no reason to go without heartbeats."""
    with contextlib.suppress(OSError):
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _DSCP_CS6)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _DSCP_CS6)
        # After the mark, for that sets a priority, too.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _PRIORITY)


def _down(path: HeartbeatPath, error: OSError) -> Unreachable:
    return Unreachable(
        "HA-049",
        f"the heartbeat path {path.name} from {path.address} to {path.peer_address} is down on this node",
        why=error.strerror or str(error),
        remedy=f"see whether {path.address} is configured and its port has a link: ip address show to {path.address}",
        where=path.name,
    )
