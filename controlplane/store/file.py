"""A generation-numbered state file per node.

Every save writes a new file beside each copy, syncs it, renames it over the copy and syncs the folder, so that
a power cut at any moment leaves each copy whole, old or new.  Reading takes the newest copy that verifies; a
missing or older copy is written again by the next save.  On two separate machines the folder has to be one
that both see, until the journal on the drives takes its place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from controlplane.domain.errors import Conflict, Ws7000Error
from controlplane.domain.state import State
from controlplane.store import codec


class FileStore:
    """State copies ``node-a.json``, ``node-b.json`` in ``folder``."""

    def __init__(self, folder: Path, nodes: Sequence[str] = ("a", "b")) -> None:
        self.folder = folder
        self._copies = [folder / f"node-{name}.json" for name in nodes]
        self._last: tuple[bytes, State] | None = None
        """What was read or written last, so that the same bytes are not decoded again."""

    def load(self) -> State | None:
        """The newest copy that verifies; raises STORE-001 when copies exist and none does."""
        found: list[State] = []
        broken: list[str] = []
        for path in self._copies:
            try:
                found.append(self._decoded(path.read_bytes()))
            except FileNotFoundError:
                continue
            except codec.BadStateError as problem:
                broken.append(f"{path.name}: {problem}")
        if found and not broken:
            return max(found, key=lambda state: state.generation)
        if broken:
            # An older state would give away slices that a newer one had cut.
            raise Ws7000Error(
                "STORE-001",
                f"{'no copy' if not found else 'one copy'} of the state in {self.folder} can"
                f"{'' if not found else 'not'} be read",
                why="; ".join(broken) + (", and it may have been the newer one" if found else ""),
                remedy="restore a copy from a backup (ws7000 array export --state-json); do not apply without it, "
                "since the map of the volumes is in there. Where the other copy is known to be the newest, remove "
                "the broken one",
            )
        return None

    def _decoded(self, raw: bytes) -> State:
        if self._last is None or self._last[0] != raw:
            self._last = raw, codec.decode(raw)
        return self._last[1]

    def save(self, state: State) -> State:
        """Write every copy with the next generation."""
        current = self.load()
        held = current.generation if current else 0
        if held != state.generation:
            raise Conflict(
                "STORE-002",
                f"the state is at generation {held}, this change was made for {state.generation}",
                why="another command changed the array meanwhile",
                remedy="run the command again",
            )
        saved = replace(state, generation=held + 1)
        self.keep(saved)
        return saved

    def keep(self, state: State) -> None:
        """Write every copy as it is, whatever was there: for a state whose generation was decided elsewhere."""
        raw = codec.encode(state)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self._copies:
            write_durably(path, raw)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold an exclusive lock on the folder; the kernel drops it with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(handle)
            raise Conflict(
                "STORE-003",
                f"another command is changing the array in {self.folder}",
                why="one change at a time",
                remedy="wait for it, or see what it does with: ws7000 array history",
            ) from problem
        try:
            yield
        finally:
            os.close(handle)


def write_durably(path: Path, raw: bytes) -> None:
    """The file is whole when this returns, and whole or as before if it does not."""
    beside = path.with_suffix(".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(raw)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
