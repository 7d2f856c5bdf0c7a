"""The only printer: results to stdout, talk to stderr.

Why one place: a table for people and the same facts as JSON must not drift apart, so a command hands over items
(JSON values) and columns (functions of an item), never text.  Invariants: nothing is wrapped or coloured into a
pipe; a state is a word, colour only repeats it; what comes from elsewhere cannot drive the terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import yaml
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from cli.options import Color, Format, Settings

API_VERSION: Final = "ws7000/v1"
Item = Mapping[str, Any]
_STYLES: Final = {
    "OK": "green",
    "DEGRADED": "yellow",
    "MISSING": "bold red",
    "UNKNOWN": "magenta",
    "DATA LOSS": "bold red",
    "PATH LOSS": "yellow",
    "error:": "bold red",
    "warning:": "yellow",
}
_GAP: Final = 3
_NARROW_GAP: Final = 2
_NARROWEST: Final = 6
"""No column becomes narrower than this to fit a terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its title, how an item shows in it, and whether only ``-o wide`` has it."""

    title: str
    show: Callable[[Item], str]
    wide: bool = False


def harmless(text: str) -> str:
    """``text`` without what could move the cursor or start an escape sequence; newlines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def versioned(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A result as programs get it."""
    return {"apiVersion": API_VERSION, "kind": kind, **body}


def _console(color: Color, *, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        force_terminal=True if color is Color.ALWAYS else None,
        no_color={Color.ALWAYS: False, Color.NEVER: True}.get(color),
        color_system="standard" if color is Color.ALWAYS else "auto",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def painted(line: str) -> Text:
    """The line with its states coloured."""
    text = Text(line)
    for word, style in _STYLES.items():
        text.highlight_regex(rf"(?<![\w-]){word}(?![\w-])", style)
    return text


class Output:
    """Writes results the way the settings ask for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._out = _console(settings.color, stderr=False)
        self._talk = _console(settings.color, stderr=True)

    @property
    def for_people(self) -> bool:
        """Whether a person reads the result."""
        return self.settings.format in (Format.TABLE, Format.WIDE)

    def say(self, text: str) -> None:
        """Talk: to stderr."""
        self._talk.print(painted(harmless(text)))

    def text(self, text: str) -> None:
        """A result that is text for people: to stdout."""
        for line in harmless(text).rstrip("\n").split("\n"):
            self._out.print(painted(line))

    def raw(self, text: str) -> None:
        """A result that is a document (YAML, JSON): to stdout as it is."""
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()

    def value(self, kind: str, body: Mapping[str, Any], lines: Sequence[str]) -> None:
        """One result: ``body`` for programs, ``lines`` for people."""
        match self.settings.format:
            case Format.JSON:
                self.raw(json.dumps(versioned(kind, body), indent=2))
            case Format.YAML:
                self.raw(_yaml(versioned(kind, body)))
            case Format.NAME:
                self.raw(f"{kind.lower()}/{body.get('name', '')}")
            case _:
                self.text("\n".join(lines))

    def items(self, noun: str, items: Sequence[Item], columns: Sequence[Column]) -> None:
        """A list of objects of one noun, such as ``volume``."""
        kind = f"{noun.capitalize()}List"
        match self.settings.format:
            case Format.JSON:
                self.raw(json.dumps(versioned(kind, {"items": list(items)}), indent=2))
            case Format.YAML:
                self.raw(_yaml(versioned(kind, {"items": [dict(item) for item in items]})))
            case Format.NAME:
                for item in items:
                    self.raw(f"{noun}/{item['name']}")
            case _:
                self._table(noun, items, columns)

    def _table(self, noun: str, items: Sequence[Item], columns: Sequence[Column]) -> None:
        wide = self.settings.format is Format.WIDE
        shown = [column for column in columns if wide or not column.wide]
        rows = [[harmless(column.show(item)) or "-" for column in shown] for item in items]
        if not rows:
            self.say(f"no {noun}s")
            return
        if self.settings.headers:
            rows.insert(0, [column.title for column in shown])
        widths, gap = _fitted([max(map(cell_len, cells)) for cells in zip(*rows, strict=True)], self._limit(wide=wide))
        for row in rows:
            cells = [_cut(cell, width) for cell, width in zip(row, widths, strict=True)]
            self._out.print(painted((" " * gap).join(cells).rstrip()))

    def _limit(self, *, wide: bool) -> int | None:
        """Where lines end: COLUMNS, else the terminal's width, else (in a pipe, or wide) nowhere."""
        if wide:
            return None
        given = os.environ.get("COLUMNS", "")
        if given.isdigit() and int(given) > 0:
            return int(given)
        return self._out.width if self._out.is_terminal and sys.stdout.isatty() else None

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int, str], None]]:
        """Shows ``(done, total, sentence)``: a bar on a terminal, plain lines elsewhere."""
        if self._talk.is_terminal and sys.stderr.isatty():
            columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
            with Progress(*columns, console=self._talk, transient=True) as bar:
                task = bar.add_task("", total=None)

                def advance(done: int, total: int, sentence: str) -> None:
                    bar.update(task, completed=done, total=total, description=harmless(sentence)[:100])

                yield advance
            return

        def line(done: int, total: int, sentence: str) -> None:
            if sentence:
                self.say(f"[{done + 1:>{len(str(total))}}/{total}] {sentence}")

        yield line


def _fitted(widths: list[int], limit: int | None) -> tuple[list[int], int]:
    """Widths of columns and of the gaps between them that keep a line within ``limit``, as far as that goes: gaps
    first, then the widest column, since every column says something and the last ones no less."""
    gaps = len(widths) - 1
    if limit is None or sum(widths) + gaps * _GAP <= limit:
        return widths, _GAP
    fitted = list(widths)
    while sum(fitted) + gaps * _NARROW_GAP > limit and max(fitted) > _NARROWEST:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted, _NARROW_GAP


def _cut(cell: str, width: int) -> str:
    if cell_len(cell) <= width:
        return set_cell_size(cell, width)
    return set_cell_size(cell, width - 3) + "..."


def _yaml(body: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(body, sort_keys=False, allow_unicode=True)
    return text


def fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """``name: value`` lines with the values below each other."""
    width = max((len(name) for name, _ in pairs), default=0) + 1
    return [f"{name + ':':<{width}}  {value or '-'}" for name, value in pairs]
