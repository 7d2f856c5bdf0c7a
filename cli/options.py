"""The options that every command shares, gathered into one value.

Precedence: flag, then environment, then default.  Commands take a ``Settings`` and never look at the
environment themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

DEFAULT_FILE: Final = "array.yaml"
DEFAULT_STATE: Final = Path("/var/lib/ws7000")
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Color(StrEnum):
    """When to colour."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(slots=True)
class Invocation:
    """What has to be known to report an error even of a command line that could not be parsed."""

    json_errors: bool = False
    debug: bool = False

    @classmethod
    def of(cls, words: list[str]) -> Invocation:
        """Read from the words themselves; ``-o json``, ``-ojson``, ``--output json`` and ``--output=json``."""
        apart = any(word in ("-o", "--output") and following == "json" for word, following in pairwise(words))
        joined = any(word in ("-ojson", "--output=json") for word in words)
        return cls(json_errors=apart or joined, debug="--debug" in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The shared options.  ``file`` is ``-`` for stdin; ``file_given`` tells whether somebody chose it."""

    file: str = DEFAULT_FILE
    file_given: bool = False
    state: Path = DEFAULT_STATE
    format: Format = Format.TABLE
    headers: bool = True
    color: Color = Color.AUTO
    debug: bool = False


_OUTPUT: Final = (
    click.option(
        "-o", "--output", "output", type=click.Choice([each.value for each in Format]), default="table",
        show_default=True, help="How to write the result.",
    ),
    click.option("--no-headers", is_flag=True, help="Leave out the line of column names."),
    click.option(
        "--color", type=click.Choice([each.value for each in Color]), default="auto", show_default=True,
        help="When to colour; NO_COLOR in the environment is respected.",
    ),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)  # fmt: skip
_ARRAY: Final = (
    click.option(
        "-f", "--file", "file", metavar="FILE", default=DEFAULT_FILE, show_default=True, envvar="WS7000_ARRAY",
        show_envvar=True, shell_complete=lambda _ctx, _param, _text: [_files()], help="array.yaml; - is stdin.",
    ),
    click.option(
        "--state", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), default=DEFAULT_STATE,
        show_default=True, envvar="WS7000_STATE", show_envvar=True, help="Folder of the array's state.",
    ),
)  # fmt: skip


def _files() -> CompletionItem:
    return CompletionItem("", type="file")


def output_options(command: _Command) -> _Command:
    """Options of a command that prints a result; it is called with ``settings``."""
    return _gathered(command, _OUTPUT)


def array_options(command: _Command) -> _Command:
    """Those, and where array.yaml and the state are."""
    return _gathered(command, (*_ARRAY, *_OUTPUT))


def _gathered(command: _Command, options: tuple[Callable[[Any], Any], ...]) -> _Command:
    @functools.wraps(command)
    def called(**given: Any) -> object:  # noqa: ANN401 - whatever the command takes
        source = click.get_current_context().get_parameter_source("file")
        settings = Settings(
            file=given.pop("file", DEFAULT_FILE),
            file_given=source not in (None, ParameterSource.DEFAULT),
            state=given.pop("state", DEFAULT_STATE),
            format=Format(given.pop("output")),
            headers=not given.pop("no_headers"),
            color=Color(given.pop("color")),
            debug=given.pop("debug"),
        )
        return command(settings=settings, **given)

    decorated: Any = called
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


__all__ = ["Color", "Format", "Invocation", "Settings", "array_options", "output_options"]
