"""Messages: identifiers, notifications, batches, what is no request; and the engine's own events.

Answers are read as they were written, since a client would already have made sense of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from raw_rpc import RawRpc

REFUSED: Final = '"method":"spdk_get_version","params":{"x":1}'
KNOWN: Final = '"method":"notify_get_types"'
TYPES: Final = ["bdev_register", "bdev_unregister", "bdev_resize"]
LAST: Final = f'{{"id":"last",{REFUSED}}}'
"""A request behind a message: its answer shows that nothing else came before it."""
INVALID: Final = {"code": -32600, "message": "Invalid request"}
NO_PARAMS: Final = {"code": -32602, "message": "spdk_get_version method requires no parameters"}
NO_METHOD: Final = {"code": -32601, "message": "Method not found"}


def refusal(identifier: Any, error: dict[str, Any] = INVALID) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": error}


def result(identifier: Any, value: Any = TYPES) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "result": value}


@pytest.fixture
def line(engine: Any) -> Iterator[RawRpc]:
    """A connection of its own."""
    with RawRpc(engine.process.socket) as opened:
        yield opened


def until_last(line: RawRpc, text: str) -> list[Any]:
    """The answers to a text, which all come before that of the request behind it."""
    line.send(text + LAST)
    found: list[Any] = []
    while True:
        answer = json.loads(line.line())
        if isinstance(answer, dict) and answer["id"] == "last":
            return found
        found.append(answer)


# Identifiers


@pytest.mark.parametrize(
    "identifier",
    [
        "0", "1", "-1", "-0", "1.5", "1e3", "1E+3", "1e400", "9007199254740993", "18446744073709551615",
        "18446744073709551616", "123456789012345678901234567890", '""', '"a"', '"a\\"b\\\\\\n"', f'"{"x" * 300}"',
    ],
)  # fmt: skip
def test_an_identifier_comes_back_as_it_was_written(line: RawRpc, identifier: str) -> None:
    (good,) = line.lines(f'{{"id":{identifier},{KNOWN}}}', 1)
    assert good.startswith(f'{{"jsonrpc":"2.0","id":{identifier},"result":')
    (bad,) = line.lines(f'{{"id":{identifier},{REFUSED}}}', 1)
    assert bad.startswith(f'{{"jsonrpc":"2.0","id":{identifier},"error":')


@pytest.mark.parametrize("identifier", ["é", "驱", "💾", "\u007f", "\u0001"])
def test_an_identifier_of_other_letters_is_the_same_text(line: RawRpc, identifier: str) -> None:
    assert json.loads(line.lines(f'{{"id":{json.dumps(identifier)},{KNOWN}}}', 1)[0]) == result(identifier)


def test_identifiers_may_repeat(line: RawRpc) -> None:
    assert until_last(line, f'{{"id":1,{REFUSED}}}{{"id":1,{KNOWN}}}') == [refusal(1, NO_PARAMS), result(1)]


@pytest.mark.parametrize("identifier", ["true", "{}", "[]", "[1]"])
def test_what_cannot_be_an_identifier_makes_no_request(line: RawRpc, identifier: str) -> None:
    assert until_last(line, f'{{"id":{identifier},{KNOWN}}}') == [refusal(None)]


@pytest.mark.parametrize("start", ["", '"id":null,'])
def test_a_notification_is_done_and_answered_only_with_an_error(engine: Any, line: RawRpc, start: str) -> None:
    create = '"method":"bdev_null_create","params":{"name":"n","num_blocks":8,"block_size":512}'
    assert until_last(line, f"{{{start}{create}}}") == []
    assert [one["name"] for one in engine.rpc("bdev_get_bdevs")] == ["n"]
    assert until_last(line, f"{{{start}{create}}}") == [refusal(None, {"code": -17, "message": "File exists"})]
    assert until_last(line, f"{{{start}{REFUSED}}}") == [refusal(None, NO_PARAMS)]


# What is a request


@pytest.mark.parametrize(
    "text",
    [
        "1", '"x"', "null", "true", "{}", '{"id":1}', '{"method":5,"id":1}', '{"method":"x","id":1,"extra":1}',
        '{"method":"x","id":1,"id":2}', '{"method":"x","jsonrpc":"1.0","id":1}', '{"method":"x","jsonrpc":2.0,"id":1}',
        '{"method":"x","jsonrpc":null,"id":1}', '{"method":"x","params":5}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_answered_without_its_identifier(line: RawRpc, text: str) -> None:
    assert until_last(line, text) == [refusal(None)]


def test_a_method_is_looked_up_as_text(line: RawRpc) -> None:
    escaped = '{"id":1,"method":"spdk_get_\\u0076ersion","params":{"x":1}}'
    assert until_last(line, escaped) == [refusal(1, NO_PARAMS)]
    for name in ("", "no_such_method", "notify_get_types\\u0000", "Notify_get_types"):
        assert until_last(line, f'{{"id":1,"method":"{name}"}}') == [refusal(1, NO_METHOD)]


@pytest.mark.parametrize(
    "text", ["tru", "x", "]", "[1,]", "{'id':1}", '{"id":01,"method":"x"}', '// a\n{"id":1}', '{"id":1,}']
)
def test_what_is_no_json_ends_the_connection(line: RawRpc, text: str) -> None:
    """There is nothing from which to go on; requests before it were begun, and their answers are lost."""
    line.send(text + "\n" + LAST)
    try:
        assert line.line() == ""
    except ConnectionResetError:
        return  # closed before it had read everything


# Batches


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("[]", [refusal(None)]),
        ("[[]]", [[refusal(None)]]),
        ("[1]", [[refusal(None)]]),
        ("[null]", [[refusal(None)]]),
        ("[[],[]]", [[refusal(None), refusal(None)]]),
        (f'[{{"id":1,{KNOWN}}},{{"id":2,{REFUSED}}}]', [[result(1), refusal(2, NO_PARAMS)]]),
        (f'[{{"id":1,{REFUSED}}},{{"id":1,{KNOWN}}}]', [[refusal(1, NO_PARAMS), result(1)]]),
        (f'[{{"id":1,{KNOWN}}},[{{"id":2,{KNOWN}}}]]', [[result(1), refusal(None)]]),
        (f'[1,{{"id":1,{KNOWN}}}]', [[refusal(None), result(1)]]),
        (
            f'[{{"id":1,"method":"x"}},{{"id":2,{KNOWN}}},"x",{{"id":3}},{{"id":4,"method":1}}]',
            [[refusal(1, NO_METHOD), result(2), refusal(None), refusal(None), refusal(None)]],
        ),
        (f"[{{{KNOWN}}}]", []),
        (f'[{{{KNOWN}}},{{"id":null,{KNOWN}}}]', []),
        (f'[{{{KNOWN}}},{{"id":1,{KNOWN}}}]', [[result(1)]]),
        (f"[{{{REFUSED}}}]", [[refusal(None, NO_PARAMS)]]),
        (f'[{{"id":1,{KNOWN}}}]\n[{{"id":2,{KNOWN}}}]', [[result(1)], [result(2)]]),
        (f'[{{"id":1,{KNOWN}}}] {{"id":2,{KNOWN}}}', [[result(1)], result(2)]),
        (f'{{"id":1,{KNOWN}}} [{{"id":2,{KNOWN}}}]', [result(1), [result(2)]]),
    ],
)
def test_a_batch_is_answered_in_its_order_and_before_what_comes_after_it(
    line: RawRpc, text: str, answers: list[Any]
) -> None:
    assert until_last(line, text) == answers


def test_a_batch_is_answered_when_its_last_request_ends(engine: Any, line: RawRpc) -> None:
    """Each request is begun without waiting for the one before it, and the answers stand in the order of the ends."""
    wait = '{"id":"device","method":"bdev_get_bdevs","params":{"name":"n","timeout":60000}}'
    create = '"method":"bdev_null_create","params":{"name":"n","num_blocks":8,"block_size":512}'
    assert until_last(line, f'[{wait},{{"id":"soon",{KNOWN}}}]') == []
    (made,) = until_last(line, f'{{"id":"made",{create}}}')[:1]
    assert made == result("made", "n")
    soon, device = json.loads(line.line())
    assert soon == result("soon")
    assert (device["id"], [one["name"] for one in device["result"]]) == ("device", ["n"])


def test_requests_of_a_batch_see_what_those_before_them_made(line: RawRpc) -> None:
    create = '{"id":%d,"method":"bdev_null_create","params":{"name":"n%d","num_blocks":8,"block_size":512}}'
    show = '{"id":"show","method":"bdev_get_bdevs"}'
    ((*made, shown),) = until_last(line, f"[{create % (0, 0)},{create % (1, 1)},{show}]")
    assert made == [result(0, "n0"), result(1, "n1")]
    assert [one["name"] for one in shown["result"]] == ["n0", "n1"]


# Events


def events(line: RawRpc, **params: int) -> list[tuple[str, str]]:
    """What happened: kind and device."""
    (found,) = line.ask_all([("notify_get_notifications", params)])
    return [(event["type"].removeprefix("bdev_"), event["ctx"]) for event in found]


def following(line: RawRpc) -> int:
    """The number that the next event will have."""
    (found,) = line.ask_all([("notify_get_notifications", {})])
    return found[-1]["id"] + 1 if found else 0


def test_kinds_of_events(line: RawRpc) -> None:
    assert line.ask_all([("notify_get_types", None)]) == [TYPES]


def test_devices_that_come_and_go_are_told_in_order(engine: Any, line: RawRpc) -> None:
    """A set before the device that it could not do without; the parts of a device before it."""

    def told(first: int) -> list[tuple[str, str]]:
        return events(line, id=first)

    first = following(line)
    engine.malloc("m0")
    engine.malloc("m1")
    engine.rpc("bdev_raid_create", name="r", raid_level="raid0", base_bdevs=["m0", "m1"], strip_size_kb=64)
    assert told(first) == [("register", "m0"), ("register", "m1"), ("register", "r")]
    first = following(line)
    engine.rpc("bdev_malloc_delete", name="m0")
    assert told(first) == [("unregister", "r"), ("unregister", "m0")]
    first = following(line)
    assert engine.number("bdev_malloc_create", name="m1", num_blocks=8, block_size=512) == -17
    assert told(first) == []
    engine.malloc("s")
    assert told(first) == [("register", "s")]
    first = following(line)
    engine.rpc("bdev_split_create", base_bdev="s", split_count=2)
    assert sorted(told(first)) == [("register", "sp0"), ("register", "sp1")]
    first = following(line)
    engine.rpc("bdev_malloc_delete", name="s")
    assert told(first) == [("unregister", "sp0"), ("unregister", "sp1"), ("unregister", "s")]


def test_the_last_1024_events_are_kept(line: RawRpc) -> None:
    """Numbers count on for ever; whoever asks for an event that is gone gets the oldest that is there."""
    before = following(line)
    names = [f"n{number}" for number in range(600)]
    for start in range(0, 600, 100):
        part = names[start : start + 100]
        line.ask_all([("bdev_null_create", {"name": name, "num_blocks": 8, "block_size": 512}) for name in part])
        line.ask_all([("bdev_null_delete", {"name": name}) for name in part])
    (kept,) = line.ask_all([("notify_get_notifications", {})])
    first = before + 1200 - 1024
    assert [event["id"] for event in kept] == list(range(first, first + 1024))
    assert {"type": "bdev_unregister", "ctx": "n599", "id": before + 1199} in kept
    for params, expected in (
        ({"id": first - 1, "max": 2}, kept[:2]),
        ({"id": first + 1, "max": 1}, kept[1:2]),
        ({"max": 0}, []),
        ({"max": 1}, kept[:1]),
        ({"max": 2**64 - 1}, kept),
        ({"id": before + 1198}, kept[-2:]),
        ({"id": before + 1200}, []),
        ({"id": 2**63}, []),
        ({"id": 2**64 - 1, "max": 2**64 - 1}, []),
    ):
        assert line.ask_all([("notify_get_notifications", params)]) == [expected], params
