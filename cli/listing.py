"""``list`` and ``show`` of a noun: the same for all, made once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from cli.access import look
from cli.options import Settings
from cli.output import Column, Output, fields
from controlplane.domain.errors import NotFound
from controlplane.reconcile.reconciler import View

Items = Callable[[View], list[dict[str, Any]]]


def list_items(settings: Settings, noun: str, items: Items, columns: Sequence[Column]) -> None:
    """Look at the array and write all objects of a noun."""
    out = Output(settings)
    out.items(noun, items(look(settings, out)), columns)


def show_item(settings: Settings, noun: str, name: str, items: Items, columns: Sequence[Column]) -> None:
    """Look at the array and write one object with everything that is known of it."""
    out = Output(settings)
    found = items(look(settings, out))
    item = pick(noun, name, found)
    lines = fields([(column.title.lower(), column.show(item)) for column in columns])
    lines += [f"  {reason}" for reason in item.get("reasons", [])]
    out.value(noun.capitalize(), item, lines)


def pick(noun: str, name: str, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The item of that name; raises ``NotFound`` (CLI-004) naming the nearest."""
    for item in items:
        if item["name"] == name:
            return item
    known = [str(item["name"]) for item in items]
    close = difflib.get_close_matches(name, known, n=1)
    raise NotFound(
        "CLI-004",
        f"there is no {noun} {name!r}",
        why=f"the array has {', '.join(known[:12])}{' ...' if len(known) > 12 else ''}" if known else "there is none",
        remedy=f"did you mean {close[0]!r}?" if close else f"see ws7000 {noun} list",
    )
