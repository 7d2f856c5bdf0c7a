"""What every connection does with a call: its bytes out, its outcome in.

Why its own module: the session that waits (``session``) and the connection that does not (``mux``) must refuse the
same calls and read answers alike.  This module must never do I/O.
"""

from __future__ import annotations

from typing import Any, Final

from dataplane.rpc import errors, wire
from dataplane.rpc.call import Call
from dataplane.rpc.jsontype import Json
from dataplane.rpc.schema import Schema

UNCHECKED: Final = frozenset({"spdk_get_version", "rpc_get_methods"})
"""These two say which schema to use, so they are sent without one."""


def text_of(number: int, call: Call[Any], schema: Schema | None) -> bytes:
    """The bytes of ``call``, in the words of the engine's release; raises ``SchemaError`` for what cannot be sent."""
    params = call.params
    if schema is not None:
        params = schema.translate(call.method, params)
        schema.check(call.method, params)
    try:
        text = wire.encode_request(number, call.method, params)
    except (TypeError, ValueError) as problem:
        raise errors.SchemaError(
            "RPC-013",
            f"the parameters of {call.method} cannot be written as JSON",
            method=call.method,
            remedy="use numbers, strings, booleans, lists and objects",
        ) from problem
    if len(text) > wire.MAX_REQUEST_BYTES or wire.count_values(params) > wire.MAX_REQUEST_VALUES - 8:
        raise errors.SchemaError(
            "RPC-007",
            f"{call.method} is too long to be sent: {len(text)} bytes",
            method=call.method,
            why=f"the engine takes {wire.MAX_REQUEST_BYTES} bytes and {wire.MAX_REQUEST_VALUES} values a request",
            remedy="split it into several calls",
        )
    return text


def outcome_of(call: Call[Any], reply: wire.Reply, *, address: str, node: str) -> Json:
    """The parsed value, or a coded error as a value."""
    if reply.error is not None:
        return errors.rpc_error(call.method, reply.error, call.params, address=address, node=node)
    try:
        return call.parse(reply.result)
    except errors.ReplyError as problem:
        return problem
