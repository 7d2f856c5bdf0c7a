"""The reconnect table, with the time passed in."""

from __future__ import annotations

import pytest

from dataplane.embedded.initiator.reconnect import (
    Action,
    Address,
    Event,
    Link,
    LossPolicy,
    Phase,
    rotate,
    step,
)

PATIENT = LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=1)
BOUNDED = LossPolicy(ctrlr_loss_timeout_s=5, reconnect_delay_s=1, fast_io_fail_timeout_s=2)
NEVER = LossPolicy()


def run(policy: LossPolicy, *events: tuple[Event, float]) -> tuple[Link, list[Action]]:
    link, actions = Link(), []
    for event, now in events:
        link, action = step(link, event, now, policy)
        actions.append(action)
    return link, actions


def test_a_loss_is_followed_by_an_attempt_at_once_then_by_delays() -> None:
    link, actions = run(
        PATIENT,
        (Event.LOST, 10),
        (Event.CONNECT_FAILED, 11),
        (Event.DELAY_OVER, 12),
        (Event.CONNECT_FAILED, 9999),
        (Event.DELAY_OVER, 10000),
        (Event.CONNECTED, 10001),
    )
    assert actions == [Action.CONNECT, Action.WAIT, Action.CONNECT, Action.WAIT, Action.CONNECT, Action.NOTHING]
    assert link == Link(Phase.ENABLED)


def test_without_a_delay_a_controller_has_failed_between_two_attempts() -> None:
    link, actions = run(NEVER, (Event.LOST, 0), (Event.CONNECT_FAILED, 1), (Event.LOST, 2))
    assert (link.phase, actions) == (Phase.FAILED, [Action.CONNECT, Action.WAIT, Action.NOTHING])
    assert not link.may_recover(NEVER)
    assert NEVER.pause_s > 0
    trying, action = step(link, Event.DELAY_OVER, 3, NEVER)
    assert (trying.phase, action, trying.may_recover(NEVER)) == (Phase.RESETTING, Action.CONNECT, False)
    link, action = step(link, Event.RESET, 3, NEVER)
    assert (link.phase, action) == (Phase.RESETTING, Action.CONNECT)


def test_the_loss_timeout_counts_from_the_loss_and_deletes() -> None:
    link, actions = run(
        BOUNDED, (Event.LOST, 0), (Event.CONNECT_FAILED, 4.9), (Event.DELAY_OVER, 5), (Event.CONNECT_FAILED, 5)
    )
    assert (link.phase, actions[-1]) == (Phase.DELETING, Action.DELETE)


@pytest.mark.parametrize("event", list(Event))
def test_a_deleted_controller_does_nothing_any_more(event: Event) -> None:
    link = Link(Phase.DELETING)
    assert step(link, event, 1, PATIENT) == (link, Action.NOTHING)


def test_delete_is_heard_in_every_phase() -> None:
    for phase in set(Phase) - {Phase.DELETING}:
        assert step(Link(phase), Event.DELETE, 0, PATIENT) == (Link(Phase.DELETING), Action.DELETE)


def test_fast_failure_is_noticed_when_an_attempt_fails_and_mended_by_a_success() -> None:
    link, _ = run(BOUNDED, (Event.LOST, 0), (Event.CONNECT_FAILED, 1))
    assert link.may_recover(BOUNDED)
    link, _ = step(link, Event.DELAY_OVER, 2, BOUNDED)
    link, _ = step(link, Event.CONNECT_FAILED, 2, BOUNDED)
    assert link.fast_failed
    assert not link.may_recover(BOUNDED)
    link, _ = step(link, Event.DELAY_OVER, 3, BOUNDED)
    link, _ = step(link, Event.CONNECTED, 3, BOUNDED)
    assert link.may_recover(BOUNDED)


@pytest.mark.parametrize(
    ("phase", "policy", "expected"),
    [
        (Phase.ENABLED, NEVER, True),
        (Phase.RESETTING, NEVER, False),
        (Phase.RESETTING, PATIENT, True),
        (Phase.DELAYED, PATIENT, True),
        (Phase.FAILED, PATIENT, False),
        (Phase.DELETING, PATIENT, False),
    ],
)
def test_whether_io_waits(phase: Phase, policy: LossPolicy, expected: bool) -> None:
    assert Link(phase).may_recover(policy) is expected


@pytest.mark.parametrize(
    ("numbers", "fits"),
    [
        ((0, 0, 0), True), ((0, 1, 0), False), ((0, 0, 1), False), ((-1, 0, 0), False), ((-1, 1, 0), True),
        ((-1, 2, 1), False), ((-2, 1, 0), False), ((5, 6, 0), False), ((5, 1, 6), False), ((5, 2, 1), False),
        ((5, 1, 3), True), ((5, 5, 5), True),
    ],
)  # fmt: skip
def test_which_numbers_go_together(numbers: tuple[int, int, int], fits: bool) -> None:
    assert (LossPolicy(*numbers).problem() is None) is fits


A, B = Address("10.0.0.1", "4420"), Address("10.0.0.2", "4420")


def test_a_lost_address_gives_way_to_the_next_at_once() -> None:
    order, now_too = rotate((A, B), 7, PATIENT, lost=True)
    assert ([each.traddr for each in order], now_too) == (["10.0.0.2", "10.0.0.1"], True)
    assert order[1].failed_at == 7


def test_a_failed_attempt_tries_the_next_address_unless_that_failed_just_now() -> None:
    fresh, now_too = rotate((A, B), 7, PATIENT, lost=False)
    assert now_too
    _, again = rotate(fresh, 7.5, PATIENT, lost=False)
    assert not again
    _, rested = rotate(fresh, 8.5, PATIENT, lost=False)
    assert rested


def test_a_single_address_waits_and_without_a_delay_nothing_rotates() -> None:
    assert rotate((A,), 1, PATIENT, lost=False)[1] is False
    order, now_too = rotate((A, B), 1, NEVER, lost=False)
    assert (order[0].traddr, now_too) == ("10.0.0.1", False)


def test_a_disabled_controller_waits_to_be_enabled() -> None:
    link, actions = run(PATIENT, (Event.LOST, 0), (Event.CONNECT_FAILED, 1), (Event.DISABLE, 2))
    assert (link, actions[-1]) == (Link(Phase.DISABLED), Action.DISCONNECT)
    assert not link.may_recover(PATIENT)
    for event in (Event.LOST, Event.DELAY_OVER, Event.RESET, Event.DISABLE, Event.CONNECTED):
        assert step(link, event, 3, PATIENT) == (link, Action.NOTHING)
    assert step(link, Event.ENABLE, 7, PATIENT) == (Link(Phase.RESETTING, lost_at=7), Action.CONNECT)


def test_only_a_disabled_controller_is_enabled() -> None:
    for phase in set(Phase) - {Phase.DISABLED}:
        assert step(Link(phase), Event.ENABLE, 0, PATIENT) == (Link(phase), Action.NOTHING)
