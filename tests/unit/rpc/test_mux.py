"""The mux over a scripted engine: late answers, ends of the connection, the limit of unanswered calls."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import DeadlineExceeded, EngineError, Unreachable
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError, RpcError, SchemaError, TooManyCalls
from dataplane.rpc.methods import bdev, framework
from dataplane.rpc.mux import MAX_UNANSWERED, Mux

VERSION = {"version": "SPDK v26.05", "fields": {"major": 26, "minor": 5, "patch": 0, "suffix": ""}}
LONG_MS = 10_000


def number(n: int) -> Call[Any]:
    """A call that says its number to the script, and gives back what the script answers."""
    return Call("bdev_get_bdevs", {"name": str(n)})


def of(request: Any) -> int:
    return int(request["params"]["name"])


def versioned(script: Callable[[Any], object], version: Any = VERSION) -> Callable[[Any], None]:
    """The engine of that version, and then the script."""

    def whole(line: Any) -> None:
        line.result(line.request(), version)
        script(line)

    return whole


def play(
    peer: Any, script: Callable[[Any], object], story: Callable[[Mux], Awaitable[None]], *, tcp: bool = False
) -> Any:
    """The story with a mux connected to an engine that plays the script."""
    engine = peer(versioned(script), tcp=tcp)

    async def whole() -> None:
        mux = await Mux.connect(engine.address, deadline_ms=LONG_MS)
        try:
            await story(mux)
        finally:
            await mux.close()

    asyncio.run(whole())
    return engine


@pytest.mark.parametrize("tcp", [False, True])
def test_calls_go_at_once_and_are_answered_in_any_order(peer: Any, tcp: bool) -> None:
    def backwards(line: Any) -> None:
        for request in reversed([line.request() for _ in range(24)]):
            line.result(request, of(request))

    async def story(mux: Mux) -> None:
        assert await asyncio.gather(*(mux.run(number(n), LONG_MS) for n in range(24))) == list(range(24))
        assert mux.unanswered == 0
        assert mux.peer_pid == (0 if tcp else os.getpid())

    play(peer, backwards, story, tcp=tcp)


def test_a_late_call_fails_alone_and_its_answer_is_dropped(peer: Any) -> None:
    """The late answer comes just before the next one, over the same connection."""

    def late(line: Any) -> None:
        first = line.request()
        line.result(line.request(), "second")
        third = line.request()
        line.result(first, "first")
        line.result(third, "third")

    async def story(mux: Mux) -> None:
        hung = asyncio.create_task(mux.run(number(1), 50))
        await asyncio.sleep(0)
        assert await mux.run(number(2), LONG_MS) == "second"
        with pytest.raises(DeadlineExceeded, match="RPC-003"):
            await hung
        assert mux.unanswered == 1
        assert await mux.run(number(3), LONG_MS) == "third"
        assert mux.unanswered == 0

    assert play(peer, late, story).accepted == 1


def test_a_cancelled_call_leaves_the_connection(peer: Any) -> None:
    def script(line: Any) -> None:
        first, second = line.request(), line.request()
        line.result(first, 1)
        line.result(second, 2)

    async def story(mux: Mux) -> None:
        given_up = asyncio.create_task(mux.run(number(1), LONG_MS))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await mux.run(number(2), LONG_MS) == 2

    play(peer, script, story)


def test_when_the_connection_ends_every_call_that_waits_fails(peer: Any) -> None:
    def two_and_gone(line: Any) -> None:
        line.request()
        line.request()

    async def story(mux: Mux) -> None:
        outcomes = await asyncio.gather(
            *(mux.run(number(n), LONG_MS) for n in range(2)), return_exceptions=True
        )  # fmt: skip
        assert [(type(each), getattr(each, "code", "")) for each in outcomes] == [(Unreachable, "RPC-002")] * 2
        await mux.ended.wait()
        with pytest.raises(Unreachable, match="RPC-002"):
            await mux.run(number(3), LONG_MS)

    play(peer, two_and_gone, story)


@pytest.mark.parametrize(
    "sent",
    [b"nonsense", b'{"jsonrpc":"2.0","id":99,"result":true}', b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700}}'],
)
def test_what_is_no_answer_ends_the_connection(peer: Any, sent: bytes) -> None:
    def broken(line: Any) -> None:
        line.request()
        line.raw(sent)
        line.closed_by_session()

    async def story(mux: Mux) -> None:
        for n in (1, 2):
            with pytest.raises(Unreachable, match="RPC-002"):
                await mux.run(number(n), LONG_MS)

    play(peer, broken, story)


def test_more_than_the_limit_are_refused_at_once(peer: Any) -> None:
    def full(line: Any) -> None:
        requests = [line.request() for _ in range(MAX_UNANSWERED)]
        line.result(requests[0], 0)
        last = line.request()
        for request in [*requests[1:], last]:
            line.result(request, of(request))

    async def story(mux: Mux) -> None:
        calls = [asyncio.create_task(mux.run(number(n), LONG_MS)) for n in range(MAX_UNANSWERED)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyCalls, match="HA-020"):
            await mux.run(number(99), LONG_MS)
        await calls[0]
        assert await mux.run(number(7), LONG_MS) == 7
        assert await asyncio.gather(*calls) == list(range(MAX_UNANSWERED))

    play(peer, full, story)


def test_those_past_their_deadline_count_as_unanswered_and_reserved_places_are_more(peer: Any) -> None:
    async def story(mux: Mux) -> None:
        for _ in range(MAX_UNANSWERED):
            with pytest.raises(DeadlineExceeded):
                await mux.run(number(1), 0)
        with pytest.raises(TooManyCalls):
            await mux.run(number(2), LONG_MS)
        mux.reserve(1)
        with pytest.raises(DeadlineExceeded):
            await mux.run(number(3), 0)
        with pytest.raises(TooManyCalls):
            await mux.run(number(4), LONG_MS)
        assert mux.unanswered == mux.limit == MAX_UNANSWERED + 1

    play(peer, lambda line: line.closed_by_session(), story)


def test_an_error_and_an_answer_of_another_shape_are_of_their_call_alone(peer: Any) -> None:
    def script(line: Any) -> None:
        line.error(line.request(), -19, "No such device")
        line.result(line.request(), "no array")
        line.result(line.request(), 3)

    async def story(mux: Mux) -> None:
        with pytest.raises(RpcError) as caught:
            await mux.run(number(1), LONG_MS)
        assert caught.value.no_such_device
        with pytest.raises(ReplyError):
            await mux.run(bdev.get_bdevs(), LONG_MS)
        assert await mux.run(number(3), LONG_MS) == 3

    play(peer, script, story)


def test_the_schema_is_that_of_the_engines_version(peer: Any) -> None:
    async def story(mux: Mux) -> None:
        with pytest.raises(SchemaError):
            await mux.run(Call("no_such_method"), LONG_MS)
        assert mux.unanswered == 0
        assert (await mux.run(framework.get_version(), LONG_MS)).major == 26

    engine = play(peer, lambda line: line.result(line.request(), VERSION), story)
    assert engine.methods == ["spdk_get_version"] * 2


def test_an_engine_that_is_too_old_or_silent_is_not_connected_to(peer: Any) -> None:
    old = {"version": "SPDK v24.01", "fields": {"major": 24, "minor": 1, "patch": 0, "suffix": ""}}
    engine = peer(versioned(lambda line: line.closed_by_session(), old), lambda line: line.closed_by_session())
    with pytest.raises(EngineError, match="RPC-017"):
        asyncio.run(Mux.connect(engine.address))
    with pytest.raises(DeadlineExceeded, match="RPC-003"):
        asyncio.run(Mux.connect(engine.address, deadline_ms=50))


def test_nobody_listens(short_dir: Path) -> None:
    with pytest.raises(Unreachable, match="RPC-001"):
        asyncio.run(Mux.connect(short_dir / "none.sock"))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(Unreachable, match="RPC-001"):
        asyncio.run(Mux.connect(("127.0.0.1", port)))
