"""Drive labels: whose is this drive?

Slice 0 begins with a label of one 4 KiB block.  Before an array writes anything on a drive it has to find the
drive blank, or labelled as its own; anything else is somebody's data and needs consent by name.  The codec
is here because it is pure; reading and writing go through the engine (``reconcile.calls``).

Layout, little endian: magic 8 B, format u32, CRC32C u32 of the JSON, length u32, JSON (UTF-8), zero padding.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import crc32c

from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.state import State
from controlplane.planner import steps as s
from controlplane.planner.steps import Phase, Risk

MAGIC: Final = b"WS7000DL"
FORMAT: Final = 1
LABEL_BYTES: Final = 4096
LOOK_BYTES: Final = 128 * 1024
"""A drive is blank only if this much of it reads zeroes: file systems, RAID members and volume managers keep
their superblocks within it (Btrfs at 64 KiB is the farthest of the common ones)."""
_HEAD: Final = struct.Struct("<8sIII")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a label says: the array's UUID, the drive's name in it, and its slicing."""

    array_uuid: str
    drive: str
    slice_bytes: int
    slice_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """The first block reads zeroes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The first block holds something that is no label of ours."""

    what: str


LabelFacts = Label | Blank | Foreign


def encode(label: Label) -> bytes:
    """The label's 4096 bytes."""
    body = json.dumps(
        {
            "array_uuid": label.array_uuid,
            "drive": label.drive,
            "slice_bytes": label.slice_bytes,
            "slice_count": label.slice_count,
        },
        sort_keys=True,
    ).encode()
    head = _HEAD.pack(MAGIC, FORMAT, crc32c.crc32c(body), len(body))
    return (head + body).ljust(LABEL_BYTES, b"\0")


def decode(start: bytes) -> LabelFacts:
    """What the first bytes of a drive say, the label block at least; never raises."""
    if not any(start):
        return Blank()
    block = start[:LABEL_BYTES]
    if not block.startswith(MAGIC):
        return Foreign(what="data that is not this product's")
    magic, version, crc, length = _HEAD.unpack_from(block)
    body = block[_HEAD.size : _HEAD.size + length]
    if magic != MAGIC or version != FORMAT:
        return Foreign(what=f"a label of format {version}, which this release does not read")
    if crc32c.crc32c(body) != crc:
        return Foreign(what="a damaged label")
    try:
        said = json.loads(body)
        return Label(
            array_uuid=str(said["array_uuid"]),
            drive=str(said["drive"]),
            slice_bytes=int(said["slice_bytes"]),
            slice_count=int(said["slice_count"]),
        )
    except (ValueError, KeyError, TypeError):
        return Foreign(what="a label that cannot be read")


def wanted_label(state: State, drive: str) -> Label:
    """The label that an adopted drive is to carry."""
    record = state.drives[drive]
    return Label(array_uuid=state.uuid, drive=drive, slice_bytes=record.slice_bytes, slice_count=record.slice_count)


def label_steps(
    before: State, state: State, labels: Mapping[str, LabelFacts]
) -> tuple[list[tuple[Phase, int, s.Step]], list[Ws7000Error]]:
    """A step for each newly adopted drive, and for each that does not carry its label."""
    # Adopted before and not read now: it is not attached, or it cannot be read; neither is a reason to write.
    skip = {name for name in state.drives if name in before.drives and name not in labels}
    wrong = [n for n in sorted(state.drives) if n not in skip and labels.get(n) != wanted_label(state, n)]
    if not wrong:
        return [], []
    placed: list[tuple[Phase, int, s.Step]] = []
    problems: list[Ws7000Error] = []
    users = {name for volume in state.volumes.values() if not volume.unscrubbed for name in volume.drives}
    for name in wrong:
        found = labels.get(name)
        if found is not None and (name in users or _is_another(state, name, found)):
            problems.append(_lost_label(name, found))
            continue
        placed.append((Phase.DRIVE_LABEL, 0, _label_step(state, name, found)))
    return placed, problems


def _is_another(state: State, name: str, found: LabelFacts) -> bool:
    """Whether this is another drive of this same array, under a wrong name."""
    return (
        isinstance(found, Label)
        and found.array_uuid == state.uuid
        and found.drive != name
        and found.drive in state.drives
    )


def _lost_label(name: str, found: LabelFacts) -> Ws7000Error:
    what = {Blank: "no label", Label: "the label of another drive or array"}.get(type(found), "something else")
    return Refused(
        "PLAN-013",
        f"drive {name} carries {what}",
        why="it was wiped or exchanged; building volumes on it would serve wrong data",
        remedy="put the right drive back; if its data is lost, remove its volumes first",
    )


def _label_step(state: State, name: str, found: LabelFacts | None) -> s.LabelDrive:
    record = state.drives[name]
    risk, destroys, sentence = Risk.NONE, "", f"adopt drive {name}: write this array's label"
    if isinstance(found, Foreign):
        risk, destroys = Risk.DATA_LOSS, name
        sentence = f"adopt drive {name}, which holds {found.what}, and overwrite it"
    elif isinstance(found, Label) and found.array_uuid != state.uuid:
        risk, destroys = Risk.DATA_LOSS, name
        sentence = f"adopt drive {name}, which belongs to array {found.array_uuid}, and overwrite it"
    elif isinstance(found, Label):
        sentence = f"write the label of drive {name} anew (it said {found.drive})"
    return s.LabelDrive(
        node=state.array.nodes[0].name,
        subject=name,
        drive=name,
        slice_bytes=record.slice_bytes,
        slice_count=record.slice_count,
        clear=not (isinstance(found, Label) and found.array_uuid == state.uuid),
        risk=risk,
        destroys=destroys,
        sentence=sentence,
        precondition="the drive is blank, ours, or given up by name",
        effect="the drive belongs to this array",
        inverse="none needed: an empty drive can be given back" if not destroys else "none: its data is gone",
    )
