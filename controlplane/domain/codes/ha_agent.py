"""Pages of the HA codes that the agent, its control socket and its callers raise."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="HA-030",
        title="No HA agent answers on this node",
        explanation=(
            "A command for high availability talks to the agent of this machine over its control socket, and nobody "
            "listens there. Without its agent a node serves nothing: its lease ends, and the leash ends its data plane."
        ),
        remedy=(
            "Start it: ws7000 ha agent, or the unit of your service manager. If it runs, check that the command uses "
            "the same array.yaml, and that you may open the socket (it is its owner's alone)."
        ),
    ),
    Page(
        code="HA-031",
        title="The HA agent did not finish in time",
        explanation=(
            "The agent has taken the request and has not answered by the deadline of the command. An order that it "
            "accepted goes on without the command: a move waits for I/O to end, a save for a majority of the quorum "
            "drives."
        ),
        remedy="Look at ws7000 ha status, which says in one sentence what the node waits for, before you ask again.",
    ),
    Page(
        code="HA-032",
        title="The HA agent does not understand the request",
        explanation=(
            "Over the control socket goes one JSON object a line, with a method that the agent has and parameters of "
            "the right kind. Anything else is refused as a whole, so that half of an order is never carried out."
        ),
        remedy=(
            "Use the command of the same version as the agent; after an update, start the agent again. A program of "
            "yours sees in the reason which parameter is wrong."
        ),
    ),
    Page(
        code="HA-033",
        title="There is nothing of that name to move",
        explanation=(
            "A move names a subsystem whose ANA groups are to be served by the other node, and the array that the "
            "agent knows has none of that name."
        ),
        remedy="See ws7000 subsystem list. A subsystem of a change that was not applied yet cannot be moved.",
    ),
    Page(
        code="HA-034",
        title="The HA agent does not know the array yet",
        explanation=(
            "What the array is lies in the journal on the quorum drives. The agent has not read it since it was "
            "started, or no array has been formed on these drives."
        ),
        remedy=(
            "Start the data plane of this node and wait until ws7000 ha status shows a record; for a new array, form "
            "it with ws7000 array apply."
        ),
    ),
    Page(
        code="HA-035",
        title="The HA agent ended before it answered",
        explanation=(
            "The agent was told to stop while a command waited for it. An order that it had accepted may have been "
            "carried out, or may be by the other node."
        ),
        remedy="Start the agent, and look at ws7000 ha status and ws7000 ha history before you ask again.",
    ),
    Page(
        code="HA-036",
        title="What answers at the control socket is not understood",
        explanation=(
            "The answer is not one that this version of the command knows: another program listens there, or an "
            "agent of another version."
        ),
        remedy="Check the path that the error names, and that command and agent are of the same version.",
    ),
    Page(
        code="HA-037",
        title="Too many commands talk to the HA agent",
        explanation=(
            "The agent has a fixed number of places for callers, so that none of them can cost it the time that it "
            "needs for its heartbeats."
        ),
        remedy="End commands that wait, and try again.",
    ),
    Page(
        code="HA-038",
        title="The configuration of the HA agent cannot be used",
        explanation=(
            "The agent is started with one JSON file that ws7000 ha agent makes from array.yaml. The file cannot be "
            "read, or names something that is not there: the folder, the secret of the heartbeats, the policy."
        ),
        remedy="Start the agent with ws7000 ha agent, which writes the file anew; the reason names what is wrong.",
    ),
    Page(
        code="HA-039",
        title="An HA agent runs already for this folder",
        explanation=(
            "Two agents of one node would give its data plane two leases. The folder of an agent is locked while it "
            "runs; the lock is the kernel's, so it ends with the process that holds it."
        ),
        remedy="Stop the other one, or see whether it is the one that you want: ws7000 ha status.",
    ),
)
