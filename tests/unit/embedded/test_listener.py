"""The RPC socket against peers that behave and peers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import Conflict, UsageError
from dataplane.embedded.rpc import dispatch
from dataplane.embedded.rpc.listener import MAX_CONNECTIONS, Listener


@contextlib.asynccontextmanager
async def listening(
    make_engine: Callable[[], Any], path: Path, poll_us: int = 0
) -> AsyncIterator[tuple[Any, Listener]]:
    engine, _ = make_engine()
    listener = Listener(engine, str(path), poll_us=poll_us)
    listener.bind()
    listener.start()
    try:
        yield engine, listener
    finally:
        listener.close()


def ask(make_engine: Callable[[], Any], path: Path, *chunks: bytes, answers: int = 1, poll_us: int = 0) -> list[Any]:
    """Send the chunks one by one; the parsed answers, and None for the end of the connection."""

    async def run() -> list[Any]:
        async with listening(make_engine, path, poll_us):
            reader, writer = await asyncio.open_unix_connection(str(path))
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0)
            found: list[Any] = []
            for _ in range(answers):
                line = await reader.readline()
                found.append(json.loads(line) if line else None)
            writer.close()
            return found

    return asyncio.run(run())


VERSION = b'{"jsonrpc":"2.0","id":7,"method":"spdk_get_version"}'


def test_a_request_in_pieces(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    pieces = [VERSION[index : index + 1] for index in range(len(VERSION))]
    (answer,) = ask(make_engine, tmp_path / "s", *pieces)
    assert answer["result"]["fields"] == {"major": 26, "minor": 5, "patch": 0, "suffix": ""}
    assert answer["result"]["version"].startswith("SPDK v26.05 (WS7000 embedded engine ")


def test_pipelined_requests_answer_as_each_is_ready(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    waiting = b'{"id":1,"method":"bdev_get_bdevs","params":{"name":"n","timeout":60000}}'
    create = (
        b'{"id":2,"method":"bdev_null_create","params":{"name":"n","num_blocks":8,"block_size":512}}'
        b'{"id":3,"method":"bdev_null_delete","params":{"name":"n"}}'
    )
    answers = ask(make_engine, tmp_path / "s", waiting + create, answers=3)
    assert {answer["id"] for answer in answers} == {1, 2, 3}
    assert answers[0]["id"] == 2


@pytest.mark.parametrize("poll_us", [0, 500])
def test_what_comes_after_a_batch_does_not_overtake_it(
    make_engine: Callable[[], Any], tmp_path: Path, poll_us: int
) -> None:
    known = b'{"id":%d,"method":"notify_get_types"}'
    batch = b"[" + known % 1 + b"," + known % 2 + b"]"
    first, second = ask(make_engine, tmp_path / "s", batch + known % 3, answers=2, poll_us=poll_us)
    assert [answer["id"] for answer in first] == [1, 2]
    assert second["id"] == 3


def test_with_polls_everything_is_answered_then_the_connection_ends(
    make_engine: Callable[[], Any], tmp_path: Path
) -> None:
    """Each of many connections, one of which is accepted at each poll, though the peers send no more."""

    async def talk(path: Path, number: int) -> list[bytes]:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(VERSION.replace(b"7", str(number).encode()) * 2)
        writer.write_eof()
        lines = [await reader.readline(), await reader.readline(), await reader.read()]
        writer.close()
        return lines

    async def run() -> list[list[bytes]]:
        path = tmp_path / "s"
        async with listening(make_engine, path, poll_us=500) as (_, listener):
            found = await asyncio.gather(*(talk(path, number) for number in range(10, 20)))
            while listener.connections:
                await asyncio.sleep(0)
            return found

    for number, (*answers, end) in enumerate(asyncio.run(run()), 10):
        assert [json.loads(answer)["id"] for answer in answers] == [number, number]
        assert end == b""


def test_with_polls_a_request_longer_than_what_one_poll_reads(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    known = b'{"id":1,"method":"notify_get_types"}'
    padded = known + b" " * (3 * 1024 * 1024) + known.replace(b"1", b"2")
    answers = ask(make_engine, tmp_path / "s", padded, answers=2, poll_us=500)
    assert [answer["id"] for answer in answers] == [1, 2]


def test_with_polls_garbage_closes_its_connection(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    assert ask(make_engine, tmp_path / "s", b"GET / HTTP/1.1\r\n\r\n", poll_us=500) == [None]


@pytest.mark.parametrize(
    "garbage",
    [b'{"id":1 x', b"\xff\xfe", b"[" * 65, b'{"a":"\x00"}', b"[" + b"1," * 9000 + b"1]", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_garbage_closes_its_connection_and_no_other(
    make_engine: Callable[[], Any], tmp_path: Path, garbage: bytes
) -> None:
    async def run() -> tuple[bytes, bytes]:
        path = tmp_path / "s"
        async with listening(make_engine, path):
            good_reader, good_writer = await asyncio.open_unix_connection(str(path))
            bad_reader, bad_writer = await asyncio.open_unix_connection(str(path))
            bad_writer.write(garbage)
            end = await bad_reader.read()
            good_writer.write(VERSION)
            answer = await good_reader.readline()
            bad_writer.close()
            good_writer.close()
            return end, answer

    end, answer = asyncio.run(run())
    assert end == b""
    assert json.loads(answer)["id"] == 7


def test_a_request_longer_than_the_buffer_closes(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> bytes:
        path = tmp_path / "s"
        async with listening(make_engine, path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b'{"id":1,"method":"' + b"x" * (300 * 1024))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            try:
                end = await reader.read()
            except ConnectionResetError:
                end = b""
            writer.close()
            return end

    assert asyncio.run(run()) == b""


def test_half_a_request_and_the_end(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> list[bytes]:
        path = tmp_path / "s"
        async with listening(make_engine, path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(VERSION + VERSION[:10])
            writer.write_eof()
            lines = (await reader.read()).splitlines()
            writer.close()
            return lines

    assert [json.loads(line)["id"] for line in asyncio.run(run())] == [7]


def test_the_65th_connection_waits_for_a_place(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> tuple[int, bytes]:
        path = tmp_path / "s"
        async with listening(make_engine, path) as (_, listener):
            open_ones = []
            for _ in range(MAX_CONNECTIONS):
                reader, writer = await asyncio.open_unix_connection(str(path))
                writer.write(VERSION)
                await reader.readline()
                open_ones.append(writer)
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(VERSION)
            before = len(listener.connections)
            open_ones[0].close()
            answer = await reader.readline()
            for each in [*open_ones, writer]:
                each.close()
            return before, answer

    before, answer = asyncio.run(run())
    assert before == MAX_CONNECTIONS
    assert json.loads(answer)["id"] == 7


def test_the_files_and_the_lock(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "s"
        path.write_text("left over by a process that was killed")
        async with listening(make_engine, path) as (engine, _):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
            assert stat.S_IMODE(Path(f"{path}.lock").stat().st_mode) == 0o600
            with pytest.raises(Conflict) as caught:
                Listener(engine, str(path)).bind()
            assert caught.value.code == "ENG-001"
            assert path.exists()
        assert os.listdir(tmp_path) == []

    asyncio.run(run())


@pytest.mark.parametrize("name", ["x" * 120, "no/such/directory"])
def test_a_path_that_cannot_be_used(make_engine: Callable[[], Any], tmp_path: Path, name: str) -> None:
    engine, _ = make_engine()
    with pytest.raises(UsageError) as caught:
        Listener(engine, str(tmp_path / name)).bind()
    assert caught.value.code == "ENG-002"


def test_who_does_not_read_makes_no_more_answers(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    """Hundreds of requests in one piece, an answer of a megabyte each: what waits unread stays bounded."""

    async def run() -> tuple[int, int]:
        path = tmp_path / "s"
        async with listening(make_engine, path) as (engine, listener):
            await dispatch.call(engine, "bdev_null_create", {"name": "n", "num_blocks": 8, "block_size": 512})
            engine.bdevs.get("n").aliases += ["x" * 1000 + str(at) for at in range(1000)]
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
            writer.transport.pause_reading()
            writer.write(b'{"id":1,"method":"bdev_get_bdevs","params":{"name":"n"}}' * 200)
            while not listener.connections or not next(iter(listener.connections))._unread:
                await asyncio.sleep(0)
            connection = next(iter(listener.connections))
            while connection._tasks:
                await asyncio.sleep(0)
            held = len(connection._waiting)
            writer.transport.resume_reading()
            answers = 0
            while answers < 200:
                answers += (await reader.read(1 << 20)).count(b"\n")
            writer.close()
            return held, answers

    held, answers = asyncio.run(run())
    assert held > 150
    assert answers == 200


def test_what_was_asked_goes_on_when_the_peer_is_gone(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "s"
        async with listening(make_engine, path) as (engine, _):
            _, writer = await asyncio.open_unix_connection(str(path))
            for at in range(40):
                text = '{"id":1,"method":"bdev_null_create","params":{"name":"n%d","num_blocks":8,"block_size":512}}'
                writer.write((text % at).encode())
            await writer.drain()
            writer.close()
            while len(list(engine.bdevs)) < 40:
                await asyncio.sleep(0)

    asyncio.run(run())
