"""What is wrong with a file, said so that a person can put it right.

Why: an admin gets all problems of a file at once, each with file, line and column, the line itself, a reason
and a remedy.  This module turns the errors of pydantic into that form; it must never let pydantic's own words
("Input should be a valid ...") through, and never show a value that could hold a secret or break a terminal.

Invariant: each kind of mistake has one code, and each code a page (``controlplane.domain.codes.spec``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from controlplane.domain.errors import Place, SpecError, Ws7000Error

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from controlplane.spec.yaml_source import Path, Source

MAX_PROBLEMS: Final = 100
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake: stable code, one sentence, the reason, what to do, and where it stands."""

    code: str
    what: str
    why: str
    remedy: str
    place: Place


def shown(value: object) -> str:
    """A value of the file as it may be shown: quoted, escaped, cut where it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = value if isinstance(value, str) else str(value)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return repr(text) if isinstance(value, str) else text


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: ``volumes[2].qos.iops``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for a word that is close to a known one, else the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def spec_error(problems: Sequence[Problem], source: Source) -> SpecError:
    """The one exception for a file, with every problem of it in the order of the lines."""
    ordered = sorted(set(problems), key=lambda each: (each.place.line, each.place.column, each.code, each.what))
    count = len(ordered)
    return SpecError(
        "SPEC-000",
        f"{source.file} cannot be accepted: {count} problem{'s' if count != 1 else ''}",
        why="an array is planned only from a file that is right as a whole",
        remedy="see each problem; 'ws7000 explain CODE' tells more",
        where=source.file,
        problems=tuple(as_error(each, source) for each in ordered[:MAX_PROBLEMS]),
    )


def as_error(problem: Problem, source: Source) -> SpecError:
    """A problem as a coded error; ``details.line_text`` is the line it stands in."""
    line = source.line_text(problem.place)
    return SpecError(
        problem.code,
        problem.what,
        why=problem.why,
        remedy=problem.remedy,
        where=problem.place,
        details={"line_text": "".join(c if c.isprintable() else " " for c in line)[:200]},
    )


def render(error: Ws7000Error) -> str:
    """An error with its problems as plain text: place, code, sentence, the line with a mark, reason, remedy."""
    problems = getattr(error, "problems", ())
    if problems:
        return "\n".join([*(render(each) for each in problems), f"{error.code}: {error.what}"])
    lines = [f"{error.where}: {error.code}: {error.what}" if error.where else f"{error.code}: {error.what}"]
    quoted = error.details.get("line_text")
    if quoted and isinstance(error.where, Place):
        number = f"{error.where.line:>5}"
        lines += [f"{number} | {quoted}", f"{' ' * len(number)} | {' ' * (error.where.column - 1)}^"]
    if error.why:
        lines.append(f"  why: {error.why}")
    if error.remedy:
        lines.append(f"  fix: {error.remedy}")
    return "\n".join(lines) + "\n"


_CODE_OF_CUSTOM: Final = {
    "ws_name": "SPEC-010",
    "ws_quantity": "SPEC-011",
    "ws_range": "SPEC-012",
    "ws_choice": "SPEC-013",
    "ws_nqn": "SPEC-014",
    "ws_pcie": "SPEC-015",
    "ws_address": "SPEC-016",
    "ws_pattern": "SPEC-017",
    "ws_drive": "SPEC-018",
    "ws_rpc": "SPEC-019",
    "ws_text": "SPEC-020",
    "ws_type": "SPEC-006",
    "ws_chunk": "SPEC-037",
    "ws_qos": "SPEC-040",
    "ws_quorum": "SPEC-044",
    "ws_class": "SPEC-045",
}
_WANTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys and values",
    "model_attributes_type": "a mapping of keys and values",
}
_EXAMPLES: Final = {
    "apiVersion": "ws7000/v1",
    "kind": "Array",
    "ha": "none",
    "rpc": "./run/a.sock",
    "size": "2TiB",
    "transport": "tcp",
    "address": "127.0.0.1",
    "drives": "all",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def from_pydantic(
    errors: Sequence[ErrorDetails], source: Source, known_keys: dict[str, tuple[str, ...]]
) -> list[Problem]:
    """Problems for pydantic's errors; ``known_keys`` maps a path without indexes to the keys it may have."""
    return [_one(error, source, known_keys) for error in errors]


