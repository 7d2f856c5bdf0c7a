"""Which commands an injection concerns, and how often."""

from __future__ import annotations

from dataplane.embedded.initiator.injection import Injection, Injections
from dataplane.nvme.commands import Completion, IoOp, status_field
from dataplane.nvme.status import Status

GOOD = Completion(cdw0=5)
BAD = Completion(status=status_field(Status.LBA_OUT_OF_RANGE, dnr=True))


def test_an_answer_is_exchanged_as_often_as_was_said_and_only_where_all_went_well() -> None:
    injections = Injections()
    injections.add(IoOp.WRITE, Injection(Status.RESERVATION_CONFLICT, left=2))
    assert injections.held(IoOp.WRITE) is None
    assert injections.exchange(IoOp.READ, GOOD) is GOOD
    assert injections.exchange(IoOp.WRITE, BAD) is BAD
    seen = [injections.exchange(IoOp.WRITE, GOOD) for _ in range(3)]
    assert [(each.code, each.cdw0) for each in seen] == [(Status.RESERVATION_CONFLICT, 5)] * 2 + [(0, 5)]


def test_what_is_held_is_not_sent_and_its_answer_not_exchanged() -> None:
    injections = Injections()
    injections.add(IoOp.WRITE, Injection(Status.RESERVATION_CONFLICT, left=1, hold_s=0))
    assert injections.exchange(IoOp.WRITE, GOOD) is GOOD
    held = injections.held(IoOp.WRITE)
    assert held is not None
    assert held.code == Status.RESERVATION_CONFLICT
    assert injections.held(IoOp.WRITE) is None


def test_the_last_one_holds_and_removing_ends_it() -> None:
    injections = Injections()
    injections.add(IoOp.READ, Injection(Status.INTERNAL_ERROR, hold_s=0))
    injections.add(IoOp.READ, Injection(Status.INVALID_FIELD))
    assert injections.held(IoOp.READ) is None
    assert injections.exchange(IoOp.READ, GOOD).code == Status.INVALID_FIELD
    injections.add(IoOp.READ, Injection(Status.INVALID_FIELD))
    injections.remove(IoOp.READ)
    injections.remove(IoOp.WRITE)
    assert injections.exchange(IoOp.READ, GOOD) is GOOD
