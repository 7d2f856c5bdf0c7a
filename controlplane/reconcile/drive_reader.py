"""Slice 0 of an array's drives, read through one node's engine by raw commands.

Why apart from ``observe``: an import knows no state, only where the drives are.  Everything else about them is on them:
the label first, then the journal where the label is one.  This module must never judge what it reads, and writes
nothing but reservations, in ``take_over`` alone.

A raw command to a drive that is being reconnected ends SPDK v26.05, so the connections are looked at before each round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from controlplane.domain.desired import Array
from controlplane.domain.errors import Refused, Unreachable, Ws7000Error
from controlplane.domain.image import DriveImage, NodeImage, Unknown
from controlplane.domain.state import State
from controlplane.planner import labels
from controlplane.planner.allocate import DriveFacts
from controlplane.planner.image import wanted_image
from controlplane.reconcile import calls
from controlplane.reconcile.observe import observe
from dataplane.nvme import reservations as r
from dataplane.nvme.status import Status
from dataplane.rpc.call import Call
from dataplane.rpc.methods import nvme
from dataplane.rpc.session import Session
from ha.journal import layout, record
from ha.journal.record import Stored
from ha.keys import node_of

DEADLINE_S: Final = 60.0
_REPORT_BYTES: Final = 4096
_EAAR: Final = r.ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one drive showed.  ``label`` is None where it could not be read, and ``why`` says why; ``conflict`` says
    that registrations stand which this node is not among.  ``areas`` are the snapshot areas as they were read."""

    label: labels.LabelFacts | None = None
    block_bytes: int = 0
    records: tuple[Stored, ...] = ()
    areas: Mapping[int, bytes] = field(default_factory=dict)
    conflict: bool = False
    why: str = ""


