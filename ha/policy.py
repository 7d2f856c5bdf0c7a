"""The timings of the HA manager, and the arithmetic that they must satisfy.

Why one place: each time below is safe or useful only in relation to others, so a set is checked as a whole when it is
loaded, and one that breaks a rule is refused with the numbers shown (HA-001).  This module must never read a clock.

All times are whole milliseconds.  Safety rests on the drives' reservations alone; what these times buy is that
connections drop before the fence falls (I8), and that a takeover comes neither too late (L1) nor without need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controlplane.domain.errors import Refused

KILL_TO_SILENCE_MS: Final = 30
"""The longest time between SIGKILL of a data plane and the last byte that it sent; measured by ``ws7000 ha bench``."""
ANATT_MS: Final = 10_000
"""SPDK reports ANATT 10 s, and its hosts fail I/O when nobody has been optimized for that long (bdev_nvme.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One set of timings.  See ``RULES`` for how they hang together."""

    name: str
    heartbeat_ms: int
    """Between two heartbeats on each network path."""
    slot_ms: int
    """Between two writes of the own heartbeat slot on the quorum drives, and between two reads of the peer's."""
    tick_ms: int
    """Between two decisions when nothing happens."""
    lease_ms: int
    """How long a sign of life lets a node serve."""
    drift_ppm: int
    """How far the two clocks may run apart."""
    guard_ms: int
    """How long before the end of its lease a node stops by itself."""
    epsilon_ms: int
    """What the peer waits beyond the lease, for the jitter of scheduling."""
    engine_ms: int
    """How long a data plane may leave questions unanswered before it counts as hung."""
    drive_ms: int
    """Deadline of one command to one drive while fencing."""
    drive_dead_ms: int
    """How long a drive may be silent on both nodes before it is given up."""
    journal_ms: int
    """Deadline of reading or writing the journal."""
    load_ms: int
    """Deadline of making the sets what the record says, and of a raise."""
    yield_ms: int
    """By how much the node that owns less starts later when both are alone with the drives."""
    drain_ms: int
    """How long a planned move may wait for I/O to end."""
    boot_ms: int
    """How long a starting node waits for a peer that it does not hear."""
    retry_ms: int
    """Between two attempts of a takeover that could not be completed."""
    hold_ms: int
    """How long a node has to be a calm member before its groups come home by themselves, or its evictions are
    forgotten."""
    quarantine_ms: int
    """How long a node stays out after its second eviction; doubled with each further one."""
    failback: bool
    """Whether groups come home by themselves after ``hold_ms``."""

    @property
    def lease_lasts_ms(self) -> int:
        """How long after a sign of life a node may serve, by its own clock."""
        return self.lease_ms - self._drift(self.lease_ms) - self.guard_ms

    @property
    def takeover_wait_ms(self) -> int:
        """How long after the last sign of life the peer acts, by its own clock."""
        return self.lease_ms + self._drift(self.lease_ms) + self.epsilon_ms

    def quarantine_for_ms(self, evictions: int) -> int:
        """How long a node that was evicted so often stays out; the first time it need not wait."""
        return 0 if evictions < 2 else int(self.quarantine_ms * 2 ** min(evictions - 2, 6))

    def _drift(self, length_ms: int) -> int:
        return -(-length_ms * self.drift_ppm // 1_000_000)

    def checked(self) -> Policy:
        """Itself; raises ``Refused`` HA-001 naming every rule that is broken, with its numbers."""
        broken = [f"{rule.why}: {rule.text(self)}" for rule in RULES if not rule.holds(self)]
        if broken:
            raise Refused(
                "HA-001",
                f"the policy {self.name!r} cannot be safe",
                why="; ".join(broken),
                remedy="use fast or slow, or change the times so that every rule holds",
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``left <= right`` must hold."""

    why: str
    shown: str
    left: Callable[[Policy], int]
    right: Callable[[Policy], int]

    def holds(self, policy: Policy) -> bool:
        """Whether the policy keeps it."""
        return self.left(policy) <= self.right(policy)

    def text(self, policy: Policy) -> str:
        """The rule with the policy's numbers."""
        return f"{self.shown} is {self.left(policy)} <= {self.right(policy)}"


RULES: Final = (
    Rule(
        why="two lost heartbeats must not cost the lease",
        shown="3 heartbeats + epsilon <= lease - drift - guard",
        left=lambda p: 3 * p.heartbeat_ms + p.epsilon_ms,
        right=lambda p: p.lease_lasts_ms,
    ),
    Rule(
        why="a lost slot write must not cost the lease",
        shown="2 slots + epsilon <= lease - drift - guard",
        left=lambda p: 2 * p.slot_ms + p.epsilon_ms,
        right=lambda p: p.lease_lasts_ms,
    ),
    Rule(
        why="a data plane must be silent before the peer fences it",
        shown="kill to last byte + tick <= (takeover wait) - (lease - drift - guard)",
        left=lambda p: KILL_TO_SILENCE_MS + p.tick_ms,
        right=lambda p: p.takeover_wait_ms - p.lease_lasts_ms,
    ),
    Rule(
        why="decisions must be finer than what they decide on",
        shown="tick <= epsilon",
        left=lambda p: p.tick_ms,
        right=lambda p: p.epsilon_ms,
    ),
    Rule(
        why="a data plane that is busy for as long as a lease is not hung",
        shown="lease <= engine",
        left=lambda p: p.lease_ms,
        right=lambda p: p.engine_ms,
    ),
    Rule(
        why="the other node starts its race first",
        shown="half a drive deadline <= yield",
        left=lambda p: p.drive_ms // 2,
        right=lambda p: p.yield_ms,
    ),
    Rule(
        why="hosts give up when nobody has served for ANATT",
        shown="takeover wait + yield + 7 drive deadlines + 2 journal deadlines + load <= ANATT",
        left=lambda p: p.takeover_wait_ms + p.yield_ms + 7 * p.drive_ms + 2 * p.journal_ms + p.load_ms,
        right=lambda _: ANATT_MS,
    ),
    Rule(
        why="a drive that is only slow must not be given up",
        shown="10 drive deadlines <= drive dead",
        left=lambda p: 10 * p.drive_ms,
        right=lambda p: p.drive_dead_ms,
    ),
    Rule(
        why="a starting node must be able to hear its peer",
        shown="takeover wait + 5 heartbeats <= boot",
        left=lambda p: p.takeover_wait_ms + 5 * p.heartbeat_ms,
        right=lambda p: p.boot_ms,
    ),
)

FAST: Final = Policy(
    name="fast",
    heartbeat_ms=50,
    slot_ms=100,
    tick_ms=10,
    lease_ms=300,
    drift_ppm=1000,
    guard_ms=40,
    epsilon_ms=20,
    engine_ms=350,
    drive_ms=200,
    drive_dead_ms=5_000,
    journal_ms=500,
    load_ms=3_000,
    yield_ms=150,
    drain_ms=2_000,
    boot_ms=10_000,
    retry_ms=1_000,
    hold_ms=600_000,
    quarantine_ms=60_000,
    failback=False,
).checked()

SLOW: Final = Policy(
    name="slow",
    heartbeat_ms=200,
    slot_ms=400,
    tick_ms=20,
    lease_ms=3_000,
    drift_ppm=1000,
    guard_ms=150,
    epsilon_ms=100,
    engine_ms=3_000,
    drive_ms=400,
    drive_dead_ms=20_000,
    journal_ms=600,
    load_ms=2_500,
    yield_ms=250,
    drain_ms=5_000,
    boot_ms=10_000,
    retry_ms=1_000,
    hold_ms=600_000,
    quarantine_ms=60_000,
    failback=False,
).checked()

POLICIES: Final = {policy.name: policy for policy in (FAST, SLOW)}
