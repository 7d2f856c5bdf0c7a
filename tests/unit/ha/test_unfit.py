"""A node whose machine may not serve: nobody admits it, and it begins nothing."""

from __future__ import annotations

from dataclasses import replace

from ha_values import KEY, Hand

from ha.model import NO_KEY, Phase, Save, TakeOver

WHY = "HA-046: there is no watchdog"


def unfit(node: str) -> Hand:
    hand = Hand("a" if node == "a" else "b")
    hand.seen = replace(hand.seen, unfit=WHY)
    return hand


def test_it_shows_no_key_that_could_be_admitted() -> None:
    hand = unfit("b")
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], leader="a", at=(1, 1), members={"a": KEY["a"]})
    last = hand.cycle()
    assert last.actions.says.key == NO_KEY
    assert last.sentence == f"stays outside: {WHY}"
    hand.seen = replace(hand.seen, unfit="")
    assert hand.cycle().actions.says.key == KEY["b"], "with it, nothing else was in the way"


def test_it_does_not_begin_alone() -> None:
    hand = unfit("a")
    hand.cycle(10 * hand.policy.boot_ms)
    assert hand.memory.phase is Phase.OUTSIDE
    hand.seen = replace(hand.seen, unfit="")
    hand.cycle()
    assert hand.memory.phase is Phase.TAKING


def test_it_refuses_to_form_an_array_and_to_take_over() -> None:
    hand = unfit("a")
    save = Save(number=1, generation=1, expects=0, snapshot=b"", digest="", form=True)
    assert [(r.number, r.code) for r in hand.cycle(orders=(save,)).actions.replies] == [(1, "HA-046")]
    forced = hand.cycle(orders=(TakeOver(number=2, peer_is_off=True),))
    assert [(r.number, r.code, r.why) for r in forced.actions.replies] == [(2, "HA-046", WHY)]
    assert hand.memory.phase is Phase.OUTSIDE


def test_a_member_goes_on() -> None:
    hand = Hand("a").as_member()
    hand.seen = replace(hand.seen, unfit=WHY)
    last = hand.cycle()
    assert hand.memory.phase is Phase.MEMBER
    assert last.actions.serve
    assert last.actions.kill is None
