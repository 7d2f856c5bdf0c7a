"""Pages of the codes of ``ws7000 ha`` and of an apply that works with agents (HA-060 to HA-069)."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HA-060",
        title="The agent of a node does not answer",
        explanation=(
            "With high availability the agents admit a node to the drives and raise its groups. An apply asks each of "
            "them before it changes anything, through the socket that array.yaml names (nodes.agent)."
        ),
        remedy=(
            "Start it on its node: ws7000 ha agent -f array.yaml --node a. On two machines the sockets of the other "
            "node have to be reachable here; docs/guides/ha.md says how."
        ),
    ),
    Page(
        code="HA-061",
        title="There is no agent to run or to ask",
        explanation=(
            "Either the array says 'ha: none', or its engine has no local RPC socket: an agent finds the process that "
            "it watches by who listens on a UNIX socket."
        ),
        remedy="Write an ha mapping into array.yaml, or start the agent on the node itself with --engine SOCKET.",
    ),
    Page(
        code="HA-062",
        title="A node was not admitted to the drives in time",
        explanation=(
            "After its drives were attached, a node has to become a member before anything can be built on them: "
            "drives that are reserved for members refuse everybody else. What its agent says is in the message."
        ),
        remedy=(
            "See ws7000 ha status. A paused array admits nobody (ws7000 ha resume); a node that was evicted several "
            "times stays out for a while. Then apply again; it goes on from there."
        ),
    ),
    Page(
        code="HA-063",
        title="A group is not served by its owner",
        explanation=(
            "All that the plan had to do is done, and then each group is to be raised by the agent of its owner. One "
            "was not, within a minute."
        ),
        remedy="ws7000 ha status says what its agent waits for; ws7000 ha history what it did.",
    ),
    Page(
        code="HA-064",
        title="These are no times of an HA policy",
        explanation=(
            "A policy is a mapping of times in whole milliseconds. A key is unknown or missing, or a value is not "
            "whole."
        ),
        remedy="Write what differs from fast or slow: {like: fast, lease_ms: 400}. ws7000 ha policy lists the keys.",
    ),
    Page(
        code="HA-065",
        title="There is a secret already",
        explanation=(
            "Agents hear only heartbeats that are signed with their own secret, so it is never written over: the nodes "
            "would take each other for silent, and one would fence the other."
        ),
        remedy=(
            "Keep it. To change it: ws7000 ha pause, move the file away, make a new one, copy it to the other node, "
            "start both agents again, ws7000 ha resume."
        ),
    ),
    Page(
        code="HA-066",
        title="There is no such process in this lab",
        explanation=(
            "Faults are made only in processes that a lab has written into its lab.json, and only while pid and start "
            "time are those that were written."
        ),
        remedy="Name the folder of a lab that runs.",
    ),
    Page(
        code="HA-067",
        title="A takeover by force was not agreed to",
        explanation=(
            "It rests on the word of a person that the other node has no power. The name of that node is typed on a "
            "terminal; without one, or with another name, nothing is done."
        ),
        remedy="Look whether the other node is off; then ws7000 ha takeover --peer-is-off, and type its name.",
    ),
    Page(
        code="HA-068",
        title="Nobody takes the order",
        explanation=(
            "Orders go to the agent of the node that leads the present epoch. It does not answer here, or no node is "
            "a member yet."
        ),
        remedy="See ws7000 ha status; start the agents, or run the command on the node that leads.",
    ),
    Page(
        code="HA-069",
        title="One subsystem alone cannot be sent home",
        explanation=(
            "A subsystem has two groups with different homes, and a planned move of the agents has one node as its "
            "goal."
        ),
        remedy="ws7000 ha failback sends all groups home; ws7000 ha switchover --to NODE --subsystem NAME moves one.",
    ),
)
