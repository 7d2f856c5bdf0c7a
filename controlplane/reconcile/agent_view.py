"""What an agent says of its node, as values: read from the JSON of ``ha.status``, and nothing concluded beyond it.

Times are milliseconds ago by the agent's own clock, None for never.  This module is pure; what is not understood is
``Ws7000Error`` HA-036, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from controlplane.domain.errors import Ws7000Error
from ha.model import NODES, EngineState, GroupId, NodeName, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class PathView:
    """One path of heartbeats, by direction."""

    name: str
    peer_hears_us: bool
    we_hear_peer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverView:
    """The last takeover that this node began: how long ago, and each step with its milliseconds since the beginning."""

    ago_ms: int
    steps: tuple[tuple[int, str], ...]

    @property
    def took_ms(self) -> int:
        """From the beginning to the last step."""
        return max((at_ms for at_ms, _ in self.steps), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """A node as its agent sees it.  ``epoch`` 0: it knows of no record.  ``generation`` is that of the map it knows,
    0 for none.  ``answered_ms``, ``peer_heard_ms``, ``own_slot_ms`` and ``peer_slot_ms`` are the signs of life."""

    node: str
    phase: Phase
    sentence: str = ""
    policy: str = ""
    engine: EngineState = EngineState.ABSENT
    answered_ms: int | None = None
    built: int = 0
    raised: frozenset[GroupId] = frozenset()
    epoch: int = 0
    sequence: int = 0
    generation: int = 0
    leader: NodeName | None = None
    owners: Mapping[GroupId, NodeName] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    resync: frozenset[GroupId] = frozenset()
    evictions: Mapping[str, int] = field(default_factory=dict)
    paused: bool = False
    silent: frozenset[str] = frozenset()
    lease_left_ms: int | None = None
    peer_heard_ms: int | None = None
    own_slot_ms: int | None = None
    peer_slot_ms: int | None = None
    paths: tuple[PathView, ...] = ()
    takeover: TakeoverView | None = None
    watchdog: str = ""
    """What is wrong with the machine's watchdog, or that there is none; empty where all is well or nobody asked."""

    @property
    def has_a_record(self) -> bool:
        """Whether it follows, joins or begins under a record, so that an array has been formed.  A map alone does not
        say that: it is taught before the first record is written."""
        return bool(self.epoch) or self.phase in (Phase.JOINING, Phase.MEMBER, Phase.TAKING)

    @classmethod
    def of(cls, node: str, body: Mapping[str, Any]) -> Self:
        """Raises ``Ws7000Error`` HA-036 for anything but what ``ha.status`` makes for that node."""
        try:
            found = cls._of(body)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise _strange(node, f"{type(problem).__name__}: {problem}") from problem
        if found.node != node:
            raise _strange(node, f"it says that it is the agent of node {found.node}")
        return found

    @classmethod
    def _of(cls, body: Mapping[str, Any]) -> Self:
        engine, peer, drives = body["engine"], body["peer"], body["drives"]
        return cls(
            node=str(body["node"]),
            phase=Phase(body["phase"]),
            sentence=str(body["sentence"]),
            policy=str(body["policy"]),
            engine=EngineState(engine["state"]),
            answered_ms=_maybe(engine["answered_ms_ago"]),
            built=int(engine["built"]),
            raised=frozenset(map(group_of, engine["raised"])),
            epoch=int(body["epoch"]),
            sequence=int(body["sequence"]),
            generation=int(body["map_generation"]),
            leader=None if body["leader"] is None else _node(body["leader"]),
            owners={group_of(name): _node(owner) for name, owner in body["owners"].items()},
            members=frozenset(body["members"]),
            failed=frozenset(drives["failed"]),
            refused=frozenset(body["refused"]),
            resync=frozenset(map(group_of, body["resync"])),
            evictions={name: int(count) for name, count in body["evictions"].items()},
            paused=bool(body["paused"]),
            silent=frozenset(drives["silent"]),
            lease_left_ms=_maybe(body["lease_left_ms"]),
            peer_heard_ms=_maybe(peer["heard_ms_ago"]),
            own_slot_ms=_maybe(drives["own_slot_ms_ago"]),
            peer_slot_ms=_maybe(drives["peer_slot_ms_ago"]),
            paths=tuple(
                PathView(name=name, peer_hears_us=bool(path["hears_us"]), we_hear_peer=bool(path["heard"]))
                for name, path in peer["paths"].items()
            ),
            takeover=_takeover(body),
            watchdog=str(body.get("watchdog", {}).get("problem", "")),
        )


def group_of(text: str) -> GroupId:
    """A group as ``GroupId`` spells it; raises ``ValueError``."""
    subsystem, slash, number = text.rpartition("/")
    if not slash or not subsystem:
        raise ValueError(f"{text!r} is no group")
    return GroupId(subsystem, int(number))


def _node(text: object) -> NodeName:
    for node in NODES:
        if text == node:
            return node
    raise ValueError(f"{text!r} is no node")


def _maybe(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no time")
    return value


def _takeover(body: Mapping[str, Any]) -> TakeoverView | None:
    ago_ms = _maybe(body["takeover_ms_ago"])
    if ago_ms is None:
        return None
    return TakeoverView(
        ago_ms=ago_ms, steps=tuple((int(step["at_ms"]), str(step["what"])) for step in body["takeover"])
    )


def _strange(node: str, why: str) -> Ws7000Error:
    return Ws7000Error(
        "HA-036",
        f"what the agent of node {node} says of itself is not understood",
        why=why,
        remedy="use commands and agents of one version, and the socket of each node's own agent in array.yaml",
    )
