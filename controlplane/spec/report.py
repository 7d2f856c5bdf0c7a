"""Where the cross-checks put what they find: problems and warnings with their places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path as FilePath

from controlplane.spec.partial import Partial
from controlplane.spec.problems import MAX_PROBLEMS, Problem, dotted, nearest
from controlplane.spec.yaml_source import Path, Source


class Report:
    """Collects problems and warnings; paths are those of the (pruned) spec, places those of the file."""

    def __init__(self, source: Source, partial: Partial, base: FilePath) -> None:
        self.source = source
        self.partial = partial
        self.base = base
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, code: str, path: Path, what: str, why: str, remedy: str) -> None:
        """A mistake in the value at ``path``."""
        self.problems.append(self._made(code, path, what, why, remedy))

    def warn(self, code: str, path: Path, what: str, why: str, remedy: str) -> None:
        """Something legal that the admin may not have meant."""
        self.warnings.append(self._made(code, path, what, why, remedy))

    def _made(self, code: str, path: Path, what: str, why: str, remedy: str) -> Problem:
        place = self.source.place(self.partial.path(path))
        return Problem(code=code, what=what, why=why, remedy=remedy, place=place)

    def label(self, path: Path) -> str:
        """A path as people write it, with the indexes of the file."""
        return dotted(self.partial.path(path))

    def guess(self, word: str, known: Iterable[str]) -> str:
        """The known word that was probably meant; not looked for once a screenful of problems was found."""
        return nearest(word, known) if len(self.problems) < MAX_PROBLEMS else ""

    def line(self, path: Path) -> int:
        """The line of a value, to be named in the message about another one."""
        return self.source.place(self.partial.path(path)).line

    def forgiven(self, kind: str, name: str) -> bool:
        """True if an entry that was refused for another reason may have defined this name."""
        return kind in self.partial.open or name in self.partial.broken.get(kind, ())

    def whole(self, *kinds: str) -> bool:
        """True if these sections are complete, so that counting their entries means something."""
        return not any(kind in self.partial.open or self.partial.broken.get(kind) for kind in kinds)

    def absolute(self, path: str) -> str:
        """A path of the file as an absolute one: relative paths count from the directory of the file."""
        return str(self.base / path)
