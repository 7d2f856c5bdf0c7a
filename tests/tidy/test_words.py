"""One word for one thing: docs/glossary.md says which, and this holds the sources to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click

from cli import objects
from cli.main import NOUNS, main
from controlplane.spec.load import json_schema

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {"demo", "explain", "ha", "schema", "version"}
"""Nouns of the command line that name no object of the array."""


def rows() -> list[tuple[str, list[str]]]:
    """(word, what is not said) of each row of the glossary."""
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [(word, [w for w in banned.split(", ") if w]) for word, _meaning, banned in cells[2:]]


def banned() -> frozenset[str]:
    """What is not said, in the singular and in the plural."""
    words = {word for _, others in rows() for word in others}
    return frozenset(words | {f"{word}s" for word in words})


def words_of(identifier: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)]


def identifiers(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def schema_keys(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties", {})
        yield from properties if isinstance(properties, dict) else ()
        for value in schema.values():
            yield from schema_keys(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from schema_keys(value)


def test_the_glossary_has_what_the_design_fixes() -> None:
    said = {word for word, _ in rows()}
    assert said >= {"node", "controller", "host", "drive", "shelf", "slice", "pool", "volume", "subsystem", "ANA group"}
    assert said >= {"owner", "standby", "leg", "engine", "incarnation", "epoch", "fence", "switchover", "failover"}
    assert banned() >= {"disk", "lun", "gateway", "client", "server", "master", "slave", "primary", "backend", "extent"}
    assert not said & banned()


def test_identifiers_of_the_control_plane_and_the_commands() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for root in ("controlplane", "cli")
        for path in sorted((ROOT / root).rglob("*.py"))
        for name in identifiers(path)
        if banned().intersection(words_of(name))
    ]
    assert not wrong


def test_nouns_are_words_of_the_glossary() -> None:
    assert set(NOUNS) - TOOLS <= {word for word, _ in rows()}


def test_names_of_commands_and_options() -> None:
    said = [word for path, _ in commands(main) for word in path.split()]
    said += [option for _, command in commands(main) for each in command.params for option in each.opts]
    assert not banned().intersection(word for each in said for word in words_of(each))


def test_keys_of_array_yaml_and_titles_of_tables() -> None:
    titles = [column.title for name in dir(objects) if name.endswith("_COLUMNS") for column in getattr(objects, name)]
    assert len(titles) > 20
    keys = {*schema_keys(json_schema()), *titles}
    assert {"volumes", "drives", "NAME"} <= keys
    assert not banned().intersection(word for key in keys for word in words_of(key))
