"""The page behind every error code: what ``ws7000 explain CODE`` prints.

One module per area, each with a tuple ``PAGES``; a test collects every code that the sources raise and holds it
against this table, in both directions.  This package must never import what raises the codes.
"""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes import (
    cli,
    engine,
    ha,
    ha_agent,
    ha_beat,
    ha_bench,
    ha_cli,
    ha_drives,
    ha_journal,
    ha_power,
    host,
    plan,
    rpc,
    spec,
    store,
)
from controlplane.domain.codes.page import Page

_AREAS: Final = (
    spec,
    plan,
    store,
    rpc,
    engine,
    ha,
    ha_agent,
    ha_beat,
    ha_bench,
    ha_cli,
    ha_drives,
    ha_journal,
    ha_power,
    host,
    cli,
)
PAGES: dict[str, Page] = {page.code: page for module in _AREAS for page in module.PAGES}

__all__ = ["PAGES", "Page"]
