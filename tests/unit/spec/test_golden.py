"""What people read for a dozen typical mistakes, byte for byte: golden/NAME.yaml and golden/NAME.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.domain.codes import PAGES
from controlplane.domain.errors import ExitCode, Place, SpecError
from controlplane.spec.load import load, render

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_problem_is_shown_with_place_reason_and_remedy(path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(path.read_text(), path.name, base=Path("/etc/ws7000"))
    assert render(caught.value) + "\n" == path.with_suffix(".txt").read_text()
    for problem in caught.value.problems:
        assert problem.code in PAGES
        assert isinstance(problem.where, Place)
        assert problem.why
        assert problem.remedy
    assert caught.value.exit_code is ExitCode.USAGE


def test_there_are_a_dozen() -> None:
    assert len(GOLDEN) >= 12
