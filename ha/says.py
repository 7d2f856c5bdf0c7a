"""What a node says, as bytes: ``Says`` and the hosts' connections, coded strictly in both directions.

Why apart from the heartbeat: what is said may be longer than a datagram, so ``ha.heartbeat`` cuts these bytes into
pieces without looking into them.  This module must do no I/O, and must never guess: what is not exactly as written here
raises ``ValueError``.  Only a field that this version does not know is passed over, and only when the sender
announces a newer version, so that nodes of two versions can work together while they are upgraded one after the other.

``Says`` is JSON in which a field that has its default value is left out.  Both kinds are compressed, and nothing that
would unpack to more than ``MAX_BYTES`` is unpacked.
"""

from __future__ import annotations

import ipaddress
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ha.model import FORMAT_VERSION, NODES, GroupId, NodeName, Phase, Says

MAX_BYTES: Final = 1 << 20
MAX_CONNECTIONS: Final = 8192
_U64: Final = (1 << 64) - 1
_LEVEL: Final = 1  # a heartbeat must not cost what it is to save


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HostConnection:
    """An established TCP connection of a host: our end, and the host's."""

    address: str
    service: int
    host_address: str
    host_service: int


def pack_says(says: Says) -> bytes:
    """The bytes; raises ``ValueError`` for more than the peer would unpack."""
    plain = Says(node=says.node)
    body: dict[str, object] = {"node": says.node, "version": says.version}
    for name, dump in _DUMP.items():
        value = getattr(says, name)
        if value != getattr(plain, name):
            body[name] = dump(value)
    return _pack(json.dumps(body, separators=(",", ":")).encode())


def unpack_says(raw: bytes) -> Says:
    """Raises ``ValueError`` for anything else than ``pack_says`` makes."""
    try:
        body = json.loads(_unpack(raw))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(body, dict):
        raise ValueError("what a node says is an object")
    version = _number(body.get("version"))
    unknown = set(body) - set(_LOAD) - {"node", "version"}
    if unknown and version <= FORMAT_VERSION:
        raise ValueError(f"unknown fields of a known version: {sorted(unknown)}")
    fields = {name: load(body[name]) for name, load in _LOAD.items() if name in body}
    return Says(node=_node(body.get("node")), version=version, **fields)  # type: ignore[arg-type]


def pack_connections(connections: Iterable[HostConnection]) -> bytes:
    """The first ``MAX_CONNECTIONS`` of them, sorted."""
    found = sorted(set(connections))[:MAX_CONNECTIONS]
    return _pack(
        b"".join(_end(each.address, each.service) + _end(each.host_address, each.host_service) for each in found)
    )


def unpack_connections(raw: bytes) -> tuple[HostConnection, ...]:
    """Raises ``ValueError`` for anything else than ``pack_connections`` makes."""
    rest = _unpack(raw)
    found = []
    while rest:
        address, service, rest = _read_end(rest)
        host_address, host_service, rest = _read_end(rest)
        found.append(
            HostConnection(address=address, service=service, host_address=host_address, host_service=host_service)
        )
    if len(found) > MAX_CONNECTIONS:
        raise ValueError("more connections than are ever sent")
    return tuple(found)


def _end(address: str, service: int) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return struct.pack("!BH", len(packed), service) + packed


def _read_end(raw: bytes) -> tuple[str, int, bytes]:
    if len(raw) < 3:
        raise ValueError("cut off")
    length, service = struct.unpack_from("!BH", raw)
    if length not in (4, 16) or len(raw) < 3 + length:
        raise ValueError("no address")
    return str(ipaddress.ip_address(raw[3 : 3 + length])), service, raw[3 + length :]


def _pack(body: bytes) -> bytes:
    if len(body) > MAX_BYTES:
        raise ValueError(f"{len(body)} bytes are more than a peer unpacks")
    return zlib.compress(body, _LEVEL)


def _unpack(raw: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        body = inflate.decompress(raw, MAX_BYTES)
    except zlib.error as error:
        raise ValueError("not compressed as it should be") from error
    if not inflate.eof or inflate.unused_data:
        raise ValueError("cut off, followed by something else, or too large")
    return body


# ------------------------------------------------------------------ values to JSON and back


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _U64:
        raise ValueError(f"not a number of 64 bits: {value!r:.40}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"neither true nor false: {value!r:.40}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a text: {value!r:.40}")
    return value


def _node(value: object) -> NodeName:
    if value not in NODES:
        raise ValueError(f"no node: {value!r:.40}")
    return value


def _list(value: object, length: int | None = None) -> list[object]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise ValueError(f"not a list as it should be: {value!r:.40}")
    return value


def _group(value: object) -> GroupId:
    subsystem, number = _list(value, 2)
    return GroupId(_text(subsystem), _number(number))


def _groups(value: object) -> frozenset[GroupId]:
    return frozenset(_group(each) for each in _list(value))


def _releases(value: object) -> dict[GroupId, int]:
    rows = [_list(each, 3) for each in _list(value)]
    return {_group(row[:2]): _number(row[2]) for row in rows}


def _members(value: object) -> dict[NodeName, int]:
    if not isinstance(value, dict):
        raise ValueError("members are an object")
    return {_node(node): _number(key) for node, key in value.items()}


def _at(value: object) -> tuple[int, int]:
    epoch, sequence = _list(value, 2)
    return _number(epoch), _number(sequence)


def _dump_groups(groups: frozenset[GroupId]) -> list[list[object]]:
    return [[each.subsystem, each.number] for each in sorted(groups)]


def _dump_releases(releases: dict[GroupId, int]) -> list[list[object]]:
    return [[group.subsystem, group.number, sequence] for group, sequence in sorted(releases.items())]


_LOAD: Final[dict[str, Callable[[object], object]]] = {
    "phase": lambda value: Phase(_text(value)),
    "key": _number,
    "ended": _number,
    "at": _at,
    "leader": lambda value: None if value is None else _node(value),
    "members": _members,
    "releases": _releases,
    "asks": _groups,
    "rebuilt": _groups,
    "failed": lambda value: frozenset(_text(each) for each in _list(value)),
    "unregistered": lambda value: frozenset(_text(each) for each in _list(value)),
    "blind": _flag,
    "silent": lambda value: frozenset(_text(each) for each in _list(value)),
    "built": _number,
    "holds": lambda value: frozenset(_node(each) for each in _list(value)),
    "ports_up": _number,
    "ports": _number,
}
_DUMP: Final[dict[str, Callable[..., object]]] = {
    **dict.fromkeys(_LOAD, lambda value: value),
    "at": list,
    "members": dict,
    "releases": _dump_releases,
    "asks": _dump_groups,
    "rebuilt": _dump_groups,
    "failed": sorted,
    "silent": sorted,
    "holds": sorted,
    "unregistered": sorted,
}
