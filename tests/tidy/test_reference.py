"""docs/reference/cli.md and every help text are in step with the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import main
from controlplane.domain.errors import ExitCode

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs/reference/cli.md"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


EVERY = list(commands(main))


def runnable(command: click.Command) -> bool:
    return not isinstance(command, click.Group) or command.invoke_without_command


def parses(words: list[str]) -> None:
    """Parse a command line as far as its last command; nothing is run."""
    command: click.Command = main
    context = click.Context(main, info_name="ws7000")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, parent=context, info_name=command.name)
    command.parse_args(context, words)


def lines_of(text: str) -> Iterator[str]:
    """Command lines: without comments, prompts and redirections."""
    for line in text.splitlines():
        if line.strip().startswith("ws7000 "):
            yield re.split(r"\s+#|\s*[<>|&]", line.strip())[0]


@pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])
def test_help_has_an_example_and_relatives(path: tuple[str, ...], command: click.Command) -> None:
    text = command.help or ""
    assert "Example:" in text
    assert "See also:" in text
    examples = list(lines_of(text))
    assert examples
    assert any(shlex.split(line)[1 : len(path) + 1] == list(path) for line in examples)
    for line in examples:
        parses(shlex.split(line)[1:])
    names = {" ".join(each) for each, _ in EVERY}
    for other in re.findall(r"ws7000 ([a-z]+(?:[ -][a-z]+)*)", text.partition("See also:")[2]):
        assert other in names, other


def test_every_command_is_in_the_reference() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    missing = [
        " ".join(path) for path, command in EVERY if runnable(command) and f"`ws7000 {' '.join(path)}" not in text
    ]
    assert not missing


def test_the_reference_names_no_command_that_is_not_there() -> None:
    names = {" ".join(path) for path, _ in EVERY}
    text = REFERENCE.read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("| `ws7000 ")]
    said = [name for line in table for name in re.findall(r"`ws7000 ([a-z]+(?:[ -][a-z]+)*)", line.split("|")[1])]
    assert len(said) > 20
    assert not set(said) - names


def test_exit_statuses_in_the_reference() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", text, re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(int(code), code.name) for code in ExitCode]


def test_command_lines_in_the_documentation_parse() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").iterdir()]
    found = 0
    for path in documents:
        for line in lines_of(path.read_text(encoding="utf-8").replace("#     ws7000", "ws7000")):
            plain = line.replace("$ARRAY", "-f array.yaml --state state").replace("`", " ").replace("\\", " ")
            words = shlex.split(plain, comments=True)
            if "NOUN" in words:
                continue
            parses(words[1:])
            found += 1
    assert found > 15
