"""The judge of histories: against brute force, against what it must catch, and through its file format."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ha.sim.linear import NOTHING, Access, check, read_jsonl, write_jsonl


def write(tag: int, called: int, returned: int | None, block: str = "v/0") -> Access:
    return Access(block=block, write=True, tag=tag, called=called, returned=returned, by="h1")


def read(tag: int, called: int, returned: int | None, block: str = "v/0") -> Access:
    return Access(block=block, write=False, tag=tag, called=called, returned=returned, by="h2")


def legal(order: Sequence[Access]) -> bool:
    """Each read returns what was written last before it."""
    value = NOTHING
    for access in order:
        if access.write:
            value = access.tag
        elif access.tag != value:
            return False
    return True


def in_time(order: Sequence[Access]) -> bool:
    """Nothing comes after something that was called only when it had returned."""
    for before, after in itertools.combinations(order, 2):
        if after.returned is not None and after.returned < before.called:
            return False
    return True


def possible(history: Sequence[Access]) -> bool:
    """By trying every order, with every choice of unanswered writes that happened."""
    answered = [access for access in history if access.returned is not None]
    open_writes = [access for access in history if access.returned is None and access.write]
    for count in range(len(open_writes) + 1):
        for chosen in itertools.combinations(open_writes, count):
            if any(legal(o) and in_time(o) for o in itertools.permutations([*answered, *chosen])):
                return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Access]:
    """A few accesses of one block whose calls and returns are all at different times."""
    count = draw(st.integers(1, 6))
    writes = draw(st.integers(1, min(3, count)))
    times = draw(st.permutations(range(2 * count)))
    found = []
    for number in range(count):
        called, returned = sorted(times[2 * number : 2 * number + 2])
        end = None if draw(st.integers(0, 5)) == 0 else returned
        if number < writes:
            found.append(write(number + 1, called, end))
        else:
            found.append(read(draw(st.integers(NOTHING, writes)), called, end))
    return found


@settings(max_examples=600, deadline=None)
@given(histories())
def test_it_agrees_with_trying_every_order(history: list[Access]) -> None:
    assert (check(history) is None) == possible(history)


def test_one_after_another() -> None:
    assert check([read(NOTHING, 1, 2), write(1, 3, 4), read(1, 5, 6), write(2, 7, 8), read(2, 9, 10)]) is None


def test_a_stale_read_is_caught() -> None:
    found = check([write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)])
    assert found is not None
    assert "v/0" in str(found)


def test_a_lost_write_is_caught() -> None:
    assert check([write(1, 1, 2), read(NOTHING, 3, 4)]) is not None


def test_two_owners_are_caught() -> None:
    history = [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6), read(2, 7, 8), read(1, 9, 10)]
    assert check(history) is not None


def test_a_write_from_the_dead_is_caught() -> None:
    """The first attempt lands after a newer write was acknowledged and read."""
    assert check([write(1, 1, 10), write(2, 11, 12), read(2, 13, 14), read(1, 15, 16)]) is not None


def test_a_value_that_nobody_wrote_is_caught() -> None:
    found = check([read(7, 1, 2)])
    assert found is not None
    assert found.why == "read although nobody wrote it"


def test_a_value_from_the_future_is_caught() -> None:
    found = check([read(1, 1, 2), write(1, 3, 4)])
    assert found is not None
    assert found.why == "read before it was written"


def test_an_unanswered_write_may_happen_late_or_never() -> None:
    assert check([write(1, 1, None), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7), read(1, 8, 9)]) is None
    assert check([write(1, 1, None), write(2, 2, 3), read(2, 4, 5)]) is None
    assert check([write(1, 1, None), read(1, 4, 5), read(NOTHING, 6, 7)]) is not None


def test_blocks_are_judged_one_by_one() -> None:
    other = [write(1, 1, 2, "v/1"), read(NOTHING, 3, 4, "v/1")]
    found = check([write(1, 1, 2), read(1, 3, 4), *other])
    assert found is not None
    assert found.block == "v/1"


def test_a_tag_of_two_writes_is_refused() -> None:
    with pytest.raises(ValueError, match="not the tag of one write"):
        check([write(1, 1, 2), write(1, 3, 4)])


@given(histories())
def test_lines_carry_a_history(history: list[Access]) -> None:
    stream = io.StringIO()
    write_jsonl(history, stream)
    assert list(read_jsonl(stream.getvalue().splitlines())) == history
