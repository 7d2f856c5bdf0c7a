"""Which record is the newest?  Majority logic over what was read from the quorum drives.

Why: a record is written to all quorum drives and counts once a majority has it, so any majority that is read shows
every record that counts.  A drive may hold less (it was away), or what never counted (a writer that died half-way), or
another array's journal (cables were swapped).  This module must never take one of those for the truth and never do I/O.

What always holds, for writers that keep the rule of ``ha.model.Record`` (one leader an epoch, the next sequence only
once this one is on a majority, nothing twice under one number):
- where ``found``, ``highest`` is not older than any record that is on a majority of the quorum drives;
- ``certain`` is on a majority of them;
- a record that breaks the hash chain, or has a rival under its own number, is never either of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ha.journal.layout import place
from ha.journal.record import Stored

__all__ = ["Newest", "Refusal", "foreign", "newest", "place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A record that was not believed: where it lies, which one it is, the code and the reason."""

    drives: tuple[str, ...]
    at: tuple[int, int]
    code: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """What the quorum drives say.

    ``found``: a majority answered, and nothing read casts doubt on which record is the newest.  ``certain`` is the
    newest record that was seen on a majority; ``highest`` the newest on any drive.  They differ when a write was not
    finished, or when some of the drives that hold it were not read.  ``stragglers`` are the drives read that lack
    ``highest``."""

    found: bool
    certain: Stored | None = None
    highest: Stored | None = None
    stragglers: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @property
    def settled(self) -> bool:
        """Whether nothing newer than ``certain`` can be on a majority."""
        return self.found and self.certain == self.highest


def foreign(read: Mapping[str, tuple[Stored, ...] | None], array_uuid: str) -> tuple[Refusal, ...]:
    """The records of other arrays, one refusal for each drive that holds some."""
    refused = []
    for drive, records in sorted(read.items()):
        theirs = [stored for stored in records or () if stored.record.array_uuid != array_uuid]
        if theirs:
            last = max(theirs, key=lambda stored: stored.record.at)
            this = f"this is {array_uuid}" if array_uuid else "the drives do not agree on one"
            why = f"it is of array {last.record.array_uuid}, and {this}"
            refused.append(Refusal(drives=(drive,), at=last.record.at, code="HA-012", why=why))
    return tuple(refused)


def newest(
    read: Mapping[str, tuple[Stored, ...] | None], quorum: Sequence[str], array_uuid: str | None = None
) -> Newest:
    """What ``read`` says.  None for a drive that did not answer, or is not the drive that it should be (its label
    tells); an empty tuple for one that answered and holds no record.  Drives that are not in ``quorum`` do not count.

    A drive that holds another array's records and none of this one's counts as one that did not answer.  Without
    ``array_uuid`` the array is the only one that is named, or the one that a majority names."""
    answers = {drive: read.get(drive) for drive in quorum}
    majority = len(answers) // 2 + 1
    array = array_uuid if array_uuid is not None else _array(answers, majority)
    strange = foreign(answers, array or "")
    voters = {
        drive: tuple(stored for stored in records if stored.record.array_uuid == array)
        for drive, records in answers.items()
        if records is not None
    }
    voters = {drive: ours for drive, ours in voters.items() if ours or not answers[drive]}
    copies = _copies(voters, majority)
    refused = {**_rivals(copies), **_breaks(copies)}
    believed = [copy for copy in copies if copy.stored.digest not in refused]
    highest = _last(believed)
    unread = len(answers) - len(voters)
    # A record that is not believed and yet may be on a majority: nothing older may be called the newest.
    doubt = any(
        len(copy.drives) + unread >= majority and (highest is None or copy.at > highest.at)
        for copy in copies
        if copy.stored.digest in refused
    )
    certain = _last([copy for copy in believed if copy.settled])
    return Newest(
        found=len(voters) >= majority and not doubt,
        certain=certain.stored if certain else None,
        highest=highest.stored if highest else None,
        stragglers=tuple(drive for drive in voters if highest is not None and drive not in highest.drives),
        refused=strange
        + tuple(
            Refusal(drives=copy.drives, at=copy.at, code="HA-014", why=refused[copy.stored.digest])
            for copy in copies
            if copy.stored.digest in refused
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies:
    """One record and the drives that hold it; ``settled`` where they are a majority."""

    stored: Stored
    drives: tuple[str, ...]
    settled: bool

    @property
    def at(self) -> tuple[int, int]:
        return self.stored.record.at


def _array(answers: Mapping[str, tuple[Stored, ...] | None], majority: int) -> str | None:
    """The only array that is named, or the one that a majority of the drives name."""
    named: dict[str, int] = {}
    for records in answers.values():
        for array in {stored.record.array_uuid for stored in records or ()}:
            named[array] = named.get(array, 0) + 1
    return next((array for array, drives in named.items() if len(named) == 1 or drives >= majority), None)


def _copies(voters: Mapping[str, tuple[Stored, ...]], majority: int) -> list[_Copies]:
    """Every record that was read, once, oldest first."""
    holders: dict[bytes, tuple[Stored, list[str]]] = {}
    for drive, records in voters.items():
        for stored in records:
            holders.setdefault(stored.digest, (stored, []))[1].append(drive)
    copies = (
        _Copies(stored=stored, drives=tuple(drives), settled=len(drives) >= majority)
        for stored, drives in holders.values()
    )
    return sorted(copies, key=lambda copy: (copy.at, copy.stored.digest))


def _last(copies: Sequence[_Copies]) -> _Copies | None:
    return max(copies, key=lambda copy: copy.at, default=None)


def _rivals(copies: Sequence[_Copies]) -> dict[bytes, str]:
    """Digest and reason of each record that shares its number with another and is not the one that counts."""
    found: dict[bytes, str] = {}
    for copy in copies:
        others = [one for one in copies if one.at == copy.at and one is not copy]
        if others and not copy.settled:
            also = ", ".join(drive for one in others for drive in one.drives)
            found[copy.stored.digest] = f"another record of the same epoch and sequence lies on {also}"
    return found


def _breaks(copies: Sequence[_Copies]) -> dict[bytes, str]:
    """Digest and reason of each record that breaks the hash chain.

    A record of an older epoch that never counted may lie where the predecessor would: that breaks nothing."""
    found: dict[bytes, str] = {}
    for copy in copies:
        before = [one for one in copies if one.stored.record.sequence == copy.stored.record.sequence - 1]
        if any(one.stored.digest == copy.stored.previous for one in before):
            continue
        for one in before:
            same_writer = one.stored.record.epoch == copy.stored.record.epoch
            if not same_writer and not (one.settled and one.at < copy.at):
                continue
            wrong, right = (one, copy) if copy.settled and not one.settled else (copy, one)
            name = "follows" if wrong is copy else "is followed by"
            found[wrong.stored.digest] = (
                f"it {name} record {right.stored.record.epoch}/{right.stored.record.sequence} on "
                f"{', '.join(right.drives)}, but their digests do not agree"
            )
    return found
