"""The commands, as far as they go without an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
LAPTOP = str(ROOT / "examples/laptop.yaml")
Run = Callable[..., Any]


def test_help_is_this(run: Run) -> None:
    wanted = (Path(__file__).parent / "help.txt").read_text(encoding="utf-8")
    assert run("--help").out == wanted


def test_mistyped_nouns_verbs_and_options(run: Run) -> None:
    for words, guess in ((["volum"], "volume"), (["array", "aply"], "apply"), (["array", "plan", "--chek"], "--check")):
        ran = run(*words)
        assert ran.status == 2
        assert "CLI-001" in ran.err
        assert guess in ran.err
        assert ran.out == ""


def test_a_usage_error_as_json(run: Run) -> None:
    ran = run("volume", "list", "--nope", "-o", "json")
    assert ran.status == 2
    assert json.loads(ran.err)["code"] == "CLI-001"


def test_validate(run: Run) -> None:
    for words in (["-f", LAPTOP], [LAPTOP], ["--file", LAPTOP]):
        ran = run("array", "validate", *words)
        assert (ran.status, ran.out.split(":")[0]) == (0, "array laptop is valid")
    body = json.loads(run("array", "validate", LAPTOP, "-o", "json").out)
    assert (body["apiVersion"], body["kind"], body["drives"]) == ("ws7000/v1", "Validated", 24)


def test_validate_from_stdin_and_environment(run: Run) -> None:
    text = Path(LAPTOP).read_text(encoding="utf-8")
    assert run("array", "validate", "-f", "-", stdin=text).status == 0
    assert run("array", "validate", env={"WS7000_ARRAY": LAPTOP}).status == 0
    wins = run("array", "validate", "-f", "nowhere.yaml", env={"WS7000_ARRAY": LAPTOP})
    assert (wins.status, "nowhere.yaml" in wins.err) == (2, True)


def test_a_wrong_file_shows_each_line(run: Run) -> None:
    text = Path(LAPTOP).read_text(encoding="utf-8").replace("size: 256MiB", "sise: 256MiB")
    ran = run("array", "validate", "-f", "-", stdin=text)
    assert ran.status == 2
    assert "<stdin>:" in ran.err
    assert "sise: 256MiB" in ran.err
    assert "did you mean 'size'?" in ran.err


def test_explain(run: Run) -> None:
    ran = run("explain", "plan-001")
    assert ran.status == 0
    assert ran.out.startswith("PLAN-001: ")
    assert "What to do:" in ran.out
    assert json.loads(run("explain", "PLAN-001", "-o", "json").out)["name"] == "PLAN-001"
    every = run("explain").out
    assert "STORE-001" in every
    wrong = run("explain", "PLAN-999")
    assert wrong.status == 4
    assert "did you mean PLAN-" in wrong.err


def test_schema_and_version(run: Run) -> None:
    assert json.loads(run("schema").out)["$schema"].endswith("2020-12/schema")
    assert json.loads(run("version", "-o", "json").out)["name"] == "ws7000"
    assert "embedded engine:" in run("version").out


@pytest.mark.parametrize("noun", ["node", "drive", "pool", "volume", "host", "subsystem"])
def test_lists_before_anything_was_applied(run: Run, noun: str, tmp_path: Path) -> None:
    ran = run(noun, "list", "--state", str(tmp_path))
    assert (ran.status, ran.out) == (4, "")
    assert "CLI-003" in ran.err


@pytest.mark.parametrize("noun", ["node", "drive", "pool", "volume", "host", "subsystem"])
def test_lists_while_no_engine_answers(run: Run, noun: str, applied: Path) -> None:
    ran = run(noun, "list", "--state", str(applied))
    assert ran.status == 0
    assert "node a could not be observed" in ran.err
    assert ran.out.startswith("NAME ")
    assert ("UNKNOWN" in ran.out) is (noun != "host")
    assert "MISSING" not in ran.out
    body = json.loads(run(noun, "list", "--state", str(applied), "-o", "json").out)
    assert body["kind"] == f"{noun.capitalize()}List"
    name = body["items"][0]["name"]
    assert run(noun, "list", "--state", str(applied), "-o", "name").out.splitlines()[0] == f"{noun}/{name}"
    shown = json.loads(run(noun, "show", name, "--state", str(applied), "-o", "json").out)
    assert {**body["items"][0], "apiVersion": "ws7000/v1", "kind": noun.capitalize()} == shown
    assert run(noun, "show", name, env={"WS7000_STATE": str(applied)}).out.startswith("name:")


def test_quantities_are_integers_with_units(run: Run, applied: Path) -> None:
    item = json.loads(run("volume", "show", "v1", "--state", str(applied), "-o", "json").out)
    assert item["size_bytes"] == 6 << 20
    assert item["state_by_node"] == {"a": "UNKNOWN", "b": "UNKNOWN"}
    assert yaml.safe_load(run("volume", "show", "v1", "--state", str(applied), "-o", "yaml").out) == item


def test_show_names_the_nearest(run: Run, applied: Path) -> None:
    ran = run("drive", "show", "d00", "--state", str(applied))
    assert ran.status == 4
    assert "did you mean 'd0'?" in ran.err


def test_array_show_plan_and_apply_while_no_engine_answers(run: Run, applied: Path, tmp_path: Path) -> None:
    where = ("--state", str(applied))
    assert json.loads(run("array", "show", *where, "-o", "json").out)["state"] == "UNKNOWN"
    exported = run("array", "export", *where).out
    file = tmp_path / "array.yaml"
    file.write_text(exported, encoding="utf-8")
    for verb in ("plan", "diff", "apply"):
        ran = run("array", verb, "-f", str(file), *where)
        assert (ran.status, ran.out) == (7, "")
        assert "PLAN-010" in ran.err
    body = json.loads(run("array", "plan", "-f", str(file), *where, "-o", "json").out)
    assert (body["refused"], body["problems"][0]["code"]) == (True, "PLAN-010")


def test_export_of_the_state_reads_back(run: Run, applied: Path) -> None:
    from controlplane.store import codec
    from controlplane.store.file import FileStore

    raw = run("array", "export", "--state-json", "--state", str(applied)).out.encode()
    assert codec.decode(raw) == FileStore(applied).load()


def test_a_file_of_another_array_is_refused(run: Run, applied: Path) -> None:
    ran = run("volume", "list", "-f", LAPTOP, "--state", str(applied))
    assert ran.status == 6
    assert "STORE-004" in ran.err


def test_switchover_names_what_is_not_there(run: Run, applied: Path) -> None:
    for words, code in (
        (("array", "switchover", "--to", "c", "--dry-run"), "PLAN-014"),
        (("subsystem", "switchover", "nope", "--to", "b", "--dry-run"), "PLAN-015"),
        (("array", "switchover", "--to", "c"), "PLAN-014"),
    ):
        ran = run(*words, "--state", str(applied))
        assert (ran.status, code in ran.err) == (4, True)


def test_history(run: Run, applied: Path) -> None:
    from controlplane.reconcile.journal import Journal

    assert run("array", "history", "--state", str(applied)).err == "no events\n"
    journal = Journal(applied)
    journal.write("intent", [{"node": "a", "step": "AttachDrive", "sentence": "attach drive d0", "generation": 1}])
    journal.write("failed", [{"code": "RPC-001", "what": "no connection"}])
    ran = run("array", "history", "--state", str(applied))
    assert [line.split()[1] for line in ran.out.splitlines()] == ["EVENT", "intent", "failed"]
    assert "no connection" in ran.out
    last = json.loads(run("array", "history", "--last", "1", "--state", str(applied), "-o", "json").out)
    assert [event["code"] for event in last["items"]] == ["RPC-001"]


def test_shelf_serve_of_an_array_without_files(run: Run, applied: Path, tmp_path: Path) -> None:
    file = tmp_path / "array.yaml"
    file.write_text(run("array", "export", "--state", str(applied)).out, encoding="utf-8")
    ran = run("shelf", "serve", "-r", "nowhere.sock", "-f", str(file))
    assert (ran.status, "CLI-008" in ran.err) == (4, True)


def test_engine_methods_of_an_engine_that_is_not_there(run: Run, tmp_path: Path) -> None:
    ran = run("engine", "methods", "-r", str(tmp_path / "no.sock"))
    assert (ran.status, "RPC-001" in ran.err) == (7, True)


def test_shell_completion(run: Run) -> None:
    def completed(*words: str) -> list[str]:
        line = " ".join(["ws7000", *words])
        env = {"_WS7000_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        return [each.partition(",")[2] for each in run(env=env).out.splitlines()]

    assert completed("vol") == ["volume"]
    assert "apply" in completed("array", "ap")
    assert "PLAN-001" in completed("explain", "PLAN")
