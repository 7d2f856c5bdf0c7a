"""The corpus: every seed and every finding does no harm, and the seeds are what their script writes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from hypothesis import given
from hypothesis import strategies as st
from make_corpus import CORPUS, seeds

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
SEEDS = seeds()


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.name}" for path in FILES])
def test_an_input_of_the_corpus_does_no_harm(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_the_seeds_are_what_the_script_writes() -> None:
    kept = {(path.parent.name, path.name): path.read_bytes() for path in FILES if not path.name.startswith("found-")}
    assert kept == {(target, name): data for target, inputs in SEEDS.items() for name, data in inputs.items()}
    assert SEEDS.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_a_changed_input_does_no_harm(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(list(SEEDS[name].values())))
    TARGETS[name](mutated(seed, random.Random(data.draw(st.integers(0, 2**32)))))


@pytest.mark.parametrize("name", TARGETS)
@given(raw=st.binary(max_size=600))
def test_any_input_does_no_harm(name: str, raw: bytes) -> None:
    TARGETS[name](raw)


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Bytes changed, put in, taken out or repeated."""
    raw = bytearray(seed)
    for _ in range(rng.randrange(1, 6)):
        at, kind = rng.randrange(len(raw) + 1), rng.randrange(4)
        if kind == 0 and raw:
            raw[at % len(raw)] = rng.choice([0, 1, 4, 24, 72, 127, 128, 255, rng.randrange(256)])
        elif kind == 1:
            raw[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2:
            del raw[at : at + rng.randrange(1, 17)]
        else:
            raw[at:at] = raw[at : at + rng.randrange(1, 65)]
    return bytes(raw)
