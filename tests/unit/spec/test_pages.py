"""Every SPEC code that the sources raise has a page, and every page is for a code that is raised."""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.domain.codes import spec

ROOT = Path(__file__).parents[3]


def test_codes_and_pages_agree() -> None:
    files = [*(ROOT / "controlplane/spec").glob("*.py"), ROOT / "controlplane/domain/desired.py"]
    raised = {code for file in files for code in re.findall(r'"(SPEC-\d{3})"', file.read_text())}
    assert raised == {page.code for page in spec.PAGES}
    assert len(spec.PAGES) == len({page.code for page in spec.PAGES})
    assert all(page.title and page.explanation and page.remedy for page in spec.PAGES)
