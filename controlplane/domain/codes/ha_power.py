"""Pages of what goes wrong between a node and the BMC of the other one."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final = (
    Page(
        code="HA-070",
        title="Power control is not installed",
        explanation=(
            "The power of a node is switched through its BMC by a library: sushy for Redfish, pyghmi for IPMI. They "
            "are optional, because nothing that keeps data safe rests on them. The one that this BMC needs is not "
            "installed here. Takeovers go on as always."
        ),
        remedy="pip install 'ws7000[power]' on each node that is to switch the other one.",
    ),
    Page(
        code="HA-071",
        title="No BMC is configured for the node",
        explanation=(
            "array.yaml, as it was applied, does not say what switches the power of this node, or what it says cannot "
            "be used."
        ),
        remedy=(
            "Give the node a bmc: {redfish: https://..., user: ..., password_file: ...}, or one with ipmi instead of "
            "redfish, apply, and start the agents again."
        ),
    ),
    Page(
        code="HA-072",
        title="The password of the BMC cannot be used",
        explanation=(
            "The file that holds the password of the BMC's account is missing, can be read by others than its owner, "
            "or holds something else than one line. Nothing was sent to the BMC."
        ),
        remedy="Write the password and nothing else into the file, mode 600, owned by the user that the agent runs as.",
    ),
    Page(
        code="HA-073",
        title="The BMC did not do what it was asked",
        explanation=(
            "The BMC does not answer, does not accept the account or its certificate, refuses the action, or took it "
            "and the power did not change in time. The reason holds its words. What the drives and the journal say is "
            "not touched by this: a node that was fenced stays fenced, whether its power is on or off."
        ),
        remedy=(
            "Check the address, the account and its rights; for a certificate of your own authority, give ca_file. "
            "ws7000 ha power status asks without changing anything."
        ),
    ),
    Page(
        code="HA-074",
        title="Nobody agreed that the node is switched",
        explanation=(
            "To switch a node off, or off and on, ends whatever runs there at once, without its operating system. The "
            "other node takes over what it served. So it is agreed to by typing the node's name, or with --yes."
        ),
        remedy=(
            "Run the command on a terminal and type the name, or add --yes. Move its groups away before, if it serves."
        ),
    ),
)
