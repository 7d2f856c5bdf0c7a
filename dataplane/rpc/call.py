"""A call as a value: what to send and how to read the answer.

Why: the same call must be usable alone or among many in a pipeline, and a plan must be able to show it without
sending it.  This module must never do I/O.

Invariants: the parameters are copied when the call is made, so nobody can change it later; parameters that are
``None`` are left out, as SPDK's own client does; ``repr`` shows no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dataplane.rpc.jsontype import Json
from dataplane.rpc.redact import redact

T_co = TypeVar("T_co", covariant=True)


def as_is(reply: Json) -> Json:
    """The reply as the engine sent it."""
    return reply


def without_none(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """A deep copy of ``params`` without the entries (at any depth of objects) whose value is ``None``."""
    if not params:
        return {}
    return {key: _copied(value) for key, value in params.items() if value is not None}


_PLAIN = frozenset({str, int, bool, float, type(None)})


def _copied(value: Json) -> Json:
    if type(value) in _PLAIN:  # nearly all of them, and what cannot change needs no copy
        return value
    if isinstance(value, Mapping):
        return without_none(value)
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return deepcopy(value)


@dataclass(frozen=True, slots=True, repr=False)
class Call(Generic[T_co]):
    """One request: ``method``, its ``params`` in SPDK's own units, and ``parse``, which turns the reply into a
    value or raises ``ReplyError``.  Two calls are equal when they would send the same."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    parse: Callable[[Any], T_co] = field(default=as_is, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", without_none(self.params))

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in redact(self.params).items())
        return f"{self.method}({shown})"
