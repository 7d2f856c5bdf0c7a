"""From a parsed message to its answer: state check, decoding, the method, the error it ends with.

Why: the socket, the start-up configuration and the tests call methods the same way.  This module must never let
an exception of a method out: one bad call must not end the engine.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.rpc import wire
from dataplane.embedded.rpc.registry import (
    INTERNAL_ERROR,
    INVALID_STATE,
    METHOD_NOT_FOUND,
    METHODS,
    STARTUP,
    RpcFault,
)
from dataplane.nvme.status import NvmeError

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

log = logging.getLogger(__name__)

TOO_EARLY: Final = "Method may only be called after framework is initialized using framework_start_init RPC."
TOO_LATE: Final = (
    "Method may only be called before framework is initialized. Use --wait-for-rpc command line parameter and "
    "then issue this RPC before the framework_start_init RPC."
)


async def call(engine: Engine, name: str, params: object) -> object:
    """Call a method by name; its result, or ``RpcFault``."""
    found = METHODS.get(name)
    if found is None:
        raise RpcFault(METHOD_NOT_FOUND, "Method not found")
    if not found.states & engine.state:
        raise RpcFault(INVALID_STATE, TOO_EARLY if engine.state == STARTUP else TOO_LATE)
    decoded = found.decode(params)
    try:
        return await found.handler(engine, decoded)
    except BdevError as problem:
        raise RpcFault(-problem.errno, str(problem)) from problem
    except NvmeError as problem:
        raise RpcFault(-errno.EIO, os.strerror(errno.EIO)) from problem


async def answer_one(engine: Engine, value: object) -> str:
    """The answer to one request of a message; empty when none is to be sent."""
    try:
        request = wire.read_request(value)
    except wire.BadRequestError as problem:
        return wire.bad_request(problem.id)
    try:
        return wire.result(request.id, await call(engine, request.method, request.params))
    except RpcFault as problem:
        return wire.fault(request.id, problem)
    except Exception:  # the boundary of a method: its defect answers one request and ends no engine
        log.exception("method %s failed unexpectedly", request.method)
        return wire.error(request.id, INTERNAL_ERROR, "Internal error")


class Answers:
    """Where the answers to one message come together, in the order in which its requests end (as in SPDK)."""

    def __init__(self, requests: int, *, batch: bool) -> None:
        self._left = requests
        self._batch = batch
        self._texts: list[str] = []

    def add(self, text: str) -> str:
        """The whole answer, without its line end, once the last request ended; empty when there is none to send."""
        self._left -= 1
        if text:
            self._texts.append(text)
        if self._left or not self._texts:
            return ""
        return f"[{','.join(self._texts)}]" if self._batch else self._texts[0]


def unpack(value: object) -> tuple[list[object], Answers]:
    """The requests of one message, a batch or not, and what gathers their answers.

    The requests of a batch are begun one by one like any others, so that what comes after it cannot overtake it.
    """
    batch = isinstance(value, list) and bool(value)
    items = list(value) if isinstance(value, list) and value else [value]
    return items, Answers(len(items), batch=batch)
