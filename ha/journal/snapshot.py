"""The array's state as it lies in a snapshot area: the state itself, and what the agents need of it.

Why both: an agent has neither pydantic nor the planner, so the control plane derives the ``ServiceMap`` from the state
and stores it beside it; the state is text that nobody here looks into.  A snapshot counts only through the record that
names its SHA-256, so this module must never judge which one is the newest.

Rule for writers: a leader writes a snapshot only after a record of its own epoch is on a majority.  Before that a
record that it has not seen, on a drive that it did not reach, may name the very area that looks free, and be found
later.

Container: zlib of one JSON object ``{"map": {...}, "state": "..."}``.  Reading never raises and never unpacks more than
``UNPACKED_BYTES``.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import Final

from controlplane.domain.errors import Refused
from ha.journal import strict
from ha.journal.layout import SNAPSHOT_BYTES
from ha.model import GroupMap, Leg, ListenerAt, MirrorMap, NamespaceMap, ServiceMap, SnapshotAt

UNPACKED_BYTES: Final = 64 * 1024 * 1024
_LEVEL: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a snapshot holds: ``state`` as the control plane wrote it, and the map derived from it."""

    state: str
    map: ServiceMap


def pack(snapshot: Snapshot) -> bytes:
    """The container's bytes; raises ``Refused`` HA-011 when they do not fit an area."""
    text = strict.canonical({"map": map_to_json(snapshot.map), "state": snapshot.state})
    raw = zlib.compress(text, _LEVEL)
    if len(raw) > SNAPSHOT_BYTES or len(text) > UNPACKED_BYTES:
        raise Refused(
            "HA-011",
            "the array's state does not fit its area on the drives",
            why=f"it has {len(raw)} bytes packed and {len(text)} unpacked, of {SNAPSHOT_BYTES} and {UNPACKED_BYTES}",
            remedy="remove volumes or hosts, or use larger slices for new drives, so that volumes have fewer of them",
        )
    return raw


def unpack(raw: bytes) -> Snapshot | None:
    """What ``raw`` holds, or None."""
    try:
        stream = zlib.decompressobj()
        text = stream.decompress(raw, UNPACKED_BYTES)
        if not stream.eof or stream.unused_data:
            return None
        body = strict.exactly(strict.parsed(text), ("map", "state"))
        return Snapshot(state=strict.text(body["state"]), map=map_from_json(body["map"]))
    except (ValueError, zlib.error):
        return None


def located(raw: bytes, area: int, generation: int) -> SnapshotAt:
    """What a record says of a snapshot that is written to ``area``."""
    return SnapshotAt(area=area, size_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest(), generation=generation)


def free_area(last: SnapshotAt | None) -> int:
    """The area that the newest record does not name: the next snapshot goes there."""
    return 0 if last is None else 1 - last.area


def verified(area: bytes, at: SnapshotAt) -> bytes | None:
    """The snapshot that the record names, cut from what was read of its area; None when it is not that one."""
    raw = area[: at.size_bytes]
    return raw if hashlib.sha256(raw).hexdigest() == at.sha256 and len(raw) == at.size_bytes else None


# ------------------------------------------------------------------ the map as JSON


def map_to_json(service: ServiceMap) -> dict[str, object]:
    """The map as values that JSON knows."""
    return {
        "array_uuid": service.array_uuid,
        "block_bytes": dict(service.block_bytes),
        "generation": service.generation,
        "groups": {str(group): _group_to_json(one) for group, one in service.groups.items()},
        "quorum": list(service.quorum),
    }


def map_from_json(value: object) -> ServiceMap:
    """The map; raises ``ValueError`` for anything that ``map_to_json`` would not write."""
    body = strict.exactly(value, ("array_uuid", "block_bytes", "generation", "groups", "quorum"))
    service = ServiceMap(
        array_uuid=strict.text(body["array_uuid"]),
        generation=strict.integer(body["generation"]),
        quorum=strict.texts(body["quorum"]),
        block_bytes={name: strict.integer(size) for name, size in strict.mapping(body["block_bytes"]).items()},
        groups={strict.group(key): _group_from_json(one) for key, one in strict.mapping(body["groups"]).items()},
    )
    if len(service.quorum) % 2 == 0 or not set(service.quorum) <= service.block_bytes.keys():
        raise ValueError("the quorum is not an odd number of the array's drives")
    if not all(service.block_bytes.values()):
        raise ValueError("a drive has no block size")
    return service


def _group_to_json(group: GroupMap) -> dict[str, object]:
    return {
        "listeners": {
            node: [{"address": at.address, "service": at.service, "transport": at.transport} for at in listeners]
            for node, listeners in group.listeners.items()
        },
        "namespaces": [_namespace_to_json(one) for one in group.namespaces],
        "nqn": group.nqn,
    }


def _group_from_json(value: object) -> GroupMap:
    body = strict.exactly(value, ("listeners", "namespaces", "nqn"))
    return GroupMap(
        nqn=strict.text(body["nqn"]),
        listeners={
            strict.node(name): tuple(_listener_from_json(one) for one in strict.sequence(found))
            for name, found in strict.mapping(body["listeners"]).items()
        },
        namespaces=tuple(_namespace_from_json(one) for one in strict.sequence(body["namespaces"])),
    )


def _listener_from_json(value: object) -> ListenerAt:
    body = strict.exactly(value, ("address", "service", "transport"))
    return ListenerAt(
        transport=strict.text(body["transport"]),
        address=strict.text(body["address"]),
        service=strict.integer(body["service"], high=65535),
    )


def _namespace_to_json(one: NamespaceMap) -> dict[str, object]:
    return {
        "bare": list(one.bare),
        "mirrors": [
            {"legs": [{"bdev": leg.bdev, "drive": leg.drive} for leg in mirror.legs], "name": mirror.name}
            for mirror in one.mirrors
        ],
        "nsid": one.nsid,
        "volume": one.volume,
    }


def _namespace_from_json(value: object) -> NamespaceMap:
    body = strict.exactly(value, ("bare", "mirrors", "nsid", "volume"))
    return NamespaceMap(
        nsid=strict.integer(body["nsid"], high=0xFFFFFFFF),
        volume=strict.text(body["volume"]),
        bare=strict.texts(body["bare"]),
        mirrors=tuple(_mirror_from_json(one) for one in strict.sequence(body["mirrors"])),
    )


def _mirror_from_json(value: object) -> MirrorMap:
    body = strict.exactly(value, ("legs", "name"))
    legs = (strict.exactly(one, ("bdev", "drive")) for one in strict.sequence(body["legs"]))
    return MirrorMap(
        name=strict.text(body["name"]),
        legs=tuple(Leg(bdev=strict.text(one["bdev"]), drive=strict.text(one["drive"])) for one in legs),
    )
