"""An array from its drives alone: what do they say, and can it be believed?

Why: both nodes may be lost with their folders.  The labels say whose the drives are, the journal on the quorum drives
holds the whole state.  ``judge`` is pure: looks in, what was found or a refusal out.  It must never take an older state
for the newest, nor drives of two arrays for one; where it is in doubt it refuses.

The newest record on any drive is taken, as after a takeover: nobody else writes.  Its snapshot is on a majority before
the record is on any drive, so where no drive that was read has it, the record never counted, and the one before does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from controlplane.domain.desired import Array
from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.state import State
from controlplane.planner.labels import Label, wanted_label
from controlplane.reconcile.drive_reader import Look
from controlplane.store import FileStore, codec
from controlplane.store.journal import mark_formed
from ha.journal import snapshot
from ha.journal.quorum import Newest, newest
from ha.journal.record import Stored
from ha.journal.snapshot import Snapshot
from ha.model import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An array that can be imported: its state as it is to be stored, and where it comes from."""

    state: State
    record: Record
    quorum: tuple[str, ...]
    read: tuple[str, ...]
    """The quorum drives that answered."""
    missing: tuple[str, ...]
    """Drives of the array that were not read: not in the file, not attached, or silent."""
    spare: tuple[str, ...]
    """Drives of the file that are no array's."""
    settled: bool
    """Whether the record was seen on a majority."""


def judge(array: Array, looks: Mapping[str, Look]) -> Found:
    """What the drives say.  Raises ``Refused``: HA-012 drives of several arrays, HA-013 no majority, HA-015 a journal
    older than the drives, HA-016 registrations that stand, HA-017 nothing, HA-018 another file."""
    _no_conflict(looks)
    labels = {name: look.label for name, look in looks.items() if isinstance(look.label, Label)}
    uuid = _one_array(labels, looks)
    _own_names(labels)
    records = {name: looks[name].records for name in labels}
    best = next(_readable(records, looks, uuid), None)
    if best is None:
        raise Refused(
            "HA-017",
            f"the drives of array {uuid} hold no journal that can be read",
            why=f"looked at {', '.join(sorted(labels))}: no record with a state",
            remedy="name all drives of the array in the file; an array that was never formed is restored from a backup",
        )
    quorum = best[1].map.quorum
    found = newest(records, quorum, uuid)
    stored, whole = _decided(found, records, looks, quorum, uuid)
    state = _state_of(whole, stored.record, uuid)
    _not_stale(state, labels)
    if state.array.name != array.name:
        raise Refused(
            "HA-018",
            f"these drives are array {state.array.name}'s, and the file is called {array.name}",
            why="the NQNs that hosts know follow from the name",
            remedy=f"write 'name: {state.array.name}' into the file",
        )
    return Found(
        state=replace(state, array=_with_places(state.array, array)),
        record=stored.record,
        quorum=quorum,
        read=tuple(name for name in quorum if name in records),
        missing=tuple(sorted(set(state.drives) - set(labels))),
        spare=tuple(sorted(name for name, look in looks.items() if look.label is not None and name not in labels)),
        settled=found.certain == stored,
    )


def _no_conflict(looks: Mapping[str, Look]) -> None:
    held = sorted(name for name, look in looks.items() if look.conflict)
    if held:
        raise Refused(
            "HA-016",
            f"the drives {', '.join(held)} are reserved by other nodes",
            why="the registrations of the array's nodes still stand, and only they may read",
            remedy="if those nodes run, the array needs no import: start ws7000 ha agent there; if they are gone "
            "for good, add --take-over",
            details={"drives": held},
        )


def _one_array(labels: Mapping[str, Label], looks: Mapping[str, Look]) -> str:
    arrays: dict[str, list[str]] = {}
    for name, label in sorted(labels.items()):
        arrays.setdefault(label.array_uuid, []).append(name)
    if len(arrays) > 1:
        raise Refused(
            "HA-012",
            "the drives belong to several arrays",
            why="; ".join(f"array {uuid}: {', '.join(names)}" for uuid, names in arrays.items()),
            remedy="name only the drives of one of them in the file",
        )
    if not arrays:
        silent = [f"{name}: {look.why}" for name, look in sorted(looks.items()) if look.why]
        raise Refused(
            "HA-017",
            "no drive carries an array's label",
            why="; ".join(silent) or "all of them are blank, or hold something else",
            remedy="name the drives of the array in the file, where the nodes reach them",
        )
    return next(iter(arrays))


def _own_names(labels: Mapping[str, Label]) -> None:
    wrong = [f"{name} is {label.drive}" for name, label in sorted(labels.items()) if label.drive != name]
    if wrong:
        raise Refused(
            "HA-018",
            "the file gives drives other names than their labels",
            why="; ".join(wrong),
            remedy="give each drive in the file the name that its label says, or exchange their places",
        )


