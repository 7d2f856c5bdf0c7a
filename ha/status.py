"""The status of a node as JSON: what ``decide`` remembers and what was seen last, under keys that stay.

Why: people and programs ask one node and learn what it does, in one sentence, and on what that rests.  This module is
pure, and must never say more than was seen: a time that never was is null.

Times are whole milliseconds: ``..._ms_ago`` back from now, ``at_ms`` in a takeover from its beginning.
"""

from __future__ import annotations

from typing import Any

from ha.memory import Memory
from ha.model import EngineState, Seen
from ha.policy import Policy
from ha.watchdog import WatchdogState

FORMAT = 1


def status(
    policy: Policy, memory: Memory, seen: Seen, now: int, *, sentence: str, lease_until: int | None
) -> dict[str, Any]:
    """See the module; ``seen`` and ``lease_until`` are those of the newest decision."""
    record = memory.record
    return {
        "format": FORMAT,
        "node": memory.node,
        "phase": str(memory.phase),
        "sentence": sentence,
        "policy": policy.name,
        "leader": record.leader if record else None,
        "epoch": record.epoch if record else 0,
        "sequence": record.sequence if record else 0,
        "paused": record.paused if record else False,
        "owners": {str(group): owner for group, owner in sorted(record.owners.items())} if record else {},
        "members": {node: f"{key:016x}" for node, key in sorted(record.members.items())} if record else {},
        "evictions": dict(record.evictions) if record else {},
        "resync": sorted(str(group) for group in record.resync) if record else [],
        "refused": sorted(record.refused) if record else [],
        "map_generation": seen.map.generation if seen.map else 0,
        "lease_left_ms": None if lease_until is None else max(0, lease_until - now),
        "engine": _engine(seen, now),
        "peer": _peer(seen, now),
        "drives": {
            "silent": sorted(seen.drives.silent),
            "failed": sorted(record.failed) if record else [],
            "conflicts": sorted(seen.drives.conflicts),
            "own_slot_ms_ago": _ago(seen.slots.own_at, now),
            "peer_slot_ms_ago": _ago(seen.slots.peer_at, now),
        },
        "takeover": [{"at_ms": at - memory.timeline[0][0], "what": what} for at, what in memory.timeline],
        "takeover_ms_ago": _ago(memory.timeline[0][0], now) if memory.timeline else None,
        "ports": {"up": seen.ports_up, "all": seen.ports},
        "holds": sorted(seen.holds),
    }


def _engine(seen: Seen, now: int) -> dict[str, Any]:
    engine = seen.engine
    alive = engine.state is EngineState.ALIVE
    return {
        "state": str(engine.state),
        "key": f"{engine.key:016x}" if engine.key else None,
        "answered_ms_ago": _ago(engine.answered_at, now) if alive else None,
        "built": engine.built,
        "raised": sorted(str(group) for group in engine.raised),
        "drained": sorted(str(group) for group in engine.drained),
    }


def _peer(seen: Seen, now: int) -> dict[str, Any]:
    peer = seen.peer
    return {
        "heard_ms_ago": _ago(peer.heard_at, now),
        "acked_ms_ago": _ago(peer.acked_at, now),
        "phase": str(peer.says.phase) if peer.says else None,
        "holds": sorted(peer.says.holds) if peer.says else [],
        "paths": {name: {"hears_us": hears, "heard": heard} for name, (hears, heard) in sorted(peer.paths.items())},
    }


def watchdog(state: WatchdogState) -> dict[str, Any]:
    """The machine's watchdog."""
    return {
        "armed": state.armed,
        "identity": state.identity,
        "timeout_s": state.timeout_s,
        "problem": state.problem,
    }


def _ago(at: int | None, now: int) -> int | None:
    return None if at is None else max(0, now - at)
