"""What a controller does when its connection is lost: a table, driven by values.

Why: the difference between an array that rides out a failover and one that returns errors lies in three
numbers (loss timeout, delay, fast failure) and when they are looked at; a table can be tested without waiting.
This module must never read a clock or touch a connection: ``now`` is passed in, the answer is an action.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``bdev_nvme_check_op_after_reset``, ``nvme_ctrlr_is_failed``,
``bdev_nvme_failover_trid``).

Invariants: a deleted controller never connects again, a disabled one only when it is enabled; without a reconnect
delay I/O waits for no attempt, however many are made; ``fast_failed`` and ``lost_at`` are cleared by a success.
(SPDK v26.05 never clears the former, so one long outage makes its controller fail I/O at once for ever; that is a
defect, not a rule.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

FAILED_PAUSE_S: Final = 0.1


class Phase(Enum):
    """Where a controller stands; the values are the words of ``bdev_nvme_get_controllers``."""

    ENABLED = "enabled"
    RESETTING = "resetting"
    DELAYED = "reconnect_is_delayed"
    DISABLED = "disabled"
    FAILED = "failed"
    DELETING = "deleting"


class Event(Enum):
    """What happened."""

    LOST = auto()
    CONNECTED = auto()
    CONNECT_FAILED = auto()
    DELAY_OVER = auto()
    RESET = auto()
    DISABLE = auto()
    ENABLE = auto()
    DELETE = auto()


class Action(Enum):
    """What to do about it."""

    NOTHING = auto()
    CONNECT = auto()
    DISCONNECT = auto()
    WAIT = auto()
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """Seconds.  ``ctrlr_loss_timeout_s`` -1: try for ever, 0: try for ever too, but fail all I/O meanwhile.

    ``fast_io_fail_timeout_s`` 0: I/O waits as long as the controller is tried.
    """

    ctrlr_loss_timeout_s: float = 0
    reconnect_delay_s: float = 0
    fast_io_fail_timeout_s: float = 0

    @property
    def pause_s(self) -> float:
        """Between two attempts.  Without a delay SPDK tries again whenever it polls its admin queue (10 ms)."""
        return self.reconnect_delay_s or FAILED_PAUSE_S

    def problem(self) -> str | None:
        """Why these three numbers do not go together, or None."""
        loss, delay, fast = self.ctrlr_loss_timeout_s, self.reconnect_delay_s, self.fast_io_fail_timeout_s
        if loss < 0 and loss != -1:
            return "ctrlr_loss_timeout_sec is below -1"
        if loss == 0:
            return "reconnect_delay_sec and fast_io_fail_timeout_sec need a loss timeout" if delay or fast else None
        if delay == 0:
            return "a loss timeout needs a reconnect_delay_sec"
        if fast and fast < delay:
            return "reconnect_delay_sec is above fast_io_fail_timeout_sec"
        if loss > 0 and max(delay, fast) > loss:
            return "reconnect_delay_sec or fast_io_fail_timeout_sec is above ctrlr_loss_timeout_sec"
        return None


@dataclass(frozen=True, slots=True)
class Link:
    """The state of one controller's connection.  ``lost_at`` is the time of the loss not yet mended."""

    phase: Phase = Phase.ENABLED
    lost_at: float | None = None
    fast_failed: bool = False

    def may_recover(self, policy: LossPolicy) -> bool:
        """Whether I/O should wait for this controller rather than fail."""
        if self.fast_failed or self.phase in (Phase.DELETING, Phase.FAILED, Phase.DISABLED):
            return False
        return self.phase is not Phase.RESETTING or policy.reconnect_delay_s != 0


_START: Final = {
    (Phase.ENABLED, Event.LOST),
    (Phase.ENABLED, Event.RESET),
    (Phase.FAILED, Event.RESET),
    (Phase.DELAYED, Event.RESET),
    (Phase.DELAYED, Event.DELAY_OVER),
    (Phase.FAILED, Event.DELAY_OVER),
    (Phase.DISABLED, Event.ENABLE),
}


def step(link: Link, event: Event, now: float, policy: LossPolicy) -> tuple[Link, Action]:
    """The next state and what to do; an event that means nothing in this state changes nothing."""
    if link.phase is Phase.DELETING:
        return link, Action.NOTHING
    if event is Event.DELETE:
        return replace(link, phase=Phase.DELETING), Action.DELETE
    if (link.phase, event) in _START:
        lost_at = now if link.lost_at is None else link.lost_at
        return replace(link, phase=Phase.RESETTING, lost_at=lost_at), Action.CONNECT
    if event is Event.DISABLE and link.phase in (Phase.ENABLED, Phase.DELAYED, Phase.FAILED):
        return replace(link, phase=Phase.DISABLED, lost_at=None), Action.DISCONNECT
    if link.phase is Phase.RESETTING and event is Event.CONNECTED:
        return Link(), Action.NOTHING
    if link.phase is Phase.RESETTING and event in (Event.CONNECT_FAILED, Event.LOST):
        return _attempt_failed(link, now, policy)
    return link, Action.NOTHING


def _attempt_failed(link: Link, now: float, policy: LossPolicy) -> tuple[Link, Action]:
    elapsed = now - (now if link.lost_at is None else link.lost_at)
    fast = policy.fast_io_fail_timeout_s
    link = replace(link, fast_failed=link.fast_failed or bool(fast and elapsed >= fast))
    if policy.reconnect_delay_s == 0:
        return replace(link, phase=Phase.FAILED), Action.WAIT
    if policy.ctrlr_loss_timeout_s > 0 and elapsed >= policy.ctrlr_loss_timeout_s:
        return replace(link, phase=Phase.DELETING), Action.DELETE
    return replace(link, phase=Phase.DELAYED), Action.WAIT


@dataclass(frozen=True, slots=True)
class Address:
    """One network path of a controller; several only in multipath mode ``failover``, the first one in use."""

    traddr: str
    trsvcid: str
    failed_at: float | None = None


def rotate(
    addresses: tuple[Address, ...], now: float, policy: LossPolicy, *, lost: bool
) -> tuple[tuple[Address, ...], bool]:
    """After the address in use failed: the new order, and whether the new first one is to be tried at once.

    ``lost``: a working connection broke (else an attempt failed).
    """
    failed = replace(addresses[0], failed_at=now)
    if len(addresses) == 1 or (not lost and policy.reconnect_delay_s == 0):
        return (failed, *addresses[1:]), lost
    head = addresses[1]
    rested = head.failed_at is None or now > head.failed_at + policy.reconnect_delay_s
    return (*addresses[1:], failed), lost or rested
