"""The resolved array: lookups and derived names."""

from __future__ import annotations

import pytest

from controlplane.domain.desired import Array, FabricsDrive, Qos, family_of, shelf_nqn, subsystem_nqn
from controlplane.domain.errors import NotFound

EMPTY = Array(name="demo", nodes=(), drives=(), pools=(), subsystems=(), volumes=())


@pytest.mark.parametrize("kind", ["node", "drive", "pool", "subsystem", "volume", "host"])
def test_a_name_that_is_not_there_is_a_coded_error(kind: str) -> None:
    with pytest.raises(NotFound) as caught:
        getattr(EMPTY, kind)("x")
    assert caught.value.code == "SPEC-090"
    assert kind in caught.value.what


def test_derived_names() -> None:
    assert subsystem_nqn("demo", "default") == "nqn.2026-01.io.ws7000:demo:default"
    assert shelf_nqn("demo", "d00") == "nqn.2026-01.io.ws7000:demo:shelf:d00"
    assert family_of("fd00::1") == "ipv6"
    assert FabricsDrive(transport="tcp", address="10.0.0.1", service=1, nqn="n").family == "ipv4"


def test_qos_without_bounds_is_unlimited() -> None:
    assert Qos().unlimited
    assert not Qos(write_bytes_per_s=1).unlimited
