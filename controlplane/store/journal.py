"""The state behind the journal on the drives, with files as its copy on this machine.

Why: what was acknowledged must be on a majority of the quorum drives (I7), whichever node is lost.  Once the array is
formed, the leader's agent is the only writer; this store asks it to write, and writes the files only afterwards, so
that a file is never newer than the journal.  Before that, the files alone count.

Invariant: on an array that was formed, nothing is loaded or saved without the agents.  The mark ``formed`` in the
folder remembers that for the time when none answers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from controlplane.domain.errors import Conflict, Refused, Unreachable, Ws7000Error
from controlplane.domain.state import State
from controlplane.store import codec
from controlplane.store.file import FileStore, write_durably
from controlplane.store.service_map import service_map
from ha.journal.snapshot import Snapshot, pack, unpack

FORMED: Final = "formed"


class Agents(Protocol):
    """The HA agents of the array, asked through whichever of them leads."""

    def leader_load(self) -> tuple[int, bytes] | None:
        """Generation and snapshot of the newest state in the journal; None where the array is not formed.

        Raises ``Unreachable`` when no agent answers, or none that leads."""

    def leader_save(self, expects: int, generation: int, snapshot: bytes, *, form: bool = False) -> None:
        """Put ``snapshot`` on a majority of the quorum drives; it is there when this returns.

        Raises ``Conflict`` when the newest generation is not ``expects``, ``Unreachable`` as above: then it may be
        there or not, and the next load tells."""


def mark_formed(folder: Path) -> None:
    """Remember that the state of this folder is only a copy."""
    mark = folder / FORMED
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(mark, b"the array's state is in the journal on its drives\n")


class HaStore:
    """``Store`` over the agents' journal; ``files`` is the copy, and the whole truth until the array is formed."""

    def __init__(self, files: FileStore, agents: Agents) -> None:
        self._files = files
        self._agents = agents

    def load(self) -> State | None:
        """The newest state of the journal, or that of the files where the array is not formed."""
        found = self._from_journal()
        return self._files.load() if found is None else _state(found)

    def save(self, state: State) -> State:
        """Put ``state`` on the drives with the next generation, then into the files."""
        found = self._from_journal()
        if found is None:
            return self._files.save(state)
        held = _state(found)
        if held.generation != state.generation:
            raise Conflict(
                "STORE-002",
                f"the state is at generation {held.generation}, this change was made for {state.generation}",
                why="another command changed the array meanwhile, perhaps on the other node",
                remedy="run the command again",
            )
        return self._put(state, found.map.quorum, form=False)

    def form(self) -> State:
        """Put the state of the files on the drives as the first of the journal, and choose the drives that vote."""
        if self._from_journal() is not None:
            raise Conflict(
                "STORE-009",
                "the array is formed already",
                why="its journal is on the drives and holds a state",
                remedy="nothing is to be done; ws7000 array show shows it",
            )
        state = self._files.load()
        if state is None or state.generation == 0:
            raise Refused(
                "STORE-006",
                "there is no state to form the array with",
                why="nothing was applied yet, so no drive has a reserved slice",
                remedy="ws7000 array apply, then form the array again",
            )
        return self._put(state, (), form=True)

    def lock(self) -> AbstractContextManager[None]:
        """One change at a time on this machine; between machines ``expects`` decides."""
        return self._files.lock()

    def _put(self, state: State, quorum: tuple[str, ...], *, form: bool) -> State:
        saved = replace(state, generation=state.generation + 1)
        packed = pack(Snapshot(state=codec.encode(saved).decode(), map=service_map(saved, quorum)))
        self._agents.leader_save(state.generation, saved.generation, packed, form=form)
        mark_formed(self._files.folder)
        self._files.keep(saved)
        return saved

    def _from_journal(self) -> Snapshot | None:
        formed = (self._files.folder / FORMED).exists()
        try:
            found = self._agents.leader_load()
        except Unreachable as problem:
            if not formed:
                return None
            raise Unreachable(
                "STORE-007",
                "the array's state cannot be read: no HA agent answers",
                why=f"the array is formed, so its state is on the drives, not in {self._files.folder} ({problem.what})",
                remedy="start ws7000 ha agent on a node; ws7000 ha status shows what they say",
            ) from problem
        if found is None:
            if formed:
                raise _disagree("the agents know of no journal, and this array is formed")
            return None
        generation, raw = found
        whole = unpack(raw)
        if whole is None or whole.map.generation != generation or _state(whole).generation != generation:
            raise _disagree(f"generation {generation} of the journal cannot be read as a state")
        self._compare(_state(whole))
        return whole

    def _compare(self, state: State) -> None:
        """The files are this array's, and not newer than its journal."""
        try:
            held = self._files.load()
        except Ws7000Error as problem:
            if problem.code != "STORE-001":
                raise
            held = None  # a broken copy is written again by the next save
        if held is None:
            return
        if held.uuid != state.uuid:
            raise _disagree(f"the journal is array {state.uuid}'s, the files are {held.uuid}'s")
        if held.generation > state.generation:
            raise _disagree(f"the journal is at generation {state.generation}, the files at {held.generation}")


def _state(snapshot: Snapshot) -> State:
    """The state in a snapshot; raises STORE-008 when it is none."""
    try:
        state = codec.decode(snapshot.state.encode())
    except codec.BadStateError as problem:
        raise _disagree(f"the state in the journal cannot be read: {problem}") from problem
    if state.uuid != snapshot.map.array_uuid:
        raise _disagree("the state in the journal is of another array than its map")
    return state


def _disagree(why: str) -> Ws7000Error:
    return Ws7000Error(
        "STORE-008",
        "the journal on the drives and the state folder do not agree",
        why=why,
        remedy="look with ws7000 ha status and ws7000 array import --dry-run; change nothing before it is clear which "
        "is right",
    )
