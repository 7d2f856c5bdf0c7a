"""The order of a takeover, and what each answer of a drive does to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ha_values import DRIVES, G1, G2, KEY, QUORUM, Hand, record, service_map

from ha.memory import MOVES, Event, Kind, Step
from ha.model import (
    Answer,
    Fence,
    KickHosts,
    Load,
    Phase,
    ReadJournal,
    Save,
    Verify,
    WriteRecord,
)


def started(node: str = "b", **changes: object) -> Hand:
    """A member whose peer's data plane has just ended."""
    hand = Hand("b" if node == "b" else "a").as_member(**changes)
    peer = "a" if node == "b" else "b"
    hand.hears(phase=Phase.ABSENT, ended=KEY[peer])
    hand.cycle()
    assert hand.memory.phase is Phase.TAKING
    return hand


def test_the_order_is_race_fence_verify_read_write_load_then_serve() -> None:
    hand = started()
    kinds = hand.works()
    assert kinds == [Fence, Fence, Fence, Fence, Verify, ReadJournal, WriteRecord, Verify, Load, KickHosts]
    assert hand.memory.phase is Phase.MEMBER
    assert hand.last is not None
    assert hand.last.actions.serve == {G1, G2}


def test_the_race_goes_over_the_quorum_drives_in_their_order() -> None:
    hand = started()
    raced = []
    while isinstance(hand.memory.operation.work if hand.memory.operation else None, Fence):
        assert hand.memory.operation is not None
        work = hand.memory.operation.work
        assert isinstance(work, Fence)
        raced.append(work.drives)
        hand.done()
    assert raced == [("d0",), ("d1",), ("d2",), ("d3", "d4", "d5", "d6")]


def test_nothing_new_is_served_before_the_epoch_is_written() -> None:
    hand = started()
    while hand.memory.phase is Phase.TAKING:
        assert hand.last is not None
        assert hand.last.actions.serve == {G2}
        hand.alive()
        hand.done()
    assert hand.last is not None
    assert hand.last.actions.serve == {G1, G2}


def test_who_is_second_at_a_quorum_drive_ends_its_data_plane() -> None:
    hand = started()
    hand.done()
    decision = hand.done(said=Answer.CONFLICT)
    assert decision.actions.kill is not None
    assert decision.actions.kill.key == KEY["b"]
    assert decision.actions.serve == frozenset()
    assert "lost" in decision.sentence


def test_a_silent_quorum_drive_is_passed_over() -> None:
    hand = started()
    hand.done(said=Answer.SILENT)
    kinds = [hand.done() for _ in range(4)]
    assert all(decision.actions.kill is None for decision in kinds)
    assert hand.work == Fence(drives=("d0",), key=KEY["b"]), "it has a second chance when the race is won"
    hand.done(said=Answer.SILENT)
    hand.alive()
    hand.works()
    assert hand.memory.record is not None
    assert hand.memory.record.failed == {"d0"}


def test_without_a_majority_of_the_quorum_drives_nothing_is_taken() -> None:
    hand = started()
    for _ in range(3):
        hand.done(said=Answer.SILENT)
    assert hand.memory.phase is Phase.TAKING
    assert hand.memory.operation is None
    assert hand.memory.takeover is not None
    assert hand.memory.takeover.left == QUORUM
    assert hand.memory.takeover.touched


def test_a_drive_that_is_not_fenced_costs_only_the_volumes_that_need_it() -> None:
    hand = started()
    for _ in range(3):
        hand.done()
    hand.done(by_drive={"d5": Answer.SILENT})
    hand.done(said=Answer.SILENT)
    while not isinstance(hand.work, WriteRecord):
        hand.alive()
        hand.done()
    assert hand.work.record.failed == {"d5"}
    assert hand.work.record.refused == {"bare"}
    hand.done()
    hand.done()
    assert hand.work == Load(drop=(("vol-safe.m0", "d5n1p1"),), refuse=(("nqn.test", 1),)), (
        "group 2 was served here before: its own leg is given up as any failed drive's is"
    )


def test_mirrors_that_the_dead_node_served_keep_one_leg_until_rebuilt() -> None:
    hand = started()
    while not isinstance(hand.work, WriteRecord):
        hand.alive()
        hand.done()
    assert hand.work.record.resync == {G1}
    hand.done()
    hand.done()
    assert hand.work == Load(drop=(("vol-safe.m0", "d6n1p1"),))


