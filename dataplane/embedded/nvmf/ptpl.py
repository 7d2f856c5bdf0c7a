"""Reservations that outlive the engine: the file of a namespace (``ptpl_file``), read and written whole.

Why: a fence that a restart forgets is none.  The file has SPDK's form, so that either engine reads the other's.  This
module must never take a file for "nothing stored" because it cannot read it: only a file that is not there says so.

Invariants: ``store`` returns after file and folder are on stable storage, and a reader finds the old file or the
new one; what ``load`` returns keeps the invariants of ``reservations.State``.
Source: SPDK v26.05 lib/nvmf/subsystem.c (nvmf_ns_reservation_load_json, _store_json, _restore).
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from pathlib import Path

from dataplane.embedded.nvmf.reservations import MAX_REGISTRANTS, Registration, State
from dataplane.nvme.reservations import ReservationType

_KEYS = frozenset({"ptpl", "rtype", "crkey", "bdev_uuid", "holder_uuid", "registrants"})
_NEEDED = frozenset({"bdev_uuid", "registrants"})
_KEY_MAX = (1 << 64) - 1


class StoredWrong(Exception):
    """The file cannot be what an engine wrote for this namespace."""


def to_text(state: State, bdev_uuid: str) -> str:
    """The file; when ``state`` is not to persist it says so and names nobody."""
    kept = state if state.persist else State()
    holder = "" if kept.of_all or not kept.rtype or kept.holder is None else str(uuid.UUID(bytes=kept.holder))
    return json.dumps(
        {
            "ptpl": kept.persist, "rtype": int(kept.rtype), "crkey": kept.key if kept.rtype else 0,
            "bdev_uuid": bdev_uuid.lower(), "holder_uuid": holder,
            "registrants": [
                {"rkey": item.key, "host_uuid": str(uuid.UUID(bytes=item.hostid))} for item in kept.registrations
            ],
        },
        indent=2,
    )  # fmt: skip


def from_text(text: str, bdev_uuid: str) -> State:
    """The state in the file; raises StoredWrong.  As in SPDK, the generation starts again from 0."""
    try:
        raw = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as problem:
        raise StoredWrong(f"not a JSON document: {problem}") from problem
    if not isinstance(raw, dict) or not _NEEDED <= raw.keys() <= _KEYS:
        raise StoredWrong("not the object of a reservation")
    persist, rows = raw.get("ptpl", False), raw["registrants"]
    if not isinstance(persist, bool) or not isinstance(rows, list) or len(rows) > MAX_REGISTRANTS:
        raise StoredWrong("ptpl or registrants cannot be")
    registrations = tuple(_registration(row) for row in rows)
    rtype = _number(raw.get("rtype", 0), max(ReservationType))
    key, holder = _number(raw.get("crkey", 0), _KEY_MAX), raw.get("holder_uuid", "")
    if not persist or not registrations:
        return State()
    if _host(raw["bdev_uuid"]) != uuid.UUID(bdev_uuid).bytes:
        raise StoredWrong(f"it is that of device {raw['bdev_uuid']}, not of {bdev_uuid}")
    state = State(registrations, persist=True)
    if len(state.hosts) != len(registrations):
        raise StoredWrong("a host stands in it twice")
    if key and all(item.key != key for item in registrations):
        raise StoredWrong("the key of the reservation is nobody's")
    if not rtype:
        return state
    state = State(registrations, ReservationType(rtype), registrations[0].hostid, persist=True)
    if state.of_all:
        return state
    state = State(registrations, ReservationType(rtype), _host(holder), persist=True)
    if state.key != key or not key:
        raise StoredWrong("the holder is no registrant with the key of the reservation")
    return state


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands in one object twice")
    return dict(pairs)


def _registration(row: object) -> Registration:
    if not isinstance(row, dict) or row.keys() != {"rkey", "host_uuid"}:
        raise StoredWrong("not a registrant")
    key = _number(row["rkey"], _KEY_MAX)
    if not key:
        raise StoredWrong("a registrant without a key")
    return Registration(_host(row["host_uuid"]), key)


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise StoredWrong(f"{value!r} is no number from 0 to {most}")
    return value


def _host(text: object) -> bytes:
    try:
        return uuid.UUID(str(text)).bytes
    except ValueError as problem:
        raise StoredWrong(f"{text!r} is no UUID") from problem


def load(path: str) -> str | None:
    """The text of the file, None when there is none; raises StoredWrong.  Blocks: call it in a thread."""
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise StoredWrong(f"cannot read {path}: {problem}") from problem


def store(path: str, text: str) -> None:
    """Put ``text`` in place of the file and return when it is durable; raises OSError.  Blocks."""
    place = Path(path)
    handle, beside = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(place)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
