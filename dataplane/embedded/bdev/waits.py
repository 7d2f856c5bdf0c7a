"""Waits of an I/O that an Abort command may end: nobody works on the I/O in them.

Why: a command that a rate limit, a missing path or a slow device holds up is what hosts abort, and only the
device that holds it knows that it may be taken back: it has not begun, or only its answer is held back (an aborted
command may have been carried out, base 2.0c section 5.1).  This module must never cancel an I/O anywhere else: what
a device has begun ends there.

Invariants: a task is known here exactly while it is inside ``abortable``, or once nobody wants its answer any more;
an I/O that is aborted ends with ``CancelledError`` in its own task, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

_waiting: set[asyncio.Task[Any]] = set()
_unwanted: WeakSet[asyncio.Task[Any]] = WeakSet()


@contextmanager
def abortable() -> Iterator[None]:
    """While the block runs, ``abort`` may end the current task at an ``await`` of it.

    A task that nobody wants does not even begin to wait.
    """
    task = asyncio.current_task()
    if task in _unwanted:
        raise asyncio.CancelledError
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


def give_up(task: asyncio.Task[Any]) -> None:
    """Nobody wants its answer: cancel the task if it only waits, else where it next would."""
    _unwanted.add(task)
    abort(task)
