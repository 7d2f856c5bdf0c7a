"""A member: its lease, its peer, planned moves, admission, drives that die."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ha_values import DRIVES, G1, G2, KEY, Hand, record, service_map

from ha.model import (
    Answer,
    DetachDrives,
    EngineState,
    Fence,
    Move,
    Pause,
    Phase,
    ReadJournal,
    Rebuild,
    Record,
    Register,
    Repaired,
    Save,
    TakeOver,
    WriteRecord,
)

MEMBERS = {"a": KEY["a"], "b": KEY["b"]}


def leader() -> Hand:
    return Hand("a").as_member()


def follower() -> Hand:
    return Hand("b").as_member()


# ------------------------------------------------------------------ lease


def test_the_lease_runs_from_the_newest_sign_that_counts() -> None:
    hand = leader()
    hand.seen = replace(hand.seen, peer=replace(hand.seen.peer, acked_at=hand.now - 200))
    decision = hand.cycle()
    assert decision.actions.lease_until == 1_000 + hand.policy.lease_lasts_ms, "its slot counts"


def test_a_hung_data_plane_is_not_kept_by_its_agents_heartbeats() -> None:
    hand = leader()
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, answered_at=hand.now - 300))
    decision = hand.cycle()
    assert decision.actions.lease_until == 700 + hand.policy.engine_ms


def test_without_any_sign_the_data_plane_is_ended_in_time() -> None:
    hand = leader()
    hand.cycle(hand.policy.lease_lasts_ms)
    assert hand.last is not None
    assert hand.last.actions.kill is None
    decision = hand.cycle(1)
    assert decision.actions.kill is not None
    assert decision.actions.serve == frozenset()
    assert decision.sentence.startswith("ends its data plane: the lease has ended")


def test_a_conflict_ends_it_at_once() -> None:
    hand = leader()
    hand.seen = replace(hand.seen, drives=replace(hand.seen.drives, conflicts=frozenset({"d3"})))
    assert hand.cycle().actions.kill is not None


def test_a_conflict_on_a_drive_that_was_given_up_says_nothing() -> None:
    hand = Hand("a").as_member(failed=frozenset({"d5"}), stale=frozenset({"d6"}))
    hand.seen = replace(hand.seen, drives=replace(hand.seen.drives, conflicts=frozenset({"d5", "d6"})))
    assert hand.cycle().actions.kill is None


def test_a_newer_epoch_without_this_node_ends_it() -> None:
    hand = follower()
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], at=(4, 8), leader="a", members={"a": KEY["a"]})
    assert hand.cycle().actions.kill is not None


def test_a_newer_record_with_this_node_is_only_read() -> None:
    hand = follower()
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], at=(3, 8), leader="a", members=MEMBERS)
    decision = hand.cycle()
    assert decision.actions.kill is None
    assert isinstance(hand.work, ReadJournal)


def test_hands_off_means_no_lease_and_no_takeover() -> None:
    hand = Hand("a").as_member(paused=True)
    decision = hand.cycle(60_000)
    assert decision.actions.lease_until is None
    assert decision.actions.kill is None
    assert hand.memory.phase is Phase.MEMBER
    assert "hands are off" in decision.sentence


# ------------------------------------------------------------------ the peer


def test_silence_on_both_ways_is_waited_out_by_the_later_one() -> None:
    hand = leader()
    wait = hand.policy.takeover_wait_ms
    for _ in range(10):
        hand.cycle()
    hand.seen = replace(hand.seen, slots=replace(hand.seen.slots, peer_at=hand.now))
    for _ in range(wait // 10):
        hand.seen = replace(hand.seen, slots=replace(hand.seen.slots, own_at=hand.now, read_at=hand.now))
        hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, answered_at=hand.now))
        hand.cycle()
        assert hand.memory.phase is Phase.MEMBER, "the slot was seen 100 ms after the last heartbeat"
    hand.seen = replace(hand.seen, slots=replace(hand.seen.slots, own_at=hand.now, read_at=hand.now))
    hand.cycle()
    assert hand.memory.phase is Phase.TAKING


def test_a_lost_network_alone_is_no_reason() -> None:
    hand = leader()
    for _ in range(500):
        slots = replace(hand.seen.slots, own_at=hand.now, read_at=hand.now, peer_at=hand.now)
        hand.seen = replace(hand.seen, slots=slots, engine=replace(hand.seen.engine, answered_at=hand.now))
        decision = hand.cycle()
        assert decision.actions.kill is None
        assert decision.actions.serve == {G1}
    assert hand.memory.phase is Phase.MEMBER
    assert "silent on the network" in decision.sentence


def test_who_cannot_read_the_slots_concludes_nothing() -> None:
    hand = leader()
    for _ in range(100):
        hand.seen = replace(hand.seen, peer=replace(hand.seen.peer, acked_at=hand.now))
        hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, answered_at=hand.now))
        hand.cycle()
    assert hand.memory.phase is Phase.MEMBER


def test_the_agent_of_a_dead_data_plane_is_heard_but_is_no_sign_of_life() -> None:
    hand = leader()
    for _ in range(60):
        hand.alive()
        hand.hears(phase=Phase.ABSENT, at=(3, 7))
        hand.seen = replace(hand.seen, slots=replace(hand.seen.slots, peer_at=1_000))
        hand.cycle()
    assert hand.memory.phase is Phase.TAKING


def test_the_node_that_owns_less_starts_later() -> None:
    def silent_until(node: str) -> int:
        hand = Hand("a" if node == "a" else "b").as_member()
        while hand.memory.phase is Phase.MEMBER:
            slots = replace(hand.seen.slots, own_at=hand.now, read_at=hand.now)
            hand.seen = replace(hand.seen, slots=slots, engine=replace(hand.seen.engine, answered_at=hand.now))
            hand.cycle()
        return hand.now

    assert silent_until("b") - silent_until("a") >= Hand("a").policy.yield_ms


@pytest.mark.parametrize("says", [{"phase": Phase.OUTSIDE, "key": 0xA2}, {"phase": Phase.ABSENT, "ended": KEY["a"]}])
def test_another_incarnation_or_a_death_notice_needs_no_waiting(says: dict[str, object]) -> None:
    hand = follower()
    hand.hears(**says)
    hand.cycle()
    assert isinstance(hand.work, Fence)


def test_a_member_that_alone_reaches_no_quorum_drive_ends_its_data_plane_by_itself() -> None:
    """Its lease is renewed by its peer, so to be fenced would have hosts meet a conflict."""
    hand = leader()
    wait = hand.policy.takeover_wait_ms + 20
    hand.now += wait
    unread = replace(hand.seen.slots, own_at=hand.now - wait, read_at=hand.now - wait)
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a")
    hand.seen = replace(hand.seen, slots=unread, engine=replace(hand.seen.engine, answered_at=hand.now))
    decision = hand.cycle()
    assert decision.actions.kill is not None
    assert "its peer does" in decision.actions.kill.why


def test_nobody_ends_its_data_plane_because_both_are_without_drives() -> None:
    hand = leader()
    wait = hand.policy.takeover_wait_ms + 20
    hand.now += wait
    unread = replace(hand.seen.slots, own_at=hand.now - wait, read_at=hand.now - wait)
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", blind=True)
    hand.seen = replace(hand.seen, slots=unread, engine=replace(hand.seen.engine, answered_at=hand.now))
    decision = hand.cycle()
    assert decision.actions.kill is None
    assert hand.memory.phase is Phase.MEMBER


def test_a_peer_without_drives_is_not_fenced_while_it_lives() -> None:
    hand = leader()
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", blind=True)
    hand.cycle()
    assert hand.memory.phase is Phase.MEMBER
    hand.hears(phase=Phase.ABSENT, ended=KEY["b"])
    hand.cycle()
    assert hand.memory.phase is Phase.TAKING


# ------------------------------------------------------------------ moving groups as planned


def test_a_move_away_is_drain_record_then_raise() -> None:
    hand = leader()
    decision = hand.cycle(orders=(Move(number=9, groups=frozenset({G1}), to="b"),))
    assert decision.actions.serve == frozenset()
    assert decision.actions.drain == {G1}
    assert hand.work is None, "nothing is written before the drain"
    hand.alive()
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, drained=frozenset({G1})))
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.owners == {G1: "b", G2: "b"}
    decision = hand.done()
    assert [(r.number, r.code) for r in decision.actions.replies] == [(9, "")]
    assert decision.actions.serve == frozenset()


def test_the_owner_releases_what_the_leader_asks_for_and_tells_the_record() -> None:
    hand = follower()
    says = {"phase": Phase.MEMBER, "key": KEY["a"], "at": (3, 7), "leader": "a", "members": MEMBERS}
    hand.hears(**says, asks=frozenset({G2}))
    assert hand.cycle().actions.drain == {G2}
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, drained=frozenset({G2})))
    assert hand.cycle().actions.says.releases == {G2: 7}
    hand.hears(**says)
    hand.alive()
    assert hand.cycle().actions.serve == frozenset(), "released under record 7: raised only under a newer one"
    hand.hears(**{**says, "at": (3, 8)})
    hand.cycle()
    assert isinstance(hand.work, ReadJournal)
    assert hand.done(record=record(sequence=8)).actions.serve == {G2}


def test_a_release_under_an_older_record_does_not_count() -> None:
    hand = leader()
    hand.cycle(orders=(Move(number=9, groups=frozenset({G2}), to="a"),))
    assert hand.last is not None
    assert hand.last.actions.says.asks == {G2}
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 6), leader="a", built=1, releases={G2: 6})
    hand.cycle()
    assert hand.work is None
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", built=1, releases={G2: 7})
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)
    assert hand.done().actions.serve == {G1, G2}


def test_a_move_that_does_not_drain_is_taken_back_by_a_record() -> None:
    hand = leader()
    hand.cycle(orders=(Move(number=9, groups=frozenset({G1}), to="b"),))
    hand.now += hand.policy.drain_ms
    hand.alive()
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", built=1)
    decision = hand.cycle()
    assert [(r.number, r.code) for r in decision.actions.replies] == [(9, "HA-005")]
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.owners == record().owners
    assert hand.done().actions.serve == {G1}


@pytest.mark.parametrize(
    ("changes", "says", "why"),
    [
        ({"members": {"a": KEY["a"]}}, {}, "no member"),
        ({}, {"phase": Phase.JOINING}, "not heard as a member"),
        ({}, {"built": 0}, "not been built"),
        ({"resync": frozenset({G1})}, {}, "being rebuilt"),
        ({"stale": frozenset({"d0"})}, {}, "being rebuilt"),
        ({"paused": True}, {}, "hands are off"),
    ],
)
def test_what_hinders_a_move(changes: dict[str, object], says: dict[str, object], why: str) -> None:
    hand = Hand("a").as_member(**changes)
    hand.hears(**{"phase": Phase.MEMBER, "key": KEY["b"], "at": (3, 7), "leader": "a", "built": 1, **says})
    decision = hand.cycle(orders=(Move(number=9, groups=frozenset({G1}), to="b"),))
    assert [reply.code for reply in decision.actions.replies] == ["HA-005"]
    assert why in decision.actions.replies[0].why


def test_only_the_leader_takes_orders() -> None:
    hand = follower()
    decision = hand.cycle(orders=(Pause(number=3, paused=True), Move(number=4, groups=frozenset({G1}), to="b")))
    assert [(r.number, r.code) for r in decision.actions.replies] == [(3, "HA-004"), (4, "HA-004")]


def test_groups_leave_a_node_without_a_link_and_come_home_only_when_told_so() -> None:
    hand = leader()
    hand.seen = replace(hand.seen, ports_up=0)
    assert hand.cycle().actions.drain == {G1}
    hand = Hand("a", policy=replace(Hand("a").policy, failback=True)).as_member(owners={G1: "a", G2: "a"})
    hand.now += hand.policy.hold_ms
    hand.alive()
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", built=1)
    assert hand.cycle().actions.drain == {G2}


# ------------------------------------------------------------------ records


def test_a_failed_write_is_followed_by_a_higher_sequence() -> None:
    hand = leader()
    hand.cycle(orders=(Pause(number=3, paused=True),))
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.sequence == 8
    hand.done(said=Answer.SILENT)
    assert hand.memory.record == record()
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.sequence == 9
    assert hand.work.previous is not None
    assert hand.work.previous.sequence == 8, "it may still land: the chain goes on from it"
    decision = hand.done()
    assert [(r.number, r.code) for r in decision.actions.replies] == [(3, "")]


def test_a_state_is_saved_once_for_the_generation_it_follows() -> None:
    hand = leader()
    save = Save(number=1, generation=2, expects=1, snapshot=b"state", digest="d")
    decision = hand.cycle(orders=(save, replace(save, number=2)))
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.snapshot == b"state"
    assert hand.work.record.snapshot is not None
    assert hand.work.record.snapshot.area == 1
    replies = decision.actions.replies + hand.done().actions.replies
    assert [(r.number, r.code) for r in replies] == [(2, "HA-055"), (1, "")]


def test_new_drives_of_the_map_are_registered_on() -> None:
    hand = follower()
    bigger = service_map(2)
    hand.seen = replace(hand.seen, map=replace(bigger, block_bytes={**bigger.block_bytes, "d7": 512}))
    hand.cycle()
    assert hand.work == Register(drives=("d7",), key=KEY["b"])


# ------------------------------------------------------------------ admission


def outside_peer(hand: Hand, key: int = 0xB2) -> None:
    hand.alive()
    hand.hears(phase=Phase.OUTSIDE, key=key)


def test_a_node_that_asks_is_admitted_by_a_record() -> None:
    hand = Hand("a").as_member(members={"a": KEY["a"]}, owners={G1: "a", G2: "a"})
    outside_peer(hand)
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.members == {"a": KEY["a"], "b": 0xB2}
    assert hand.done().actions.says.members == {"a": KEY["a"], "b": 0xB2}


def test_who_was_fenced_often_waits_longer_each_time() -> None:
    hand = Hand("a").as_member(members={"a": KEY["a"]}, owners={G1: "a", G2: "a"}, evictions={"b": 3})
    hand.memory = replace(hand.memory, evicted_at=hand.now)
    outside_peer(hand)
    hand.cycle()
    assert hand.work is None
    hand.now += hand.policy.quarantine_for_ms(3)
    outside_peer(hand)
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)


def resumed(outcome_record: Record | None, **more: Any) -> Hand:
    """A node whose agent was started again beside a data plane that had served."""
    hand = Hand("b")
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, served=True))
    hand.cycle()
    assert isinstance(hand.work, ReadJournal)
    hand.done(**{"record": outcome_record, **more})
    return hand


def test_a_data_plane_that_served_goes_on_if_the_record_still_names_it() -> None:
    hand = resumed(record())
    assert hand.memory.phase is Phase.MEMBER
    assert hand.cycle().actions.serve == {G2}


@pytest.mark.parametrize(
    ("found", "more"),
    [(record(members={"a": KEY["a"]}), {}), (None, {"found": False, "said": Answer.CONFLICT})],
    ids=["not named", "refused"],
)
def test_a_data_plane_that_served_is_ended_if_it_may_not_go_on(found: Record | None, more: dict[str, Any]) -> None:
    hand = resumed(found, **more)
    assert hand.last is not None
    assert hand.last.actions.kill is not None


def test_a_data_plane_that_served_never_begins_alone() -> None:
    hand = Hand("a")
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, served=True))
    for _ in range(50):
        hand.cycle(1_000)
        if hand.memory.operation is not None:
            hand.done(record=None, found=False, said=Answer.SILENT)
        assert hand.memory.phase is Phase.OUTSIDE


def test_joining_is_register_everywhere_then_read() -> None:
    hand = Hand("b")
    hand.cycle()
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], leader="a", at=(4, 9), members={"a": KEY["a"]})
    assert hand.cycle().actions.says.key == KEY["b"]
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], leader="a", at=(4, 10), members=MEMBERS, failed=frozenset({"d6"}))
    hand.cycle()
    hand.cycle()
    assert hand.work == Register(drives=tuple(d for d in DRIVES if d != "d6"), key=KEY["b"])
    hand.done()
    assert isinstance(hand.work, ReadJournal)
    hand.done(record=record(epoch=4, sequence=10))
    assert hand.memory.phase is Phase.MEMBER
    assert hand.cycle().actions.serve == {G2}


def test_nobody_asks_before_the_drives_answer() -> None:
    hand = Hand("b")
    hand.seen = replace(hand.seen, drives=replace(hand.seen.drives, registrants={}))
    decision = hand.cycle()
    assert decision.actions.says.key == 0
    assert "waits for the drives" in decision.sentence


def test_both_outside_node_a_begins_and_node_b_waits_for_it() -> None:
    for node, begins in (("a", True), ("b", False)):
        hand = Hand("a" if node == "a" else "b")
        hand.cycle()
        for _ in range(100):
            hand.hears(phase=Phase.OUTSIDE, key=0xB2)
            hand.cycle()
        assert (hand.memory.phase is Phase.TAKING) is begins


def test_a_node_alone_waits_for_its_peer_before_it_begins() -> None:
    hand = Hand("a")
    hand.cycle()
    hand.cycle(hand.policy.boot_ms - 1)
    assert hand.memory.phase is Phase.OUTSIDE
    hand.cycle(1)
    assert hand.memory.phase is Phase.TAKING


def test_the_operators_word_replaces_the_waiting_but_not_the_look() -> None:
    hand = Hand("a")
    hand.cycle()
    decision = hand.cycle(orders=(TakeOver(number=1, peer_is_off=False),))
    assert [r.code for r in decision.actions.replies] == ["HA-006"]
    hand.hears(phase=Phase.MEMBER, key=KEY["b"])
    decision = hand.cycle(orders=(TakeOver(number=2, peer_is_off=True),))
    assert [r.code for r in decision.actions.replies] == ["HA-006"]
    hand.now += 10_000
    decision = hand.cycle(orders=(TakeOver(number=3, peer_is_off=True),))
    assert [(r.number, r.code) for r in decision.actions.replies] == [(3, "")]
    assert isinstance(hand.work, Fence)
    assert hand.work.register


# ------------------------------------------------------------------ drives


def test_a_drive_that_is_silent_on_both_nodes_is_given_up_by_a_record_first() -> None:
    hand = leader()
    hand.seen = replace(hand.seen, drives=replace(hand.seen.drives, silent=frozenset({"d5"})))
    hand.cycle()
    assert hand.work is None, "the peer still gets answers from it"
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", silent=frozenset({"d5"}), built=1)
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.failed == {"d5"}
    assert hand.work.record.refused == {"bare"}
    hand.done()
    assert hand.work == DetachDrives(drives=("d5",))


def test_a_drive_that_comes_back_is_fenced_then_its_legs_are_rebuilt() -> None:
    hand = Hand("a").as_member(failed=frozenset({"d5"}), refused=frozenset({"bare"}), owners={G1: "a", G2: "a"})
    hand.memory = replace(hand.memory, detached=frozenset({"d5"}), registered=frozenset(DRIVES) - {"d5"})
    decision = hand.cycle(orders=(Repaired(number=4, drive="d5"),))
    assert hand.work == Fence(drives=("d5",), key=KEY["a"], register=True)
    decision = hand.done()
    assert [(r.number, r.code) for r in decision.actions.replies] == [(4, "")]
    assert isinstance(hand.work, WriteRecord)
    assert (hand.work.record.failed, hand.work.record.stale) == (frozenset(), {"d5"})
    assert hand.work.record.refused == {"bare"}, "no member is registered there yet"
    hand.alive()
    hand.done()
    assert hand.work == Register(drives=("d5",), key=KEY["a"])
    hand.done()
    hand.now += hand.policy.retry_ms
    hand.alive()
    hand.cycle()
    assert hand.work == Rebuild(groups=frozenset({G1, G2}), add=(("vol-safe.m0", "d5n1p1"), ("vol-other.m0", "d5n1p1")))


def test_the_end_of_the_data_plane_ends_everything_and_is_told() -> None:
    hand = leader()
    hand.cycle(orders=(Move(number=9, groups=frozenset({G1}), to="b"),))
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, state=EngineState.DEAD))
    decision = hand.cycle()
    assert decision.actions.serve == frozenset()
    assert decision.actions.says.ended == KEY["a"]
    assert [(r.number, r.code) for r in decision.actions.replies] == [(9, "HA-009")]
    assert hand.memory.phase is Phase.ABSENT


def test_after_a_start_of_both_groups_go_home_at_once() -> None:
    hand = Hand("a").as_member(owners={G1: "a", G2: "a"})
    hand.memory = replace(hand.memory, homing=True)
    decision = hand.cycle()
    assert decision.actions.drain == {G2}
    hand.cycle(orders=(Move(number=3, groups=frozenset({G1}), to="b"),))
    assert not hand.memory.homing, "the operator's word counts from then on"


def test_data_addresses_are_at_one_node_at_a_time() -> None:
    hand = follower()
    assert hand.cycle().actions.addresses == {"b"}
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], at=(3, 7), leader="a", members=MEMBERS, holds=frozenset({"a", "b"}))
    assert hand.cycle().actions.addresses == frozenset(), "the peer has not let go of them yet"
    hand = Hand("b").as_member()
    hand.hears(phase=Phase.ABSENT, ended=KEY["a"])
    hand.cycle()
    while hand.memory.operation is not None:
        assert hand.last is not None
        assert hand.last.actions.addresses == {"b"}, "a node that may live keeps its addresses"
        hand.alive()
        hand.done()
    assert hand.cycle().actions.addresses == {"a", "b"}
    hand.hears(phase=Phase.OUTSIDE, key=0xA2)
    hand.alive()
    hand.cycle()
    assert hand.done().actions.addresses == {"b"}, "the peer is a member again: its addresses are its own"


def test_a_drive_counts_as_whole_again_only_when_no_node_misses_a_leg_on_it() -> None:
    hand = Hand("a").as_member(stale=frozenset({"d5"}), owners={G1: "a", G2: "a"})
    hand.memory = replace(hand.memory, rebuilt=frozenset({G1, G2}))
    hand.cycle()
    assert not isinstance(hand.work, WriteRecord), "the standby still misses them"
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], at=(3, 7), leader="a", built=1, rebuilt=frozenset({G1, G2}))
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.stale == frozenset()


def test_an_agent_that_was_started_again_leaves_addresses_as_they_are() -> None:
    hand = Hand("a")
    hand.seen = replace(hand.seen, holds=frozenset({"a", "b"}))
    assert hand.cycle().actions.addresses == {"a", "b"}, "its data plane may be serving"
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], holds=frozenset({"b"}))
    assert hand.cycle().actions.addresses == {"a"}, "what the peer holds is let go"
    hand.seen = replace(hand.seen, engine=replace(hand.seen.engine, state=EngineState.DEAD))
    assert hand.cycle().actions.addresses == frozenset()


def test_a_forced_takeover_works_while_hands_are_off() -> None:
    hand = Hand("a").as_member(paused=True)
    hand.cycle(5_000)
    decision = hand.cycle(orders=(Pause(number=1, paused=False),))
    assert [r.code for r in decision.actions.replies] == ["HA-005"], "nothing would end the peer's data plane before"
    decision = hand.cycle(orders=(TakeOver(number=2, peer_is_off=True),))
    assert [r.code for r in decision.actions.replies] == [""]
    assert isinstance(hand.work, Fence)


def test_a_paused_follower_whose_leader_is_gone_can_be_resumed() -> None:
    hand = Hand("b").as_member(paused=True)
    hand.hears(phase=Phase.ABSENT, ended=KEY["a"])
    hand.cycle()
    assert hand.memory.phase is Phase.MEMBER
    decision = hand.cycle(orders=(Pause(number=1, paused=False),))
    assert [r.code for r in decision.actions.replies] == [""]
    assert hand.memory.phase is Phase.TAKING


def test_who_is_the_only_member_does_not_stop_for_being_slow() -> None:
    hand = Hand("a").as_member(members={"a": KEY["a"]}, owners={G1: "a", G2: "a"})
    decision = hand.cycle(2_000)
    assert decision.actions.kill is None
    assert decision.actions.serve == {G1, G2}
    assert hand.cycle(hand.policy.boot_ms).actions.kill is not None, "what cannot last is ended all the same"
