"""``ws7000 explain CODE``: the page behind an error code."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from cli.options import Settings, output_options


def _codes(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    from controlplane.domain.codes import PAGES

    return [CompletionItem(code, help=page.title) for code, page in PAGES.items() if code.startswith(begun.upper())]


@click.command()
@click.argument("code", required=False, shell_complete=_codes)
@output_options
def explain(settings: Settings, code: str | None) -> None:
    """Tell more about an error code; without one, list all.

    \b
    Example:
      ws7000 explain PLAN-001
      ws7000 explain
    See also: docs/reference/cli.md
    """
    import difflib

    from cli.output import Column, Output
    from controlplane.domain.codes import PAGES
    from controlplane.domain.errors import NotFound

    out = Output(settings)
    if code is None:
        columns = (
            Column(title="CODE", show=lambda item: str(item["name"])),
            Column(title="TITLE", show=lambda item: str(item["title"])),
        )
        out.items("code", [{"name": page.code, "title": page.title} for page in PAGES.values()], columns)
        return
    page = PAGES.get(code.upper())
    if page is None:
        close = difflib.get_close_matches(code.upper(), PAGES, n=1)
        raise NotFound(
            "CLI-004",
            f"there is no code {code!r}",
            why="every code that this release can show has a page, and this is none of them",
            remedy=f"did you mean {close[0]}?" if close else "see ws7000 explain for all codes",
        )
    body = {
        "name": page.code,
        "title": page.title,
        "explanation": page.explanation,
        "remedy": page.remedy,
    }
    out.value("Code", body, _told(page.code, page.title, page.explanation, page.remedy))


def _told(code: str, title: str, explanation: str, remedy: str) -> list[str]:
    import textwrap

    told = [f"{code}: {title}", "", *textwrap.wrap(explanation, 88), "", "What to do:"]
    return [*told, *textwrap.wrap(remedy, 86, initial_indent="  ", subsequent_indent="  ")]
