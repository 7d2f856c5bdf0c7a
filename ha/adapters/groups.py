"""Which ANA groups the data plane serves: from wanted states to calls, and back to what is true.

Why: ``decide`` says what is to be served; listeners have to be raised and lowered, one connection after the other,
in an order that the engine keeps.  This module must never raise a group that is not wanted at the moment at which
the call is sent, and never report more than was answered over the connection that it was made for.

What the order of calls rests on (SPDK, lib/nvmf/subsystem.c): each of these calls pauses its subsystem, the pauses
of one subsystem wait in a queue, and a pause that finds the subsystem already paused ends at once.  Two listener calls
may therefore be on their way together, but a drain behind any other call would wait for no I/O.  So a drain (the
namespace is put into the group that it is in, which pauses that namespace) is sent only when nothing of this subsystem
is unanswered, and no call is given up while its connection lives: it may still be carried out, before or after what
was sent meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc.call import Call
from dataplane.rpc.errors import RpcError
from dataplane.rpc.methods import nvmf
from dataplane.rpc.values import ListenAddress
from ha.model import GroupId, GroupMap, ListenerAt, NodeName

T = TypeVar("T")

FOR_EVER_MS: Final = 24 * 3600 * 1000
RETRY_S: Final = 0.2
OPTIMIZED: Final = "optimized"
INACCESSIBLE: Final = "inaccessible"


class Channel(Protocol):
    """A connection to the data plane that has many calls on their way at once (``dataplane.rpc.mux``)."""

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        """Send the call before anything else happens, and return its answer."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``decide`` wants; see ``ha.model.Actions``."""

    serve: frozenset[GroupId] = frozenset()
    drain: frozenset[GroupId] = frozenset()
    groups: tuple[tuple[GroupId, GroupMap], ...] = ()


