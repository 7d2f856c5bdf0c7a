"""JSON-RPC without a client: texts go out as they are given, and lines come back as they are.

Why: a client gives every request a number and takes only answers it knows, so what an engine does with other
messages can be seen only from beside it.  This module must never correct what a test sends.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dataplane.rpc.schema import Schema

DEADLINE_S: Final = 60.0
SCHEMA: Final = Schema.load("26.05")
START_METHODS: Final = {
    "bdev_set_options", "framework_start_init", "iobuf_set_options", "nvmf_set_config", "nvmf_set_crdt",
    "nvmf_set_max_subsystems", "sock_impl_set_options", "sock_set_default_impl",
}  # fmt: skip
"""Of the methods that both engines have, those that are taken before ``framework_start_init`` only."""
_WRONG: dict[str, tuple[Any, ...]] = {
    "string": (1, True, None, ["zz"], "a\0b"),
    "boolean": (1, "true", None),
    "uuid": (1, "x", "11111111-1111-4111-8111-11111111111", "{11111111-1111-4111-8111-111111111111}"),
    "enum": (1, None, "no such word"),
    "array": (1, "x", {}, None),
    "object": (1, "x", [], None),
    "int32": ("1", 1.5, 2**31, True, None),
    "uint8": ("1", -1, 1.5, 2**8, True, None),
    "uint16": ("1", -1, 1.5, 2**16, True, None),
    "uint32": ("1", -1, 1.5, 2**32, True, None),
    "uint64": ("1", -1, 1.5, 2**64, True, None),
}
_RIGHT: dict[str, Any] = {"string": "zz", "boolean": True, "uuid": "11111111-1111-4111-8111-111111111111", "array": []}


class RawRpc:
    """One connection to an engine."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8", newline="\n")

    def __enter__(self) -> RawRpc:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def send(self, text: str) -> None:
        """These bytes and no other."""
        self._socket.sendall(text.encode())

    def line(self) -> str:
        """The next answer as it was written; empty when the engine closed the connection."""
        return self._lines.readline().rstrip("\n")

    def lines(self, text: str, count: int) -> list[str]:
        """``count`` answers to a text."""
        self.send(text)
        return [self.line() for _ in range(count)]

    def ask_all(self, requests: Sequence[tuple[str, Any]]) -> list[Any]:
        """Answers to (method, params), all under way at once: the result, or (code, message)."""
        texts = [
            json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            for number, (method, params) in enumerate(requests)
        ]
        found: dict[int, Any] = {}
        for text in self.lines("".join(texts), len(texts)):
            answer = json.loads(text)
            error = answer.get("error")
            found[answer["id"]] = answer.get("result") if error is None else (error["code"], error["message"])
        return [found[number] for number in range(len(texts))]


def right(field: Mapping[str, Any]) -> Any:
    """A value that decodes."""
    if field["type"] == "enum":
        return SCHEMA.enums[field["class"]][0]
    if field["type"] == "object":
        return required(SCHEMA.objects[field["class"]])
    return _RIGHT.get(field["type"], 1)


def required(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A value for everything that has to be given."""
    return {name: right(field) for name, field in fields.items() if field.get("required")}


def wrong_params(fields: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Parameters of which exactly one is missing or of a wrong type, at any depth of objects."""
    base = required(fields)
    for name in base:
        yield {key: value for key, value in base.items() if key != name}
    for name, field in fields.items():
        for value in _WRONG[field["type"]]:
            yield {**base, name: value}
        if field["type"] == "object":
            for inner in wrong_params(SCHEMA.objects[field["class"]]):
                yield {**base, name: inner}
