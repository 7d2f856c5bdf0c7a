"""The control socket of an agent: what is said over it, and the caller's end; the other end is ``ha.desk``.

Why: commands on this machine ask the agent for its status and give it orders.  One JSON object a line each way:
``{"method": ..., "params": {...}}`` is answered by ``{"result": ...}`` or ``{"error": {"code": ..., "what": ...}}``,
in the order of the requests of a connection.  The socket is for its owner alone (0600).

It must never decide: an order is carried out, or refused, by ``ha.decide``.  A request that is not understood changes
nothing.  Every call has a deadline.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.domain import errors
from controlplane.domain.errors import Conflict, DeadlineExceeded, NotFound, Refused, Unreachable, UsageError
from dataplane.rpc.stream import GoneError, LateError, Stream
from ha.model import NODES, GroupId, Move, NodeName, Order, Pause, Repaired, Save, TakeOver

MAX_LINE_BYTES: Final = 1 << 20
"""A snapshot area in base64, and room."""
DEADLINE_S: Final = 10.0
HISTORY_LINES: Final = 200
MAX_HISTORY_LINES: Final = 10_000
MAX_NUMBER: Final = (1 << 63) - 1
TOO_LONG: Final = b"\0"
"""Stands for a request beyond the limit."""

Json = Any


# ------------------------------------------------------------------ what is said


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was sent."""

    method: str
    params: Mapping[str, Json]

    @classmethod
    def of(cls, line: bytes) -> Request:
        """Raises ``UsageError`` HA-032."""
        if line is TOO_LONG:
            raise _not_understood(f"it is longer than {MAX_LINE_BYTES} bytes")
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise _not_understood("it is no JSON") from problem
        if not isinstance(body, dict) or not isinstance(body.get("method"), str):
            raise _not_understood("it is no object with a method")
        params = body.get("params", {})
        if not isinstance(params, dict):
            raise _not_understood("params is no object")
        if body["method"] not in METHODS:
            raise _not_understood(f"there is no method {body['method'][:40]!r}")
        unknown = sorted(set(params) - set(METHODS[body["method"]]))
        if unknown:
            raise _not_understood(f"{body['method']} has no parameter {unknown[0][:40]!r}")
        return cls(body["method"], params)

    def text(self, name: str) -> str:
        """A string that must be there."""
        value = self.params.get(name)
        if not isinstance(value, str) or not value:
            raise _not_understood(f"{self.method} needs {name}, a string")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number, 0 or more."""
        value = self.params.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NUMBER:
            raise _not_understood(f"{self.method} needs {name}, a whole number")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false when it is left out."""
        value = self.params.get(name, False)
        if not isinstance(value, bool):
            raise _not_understood(f"{name} of {self.method} is neither true nor false")
        return value

    def node(self, name: str) -> NodeName:
        """The name of a node."""
        value = self.text(name)
        for node in NODES:
            if value == node:
                return node
        raise _not_understood(f"{name} of {self.method} names no node")


METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "status": (),
    "history": ("limit",),
    "switchover": ("to", "subsystem"),
    "failback": (),
    "pause": (),
    "resume": (),
    "save": ("expects", "generation", "snapshot_b64", "form"),
    "load": (),
    "takeover": ("peer_is_off",),
    "repaired": ("drive",),
    "built": ("generation",),
    "rejoin_wait": (),
    "learn": ("snapshot_b64",),
}
"""The methods with their parameters."""


def _not_understood(why: str) -> UsageError:
    return UsageError(
        "HA-032",
        "the agent does not understand the request",
        why=why,
        remedy="use a command of the same version as the agent; nothing was changed",
    )


def no_state(problem: ValueError) -> UsageError:
    """HA-032, for a snapshot that holds something else."""
    return _not_understood(f"the snapshot is no state of an array: {problem}")


