"""From one discovery controller to all that it leads to.

Why: a referral names another discovery controller, and they may name each other, so following them needs a limit
and a memory.  This module must never connect by itself (``ask`` does), and never raise because of a referral:
where it could not or would not go is said beside what was found.

Invariants: an address is asked at most once; no more than ``depth`` referrals lead from the first address to any
other; the first address has to answer.  Source: NVMe base 2.0c section 5.16.1.23.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dataplane.embedded.initiator.connection import TransportLost, explain
from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.logs import DiscoveryEntry, SubsystemType, TransportType
from dataplane.nvme.status import NvmeError

REFERRALS_MAX = 8
At = tuple[str, int]
Ask = Callable[[str, int], Awaitable[list[DiscoveryEntry]]]


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A referral that was not followed to its end, and why."""

    referral: DiscoveryEntry
    reason: str


@dataclass(frozen=True, slots=True)
class Discovered:
    """``entries``: subsystems, each path once, in the order in which they were found; ``asked``: where."""

    entries: tuple[DiscoveryEntry, ...]
    asked: tuple[At, ...]
    not_asked: tuple[NotAsked, ...]


async def follow(ask: Ask, address: str, port: int, depth: int = REFERRALS_MAX) -> Discovered:
    """Ask ``address``, then whomever it names; raises only what ``ask`` raises for the first."""
    found: dict[tuple[str, str, str, int], DiscoveryEntry] = {}
    asked: dict[At, None] = {}
    not_asked: list[NotAsked] = []
    referrals: deque[tuple[DiscoveryEntry, tuple[At, ...]]] = deque()
    asked[address, port] = None
    _sort(await ask(address, port), found, referrals, ((address, port),))
    while referrals:
        referral, way = referrals.popleft()
        there = (referral.traddr, int(referral.trsvcid) if referral.trsvcid.isdigit() else 0)
        reason = _reason(referral, there, way, asked, depth)
        if not reason:
            asked[there] = None
            try:
                _sort(await ask(*there), found, referrals, (*way, there))
            except (TransportLost, NvmeError) as error:
                reason = explain(error)
        if reason:
            not_asked.append(NotAsked(referral, reason))
    return Discovered(tuple(found.values()), tuple(asked), tuple(not_asked))


def _sort(
    entries: list[DiscoveryEntry],
    found: dict[tuple[str, str, str, int], DiscoveryEntry],
    referrals: deque[tuple[DiscoveryEntry, tuple[At, ...]]],
    way: tuple[At, ...],
) -> None:
    """Subsystems to ``found``, referrals to ``referrals``; what a discovery controller says of itself is passed."""
    for entry in entries:
        if entry.subtype == SubsystemType.REFERRAL:
            referrals.append((entry, way))
        elif entry.subnqn != DISCOVERY_NQN:
            found.setdefault((entry.subnqn, entry.traddr, entry.trsvcid, entry.trtype), entry)


def _reason(referral: DiscoveryEntry, there: At, way: tuple[At, ...], asked: dict[At, None], depth: int) -> str:
    """Why not to ask ``there``; empty when there is nothing against it."""
    if referral.trtype != TransportType.TCP:
        return "another transport"
    if not 0 < there[1] < 65536:
        return f"{referral.trsvcid!r} is no TCP port"
    if there in way:
        return "it leads back to where it came from"
    if there in asked:
        return "asked already"
    return f"more than {depth} referrals deep" if len(way) > depth else ""
