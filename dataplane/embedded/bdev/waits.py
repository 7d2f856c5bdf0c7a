"""Waits of an I/O that an Abort command may end: nothing has reached the device in them.

Why: a command that a rate limit, a missing path or a slow device holds up is what hosts abort, and only the
device that holds it knows that it may be taken back.  This module must never cancel an I/O anywhere else: what a
device has begun ends there.

Invariants: a task is known here exactly while it is inside ``abortable``; an I/O that is aborted ends with
``CancelledError`` in its own task, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_waiting: set[asyncio.Task[Any]] = set()


@contextmanager
def abortable() -> Iterator[None]:
    """While the block runs, ``abort`` may end the current task at an ``await`` of it."""
    task = asyncio.current_task()
    if task is None or task in _waiting:
        yield
        return
    _waiting.add(task)
    try:
        yield
    finally:
        _waiting.discard(task)


def abort(task: asyncio.Task[Any]) -> bool:
    """Cancel the task if it only waits; whether it does."""
    return task in _waiting and task.cancel()
