"""The data addresses of this array on this node: which are up, and making them those that are wanted.

Why apart from ``ha.adapters.addresses``: that module waits for the kernel, and the agent's loop must not.  Here each
piece of work is a thread, one at a time, so a takeover and what follows it never work against each other.  Addresses
are looked at again every ``LOOK_MS``: a link that goes down takes IPv6 addresses along, and people take others.

This module must never decide, and moves nothing but the addresses in the agent's configuration.  When the agent ends
it leaves them as they are.  They are no means of safety: a node that was fenced and still has its address has no data
plane behind it, and answers RST as the survivor does.  But while the array is paused its data plane goes on without
an agent, and its hosts need the address.  The next agent finds what is up, and settles it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from ha.adapters.addresses import Kicked, settle, take
from ha.adapters.netlink import addresses_here
from ha.config import DataAddress
from ha.model import NodeName
from ha.says import HostConnection

LOOK_MS: Final = 1_000
AGAIN_S: Final = 0.1
"""How long after a takeover of addresses everything is said once more: frames get lost."""


class DataAddresses:
    """``tell`` gets each new thing that happened, in words."""

    def __init__(self, addresses: Sequence[DataAddress], tell: Callable[[str], None]) -> None:
        self._all = tuple(addresses)
        self._tell = tell
        self._here: frozenset[DataAddress] = frozenset()
        self._one = asyncio.Lock()
        self._due = 0
        self._tried: frozenset[NodeName] | None = None
        self._problem = ""

    @property
    def configured(self) -> bool:
        """Whether there are any."""
        return bool(self._all)

    @property
    def holds(self) -> frozenset[NodeName]:
        """The nodes of which an address is up here, as last seen."""
        return frozenset(each.node for each in self._here)

    async def look(self) -> None:
        """See what is up; to be done before the first decision."""
        if self._all:
            try:
                self._now(await asyncio.to_thread(addresses_here, self._all), "")
            except OSError as error:
                self._note("", _unseen(error))

    def settling(self, nodes: frozenset[NodeName], now: int) -> Coroutine[Any, Any, None] | None:
        """The work that makes the addresses of ``nodes`` those that are up, if there is any to begin now."""
        if not self._all or self._one.locked():
            return None
        if now < self._due and nodes == self._tried:
            return None
        self._due, self._tried = now + LOOK_MS, nodes
        return self._settle(nodes)

    async def _settle(self, nodes: frozenset[NodeName]) -> None:
        async with self._one:
            try:
                here, problems = await asyncio.to_thread(settle, self._all, nodes)
            except OSError as error:
                self._note("", _unseen(error))
                return
            self._now(here, "; ".join(str(each) for each in problems))

    async def kick(self, node: NodeName, connections: Callable[[], Sequence[HostConnection]]) -> tuple[bool, str]:
        """Take what belongs to ``node`` over and make its hosts leave it, twice; whether all of it is here now, and
        what came of it."""
        if not any(each.node == node for each in self._all):
            return True, f"there are no data addresses of node {node} to take over"
        async with self._one:
            known = await asyncio.to_thread(connections)
            kicked = await asyncio.to_thread(take, self._all, node, known)
            self._took(node, kicked)
            await asyncio.sleep(AGAIN_S)
            kicked = await asyncio.to_thread(take, self._all, node, known)
            problem = self._took(node, kicked)
        return not problem, problem or f"{', '.join(kicked.addresses)} taken over, {kicked.tickled} connections ended"

    def _took(self, node: NodeName, kicked: Kicked) -> str:
        here = self._here | {each for each in self._all if each.node == node and each.address in kicked.addresses}
        problem = "; ".join(str(each) for each in kicked.problems)
        self._now(here, problem)
        return problem

    def _now(self, here: frozenset[DataAddress], problem: str) -> None:
        came = sorted(each.address for each in here - self._here)
        went = sorted(each.address for each in self._here - here)
        self._here = here
        words = [f"{', '.join(names)} {what}" for names, what in ((came, "is up here"), (went, "is gone")) if names]
        self._note("; ".join(words), problem)

    def _note(self, what: str, problem: str) -> None:
        if what:
            self._tell(what)
        if problem and problem != self._problem:
            self._tell(problem)
        self._problem = problem


def _unseen(error: OSError) -> str:
    return f"the data addresses cannot be looked at: {error.strerror or error}"
