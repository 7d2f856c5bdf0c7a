"""The part of a file that has the right shape, beside everything that has not.

Why: one wrong size must not hide an unknown pool name twenty lines below; an admin wants all mistakes at once.
So the entries that pydantic refuses are taken out, what remains is held against the cross-checks, and names
that the refused entries would have defined are forgiven where they are used.

This module must never make an array out of a file with mistakes: its result then only feeds the checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controlplane.spec.model import API_VERSION, ArraySpec
from controlplane.spec.problems import Problem, from_pydantic, shown
from controlplane.spec.yaml_source import Path, Source, Value

_LISTS: Final = ("nodes", "drives", "pools", "subsystems", "hosts", "volumes")
_STAND_IN: Final[Mapping[str, Value]] = {
    "apiVersion": API_VERSION, "kind": "Array", "name": "unnamed", "nodes": [], "drives": [], "ha": "none",
}  # fmt: skip
_MENDED: Final = ("nodes", "pools", "subsystems", "hosts", "volumes")
_ENTRY_STAND_IN: Final[Mapping[str, Value]] = {"size": "1PiB"}
"""Large enough to be no mistake of its own; a stand-in never gets beyond the checks."""


@dataclass(slots=True)
class Partial:
    """``spec`` is what could be understood (``None`` if nothing could).  ``broken[kind]`` are the names that refused
    entries of a section would have defined; a section in ``open`` has refused entries whose names nobody
    knows.  ``origin[kind][i]`` is where the i-th entry of ``spec`` stands in the file."""

    spec: ArraySpec | None
    problems: list[Problem]
    broken: dict[str, set[str]] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    origin: dict[str, list[int]] = field(default_factory=dict)

    def path(self, path: Path) -> Path:
        """A path in ``spec`` as a path in the file."""
        if len(path) > 1 and isinstance(path[0], str) and isinstance(path[1], int) and path[0] in self.origin:
            return (path[0], self.origin[path[0]][path[1]], *path[2:])
        return path


def known_keys() -> dict[str, tuple[str, ...]]:
    """The keys of every section, by its path without indexes: ``volumes.qos`` -> iops, rate, ..."""
    found: dict[str, tuple[str, ...]] = {}
    for path, model in sections(ArraySpec):
        found[path] = tuple(model.model_fields)
    return found


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every model of the file with the path it stands under."""
    yield path, model
    for name, info in model.model_fields.items():
        for inner in _models(info.annotation):
            yield from sections(inner, f"{path}.{name}" if path else name)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def read_shape(source: Source) -> Partial:
    """Hold the value of a file against the model."""
    raw = source.value
    if not isinstance(raw, dict):
        return Partial(spec=None, problems=[_no_mapping(source)])
    errors, spec = _validate(raw)
    problems = [*_version(raw, source), *from_pydantic(_without_version(errors, raw), source, known_keys())]
    problems += _empty_values(raw, source, {tuple(error["loc"]) for error in errors})
    result = Partial(spec=spec, problems=problems)
    if spec is None:
        _prune(raw, errors, result)
    return result


def _validate(raw: Value) -> tuple[list[ErrorDetails], ArraySpec | None]:
    try:
        return [], ArraySpec.model_validate(raw)
    except ValidationError as error:
        return error.errors(include_url=False), None


def _no_mapping(source: Source) -> Problem:
    empty = source.value is None
    return Problem(
        code="SPEC-002" if empty else "SPEC-006",
        what="the file is empty" if empty else f"the file holds {shown(source.value)} where keys belong",
        why="an array is described by keys such as apiVersion, name, nodes and drives",
        remedy="begin with a copy of examples/laptop.yaml",
        place=source.place(()),
    )


def _version(raw: dict[str, Value], source: Source) -> list[Problem]:
    problems = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", "Array")):
        if key in raw and raw[key] != wanted:
            problems.append(
                Problem(
                    code="SPEC-009",
                    what=f"{key}: {shown(raw[key])} is not known here",
                    why=f"this version of ws7000 reads {key} {wanted!r} only",
                    remedy=f"write '{key}: {wanted}' if the file is one, or use a version that knows it",
                    place=source.place((key,)),
                )
            )
    return problems


def _without_version(errors: list[ErrorDetails], raw: dict[str, Value]) -> list[ErrorDetails]:
    return [error for error in errors if error["loc"] not in (("apiVersion",), ("kind",)) or error["loc"][0] not in raw]


def _empty_values(raw: Value, source: Source, reported: set[Path]) -> list[Problem]:
    """Keys without a value: mostly a line that was to be filled in, never a wish for the default."""
    return [
        Problem(
            code="SPEC-006",
            what=f"the key {shown(str(path[-1]))} has no value",
            why="nothing is not the same as the default; leaving the key out is",
            remedy="give it a value, or remove the line",
            place=source.place(path, key=True),
        )
        for path in _nulls(raw, ())
        if path not in reported
    ]


def _nulls(value: Value, path: Path) -> Iterator[Path]:
    if value is None and path:
        yield path
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _nulls(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _nulls(below, (*path, index))


def _prune(raw: dict[str, Value], errors: list[ErrorDetails], result: Partial) -> None:
    """Take out what is refused, as little as will do, and read the rest again."""
    kept: dict[str, Value] = {key: _copy(value) for key, value in raw.items()}
    for error in errors:
        _mend(kept, error)
    errors, result.spec = _validate(kept)
    if result.spec is None:
        _drop(kept, errors, result)
        result.spec = _validate(kept)[1]


def _mend(kept: dict[str, Value], error: ErrorDetails) -> None:
    """Take out a single key, where the rest of its entry means the same without it."""
    loc = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        _remove(kept, loc)
        return
    if len(loc) > 2 and loc[0] in _MENDED:
        _remove(kept, loc[:3])
        items = kept[str(loc[0])]
        item = items[loc[1]] if isinstance(items, list) and isinstance(loc[1], int) else None
        if loc[2] in _ENTRY_STAND_IN and isinstance(item, dict):
            item[str(loc[2])] = _ENTRY_STAND_IN[str(loc[2])]


def _drop(kept: dict[str, Value], errors: list[ErrorDetails], result: Partial) -> None:
    """Take out whole entries and sections, and remember what they would have defined."""
    drop: dict[str, set[int]] = {}
    for error in errors:
        loc = tuple(error["loc"])
        section = str(loc[0])
        if len(loc) > 1 and section in _LISTS and isinstance(loc[1], int):
            drop.setdefault(section, set()).add(loc[1])
        else:
            kept.pop(section, None)
            result.open.add(section)
    for section, indexes in drop.items():
        items = kept.get(section)
        if not isinstance(items, list):
            continue
        for index in indexes:
            _remember(section, items[index], result)
        result.origin[section] = [i for i in range(len(items)) if i not in indexes]
        kept[section] = [items[i] for i in result.origin[section]]
    for key, value in _STAND_IN.items():
        if key not in kept:
            kept[key] = value
            result.open.add(key)


def _remember(section: str, item: Value, result: Partial) -> None:
    name = item.get("name") if isinstance(item, dict) else None
    if isinstance(name, str) and section != "drives":
        result.broken.setdefault(section, set()).add(name)
    else:
        # A drive entry may stand for many names; without its shape nobody knows which.
        result.open.add(section)


def _remove(value: Value, path: Path) -> None:
    for part in path[:-1]:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
    if isinstance(value, dict):
        value.pop(str(path[-1]), None)


def _copy(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _copy(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_copy(below) for below in value]
    return value
