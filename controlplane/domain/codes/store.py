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
    Page(
        code="STORE-005",
        title="A drive that votes cannot leave the array",
        explanation=(
            "The journal lies on an odd number of quorum drives, chosen when the array was formed. What was written is "
            "found because any majority of exactly these drives shows it, so none of them can be taken out."
        ),
        remedy="Keep the drive in array.yaml. A broken one is replaced under the same name.",
    ),
    Page(
        code="STORE-006",
        title="The array cannot be formed yet",
        explanation=(
            "To form the array its state is put on the quorum drives. For that a state has to be applied, enough "
            "drives have to be adopted (in a pool, and seen), and the block size of each has to be known."
        ),
        remedy="Run ws7000 array apply with every drive present, then form the array again.",
    ),
    Page(
        code="STORE-007",
        title="The array is formed, and no HA agent answers",
        explanation=(
            "The state of a formed array is in the journal on its drives, and only the agents read and write it. What "
            "is in the state folder is a copy, which may be old, so it is not used."
        ),
        remedy="Start ws7000 ha agent on at least one node. While no agent can run, nothing can be changed.",
    ),
    Page(
        code="STORE-008",
        title="The journal and the state folder do not agree",
        explanation=(
            "A change is put on the drives first and into the files afterwards, so the files are never newer than the "
            "journal, and both are of one array. Here that does not hold, or the journal holds no state that can "
            "be read: drives were exchanged, a folder was copied, or the journal lost its newest records."
        ),
        remedy="Find out which is right before anything is changed: volumes made after the older one are not in it.",
    ),
    Page(
        code="STORE-009",
        title="The array is formed already",
        explanation="Forming puts the first state on the quorum drives; there is one already, and it is not replaced.",
        remedy="Nothing is to be done. ws7000 array show shows the array.",
    ),
    Page(
        code="STORE-010",
        title="What an import would write is there already",
        explanation=(
            "An import writes what the drives say into the state folder, and array.yaml. This folder has a state of "
            "another array or one that is not older, or the file exists; neither is written over."
        ),
        remedy="Name an empty folder with --state. To go back to an older state on purpose, move the files away first.",
    ),
    Page(
        code="STORE-011",
        title="Nobody agreed to the import",
        explanation=(
            "An import makes this machine believe what the drives say, so a person types the name of the array that "
            "was found, or --yes is given. A takeover evicts all nodes from the drives, so --take-over wants the name "
            "of the array as well. Nothing was written."
        ),
        remedy="Look at what was found, then run it again with --yes.",
    ),
)
