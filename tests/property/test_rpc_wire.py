"""However a stream is cut, whatever stands in it, the values are the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataplane.rpc.call import Call, without_none
from dataplane.rpc.redact import redact, scrub
from dataplane.rpc.wire import Conversation, Repeated, Reply, ValueSplitter, count_values, decode, encode_request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", '\\"{[', "]}", "ä驱💾"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
VALUES = st.lists(st.lists(JSON, max_size=4) | st.dictionaries(TEXT, JSON, max_size=4), max_size=5)
SPACE = st.text(" \t\r\n", max_size=3)


class Pairs(tuple[tuple[str, Any], ...]):
    """An object whose names may be repeated."""


def written(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(name)}:{written(item)}" for name, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def last(value: Any) -> Any:
    """The value with the last of each repeated name."""
    if isinstance(value, Repeated):
        return last(value[-1])
    if isinstance(value, dict):
        return {name: last(item) for name, item in value.items()}
    return [last(item) for item in value] if isinstance(value, list) else value


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(VALUES, SPACE, st.booleans(), st.lists(st.integers(0, 10_000), max_size=40))
def test_a_stream_cut_anywhere_gives_the_same_values(
    values: list[Any], space: str, ascii_only: bool, cuts: list[int]
) -> None:
    data = (space + "".join(json.dumps(value, ensure_ascii=ascii_only) + space for value in values)).encode()
    splitter = ValueSplitter()
    found = [decode(text) for piece in pieces(data, cuts) for text in splitter.feed(piece)]
    assert found == values
    assert splitter.held_bytes == 0


@given(VALUES)
def test_a_stream_cut_at_every_byte_gives_the_same_values(values: list[Any]) -> None:
    data = "".join(json.dumps(value, ensure_ascii=False) for value in values).encode()
    splitter = ValueSplitter()
    found = [decode(text) for byte in data for text in splitter.feed(bytes([byte]))]
    assert found == values


@given(JSON, st.integers(1, 3000), st.booleans(), st.lists(st.integers(0, 10**6), max_size=20))
def test_a_long_value_cut_anywhere_is_the_same_value(item: Any, count: int, ascii_only: bool, cuts: list[int]) -> None:
    """Blocks of a long value are counted at once, unless there are brackets or backslashes in its strings."""
    text = json.dumps([{"result": [item] * count}, item], ensure_ascii=ascii_only)
    data = (text + "\n" + "[" + text + "]").encode()
    splitter = ValueSplitter()
    found = [value for piece in pieces(data, cuts) for value in splitter.feed(piece)]
    assert found == [text.encode(), b"[" + text.encode() + b"]"]
    assert splitter.held_bytes == 0


PAIRS = st.recursive(
    st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=5).map(Pairs)
    ),
    max_leaves=15,
)


@given(PAIRS)
def test_of_a_repeated_name_the_last_value_is_what_a_parser_reads(value: Any) -> None:
    text = written(value).encode()
    assert decode(text, repeated=False) == last(decode(text)) == json.loads(text)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=40),
    st.sets(st.integers(1, 20), max_size=20),
    st.lists(st.integers(0, 5000), max_size=20),
)
def test_an_answer_reaches_its_own_number_once(
    answers: list[tuple[int, bool]], asked: set[int], cuts: list[int]
) -> None:
    talk = Conversation()
    for number in asked:
        talk.sent(number)
    data = b"".join(
        json.dumps({"jsonrpc": "2.0", "id": number, **({"result": at} if good else {"error": {"code": at}})}).encode()
        for at, (number, good) in enumerate(answers)
    )
    found = [reply for piece in pieces(data, cuts) for reply in talk.feed(piece)]
    first: dict[int, Reply] = {}
    for at, (number, good) in enumerate(answers):
        if number in asked and number not in first:
            first[number] = Reply(number, result=at) if good else Reply(number, error={"code": at})
    assert found == list(first.values())
    assert talk.unanswered == asked - first.keys()
    assert talk.strays == len(answers) - len(first)


@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_a_request_is_one_value_and_its_parameters_arrive_without_none(params: dict[str, Any]) -> None:
    before = json.dumps(params)
    (text,) = ValueSplitter().feed(encode_request(3, "m", params))
    found = decode(text)
    assert found.get("params", {}) == without_none(params)
    assert json.dumps(params) == before
    assert count_values(found) >= count_values(without_none(params))


@given(
    st.sampled_from(["psk", "key", "key2", "dhchap_key", "dhchap_ctrlr_key", "secret", "msecret", "password"]),
    st.text("0123456789abcdef", min_size=12, max_size=40),
    st.integers(0, 3),
)
def test_a_secret_at_any_depth_is_shown_nowhere(name: str, secret: str, depth: int) -> None:
    params: dict[str, Any] = {name: secret}
    for level in range(depth):
        params = {"inner": [params, level]}
    assert secret not in repr(Call("m", params))
    assert secret not in json.dumps(redact(params))
    assert secret not in scrub(f"cannot use {secret} here", params)
