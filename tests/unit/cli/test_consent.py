"""Nothing is destroyed without its name."""

from __future__ import annotations

import io

import pytest

from cli import changes
from cli.options import Format, Settings
from cli.output import Output
from controlplane.domain.errors import Refused
from controlplane.domain.state import State
from controlplane.planner.plan import Consent
from controlplane.reconcile.reconciler import Applied


class Terminal(io.StringIO):
    """A standard input that a person sits at."""

    def isatty(self) -> bool:
        return True


def refusal(*names: str) -> Refused:
    found = [Refused("PLAN-011", f"this would destroy {name}", details={"name": name}) for name in names]
    found[0].details = {**found[0].details, "problems": [each.to_json() for each in found]}
    return found[0]


def attempt(
    state: State, *wanted: str, format_: Format = Format.TABLE, consent: Consent | None = None
) -> list[Consent]:
    """Runs something that destroys ``wanted``; the consents it was tried with."""
    tried: list[Consent] = []

    def run(given: Consent) -> Applied:
        tried.append(given)
        missing = [name for name in wanted if not given.covers(name)]
        if missing:
            raise refusal(*missing)
        return Applied(state=state)

    changes._with_consent(Output(Settings(format=format_)), consent or Consent(), run)
    return tried


@pytest.fixture
def state(model: object) -> State:
    return model.state  # type: ignore[attr-defined, no-any-return]


def test_without_a_terminal_nobody_is_asked(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("v1\n"))
    with pytest.raises(Refused, match="PLAN-011"):
        attempt(state, "v1")


def test_a_program_is_not_asked_either(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("v1\n"))
    with pytest.raises(Refused, match="PLAN-011"):
        attempt(state, "v1", format_=Format.JSON)


def test_the_names_are_typed(state: State, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("v1\nv2\n"))
    assert [tried.names for tried in attempt(state, "v1", "v2")] == [frozenset(), frozenset({"v1", "v2"})]
    captured = capsys.readouterr()
    assert "This destroys the data of v2, for good." in captured.err


def test_another_name_is_no_consent(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    with pytest.raises(Refused, match="CLI-002"):
        attempt(state, "v1")


def test_consent_given_before_is_enough(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert len(attempt(state, "v1", consent=Consent(names=frozenset({"v1"})))) == 1
    assert len(attempt(state, "v1", "v2", consent=Consent(everything=True))) == 1


def test_another_refusal_is_not_asked_away(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("v1\n"))

    def run(_consent: Consent) -> Applied:
        raise Refused("PLAN-012", "wrong drive")

    with pytest.raises(Refused, match="PLAN-012"):
        changes._with_consent(Output(Settings()), Consent(), run)
