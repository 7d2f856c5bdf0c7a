"""docs/reference/engines.md is in step with the embedded engine; ``tests/contract/test_same.py`` asks SPDK."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from engines_page import ENGINES_PAGE, EnginesPage

from dataplane.embedded.rpc import import_methods
from dataplane.embedded.rpc.registry import METHODS
from dataplane.rpc.schema import Schema

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("differs: ", "absent: ")
SPDK_METHODS = 194


def page() -> EnginesPage:
    return EnginesPage.parse(ENGINES_PAGE.read_text(encoding="utf-8"))


def sent() -> Iterator[str]:
    """Every method that the typed calls name."""
    known = Schema.load("26.05").methods
    for path in (ROOT / "dataplane/rpc/methods").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
                yield node.value


def test_the_page_lists_the_methods_that_the_embedded_engine_has() -> None:
    import_methods()
    assert page().present == set(METHODS)


def test_every_method_stands_once_in_order_and_with_a_word() -> None:
    found = page()
    names = [row.name for row in found.rows]
    assert names == sorted(set(names))
    assert [row.name for row in found.rows if row.text != "same" and not row.text.startswith(WORDS)] == []
    assert set(names).isdisjoint(found.families)
    assert found.families.isdisjoint(found.optional)


def test_the_page_has_every_method_of_a_plain_build_of_spdk() -> None:
    found = page()
    assert len({row.name for row in found.rows} | found.families) == SPDK_METHODS
    assert found.all <= set(Schema.load("26.05").methods)


def test_used_marks_what_the_control_plane_sends_and_none_of_it_is_absent() -> None:
    found = page()
    used = {row.name for row in found.rows if row.used}
    assert len(used) > 30
    assert used == set(sent())
    assert used <= found.present
