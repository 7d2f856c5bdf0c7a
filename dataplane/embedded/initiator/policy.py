"""Which path takes an I/O, and what a failed attempt means: the rules of multipath, as pure functions.

Why: whether a failover is silent is decided here and nowhere else.  This module must never send, wait or know a
connection; it sees paths as values and answers with an index or a verdict.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``_bdev_nvme_find_io_path``, ``bdev_nvme_check_retry_io``,
``any_io_path_may_become_available``, ``bdev_nvme_io_complete``).

Invariants: an I/O never takes a path that is inaccessible, lost, changing or disconnected; a non-optimized path
only while no optimized one is usable; a path error never counts as a retry, so it never uses up the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from dataplane.nvme.logs import AnaState
from dataplane.nvme.status import Status, StatusType

SAME_PATH_PAUSE_S: Final = 0.001
SAME_PATH_PAUSE_MAX_S: Final = 0.1
NO_PATH_WAIT_S: Final = 1.0


class PathView(Protocol):
    """What the rules see of a path; read for every I/O, so a live path satisfies it without being copied."""

    @property
    def ana(self) -> AnaState:
        """The state of the namespace's group on this controller."""

    @property
    def connected(self) -> bool:
        """Its queue can take a command now."""

    @property
    def present(self) -> bool:
        """The controller shows the namespace, and its ANA state is not being reread."""

    @property
    def may_recover(self) -> bool:
        """The controller is not given up (``reconnect.Link.may_recover``)."""

    @property
    def transition_expired(self) -> bool:
        """The state has been inaccessible or changing for longer than the controller promised (ANATT)."""

    @property
    def in_flight(self) -> int:
        """Commands outstanding on it."""


class Spread(Enum):
    """How usable paths of the same ANA state share the I/O."""

    ACTIVE_PASSIVE = auto()
    ROUND_ROBIN = auto()
    QUEUE_DEPTH = auto()


@dataclass(frozen=True, slots=True)
class Selection:
    """``min_io``: I/Os on a path before round robin moves on.  ``failback``: return to the first good path."""

    spread: Spread = Spread.ACTIVE_PASSIVE
    min_io: int = 1
    failback: bool = True


def usable(path: PathView) -> bool:
    """Whether an I/O may take the path now."""
    return path.connected and path.present and path.ana in (AnaState.OPTIMIZED, AnaState.NON_OPTIMIZED)


def may_come_back(path: PathView) -> bool:
    """Whether an I/O that finds no usable path should wait for this one."""
    return not path.transition_expired and (path.connected or path.may_recover)


def candidates(paths: Sequence[PathView]) -> list[int]:
    """The indexes of the best usable paths, in order; empty when there is none."""
    good = [index for index, path in enumerate(paths) if usable(path)]
    best = [index for index in good if paths[index].ana is AnaState.OPTIMIZED]
    return best or good


@dataclass(slots=True)
class Cursor:
    """Where the last I/O of one namespace went; the only memory that selection has."""

    current: int = -1
    used: int = 0


def choose(paths: Sequence[PathView], cursor: Cursor, selection: Selection) -> int | None:
    """The index of the path for the next I/O, or None; moves ``cursor``."""
    best = candidates(paths)
    if not best:
        cursor.current, cursor.used = -1, 0
        return None
    if selection.spread is Spread.QUEUE_DEPTH:
        chosen = min(best, key=lambda index: paths[index].in_flight)
    elif selection.spread is Spread.ROUND_ROBIN:
        chosen = _round_robin(best, cursor, selection.min_io)
    elif cursor.current in best and not selection.failback:
        chosen = cursor.current
    else:
        chosen = best[0]
    cursor.used = cursor.used + 1 if chosen == cursor.current else 1
    cursor.current = chosen
    return chosen


def _round_robin(best: list[int], cursor: Cursor, min_io: int) -> int:
    if cursor.current in best and cursor.used < min_io:
        return cursor.current
    if cursor.current in best:
        cursor.used = 0
    return next((index for index in best if index > cursor.current), best[0])


class Verdict(Enum):
    """What to do with an I/O after an attempt that did not succeed."""

    FAIL = auto()
    RESELECT = auto()
    """Choose a path again at once; not counted as a retry."""
    RETRY = auto()
    """The path is fine and refused: ask it again after a pause; counted."""
    WAIT = auto()
    """No path is usable, one may become so: wait for a change, at most ``NO_PATH_WAIT_S``; not counted."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt.  ``code`` is the status (SCT << 8 | SC); a lost connection reads as 008h.

    ``path_usable``: the path it ran on is, after the failure, still usable and its controller enabled.
    ``others``: some path may become usable.  ``retries`` were made before; ``limit`` -1 means no limit.
    """

    code: int
    dnr: bool
    path_usable: bool
    others: bool
    retries: int
    limit: int


_FINAL: Final = (Status.ABORTED_BY_REQUEST, Status.COMPARE_FAILURE, Status.ABORTED_FAILED_FUSED)
"""Answers, not failures, whether Do Not Retry is set or not.  SPDK repeats the last two as any other error."""


def judge(attempt: Attempt) -> Verdict:
    """What a failed attempt means."""
    if attempt.dnr or attempt.code in _FINAL:
        return Verdict.FAIL
    if 0 <= attempt.limit <= attempt.retries:
        return Verdict.FAIL
    if is_path_error(attempt.code) or not attempt.path_usable:
        return Verdict.RESELECT if attempt.others else Verdict.FAIL
    return Verdict.RETRY


def judge_no_path(paths: Sequence[PathView], retries: int, limit: int) -> Verdict:
    """What finding no usable path means."""
    if 0 <= limit <= retries:
        return Verdict.FAIL
    return Verdict.WAIT if any(may_come_back(path) for path in paths) else Verdict.FAIL


def is_path_error(code: int) -> bool:
    """Whether the status speaks of the path and not of the command: another path may well succeed."""
    return code >> 8 == StatusType.PATH or code == Status.ABORTED_SQ_DELETION


def is_ana_error(code: int) -> bool:
    """Whether the status says that the known ANA state is stale."""
    return code in (Status.ANA_PERSISTENT_LOSS, Status.ANA_INACCESSIBLE, Status.ANA_TRANSITION)


def retry_pause_s(retries: int) -> float:
    """Seconds before retry number ``retries`` (1 for the first) on the same path.

    SPDK retries at once from its poller; here that would spin on a drive that answers Reservation Conflict.
    """
    return min(SAME_PATH_PAUSE_MAX_S, SAME_PATH_PAUSE_S * (1 << min(retries - 1, 10)))
