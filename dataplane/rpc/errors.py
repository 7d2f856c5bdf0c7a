"""What can go wrong between a caller and an engine, one type for each thing a caller may want to do about it.

Why: SPDK's own client raises one exception with a text, and programs end up searching numbers in that text.
This module must never show a secret: messages of an engine pass through ``redact.scrub``.

    Unreachable      RPC-001, RPC-002   no connection / lost before the answer: outcome unknown, read before writing
    DeadlineExceeded RPC-003            no answer in time: the engine may still carry the call out
    RpcError         RPC-004, 008, 009  the engine answered, with an error
    EngineError      RPC-005            what came is not JSON-RPC
    GenerationChanged RPC-006           another connection than the one the caller built on
    SchemaError      RPC-007, 010-014   not sent: this engine would not understand the call
    ReplyError       RPC-015            the answer has another shape than this version of the method has
    UnitsError       RPC-016            the quantity cannot be said in the engine's unit
    EngineError      RPC-017            the engine is older than every release that we know
    TooManyCalls     HA-020             not sent: the engine leaves too many calls unanswered
"""

from __future__ import annotations

import errno
from typing import Final

from spdk.rpc.client import JSONRPCException

from controlplane.domain.errors import Conflict, DeadlineExceeded, EngineError, Unreachable
from dataplane.rpc.jsontype import Json
from dataplane.rpc.redact import scrub

WRONG_STATE: Final = -1
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603

_JSON_RPC_NAMES: Final = {
    PARSE_ERROR: "parse error",
    INVALID_REQUEST: "invalid request",
    METHOD_NOT_FOUND: "method not found",
    INVALID_PARAMS: "invalid parameters",
    INTERNAL_ERROR: "internal error",
}


class RpcError(EngineError, JSONRPCException):  # type: ignore[misc]  # the official package has no types
    """The engine answered a call with an error.

    ``number`` is what it sent: a negative errno (``errno_name`` is then its name), one of the JSON-RPC numbers,
    or -1 for a method that cannot be called in the engine's present state.  ``message`` is the engine's own
    text without secrets.  SPDK's nvmf methods answer -32602 or -32603 for "not found" and for "exists" alike
    (lib/nvmf/nvmf_rpc.c), so a caller learns which by reading, never from the number.
    """

    def __init__(self, *, method: str, number: int, message: str, address: str, node: str = "") -> None:
        self.method = method
        self.number = number
        self.message = message
        self.address = address
        self.node = node
        self.errno_name = "" if number == WRONG_STATE else errno.errorcode.get(-number, "")
        kind = self.errno_name or _JSON_RPC_NAMES.get(number, "")
        shown = f"{number} {kind}".strip()
        code, why, remedy = _page(number)
        EngineError.__init__(
            self,
            code,
            f"{method} failed on {node or address}: {message} ({shown})",
            why=why,
            remedy=remedy,
            where=node or address,
            details={"method": method, "number": number, "errno": self.errno_name, "address": address},
        )
        self.message = message  # the official base class sets it to the whole sentence

    def __str__(self) -> str:
        return f"{self.code}: {self.what}"

    @property
    def no_such_device(self) -> bool:
        """ENODEV: of the bdev methods the one number that says "not there"."""
        return self.number == -errno.ENODEV

    @property
    def exists(self) -> bool:
        """EEXIST; see the class for the methods that do not say so."""
        return self.number == -errno.EEXIST


def _page(number: int) -> tuple[str, str, str]:
    if number == WRONG_STATE:
        return (
            "RPC-008",
            "the method belongs to another phase of the engine's life",
            "start-up options need a fresh engine; other methods wait for framework_start_init",
        )
    if number == METHOD_NOT_FOUND:
        return "RPC-009", "this engine has no such method", "check the engine's version and its allowed methods"
    return "RPC-004", "the engine refused or could not do it", "read the engine's message and its log"


def rpc_error(method: str, error: Json, params: Json, *, address: str, node: str) -> RpcError:
    """The typed error for the ``error`` object of a reply; a malformed one keeps what can be read of it."""
    number, text = INTERNAL_ERROR, ""
    if isinstance(error, dict):
        said = error.get("code")
        number = said if isinstance(said, int) else INTERNAL_ERROR
        text = str(error.get("message", ""))
    message = scrub(text or "no message", params)
    return RpcError(method=method, number=number, message=message, address=address, node=node)


