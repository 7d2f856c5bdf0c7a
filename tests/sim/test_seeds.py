"""Seeds: some hundred new ones, those that once found something, and the same seed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from ha.sim.__main__ import command, corpus, main, verdict

CORPUS = corpus(Path(__file__).with_name("seeds.txt"))
BATCHES = [range(start, start + 10) for start in range(1_000, 1_100, 10)]


def whole(seed: int) -> None:
    found = verdict(seed)
    assert not found.broken, "\n".join([command(seed), *map(str, found.broken), *found.trace[-30:]])
    assert found.accesses > 300, command(seed)


@pytest.mark.parametrize("seeds", BATCHES, ids=[f"{batch.start}-{batch.stop - 1}" for batch in BATCHES])
def test_nothing_breaks_whatever_fails(seeds: range) -> None:
    for seed in seeds:
        whole(seed)


@pytest.mark.parametrize("seed", CORPUS)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    whole(seed)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_seed_is_a_seed(seed: int) -> None:
    first, second = verdict(seed), verdict(seed)
    assert first.trace_hash == second.trace_hash
    assert first.trace == second.trace
    assert first.events == second.events


def test_seeds_differ() -> None:
    assert len({verdict(seed).trace_hash for seed in range(5, 8)}) == 3


def test_one_seed_is_shown_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3"]) == 0
    shown = capsys.readouterr().out
    assert "a answers order" in shown
    assert "everything is mended" in shown
    assert "seed 3:" in shown


def test_a_failing_seed_is_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["12", "--start", "1", "--jobs", "1", "--mutant", "raise before the fence"]) == 1
    assert "./run sim --seed " in capsys.readouterr().out
