"""The door of this package: text or file in, resolved array out, or every mistake at once.

Only ``load`` reads a file; nothing here asks whether drives, sockets or secrets exist, so a file can be checked
on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.domain.desired import Array
from controlplane.domain.errors import Place, SpecError, Ws7000Error
from controlplane.spec.export import to_yaml
from controlplane.spec.model import ArraySpec
from controlplane.spec.partial import read_shape
from controlplane.spec.problems import as_error, render, spec_error
from controlplane.spec.report import Report
from controlplane.spec.resolve import resolve
from controlplane.spec.yaml_source import MAX_BYTES, read_yaml

__all__ = ["Loaded", "json_schema", "load", "render", "to_yaml"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An array that can be planned; ``warnings`` are coded remarks on things that are legal but odd."""

    array: Array
    warnings: tuple[Ws7000Error, ...]


def load(source: Path | str, name: str | None = None, *, base: Path | None = None) -> Loaded:
    """Read array.yaml: a ``Path`` is a file, a ``str`` is the text itself.

    ``name`` is shown as the file name in errors; relative paths in the text count from ``base`` (default: the
    directory of the file, or the working directory for a text).  Raises ``SpecError`` with all problems.
    """
    if isinstance(source, Path):
        shown_name = name or str(source)
        text = _read(source, shown_name)
        base = base or source.parent
    else:
        shown_name, text = name or "<text>", source
    read = read_yaml(text, shown_name)
    if read.problems and read.value is None:
        raise spec_error(read.problems, read)
    partial = read_shape(read)
    report = Report(read, partial, (base or Path()).absolute())
    array = None if partial.spec is None else resolve(partial.spec, report)
    problems = [*read.problems, *partial.problems, *report.problems]
    if problems or array is None:
        raise spec_error(problems, read)
    warnings = sorted(set(report.warnings), key=lambda each: (each.place.line, each.place.column, each.code))
    return Loaded(array=array, warnings=tuple(as_error(each, read) for each in warnings))


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 4)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError(
            "SPEC-002", f"{name} cannot be read", why=said, where=name,
            remedy="give the path of an array.yaml; examples/laptop.yaml is one to begin with",
        ) from None  # fmt: skip
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rsplit(b"\n", 1)[-1].decode("utf-8", "replace")) + 1
        raise SpecError(
            "SPEC-002", f"{name} is not UTF-8 text", why=f"byte {data[error.start]:#04x} cannot stand there",
            remedy="save the file as UTF-8", where=Place(file=name, line=line, column=column),
        ) from None  # fmt: skip


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of array.yaml, for editors that complete and check while one types."""
    schema = _without_null(ArraySpec.model_json_schema(mode="validation"))
    assert isinstance(schema, dict)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "array.yaml of WS7000",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _without_null(schema: object) -> object:
    """Drop ``null`` where pydantic allows it: a key without a value is refused here, leaving it out is not."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _without_null(value)
        for key, value in schema.items()
        if not (key == "default" and value is None) and not (key == "title" and isinstance(value, str))
    }
    choices = kept.get("anyOf")
    if isinstance(choices, list) and len(choices) == 1:
        del kept["anyOf"]
        kept = {**choices[0], **kept}
    return kept
