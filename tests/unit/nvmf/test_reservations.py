"""Reservations as values: who is let through, what changes, and what the file says."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.embedded.nvmf import ptpl
from dataplane.embedded.nvmf.reservations import MAX_REGISTRANTS, Notice, Registration, State, Who, apply, permits
from dataplane.embedded.nvmf.reserved import MAX_NOTIFICATIONS, NotificationLog
from dataplane.nvme import reservations as wire
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.reservations import (
    AcquireAction,
    Notification,
    NotificationType,
    PersistThroughPowerLoss,
    RegisterAction,
    ReservationType,
)
from dataplane.nvme.status import NvmeError, Status

A, B, C = (bytes((number,)) * 16 for number in (1, 2, 3))
BDEV = "5e000000-0000-4000-8000-000000000003"
READS = (IoOp.READ, IoOp.COMPARE, IoOp.VERIFY)
WRITES = (
    IoOp.FLUSH, IoOp.WRITE, IoOp.WRITE_UNCORRECTABLE, IoOp.WRITE_ZEROES, IoOp.DATASET_MANAGEMENT, IoOp.COPY,
)  # fmt: skip
MATRIX = {  # what a registrant, then a stranger may do
    1: ("r", "r"), 2: ("", ""), 3: ("rw", "r"), 4: ("rw", ""), 5: ("rw", "r"), 6: ("rw", ""),
}  # fmt: skip


def held(rtype: int, *, persist: bool = False) -> State:
    """A holds, B is registered."""
    items = (Registration(A, 1, 1), Registration(B, 2, 2))
    return State(items, ReservationType(rtype), A, persist=persist)


@pytest.mark.parametrize("rtype", MATRIX)
def test_who_is_let_through(rtype: int) -> None:
    state = held(rtype)
    for opcode in (*READS, *WRITES):
        letter = "r" if opcode in READS else "w"
        command = Command(opcode, nsid=1)
        assert permits(state, A, command)
        assert permits(state, B, command) == (letter in MATRIX[rtype][0])
        assert permits(state, C, command) == (letter in MATRIX[rtype][1])
        assert permits(State(), C, command)


@pytest.mark.parametrize("rtype", MATRIX)
def test_which_reservation_commands_are_let_through(rtype: int) -> None:
    state = held(rtype)
    for opcode in (IoOp.RESERVATION_REGISTER, IoOp.RESERVATION_REPORT):
        assert permits(state, C, Command(opcode))
    assert permits(state, B, Command(IoOp.RESERVATION_RELEASE))
    assert not permits(state, C, Command(IoOp.RESERVATION_RELEASE))
    assert permits(state, B, Command(IoOp.RESERVATION_ACQUIRE)) == (rtype >= 5)
    assert permits(state, B, Command(IoOp.RESERVATION_ACQUIRE, cdw10=AcquireAction.PREEMPT))
    assert not permits(state, C, Command(IoOp.RESERVATION_ACQUIRE, cdw10=AcquireAction.PREEMPT))


def test_only_preempt_and_abort_has_others_end_their_commands() -> None:
    for action, aborted in ((AcquireAction.PREEMPT, frozenset()), (AcquireAction.PREEMPT_AND_ABORT, frozenset({A}))):
        built = wire.acquire(1, 2, ReservationType.WRITE_EXCLUSIVE, action, preempt_key=1)
        outcome = apply(held(3), Who(B, 2), *built, can_persist=False)
        assert outcome.aborted == aborted
        assert outcome.notices == (Notice(NotificationType.REGISTRATION_PREEMPTED, frozenset({A})),)
        assert (outcome.state.rtype, outcome.state.holder, outcome.state.generation) == (1, B, 1)


def test_the_first_that_is_left_is_named_where_all_hold() -> None:
    state = replace(held(5), registrations=(*held(5).registrations, Registration(C, 3)), holder=B)
    built = wire.register(1, 3, 0, RegisterAction.UNREGISTER)
    assert apply(state, Who(C, 3), *built, can_persist=False).state.holder == A


def test_the_generation_comes_round_and_the_table_is_full_at_sixteen() -> None:
    everybody = tuple(Registration(bytes((number,)) * 16, 1) for number in range(1, MAX_REGISTRANTS + 1))
    state = State(everybody[:-1], generation=(1 << 32) - 1)
    last = apply(state, Who(b"x" * 16, 7), *wire.register(1, 0, 9), can_persist=False)
    assert (last.status, last.state.generation) == (Status.SUCCESS, 0)
    full = apply(State(everybody), Who(b"y" * 16, 7), *wire.register(1, 0, 9), can_persist=False)
    assert (full.status, full.state) == (Status.INTERNAL_ERROR, State(everybody))


def test_persistence_is_set_before_the_rest_is_looked_at() -> None:
    on = wire.register(1, 0, 9, persist=PersistThroughPowerLoss.ON)
    outcome = apply(held(1), Who(A, 1), *on, can_persist=True)
    assert (outcome.status, outcome.state.persist, outcome.store) == (Status.RESERVATION_CONFLICT, True, True)
    assert apply(held(1), Who(A, 1), *on, can_persist=False).status == Status.INVALID_FIELD


@pytest.mark.parametrize("rtype", [0, *MATRIX])
def test_the_file_gives_back_what_was_stored(rtype: int) -> None:
    state = held(rtype, persist=True) if rtype else State(held(1).registrations, persist=True)
    found = ptpl.from_text(ptpl.to_text(state, BDEV), BDEV)
    unknown = tuple(Registration(item.hostid, item.key) for item in state.registrations)
    assert found == replace(state, registrations=unknown)


def test_the_file_says_nothing_of_what_is_not_to_persist() -> None:
    text = ptpl.to_text(held(1), BDEV)
    assert json.loads(text)["registrants"] == []
    assert ptpl.from_text(text, BDEV) == State()


GOOD = json.loads(ptpl.to_text(held(1, persist=True), BDEV))


@pytest.mark.parametrize(
    "change",
    [
        {"rtype": 7}, {"rtype": True}, {"crkey": 1 << 64}, {"crkey": 3}, {"crkey": 2}, {"crkey": 0}, {"ptpl": 1},
        {"holder_uuid": ""}, {"holder_uuid": str(uuid.UUID(bytes=B))}, {"holder_uuid": str(uuid.UUID(bytes=C))},
        {"bdev_uuid": str(uuid.UUID(bytes=C))}, {"bdev_uuid": 5}, {"registrants": {}}, {"more": 1},
        {"registrants": [{"rkey": 1}]}, {"registrants": [{"rkey": 0, "host_uuid": str(uuid.UUID(bytes=A))}]},
        {"registrants": GOOD["registrants"] * 2}, {"registrants": GOOD["registrants"] * 9},
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    assert ptpl.from_text(json.dumps(GOOD), BDEV).holder == A
    with pytest.raises(ptpl.StoredWrong):
        ptpl.from_text(json.dumps(GOOD | change), BDEV)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ptpl": true, "ptpl": false}', "[" * 100_000])
def test_text_that_is_no_such_object_is_refused(text: str) -> None:
    with pytest.raises(ptpl.StoredWrong):
        ptpl.from_text(text, BDEV)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    assert ptpl.load(str(path)) is None
    ptpl.store(str(path), "one")
    ptpl.store(str(path), "two")
    assert ptpl.load(str(path)) == "two"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ptpl.StoredWrong):
        ptpl.load(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        ptpl.store(str(tmp_path / "none" / "file.json"), "three")


def test_the_notification_log_is_read_once_and_ends_at_255() -> None:
    log = NotificationLog()
    assert log.read(0, 64) is None
    assert [log.add(1, 2) for _ in range(MAX_NOTIFICATIONS + 2)] == [True] * MAX_NOTIFICATIONS + [False] * 2
    with pytest.raises(NvmeError):
        log.read(MAX_NOTIFICATIONS * 64, 64)
    first = log.read(64, 96)
    assert first is not None
    assert Notification.parse(first[:64]) == Notification(2, 2, 1, 1)
    rest = log.read(0, (MAX_NOTIFICATIONS - 3) * 64)
    assert rest is not None
    assert Notification.parse(rest[-64:]) == Notification(MAX_NOTIFICATIONS + 2, 2, MAX_NOTIFICATIONS - 1, 1)
    assert log.read(0, 64) is None
