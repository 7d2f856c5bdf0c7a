"""Codes of ``ws7000 ha bench``."""

from __future__ import annotations

from controlplane.domain.codes.page import Page

PAGES = (
    Page(
        code="HA-070",
        title="The lab did not do what was waited for",
        explanation=(
            "ws7000 ha bench starts an array on this machine and waits for its agents and its host; one of these waits "
            "did not end. What the agents said last is shown."
        ),
        remedy="Look at what the agents said. A machine without free cores may need the policy slow.",
    ),
)