class GenerationChanged(Conflict):
    """The caller built on ``expected``, the session now speaks over connection ``actual``: the engine may be
    a new process that knows nothing of what was seen before.  Nothing was sent."""

    def __init__(self, *, expected: int, actual: int, address: str, node: str = "") -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(
            "RPC-006",
            f"the connection to {node or address} is number {actual}, the caller built on {expected}",
            why="the engine was restarted or the connection was lost meanwhile",
            remedy="observe again, then decide again",
            where=node or address,
            details={"expected": expected, "actual": actual},
        )


class SchemaError(EngineError):
    """The call was not sent, because this version of the engine would refuse or, worse, ignore a part of it.
    ``path`` says which part: ``namespace.nguid``, ``base_bdevs[3]``; empty for the call as a whole."""

    def __init__(self, code: str, what: str, *, method: str, path: str = "", why: str = "", remedy: str = "") -> None:
        self.method = method
        self.path = path
        super().__init__(code, what, why=why, remedy=remedy, where=method, details={"method": method, "path": path})


class ReplyError(EngineError):
    """An answer whose shape is not the one this method has; ``path`` says where."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        super().__init__(
            "RPC-015",
            f"the engine's answer is not understood: {path} {problem}",
            why="the engine is of a version whose answers differ",
            remedy="compare the engine's version with those that are supported",
            where=path,
        )


class TooManyCalls(EngineError):
    """The engine leaves as many calls unanswered as may be on their way to it.  Nothing was sent."""

    def __init__(self, method: str, limit: int, *, address: str, node: str = "") -> None:
        super().__init__(
            "HA-020",
            f"{method} was not sent to {node or address}: {limit} calls are unanswered there",
            why="drives that do not answer hold the calls to them, or the engine does not answer at all",
            remedy="look at the state of its drives, then at its log",
            where=node or address,
            details={"method": method, "limit": limit, "address": address},
        )


class UnitsError(EngineError):
    """A quantity that the engine's unit cannot express exactly; it is refused, never rounded."""

    def __init__(self, name: str, value: int, unit: str) -> None:
        super().__init__(
            "RPC-016",
            f"{name} = {value} is not a whole number of {unit}",
            why=f"the engine takes this quantity in {unit} only",
            remedy=f"use a multiple of {unit}",
            details={"name": name, "value": value, "unit": unit},
        )


def cannot_connect(address: str, node: str, reason: str) -> Unreachable:
    """RPC-001."""
    return Unreachable(
        "RPC-001",
        f"no connection to the engine of {node or address}: {reason}",
        why=f"nothing accepts connections at {address}",
        remedy="start the engine, or correct its address",
        where=node or address,
        details={"address": address},
    )


def connection_lost(address: str, node: str, method: str, reason: str) -> Unreachable:
    """RPC-002: nobody knows whether the engine carried the call out."""
    return Unreachable(
        "RPC-002",
        f"the connection to {node or address} ended before {method} was answered: {reason}",
        why="the engine stopped, was restarted, or refused the request as malformed",
        remedy="observe again: the call may or may not have been carried out",
        where=node or address,
        details={"address": address, "method": method},
    )


def too_late(address: str, node: str, method: str, deadline_s: float) -> DeadlineExceeded:
    """RPC-003."""
    return DeadlineExceeded(
        "RPC-003",
        f"{node or address} did not answer {method} within {deadline_s:g} s",
        why="the engine is busy, stopped, or has no free connection",
        remedy="observe again: the engine may still carry the call out",
        where=node or address,
        details={"address": address, "method": method, "deadline_s": deadline_s},
    )


def malformed(address: str, node: str, reason: str) -> EngineError:
    """RPC-005."""
    return EngineError(
        "RPC-005",
        f"{node or address} sent something that is not JSON-RPC: {reason}",
        why="what listens there is no engine, or it broke in the middle of an answer",
        remedy="check the address and the engine's log",
        where=node or address,
        details={"address": address},
    )


def too_old(address: str, node: str, version: str, oldest: str) -> EngineError:
    """RPC-017."""
    return EngineError(
        "RPC-017",
        f"the engine of {node or address} is too old: {version}",
        why=f"what its methods take is known from SPDK {oldest} on, and nothing is sent unchecked",
        remedy=f"run SPDK {oldest} or newer there",
        where=node or address,
        details={"address": address, "version": version, "oldest": oldest},
    )