def test_somebody_who_registers_between_fence_and_look_is_fenced_again() -> None:
    hand = started()
    for _ in range(4):
        hand.done()
    assert isinstance(hand.work, Verify)
    crowd = {drive: frozenset((KEY["b"],)) for drive in DRIVES} | {"d4": frozenset((KEY["b"], 0x99))}
    hand.done(registrants=crowd)
    assert hand.work == Fence(drives=("d4",), key=KEY["b"])


def test_a_report_without_its_own_key_means_lost() -> None:
    hand = started()
    for _ in range(4):
        hand.done()
    gone = {drive: frozenset((KEY["b"],)) for drive in DRIVES} | {"d6": frozenset((0x99,))}
    assert hand.done(registrants=gone).actions.kill is not None


def test_a_record_on_a_minority_is_no_record() -> None:
    hand = started()
    while not isinstance(hand.work, WriteRecord):
        hand.alive()
        hand.done()
    written = hand.work.record
    hand.done(by_drive=dict.fromkeys(QUORUM[:3], Answer.SILENT))
    assert hand.memory.phase is Phase.TAKING
    hand.now += hand.policy.retry_ms
    hand.alive()
    hand.cycle()
    while not isinstance(hand.work, WriteRecord):
        hand.alive()
        hand.done()
    assert hand.work.record.sequence > written.sequence, "a sequence is never used twice"


def test_what_the_dead_leader_wrote_last_is_the_base_of_the_next_epoch() -> None:
    hand = started()
    newer = record(sequence=9, owners={G1: "b", G2: "a"}, stale=frozenset({"d3"}))
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    assert hand.work.fenced
    hand.done(record=newer)
    work = hand.work
    assert isinstance(work, WriteRecord)
    assert work.previous == newer
    assert (work.record.epoch, work.record.sequence) == (4, 10)
    assert work.record.stale == {"d3"}
    assert work.record.members == {"b": KEY["b"]}
    assert work.record.evictions == {"a": 1}


def test_the_map_of_the_record_that_was_read_is_waited_for() -> None:
    hand = started()
    newer = record(sequence=9)
    assert newer.snapshot is not None
    newer = replace(newer, snapshot=replace(newer.snapshot, generation=2))
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    hand.done(record=newer)
    assert hand.memory.takeover is not None
    assert hand.memory.takeover.step is Step.MAP
    assert hand.memory.operation is None
    hand.seen = replace(hand.seen, map=service_map(2))
    hand.cycle()
    assert isinstance(hand.work, WriteRecord)


def test_drives_of_another_array_are_not_taken() -> None:
    hand = started()
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    hand.done(record=record(array_uuid="another"))
    assert hand.memory.phase is Phase.TAKING
    assert "another" in hand.memory.timeline[-1][1]


def test_an_untouched_takeover_is_called_off_when_the_peer_lives() -> None:
    hand = Hand("b").as_member()
    hand.hears(phase=Phase.MEMBER, key=KEY["a"], at=(3, 7), leader="a", members={"a": KEY["a"], "b": KEY["b"]})
    hand.alive()
    hand.memory = replace(hand.memory, phase=Phase.MEMBER)
    from ha import takeover
    from ha.memory import Turn

    turn = Turn(hand.policy, hand.seen, hand.now)
    hand.memory = takeover.start(turn, hand.memory, service_map(), Kind.FAILOVER, "tried")
    decision = hand.cycle()
    assert hand.memory.phase is Phase.MEMBER
    assert "alive after all" in decision.sentence


def test_a_new_array_is_formed_once() -> None:
    hand = Hand("a")
    hand.cycle()
    save = Save(number=5, generation=1, expects=0, snapshot=b"state", digest="d", form=True)
    hand.cycle(orders=(save,))
    replies = []
    while hand.memory.operation is not None:
        work = hand.memory.operation.work
        if isinstance(work, Fence):
            assert work.register
        decision = hand.done(**({"record": None} if isinstance(work, ReadJournal) else {}))
        replies += decision.actions.replies
    assert hand.memory.phase is Phase.MEMBER
    assert [(reply.number, reply.code) for reply in replies] == [(5, "")]
    assert hand.memory.record is not None
    assert hand.memory.record.snapshot is not None
    assert hand.memory.record.snapshot.sha256 == "d"
    assert hand.memory.record.members == {"a": KEY["a"]}


