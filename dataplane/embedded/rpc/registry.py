"""The table of RPC methods, and the decoding of their parameters the way SPDK decodes them.

Why: a client that works against SPDK must work here, and one that SPDK refuses must be refused here too, with
the same number: the planner's own checks rest on that.  This module must never know a single method.

Invariants: a handler only ever sees parameters that passed its declaration; a name is registered once.
Sources: SPDK v26.05 lib/json/json_util.c (decoders), lib/rpc/rpc.c (states).
"""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Final

from dataplane.embedded.rpc.jsontext import JsonObject, Number

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
INVALID_STATE: Final = -1

DECODE_FAILED: Final = "spdk_json_decode_object failed"
"""The sentence that most SPDK methods answer when their parameters do not decode."""


class State(IntFlag):
    """When a method may be called: before or after ``framework_start_init``."""

    STARTUP = 1
    RUNTIME = 2


STARTUP: Final = State.STARTUP
RUNTIME: Final = State.RUNTIME


class RpcFault(Exception):
    """A method answers with this error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _DecodeError(Exception):
    """A parameter does not decode; the method's own error is answered, which tells no more (as SPDK)."""


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter.  ``type``: string, boolean, uint8/16/32/64, int32, uuid, object, array, enum, any.

    ``fields`` are those of an object (or of each object of an array), ``item`` the type of an array's items,
    ``values`` the words of an enum, ``max_items`` the most items of an array; ``relaxed`` lets an object have
    unknown fields.
    """

    name: str
    type: str
    required: bool = False
    fields: tuple[Param, ...] = ()
    item: str = ""
    values: tuple[str, ...] = ()
    max_items: int | None = None
    relaxed: bool = False


class Params(Mapping[str, object]):
    """The decoded parameters: only declared names, each of its declared type."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    # Any, since the declaration above the handler, not the type checker, fixes each parameter's type.
    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        return self._values[name]

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401
        """The parameter, or ``default`` when it was not given."""
        return self._values.get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """A copy, to be put over defaults."""
        return dict(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


Handler = Callable[["Engine", Params], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC method.

    ``needs_params``: a call without ``params`` does not decode, even where all of them are optional.
    ``ignores_params``: whatever is given is not looked at.
    """

    name: str
    states: State
    params: tuple[Param, ...]
    handler: Handler
    relaxed: bool
    decode_error: tuple[int, str]
    needs_params: bool
    ignores_params: bool

    def decode(self, raw: object) -> Params:
        """The parameters of a call (None when absent); raises ``RpcFault`` with the method's error."""
        if self.ignores_params or (raw is None and not self.needs_params):
            return Params({})
        try:
            if not self.params:
                raise _DecodeError
            return Params(_decode_object(raw, self.params, relaxed=self.relaxed))
        except _DecodeError:
            code, message = self.decode_error
            raise RpcFault(code, message) from None


METHODS: Final[dict[str, Method]] = {}


def method(
    name: str,
    states: State,
    *params: Param,
    relaxed: bool = False,
    decode_error: tuple[int, str] | None = None,
    needs_params: bool | None = None,
    ignores_params: bool = False,
) -> Callable[[Handler], Handler]:
    """Register the coroutine below as RPC method ``name``.

    The default ``decode_error`` is -32602 "Invalid parameters", for a method without parameters -32602
    "NAME requires no parameters".  ``needs_params`` is by default true when a parameter is required.
    """
    if decode_error is None:
        decode_error = (INVALID_PARAMS, "Invalid parameters" if params else f"{name} requires no parameters")
    if needs_params is None:
        needs_params = any(param.required for param in params)

    def register(handler: Handler) -> Handler:
        if name in METHODS:
            raise ValueError(f"RPC method {name} is registered twice")
        METHODS[name] = Method(
            name, State(states), params, handler, relaxed, decode_error, needs_params, ignores_params
        )
        return handler

    return register


def decode_some(given: Params, params: tuple[Param, ...], failed: RpcFault) -> Params:
    """Those of ``params`` that were declared as ``any``, for a part that decodes its own; raises ``failed``."""
    try:
        return Params(_decode_object(given.to_dict(), params, relaxed=True))
    except _DecodeError:
        raise failed from None


def _decode_object(raw: object, params: tuple[Param, ...], *, relaxed: bool) -> dict[str, object]:
    """Decode an object against its declaration, in its own order; without declared fields nothing is accepted."""
    if not isinstance(raw, dict):
        raise _DecodeError
    known = {param.name: param for param in params}
    twice = raw.twice if isinstance(raw, JsonObject) else set()
    if twice & known.keys():
        raise _DecodeError
    if not relaxed and (raw.keys() - known.keys() or twice):
        raise _DecodeError
    if any(param.required and param.name not in raw for param in params):
        raise _DecodeError
    return {name: _decode(value, known[name]) for name, value in raw.items() if name in known}


def _decode(raw: object, param: Param) -> object:
    if param.type == "object":
        return Params(_decode_object(raw, param.fields, relaxed=param.relaxed))
    if param.type == "array":
        return _decode_array(raw, param)
    if param.type == "enum":
        return _decode_enum(raw, param)
    return _SCALARS[param.type](raw)


def _decode_array(raw: object, param: Param) -> list[object]:
    if not isinstance(raw, list) or (param.max_items is not None and len(raw) > param.max_items):
        raise _DecodeError
    if param.fields:
        return [Params(_decode_object(item, param.fields, relaxed=param.relaxed)) for item in raw]
    if param.item == "enum":
        return [_decode_enum(item, param) for item in raw]
    return [_SCALARS[param.item](item) for item in raw]


def _decode_enum(raw: object, param: Param) -> str:
    text = _string(raw)
    if text not in param.values:
        raise _DecodeError
    return text


def _string(raw: object) -> str:
    # A NUL cannot stand in a C string, so SPDK's decoder refuses it.
    if not isinstance(raw, str) or "\0" in raw:
        raise _DecodeError
    return raw


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise _DecodeError
    return raw


def _integer(low: int, high: int) -> Callable[[object], int]:
    def decode(raw: object) -> int:
        number = raw.to_int() if isinstance(raw, Number) else raw
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise _DecodeError
        if isinstance(raw, Number) and low == 0 and raw.text.startswith("-"):
            raise _DecodeError
        return number

    return decode


def _uuid(raw: object) -> str:
    """A UUID in the one form that libuuid's uuid_parse takes, in lower case."""
    text = _string(raw)
    try:
        parsed = str(uuidlib.UUID(text))
    except ValueError:
        raise _DecodeError from None
    if parsed != text.lower():
        raise _DecodeError
    return parsed


def _any(raw: object) -> object:
    return raw


_SCALARS: Final[dict[str, Callable[[object], object]]] = {
    "string": _string,
    "boolean": _boolean,
    "uint8": _integer(0, (1 << 8) - 1),
    "uint16": _integer(0, (1 << 16) - 1),
    "uint32": _integer(0, (1 << 32) - 1),
    "uint64": _integer(0, (1 << 64) - 1),
    "int32": _integer(-(1 << 31), (1 << 31) - 1),
    "uuid": _uuid,
    "any": _any,
}
