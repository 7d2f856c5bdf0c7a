"""A UDP relay between two agents, for what a heartbeat network does when it fails: it drops everything.

Each agent takes the relay's side that faces it for its peer, so that its socket gets what comes from there.  This
module must never change or delay a datagram that it does not drop.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from ha.model import NODES, NodeName, other

LOOPBACK: Final = "127.0.0.1"
MAX_BYTES: Final = 65_536


class HeartbeatRelay:
    """``services`` are the UDP ports of the agents; ``ports`` the relay's own, by the node that they face."""

    def __init__(self, services: Mapping[NodeName, int]) -> None:
        self._services = dict(services)
        self._sides: dict[NodeName, socket.socket] = {}
        for node in NODES:
            side = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            side.bind((LOOPBACK, 0))
            self._sides[node] = side
        self.ports: dict[NodeName, int] = {node: side.getsockname()[1] for node, side in self._sides.items()}
        self.dropping = False
        self.dropped = 0
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="heartbeat relay", daemon=True)

    def _run(self) -> None:
        faces = {side: node for node, side in self._sides.items()}
        while True:
            readable, _, _ = select.select([*faces, self._ended], [], [])
            if self._ended in readable:
                return
            for side in readable:
                # A side gets ECONNREFUSED for an agent that is not there.
                with contextlib.suppress(OSError):
                    datagram = side.recv(MAX_BYTES)
                    if self.dropping:
                        self.dropped += 1
                    else:
                        peer = other(faces[side])
                        self._sides[peer].sendto(datagram, (LOOPBACK, self._services[peer]))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()
        self._thread.join()
        self._ended.close()
        for side in self._sides.values():
            side.close()
