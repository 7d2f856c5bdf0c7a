"""The printer: tables, JSON, and what must not reach a terminal."""

from __future__ import annotations

import json

import pytest
import yaml

from cli.options import Color, Format, Settings
from cli.output import Column, Output, fields, harmless

COLUMNS = (
    Column(title="NAME", show=lambda item: str(item["name"])),
    Column(title="STATE", show=lambda item: str(item["state"])),
    Column(title="MORE", show=lambda item: str(item["more"]), wide=True),
)
ITEMS = [{"name": "v1", "state": "OK", "more": "x" * 300}, {"name": "volume-2", "state": "MISSING", "more": ""}]


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def written(capsys: pytest.CaptureFixture[str], settings: Settings, items: list[dict[str, str]] = ITEMS) -> str:
    Output(settings).items("volume", items, COLUMNS)
    return capsys.readouterr().out


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, Settings()) == "NAME       STATE\nv1         OK\nvolume-2   MISSING\n"
    assert written(capsys, Settings(headers=False)) == "v1         OK\nvolume-2   MISSING\n"


def test_nothing_is_wrapped_or_cut_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, Settings(format=Format.WIDE)).splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("x" * 300)
    assert lines[2].endswith("-")


def test_a_narrow_terminal_cuts_the_widest_column_and_never_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"name": "a-volume-of-a-long-name", "state": "DEGRADED", "more": "x" * 300}]
    monkeypatch.setenv("COLUMNS", "24")
    assert written(capsys, Settings(), items) == "NAME            STATE\na-volume-of...  DEGRADED\n"
    assert "x" * 300 in written(capsys, Settings(format=Format.WIDE), items)
    monkeypatch.setenv("COLUMNS", "1")
    assert written(capsys, Settings(), items).splitlines()[1] == "a-v...  DEG..."


def test_json_yaml_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {"apiVersion": "ws7000/v1", "kind": "VolumeList", "items": ITEMS}
    assert json.loads(written(capsys, Settings(format=Format.JSON))) == wanted
    assert yaml.safe_load(written(capsys, Settings(format=Format.YAML))) == wanted
    assert written(capsys, Settings(format=Format.NAME)) == "volume/v1\nvolume/volume-2\n"


def test_an_empty_list_is_talk_and_not_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Settings()).items("volume", [], COLUMNS)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "no volumes\n")


def test_colour_only_where_it_is_wanted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in written(capsys, Settings())
    assert "\x1b[32mOK" in written(capsys, Settings(color=Color.ALWAYS))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" in written(capsys, Settings(color=Color.ALWAYS))
    assert "\x1b" not in written(capsys, Settings(color=Color.NEVER))


def test_the_terminal_cannot_be_driven_from_outside(capsys: pytest.CaptureFixture[str]) -> None:
    evil = [{"name": "\x1b[2Jgone\x07", "state": "OK\r", "more": ""}]
    out = written(capsys, Settings(), evil)
    assert "\x1b" not in out
    assert "\r" not in out
    assert harmless("a\tb\nc\u202e") == "a?b\nc?"


def test_markup_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Settings()).say("[bold]x[/bold] :smile:")
    assert capsys.readouterr().err == "[bold]x[/bold] :smile:\n"


def test_progress_is_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(Settings()).progress() as advance:
        advance(0, 10, "a: attach drive d0")
        advance(10, 10, "")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "[ 1/10] a: attach drive d0\n")


def test_fields() -> None:
    assert fields([("name", "v1"), ("subsystem", "")]) == ["name:       v1", "subsystem:  -"]
