"""Identities that are computed by hand are those of the standard."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.state import derived_uuid


@given(st.uuids(), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_derived_uuid_is_version_5_of_its_name(parent: uuid.UUID, name: str) -> None:
    assert derived_uuid(str(parent), name) == str(uuid.uuid5(parent, name))
