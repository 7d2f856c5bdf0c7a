"""Pages of the HA codes that the decision itself gives: policies, orders, takeovers."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HA-001",
        title="The policy cannot be safe",
        explanation=(
            "The times of an HA policy hang together: a node has to stop by itself before its peer fences it, a lost "
            "heartbeat must not cost the lease, and hosts must not wait longer than ANATT. Each rule that is broken "
            "is shown with its numbers."
        ),
        remedy="Use fast or slow; ws7000 ha policy prints the rules and what both make of them.",
    ),
    Page(
        code="HA-002",
        title="The drives are registered by somebody else",
        explanation=(
            "A new array is formed only on drives that nobody holds a registration on. A registration belongs to "
            "another array, to another node that is forming this one, or to an array whose nodes lost power. "
            "A node of an array that is formed already stays outside for the same reason: to begin would shut out "
            "whoever serves these drives."
        ),
        remedy=(
            "If an array of yours lives on these drives, start its agents instead of forming a new one. If the "
            "registrations are left over from something that is gone, clear them from a host that may: nvme resv-"
            "release."
        ),
    ),
    Page(
        code="HA-003",
        title="The drives hold an array already",
        explanation="The journal on the quorum drives has a record, so there is nothing to form.",
        remedy="Start the agents and apply; with the state folder lost, ws7000 array import reads it from the drives.",
    ),
    Page(
        code="HA-004",
        title="This node does not lead",
        explanation=(
            "Only the leader of an epoch changes who serves what, so that changes have one order. The message names "
            "the leader, or says why this node knows of none."
        ),
        remedy="Run the command on the leader, or let ws7000 find it: ws7000 ha status names it.",
    ),
    Page(
        code="HA-005",
        title="Not possible as the nodes stand now",
        explanation=(
            "A planned move needs both nodes as members, the new owner built to the newest state, mirrors that are "
            "whole, and I/O that ends in time. To resume a paused array needs the agent of the other node as well, or "
            "the word that it has no power (ws7000 ha takeover --peer-is-off), for while hands are off no lease ends "
            "its data plane. What was in the way is in the message; nothing was changed."
        ),
        remedy="See to what the message names, then ask again.",
    ),
    Page(
        code="HA-006",
        title="Not taken over by force",
        explanation=(
            "A forced takeover replaces the waiting for a peer by the operator's word that it has no power. It is "
            "refused without that word, and while the peer is heard to serve."
        ),
        remedy="Make sure that the other node is off, and say so: ws7000 ha takeover --peer-is-off.",
    ),
    Page(
        code="HA-007",
        title="The drive cannot be taken back",
        explanation=(
            "A drive that was given up is used again only after everybody else was shut out of it. It is not one that"
            " was given up, another one is being seen to, or it did not answer the fence."
        ),
        remedy="ws7000 ha status shows the failed drives; make the drive answer on both nodes, then ask again.",
    ),
    Page(
        code="HA-008",
        title="Not written to a majority of the quorum drives",
        explanation=(
            "A change counts when a majority of the quorum drives holds it. Fewer answered in time. It may still be "
            "found on some of them, and it may take effect when a later takeover finds it there."
        ),
        remedy=(
            "ws7000 ha status shows which quorum drives answer. Then look at what is, and repeat the command if needed."
        ),
    ),
    Page(
        code="HA-009",
        title="This node cannot do that now",
        explanation="Its data plane is not running, ended meanwhile, or no array has been formed here.",
        remedy="ws7000 ha status says where the node stands and what it waits for.",
    ),
    Page(
        code="HA-055",
        title="The array was changed meanwhile",
        explanation="The journal holds another generation of the state than the one this change was made for.",
        remedy="Run the command again; it decides anew on what is there now.",
    ),
)
