"""The arithmetic of a policy: kept, or refused with its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain.errors import Refused
from ha.policy import ANATT_MS, FAST, KILL_TO_SILENCE_MS, POLICIES, Policy


@pytest.mark.parametrize("policy", POLICIES.values(), ids=str)
def test_the_shipped_policies_keep_every_rule(policy: Policy) -> None:
    assert policy.checked() is policy
    assert policy.takeover_wait_ms - policy.lease_lasts_ms >= KILL_TO_SILENCE_MS
    assert policy.takeover_wait_ms < ANATT_MS


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"guard_ms": 0, "epsilon_ms": 10}, "kill to last byte + tick"),
        ({"heartbeat_ms": 100}, "3 heartbeats + epsilon <= lease - drift - guard is 320 <= 259"),
        ({"slot_ms": 200}, "2 slots + epsilon"),
        ({"engine_ms": 200}, "lease <= engine is 300 <= 200"),
        ({"drive_dead_ms": 100}, "10 drive deadlines"),
        ({"boot_ms": 100}, "takeover wait + 5 heartbeats <= boot"),
        ({"load_ms": 20_000}, "ANATT"),
        ({"yield_ms": 10}, "half a drive deadline <= yield"),
        ({"tick_ms": 50}, "tick <= epsilon"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused_with_its_numbers(changes: dict[str, int], shown: str) -> None:
    with pytest.raises(Refused) as caught:
        replace(FAST, **changes).checked()
    assert caught.value.code == "HA-001"
    assert shown in caught.value.why


def test_drift_shortens_the_lease_and_lengthens_the_wait() -> None:
    wild = replace(FAST, drift_ppm=100_000)
    assert wild.lease_lasts_ms == 300 - 30 - 40
    assert wild.takeover_wait_ms == 300 + 30 + 20


def test_quarantine_doubles() -> None:
    assert [FAST.quarantine_for_ms(n) for n in (0, 1, 2, 3, 4)] == [0, 0, 60_000, 120_000, 240_000]
    assert FAST.quarantine_for_ms(50) == FAST.quarantine_for_ms(8)
