"""A model of two agents behind real control sockets: what each order means to the record, and nothing of how.

Like ``planner_model`` it is the meaning, not a mock: an order is answered by the record it leads to, a node serves what
the record gives it once it was built.  No drive, no lease, no heartbeat; those have tests of their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent_views import NOW, RECORD, body

from ha.desk import Desk
from ha.journal.snapshot import unpack
from ha.memory import Memory
from ha.model import (
    NODES,
    Engine,
    EngineState,
    GroupId,
    Move,
    NodeName,
    Order,
    Pause,
    Peer,
    Phase,
    Record,
    Repaired,
    Reply,
    Save,
    Seen,
    ServiceMap,
    SnapshotAt,
    TakeOver,
)


class ModelArray:
    """What both agents share: the record on the drives, None before the array is formed."""

    def __init__(self, record: Record | None, groups: frozenset[GroupId]) -> None:
        self.record = record
        self.groups = groups
        self.saved: tuple[int, bytes] | None = None
        self.orders: list[Order] = []
        self.nodes = {name: ModelAgent(self, name) for name in NODES}


class ModelAgent:
    """One agent; ``ha.control.Node`` for its desk."""

    def __init__(self, array: ModelArray, name: NodeName) -> None:
        self.array = array
        self.name: NodeName = name
        self.generation = 9 if array.record else 0
        self.built_to = 9 if array.record else 0
        self.waits = 0
        """So many times it says that it is no member yet, though it was admitted."""

    @property
    def phase(self) -> Phase:
        record = self.array.record
        return Phase.MEMBER if record and self.name in record.members and not self.waits else Phase.OUTSIDE

    def status(self) -> Mapping[str, Any]:
        phase = self.phase
        self.waits = max(0, self.waits - 1)
        record = self.array.record if phase is Phase.MEMBER else None
        serves = bool(record and self.built_to and not record.paused)
        owners = record.owners if record else {}
        raised = frozenset(group for group, owner in owners.items() if serves and owner == self.name)
        known = ServiceMap(
            array_uuid=RECORD.array_uuid, generation=self.generation, quorum=("d0",), block_bytes={"d0": 512}
        )
        seen = Seen(
            engine=Engine(state=EngineState.ALIVE, key=1, answered_at=NOW, built=self.built_to, raised=raised),
            peer=Peer(heard_at=NOW, acked_at=NOW, paths={"path-1": (True, True)}),
            map=known if self.generation else None,
        )
        return body(self.name, Memory(node=self.name, phase=phase, record=record), seen, sentence=f"is {phase}")

    async def history(self, limit: int) -> list[dict[str, object]]:
        events: list[dict[str, object]] = [
            {"at": f"2026-01-01T00:00:0{number}.000", "node": self.name, "event": "order", "sentence": str(order)}
            for number, order in enumerate(self.array.orders)
        ]
        return events[-limit:]

    def saved(self) -> tuple[int, bytes] | None:
        return self.array.saved

    def groups(self) -> frozenset[GroupId] | None:
        return self.array.groups

    async def learn(self, snapshot: bytes) -> None:
        """It knows the drives now, and the leader admits it."""
        found = unpack(snapshot)
        assert found is not None
        self.generation = found.map.generation
        if (record := self.array.record) is not None:
            self.array.record = replace(record, members={**record.members, self.name: 0xB1})

    def built(self, generation: int) -> None:
        self.built_to = generation

    async def member(self) -> None:
        return

    async def carry_out(self, make: Callable[[int], Order]) -> Reply:
        order = make(len(self.array.orders) + 1)
        self.array.orders.append(order)
        record = self.array.record
        if isinstance(order, Save) and order.form and record is None:
            self._form(order)
        elif isinstance(order, Save) and self.array.saved is not None and order.expects != self.array.saved[0]:
            return Reply(number=order.number, code="HA-055", why=f"the journal holds {self.array.saved[0]}")
        elif record is None:
            return Reply(number=order.number, code="HA-009", why="no array has been formed here")
        elif isinstance(order, TakeOver):
            self.array.record = replace(
                record, epoch=record.epoch + 1, leader=self.name, owners=dict.fromkeys(record.owners, self.name),
                members={self.name: 0xA1},
            )  # fmt: skip
        elif record.leader != self.name:
            return Reply(number=order.number, code="HA-004", why=f"node {record.leader} leads")
        else:
            self._lead(record, order)
        return Reply(number=order.number)

    def _form(self, order: Save) -> None:
        self.generation = order.generation
        self.array.saved = order.generation, order.snapshot
        at = SnapshotAt(area=0, size_bytes=len(order.snapshot), sha256=order.digest, generation=order.generation)
        owners = dict.fromkeys(self.array.groups, self.name)
        self.array.record = replace(RECORD, epoch=1, sequence=1, leader=self.name, owners=owners, snapshot=at,
                                    members={self.name: 0xA1})  # fmt: skip

    def _lead(self, record: Record, order: Order) -> None:
        match order:
            case Move(groups=groups, to=to):
                changed = replace(record, owners={**record.owners, **dict.fromkeys(groups, to)})
            case Pause(paused=paused):
                changed = replace(record, paused=paused)
            case Save():
                self.array.saved = order.generation, order.snapshot
                for agent in self.array.nodes.values():
                    agent.generation = order.generation
                changed = record
            case Repaired(drive=drive):
                changed = replace(record, failed=record.failed - {drive})
            case _:
                changed = record
        self.array.record = replace(changed, sequence=record.sequence + 1)


class Desks:
    """Both agents' control sockets, answered on a loop of their own; ``stop(node)`` takes one away."""

    def __init__(self, array: ModelArray, paths: Mapping[NodeName, Path]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._desks = {name: Desk(str(path), array.nodes[name]) for name, path in paths.items()}

    def __enter__(self) -> Self:
        self._thread.start()
        for desk in self._desks.values():
            asyncio.run_coroutine_threadsafe(desk.open(), self._loop).result(10)
        return self

    def stop(self, node: NodeName) -> None:
        """The agent of ``node`` answers no more."""
        asyncio.run_coroutine_threadsafe(self._desks.pop(node).close(), self._loop).result(10)

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in list(self._desks):
            self.stop(node)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
