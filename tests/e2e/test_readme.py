"""The first command of the README, as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_demo_does_the_main_job_and_cleans_up(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        ["./run", "demo", "-o", "json", "--folder", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["drives"] == 24
    assert result["nodes"] == ["a", "b"]
    assert result["host_errors"] == 0
    shown = [v for v in result["volumes"] if v["verified_bytes"]]
    assert len(shown) == 3
    assert all(v["verified_bytes"] == v["size_bytes"] and v["wrong_blocks"] == 0 for v in shown)
    assert "cleaned up" in done.stderr
    assert not list(folder.glob("*.sock"))


@pytest.mark.e2e
def test_run_without_a_word_says_what_it_can(tmp_path: Path) -> None:
    done = subprocess.run(["./run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert subprocess.run(["./run", "dance"], cwd=ROOT, capture_output=True).returncode == 2


@pytest.mark.e2e
def test_the_test_command_hands_its_arguments_on() -> None:
    done = subprocess.run(["./run", "test", "tests/unit/domain", "-q"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.e2e
def test_the_demo_does_not_write_over_an_array(tmp_path: Path) -> None:
    (tmp_path / "array.yaml").write_text("mine")
    done = subprocess.run(["./run", "demo", "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 6
    assert "CLI-022" in done.stderr
    assert (tmp_path / "array.yaml").read_text() == "mine"
