"""Arrays, facts and a model of what each step does to a node, for the planner's tests."""

from __future__ import annotations

import pytest
from planner_model import Model, small_array

from controlplane.domain.desired import Array


@pytest.fixture
def array() -> Array:
    """Two nodes, six drives, a plain and a mirrored pool, three volumes, two hosts."""
    return small_array()


@pytest.fixture
def model(array: Array) -> Model:
    """Both nodes empty, drives blank."""
    return Model(array)
