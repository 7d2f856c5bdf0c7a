"""The entry point of ``ws7000``: the tree of nouns, and the one place where an error becomes an exit status.

Why a class: every way in (the installed script, ``python -m``, a test) passes through ``Root.main``, so an error
looks the same everywhere.  This module must never import what a command needs: nouns are imported when they
are named, so that help and shell completion stay quick.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

from cli.errors import failed
from cli.options import Invocation

NOUNS: Final = {
    "array": ("cli.commands.array", "array", "Plan, apply and inspect the array of array.yaml."),
    "demo": ("cli.demo.command", "demo", "Show the main job on this machine, with real data."),
    "drive": ("cli.commands.drive", "drive", "The drives, as adopted and as both nodes see them."),
    "engine": ("cli.commands.engine", "engine", "Run the embedded engine, or ask an engine for its methods."),
    "explain": ("cli.commands.explain", "explain", "Tell more about an error code."),
    "ha": ("cli.commands.ha", "ha", "High availability: who serves what, and why; agents and moves."),
    "host": ("cli.commands.host", "host", "The hosts, and what each may see."),
    "node": ("cli.commands.node", "node", "The storage heads and their engines."),
    "pool": ("cli.commands.pool", "pool", "The pools that volumes are cut from."),
    "schema": ("cli.commands.schema", "schema", "Print the JSON Schema of array.yaml."),
    "shelf": ("cli.commands.shelf", "shelf", "Let an engine serve files as drives, for trying out."),
    "subsystem": ("cli.commands.subsystem", "subsystem", "The subsystems, their owners, and switchover of one."),
    "version": ("cli.commands.version", "version", "Print the version."),
    "volume": ("cli.commands.volume", "volume", "The volumes: where they are, who sees them, how they are."),
}
"""Name -> module, attribute, and the line for ``ws7000 --help``."""


class Root(click.Group):
    """The group of all nouns."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The nouns of this installation."""
        return [name for name, (module, _, _) in NOUNS.items() if _is_there(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the noun."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, attribute, _help = NOUNS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of nouns, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, NOUNS[name][2]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest noun named when there is none of that name."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise click.UsageError(_no_such("command", name, self.list_commands(ctx)), ctx=ctx)
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # click overloads this on standalone_mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,  # noqa: ARG002 - click's signature
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> int:
        """Run a command line; ends the process with its exit status unless ``standalone_mode`` is off."""
        words = list(sys.argv[1:] if args is None else args)
        invocation = Invocation.of(words)
        extra.setdefault("obj", invocation)
        try:
            result = super().main(words, prog_name or "ws7000", complete_var, standalone_mode=False, **extra)
            status = int(result) if isinstance(result, int) else 0
        except BaseException as problem:  # the outermost boundary: everything becomes words and a status
            if isinstance(problem, SystemExit):
                raise
            status = failed(problem, invocation)
        if standalone_mode:
            sys.exit(status)
        return status


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _no_such(kind: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"no such {kind} {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")


@click.command("ws7000", cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ws7000", prog_name="ws7000")
def main() -> None:
    """WS7000: an all-flash array from one file.

    Write what you want into array.yaml, look at the plan, and apply it.  Results go to stdout, talk to stderr;
    every error has a code.

    \b
    Example:
      ws7000 array validate
      ws7000 array plan
      ws7000 array apply
      ws7000 volume list -o json
    See also: ws7000 NOUN --help, ws7000 explain CODE, ws7000 demo
    """
