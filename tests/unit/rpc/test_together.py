"""Work on several nodes at once: it overlaps, ends before it is told, and an interrupt ends the waiting."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from controlplane.domain.errors import Unreachable
from controlplane.reconcile.together import together


def test_the_jobs_of_two_nodes_overlap() -> None:
    both = threading.Barrier(2)

    def job(name: str) -> str:
        both.wait(10)
        return name.upper()

    assert together({}, {"a": lambda: job("a"), "b": lambda: job("b")}) == {"a": "A", "b": "B"}


def test_the_first_failure_is_raised_when_all_have_ended() -> None:
    failed, ended = threading.Event(), threading.Event()

    def fails() -> None:
        failed.set()
        raise ValueError("a")

    def ends_later() -> None:
        failed.wait(10)
        ended.set()
        raise ValueError("b")

    with pytest.raises(ValueError, match="a"):
        together({}, {"a": fails, "b": ends_later})
    assert ended.is_set()


def test_an_interrupt_does_not_wait_for_an_engine(peer: Any, session: Any) -> None:
    release = threading.Event()
    ends: list[BaseException] = []

    def silent(line: Any) -> None:
        line.request()
        os.kill(os.getpid(), signal.SIGINT)
        release.wait(30)

    engine = peer(silent)
    with session(engine) as client:

        def ask() -> None:
            try:
                client.call("never_answered", deadline_s=25)
            except Unreachable as problem:
                ends.append(problem)
                raise

        try:
            with pytest.raises(KeyboardInterrupt):
                together({"a": client, "b": client}, {"a": ask, "b": lambda: release.wait(0)})
        finally:
            release.set()
    assert [problem.code for problem in ends] == ["RPC-002"]  # type: ignore[attr-defined]
