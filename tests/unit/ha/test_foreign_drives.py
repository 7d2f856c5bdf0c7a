"""Drives on which another array is registered: a node that is outside leaves them alone, however long it waits."""

from __future__ import annotations

from dataclasses import replace

from ha_values import QUORUM, Hand

from ha.keys import life_of, make_key, same_array
from ha.model import Drives, Phase, TakeOver


def beside(keys: frozenset[int]) -> Hand:
    """Node a outside, hearing nobody, with these keys on one quorum drive."""
    hand = Hand("a")
    reports = {drive: keys if drive == "d2" else frozenset[int]() for drive in QUORUM}
    hand.seen = replace(hand.seen, drives=Drives(registrants=reports))
    hand.cycle()
    return hand


def begins(hand: Hand) -> bool:
    """Whether it registers or fences within ten times the wait of a node that is alone."""
    works = []
    for _ in range(10 * hand.policy.boot_ms // 1_000):
        hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, answered_at=hand.now))
        hand.cycle(1_000)
        works.append(hand.work)
    return any(works)


def test_a_node_never_begins_on_drives_of_another_array() -> None:
    hand = beside(frozenset({make_key("another", "a", life_of("x"))}))
    assert not begins(hand)
    assert hand.last is not None
    assert hand.last.sentence == "stays outside (HA-002): drive d2 is registered by another array"
    assert hand.last.actions.says.key == 0, "it is nobody to be admitted"


def test_what_is_left_of_a_node_of_this_array_does_not_hold_it_up() -> None:
    assert begins(beside(frozenset({0xB7})))


def test_the_operators_word_does_not_go_over_it() -> None:
    hand = beside(frozenset({make_key("another", "a", life_of("x"))}))
    decision = hand.cycle(orders=(TakeOver(number=5, peer_is_off=True),))
    assert [(reply.number, reply.code) for reply in decision.actions.replies] == [(5, "HA-006")]
    assert hand.memory.phase is Phase.OUTSIDE
    assert hand.work is None


def test_which_keys_are_of_one_array() -> None:
    ours, theirs = (make_key(array, "a", 7) for array in ("lab", "another"))
    assert same_array(ours, make_key("lab", "b", 9))
    assert not same_array(ours, theirs)
