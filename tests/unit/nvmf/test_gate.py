"""Gates and the byte budget: who waits, who goes first, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.embedded.nvmf.gate import Budget, Gate
from dataplane.embedded.nvmf.options import Address, nqn_is_valid


def test_a_closed_gate_drains_and_holds() -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.inside += 1
        draining = asyncio.create_task(gate.drain())
        waiting = asyncio.create_task(gate.wait_open())
        given_up = asyncio.create_task(gate.wait_open())
        await asyncio.sleep(0)
        given_up.cancel()
        gate.leave()
        await draining
        assert (gate.closed, waiting.done()) == (True, False)
        gate.open()
        await waiting
        assert given_up.cancelled() or (await asyncio.wait({given_up}))

    asyncio.run(scenario())


def test_the_budget_is_given_in_turn_and_comes_back_whole() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        assert budget.try_take(60)
        large, given_up, small = (asyncio.create_task(budget.take(size)) for size in (80, 90, 10))
        await asyncio.sleep(0)
        assert not budget.try_take(1)  # others were first
        given_up.cancel()
        budget.give(60)
        await large
        await small
        assert budget.left == 10
        budget.give(90)
        assert (budget.left, budget.try_take(100)) == (100, True)

    asyncio.run(scenario())


def test_who_gives_up_stands_in_nobodys_way() -> None:
    async def scenario() -> None:
        budget = Budget(100)
        assert budget.try_take(60)
        large, small = asyncio.create_task(budget.take(50)), asyncio.create_task(budget.take(30))
        await asyncio.sleep(0)
        large.cancel()
        await asyncio.wait({large})
        assert budget.left == 10  # nobody gave anything back meanwhile
        await small
        assert budget.has(10)

    asyncio.run(scenario())


def test_more_than_there_is_passes_alone() -> None:
    async def scenario() -> None:
        budget = Budget(10)
        assert budget.try_take(5)
        huge = asyncio.create_task(budget.take(50))
        await asyncio.sleep(0)
        budget.give(5)
        await huge
        budget.give(50)
        assert budget.left == 10

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("nqn", "valid"),
    [
        ("nqn.2014-08.org.nvmexpress.discovery", True),
        ("nqn.2025-01.io.ws7000:a", True),
        ("nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555", True),
        ("nqn.2014-08.org.nvmexpress:uuid:1111", False),
        ("nqn.2025-01.io.ws7000", False),
        ("nqn.2025-01.io.ws7000:", False),
        ("nqn.2025-1.io.ws7000:a", False),
        ("nqn.2025-01.7o.ws7000:a", False),
        ("nqn.2025-01.io-.ws7000:a", False),
        ("iqn.2025-01.io.ws7000:a", False),
        ("nqn.2025-01.io:" + "a" * 208, True),
        ("nqn.2025-01.io:" + "a" * 209, False),
        ("", False),
    ],
)
def test_names(nqn: str, valid: bool) -> None:
    assert nqn_is_valid(nqn) is valid


def test_addresses_compare_without_case() -> None:
    one, two = Address("TCP", "IPv6", "FE80::1", "4420"), Address("tcp", "IPv6", "fe80::1", "4420")
    assert one.key == two.key
    assert one.port == 4420
    with pytest.raises(ValueError, match="no TCP port"):
        _ = Address("TCP", "IPv4", "127.0.0.1", "65536").port
