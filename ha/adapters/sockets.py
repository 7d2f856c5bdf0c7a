"""The hosts' TCP connections to this node, so that the peer can end them when this node cannot.

Why: a host whose node dies without a word waits for its keep-alive to run out.  The peer, once it has fenced the dead
node and taken its address over, can make the host's own TCP give up at once, but has to know the connection for that.
So each member tells its peer (``Hearing.tell``, a datagram kind of its own) about once in a second.
This module must never touch a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from controlplane.domain.errors import Unreachable
from ha.adapters.netlink import connections
from ha.model import NodeName, ServiceMap
from ha.says import MAX_CONNECTIONS, HostConnection, pack_connections

LIST_MS: Final = 1_000
LIST_PART: Final = 10
"""Listing takes at most a tenth of the time: thousands of connections take a good part of a second."""


def data_services(service_map: ServiceMap, node: NodeName) -> frozenset[int]:
    """The TCP ports on which ``node`` serves."""
    found = (at for group in service_map.groups.values() for at in group.listeners.get(node, ()))
    return frozenset(at.service for at in found if at.transport.lower() == "tcp")


def host_connections(services: Iterable[int]) -> tuple[HostConnection, ...]:
    """The established connections to these ports, sorted, at most as many as are ever sent.  Raises ``Unreachable``
    HA-048: the takeover goes on without them, and idle hosts wait for their keep-alive.  An agent does this in a
    thread."""
    try:
        found = sorted({each for service in services for each in connections(service)})
    except OSError as error:
        raise Unreachable(
            "HA-048",
            "the hosts' connections cannot be listed",
            why=error.strerror or str(error),
            remedy="the kernel needs CONFIG_INET_TCP_DIAG: modprobe tcp_diag",
        ) from error
    return tuple(found[:MAX_CONNECTIONS])


class Listing:
    """When to list them again: every ``LIST_MS``, but never for more than a small part of the time."""

    def __init__(self, node: NodeName, clock: Callable[[], int]) -> None:
        self.count = 0
        self._node = node
        self._clock = clock
        self._busy = False
        self._due = 0

    def due(self, now: int) -> bool:
        """Whether to begin now."""
        return not self._busy and now >= self._due

    async def packed(self, service_map: ServiceMap) -> bytes:
        """The connections to this node for ``Hearing.tell_packed``.  Raises ``Unreachable`` HA-048."""
        self._busy, began = True, self._clock()
        services = data_services(service_map, self._node)
        try:
            found = await asyncio.to_thread(host_connections, services)
            packed = await asyncio.to_thread(pack_connections, found)
            self.count = len(found)
            return packed
        finally:
            took = self._clock() - began
            self._busy, self._due = False, began + max(LIST_MS, LIST_PART * took)
