"""``notify_*``: which bdevs came and went, for clients that poll.

Source: SPDK v26.05 lib/notify/notify.c.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from dataplane.embedded.rpc.registry import INVALID_PARAMS, RUNTIME, Param, Params, method

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

KEPT: Final = 1024
"""SPDK_NOTIFY_MAX_EVENTS."""


class Notifications:
    """The last 1024 events; ids count from 0 and never repeat."""

    def __init__(self) -> None:
        self._events: deque[dict[str, object]] = deque(maxlen=KEPT)
        self._next = 0

    def send(self, kind: str, context: str) -> None:
        """Record one event."""
        self._events.append({"type": kind, "ctx": context, "id": self._next})
        self._next += 1

    def since(self, first: int, most: int) -> list[dict[str, object]]:
        """At most ``most`` events from id ``first`` on."""
        skip = min(max(0, first - (self._next - len(self._events))), KEPT)
        return list(islice(self._events, skip, skip + min(most, KEPT)))


@method("notify_get_types", RUNTIME, decode_error=(INVALID_PARAMS, "No parameters required"))
async def notify_get_types(engine: Engine, p: Params) -> object:  # noqa: ARG001 - a fixed list
    """Kinds of events."""
    return ["bdev_register", "bdev_unregister", "bdev_resize"]


@method(
    "notify_get_notifications",
    RUNTIME,
    Param("id", "uint64"),
    Param("max", "uint64"),
    decode_error=(INVALID_PARAMS, os.strerror(errno.EINVAL)),
)
async def notify_get_notifications(engine: Engine, p: Params) -> object:
    """Events from an id on."""
    return engine.notifications.since(p.get("id", 0), p.get("max", KEPT))
