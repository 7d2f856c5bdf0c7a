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
        code="HA-013",
        title="No majority of the quorum drives",
        explanation=(
            "A state counts once it is on a majority of the quorum drives, so only a majority can show which one is "
            "the newest. Too few of them were read, or records contradict each other and the drives that were not "
            "read may decide between them."
        ),
        remedy="Bring up more of the quorum drives, name them in the file, and import again.",
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
    Page(
        code="HA-015",
        title="The journal is older than what is on the drives",
        explanation=(
            "A drive carries this array's label, and the state in the journal does not know it or knows it with other "
            "slices; or the newest record names a state that is nowhere. So a newer state was written elsewhere. An "
            "import of an older one would give away slices that volumes hold."
        ),
        remedy="Name all drives of the array in the file, so that the newest journal is among them.",
    ),
    Page(
        code="HA-016",
        title="The drives are reserved by other nodes",
        explanation=(
            "The drives answer Reservation Conflict: nodes of the array are registered there, and nobody else may "
            "read. Registrations outlive the node that made them, so this says nothing about whether it still runs."
        ),
        remedy=(
            "Where the nodes run, start ws7000 ha agent there; nothing is to be imported. Where they are gone for "
            "good, import with --take-over: it registers this node and evicts all others."
        ),
    ),
    Page(
        code="HA-017",
        title="There is nothing to import",
        explanation=(
            "No drive of the file carries an array's label, or those that do hold no journal. The journal is written "
            "once the array is formed; an array with ha none never has one."
        ),
        remedy="Name the array's drives in the file. Without a journal, restore the state from a backup.",
    ),
    Page(
        code="HA-018",
        title="The file and the drives do not agree",
        explanation=(
            "The names of an array and of its drives are on the drives, and hosts know the array by NQNs that follow "
            "from its name. The file names them otherwise, or the engine has a drive attached from another place."
        ),
        remedy="Write the names that the message gives into the file.",
    ),
    Page(
        code="HA-019",
        title="A drive was not taken over",
        explanation=(
            "A takeover registers this node on every drive, evicts all others with preempt-and-abort, and reads the "
            "registrations back. One drive did not do that, or is reserved by something that is not this array."
        ),
        remedy=(
            "Make sure that no node of the array runs anywhere, and that the drive is this array's. Then import again; "
            "drives that were taken over already can be read as they are."
        ),
    ),
)
