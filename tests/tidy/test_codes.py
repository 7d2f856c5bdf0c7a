"""Every code that the sources raise has a page, and every page a code that is raised."""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.domain.codes import PAGES

ROOT = Path(__file__).resolve().parents[2]
CODE = re.compile(r'"([A-Z]{2,6}-\d{3})"')


def raised() -> dict[str, str]:
    """Code -> the first file that has it."""
    found: dict[str, str] = {}
    for root in ("controlplane", "dataplane", "ha", "cli", "bench"):
        for path in sorted((ROOT / root).rglob("*.py")):
            if path.parent.name == "codes":
                continue
            for code in CODE.findall(path.read_text(encoding="utf-8")):
                found.setdefault(code, str(path.relative_to(ROOT)))
    return found


def test_every_raised_code_has_a_page() -> None:
    assert not {code: path for code, path in raised().items() if code not in PAGES}


def test_every_page_has_a_code_that_is_raised() -> None:
    assert not sorted(set(PAGES) - set(raised()))


def test_pages_help() -> None:
    for page in PAGES.values():
        assert page.title, page.code
        assert "\n" not in page.title, page.code
        assert not page.title.endswith("."), page.code
        assert len(page.explanation.split()) > 5, page.code
        assert page.explanation.endswith((".", ")")), page.code
        assert page.remedy, page.code


def test_codes_in_the_documentation_exist() -> None:
    area = "|".join(sorted({code.partition("-")[0] for code in PAGES}))
    pattern = re.compile(rf"\b(?:{area})-\d{{3}}\b")
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    wrong = [
        f"{path.relative_to(ROOT)}: {code}"
        for path in documents
        for code in pattern.findall(path.read_text(encoding="utf-8"))
        if code not in PAGES
    ]
    assert not wrong
