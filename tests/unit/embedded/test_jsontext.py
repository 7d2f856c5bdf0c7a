"""The JSON reader against tables made from lib/json, and against every cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.embedded.rpc.jsontext import JsonObject, JsonSyntaxError, Number, Reader


def read_all(*chunks: bytes, comments: bool = False) -> list[object]:
    reader = Reader(comments=comments)
    found = []
    for chunk in chunks:
        reader.feed(chunk)
        while (value := reader.next()) is not None:
            found.append(value[0])
    return found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, -2, true, false, null, "x\\u00e9\\n"]}', {"a": [1, -2, True, False, None, "xé\n"]}),
        (b" [] ", []),
        (b"{}", {}),
        (b"1.5", Number("1.5")),
        (b"-0", Number("-0")),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b"[[[]]]", [[[]]]),
    ],
)
def test_values(text: bytes, value: object) -> None:
    assert read_all(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        b"{1:2}", b"[1,]", b'{"a":1,}', b'{"a" 1}', b"]", b"}", b"[}", b"{]", b"nul!", b"+1", b"[01]", b"[1.]",
        b"[1e]", b"[--1]", b'"\x01"', b'"\\x"', b'"\\u12g4"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"',
        b"NaN", b"[Infinity]", b"'a'", b"/* c */ 1", b"[1 2]", b"{,}", b"[,1]", b"\x00",
        b"[" * 65,
    ],
)  # fmt: skip
def test_what_can_never_become_json(text: bytes) -> None:
    with pytest.raises(JsonSyntaxError):
        read_all(text)


@pytest.mark.parametrize(
    "text",
    [b"[1e9", b"[1.5e+3", b"[-0.0E-1", b"", b" ", b"[", b'{"a"', b'{"a":', b'"abc', b'"\\', b'"\\u12', b"tru", b"-",
     b"1.", b"[1", b'"\xc3'],
)  # fmt: skip
def test_what_may_still_become_json(text: bytes) -> None:
    assert read_all(text) == []


def test_64_levels_are_read() -> None:
    assert len(read_all(b"[" * 64 + b"]" * 64)) == 1


def test_comments_only_where_allowed() -> None:
    assert read_all(b'// x\n{"a": /* y */ 1} ', comments=True) == [{"a": 1}]


def test_a_name_that_comes_twice_is_remembered_and_the_first_value_kept() -> None:
    (value,) = read_all(b'{"a":1,"b":2,"a":3}')
    assert isinstance(value, JsonObject)
    assert (dict(value), value.twice) == ({"a": 1, "b": 2}, {"a"})


def test_values_are_counted_as_spdk_counts_them() -> None:
    reader = Reader()
    reader.feed(b'{"a":[1,2]}')
    # Both braces, the name, both brackets and two numbers.
    assert reader.next() == ({"a": [1, 2]}, 7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000), ("1.50e1", 15), ("100e-2", 1), ("0e5", 0), ("-0", 0), ("1.5", None), ("1e-1", None),
        ("18446744073709551615.0", None), ("18446744073709551616", None), ("1e19", 10**19), ("1e20", None),
        ("9" * 5000, None), ("1e" + "9" * 5000, None), ("1e999999999", None), ("-12.0", -12), ("1E+2", 100),
        ("10.50", None),
    ],
)  # fmt: skip
def test_numbers_as_json_util_takes_them(text: str, value: int | None) -> None:
    assert Number(text).to_int() == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(values=st.lists(json_values.filter(lambda value: isinstance(value, dict | list)), max_size=3), data=st.data())
def test_cut_anywhere_the_same_values_come_out(values: list[object], data: st.DataObject) -> None:
    text = b" ".join(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode() for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read_all(*chunks) == values


@given(text=st.binary(max_size=60), cut=st.integers(0, 60))
def test_garbage_ends_the_same_way_cut_or_whole(text: bytes, cut: int) -> None:
    def outcome(*chunks: bytes) -> object:
        try:
            return read_all(*chunks)
        except JsonSyntaxError:
            return "refused"

    # A number at the top level is complete wherever the data ends, so a cut may make two of it.
    if not any(digit in b"0123456789" for digit in text):
        assert outcome(text) == outcome(text[:cut], text[cut:])


@pytest.mark.parametrize(
    "text",
    [b"[1e999]", b"[-0.5E+10, 1]", b'{"a": 120e1, "b": -17}', b'["\\u00e9\xc3\xa9\\n\\ud83d\\ude00"]', b"[1234567]"],
)
def test_cut_at_every_byte(text: bytes) -> None:
    assert read_all(*(bytes([byte]) for byte in text)) == read_all(text)


@pytest.mark.parametrize(
    "text", [b"[01]", b"[-01]", b"[1.e1]", b"[12.34.5]", b"[1e5e5]", b"[12345-]", b'["abc\xc3\\n"]']
)
def test_cut_at_every_byte_it_is_refused_as_well(text: bytes) -> None:
    with pytest.raises(JsonSyntaxError):
        read_all(*(bytes([byte]) for byte in text))
