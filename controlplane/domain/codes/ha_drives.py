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
    Page(
        code="HA-021",
        title="The record before this one was not found",
        explanation=(
            "Each record of the journal names the SHA-256 of the one before it. That one is not known here, and no "
            "quorum drive that answers holds it, so the new record was not written."
        ),
        remedy="Bring up the quorum drives that do not answer; the node reads the journal again by itself.",
    ),
    Page(
        code="HA-022",
        title="A snapshot is longer than its area",
        explanation=(
            "The state of the array is written into one of two areas of 336 KiB on each quorum drive. A longer one "
            "would destroy what the newest record names, so nothing was written."
        ),
        remedy="Remove volumes or hosts.",
    ),
    Page(
        code="HA-023",
        title="A drive in use is not qualified",
        explanation=(
            "ws7000 ha qualify-drive evicts one node from the drive and writes its last blocks, which it puts back "
            "afterwards. This drive has registered nodes, or it holds data and nobody consented to it."
        ),
        remedy=(
            "Use a blank drive. For one that holds data that nobody needs, give --consent with its name. A drive with "
            "registered nodes has to be given up by its array first; no consent changes that."
        ),
    ),
    Page(
        code="HA-024",
        title="The drive is not fit for fencing",
        explanation=(
            "A drive has to shut an evicted node out for good: its reservations have to be shared by both nodes and "
            "outlive a power loss, and no write of the evicted node may land after the eviction has completed. This "
            "drive does not do all of that, so a takeover could not rest on it."
        ),
        remedy="Do not use this model and firmware in an array with high availability; ask its maker for an update.",
    ),
    Page(
        code="HA-025",
        title="The drive could not be qualified",
        explanation=(
            "A command of the measurement failed or was not answered, so nothing can be said about the drive. What the "
            "measurement registered on it may still be there."
        ),
        remedy="See the logs of both engines, repair the path, and measure again.",
    ),
)