class Groups:
    """The groups over one connection.  Nothing is known at its beginning."""

    def __init__(self, channel: Channel, node: NodeName, news: Callable[[], None]) -> None:
        self._channel = channel
        self._node = node
        self._news = news
        self._wanted = Wanted()
        self._states: dict[tuple[GroupId, ListenerAt], str] = {}
        self._ended: dict[GroupId, set[int]] = {}
        """Per lowered group: the namespaces whose I/O has ended since."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake: dict[str, asyncio.Event] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.problems: dict[str, str] = {}
        """Per NQN: why it is not yet as wanted."""

    # -- what is wanted

    def want(self, wanted: Wanted) -> None:
        """Make it so from now on."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        for nqn in {each.nqn for _, each in wanted.groups}:
            if nqn not in self._tasks:
                self._wake[nqn] = asyncio.Event()
                self._tasks[nqn] = asyncio.create_task(self._converge(nqn))
        for event in self._wake.values():
            event.set()

    def forget(self) -> None:
        """The listeners may have been made again: they are set again."""
        self._states.clear()
        for event in self._wake.values():
            event.set()

    async def close(self) -> None:
        """Stop sending."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # -- what is true

    @property
    def raised(self) -> frozenset[GroupId]:
        """Groups whose listeners were all last set optimized; one that has none here is raised by being wanted."""
        return frozenset(group for group, each in self._wanted.groups if self._is_raised(group, each))

    def _is_raised(self, group: GroupId, each: GroupMap) -> bool:
        here = each.listeners.get(self._node, ())
        if not here:
            return group in self._wanted.serve
        return all(self._states.get((group, at)) == OPTIMIZED for at in here)

    @property
    def drained(self) -> frozenset[GroupId]:
        """Groups that are lowered and whose I/O has ended since."""
        return frozenset(
            group
            for group, each in self._wanted.groups
            if group not in self._wanted.serve and self._lowered(group, each)
            if group in self._ended and self._ended[group] >= {space.nsid for space in each.namespaces}
        )

    def _lowered(self, group: GroupId, each: GroupMap) -> bool:
        return all(self._states.get((group, at)) == INACCESSIBLE for at in each.listeners.get(self._node, ()))

    # -- one subsystem

    def lock(self, nqn: str) -> asyncio.Lock:
        """Held while any call of the subsystem is unanswered."""
        return self._locks.setdefault(nqn, asyncio.Lock())

    async def _converge(self, nqn: str) -> None:
        wake = self._wake[nqn]
        while True:
            wake.clear()
            async with self.lock(nqn):
                # Between this look at what is wanted and the sending of the calls nothing else runs.
                calls = self._listener_calls(nqn)
                drain = None if calls else self._next_drain(nqn)
                good = await self._set_listeners(nqn, calls) if calls else True
                if drain is not None:
                    good = await self._drain(nqn, *drain)
            if not good:
                await _either(wake, RETRY_S)
                continue
            self.problems.pop(nqn, None)
            if calls or drain is not None:
                self._news()
            else:
                await wake.wait()

    def _groups_of(self, nqn: str) -> Iterable[tuple[GroupId, GroupMap]]:
        return [(group, each) for group, each in self._wanted.groups if each.nqn == nqn]

    def _listener_calls(self, nqn: str) -> list[tuple[GroupId, ListenerAt, str]]:
        """What has to be set: first what must stop, then what may begin."""
        found: list[tuple[GroupId, ListenerAt, str]] = []
        for group, each in self._groups_of(nqn):
            state = OPTIMIZED if group in self._wanted.serve else INACCESSIBLE
            here = each.listeners.get(self._node, ())
            found += [(group, at, state) for at in here if self._states.get((group, at)) != state]
        return sorted(found, key=lambda one: one[2] == OPTIMIZED)

    async def _set_listeners(self, nqn: str, calls: list[tuple[GroupId, ListenerAt, str]]) -> bool:
        for group, at, state in calls:
            self._states.pop((group, at), None)
            if state == OPTIMIZED:
                self._ended.pop(group, None)
        outcomes = await asyncio.gather(*(self._set(nqn, *call) for call in calls))
        failed = [(call, problem) for call, problem in zip(calls, outcomes, strict=True) if problem is not None]
        if not failed:
            return True
        seen = await self._look(nqn)
        good = True
        for (group, at, state), problem in failed:
            # What is not there serves nothing, and is born inaccessible when it is made.
            if state == INACCESSIBLE and seen is not None and address(at) not in seen.listeners:
                self._states[(group, at)] = INACCESSIBLE
            else:
                self.problems[nqn] = str(problem)
                good = False
        return good

    async def _set(self, nqn: str, group: GroupId, at: ListenerAt, state: str) -> Ws7000Error | None:
        if state == OPTIMIZED and group not in self._wanted.serve:
            return None  # dropped since; what it is lowered by comes next
        try:
            await self._channel.run(nvmf.set_ana_state(nqn, address(at), state, ana_group=group.number), FOR_EVER_MS)
        except Ws7000Error as problem:
            return problem
        self._states[(group, at)] = state
        return None

    def _next_drain(self, nqn: str) -> tuple[GroupId, int] | None:
        for group, each in self._groups_of(nqn):
            if group in self._wanted.serve or group not in self._wanted.drain or not self._lowered(group, each):
                continue
            ended = self._ended.setdefault(group, set())
            for space in each.namespaces:
                if space.nsid not in ended:
                    return group, space.nsid
        return None

    async def _drain(self, nqn: str, group: GroupId, nsid: int) -> bool:
        """Wait until the I/O of one namespace has ended."""
        try:
            await self._channel.run(nvmf.set_ns_ana_group(nqn, nsid, group.number), FOR_EVER_MS)
        except Ws7000Error as problem:
            seen = await self._look(nqn)
            if seen is None or nsid in seen.nsids:
                self.problems[nqn] = str(problem)
                return False
        self._ended.setdefault(group, set()).add(nsid)
        return True

    async def _look(self, nqn: str) -> Present | None:
        """What is there of the subsystem; None where that is not known."""
        return await look(self._channel, nqn)


@dataclass(frozen=True, slots=True)
class Present:
    """What a data plane has of a subsystem."""

    listeners: frozenset[ListenAddress] = frozenset()
    nsids: frozenset[int] = frozenset()


async def look(channel: Channel, nqn: str) -> Present | None:
    """What is there of the subsystem, or None where that is not known; asking for it pauses nothing."""
    try:
        found = await channel.run(nvmf.get_subsystem(nqn), FOR_EVER_MS)
    except Ws7000Error as problem:
        return Present() if isinstance(problem, RpcError) and problem.no_such_device else None
    return Present(frozenset(found.listen_addresses), frozenset(space.nsid for space in found.namespaces))


def address(at: ListenerAt) -> ListenAddress:
    """As the methods take it."""
    return ListenAddress.of(at.transport, at.address, at.service)


async def all_of(channel: Channel, calls: Iterable[Call[Any]], deadline_ms: int) -> list[Any]:
    """The answers to calls that are sent at once, in their order; coded errors are values."""

    async def one(call: Call[T]) -> T | Ws7000Error:
        try:
            return await channel.run(call, deadline_ms)
        except Ws7000Error as problem:
            return problem

    return list(await asyncio.gather(*(one(call) for call in calls)))


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
