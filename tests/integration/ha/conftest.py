"""Both kinds of engine; SPDK's half is skipped by name where it is not installed."""

from __future__ import annotations

import pytest

from dataplane.launch import EngineKind, find_spdk


@pytest.fixture(params=["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """The engine under test."""
    if request.param == "spdk" and find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    return request.param  # type: ignore[no-any-return]
