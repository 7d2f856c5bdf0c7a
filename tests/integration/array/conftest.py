"""Both kinds of engine; SPDK's half is skipped by name where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_lab import MIB, SmallLab, small_lab

from controlplane.domain.desired import Volume
from dataplane.launch import EngineKind, find_spdk


@pytest.fixture(params=["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """The engine under test."""
    if request.param == "spdk" and find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[SmallLab]:
    """Three engines; a striped, a mirrored and a small volume wanted."""
    volumes: tuple[Any, ...] = (
        Volume(name="wide", size_bytes=6 * MIB, pool="fast", home="a", hosts=("h1",)),
        Volume(name="safe", size_bytes=3 * MIB, pool="safe", home="b", hosts=("h1",)),
        Volume(name="both", size_bytes=MIB, pool="fast", home="a", hosts=("h1", "h2")),
    )
    with small_lab(kind, tmp_path, *volumes) as running:
        yield running
