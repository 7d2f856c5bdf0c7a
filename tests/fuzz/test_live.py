"""A few rounds of the fuzzer of sockets; ``./run fuzz`` plays many."""

from __future__ import annotations

import asyncio

from live import run


def test_an_engine_under_attack_serves_on_and_holds_nothing_back() -> None:
    rounds, verified, found = asyncio.run(run(1, rounds=6, seconds=0))
    assert found == ""
    assert rounds == 6
    assert verified > 0