class DriveReader:
    """The drives of ``array`` through the engine of ``node``."""

    def __init__(self, session: Session, array: Array, node: str) -> None:
        self._session = session
        self._array = array
        self._node = node
        # Only the names and places of the drives count here.
        self._state = State(array=array, uuid="")
        self._facts: Mapping[str, DriveFacts] = {}
        self._faults: dict[str, str] = {}

    def attach(self) -> None:
        """Attach the drives that are not, as an apply does.  Raises ``Unreachable`` for the engine; a drive that
        cannot be attached is kept in mind and shows as unread."""
        self._session.connect(deadline_s=DEADLINE_S)
        image = self._observed()
        if not image.drive_options and not image.drives:
            self._session.run(calls.drive_options(), deadline_s=DEADLINE_S)
        wanted = wanted_image(self._state, self._array.node(self._node)).drives
        missing = [drive for name, drive in sorted(wanted.items()) if name not in image.drives]
        elsewhere = [name for name, drive in image.drives.items() if wanted[name].source != drive.source]
        if elsewhere:
            raise Refused(
                "HA-018",
                f"node {self._node} has drive {elsewhere[0]} attached from another place than array.yaml says",
                why="what is read there may be another drive's",
                remedy="restart its engine, or correct array.yaml",
            )
        self._attach(missing)
        self._observed()

    def _attach(self, missing: Sequence[DriveImage]) -> None:
        replies = self._session.pipeline([calls.attach(drive) for drive in missing], DEADLINE_S) if missing else []
        for drive, reply in zip(missing, replies, strict=True):
            if isinstance(reply, Ws7000Error):
                self._faults[drive.name] = reply.what

    def _observed(self) -> NodeImage:
        seen = observe(self._session, self._state, self._node)
        if isinstance(seen.seen, Unknown):
            raise Unreachable(
                "RPC-002", f"node {self._node} cannot be asked", why=seen.seen.reason, remedy="start its engine"
            )
        self._facts = {name: facts for name, facts in seen.facts.items() if name in seen.seen.drives}
        return seen.seen

    def look(self) -> dict[str, Look]:
        """Every drive: its label, and what lies in the journal of those that have one."""
        names = [drive.name for drive in self._array.drives]
        start = self._read(names, 0, labels.LOOK_BYTES)
        found = {name: self._labelled(name, start[name]) for name in names}
        ours = [name for name in names if isinstance(found[name].label, labels.Label)]
        journals = self._read(ours, layout.JOURNAL_AT, layout.JOURNAL_BYTES)
        records = {name: record.decode_area(raw) for name, raw in journals.items() if isinstance(raw, bytes)}
        holders = [name for name in ours if records.get(name)]
        areas = {area: self._read(holders, layout.snapshot_at(area), layout.SNAPSHOT_BYTES) for area in (0, 1)}
        for name in ours:
            if name not in records:
                found[name] = _unread(journals[name])
                continue
            here = {area: raw for area, read in areas.items() if isinstance(raw := read.get(name), bytes)}
            found[name] = Look(
                label=found[name].label, block_bytes=found[name].block_bytes, records=records[name], areas=here
            )
        return found

    def _labelled(self, name: str, raw: bytes | str) -> Look:
        if isinstance(raw, bytes):
            return Look(label=labels.decode(raw), block_bytes=self._facts[name].block_bytes)
        return _unread(raw)

    def _read(self, names: Iterable[str], offset_bytes: int, length_bytes: int) -> dict[str, bytes | str]:
        """The range of each drive, or in words why it could not be read."""
        names = list(names)
        found: dict[str, bytes | str] = {name: self._faults.get(name, "it is not attached") for name in names}
        parts: list[tuple[str, Call[Any]]] = []
        for name in self._connected(names):
            block_bytes = self._facts[name].block_bytes
            parts += [(name, call) for call in calls.read_range(name, block_bytes, offset_bytes, length_bytes)]
        replies = self._session.pipeline([call for _, call in parts], DEADLINE_S) if parts else []
        answered = zip((name for name, _ in parts), replies, strict=True)
        for name, each in groupby(answered, key=lambda pair: pair[0]):
            mine = [reply for _, reply in each]
            bad = next((_fault(reply) for reply in mine if _fault(reply)), None)
            found[name] = bad or b"".join(reply.data for reply in mine)
        return found

    def _connected(self, names: Iterable[str]) -> list[str]:
        """Those that may be sent a raw command now."""
        infos = self._session.run(nvme.get_controllers(), deadline_s=DEADLINE_S)
        enabled = {info.name for info in infos if all(path.state == "enabled" for path in info.paths)}
        return [name for name in names if name in enabled and name in self._facts]

    # ------------------------------------------------------------------ taking the drives from nodes that are gone

    def take_over(self, names: Sequence[str], key: int) -> None:
        """Register ``key`` on each drive and evict everybody else.  The operator has said that nobody else runs.

        Report, register, preempt-and-abort, report: a preempt is sent only where this node is registered, for a
        refused one ends SPDK v26.05 as a shelf.  Raises ``Refused`` HA-019, naming what was not taken."""
        before = self._reports(names)
        for name in names:
            strangers = [each.key for each in before[name].registrants if not node_of(self._array.name, each.key)]
            if before[name].rtype != _EAAR or strangers:
                raise _not_taken(name, "its reservation is not one that the nodes of this array make")
        self._reserve(names, "register", *r.register(1, 0, key))
        command = r.acquire(1, key, _EAAR, r.AcquireAction.PREEMPT_AND_ABORT, preempt_key=0)
        self._reserve(names, "preempt", *command)
        after = self._reports(names)
        for name in names:
            if {each.key for each in after[name].registrants} != {key} or after[name].rtype != _EAAR:
                raise _not_taken(name, "another node is still registered, or has registered again")

    def _reports(self, names: Sequence[str]) -> dict[str, r.ReservationReport]:
        command = r.report(1, _REPORT_BYTES).pack()
        batch = [nvme.send_cmd(name, kind="io", sqe=command, data_len_bytes=_REPORT_BYTES) for name in names]
        replies = self._answers(names, "report its reservation", batch)
        return {name: r.parse_report(reply.data) for name, reply in replies.items()}

    def _reserve(self, names: Sequence[str], what: str, command: Any, data: bytes) -> None:  # noqa: ANN401
        self._answers(names, what, [nvme.send_cmd(name, kind="io", sqe=command.pack(), data=data) for name in names])

    def _answers(self, names: Sequence[str], what: str, batch: list[Call[Any]]) -> dict[str, Any]:
        lost = sorted(set(names) - set(self._connected(names)))
        if lost:
            raise _not_taken(lost[0], "it is not connected")
        replies = dict(zip(names, self._session.pipeline(batch, DEADLINE_S), strict=True))
        for name, reply in replies.items():
            fault = _fault(reply)
            if fault:
                raise _not_taken(name, f"it did not {what}: {fault}")
        return replies


_CONFLICT: Final = "it answers Reservation Conflict"


def _fault(reply: Any) -> str:  # noqa: ANN401 - an error or a completion
    if isinstance(reply, Ws7000Error):
        return reply.what
    if reply.ok:
        return ""
    code = reply.sct << 8 | reply.sc
    return _CONFLICT if code == Status.RESERVATION_CONFLICT else f"it answers status {code:03X}h"


def _unread(why: bytes | str) -> Look:
    return Look(conflict=why == _CONFLICT, why=str(why))


def _not_taken(drive: str, why: str) -> Refused:
    return Refused(
        "HA-019",
        f"drive {drive} was not taken over",
        why=why,
        remedy="make sure that no node of the array runs anywhere, then run it again; drives that were taken stay so",
    )
