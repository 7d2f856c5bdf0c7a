"""When an engine that polls its RPC socket takes requests and sends answers: SPDK looks every 4 ms only.

Why: a control plane that is tried against answers that come at once does not show what its sequences of calls cost
against SPDK.  This module must never wait, read a clock or touch a socket: the listener says when a poll is.

Invariants, at each poll: one connection at most is accepted; then for each connection, in the order of acceptance,
the answers that were ready go out before what has come is read; so an answer leaves one poll after its request
was begun at the earliest, also on a connection that was accepted at that poll.
Source: SPDK v26.05 lib/init/rpc.c (RPC_SELECT_INTERVAL), lib/jsonrpc/jsonrpc_server_tcp.c.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Peer = TypeVar("Peer")


class Turn(NamedTuple, Generic[Peer]):
    """What one poll does for one connection: send, then read; ``ended`` when the peer sends no more after that."""

    peer: Peer
    send: bytes
    read: bytes
    ended: bool


@dataclass(slots=True)
class _Held:
    """What waits for the next poll."""

    out: bytearray = field(default_factory=bytearray)
    come: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Polls(Generic[Peer]):
    """The connections of one socket.  ``read_bytes``: the most that is read of one connection at one poll."""

    def __init__(self, read_bytes: int) -> None:
        self._read_bytes = read_bytes
        self._waiting: deque[Peer] = deque()
        self._accepted: list[Peer] = []
        self._held: dict[Peer, _Held] = {}

    def connected(self, peer: Peer) -> None:
        """A peer waits to be accepted."""
        self._waiting.append(peer)
        self._held[peer] = _Held()

    def received(self, peer: Peer, data: bytes) -> bool:
        """Bytes came; False when no more should be taken from the peer before the next poll."""
        held = self._held[peer]
        held.come += data
        return len(held.come) < self._read_bytes

    def ended(self, peer: Peer) -> None:
        """The peer sends no more."""
        self._held[peer].ended = True

    def answered(self, peer: Peer, answer: bytes) -> None:
        """An answer is ready."""
        self._held[peer].out += answer

    def unsent_bytes(self, peer: Peer) -> int:
        """How much of the answers waits for the next poll; 0 for a peer that is gone."""
        held = self._held.get(peer)
        return 0 if held is None else len(held.out)

    def gone(self, peer: Peer) -> None:
        """The connection is closed: what waited for it is dropped."""
        if self._held.pop(peer, None) is not None:
            (self._accepted if peer in self._accepted else self._waiting).remove(peer)

    def poll(self) -> list[Turn[Peer]]:
        """What to do now, in this order."""
        if self._waiting:
            self._accepted.append(self._waiting.popleft())
        return [self._turn(peer, self._held[peer]) for peer in self._accepted]

    def _turn(self, peer: Peer, held: _Held) -> Turn[Peer]:
        send, read = bytes(held.out), bytes(held.come[: self._read_bytes])
        held.out.clear()
        del held.come[: self._read_bytes]
        return Turn(peer, send, read, held.ended and not held.come)