def orders_of(request: Request, groups: frozenset[GroupId] | None) -> tuple[Callable[[int], Order], ...]:
    """The orders that a request stands for, to be given one after the other; each gets its number when its turn comes.
    ``groups`` are those of the array, None while it is not known."""
    match request.method:
        case "switchover":
            to, subsystem = request.node("to"), request.text("subsystem") if "subsystem" in request.params else None
            chosen = _groups_of(groups, subsystem)
            return (lambda number: Move(number=number, groups=chosen, to=to),)
        case "failback":
            homes = {node: frozenset(g for g in _groups_of(groups, None) if g.home == node) for node in NODES}
            return tuple(_move(part, node) for node, part in homes.items() if part)
        case "pause" | "resume":
            paused = request.method == "pause"
            return (lambda number: Pause(number=number, paused=paused),)
        case "save":
            return (_save(request),)
        case "takeover":
            peer_is_off = request.flag("peer_is_off")
            return (lambda number: TakeOver(number=number, peer_is_off=peer_is_off),)
        case "repaired":
            drive = request.text("drive")
            return (lambda number: Repaired(number=number, drive=drive),)
    return ()


def _move(groups: frozenset[GroupId], to: NodeName) -> Callable[[int], Order]:
    return lambda number: Move(number=number, groups=groups, to=to)


def _groups_of(groups: frozenset[GroupId] | None, subsystem: str | None) -> frozenset[GroupId]:
    if groups is None:
        raise unknown_array()
    chosen = frozenset(group for group in groups if subsystem in (None, group.subsystem))
    if subsystem is not None and not chosen:
        raise NotFound(
            "HA-033",
            f"the array has no subsystem {subsystem[:80]!r} that hosts can use",
            why=f"it has {', '.join(sorted({group.subsystem for group in groups})) or 'none'}",
            remedy="name one of these, or none to move all of them",
        )
    return chosen


def snapshot_of(request: Request) -> bytes:
    """The snapshot that it brings."""
    try:
        return base64.b64decode(request.text("snapshot_b64"), validate=True)
    except (binascii.Error, ValueError) as problem:
        raise _not_understood("snapshot_b64 is not base64") from problem


def _save(request: Request) -> Callable[[int], Order]:
    expects, generation, form = request.number("expects"), request.number("generation"), request.flag("form")
    snapshot = snapshot_of(request)
    digest = hashlib.sha256(snapshot).hexdigest()
    return lambda number: Save(
        number=number, generation=generation, expects=expects, snapshot=snapshot, digest=digest, form=form
    )


def unknown_array() -> Refused:
    """HA-034, for what needs the array's map."""
    return Refused(
        "HA-034",
        "the agent does not know the array yet",
        why="it has not read the journal since it was started, or no array has been formed",
        remedy="see ws7000 ha status; form the array, or start the data plane and wait until it has read the drives",
    )


def late(what: str, within_s: float, path: str) -> DeadlineExceeded:
    """HA-031."""
    return DeadlineExceeded(
        "HA-031",
        f"the HA agent did not finish {what} within {within_s:g} s",
        why="it may be stopped, or what was asked takes longer; an order goes on without its caller",
        remedy="see ws7000 ha status before you ask again",
        where=path,
    )


# ------------------------------------------------------------------ the caller's end


