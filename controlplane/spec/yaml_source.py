"""Text to plain values, by the rules of YAML 1.2, with the line and column of every key and value.

Why not ``yaml.safe_load``: PyYAML follows YAML 1.1, where the PCIe address ``0000:01:00.0`` is the number 60.0,
``017`` is 15, ``on`` is true and of two equal keys the last one wins in silence.  Here only the scanner and the
parser of PyYAML are used (its event stream); what a scalar means is decided by the core schema of YAML 1.2.2,
chapter 10.3.

This module must never build anything but dict, list, str, int, float, bool and None, never run away (text,
depth, values and aliases are bounded), and never raise anything but ``Refusal`` lists in its result.

Invariant: every container and scalar of the value has an entry in ``places``, keyed by its path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.reader import ReaderError

from controlplane.domain.errors import Place
from controlplane.spec.problems import Problem, shown

Path = tuple[str | int, ...]
Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 16
MAX_VALUES: Final = 50_000
MAX_ALIASES: Final = 256
MAX_DIGITS: Final = 25
"""More digits than any 64-bit quantity has; such a number stays text, and is then refused as one."""

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+")
_OCT: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN: Final = re.compile(r"\.(nan|NaN|NAN)")
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_BREAKS: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


def plain_scalar(text: str) -> Value:
    """The value of an unquoted scalar: YAML 1.2.2, 10.3.2 (core schema)."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) <= MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _OCT.fullmatch(text) or _HEX.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if _NAN.fullmatch(text):
        return math.nan
    return text


@dataclass(slots=True)
class Source:
    """A text that was read: its value, the place of every key and value, and what is wrong with it as YAML.

    ``value`` is ``None`` if ``problems`` holds something that left no value to look at.
    """

    file: str
    lines: list[str]
    value: Value = None
    places: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value (or its key) stands; for a path that is not there, its nearest ancestor."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(file=self.file, line=1, column=1))

    def line_text(self, place: Place) -> str:
        """The line of a place, to be quoted; empty beyond the end."""
        return self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""


class _StopReading(Exception):
    """Nothing after this point can be understood."""


def read_yaml(text: str, file: str) -> Source:
    """Read one YAML document; problems are collected in the result, nothing is raised."""
    text = text.removeprefix("\ufeff")
    source = Source(file=file, lines=_BREAKS.split(text))
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        source.problems.append(
            Problem(
                code="SPEC-007",
                what=f"the file is larger than {MAX_BYTES // 1024} KiB",
                why="an array description of a dozen enclosures is a tenth of that; something else is in here",
                remedy="check that this is the right file",
                place=Place(file=file, line=1, column=1),
            )
        )
        return source
    try:
        source.value = _Composer(source, _events(text, source)).document()
    except _StopReading:
        source.value = None
    return source


