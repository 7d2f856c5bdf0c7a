"""Virtual time: a heap of things to do, and the clocks of the nodes, which drift.

Why: every order of events has to come from the seed alone, so nothing here knows the machine's clock, and two things
due at the same moment happen in the order in which they were asked for.  Time is in whole microseconds; a node's own
clock shows whole milliseconds, as the product's does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

MS: Final = 1_000
SECOND: Final = 1_000_000


class Loop:
    """The scheduler.  ``now`` only goes up."""

    def __init__(self) -> None:
        self.now = 0
        self.events = 0
        self._due: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when: int, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - whatever it takes
        """Call it at ``when``; at once (in order) if that has passed."""
        self._number += 1
        heapq.heappush(self._due, (max(when, self.now), self._number, call, arguments))

    def after(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - whatever it takes
        """Call it ``delay`` microseconds from now."""
        self._number += 1
        heapq.heappush(self._due, (self.now + max(delay, 0), self._number, call, arguments))

    def run(self, until: int) -> None:
        """Everything that is due up to and at ``until``."""
        due, pop = self._due, heapq.heappop
        while due and due[0][0] <= until:
            self.now, _number, call, arguments = pop(due)
            self.events += 1
            call(*arguments)
        self.now = until


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's monotonic clock: it began ``offset_us`` before the world did and runs ``ppm`` fast."""

    offset_us: int
    ppm: int

    def ms(self, now: int) -> int:
        """What it shows at that moment."""
        return (self.offset_us + now + now * self.ppm // SECOND) // MS

    def reaches(self, shown_ms: int) -> int:
        """The moment at which it first shows ``shown_ms``, or a little later."""
        local = shown_ms * MS - self.offset_us
        return max(0, local * SECOND // (SECOND + self.ppm) + 2)

    def lasts(self, length_ms: int) -> int:
        """How many microseconds go by while it counts ``length_ms``."""
        return length_ms * MS * SECOND // (SECOND + self.ppm)
