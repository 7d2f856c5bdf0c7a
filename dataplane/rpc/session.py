"""A session with one engine: calls alone or in a pipeline, each with a deadline, each answer to its own call.

Why: SPDK's own client gives a late answer to the next call, counts its timeout in processor time, loses
characters that straddle two reads, writes into its caller's parameters and invents a method for each misspelt
attribute (spdk 26.9, spdk/rpc/client.py).  This class implements the same official interface, so SPDK's helpers
(``spdk.rpc.config``) work over it, without those faults.  It must never send a call a second time: whether a
lost call was carried out is found by observing.

Theory: one connection at a time.  Any doubt about it (deadline passed, malformed bytes, an answer to no call, an
end while nobody waited) closes it, and the next call opens another and raises ``generation``.  A caller that
built on what it saw passes ``if_generation`` and is refused when the engine may be another process since.

Threads: one lock around each call; calls of several threads wait for each other, and the wait counts against
their deadlines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from spdk.rpc.client import JSONRPCAbstractClient

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc import errors, exchange, stream, wire
from dataplane.rpc.call import Call, as_is
from dataplane.rpc.jsontype import Json
from dataplane.rpc.methods import framework
from dataplane.rpc.schema import RELEASES, Schema, known_methods
from dataplane.rpc.values import EngineVersion

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_DEADLINE_S: Final = 30.0
# How much is on its way unanswered at once: half of the engine's request buffer, and few enough answers
# that its app thread still gets to other connections.
WINDOW_BYTES: Final = 128 * 1024
WINDOW_CALLS: Final = 64
MAX_DEADLINE_S: Final = 86_400.0

# SIGKILL leaves nobody to answer.
_ENDS_THE_ENGINE: Final = "spdk_kill_instance"


class Automatic:
    """Choose the schema by the engine's own version."""


AUTOMATIC: Final = Automatic()


@dataclass(frozen=True, slots=True)
class _Turn:
    """One caller's time with the session."""

    method: str
    deadline_s: float
    until: float


@dataclass(slots=True)
class _Connection:
    stream: stream.Stream
    talk: wire.Conversation
    schema: Schema | None = None


