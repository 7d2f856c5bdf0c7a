"""Pages of the HA codes of the journal on the drives: records, snapshots, what a set of drives says."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HA-010",
        title="A journal record does not fit its place",
        explanation=(
            "A record of the journal has 16 KiB on each quorum drive. It names the owner of every ANA group (two for "
            "each subsystem) and the drives that failed. This one would be longer, so nothing was written."
        ),
        remedy="Remove subsystems that nobody uses, or give them shorter names.",
    ),
    Page(
        code="HA-011",
        title="The array's state does not fit its area on the drives",
        explanation=(
            "The state (the map of all volumes, the hosts, the subsystems) is kept compressed in 336 KiB of slice 0 of "
            "each quorum drive. The state after this change would be larger, so the change was not made."
        ),
        remedy=(
            "Remove volumes or hosts. Larger slices (a choice made when a drive is adopted) make maps smaller, since "
            "volumes have fewer of them."
        ),
    ),
    Page(
        code="HA-012",
        title="A drive holds another array's journal",
        explanation=(
            "A record of the journal names the array that wrote it, and this one names another array than the drive's "
            "own. Cables or drives were swapped, or drives of two arrays were named in one file. Such a record is "
            "never used."
        ),
        remedy="Put the right drive back. A drive that is to change arrays has to be given up by its old array first.",
    ),
    Page(
        code="HA-014",
        title="A journal record was not believed",
        explanation=(
            "Each record names the SHA-256 of the one before it, and each epoch has one writer. This record breaks "
            "that chain, or another one lies under the same number, so it was left out. If it may lie on a majority of "
            "the quorum drives, nothing is decided at all."
        ),
        remedy=(
            "Bring up the quorum drives that did not answer. Where all answer, one of them was restored from a copy or "
            "written by something else: take the drive named here out."
        ),
    ),
)
