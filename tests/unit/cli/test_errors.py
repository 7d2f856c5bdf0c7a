"""Errors as people and programs see them, and the exit statuses."""

from __future__ import annotations

import json

import click
import pytest

from cli.errors import failed
from cli.options import Invocation
from controlplane.domain.errors import (
    Conflict,
    DeadlineExceeded,
    EngineError,
    NotFound,
    PartlyApplied,
    Place,
    Refused,
    SpecError,
    Unreachable,
    UsageError,
    Ws7000Error,
)


def told(capsys: pytest.CaptureFixture[str], problem: BaseException, invocation: Invocation | None = None) -> str:
    failed(problem, invocation or Invocation())
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_all_parts_of_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("PLAN-006", "it does not fit", why="2 are free", remedy="ask for less", where="pool fast")
    assert told(capsys, error) == (
        "error: PLAN-006 it does not fit\n  where: pool fast\n  why: 2 are free\n  remedy: ask for less\n"
        "  see: ws7000 explain PLAN-006\n"
    )


def test_a_file_with_two_problems_shows_both_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    problems = tuple(
        SpecError("SPEC-003", what, where=Place(file="a.yaml", line=line, column=3), details={"line_text": text})
        for what, line, text in (("unknown key 'sise'", 7, "  sise: 1"), ("unknown key 'x'", 12, "  x: 2"))
    )
    text = told(capsys, SpecError("SPEC-000", "a.yaml cannot be accepted: 2 problems", problems=problems))
    assert "  where: a.yaml:7:3\n    7 |   sise: 1\n      |   ^\n" in text
    assert "error: SPEC-003 unknown key 'x'\n  where: a.yaml:12:3" in text
    assert text.endswith("SPEC-000 a.yaml cannot be accepted: 2 problems\n  see: ws7000 explain SPEC-003\n")


def test_several_refusals_are_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("PLAN-011", "one", details={"problems": [{"code": "PLAN-011", "what": w} for w in ("one", "two")]})
    assert told(capsys, error).splitlines()[:2] == ["error: PLAN-011 one", "error: PLAN-011 two"]


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    inner = SpecError("SPEC-003", "unknown key", where=Place(file="a.yaml", line=1, column=1))
    body = json.loads(told(capsys, SpecError("SPEC-000", "no", problems=(inner,)), Invocation(json_errors=True)))
    assert body == {
        "apiVersion": "ws7000/v1",
        "kind": "Error",
        "code": "SPEC-000",
        "what": "no",
        "problems": [{"code": "SPEC-003", "what": "unknown key", "where": "a.yaml:1:1"}],
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (Ws7000Error("X-1", "x"), 1),
        (EngineError("X-1", "x"), 1),
        (SpecError("X-1", "x"), 2),
        (UsageError("X-1", "x"), 2),
        (click.UsageError("no such option"), 2),
        (NotFound("X-1", "x"), 4),
        (Conflict("X-1", "x"), 5),
        (Refused("X-1", "x"), 6),
        (Unreachable("X-1", "x"), 7),
        (PartlyApplied("X-1", "x"), 8),
        (DeadlineExceeded("X-1", "x"), 124),
        (KeyboardInterrupt(), 130),
        (click.exceptions.Abort(), 130),
        (PermissionError(13, "Permission denied", "/var/lib/ws7000"), 1),
        (RuntimeError("oops"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exit_statuses(problem: BaseException, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert failed(problem, Invocation()) == status
    assert capsys.readouterr().err


def test_the_unforeseen_says_how_to_report_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, RuntimeError("oops"))
    assert "CLI-005" in text
    assert "--debug" in text
    assert "Traceback" not in text
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("oops")
    assert "Traceback" in told(capsys, raised.value, Invocation(debug=True))


def test_the_system_says_no(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, PermissionError(13, "Permission denied", "/var/lib/ws7000"))
    assert text.startswith("error: CLI-006 the system refused: /var/lib/ws7000: Permission denied\n")


@pytest.mark.parametrize("words", [["-o", "json"], ["-ojson"], ["--output=json"], ["x", "--output", "json"]])
def test_json_is_known_before_the_command_line_is_parsed(words: list[str]) -> None:
    assert Invocation.of(words).json_errors


@pytest.mark.parametrize("words", [[], ["-o"], ["-o", "yaml"], ["json"]])
def test_and_not_where_it_was_not_asked_for(words: list[str]) -> None:
    assert not Invocation.of(words).json_errors
