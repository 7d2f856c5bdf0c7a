"""Pages of the PLAN codes: what the planner refuses, and what can stop an apply."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

_WISHES: Final = (
    Page(
        code="PLAN-001",
        title="A volume cannot change its size yet",
        explanation=(
            "A volume is a stack of sets over its slices, and both nodes hold the same stack. Growing it means "
            "to swap the stack below a namespace that hosts are using, on both nodes, without a moment in which "
            "they disagree. That does not exist yet, so another size is refused. Shrinking would cut off data."
        ),
        remedy="Add a second volume of the size you need and copy, or set the size back to what it was.",
    ),
    Page(
        code="PLAN-002",
        title="This property of a volume is fixed for life",
        explanation=(
            "Pool, protection and chunk size are the layout that the data lies in; subsystem and home are the place "
            "that hosts know the volume by. None can change under the data."
        ),
        remedy=(
            "Set it back. To have it otherwise, save the data, remove the volume, apply, and add it again under the "
            "new terms."
        ),
    ),
    Page(
        code="PLAN-003",
        title="A drive cannot go: volumes lie on it",
        explanation=(
            "The drive is gone from array.yaml or from its pool, but slices of it belong to volumes that are to stay. "
            "Moving slices to other drives is not offered yet."
        ),
        remedy="Put the drive back into its pool, or remove the volumes that the message names.",
    ),
    Page(
        code="PLAN-004",
        title="The drive is too small for its pool",
        explanation=(
            "All drives of a pool are cut into slices of one size. Slice 0 belongs to the array, so a drive has to "
            "have room for two slices at least."
        ),
        remedy="Use a larger drive, or put it into a pool of its own with a smaller slice_size.",
    ),
    Page(
        code="PLAN-005",
        title="The chunk does not divide the slice",
        explanation="A volume is striped in chunks, and a slice has to hold a whole number of them.",
        remedy="Choose a chunk that divides the slice size; powers of two always do (chunk: 64KiB).",
    ),
    Page(
        code="PLAN-006",
        title="The volume does not fit in its pool",
        explanation=(
            "Sizes are rounded up to whole slices, and a mirrored volume takes two for each, on drives of different "
            "failure domains. So many are not free, or not on different drives."
        ),
        remedy="See ws7000 pool list. Ask for less, remove a volume, or add drives to the pool.",
    ),
    Page(
        code="PLAN-007",
        title="The subsystem has no free namespace number",
        explanation="A subsystem has 1024 namespaces at most, and each volume in it is one.",
        remedy="Name another subsystem for the volume.",
    ),
    Page(
        code="PLAN-014",
        title="There is no such node",
        explanation="A switchover goes to a node of the array, or home.",
        remedy="Name one of the nodes that the message lists: ws7000 array switchover --to b",
    ),
    Page(
        code="PLAN-015",
        title="There is no such subsystem",
        explanation="A switchover looks at what was applied; a subsystem that is only in array.yaml does not count.",
        remedy="See ws7000 subsystem list.",
    ),
)

_SAFETY: Final = (
    Page(
        code="PLAN-008",
        title="A node cannot be taken out of the array",
        explanation=(
            "A node that array.yaml no longer has is not looked at. Its engine may still be running and serve its ANA "
            "groups; raising them on the other node would give them two owners."
        ),
        remedy="Keep the node in array.yaml. To work on it: ws7000 array switchover --to the other one, then stop it.",
    ),
    Page(
        code="PLAN-010",
        title="A node could not be observed",
        explanation=(
            "A plan is made from what both nodes have. A silent node is unknown, never empty: it may still serve "
            "hosts, and a plan that counts only on the other could make two nodes serve one group. Nothing was changed."
        ),
        remedy="Start the node's engine, or correct its rpc address in array.yaml; ws7000 node list shows who answers.",
    ),
    Page(
        code="PLAN-011",
        title="Data would be lost, and nobody agreed",
        explanation=(
            "The plan removes a volume, or takes over a drive that holds something. That cannot be undone, so it needs "
            "consent by name. On a terminal apply asks for the name to be typed; elsewhere it is refused."
        ),
        remedy=(
            "If it was not meant, put the volume back into array.yaml. If it was: ws7000 array apply --destroy NAME "
            "for each, or --yes for everything in the plan."
        ),
    ),
    Page(
        code="PLAN-012",
        title="Another drive stands in this place",
        explanation=(
            "The serial number is not that of the drive that was adopted under this name, or not the one in "
            "array.yaml. Drives or cables were swapped. Building volumes on it would mix the data of two drives."
        ),
        remedy="Put the right drive back, or list the new one under a name of its own.",
    ),
    Page(
        code="PLAN-013",
        title="A drive in use has lost its label",
        explanation=(
            "Slice 0 of every adopted drive says which array and which drive it is. This one holds slices of volumes, "
            "but says nothing, or something else: it was wiped, exchanged, or is another array's."
        ),
        remedy=(
            "Put the right drive back. If its data is gone, remove the volumes that lie on it, apply, and let the "
            "drive be adopted anew."
        ),
    ),
    Page(
        code="PLAN-016",
        title="The file of a drive has another size",
        explanation=(
            "A drive that is a file exists already and is not as large as array.yaml says. Something else may be in "
            "it, so it is neither grown nor cut."
        ),
        remedy="Correct the size in array.yaml, or move the file away; a missing file is made.",
    ),
    Page(
        code="PLAN-017",
        title="The engine examines bdevs by itself",
        explanation=(
            "By default SPDK reads every new bdev and assembles what it recognises. Here the other node may be using "
            "the very same slices, so an engine must assemble nothing that it was not told to."
        ),
        remedy=(
            "Start the engine with a configuration that sets bdev_auto_examine to false: "
            "nvmf_tgt -c examples/engine-start.json, or ws7000 engine -c examples/engine-start.json"
        ),
    ),
    Page(
        code="PLAN-018",
        title="The embedded engine cannot do this",
        explanation=(
            "The embedded engine serves NVMe over TCP only, from drives behind a TCP shelf. "
            "array.yaml asks for more; it is refused before anything is changed, rather than done by half."
        ),
        remedy="Run SPDK on the nodes (docs/guides/spdk.md), or leave it out of array.yaml.",
    ),
)

_APPLY: Final = (
    Page(
        code="PLAN-019",
        title="A mirror has lost a leg",
        explanation=(
            "The engine dropped one leg of a mirrored set after a failed write. What was written since is only on the "
            "other leg. Taking the set down and building it again would bring the old leg back as if it were equal, "
            "and half of the reads would show old data. Nothing is planned for the array while this is so."
        ),
        remedy=(
            "With high availability: bring the drive back or replace it, then ws7000 ha drive-repaired DRIVE; the "
            "owner rebuilds the leg. With ha: none, keep this node's engine running and do not switch over; copy the "
            "data of the volume to a new one through this node, then remove the volume."
        ),
    ),
    Page(
        code="PLAN-020",
        title="A drive failed a command",
        explanation=(
            "Writing the label, zeroes or a flush was answered with an error status; SCT and SC are the status code "
            "type and the status code of the NVMe base specification."
        ),
        remedy="Look at the drive's health and at its connection; the next apply tries again.",
    ),
    Page(
        code="PLAN-021",
        title="The apply stopped in the middle",
        explanation=(
            "A step failed, and nothing after it was done. Every step before it holds, and the order of a plan makes "
            "each prefix safe: what is exported is complete. The message has the cause, the journal the steps."
        ),
        remedy="Mend the cause and apply again; the next plan goes on from there. ws7000 array history shows where.",
    ),
    Page(
        code="PLAN-022",
        title="The array does not come to rest",
        explanation=(
            "An apply looks again after each round until nothing differs. After five rounds something still did, so "
            "something else is changing the engines, or an engine does not keep what it is told."
        ),
        remedy="See ws7000 array diff twice in a row, and find what else talks to the engines.",
    ),
)

_STALE: Final[tuple[Page, ...]] = (
    Page(
        code="PLAN-023",
        title="The state is older than the array",
        explanation=(
            "A node exports a volume that, by this state, no host may see yet. So the state is an old one, as after "
            "restoring a backup, and slices it takes for free may hold data."
        ),
        remedy="Restore the newest state. Without one, keep the engines as they are and copy the data out first.",
    ),
    Page(
        code="PLAN-024",
        title="A drive is attached but cannot be read",
        explanation=(
            "The first block of a drive says whose it is. Nothing is built on a drive that does not answer; moving ANA "
            "groups of volumes that already stand is not held up."
        ),
        remedy="See to the drive or to its path, then apply again.",
    ),
    Page(
        code="PLAN-025",
        title="Some volumes could not be made yet",
        explanation=(
            "A volume is cut once every drive of its pool has been seen, since only then all of them have slices of "
            "one size. All else has been done."
        ),
        remedy="Bring the missing drive back, or take it out of the pool, and apply again.",
    ),
    Page(
        code="PLAN-026",
        title="High availability cannot be taken off an array",
        explanation=(
            "The drives of such an array are reserved for the members that its agents admit, and the agents alone "
            "raise and lower ANA. Without them a restarted engine could neither read nor write the drives."
        ),
        remedy="Keep ha in array.yaml. To keep the agents' hands off for a while: ws7000 ha pause.",
    ),
)

PAGES: Final[tuple[Page, ...]] = tuple(sorted((*_WISHES, *_SAFETY, *_APPLY, *_STALE), key=lambda page: page.code))
