"""Pages of the HA codes of drives: the engine's connection, and drives that are to be fenced."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HA-020",
        title="The engine leaves too many calls unanswered",
        explanation=(
            "The HA manager speaks to its engine over one connection and lets a limited number of calls wait for their "
            "answers. Drives that hang hold the calls to them. This call was not sent, rather than queued behind those."
        ),
        remedy=(
            "See which drives do not answer (ws7000 get drives), and repair or replace them. Where none is silent, the "
            "engine itself does not answer: see its log."
        ),
    ),
)
