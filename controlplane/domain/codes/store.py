"""Pages of the STORE codes: the state that must never be lost."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="STORE-001",
        title="No copy of the state can be read",
        explanation=(
            "The state folder has a copy per node, each with a checksum, and none of them verifies. The state holds "
            "the map of the volumes: which slices of which drives they are. An apply without it would take the drives "
            "for free ones, so everything is refused."
        ),
        remedy=(
            "Put a backup (from ws7000 array export --state-json) into the folder as node-a.json, and look with ws7000 "
            "array plan before anything else: what was made after the backup is not in it."
        ),
    ),
    Page(
        code="STORE-002",
        title="The array was changed meanwhile",
        explanation=(
            "Each change raises the generation of the state by one. This change was decided on an older generation "
            "than the stored one, so it could undo what somebody else just did. Nothing was saved."
        ),
        remedy="Run the command again; it decides anew on what is there now.",
    ),
    Page(
        code="STORE-003",
        title="Another command is changing the array",
        explanation=(
            "A change locks the state folder while it runs. The lock is the kernel's, so it ends with the process that "
            "holds it, however that ends."
        ),
        remedy="Wait for the other command; ws7000 array history shows what it does.",
    ),
    Page(
        code="STORE-004",
        title="The state folder belongs to another array",
        explanation=(
            "The name in array.yaml is not the one that this state was made for. Slices of one array must not be given "
            "out by another."
        ),
        remedy="Name the right folder with --state, or the right file with -f. An array cannot be renamed.",
    ),
)
