"""Check a call against SPDK's published description of its methods, before it is sent.

Why: most of SPDK's decoders refuse an unknown parameter with a text that does not name it, and five nvmf
methods (create_transport, subsystem_add_listener, _add_ns, _add_host, discovery_add_referral) silently ignore
one, so a typo there loses a setting.  Here every problem is named, with the nearest known word.
This module must never ask an engine: which release speaks is told to it.

The data are SPDK's own (``LICENSE.spdk`` beside them), without the descriptions: ``convert.py`` makes them.
Invariant: a call that passes has only known parameters of the right types; whether it makes sense is the
engine's to say.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from dataplane.rpc.errors import SchemaError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.redact import HIDDEN, is_secret_name
from dataplane.rpc.schema.translate import translated

RELEASES: Final = ("26.05", "26.09")

_INTEGERS: Final = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_JSON_NAMES: Final = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number with a fraction",
    "str": "a string",
    "list": "an array",
    "tuple": "an array",
    "dict": "an object",
    "NoneType": "null",
}


@dataclass(frozen=True, slots=True)
class Schema:
    """The methods of one release.  ``check`` raises ``SchemaError`` with the first problem of a call."""

    release: str
    methods: Mapping[str, Mapping[str, Any]]
    objects: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, Mapping[str, Any]]
    enums: Mapping[str, tuple[str, ...]]

    @staticmethod
    def load(release: str) -> Schema:
        """The schema of ``release`` (``26.05``); raises ``ValueError`` for one that is not shipped."""
        if release not in RELEASES:
            raise ValueError(f"no schema of SPDK {release}; there is {', '.join(RELEASES)}")
        return _loaded(release)

    @staticmethod
    def for_version(major: int, minor: int) -> Schema | None:
        """The newest shipped schema that is not newer than the engine (a 26.09-pre counts as 26.09); None for an
        engine that is older than all of them, whose methods nobody has described."""
        wanted = (major, minor)
        fitting = [release for release in RELEASES if _as_pair(release) <= wanted]
        return _loaded(fitting[-1]) if fitting else None

    def translate(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """``params`` in the words of this release, where it has others for the same thing."""
        return translated(method, params, self.methods.get(method))

    def check(self, method: str, params: Mapping[str, Any]) -> None:
        """Raise ``SchemaError`` unless ``method`` exists and every parameter is known and of its type."""
        fields = self.methods.get(method)
        if fields is None:
            raise SchemaError(
                "RPC-010",
                f"SPDK {self.release} has no method {method!r}{_nearest(method, self.methods)}",
                method=method,
                why="the call would only fail in the engine",
                remedy="correct the name, or use an engine of a release that has it",
            )
        self._object(method, "", params, fields)

    def _object(self, method: str, path: str, value: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
        inside = f"{path}." if path else ""
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                raise SchemaError(
                    "RPC-011",
                    f"{method} has no parameter {inside}{name}{_nearest(str(name), fields)}",
                    method=method,
                    path=f"{inside}{name}",
                    why=_elsewhere(method, f"{inside}{name}")
                    or f"SPDK {self.release} would refuse the whole call, or ignore the parameter silently",
                    remedy=f"it knows {', '.join(sorted(fields)) or 'no parameters'}",
                )
            self._value(method, f"{inside}{name}", item, field)
        for name, field in fields.items():
            if field.get("required") and name not in value:
                raise SchemaError(
                    "RPC-012",
                    f"{method} needs the parameter {inside}{name}",
                    method=method,
                    path=f"{inside}{name}",
                    remedy="give it",
                )

    def _value(self, method: str, path: str, value: Json, field: Mapping[str, Any]) -> None:
        kind = field["type"]
        if kind == "object" and "class" in field:
            if not isinstance(value, Mapping):
                raise _wrong_type(method, path, value, "an object")
            self._object(method, path, value, self.objects[field["class"]])
        elif kind == "array":
            self._array(method, path, value, self.arrays.get(field.get("class", "")))
        elif kind == "enum":
            self._enum(method, path, value, self.enums[field["class"]])
        else:
            problem = _scalar_problem(kind, value)
            if problem:
                raise _wrong_type(method, path, value, problem)

    def _array(self, method: str, path: str, value: Json, array: Mapping[str, Any] | None) -> None:
        if not isinstance(value, list | tuple):
            raise _wrong_type(method, path, value, "an array")
        if array is None:
            return
        most = array.get("max_count")
        if most is not None and len(value) > most:
            raise _wrong_type(method, path, value, f"an array of at most {most} entries, not {len(value)}")
        item_field = {"type": array["item_type"], **({"class": array["class"]} if "class" in array else {})}
        for index, item in enumerate(value):
            self._value(method, f"{path}[{index}]", item, item_field)

    def _enum(self, method: str, path: str, value: Json, known: tuple[str, ...]) -> None:
        if not isinstance(value, str):
            raise _wrong_type(method, path, value, "a word")
        if value not in known:
            raise SchemaError(
                "RPC-014",
                f"{method} does not know {path} = {value!r}{_nearest(value, known)}",
                method=method,
                path=path,
                remedy=f"use one of {', '.join(known)}",
            )


def _scalar_problem(kind: str, value: Json) -> str:
    """What ``value`` should have been, or nothing when it is right."""
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if isinstance(value, bool) or not isinstance(value, int):
            return "a whole number"
        return "" if low <= value <= high else f"between {low} and {high}"
    if kind == "boolean":
        return "" if isinstance(value, bool) else "true or false"
    if kind == "string":
        return "" if isinstance(value, str) else "a string"
    if kind == "uuid":
        return "" if isinstance(value, str) and _UUID.fullmatch(value) else "a UUID of 36 characters"
    return ""  # a type that a later release brings: the engine decides


def _wrong_type(method: str, path: str, value: Json, wanted: str) -> SchemaError:
    if is_secret_name(path.rpartition(".")[2]):
        given = HIDDEN
    elif isinstance(value, bool | int | float | str) and len(str(value)) <= 60:
        given = json.dumps(value, ensure_ascii=False)
    else:
        given = _JSON_NAMES.get(type(value).__name__, f"a {type(value).__name__}")
    return SchemaError(
        "RPC-013",
        f"{method} wants {path} to be {wanted}; it is {given}",
        method=method,
        path=path,
        remedy="correct the value",
    )


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _elsewhere(method: str, path: str) -> str:
    """Which releases do have the parameter; empty when none has."""
    having = [release for release in RELEASES if path in _loaded(release).methods.get(method, ())]
    return f"only SPDK {', '.join(having)} has it" if having else ""


def _as_pair(release: str) -> tuple[int, int]:
    major, _, minor = release.partition(".")
    return int(major), int(minor)


@functools.cache
def _loaded(release: str) -> Schema:
    text = resources.files(__package__).joinpath(f"spdk-{release}.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return Schema(
        release=data["release"],
        methods=data["methods"],
        objects=data["objects"],
        arrays=data["arrays"],
        enums={name: tuple(words) for name, words in data["enums"].items()},
    )


@functools.cache
def known_methods() -> frozenset[str]:
    """Every method of every shipped release."""
    return frozenset().union(*(Schema.load(release).methods for release in RELEASES))
