"""Pages of what goes wrong between the two agents and around an agent: heartbeats, leash, watchdog, data addresses."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final = (
    Page(
        code="HA-040",
        title="Heartbeats that are not signed with this array's secret",
        explanation=(
            "A datagram came to the port of the heartbeats that is damaged, cut off, too long, or not signed with the "
            "secret of this array. It was dropped and changed nothing; status counts them. A few may be noise or a "
            "port scan. When no heartbeat is accepted, the two nodes hold different secrets."
        ),
        remedy="Compare the secret files of both nodes (sha256sum), copy one over, and start that agent again.",
    ),
    Page(
        code="HA-041",
        title="Heartbeats of another array, of this very node, or over the wrong path",
        explanation=(
            "A datagram is signed with our secret but says that it is of another array or of this node itself, or it "
            "came over another path than it was sent for. It was dropped. Cables or addresses are mixed up, two nodes "
            "are configured with the same name, or the paths have other names on the other node."
        ),
        remedy="Compare the node's name and the paths (name, address, peer's address) in both agents' configurations.",
    ),
    Page(
        code="HA-042",
        title="Old heartbeats",
        explanation=(
            "A genuine datagram came a second time, or is from a life of the peer's agent that has ended or has not "
            "yet shown that it hears us. It was dropped. Some are normal: each start of an agent causes a few, and so "
            "does a network that repeats datagrams. Many, for long, mean that two agents run on the other node, that "
            "the peer does not hear us, or that somebody plays recorded datagrams."
        ),
        remedy="See the paths in the status of both nodes; make sure that one agent runs on each node.",
    ),
    Page(
        code="HA-043",
        title="Heartbeats that this version does not understand",
        explanation=(
            "A genuine datagram is of a version that this agent does not know, or its content is not what an agent "
            "writes. It was dropped, and the peer may count as silent for that."
        ),
        remedy="Bring both nodes to versions that work together: each one to the next before the other goes further.",
    ),
    Page(
        code="HA-044",
        title="The secret of the heartbeats cannot be used",
        explanation=(
            "Heartbeats are signed with a secret that both nodes keep in a file. The file is missing, can be read by "
            "others, or does not hold 32 bytes as hexadecimal digits. Without it the agent does not start: whoever may "
            "send unsigned heartbeats could keep both nodes from serving."
        ),
        remedy="Make it on one node (openssl rand -hex 32), mode 600, and copy it to the other over a safe way.",
    ),
    Page(
        code="HA-045",
        title="The leash cannot be started",
        explanation=(
            "The leash is the small process that kills the data plane when its lease has ended, even while the agent "
            "is stopped. It did not start, or ended at once. A node without a leash serves nothing, because it could "
            "not promise its peer to be silent in time."
        ),
        remedy="See the agent's log for what the leash wrote; check that the agent's folder exists and is writable.",
    ),
    Page(
        code="HA-046",
        title="A watchdog is required and cannot be used",
        explanation=(
            "The node's configuration says that it serves only while the machine's watchdog would reset it if it hung. "
            "There is none, somebody else has it open, or its timeout is too long. The node does not serve."
        ),
        remedy="Load the driver of the machine's watchdog, or softdog, or set the watchdog of the agent to automatic.",
    ),
    Page(
        code="HA-047",
        title="A data address cannot be moved",
        explanation=(
            "After a takeover the surviving node takes the data addresses of the other one, so that its hosts notice "
            "at once; before that one is let in again it gives them back. The kernel refused one of these. The "
            "takeover itself is done: hosts reach their volumes over the surviving node's own addresses, those of the "
            "address named here after their keep-alive has run out."
        ),
        remedy="See the reason; the interface must exist, and the agent needs CAP_NET_ADMIN and CAP_NET_RAW.",
    ),
    Page(
        code="HA-048",
        title="The hosts' connections cannot be listed",
        explanation=(
            "A node tells its peer which TCP connections hosts have to it, so that the peer can end them when the node "
            "dies. The kernel does not list them. After a failover, hosts that are idle then notice only when their "
            "keep-alive runs out."
        ),
        remedy="Load the kernel's module for it: modprobe tcp_diag",
    ),
    Page(
        code="HA-049",
        title="A heartbeat path is down on this node",
        explanation=(
            "The address of the path is not configured on this node now, there is no route to the peer's, or the port "
            "has no link. The path is tried again all the time; heartbeats go over the others, and through the drives."
        ),
        remedy="Look at the port: ip address, ip link. Paths over separate ports and switches keep one fault from two.",
    ),
)
