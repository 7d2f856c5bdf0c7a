"""Each wrong version of the HA manager is caught within a few seeds, or the checks would be worth nothing."""

from __future__ import annotations

import pytest

from ha.sim.__main__ import verdict
from ha.sim.mutants import MUTANTS

SEEDS = range(1, 31)


@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_caught(name: str) -> None:
    for seed in SEEDS:
        if verdict(seed, name).broken:
            return
    pytest.fail(f"no seed of {len(SEEDS)} shows that {MUTANTS[name].why}")
