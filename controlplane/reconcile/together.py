"""The same work on every node at the same time.

Why: nodes do not wait for each other within a stage or a look, and an engine that works while nothing is asked of the
other doubles the time.  This module must never decide what is done; a job uses the session of its own node only.

Invariant: when ``together`` returns or raises, no job runs any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from dataplane.rpc.session import Session

T = TypeVar("T")


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T
        self._problem: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as problem:  # noqa: BLE001 - raised again in the thread that asked
            self._problem = problem

    def outcome(self) -> T:
        self.thread.join()
        if self._problem is not None:
            raise self._problem
        return self._result


def together(sessions: Mapping[str, Session], jobs: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """What each node's job returned; raises the first failure in the order of ``jobs``, once all have ended.

    An interrupt ends the connections, so that nobody waits for an answer any more.
    """
    if len(jobs) < 2:
        return {name: work() for name, work in jobs.items()}
    running = {name: _Job(work) for name, work in jobs.items()}
    try:
        for job in running.values():
            job.thread.start()
        for job in running.values():
            job.thread.join()
    except BaseException:
        for name in running:
            sessions[name].interrupt()
        for job in running.values():
            if job.thread.ident is not None:
                job.thread.join()
        raise
    return {name: job.outcome() for name, job in running.items()}