class Control:
    """Talks to the agent at ``path``; each call has a deadline by the monotonic clock.

    Raises HA-030 where no agent listens, HA-031 when it does not answer in time (an order may still be carried out),
    HA-036 when its answer is not understood, and what the agent answered otherwise."""

    def __init__(self, path: str | os.PathLike[str], deadline_s: float = DEADLINE_S) -> None:
        self._path = os.fspath(path)
        self._deadline_s = deadline_s

    def status(self, deadline_s: float | None = None) -> dict[str, Json]:
        """How the node stands; the keys are those of ``ha.status``."""
        return self._object(self._call("status", deadline_s))

    def history(self, limit: int = HISTORY_LINES, deadline_s: float | None = None) -> list[dict[str, Json]]:
        """The newest events, oldest first."""
        found = self._call("history", deadline_s, limit=limit)
        if not isinstance(found, list):
            raise self._strange("it is no list")
        return found

    def switchover(self, to: NodeName, subsystem: str | None = None, deadline_s: float | None = None) -> None:
        """Move the groups of one subsystem, or of all, to node ``to``."""
        self._call(
            "switchover", deadline_s, **({"to": to} if subsystem is None else {"to": to, "subsystem": subsystem})
        )

    def failback(self, deadline_s: float | None = None) -> None:
        """Move every group to its home."""
        self._call("failback", deadline_s)

    def pause(self, *, paused: bool = True, deadline_s: float | None = None) -> None:
        """Hands off, or on again."""
        self._call("pause" if paused else "resume", deadline_s)

    def save(
        self, generation: int, expects: int, snapshot: bytes, *, form: bool = False, deadline_s: float | None = None
    ) -> None:
        """Keep a state that follows generation ``expects``; ``form`` allows the first one."""
        encoded = base64.b64encode(snapshot).decode()
        self._call("save", deadline_s, expects=expects, generation=generation, snapshot_b64=encoded, form=form)

    def load(self, deadline_s: float | None = None) -> tuple[int, bytes] | None:
        """The newest state with its generation; None where no array was formed."""
        found = self._call("load", deadline_s)
        if found is None:
            return None
        try:
            return int(found["generation"]), base64.b64decode(found["snapshot_b64"], validate=True)
        except (KeyError, TypeError, ValueError) as problem:
            raise self._strange("it is no state") from problem

    def take_over(self, *, peer_is_off: bool = False, deadline_s: float | None = None) -> None:
        """Take everything over now."""
        self._call("takeover", deadline_s, peer_is_off=peer_is_off)

    def learn(self, snapshot: bytes, deadline_s: float | None = None) -> None:
        """Tell an agent that has never read the journal what the array is."""
        self._call("learn", deadline_s, snapshot_b64=base64.b64encode(snapshot).decode())

    def repaired(self, drive: str, deadline_s: float | None = None) -> None:
        """The drive may be fenced and used again."""
        self._call("repaired", deadline_s, drive=drive)

    def built(self, generation: int, deadline_s: float | None = None) -> None:
        """The data plane has the objects of that generation."""
        self._call("built", deadline_s, generation=generation)

    def rejoin_wait(self, deadline_s: float | None = None) -> None:
        """Return when the node is a member."""
        self._call("rejoin_wait", deadline_s)

    def _call(self, method: str, deadline_s: float | None, **params: Json) -> Json:
        within_s = self._deadline_s if deadline_s is None else deadline_s
        until = time.monotonic() + within_s
        out = json.dumps({"method": method, "params": params}).encode() + b"\n"
        if len(out) > MAX_LINE_BYTES:
            raise _not_understood(f"{method} is {len(out)} bytes long, and {MAX_LINE_BYTES} are the limit")
        try:
            line = _exchange(self._path, out, until)
        except GoneError as problem:
            raise Unreachable(
                "HA-030",
                f"no HA agent answers at {self._path}",
                why=str(problem),
                remedy="start it: ws7000 ha agent; or name the right array",
                where=self._path,
            ) from problem
        except LateError as problem:
            raise late(method, within_s, self._path) from problem
        return self._result(line)

    def _result(self, line: bytes) -> Json:
        try:
            body = json.loads(line)
        except ValueError as problem:
            raise self._strange("it is no JSON") from problem
        if isinstance(body, dict) and "result" in body:
            return body["result"]
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict) or not isinstance(error.get("code"), str):
            raise self._strange("it is neither a result nor an error")
        kind = _KINDS.get(str(error.get("kind")), errors.Ws7000Error)
        what, why, remedy = (str(error.get(name, "")) for name in ("what", "why", "remedy"))
        raise kind(error["code"], what, why=why, remedy=remedy)

    def _object(self, found: Json) -> dict[str, Json]:
        if not isinstance(found, dict):
            raise self._strange("it is no object")
        return found

    def _strange(self, why: str) -> errors.Ws7000Error:
        return errors.Ws7000Error(
            "HA-036",
            f"the answer from {self._path} is not understood",
            why=why,
            remedy="use a command of the same version as the agent",
            where=self._path,
        )


_KINDS: Final[Mapping[str, type[errors.Ws7000Error]]] = {
    kind.__name__: kind for kind in (UsageError, NotFound, Conflict, Refused, Unreachable, DeadlineExceeded)
}


def _exchange(path: str, out: bytes, until: float) -> bytes:
    """Send one line, and wait for one; raises ``GoneError`` or ``LateError``."""
    stream = Stream.connect(path, until)
    try:
        left, came = memoryview(out), bytearray()
        while b"\n" not in came:
            taken, part = stream.exchange(left, until)
            left = left[taken:]
            came += part
        return bytes(came.split(b"\n", 1)[0])
    finally:
        stream.close()
