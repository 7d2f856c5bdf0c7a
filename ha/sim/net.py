"""Networks between the two nodes: loss, delay, duplication, reordering, and cuts of one way or one path.

Why: a heartbeat that comes late, twice, out of order or only in one direction must never make two owners.  This
module must never look into a message.  Invariant: nothing arrives on a path while that way of it is cut.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from ha.model import NodeName, other
from ha.sim.loop import MS, Loop

PATHS: Final = ("p0", "p1")


class Network:
    """Both ways of every path.  ``deliver(to, path, message)`` is where messages come out."""

    def __init__(self, loop: Loop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.deliver: Callable[[NodeName, str, Any], None] = lambda _to, _path, _message: None
        self.cut: set[tuple[NodeName, str]] = set()
        self.mended_at: dict[tuple[NodeName, str], int] = {}
        """When a way that had been cut was last mended."""
        """Ways that nothing passes: (sender, path)."""
        self.loss = rng.choice((0.0, 0.001, 0.02))
        self.slow_ms = rng.choice((1, 1, 5, 30))

    def send(self, sender: NodeName, path: str, message: Any) -> None:  # noqa: ANN401 - not looked into
        """It arrives once, more than once, or never."""
        copies = 2 if self.rng.random() < 0.005 else 1
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                chance = self.rng.random()
                delay = self.rng.randrange(50, 400) if chance < 0.95 else self.rng.randrange(self.slow_ms * MS)
                self.loop.after(delay, self._arrive, sender, path, message)

    def _arrive(self, sender: NodeName, path: str, message: Any) -> None:  # noqa: ANN401
        if (sender, path) not in self.cut:
            self.deliver(other(sender), path, message)

    def heal(self) -> None:
        """Every way is open again."""
        self.mend(set(self.cut))

    def mend(self, ways: set[tuple[NodeName, str]]) -> None:
        """Let messages pass again."""
        for way in ways & self.cut:
            self.mended_at[way] = self.loop.now
        self.cut -= ways

    def silent_since(self, node: NodeName, since: int) -> bool:
        """Whether, at some time after ``since``, nothing that ``node`` said passed."""
        ways = [(node, path) for path in PATHS]
        return all(way in self.cut or self.mended_at.get(way, -1) >= since for way in ways)
