"""Pages of the CLI codes, and of starting an engine process (ENG-010 and on), which only commands do."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

_COMMANDS: Final = (
    Page(
        code="CLI-001",
        title="The command line is not understood",
        explanation="There is no such command or option, or a value is missing or not one of those allowed.",
        remedy="Every command has --help with an example: ws7000 array apply --help",
    ),
    Page(
        code="CLI-002",
        title="The typed name is not the one that would be lost",
        explanation="Before data is destroyed, its name has to be typed in full. Something else was typed.",
        remedy="Apply again and type the name, or keep the volume in array.yaml.",
    ),
    Page(
        code="CLI-003",
        title="Nothing has been applied yet",
        explanation=(
            "Lists, switchovers and exports work on the stored state, and the state folder has none. Either no array "
            "was applied, or its state is in another folder."
        ),
        remedy="Name the folder with --state or WS7000_STATE, or apply an array: ws7000 array apply -f array.yaml",
    ),
    Page(
        code="CLI-004",
        title="There is nothing of that name",
        explanation="The applied array has no such object. Names count in full and in lower case.",
        remedy="See ws7000 volume list and its like; what is only in array.yaml has to be applied first.",
    ),
    Page(
        code="CLI-005",
        title="An unforeseen error",
        explanation="This is a fault of the software, not of what you did. What was applied stays applied.",
        remedy="Run the command again with --debug, and report what it shows with the output of ws7000 version.",
    ),
    Page(
        code="CLI-006",
        title="The operating system refused",
        explanation="A file or folder could not be read or written, or a resource is used up. The message says which.",
        remedy="Look at the owner and the rights of the path; the state folder can be chosen with --state.",
    ),
    Page(
        code="CLI-007",
        title="Interrupted",
        explanation=(
            "The command was stopped from the keyboard. Steps that were done stay done; a step under way may or may "
            "not have been carried out by the engine."
        ),
        remedy="Apply again: it looks first, and goes on from what is there.",
    ),
    Page(
        code="CLI-008",
        title="The array has no drives that are files",
        explanation="A shelf process serves files as drives. All drives of this array are reached in other ways.",
        remedy="Nothing needs to be served. examples/laptop.yaml is an array of files.",
    ),
)

_DEMO: Final = (
    Page(
        code="CLI-020",
        title="The demo read back something else than it wrote",
        explanation=(
            "Every block that was written carries its own checksum and place. A block did not read back as written, "
            "though its write was acknowledged. This must never happen."
        ),
        remedy="Run ws7000 demo --keep, and report it with the folder it leaves.",
    ),
    Page(
        code="CLI-021",
        title="No Linux kernel host can be booted here",
        explanation="The demo was told to boot a Linux kernel in QEMU, and something that this takes is not installed.",
        remedy="Install what the message names, or leave --kernel-host away; the demo then goes on without it.",
    ),
    Page(
        code="CLI-022",
        title="The folder of the demo holds an array already",
        explanation="The demo begins with new drives and writes its own array.yaml. It does not write over one.",
        remedy="Name another folder with --folder, or remove this one.",
    ),
    Page(
        code="ENG-010",
        title="SPDK's nvmf_tgt was not found",
        explanation="It is looked for in bin/ below WS7000_SPDK_PREFIX, if that is set, and otherwise on PATH.",
        remedy="Install SPDK (docs/guides/spdk.md) and set WS7000_SPDK_PREFIX, or use the embedded engine.",
    ),
    Page(
        code="ENG-011",
        title="An engine did not start",
        explanation="The process ended, or did not answer on its socket in time. The end of its log is in the message.",
        remedy="Read the log beside the socket. SPDK often lacks memory or a free core.",
    ),
)

PAGES: Final[tuple[Page, ...]] = (*_COMMANDS, *_DEMO)
