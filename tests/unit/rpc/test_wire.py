"""Streams of bytes to values, without sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataplane.rpc.wire import (
    Conversation,
    Repeated,
    Reply,
    ValueSplitter,
    WireError,
    count_values,
    decode,
    encode_request,
)


def test_a_request_leaves_out_what_is_none_and_an_empty_params() -> None:
    assert json.loads(encode_request(7, "m", {"a": None})) == {"jsonrpc": "2.0", "id": 7, "method": "m"}
    assert json.loads(encode_request(8, "m", {"a": "ä", "b": None}))["params"] == {"a": "ä"}
    assert encode_request(9, "m", {"a": "ä"}).isascii()
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_request(1, "m", {"a": float("nan")})


def test_values_are_cut_where_they_end() -> None:
    splitter = ValueSplitter()
    assert splitter.feed(b' {"a":"}{\\"]"} \n[1,[2]]{"b"') == [b'{"a":"}{\\"]"}', b"[1,[2]]"]
    assert splitter.held_bytes == 4
    assert splitter.feed(b':"\\') == []
    assert splitter.feed(b'\\"}') == [b'{"b":"\\\\"}']
    assert splitter.held_bytes == 0


@pytest.mark.parametrize("noise", [b"x", b'"text"', b"1", b"true", b"}", b"]", b":"])
def test_a_value_must_be_an_object_or_an_array(noise: Any) -> None:
    with pytest.raises(WireError):
        ValueSplitter().feed(noise)


def test_a_value_without_end_is_refused() -> None:
    splitter = ValueSplitter(limit_bytes=100)
    with pytest.raises(WireError, match="longer than 100"):
        splitter.feed(b'{"a":"' + b"x" * 200)


@pytest.mark.timeout(60)
def test_a_long_string_in_small_pieces_costs_linear_time() -> None:
    # Looking at everything again after each piece would be 60 GB of work here.
    piece = b"x" * 128
    splitter = ValueSplitter()
    splitter.feed(b'{"data":"')
    for _ in range(32_000):
        splitter.feed(piece)
    assert len(splitter.feed(b'"}')[0]) == 32_000 * 128 + 11


@pytest.mark.timeout(60)
def test_many_values_in_small_pieces_cost_linear_time() -> None:
    text = json.dumps([{"name": f"d{n}", "n": [n, {"x": '"{'}]} for n in range(40_000)]).encode()
    splitter = ValueSplitter()
    found = []
    for at in range(0, len(text), 256):
        found += splitter.feed(text[at : at + 256])
    assert found == [text]


@pytest.mark.parametrize("inside", ["plain", "{{[[", "]]}}", "}{][", '"', '{"[', "\\", '\\"}', ""])
def test_a_long_value_ends_where_it_ends_whatever_stands_in_its_strings(inside: str) -> None:
    """Blocks of a long value are counted at once; here they begin and end at every place of an item.  One item in a
    hundred is the special one: with more, too many brackets would be left to count any block."""
    names = [inside if n % 100 == 50 else f"plain{n}" for n in range(1200)]
    items = json.dumps([[[{"name": name, "n": [{"other": "xyz"}]} for name in names]]]).encode()
    for before in range(48):
        text = b'{"' + b"p" * before + b'":' + items + b"}"
        splitter = ValueSplitter()
        assert splitter.feed(text + b"\n" + text) == [text, text]
        assert splitter.held_bytes == 0


def test_a_long_value_with_a_backslash_outside_of_strings_ends_too_and_is_refused_then() -> None:
    text = json.dumps([[{"name": f"d{n}"} for n in range(2000)]]).encode().replace(b'"d700"', b'"d700"\\')
    assert ValueSplitter().feed(text) == [text]
    with pytest.raises(WireError):
        decode(text)


def test_repeated_names_are_kept_and_others_are_plain() -> None:
    found = decode(b'{"t":1,"t":{"u":2,"u":3},"v":[4]}')
    assert found == {"t": [1, {"u": [2, 3]}], "v": [4]}
    assert isinstance(found["t"], Repeated)
    assert isinstance(found["t"][1]["u"], Repeated)
    assert not isinstance(found["v"], Repeated)


@pytest.mark.parametrize("text", [b"{", b'{"a":\xff\xfe}', b"{a:1}", b"[" * 200_000])
def test_what_cannot_be_decoded_is_a_wire_error(text: Any) -> None:
    with pytest.raises(WireError):
        decode(text)


def test_answers_are_matched_once() -> None:
    talk = Conversation()
    talk.sent(1)
    talk.sent(2)
    assert talk.feed(b'{"id":2,"result":"b"}{"id":2,"result":"again"}{"id":9,"result":"?"}') == [Reply(2, "b")]
    assert talk.strays == 2
    assert talk.unanswered == {1}
    assert talk.feed(b'[{"id":1,"error":{"code":-1,"message":"m"}},{"id":true,"result":1}]') == [
        Reply(1, error={"code": -1, "message": "m"})
    ]
    assert talk.unanswered == frozenset()


def test_a_result_of_null_is_an_answer() -> None:
    talk = Conversation()
    talk.sent(1)
    assert talk.feed(b'{"id":1,"result":null}') == [Reply(1, None)]


def test_values_are_counted_as_the_engine_counts_them() -> None:
    # begin and end of the object, three names, one number, a string, and an array of two with its ends
    assert count_values({"a": 1, "b": "x", "c": [1, 2]}) == 2 + 3 + 1 + 1 + 4
