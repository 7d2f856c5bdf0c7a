"""The heartbeats of an agent: what it says goes out on every path, what it hears is kept.

Why in the cycle and without a timer of its own: an agent that does not decide any more must not sound alive.  This
module must never wait and never look at what is said.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ha.config import HeartbeatPath
from ha.heartbeat import CODES, Codec, Hearing
from ha.model import NodeName, Peer, Says
from ha.policy import Policy
from ha.says import HostConnection


class Wire(Protocol):
    """The sockets (``ha.adapters.network``)."""

    def send(self, datagrams: Iterable[tuple[str, bytes]]) -> None:
        """Send each over its path, or not at all."""


class Beats:
    """``heard`` takes what comes in; ``news`` is called when the peer says something else than before."""

    def __init__(
        self,
        array: str,
        node: NodeName,
        secret: bytes,
        paths: Sequence[HeartbeatPath],
        policy: Policy,
        news: Callable[[], None],
    ) -> None:
        # From the system, so that it cannot be guessed and is never drawn twice.
        boot = random.SystemRandom().randrange(1, 1 << 64)
        self._hearing = Hearing(
            Codec(array, secret), node, boot, [path.name for path in paths], silent_ms=policy.lease_ms
        )
        self._every_ms = policy.heartbeat_ms
        self._news = news
        self._said: Says | None = None
        self._due = 0
        self._last: Says | None = None

    def say(self, says: Says, now: int, wire: Wire) -> None:
        """One heartbeat, when it is due or says something new."""
        if now < self._due and says == self._said:
            return
        self._said, self._due = says, now + self._every_ms
        wire.send(self._hearing.speak(says, now))

    def tell(self, packed: bytes, now: int, wire: Wire) -> None:
        """The hosts' connections to this node, as ``pack_connections`` makes them."""
        wire.send(self._hearing.tell_packed(packed, now))

    def connections(self) -> tuple[HostConnection, ...]:
        """The hosts' connections to the peer; thousands take a while, so this is for a thread."""
        return self._hearing.connections

    def heard(self, datagram: bytes, path: str, now: int) -> None:
        """A datagram has come."""
        if self._hearing.feed(datagram, path, now) is not None:
            return
        says = self._hearing.peer(now).says
        if says is not self._last and says != self._last:
            self._news()
        self._last = says

    def peer(self, now: int) -> Peer:
        """The peer as heard until now."""
        return self._hearing.peer(now)

    @property
    def refused(self) -> dict[str, dict[str, str | int]]:
        """How many datagrams were refused, by reason, each with the code of its page."""
        found = self._hearing.refusals
        return {str(reason): {"code": CODES[reason], "count": found[reason]} for reason in sorted(found)}