class Session(JSONRPCAbstractClient):  # type: ignore[misc]  # the official package has no types
    """See the module.  ``address`` is the path of a UNIX socket or (numeric IP, port); ``node`` is the name that
    errors show; ``deadline_s`` applies to calls that give none; ``schema`` is chosen by the engine's version
    unless given, and ``None`` sends everything unchecked."""

    def __init__(
        self,
        address: str | os.PathLike[str] | tuple[str, int],
        *,
        node: str = "",
        deadline_s: float = DEFAULT_DEADLINE_S,
        schema: Schema | Automatic | None = AUTOMATIC,
    ) -> None:
        self._where: stream.Address = address if isinstance(address, tuple) else os.fspath(address)
        self.node = node
        self._deadline_s = deadline_s
        self._wanted_schema = schema
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._generation = 0
        self._last_number = 0

    def __repr__(self) -> str:
        state = "connected" if self._connection else "not connected"
        return f"Session({self.address!r}, node={self.node!r}, generation={self._generation}, {state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """``session.bdev_get_bdevs(name="x")``, as SPDK's helpers write it; only for methods that exist."""
        if name.startswith("_") or name not in known_methods():
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}, nor has SPDK such a method"
            )
        return lambda **params: self.call(name, params)

    @property
    def address(self) -> str:
        """The address for people."""
        return stream.show(self._where)

    @property
    def generation(self) -> int:
        """The number of connections made so far; 0 before the first."""
        return self._generation

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._drop()

    def interrupt(self) -> None:
        """End what another thread waits for: its calls end as with a lost connection.  Does not wait."""
        connection = self._connection
        if connection is not None:
            connection.stream.interrupt()

    def connect(self, deadline_s: float | None = None) -> int:
        """Connect unless connected; the generation.  Raises ``Unreachable``."""
        with self._turn("connect", deadline_s) as turn:
            self._connected(turn)
            return self._generation

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float | None = None,
        if_generation: int | None = None,
    ) -> Json:
        """Send one method, wait, return the raw result.  ``params`` is read only; entries that are ``None``
        are left out.  Raises the errors listed in ``dataplane.rpc.errors``."""
        return self.run(Call(method, dict(params or {})), deadline_s=deadline_s, if_generation=if_generation)

    def call_batch(self, batch: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The official client's name for one call after another, as ``spdk.rpc.config`` uses it."""
        return [self.call(item["method"], item.get("params")) for item in batch]

    def run(self, call: Call[T], *, deadline_s: float | None = None, if_generation: int | None = None) -> T:
        """Send one call, wait, return its parsed answer."""
        return self.run_all([call], deadline_s=deadline_s, if_generation=if_generation)[0]  # type: ignore[no-any-return]

    def run_all(
        self,
        calls: Sequence[Call[Any]],
        *,
        deadline_s: float | None = None,
        if_generation: int | None = None,
    ) -> list[Any]:
        """As ``pipeline``, but raises the first error instead of returning it."""
        outcomes = self.pipeline(calls, deadline_s, if_generation=if_generation)
        for outcome in outcomes:
            if isinstance(outcome, Ws7000Error):
                raise outcome
        return outcomes

    def pipeline(
        self,
        calls: Sequence[Call[Any]],
        deadline_s: float | None = None,
        *,
        if_generation: int | None = None,
    ) -> list[Any]:
        """Send all calls at once, wait for all answers; one outcome for each call, in the order of ``calls``:
        the parsed value, or an error *as a value* (``RpcError``, ``ReplyError``; ``Unreachable`` or
        ``DeadlineExceeded`` where no answer came).

        The engine runs the calls concurrently and may finish them in any order, so none may depend on another.
        Raises only while nothing has been sent: no connection, a call the schema refuses, another generation.
        """
        if not calls:
            return []
        with self._turn(calls[0].method, deadline_s) as turn:
            connection = self._connected(turn)
            if if_generation is not None and if_generation != self._generation:
                raise errors.GenerationChanged(
                    expected=if_generation, actual=self._generation, address=self.address, node=self.node
                )
            schema = self._schema(connection, turn, calls)
            requests = [self._request(call, schema) for call in calls]
            log.debug("%s: %s", self.node or self.address, calls)
            return self._converse(connection, turn, calls, requests)

    def version(self, deadline_s: float | None = None) -> EngineVersion:
        """What the engine says it is."""
        return self.run(framework.get_version(), deadline_s=deadline_s)

    @contextlib.contextmanager
    def _turn(self, method: str, deadline_s: float | None) -> Iterator[_Turn]:
        """Hold the lock; the clock of the deadline starts before the wait for it."""
        wanted_s = self._deadline_s if deadline_s is None else deadline_s
        if not 0 < wanted_s <= MAX_DEADLINE_S:
            raise ValueError(f"a deadline of {wanted_s} s is not between 0 and {MAX_DEADLINE_S:g} s")
        turn = _Turn(method, wanted_s, time.monotonic() + wanted_s)
        if not self._lock.acquire(timeout=wanted_s):
            raise self._too_late(turn, method)
        try:
            yield turn
        except stream.LateError as problem:
            self._drop()
            raise self._too_late(turn, method) from problem
        finally:
            self._lock.release()

    def _too_late(self, turn: _Turn, method: str) -> Ws7000Error:
        return errors.too_late(self.address, self.node, method, turn.deadline_s)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.stream.close()
            self._connection = None

    def _connected(self, turn: _Turn) -> _Connection:
        """The connection, a new one if there is none or the old one is in doubt."""
        if self._connection is not None and not _trusted(self._connection):
            log.info("%s: the connection ended, or spoke unasked; making a new one", self.node or self.address)
            self._drop()
        if self._connection is None:
            try:
                opened = stream.Stream.connect(self._where, turn.until)
            except stream.GoneError as problem:
                raise errors.cannot_connect(self.address, self.node, str(problem)) from problem
            self._connection = _Connection(opened, wire.Conversation())
            self._generation += 1
        return self._connection

    def _schema(self, connection: _Connection, turn: _Turn, calls: Sequence[Call[Any]]) -> Schema | None:
        """The schema to check ``calls`` against; asks the engine's version once in a connection's life."""
        if not isinstance(self._wanted_schema, Automatic):
            return self._wanted_schema
        if connection.schema is None and not all(call.method in exchange.UNCHECKED for call in calls):
            ask = framework.get_version()
            found = self._converse(connection, turn, [ask], [self._request(ask, None)])[0]
            if isinstance(found, errors.RpcError):  # an allow-list may leave it out
                connection.schema = Schema.load(RELEASES[0])
            elif isinstance(found, Ws7000Error):
                raise found
            elif self._connection is None:
                raise errors.malformed(self.address, self.node, "it answered more than it was asked")
            else:
                connection.schema = Schema.for_version(found.major, found.minor)
                if connection.schema is None:
                    raise errors.too_old(self.address, self.node, found.text, RELEASES[0])
        return connection.schema

    def _request(self, call: Call[Any], schema: Schema | None) -> tuple[int, bytes]:
        """The call's number and bytes, in the words of the engine's release; raises ``SchemaError`` for what cannot
        be sent."""
        self._last_number += 1
        return self._last_number, exchange.text_of(self._last_number, call, schema)

    def _converse(
        self,
        connection: _Connection,
        turn: _Turn,
        calls: Sequence[Call[Any]],
        requests: Sequence[tuple[int, bytes]],
    ) -> list[Any]:
        """Send ``requests``, collect the answers, and turn each into its call's outcome."""
        replies: dict[int, wire.Reply] = {}
        trouble: Exception | None = None
        # Only who asks for the answer as it is can see that a name was repeated; every parser reads the last value.
        repeated = any(call.parse is as_is for call in calls)
        try:
            _move(connection, requests, replies, turn.until, repeated=repeated)
        except (stream.LateError, stream.GoneError, wire.WireError) as problem:
            trouble = problem
            self._drop()
        except BaseException:
            self._drop()  # an interrupt leaves half a request or half an answer behind
            raise
        if connection.talk.in_doubt:
            self._drop()
        outcomes: list[Any] = []
        for call, (number, _) in zip(calls, requests, strict=True):
            reply = replies.get(number)
            if reply is not None:
                outcomes.append(self._outcome(call, reply))
            else:
                outcomes.append(self._unanswered(turn, call.method, trouble))
        return outcomes

    def _unanswered(self, turn: _Turn, method: str, trouble: Exception | None) -> Ws7000Error | None:
        if isinstance(trouble, stream.LateError):
            return self._too_late(turn, method)
        if isinstance(trouble, wire.WireError):
            return errors.malformed(self.address, self.node, str(trouble))
        if method == _ENDS_THE_ENGINE:
            return None
        return errors.connection_lost(self.address, self.node, method, str(trouble))

    def _outcome(self, call: Call[Any], reply: wire.Reply) -> Json:
        return exchange.outcome_of(call, reply, address=self.address, node=self.node)


def _trusted(connection: _Connection) -> bool:
    """Whether an idle connection is still good.  White space is no doubt: the line feed that ends a long answer
    may come after the answer was complete."""
    try:
        connection.talk.feed(connection.stream.unasked())
    except (stream.GoneError, wire.WireError):
        return False
    return not connection.talk.in_doubt


def _move(
    connection: _Connection,
    requests: Sequence[tuple[int, bytes]],
    replies: dict[int, wire.Reply],
    until: float,
    *,
    repeated: bool,
) -> None:
    """Send all ``requests`` within the window and fill ``replies`` until every one is answered."""
    sizes = {number: len(text) for number, text in requests}
    waiting: set[int] = set()
    under_way = 0  # bytes of what waits
    out = memoryview(b"")
    begun = 0
    while len(replies) < len(requests):
        batch = bytearray()
        while begun < len(requests):
            number, text = requests[begun]
            full = len(waiting) >= WINDOW_CALLS or under_way + len(text) > WINDOW_BYTES
            if waiting and full:
                break
            connection.talk.sent(number)
            waiting.add(number)
            under_way += sizes[number]
            batch += text
            begun += 1
        if batch:
            out = memoryview(bytes(out) + bytes(batch))
        taken, came = connection.stream.exchange(out, until)
        out = out[taken:]
        for reply in connection.talk.feed(came, repeated=repeated):
            replies[reply.number] = reply
            waiting.remove(reply.number)
            under_way -= sizes[reply.number]
