"""JSON-RPC 2.0 as SPDK speaks it, between parsed JSON and bytes.

Why: which requests are malformed, which id comes back and when nothing comes back at all are decided here, apart
from sockets, so that a table can test them.  This module must never call a method or wait.

Invariants: an answer carries the id of its request exactly as it was written; a request without an id (or with
null) is answered only when it failed; a number keeps the text it had.
Source: SPDK v26.05 lib/jsonrpc/jsonrpc_server.c.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from dataplane.embedded.rpc.jsontext import JsonObject, Number
from dataplane.embedded.rpc.registry import INVALID_REQUEST, RpcFault

RECEIVE_LIMIT_BYTES: Final = 256 * 1024
MAX_VALUES: Final = 8192
_KEYS: Final = frozenset({"jsonrpc", "method", "params", "id"})

RequestId = str | int | Number | None


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is well formed; ``params`` is None when absent or null."""

    id: RequestId
    method: str
    params: object


class BadRequestError(Exception):
    """Answered with -32600; ``id`` is the request's where it could be read."""

    def __init__(self, request_id: RequestId) -> None:
        super().__init__("Invalid request")
        self.id = request_id


def read_request(value: object) -> Request:
    """Check one request object; raises ``BadRequestError``."""
    if not isinstance(value, JsonObject) or value.keys() - _KEYS or value.twice:
        raise BadRequestError(None)
    if "jsonrpc" in value and value["jsonrpc"] != "2.0":
        raise BadRequestError(None)
    method = value.get("method")
    if not isinstance(method, str):
        raise BadRequestError(None)
    request_id = value.get("id")
    if not isinstance(request_id, str | int | Number | None) or isinstance(request_id, bool):
        raise BadRequestError(None)
    params = value.get("params")
    if params is not None and not isinstance(params, dict | list):
        raise BadRequestError(request_id)
    return Request(request_id, method, params)


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _head(request_id: RequestId) -> str:
    written = request_id.text if isinstance(request_id, Number) else _text(request_id)
    return f'{{"jsonrpc":"2.0","id":{written},'


def result(request_id: RequestId, value: object) -> str:
    """The answer of a method that succeeded; empty for a notification."""
    return "" if request_id is None else f'{_head(request_id)}"result":{_text(value)}}}'


def error(request_id: RequestId, code: int, message: str) -> str:
    """The answer of a request that failed."""
    return f'{_head(request_id)}"error":{_text({"code": code, "message": message})}}}'


def fault(request_id: RequestId, problem: RpcFault) -> str:
    """``error`` of an ``RpcFault``."""
    return error(request_id, problem.code, problem.message)


def bad_request(request_id: RequestId) -> str:
    """The answer to what is no request."""
    return error(request_id, INVALID_REQUEST, "Invalid request")
