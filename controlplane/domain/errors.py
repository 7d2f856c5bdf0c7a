"""Coded errors: the one exception tree that people and programs see.

Why: an admin who reads an error must learn what happened, where, why, and what to do next, and a
program must be able to branch on a stable code.  This module must never format for a terminal and never
catch foreign exceptions: adapters map those where they meet them.

Invariant: every code that is raised has a page in ``controlplane.domain.codes`` (a test holds this).

    Ws7000Error                     anything the product says no with
     +-- SpecError                  array.yaml cannot be accepted            exit 2
     +-- UsageError                 a command line cannot be accepted        exit 2
     +-- NotFound                   a named object does not exist            exit 4
     +-- Conflict                   somebody else changed it, or it exists   exit 5
     +-- Refused                    would lose data or a path; not without consent   exit 6
     +-- Unreachable                a node or an engine does not answer      exit 7
     |    +-- DeadlineExceeded      it did not answer in time                exit 124
     +-- EngineError                the engine answered with an error        exit 1
     +-- PartlyApplied              a plan stopped in the middle             exit 8
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit statuses of ``ws7000``; the table in docs/reference/cli.md is made from this enum."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DIFFERS = 3
    NOT_FOUND = 4
    CONFLICT = 5
    REFUSED = 6
    UNREACHABLE = 7
    PARTIAL = 8
    TIMEOUT = 124
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a text file a problem stands; ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Ws7000Error(Exception):
    """Base of every error the product raises on purpose.

    ``code`` is stable (``SPEC-003``), ``what`` one sentence naming the object, ``why`` the reason,
    ``remedy`` what to do, ``where`` a file position, a node or a step.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(
        self,
        code: str,
        what: str,
        *,
        why: str = "",
        remedy: str = "",
        where: str | Place = "",
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(f"{code}: {what}")
        self.code = code
        self.what = what
        self.why = why
        self.remedy = remedy
        self.where = where
        self.details = details or {}

    def to_json(self) -> dict[str, object]:
        """The error as the versioned JSON output shows it."""
        body: dict[str, object] = {"code": self.code, "what": self.what}
        if self.why:
            body["why"] = self.why
        if self.remedy:
            body["remedy"] = self.remedy
        if self.where:
            body["where"] = str(self.where)
        if self.details:
            body["details"] = self.details
        return body


class SpecError(Ws7000Error):
    """array.yaml cannot be accepted; ``problems`` holds every problem of the file, not only the first."""

    exit_code = ExitCode.USAGE

    def __init__(self, code: str, what: str, *, problems: tuple[Ws7000Error, ...] = (), **rest: object) -> None:
        super().__init__(code, what, **rest)  # type: ignore[arg-type]
        self.problems = problems


class UsageError(Ws7000Error):
    """The command line cannot be accepted."""

    exit_code = ExitCode.USAGE


class NotFound(Ws7000Error):
    """A named object does not exist."""

    exit_code = ExitCode.NOT_FOUND


class Conflict(Ws7000Error):
    """The object exists already, or somebody else changed it meanwhile."""

    exit_code = ExitCode.CONFLICT


class Refused(Ws7000Error):
    """The product will not do this, or not without an explicit word of consent."""

    exit_code = ExitCode.REFUSED


class Unreachable(Ws7000Error):
    """A node, an engine or a drive does not answer."""

    exit_code = ExitCode.UNREACHABLE


class DeadlineExceeded(Unreachable):
    """An answer did not come before its wall-clock deadline."""

    exit_code = ExitCode.TIMEOUT


class EngineError(Ws7000Error):
    """The engine answered with an error; ``details`` holds method and number."""

    exit_code = ExitCode.FAILED


class PartlyApplied(Ws7000Error):
    """A plan stopped in the middle; the next apply finishes it."""

    exit_code = ExitCode.PARTIAL
