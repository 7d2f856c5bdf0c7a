"""Which requests are well formed, and what their answers look like; expected texts are SPDK v26.05's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dataplane.embedded.rpc import dispatch
from dataplane.embedded.rpc.jsontext import Reader
from dataplane.embedded.rpc.registry import STARTUP

INVALID = '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}'
NOT_FOUND = '"error":{"code":-32601,"message":"Method not found"}}'


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        ("[]", INVALID), ("3", INVALID), ('"abc"', INVALID), ("null", INVALID), ("{}", INVALID),
        ('{"id":{},"method":"x"}', INVALID), ('{"id":true,"method":"x"}', INVALID),
        ('{"id":1,"method":"x","foo":1}', INVALID), ('{"id":1,"method":7}', INVALID),
        ('{"id":1,"id":2,"method":"x"}', INVALID), ('{"jsonrpc":"1.0","id":1,"method":"x"}', INVALID),
        ('{"id":1,"method":"x","params":3}', INVALID.replace("null", "1")),
        ('{"id":null,"method":"x"}', '{"jsonrpc":"2.0","id":null,' + NOT_FOUND),
        ('{"method":"x"}', '{"jsonrpc":"2.0","id":null,' + NOT_FOUND),
        ('{"id":1e3,"method":"x"}', '{"jsonrpc":"2.0","id":1e3,' + NOT_FOUND),
        ('{"id":-0,"method":"x"}', '{"jsonrpc":"2.0","id":-0,' + NOT_FOUND),
        ('{"id":"\\u00e9\\"","method":"x"}', '{"jsonrpc":"2.0","id":"\\u00e9\\"",' + NOT_FOUND),
        ('{"id":5,"method":"bdev_wait_for_examine"}', '{"jsonrpc":"2.0","id":5,"result":true}'),
        ('{"id":5,"method":"bdev_wait_for_examine","params":null}', '{"jsonrpc":"2.0","id":5,"result":true}'),
        ('{"method":"bdev_wait_for_examine"}', ""),
        ('{"id":null,"method":"bdev_wait_for_examine"}', ""),
        (
            '[{"id":1,"method":"bdev_wait_for_examine"},3,{"method":"x"},{"method":"bdev_wait_for_examine"}]',
            '[{"jsonrpc":"2.0","id":1,"result":true},' + INVALID + ',{"jsonrpc":"2.0","id":null,' + NOT_FOUND + "]",
        ),
        ('[{"method":"bdev_wait_for_examine"}]', ""),
        ("[[]]", f"[{INVALID}]"), ("[[[]],1]", f"[{INVALID},{INVALID}]"),
    ],
)  # fmt: skip
def test_answers(make_engine: Callable[[], Any], request_text: str, answer: str) -> None:
    async def ask() -> str:
        engine, _ = make_engine()
        reader = Reader()
        reader.feed(request_text.encode())
        found = reader.next()
        assert found is not None
        items, answers = dispatch.unpack(found[0])
        return [answers.add(await dispatch.answer_one(engine, item)) for item in items][-1]

    assert asyncio.run(ask()) == answer


def test_the_state_decides_which_methods_may_be_called(make_engine: Callable[[], Any]) -> None:
    async def ask() -> list[object]:
        engine, call = make_engine()
        late = await call("bdev_set_options")
        engine.state = STARTUP
        return [late, await call("bdev_get_bdevs"), await call("bdev_set_options")]

    late, early, fine = asyncio.run(ask())
    assert late == (-1, dispatch.TOO_LATE)
    assert early == (-1, dispatch.TOO_EARLY)
    assert fine is True
