"""A coroutine whose first step is taken outside of a task does what it would have done inside of one."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.embedded.nvmf import at_once
from dataplane.nvme.status import NvmeError, Status


def test_what_ends_at_once_leaves_nothing_to_run() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("all")

    assert at_once.start(work()) is None
    assert done == ["all"]


def test_what_fails_at_once_fails_where_the_rest_runs() -> None:
    async def work() -> None:
        raise NvmeError(Status.LBA_OUT_OF_RANGE)

    rest = at_once.start(work())
    assert rest is not None
    with pytest.raises(NvmeError) as caught:
        asyncio.run(rest)
    assert caught.value.code == Status.LBA_OUT_OF_RANGE


def test_what_waits_goes_on_as_a_task() -> None:
    steps: list[object] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()

        async def work() -> None:
            steps.append(await first)
            await asyncio.sleep(0)
            try:
                await second
            except ConnectionError as problem:
                steps.append(problem)
            steps.append(await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b")))

        rest = at_once.start(work())
        assert rest is not None
        assert steps == []
        task = loop.create_task(rest)
        first.set_result("first")
        second.set_exception(ConnectionError("second"))
        await task

    asyncio.run(scenario())
    assert steps[0] == "first"
    assert isinstance(steps[1], ConnectionError)
    assert steps[2:] == [["a", "b"]]


def test_what_was_done_before_the_task_began_is_not_missed() -> None:
    async def scenario() -> None:
        future = asyncio.get_running_loop().create_future()
        got: list[int] = []

        async def work() -> None:
            got.append(await future)

        rest = at_once.start(work())
        assert rest is not None
        future.set_result(1)
        await asyncio.create_task(rest)
        assert got == [1]

    asyncio.run(scenario())


def test_a_cancellation_reaches_the_work() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        async def work() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                seen.append("cleaned up")

        rest = at_once.start(work())
        assert rest is not None
        task = asyncio.create_task(rest)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cleaned up"]

    asyncio.run(scenario())
