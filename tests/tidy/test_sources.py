"""The sources themselves: short files, short functions, docstrings that say something, no machine's paths."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("controlplane", "dataplane", "ha", "cli", "bench")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MIN_DOCSTRING_WORDS = 4
MACHINE = re.compile(
    r"/wor[k]/|/home/[a-z]|/root/|(?:pip|pypi|npm|docker|apt)[a-z.-]*\.(?:internal|corp|local)\b|index-url"
)


def modules() -> list[Path]:
    return sorted(path for root in ROOTS for path in (ROOT / root).rglob("*.py"))


def tracked() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed: nothing else tells which files are part of the project")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: git ls-files does not tell which files are part of it")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_files_are_short() -> None:
    long = {str(path.relative_to(ROOT)): count for path in modules() if (count := _lines(path)) > MAX_FILE_LINES}
    assert not long


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {name} has {count} lines"
        for path in modules()
        for name, count in functions(path)
        if count > MAX_FUNCTION_LINES
    ]
    assert not long


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules()
        if len((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split()) < MIN_DOCSTRING_WORDS
    ]
    assert not silent


def test_no_file_names_a_machine() -> None:
    myself = Path(__file__)
    found = []
    for path in tracked():
        if path == myself:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE.search(line)
        ]
    assert not found
