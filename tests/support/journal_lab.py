"""A journal put on the drives of a lab through raw commands, as a leader would; and its reservations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from small_lab import SmallLab

from controlplane.domain.desired import Array, HaIntent, HaMode
from controlplane.domain.state import State
from controlplane.reconcile import calls
from controlplane.store import codec
from controlplane.store.service_map import service_map
from dataplane.nvme import commands, reservations
from dataplane.nvme.reservations import ReservationType
from dataplane.rpc.methods import nvme
from dataplane.rpc.session import Session
from ha.journal import layout, record, snapshot
from ha.model import GroupId, NodeName, Record

EAAR = ReservationType.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
DEADLINE_S = 60.0


def with_ha(array: Array) -> Array:
    """The array as one that stands in for itself, three drives to vote."""
    nodes = tuple(
        replace(node, heartbeat=7700 + number, agent=node.rpc.removesuffix(".sock") + ".agent.sock")
        for number, node in enumerate(array.nodes)
    )
    intent = HaIntent(quorum_drives=3, secret_file="/nowhere/ha.secret")
    return replace(array, nodes=nodes, ha=HaMode.ACTIVE_ACTIVE, ha_intent=intent)


def bare(array: Array) -> Array:
    """What an admin with two fresh nodes can write: nodes, drives and the name."""
    return replace(array, pools=(), subsystems=(), volumes=(), hosts=())


class Writer:
    """Writes records one after another through one node's engine."""

    def __init__(self, session: Session, state: State) -> None:
        self.session = session
        self.quorum = service_map(state).quorum
        self._previous = record.NO_PREVIOUS
        self._last: Record | None = None

    def write(self, state: State, *, drives: Sequence[str] | None = None, owner: NodeName = "a") -> Record:
        """The next record with this state, on ``drives`` or on all that vote."""
        service = service_map(state, self.quorum)
        packed = snapshot.pack(snapshot.Snapshot(state=codec.encode(state).decode(), map=service))
        last = self._last
        at = snapshot.located(packed, snapshot.free_area(last.snapshot if last else None), state.generation)
        one = Record(
            array_uuid=state.uuid,
            epoch=1,
            sequence=last.sequence + 1 if last else 1,
            leader="a",
            owners={GroupId("default", 1): owner, GroupId("default", 2): "b"},
            members={"a": 1, "b": 2},
            snapshot=at,
        )
        raw = record.encode(one, self._previous)
        for name in self.quorum:
            self.put(name, layout.snapshot_at(at.area), layout.padded(packed))
        for name in drives if drives is not None else self.quorum:
            self.put(name, layout.record_at(one.sequence), raw)
        self._previous, self._last = record.digest_of(raw), one
        return one

    def put(self, drive: str, at: int, raw: bytes) -> None:
        """Bytes to a drive, in pieces that every drive takes."""
        block = 4096
        pieces = range(0, len(raw), calls.MAX_READ_BYTES)
        batch = [
            nvme.send_cmd(
                drive,
                kind="io",
                sqe=commands.write(1, (at + i) // block, len(raw[i : i + calls.MAX_READ_BYTES]) // block, block).pack(),
                data=raw[i : i + calls.MAX_READ_BYTES],
            )
            for i in pieces
        ]
        calls.check_completions("write", [drive] * len(batch), self.session.pipeline(batch, DEADLINE_S))


def reserve(session: Session, drives: Sequence[str], key: int) -> None:
    """What a node of the array does when it forms it: register, and hold for all registrants."""
    for drive in drives:
        for command, data in (reservations.register(1, 0, key), reservations.acquire(1, key, EAAR)):
            reply = session.run(nvme.send_cmd(drive, kind="io", sqe=command.pack(), data=data), deadline_s=DEADLINE_S)
            assert reply.ok, (drive, reply)


def registrants(session: Session, drive: str) -> set[int]:
    """The keys that a drive reports."""
    sqe = reservations.report(1).pack()
    reply = session.run(nvme.send_cmd(drive, kind="io", sqe=sqe, data_len_bytes=4096), deadline_s=DEADLINE_S)
    assert reply.ok
    return {each.key for each in reservations.parse_report(reply.data).registrants}


def fresh_nodes(lab: SmallLab) -> None:
    """Both nodes lose their engines and come back empty."""
    for name in ("a", "b"):
        lab.restart(name)
