"""The tables of methods in docs/reference/engines.md, read.

Why: a tidy test holds the page against the embedded engine, a contract test against SPDK, and both must read it
alike.  This module must never judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ENGINES_PAGE: Final = Path(__file__).resolve().parents[2] / "docs/reference/engines.md"
OPTIONAL: Final = "only in some builds of SPDK"
_ROW: Final = re.compile(r"^\| `(\w+)` \| (yes)? ?\| (.+) \|$", re.MULTILINE)
_FAMILY: Final = re.compile(r"^\| ([^`|]+) \| [^`|]+ \| ((?:`\w+` ?)+) ?\|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One method: ``text`` is same, differs: ..., or absent: ..."""

    name: str
    used: bool
    text: str


@dataclass(frozen=True, slots=True)
class EnginesPage:
    """``families``: absent as a whole; ``optional``: SPDK has them only when built so."""

    rows: tuple[Row, ...]
    families: frozenset[str]
    optional: frozenset[str]

    @staticmethod
    def parse(text: str) -> EnginesPage:
        """Read the page."""
        rows = tuple(Row(name, bool(used), said) for name, used, said in _ROW.findall(text))
        families: set[str] = set()
        optional: set[str] = set()
        for name, methods in _FAMILY.findall(text):
            (optional if name == OPTIONAL else families).update(re.findall(r"\w+", methods))
        return EnginesPage(rows, frozenset(families), frozenset(optional))

    @property
    def present(self) -> set[str]:
        """What the embedded engine has."""
        return {row.name for row in self.rows if not row.text.startswith("absent")}

    @property
    def all(self) -> set[str]:
        """Every method that is named."""
        return {row.name for row in self.rows} | self.families | self.optional