def _one(error: ErrorDetails, source: Source, known_keys: dict[str, tuple[str, ...]]) -> Problem:
    path: Path = tuple(error["loc"])
    context: dict[str, Any] = error.get("ctx", {})
    kind = error["type"]
    given = error["input"]
    here = source.place(path)
    name = dotted(path) or "the file"
    if kind == "extra_forbidden":
        return _unknown_key(path, source, known_keys)
    if kind == "missing":
        return _missing_key(path, source)
    if kind in _CODE_OF_CUSTOM:
        return Problem(
            code=_CODE_OF_CUSTOM[kind],
            what=f"{name}: {context['message']}",
            why=str(context.get("why", "")),
            remedy=str(context.get("remedy", "")),
            place=here,
        )
    if kind in _WANTED:
        return _wrong_type(name, _WANTED[kind], given, here)
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = f"{words} {context[key]}"
        return Problem(
            code="SPEC-012",
            what=f"{name}: {shown(given)} is out of range",
            why=f"it must be {bound}",
            remedy=f"use {bound}",
            place=here,
        )
    if kind in {"literal_error", "enum"}:
        return choice(name, given, str(context.get("expected", "")), here)
    return Problem(
        code="SPEC-006",
        what=f"{name}: {shown(given)} is not what belongs here",
        why=error["msg"],
        remedy="see docs/reference/array-yaml.md",
        place=here,
    )


def _unknown_key(path: Path, source: Source, known_keys: dict[str, tuple[str, ...]]) -> Problem:
    word = str(path[-1])
    known = known_keys.get(_section(path[:-1]), ())
    guess = nearest(word, known)
    return Problem(
        code="SPEC-003",
        what=f"unknown key {shown(word)}" + (f" in {dotted(path[:-1])}" if path[:-1] else ""),
        why="a key that is not understood would otherwise be left out in silence",
        remedy=guess or f"the keys known here are: {', '.join(known)}",
        place=source.place(path, key=True),
    )


def _missing_key(path: Path, source: Source) -> Problem:
    return Problem(
        code="SPEC-004",
        what=f"{dotted(path[:-1]) or 'the file'} has no key {str(path[-1])!r}",
        why="it has no default, since none would be right for everybody",
        remedy=f"add a line '{path[-1]}: {_EXAMPLES.get(str(path[-1]), '...')}'",
        place=source.place(path[:-1]),
    )


def choice(name: str, given: object, expected: str, here: Place) -> Problem:
    """A value that is none of the words allowed; ``expected`` is pydantic's list of them."""
    words = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    return Problem(
        code="SPEC-013",
        what=f"{name}: {shown(given)} is not one of the words allowed",
        why=f"it must be {expected.replace(' or ', ', ')}" if len(words) == 1 else f"it must be {expected}",
        remedy=nearest(str(given), words) or f"use {words[0]!r}",
        place=here,
    )


def _wrong_type(name: str, wanted: str, given: object, here: Place) -> Problem:
    remedy = f"write {wanted} here"
    if wanted == "text" and isinstance(given, int | float):
        remedy = f'put it in quotes: "{given}" (as it stands in the file)'
    if wanted == "a list":
        remedy = "put it in brackets, or write one entry a line, each after '- '"
    if wanted == "true or false" and isinstance(given, str):
        remedy = "write true or false (yes, no, on and off are text in YAML 1.2)"
    if given is None:
        remedy = f"write {wanted}, or remove the key"
    return Problem(
        code="SPEC-006",
        what=f"{name}: {shown(given)} stands where {wanted} belongs",
        why=f"this key takes {wanted}",
        remedy=remedy,
        place=here,
    )


def _section(path: Sequence[str | int]) -> str:
    return ".".join(part for part in path if isinstance(part, str))
