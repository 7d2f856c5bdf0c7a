"""Decoding of parameters against the rules of lib/json/json_util.c."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.embedded.rpc.jsontext import JsonObject, Number, Reader
from dataplane.embedded.rpc.registry import METHODS, RUNTIME, Method, Param, Params, RpcFault, method

UUID = "11111111-2222-4333-8444-55555555555a"


def made(*params: Param, relaxed: bool = False, needs_params: bool = True, ignores_params: bool = False) -> Method:
    async def handler(engine: object, p: Params) -> object:
        return None

    return Method("m", RUNTIME, params, handler, relaxed, (-32602, "no"), needs_params, ignores_params)


def parsed(text: str) -> object:
    reader = Reader()
    reader.feed(text.encode())
    found = reader.next()
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    ("type_", "raw", "value"),
    [
        ("string", "x", "x"), ("boolean", True, True), ("uint8", 255, 255), ("uint16", 65535, 65535),
        ("uint32", 2**32 - 1, 2**32 - 1), ("uint64", 2**64 - 1, 2**64 - 1), ("int32", -(2**31), -(2**31)),
        ("uint32", Number("1e3"), 1000), ("uuid", UUID.upper(), UUID), ("any", [1], [1]),
    ],
)  # fmt: skip
def test_accepted(type_: str, raw: object, value: object) -> None:
    assert dict(made(Param("x", type_)).decode({"x": raw})) == {"x": value}


@pytest.mark.parametrize(
    ("type_", "raw"),
    [
        ("string", 1), ("string", None), ("string", "a\0b"), ("boolean", 1), ("boolean", "true"), ("uint8", 256),
        ("uint16", -1), ("uint32", 2**32), ("uint32", True), ("uint32", "1"), ("uint64", 2**64),
        ("uint64", Number("-0")), ("uint64", Number("1.5")), ("int32", 2**31), ("int32", Number("9" * 30)),
        ("uuid", "x"), ("uuid", UUID.replace("-", "")), ("uuid", "{" + UUID + "}"), ("uuid", f"urn:uuid:{UUID}"),
    ],
)  # fmt: skip
def test_refused(type_: str, raw: object) -> None:
    with pytest.raises(RpcFault) as caught:
        made(Param("x", type_)).decode({"x": raw})
    assert (caught.value.code, caught.value.message) == (-32602, "no")


def test_objects_arrays_and_enums() -> None:
    method_ = made(
        Param("o", "object", fields=(Param("a", "uint8", required=True),)),
        Param("names", "array", item="string", max_items=2),
        Param("items", "array", fields=(Param("b", "boolean"),)),
        Param("kind", "enum", values=("tcp", "rdma")),
        Param("kinds", "array", item="enum", values=("tcp", "rdma")),
    )
    decoded: Any = method_.decode(
        {"o": {"a": 1}, "names": ["x"], "items": [{"b": True}, {}], "kind": "tcp", "kinds": ["rdma"]}
    )
    assert decoded["o"]["a"] == 1
    assert [dict(item) for item in decoded["items"]] == [{"b": True}, {}]
    for wrong in ({"o": {}}, {"o": {"a": 1, "z": 1}}, {"names": ["1", "2", "3"]}, {"kind": "TCP"}, {"kinds": ["x"]}):
        with pytest.raises(RpcFault):
            method_.decode(wrong)


def test_strict_and_relaxed() -> None:
    strict, relaxed = made(Param("x", "string")), made(Param("x", "string"), relaxed=True)
    with pytest.raises(RpcFault):
        strict.decode({"x": "1", "y": 2})
    assert dict(relaxed.decode({"x": "1", "y": 2})) == {"x": "1"}


def test_a_name_given_twice_is_refused_even_when_relaxed() -> None:
    raw = parsed('{"x":"1","x":"1"}')
    assert isinstance(raw, JsonObject)
    for relaxed in (False, True):
        with pytest.raises(RpcFault):
            made(Param("x", "string"), relaxed=relaxed).decode(raw)
    unknown = parsed('{"x":"1","y":1,"y":2}')
    assert dict(made(Param("x", "string"), relaxed=True).decode(unknown)) == {"x": "1"}


def test_missing_params() -> None:
    with pytest.raises(RpcFault):
        made(Param("x", "string", required=True)).decode({})
    with pytest.raises(RpcFault):
        made(Param("x", "string", required=True)).decode(None)
    assert dict(made(Param("x", "string"), needs_params=False).decode(None)) == {}
    with pytest.raises(RpcFault):
        made(needs_params=False).decode({})
    assert dict(made(ignores_params=True).decode([1, 2])) == {}


def test_a_method_is_registered_once() -> None:
    name = next(iter(METHODS))
    with pytest.raises(ValueError, match="registered twice"):
        method(name, RUNTIME)(METHODS[name].handler)
