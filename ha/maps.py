"""The map of the array as an agent has it: from the journal, from an order, or from the last life of the agent.

Why: everything that a node decides about drives and groups needs the ``ServiceMap``, which is inside the snapshot
that the newest record names.  The copy in the agent's folder is a cache: it says which drives are the quorum before
anything can be read.  This module must never take a snapshot for the one that a record names unless its SHA-256 is
the record's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ha.journal import snapshot
from ha.memory import Memory
from ha.model import NO_KEY, Record, ServiceMap, SnapshotAt

CACHE: Final = "map.snapshot"
BUILT: Final = "built.json"
SERVED: Final = "served.json"
MAX_OFFERED: Final = 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """A snapshot and the map in it.  That of many volumes takes longer than a tick to decode, so the agent has it done
    in a thread."""

    raw: bytes
    sha256: str
    map: ServiceMap

    @classmethod
    def of(cls, raw: bytes) -> Decoded:
        """Raises ``ValueError`` for what is no snapshot."""
        found = snapshot.unpack(raw)
        if found is None:
            raise ValueError("it is no snapshot of an array")
        return cls(raw, hashlib.sha256(raw).hexdigest(), found.map)


class Maps:
    """``current`` is the newest map known here, ``certain`` the place in the journal that it was read from: None for
    one that no record has named."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offered: dict[str, Decoded] = {}
        self._raw = b""
        self._unkept: bytes | None = None
        self.current: ServiceMap | None = None
        self.certain: SnapshotAt | None = None
        with contextlib.suppress(OSError, ValueError):  # a cache that cannot be used is none
            self.current = Decoded.of((folder / CACHE).read_bytes()).map

    def offer(self, one: Decoded) -> None:
        """A snapshot that an order brought; a record may name it later."""
        self._offered[one.sha256] = one
        while len(self._offered) > MAX_OFFERED:
            del self._offered[next(iter(self._offered))]

    def learn(self, one: Decoded) -> None:
        """What the array is, before a record has told; an older one than what is known changes nothing."""
        self.offer(one)
        if self.certain is None and (self.current is None or one.map.generation >= self.current.generation):
            self.current = one.map
            self._unkept = one.raw

    def wanted(self, memory: Memory) -> SnapshotAt | None:
        """The snapshot to be read from the drives, if there is one; what an order brought is taken at once."""
        named = _named(memory)
        if named is None or named == self.certain:
            return None
        offered = self._offered.get(named.sha256)
        return named if offered is None or not self.take(named, offered) else None

    def take(self, at: SnapshotAt, one: Decoded) -> bool:
        """A snapshot as a record names it; whether it is that one."""
        if one.sha256 != at.sha256:
            return False
        self.current, self.certain, self._raw, self._unkept = one.map, at, one.raw, one.raw
        return True

    def newest(self, memory: Memory) -> bytes | None:
        """The snapshot that the newest record names, None where it has not been read."""
        named = _named(memory)
        return self._raw if named is not None and named == self.certain else None

    @property
    def kept(self) -> bool:
        """Whether the cache holds, or is being given, what it is to hold."""
        return self._unkept is None

    def unkept(self) -> bytes | None:
        """What the cache is to hold now and does not; once."""
        raw, self._unkept = self._unkept, None
        return raw

    def keep(self, raw: bytes) -> None:
        """Write the cache; it may be done in a thread, by one at a time."""
        _write(self._folder / CACHE, raw)


class Built:
    """Which generation the data plane was built to, kept for an agent that is started again while it runs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / BUILT

    def of(self, key: int) -> int:
        """The generation for that incarnation, 0 where it is not known."""
        try:
            body = json.loads(self._path.read_text(encoding="utf-8"))
            return int(body["generation"]) if key != NO_KEY and body["key"] == f"{key:016x}" else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def keep(self, key: int, generation: int) -> None:
        """For ``of``."""
        _write(self._path, json.dumps({"key": f"{key:016x}", "generation": generation}).encode())


class Served:
    """Which incarnation was about to become a member: an agent that is started again beside it must not take it for a
    fresh one.  ``before`` is the key that an earlier life of the agent wrote down."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / SERVED
        self.before = NO_KEY
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self.before = int(json.loads(self._path.read_text(encoding="utf-8"))["key"], 16)
        self._kept = self.before

    def keep(self, key: int) -> None:
        """Write it down, before anything is done with the drives."""
        if key != self._kept:
            self._kept = key
            _write(self._path, json.dumps({"key": f"{key:016x}"}).encode())


def _named(memory: Memory) -> SnapshotAt | None:
    records: list[Record] = [memory.record] if memory.record is not None else []
    if memory.takeover is not None and memory.takeover.found is not None:
        records.append(memory.takeover.found)
    return max(records, key=lambda record: record.at).snapshot if records else None


def _write(path: Path, raw: bytes) -> None:
    """Whole or not at all.  It is a cache, so it is not waited for until it is on the drive, and a folder that
    cannot be written is no reason to stop."""
    with contextlib.suppress(OSError):
        beside = path.with_suffix(".new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(raw)
        beside.replace(path)
