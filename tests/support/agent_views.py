"""What agents say, as their ``status`` has it: made by ``ha.status`` itself from plain memories and sights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from controlplane.reconcile.agent_view import AgentView
from ha import status
from ha.memory import Memory
from ha.model import (
    Drives,
    Engine,
    EngineState,
    GroupId,
    NodeName,
    Peer,
    Phase,
    Record,
    Seen,
    ServiceMap,
    Slots,
)
from ha.policy import FAST

GROUPS = (GroupId("default", 1), GroupId("default", 2))
RECORD = Record(
    array_uuid="5b2f3f3e-0000-4000-8000-000000000001",
    epoch=3,
    sequence=17,
    leader="a",
    owners={group: group.home for group in GROUPS},
    members={"a": 0xA1, "b": 0xB1},
)
NOW = 100_000


def body(node: NodeName, memory: Memory | None = None, seen: Seen | None = None, **more: Any) -> dict[str, Any]:
    """The status of a member that serves its home group, heard by its peer; ``memory`` and ``seen`` for another."""
    memory = member(node) if memory is None else memory
    seen = sight(node) if seen is None else seen
    given = {"sentence": f"node {node} is a member", "lease_until": NOW + 250, **more}
    return status.status(FAST, memory, seen, NOW, **given)


def member(node: NodeName, record: Record | None = RECORD, **more: Any) -> Memory:
    """A member under ``record``."""
    return Memory(node=node, phase=Phase.MEMBER, record=record, **more)


def sight(node: NodeName, **more: Any) -> Seen:
    """Both nodes hear each other, the engine serves its home group."""
    raised = frozenset(group for group in GROUPS if group.home == node)
    whole = Seen(
        engine=Engine(state=EngineState.ALIVE, key=0xA1, answered_at=NOW - 20, built=9, raised=raised),
        peer=Peer(heard_at=NOW - 30, acked_at=NOW - 40, paths={"path-1": (True, True)}),
        slots=Slots(own_at=NOW - 50, read_at=NOW - 50, peer_at=NOW - 60),
        drives=Drives(),
        map=ServiceMap(array_uuid=RECORD.array_uuid, generation=9, quorum=("d0",), block_bytes={"d0": 512}),
    )
    return replace(whole, **more)


def view(node: NodeName, memory: Memory | None = None, seen: Seen | None = None, **more: Any) -> AgentView:
    """The view of such a status."""
    return AgentView.of(node, body(node, memory, seen, **more))
