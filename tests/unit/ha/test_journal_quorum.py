"""Which record is the newest: stale, torn, swapped and foreign drives."""

from __future__ import annotations

from journal_drives import ARRAY, STRANGER, stored

from ha.journal.quorum import newest
from ha.journal.record import Stored

QUORUM = ("d1", "d2", "d3")
ONE = stored(1, 1)
TWO = stored(1, 2, ONE.digest)
THREE = stored(2, 3, TWO.digest, leader="b")


def read(*each: tuple[Stored, ...] | None) -> dict[str, tuple[Stored, ...] | None]:
    """What the quorum drives hold, in order."""
    return dict(zip(QUORUM, each, strict=True))


def test_empty_drives_are_found_and_hold_nothing() -> None:
    found = newest(read((), (), None), QUORUM)
    assert (found.found, found.certain, found.highest, found.settled) == (True, None, None, True)


def test_a_minority_is_not_found() -> None:
    assert not newest(read((ONE, TWO), None, None), QUORUM, ARRAY).found


def test_a_straggler_is_named() -> None:
    found = newest(read((ONE, TWO), (ONE,), (ONE, TWO)), QUORUM, ARRAY)
    assert (found.certain, found.highest, found.stragglers, found.settled) == (TWO, TWO, ("d2",), True)


def test_an_unfinished_write_is_the_highest_and_not_certain() -> None:
    found = newest(read((ONE, TWO, THREE), (ONE, TWO), (ONE, TWO)), QUORUM, ARRAY)
    assert (found.certain, found.highest, found.settled) == (TWO, THREE, False)
    assert found.stragglers == ("d2", "d3")


def test_another_arrays_drive_does_not_count() -> None:
    strange = stored(9, 9, array=STRANGER)
    found = newest(read((ONE, TWO), (ONE, TWO), (strange,)), QUORUM, ARRAY)
    assert (found.found, found.highest) == (True, TWO)
    assert [(one.drives, one.code) for one in found.refused] == [(("d3",), "HA-012")]
    assert not newest(read((ONE, TWO), None, (strange,)), QUORUM, ARRAY).found


def test_without_a_name_the_majority_names_the_array() -> None:
    strange = stored(9, 9, array=STRANGER)
    assert newest(read((TWO,), (TWO,), (strange,)), QUORUM).highest == TWO
    assert not newest(read((TWO,), None, (strange,)), QUORUM).found
    assert newest(read((TWO,), (), ()), QUORUM).highest == TWO


def test_what_an_earlier_array_left_on_an_adopted_drive_is_passed_over() -> None:
    strange = stored(9, 9, array=STRANGER)
    found = newest(read((TWO,), None, (strange, TWO)), QUORUM, ARRAY)
    assert (found.found, found.highest) == (True, TWO)


def test_a_record_that_breaks_the_chain_is_refused_by_name() -> None:
    forged = stored(1, 3, ONE.digest)
    found = newest(read((ONE, TWO, forged), (ONE, TWO), (ONE, TWO)), QUORUM, ARRAY)
    assert (found.found, found.highest) == (True, TWO)
    assert [(one.drives, one.at, one.code) for one in found.refused] == [(("d1",), (1, 3), "HA-014")]
    assert "1/2" in found.refused[0].why


def test_a_refused_record_that_may_be_on_a_majority_decides_nothing() -> None:
    forged = stored(1, 3, ONE.digest)
    assert not newest(read((ONE, TWO, forged), (ONE, TWO), None), QUORUM, ARRAY).found


def test_a_newer_epoch_that_passed_over_a_settled_record_is_refused() -> None:
    ignoring = stored(2, 3, ONE.digest, leader="b")
    found = newest(read((ONE, TWO, ignoring), (ONE, TWO), (ONE, TWO)), QUORUM, ARRAY)
    assert (found.highest, len(found.refused)) == (TWO, 1)


def test_a_record_that_never_counted_breaks_no_chain() -> None:
    dead = stored(1, 3, TWO.digest)
    four = stored(2, 4, THREE.digest, leader="b")
    found = newest(read((ONE, TWO, dead, four), (ONE, TWO, THREE, four), None), QUORUM, ARRAY)
    assert (found.found, found.certain, found.refused) == (True, four, ())


def test_what_precedes_a_settled_record_must_agree_with_it() -> None:
    other = stored(1, 1, paused=True)
    found = newest(read((other, TWO), (TWO,), (TWO,)), QUORUM, ARRAY)
    assert (found.found, found.certain) == (True, TWO)
    assert [(one.drives, one.at) for one in found.refused] == [(("d1",), (1, 1))]


def test_two_records_under_one_number() -> None:
    rival = stored(1, 2, ONE.digest, paused=True)
    settled = newest(read((ONE, TWO), (ONE, TWO), (ONE, rival)), QUORUM, ARRAY)
    assert (settled.found, settled.certain) == (True, TWO)
    open_ = newest(read((ONE, TWO), (ONE, rival), None), QUORUM, ARRAY)
    assert not open_.found
    never = newest(read((ONE, TWO), (ONE, rival), (ONE,)), QUORUM, ARRAY)
    assert (never.found, never.highest) == (True, ONE)


def test_drives_beyond_the_quorum_do_not_count() -> None:
    found = newest({**read((ONE,), (ONE,), None), "d4": (ONE, TWO)}, QUORUM, ARRAY)
    assert found.highest == ONE