def _readable(
    records: Mapping[str, tuple[Stored, ...]], looks: Mapping[str, Look], uuid: str
) -> Iterator[tuple[Stored, Snapshot]]:
    """Records of this array whose state is there, newest first."""
    each = {stored.digest: stored for here in records.values() for stored in here}
    for stored in sorted(each.values(), key=lambda one: one.record.at, reverse=True):
        whole = _snapshot_of(stored, looks) if stored.record.array_uuid == uuid else None
        if whole is not None:
            yield stored, whole


def _snapshot_of(stored: Stored, looks: Mapping[str, Look]) -> Snapshot | None:
    at = stored.record.snapshot
    if at is None:
        return None
    read = (snapshot.verified(look.areas.get(at.area, b""), at) for look in looks.values())
    whole = next((snapshot.unpack(raw) for raw in read if raw is not None), None)
    return whole if whole is not None and whole.map.generation == at.generation else None


def _decided(
    found: Newest,
    records: Mapping[str, tuple[Stored, ...]],
    looks: Mapping[str, Look],
    quorum: tuple[str, ...],
    uuid: str,
) -> tuple[Stored, Snapshot]:
    if not found.found:
        unread = [f"{name}{_said(looks, name)}" for name in quorum if name not in records]
        doubts = [f"{one.at[0]}/{one.at[1]} on {', '.join(one.drives)}: {one.why}" for one in found.refused]
        raise Refused(
            "HA-013",
            f"no majority of the quorum drives {', '.join(quorum)} says which state is the newest",
            why="; ".join([f"not read: {', '.join(unread)}"] * bool(unread) + doubts),
            remedy="bring up more of the quorum drives and name them in the file",
        )
    for stored in (found.highest, found.certain):
        whole = _snapshot_of(stored, looks) if stored is not None else None
        if stored is not None and whole is not None and whole.map.quorum == quorum:
            return stored, whole
    raise _stale(f"the newest record of array {uuid} names a state that no drive holds")


def _said(looks: Mapping[str, Look], name: str) -> str:
    look = looks.get(name)
    return " (not in the file)" if look is None else f" ({look.why or 'it carries no label of the array'})"


def _state_of(whole: Snapshot, record: Record, uuid: str) -> State:
    """The state, with the owners that the record gives: the nodes decided about them since it was saved."""
    try:
        state = codec.decode(whole.state.encode())
    except codec.BadStateError as problem:
        raise Ws7000Error(
            "HA-015", "the state on the drives cannot be read", why=str(problem),
            remedy="it may be of a newer release of ws7000: use that one",
        ) from problem  # fmt: skip
    if state.uuid != uuid or state.generation != whole.map.generation:
        raise _stale("the state in the snapshot is not the one that its map was made of")
    nodes = {node.name for node in state.array.nodes}
    owners: dict[str, dict[int, str]] = {name: dict(each) for name, each in state.owners.items()}
    for group, node in record.owners.items():
        known = node in nodes and group.subsystem in state.subsystems
        if known and state.owner(group.subsystem, group.number) != node:
            owners.setdefault(group.subsystem, {})[group.number] = node
    return replace(state, owners=owners)


def _not_stale(state: State, labels: Mapping[str, Label]) -> None:
    """A drive that the state does not know, or knows otherwise, was adopted after this state was written."""
    for name, label in sorted(labels.items()):
        if name not in state.drives:
            raise _stale(f"drive {name} was adopted by the array, and this state does not know it")
        if wanted_label(state, name) != label:
            raise _stale(f"drive {name} is cut otherwise than this state says")


def _stale(why: str) -> Refused:
    return Refused(
        "HA-015",
        "the journal is older than what is on the drives",
        why=why,
        remedy="name all drives of the array in the file, so that the newest journal is among them",
    )


def _with_places(stored: Array, given: Array) -> Array:
    """The stored array where the file says it is now: nodes, shelf, and the places of the drives that it names."""
    places = {drive.name: drive for drive in given.drives}
    return replace(
        stored,
        nodes=given.nodes,
        shelf=given.shelf or stored.shelf,
        drives=tuple(
            replace(drive, source=places[drive.name].source) if drive.name in places else drive
            for drive in stored.drives
        ),
    )


def keep(found: Found, files: FileStore) -> None:
    """Write the state into the folder.  Raises ``Refused`` STORE-010 where the folder holds one that is not older."""
    with files.lock():
        held = files.load()
        if held is not None and (held.uuid != found.state.uuid or held.generation >= found.state.generation):
            raise Refused(
                "STORE-010",
                f"the state folder {files.folder} holds a state already",
                why=f"of array {held.array.name}, generation {held.generation}; "
                f"the drives say {found.state.array.name}, generation {found.state.generation}",
                remedy="name an empty folder with --state",
            )
        files.keep(found.state)
        mark_formed(files.folder)
