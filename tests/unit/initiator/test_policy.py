"""The rules of multipath, on plain values."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.embedded.initiator.policy import (
    Attempt,
    Cursor,
    Selection,
    Spread,
    Verdict,
    candidates,
    choose,
    judge,
    judge_no_path,
    retry_pause_s,
    usable,
)
from dataplane.nvme.logs import AnaState
from dataplane.nvme.status import Status


@dataclass(frozen=True)
class View:
    ana: AnaState = AnaState.OPTIMIZED
    connected: bool = True
    present: bool = True
    may_recover: bool = True
    transition_expired: bool = False
    in_flight: int = 0


GOOD = View()
SLOW = View(AnaState.NON_OPTIMIZED)
SHUT = View(AnaState.INACCESSIBLE)
GONE = View(connected=False)
ROUND = Selection(Spread.ROUND_ROBIN)


def picks(paths: list[View], selection: Selection, count: int) -> list[int | None]:
    cursor = Cursor()
    return [choose(paths, cursor, selection) for _ in range(count)]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([GOOD, GOOD], [0, 1]),
        ([SLOW, GOOD], [1]),
        ([SLOW, SLOW], [0, 1]),
        ([GONE, SLOW], [1]),
        ([SHUT, View(AnaState.PERSISTENT_LOSS), View(AnaState.CHANGE), GONE], []),
        ([View(present=False), SLOW], [1]),
        ([], []),
    ],
)
def test_only_the_best_usable_paths_are_candidates(paths: list[View], expected: list[int]) -> None:
    assert candidates(paths) == expected


def test_round_robin_takes_turns_among_equals_only() -> None:
    assert picks([GOOD, SLOW, GOOD, SHUT], ROUND, 5) == [0, 2, 0, 2, 0]
    assert picks([GOOD, GOOD], Selection(Spread.ROUND_ROBIN, min_io=2), 6) == [0, 0, 1, 1, 0, 0]


def test_queue_depth_takes_the_idlest() -> None:
    busy = [View(in_flight=3), View(in_flight=1), View(in_flight=2)]
    assert picks(busy, Selection(Spread.QUEUE_DEPTH), 1) == [1]


def test_active_passive_returns_to_the_first_path_unless_told_not_to() -> None:
    sticky = Selection(failback=False)
    for selection, expected in ((Selection(), 0), (sticky, 1)):
        cursor = Cursor()
        assert choose([GONE, GOOD], cursor, selection) == 1
        assert choose([GOOD, GOOD], cursor, selection) == expected


def test_sticky_still_leaves_a_path_that_is_no_longer_among_the_best() -> None:
    cursor = Cursor()
    assert choose([GONE, SLOW], cursor, Selection(failback=False)) == 1
    assert choose([GOOD, SLOW], cursor, Selection(failback=False)) == 0


def test_no_usable_path_gives_none_and_forgets_the_last() -> None:
    cursor = Cursor(current=1, used=4)
    assert choose([SHUT, GONE], cursor, ROUND) is None
    assert cursor == Cursor()


def attempt(code: Status, **other: object) -> Attempt:
    values = {"dnr": False, "path_usable": True, "others": True, "retries": 0, "limit": 3, **other}
    return Attempt(int(code), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (attempt(Status.ANA_INACCESSIBLE), Verdict.RESELECT),
        (attempt(Status.ANA_TRANSITION, retries=2), Verdict.RESELECT),
        (attempt(Status.ANA_INACCESSIBLE, others=False), Verdict.FAIL),
        (attempt(Status.INTERNAL_PATH_ERROR, dnr=True), Verdict.FAIL),
        (attempt(Status.ABORTED_SQ_DELETION, path_usable=False), Verdict.RESELECT),
        (attempt(Status.ABORTED_SQ_DELETION, path_usable=False, others=False), Verdict.FAIL),
        (attempt(Status.ABORTED_BY_REQUEST), Verdict.FAIL),
        (attempt(Status.COMPARE_FAILURE), Verdict.FAIL),
        (attempt(Status.ABORTED_FAILED_FUSED), Verdict.FAIL),
        (attempt(Status.RESERVATION_CONFLICT), Verdict.RETRY),
        (attempt(Status.RESERVATION_CONFLICT, retries=3), Verdict.FAIL),
        (attempt(Status.RESERVATION_CONFLICT, retries=10**6, limit=-1), Verdict.RETRY),
        (attempt(Status.RESERVATION_CONFLICT, dnr=True, limit=-1), Verdict.FAIL),
        (attempt(Status.RESERVATION_CONFLICT, path_usable=False), Verdict.RESELECT),
        (attempt(Status.UNRECOVERED_READ_ERROR, limit=0), Verdict.FAIL),
    ],
)
def test_what_a_failed_attempt_means(given: Attempt, expected: Verdict) -> None:
    assert judge(given) is expected


@pytest.mark.parametrize(
    ("paths", "retries", "limit", "expected"),
    [
        ([GONE], 0, 3, Verdict.WAIT),
        ([SHUT], 0, 3, Verdict.WAIT),
        ([View(connected=False, may_recover=False)], 0, -1, Verdict.FAIL),
        ([View(AnaState.INACCESSIBLE, transition_expired=True)], 0, -1, Verdict.FAIL),
        ([View(AnaState.INACCESSIBLE, transition_expired=True), GONE], 0, -1, Verdict.WAIT),
        ([GONE], 3, 3, Verdict.FAIL),
        ([], 0, -1, Verdict.FAIL),
    ],
)
def test_what_no_usable_path_means(paths: list[View], retries: int, limit: int, expected: Verdict) -> None:
    assert judge_no_path(paths, retries, limit) is expected


def test_pauses_grow_and_stay_bounded() -> None:
    pauses = [retry_pause_s(count) for count in range(1, 40)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= 0.1


VIEWS = st.builds(
    View,
    ana=st.sampled_from(AnaState),
    connected=st.booleans(),
    present=st.booleans(),
    in_flight=st.integers(0, 9),
)
SELECTIONS = st.builds(Selection, st.sampled_from(Spread), st.integers(1, 3), st.booleans())


@settings(deadline=None)
@given(st.lists(st.lists(VIEWS, max_size=5), min_size=1, max_size=12), SELECTIONS)
def test_whatever_changes_in_between_only_the_best_paths_are_taken(rounds: list[list[View]], how: Selection) -> None:
    cursor = Cursor()
    for paths in rounds:
        index = choose(paths, cursor, how)
        if index is None:
            assert not any(usable(path) for path in paths)
            continue
        assert usable(paths[index])
        if paths[index].ana is AnaState.NON_OPTIMIZED:
            assert not any(usable(path) and path.ana is AnaState.OPTIMIZED for path in paths)