def _events(text: str, source: Source) -> Iterator[Event]:
    """The event stream of PyYAML, with its exceptions turned into problems."""
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except ReaderError as error:
        before = _BREAKS.split(text[: error.position])
        said = f"the character {error.character!r:.20} is not allowed in YAML"
        _syntax(source, said, len(before), len(before[-1]) + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        _syntax(source, said, mark.line + 1 if mark else 1, mark.column + 1 if mark else 1)
    except (ValueError, OverflowError, yaml.YAMLError) as error:
        # PyYAML hands escapes such as "\UFFFFFFFF" to chr(), and long %YAML numbers to int(), unchecked.
        _syntax(source, f"an escape or directive has a value out of range ({error})", 1, 1)


def _syntax(source: Source, said: str, line: int, column: int) -> None:
    place = Place(file=source.file, line=line, column=column)
    why, remedy = said, "compare the indentation and the brackets with the line before"
    quoted = source.line_text(place)
    if "\t" in quoted[: max(column, 1)]:
        why, remedy = "YAML does not allow tabs for indentation", "use blanks instead of the tab"
    elif "{" in quoted and ".." in quoted:
        remedy = "a pattern such as d{00..23} must stand in quotes here"
    source.problems.append(Problem(code="SPEC-001", what="this is not valid YAML", why=why, remedy=remedy, place=place))
    raise _StopReading


@dataclass(slots=True)
class _Node:
    """A composed node: ``size`` counts it and all below it, so that aliases can be priced."""

    value: Value
    place: Place
    entries: list[tuple[str | int, Place, _Node]] = field(default_factory=list)
    size: int = 1


class _Composer:
    """Turns events into values; recursion is bounded by ``MAX_DEPTH``."""

    def __init__(self, source: Source, events: Iterator[Event]) -> None:
        self.source = source
        self.events = events
        self.anchors: dict[str, _Node | None] = {}
        self.values = 0
        self.aliases = 0

    def document(self) -> Value:
        """The value of the one document of the stream."""
        root: _Node | None = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self._problem(
                        "SPEC-008", event, "the file holds a second YAML document",
                        "one file describes one array", "remove the line '---' or split the file",
                    )  # fmt: skip
                    break
                root = self._node(next(self.events), 0)
        if root is None:
            return None
        self._record((), root)
        return root.value

    def _place(self, event: Event) -> Place:
        mark = event.start_mark
        assert mark is not None, "the parser marks every event of a text"
        return Place(file=self.source.file, line=mark.line + 1, column=mark.column + 1)

    def _problem(self, code: str, event: Event, what: str, why: str, remedy: str) -> None:
        place = self._place(event)
        self.source.problems.append(Problem(code=code, what=what, why=why, remedy=remedy, place=place))

    def _bound(self, event: Event, what: str) -> None:
        self._problem(
            "SPEC-007", event, what, "the reader bounds what a small file can grow to",
            "write the parts out, with fewer levels and aliases",
        )  # fmt: skip
        raise _StopReading

    def _record(self, path: Path, node: _Node) -> None:
        self.source.places[path] = node.place
        for key, key_place, child in node.entries:
            self.source.keys[(*path, key)] = key_place
            self._record((*path, key), child)

    def _count(self, event: Event, size: int) -> None:
        self.values += size
        if self.values > MAX_VALUES:
            self._bound(event, f"the file holds more than {MAX_VALUES} values")

    def _node(self, event: Event, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            self._bound(event, f"the file nests deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            return self._alias(event)
        assert isinstance(event, NodeEvent)
        self._count(event, 1)
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        if isinstance(event, MappingStartEvent):
            node = self._mapping(event, depth)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            assert isinstance(event, ScalarEvent)
            node = self._scalar(event)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, event: AliasEvent) -> _Node:
        self.aliases += 1
        name = event.anchor or ""
        if self.aliases > MAX_ALIASES:
            self._bound(event, f"the file uses more than {MAX_ALIASES} aliases")
        node = self.anchors.get(name)
        if node is None:
            inside = name in self.anchors
            self._problem(
                "SPEC-008", event, f"the alias *{name} {'stands inside its own anchor' if inside else 'has no anchor'}",
                "an alias repeats a finished value that was marked before with &" + name,
                f"put &{name} before the value that is to be repeated, earlier in the file",
            )  # fmt: skip
            return _Node(None, self._place(event))
        self._count(event, node.size)
        return node

    def _tag(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent) -> None:
        if event.tag not in (None, "!", _TEXT_TAG):
            self._problem(
                "SPEC-008", event, f"the tag {shown(event.tag or '')} is not known here",
                "tags make programs build objects from text; array.yaml is plain data", "remove the tag",
            )  # fmt: skip

    def _scalar(self, event: ScalarEvent) -> _Node:
        self._tag(event)
        if any("\ud800" <= letter <= "\udfff" for letter in event.value):
            self._problem(
                "SPEC-020", event, "an escape stands for half a character",
                "U+D800 to U+DFFF are halves of UTF-16 pairs, not characters",
                "write the character itself, or its full escape \\U0001....",
            )  # fmt: skip
            return _Node("", self._place(event))
        plain = event.implicit[0] and event.style is None and event.tag is None
        return _Node(plain_scalar(event.value) if plain else event.value, self._place(event))

    def _sequence(self, event: SequenceStartEvent, depth: int) -> _Node:
        self._tag(event)
        node = _Node([], self._place(event))
        items: list[Value] = []
        while not isinstance(child := next(self.events), SequenceEndEvent):
            below = self._node(child, depth + 1)
            node.entries.append((len(items), below.place, below))
            node.size += below.size
            items.append(below.value)
        node.value = items
        return node

    def _mapping(self, event: MappingStartEvent, depth: int) -> _Node:
        self._tag(event)
        node = _Node({}, self._place(event))
        items: dict[str, Value] = {}
        first: dict[str, Place] = {}
        while not isinstance(child := next(self.events), MappingEndEvent):
            key = self._node(child, depth + 1)
            below = self._node(next(self.events), depth + 1)
            name = key.value
            place = self._place(child)
            if not isinstance(name, str):
                self._problem(
                    "SPEC-006", child, f"the key {shown(name)} is not text", "every key of array.yaml is a word",
                    "check the indentation; a key that looks like a number needs quotes",
                )  # fmt: skip
                continue
            if name == "<<":
                self._problem(
                    "SPEC-008", child, "the merge key << is not known here", "YAML 1.2 has no merge keys",
                    "write the keys out; a whole value may be repeated with & and *",
                )  # fmt: skip
                continue
            if name in first:
                self._problem(
                    "SPEC-005", child, f"the key {shown(name)} is given twice",
                    f"it stands already in line {first[name].line}, and only one of the two can be meant",
                    "remove one of them",
                )  # fmt: skip
                continue
            first[name] = place
            node.entries.append((name, place, below))
            node.size += below.size + 1
            items[name] = below.value
        node.value = items
        return node
