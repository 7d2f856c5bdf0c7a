"""Were these reads and writes of blocks possible, had each happened at one moment between its call and its return?

Why: that is what a host may expect of a volume, whatever failed over meanwhile (I3, I5).  Every write carries a tag
that no other write has, so the search is not needed: all operations of one tag form a zone, and a history is
linearizable if and only if the zones do not contradict each other (P. Gibbons, E. Korach, "Testing shared memories",
SIAM Journal on Computing 26(4), 1997).  A write that was never answered may happen at any time after its call; if
nobody read it, it need not have happened.

It judges histories of the simulator and of real runs alike; ``write_jsonl`` and ``read_jsonl`` carry them.  This
module must never know what a block, a host or a node is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TextIO

NOTHING: Final = 0
"""The tag of a block that nobody has written."""
_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One operation: ``called`` and ``returned`` on one clock, in whole units of it; ``returned`` is None while nobody
    was told how it ended.  A read carries the tag that it returned."""

    block: str
    write: bool
    tag: int
    called: int
    returned: int | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """Why no order explains what was seen in ``block``."""

    block: str
    why: str
    accesses: tuple[Access, ...]

    def __str__(self) -> str:
        lines = [f"block {self.block}: {self.why}"]
        lines += [f"  {_text(access)}" for access in self.accesses]
        return "\n".join(lines)


def _text(access: Access) -> str:
    what = "write" if access.write else "read"
    end = "never" if access.returned is None else str(access.returned)
    return f"{access.by or 'somebody'}: {what} of {access.tag}, called {access.called}, returned {end}"


@dataclass(slots=True)
class _Zone:
    """The accesses of one tag: ``low`` is the first return, ``high`` the last call among them.  A backward zone goes
    from ``high`` to ``low``: the value may have been there for a moment alone, somewhere in it."""

    accesses: list[Access]
    low: float
    high: float

    @property
    def forward(self) -> bool:
        """The value must have been there all the time from ``low`` to ``high``."""
        return self.low < self.high


def check(history: Iterable[Access]) -> Violation | None:
    """The first block, by name, whose accesses no order explains; None if there is none."""
    blocks: dict[str, list[Access]] = {}
    for access in history:
        blocks.setdefault(access.block, []).append(access)
    for name in sorted(blocks):
        found = _block(name, blocks[name])
        if found is not None:
            return found
    return None


def _block(name: str, accesses: list[Access]) -> Violation | None:
    reads: dict[int, list[Access]] = {}
    writes: dict[int, Access] = {}
    for access in accesses:
        if not access.write:
            if access.returned is not None:
                reads.setdefault(access.tag, []).append(access)
        elif access.tag in writes or access.tag == NOTHING:
            raise ValueError(f"block {name}: tag {access.tag} is not the tag of one write alone")
        else:
            writes[access.tag] = access
    begun = min((access.called for access in accesses), default=0) - 1
    writes[NOTHING] = Access(block=name, write=True, tag=NOTHING, called=begun - 1, returned=begun, by="the beginning")
    zones: list[_Zone] = []
    for tag, write in writes.items():
        readers = reads.pop(tag, [])
        if write.returned is None and not readers:
            continue
        early = [read for read in readers if read.returned is not None and read.returned < write.called]
        if early:
            return Violation(name, "read before it was written", (write, early[0]))
        zones.append(_zone([write, *readers]))
    if reads:
        stray = next(iter(reads.values()))
        return Violation(name, "read although nobody wrote it", (stray[0],))
    return _conflict(name, zones)


def _zone(accesses: list[Access]) -> _Zone:
    low = min(_EVER if access.returned is None else access.returned for access in accesses)
    return _Zone(accesses, low, max(access.called for access in accesses))


def _conflict(name: str, zones: list[_Zone]) -> Violation | None:
    """Two forward zones must not overlap, and no backward zone may lie inside a forward one."""
    forward = sorted((zone for zone in zones if zone.forward), key=lambda zone: zone.low)
    for before, after in pairwise(forward):
        if after.low < before.high:
            return Violation(name, "two values at one time", _witnesses(before) + _witnesses(after))
    backward = sorted((zone for zone in zones if not zone.forward), key=lambda zone: zone.high)
    position = 0
    for inner in backward:
        while position < len(forward) and forward[position].high < inner.high:
            position += 1
        if position < len(forward):
            outer = forward[position]
            if outer.low < inner.high and inner.low < outer.high:
                return Violation(name, "another value was there all the time", _witnesses(outer) + _witnesses(inner))
    return None


def _witnesses(zone: _Zone) -> tuple[Access, ...]:
    """The accesses that make the zone what it is."""
    first = min(zone.accesses, key=lambda access: _EVER if access.returned is None else access.returned)
    last = max(zone.accesses, key=lambda access: access.called)
    return (first,) if first is last else (first, last)


def write_jsonl(history: Iterable[Access], stream: TextIO) -> None:
    """One line an access."""
    for access in history:
        body = {name: getattr(access, name) for name in Access.__slots__}
        stream.write(json.dumps(body, separators=(",", ":")) + "\n")


def read_jsonl(stream: Iterable[str]) -> Iterator[Access]:
    """What ``write_jsonl`` wrote; ``TypeError`` or ``ValueError`` for anything else."""
    for line in stream:
        if line.strip():
            body: dict[str, Any] = json.loads(line)
            yield Access(**body)