@pytest.mark.parametrize(
    ("found", "code"), [({"d2": frozenset({0x77})}, "HA-002"), ({}, "HA-008")], ids=["strangers", "no reports"]
)
def test_an_array_is_not_formed_on_drives_of_others(found: dict[str, frozenset[int]], code: str) -> None:
    hand = Hand("a")
    reports = {drive: frozenset[int]() for drive in QUORUM} | found if found else {}
    hand.seen = replace(hand.seen, drives=replace(hand.seen.drives, registrants=reports))
    hand.cycle()
    save = Save(number=5, generation=1, expects=0, snapshot=b"state", digest="d", form=True)
    decision = hand.cycle(orders=(save,))
    assert [reply.code for reply in decision.actions.replies] == [code]
    assert hand.work is None


def test_drives_that_hold_an_array_are_not_formed_anew() -> None:
    hand = Hand("a")
    hand.cycle()
    hand.cycle(orders=(Save(number=5, generation=1, expects=0, snapshot=b"state", digest="d", form=True),))
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    decision = hand.done(record=record())
    assert [reply.code for reply in decision.actions.replies] == ["HA-003"]
    assert hand.memory.phase is Phase.OUTSIDE


def test_the_table_has_no_way_out_of_member_but_the_end_or_a_takeover() -> None:
    assert MOVES[Phase.MEMBER] == {Event.ENGINE_GONE: Phase.ABSENT, Event.PEER_GONE: Phase.TAKING}
    assert set(MOVES) == set(Phase)
    assert all(Event.ENGINE_GONE in MOVES[phase] for phase in Phase if phase is not Phase.ABSENT)


def test_an_array_is_formed_after_a_start_that_found_none() -> None:
    hand = Hand("a")
    hand.cycle()
    hand.cycle(hand.policy.boot_ms)
    assert hand.memory.phase is Phase.TAKING
    save = Save(number=5, generation=1, expects=0, snapshot=b"state", digest="d", form=True)
    assert hand.cycle(orders=(save,)).actions.replies == ()
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    hand.done(record=None)
    hand.cycle()
    assert hand.memory.takeover is not None
    assert hand.memory.takeover.kind is Kind.FORM


def test_who_registers_late_is_found_before_anything_is_served() -> None:
    hand = started()
    while not isinstance(hand.work, WriteRecord):
        hand.alive()
        hand.done()
    hand.done()
    assert isinstance(hand.work, Verify)
    crowd = {drive: frozenset((KEY["b"],)) for drive in DRIVES} | {"d4": frozenset((KEY["b"], 0x99))}
    decision = hand.done(registrants=crowd)
    assert decision.actions.serve == {G2}
    assert hand.work == Fence(drives=("d0",), key=KEY["b"]), "it begins anew"


def test_a_fenced_quorum_drive_whose_journal_cannot_be_read_is_given_up() -> None:
    hand = started()
    while not isinstance(hand.work, ReadJournal):
        hand.done()
    hand.done(by_drive={"d1": Answer.SILENT})
    assert isinstance(hand.work, WriteRecord)
    assert hand.work.record.failed == {"d1"}
    assert "d1" not in hand.work.drives


def test_a_drive_that_was_given_up_before_decides_nothing() -> None:
    hand = Hand("b").as_member(failed=frozenset({"d0"}))
    hand.memory = replace(hand.memory, registered=frozenset(DRIVES) - {"d0"})
    hand.hears(phase=Phase.ABSENT, ended=KEY["a"])
    hand.cycle()
    assert hand.work == Fence(drives=("d1",), key=KEY["b"])


def test_a_start_gives_way_to_a_node_that_serves() -> None:
    hand = Hand("a")
    hand.cycle()
    hand.cycle(hand.policy.boot_ms)
    assert hand.memory.phase is Phase.TAKING
    hand.hears(phase=Phase.MEMBER, key=KEY["b"], leader="b", at=(3, 7), members={"b": KEY["b"]})
    hand.cycle()
    assert hand.memory.phase is Phase.OUTSIDE
