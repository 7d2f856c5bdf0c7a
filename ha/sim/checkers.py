"""What must hold at every moment, whatever broke: the invariants, judged from outside of both nodes.

Why from outside: a node may believe what it likes; what counts is what drives accept and what hosts are told.
Names are those of the guarantees: I1 one node accepts I/O, I4 nothing old lands, I6 registered by the join or by a
takeover alone, I7 records in one order and on a majority before they are acted on, I8 no error but of a path
reaches a host.  I3 and I5 are ``linear``'s.  The lease is the first guard of I8 and is judged as such, except on a
node that something worse than the policy reckons with has been done to.

Invariant: a checker changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ha.decide import Decision
from ha.keys import node_of
from ha.model import NODES, GroupId, Record, other
from ha.sim.drives import DATA, JOURNAL, TAKE_OVER, Command, Drive, Watch
from ha.sim.linear import check
from ha.sim.loop import MS, SECOND

if TYPE_CHECKING:
    from ha.sim.engine import DataPlane, Volume
    from ha.sim.hosts import Worker
    from ha.sim.node import Node
    from ha.sim.world import World

_LATE_US: Final = 450 * MS
"""A command to a drive that was on its way for so long is one of those that nobody waits for any more."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An invariant that did not hold, when, and how it showed."""

    at: int
    name: str
    how: str

    def __str__(self) -> str:
        return f"{self.at / SECOND:10.6f} {self.name} BROKEN: {self.how}"


class Checkers(Watch):
    """Looks on, and keeps what was broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[Broken] = []
        self.newest: Record | None = None
        """The newest record that has ever been on a majority of the quorum drives."""
        self.lost: set[str] = set()
        """Drives that were broken on purpose: what lies on them alone may answer with an error."""
        self.beyond: set[str] = set()
        """Mirrored volumes that no leg was left of: more than L1 promises to serve again."""
        self._lay: dict[int, tuple[Record, set[str]]] = {}
        self._certain: dict[int, Record] = {}

    def breaks(self, name: str, how: str) -> None:
        """Keep the first of each invariant."""
        if all(each.name != name for each in self.broken):
            self.broken.append(Broken(self.world.loop.now, name, how))
            self.world.say("-", f"{name} BROKEN: {how}")

    # ------------------------------------------------------------ I1

    def raised(self, engine: DataPlane, group: GroupId) -> None:
        """A group was raised on a node."""
        self.look()
        peer = self.world.nodes[other(engine.node.name)].engine
        if peer is None or not peer.alive or peer.hung or not peer.flight.get(group):
            return
        for io in peer.active:
            if io.volume.group == group and self._accepts(peer, io.volume):
                self.breaks("I1", f"{group} raised on {engine.node.name} with I/O on its way on {peer.node.name}")

    def look(self) -> None:
        """Whether two nodes accept I/O for one volume at this moment."""
        a, b = (self.world.nodes[name].engine for name in NODES)
        if a is None or b is None or not a.alive or not b.alive:
            return
        for volume in self.world.volumes:
            if all(volume.group in engine.raised and self._accepts(engine, volume) for engine in (a, b)):
                self.breaks("I1", f"volume {volume.name} is accepted on both nodes")

    def _accepts(self, engine: DataPlane, volume: Volume) -> bool:
        if engine.hung or (volume.nqn, volume.nsid) in engine.refused:
            return False
        drives = list(engine.legs[volume.mirror]) if volume.mirror else [volume.drive]
        return bool(drives) and all(self.world.drives[drive].accepts(engine.key) for drive in drives)

    # ------------------------------------------------------------ I4, I6, I7: what the drives see

    def landed(self, drive: Drive, command: Command) -> None:
        """See ``Watch``."""
        newest = self.newest
        if command.cell[0] == JOURNAL:
            self._record_landed(drive, command.value)
        elif (
            command.cell[0] == DATA
            and newest is not None
            and drive.name not in newest.failed
            and command.key not in newest.members.values()
        ):
            who = node_of(self.world.map.array_uuid, command.key)
            self.breaks("I4", f"drive {drive.name} took a write of node {who}, which epoch {newest.epoch} shuts out")

    def _record_landed(self, drive: Drive, record: Record) -> None:
        newest = self.newest
        if newest is not None and record.epoch < newest.epoch and drive.name not in newest.failed:
            self.breaks("I4", f"drive {drive.name} took a record of epoch {record.epoch} after {newest.epoch} began")
        _, drives = self._lay.setdefault(id(record), (record, set()))
        drives.add(drive.name)
        if len(drives) < self.world.map.majority:
            return
        before = self._certain.setdefault(record.sequence, record)
        if before is not record:
            self.breaks("I7", f"two records with sequence {record.sequence} have each been on a majority")
        if newest is None or record.at > newest.at:
            self.newest = record
            self.beyond |= {v.name for v in self.world.volumes if v.mirror and v.name in record.refused}
            self.world.recorded(record)

    def registered(self, drive: Drive, command: Command) -> None:
        """See ``Watch``."""
        who = node_of(self.world.map.array_uuid, command.key)
        assert who is not None
        engine = self.world.nodes[who].engine
        if engine is None or not engine.alive or engine.key != command.key:
            return
        if self.newest is not None and drive.name in self.newest.failed:
            return  # nobody uses it
        if command.why == TAKE_OVER:
            peer = self.world.nodes[other(who)]
            if self._unheard(peer):
                return
            if self._holds_lease(peer) and drive.accepts(peer.engine.key if peer.engine else 0):
                self.breaks("I6", f"node {who} began to take over while node {peer.name} holds its lease")
        elif self.newest is None or command.key not in self.newest.members.values():
            self.breaks("I6", f"node {who} registered on drive {drive.name} without being admitted")

    def evicted(self, drive: Drive, by: Command, victims: frozenset[int]) -> None:
        """See ``Watch``."""
        self.look()
        if self.newest is not None and drive.name in self.newest.failed:
            return  # nobody uses it
        for key in sorted(victims):
            who = node_of(self.world.map.array_uuid, key)
            assert who is not None
            node = self.world.nodes[who]
            if node.engine is None or node.engine.key != key:
                continue
            if self.world.loop.now - by.sent_at > _LATE_US or (by.why == TAKE_OVER and self._unheard(node)):
                node.excuse(2 * SECOND)
            elif self._holds_lease(node):
                self.breaks("lease", f"node {who} was fenced on drive {drive.name} while it holds its lease")

    def _unheard(self, node: Node) -> bool:
        """Whether nothing that it says passes, or has until a moment ago: a node outside, which cannot read the
        slots, has to take it for dead, and what it then sent may land when the ways are mended."""
        return self.world.network.silent_since(node.name, self.world.loop.now - 2 * SECOND)

    def _holds_lease(self, node: Node) -> bool:
        engine, until = node.engine, node.leash.until
        if engine is None or not engine.alive or engine.dying or engine.hung or not engine.raised or node.excused:
            return False
        return until is not None and node.now_ms() < until

    # ------------------------------------------------------------ I7: what nodes act on; I8: what hosts are told

    def decided(self, node: Node, decision: Decision) -> None:
        """Whoever serves must be named by a record that has been on a majority."""
        serve = decision.actions.serve
        if not serve:
            return
        record = self._certain.get(decision.actions.says.at[1])
        if record is None or record.at != decision.actions.says.at:
            self.breaks("I7", f"node {node.name} serves by record {decision.actions.says.at}, which no majority holds")
            return
        engine = node.engine
        if engine is None or record.members.get(node.name) != engine.key:
            if engine is not None and engine.alive and node.agent is not None and not node.agent.stopped:
                self.breaks("I7", f"node {node.name} serves, but record {record.at} does not name its incarnation")
            return
        for group in sorted(serve):
            if record.owners.get(group) != node.name:
                self.breaks("I7", f"node {node.name} serves {group}, which record {record.at} gives to the other")

    def refused(self, node: Node, engine: DataPlane, drive: str) -> None:
        """A drive answered I/O of a host with Reservation Conflict."""
        given_up = self.newest is not None and drive in self.newest.failed
        if engine.alive and not node.excused and not given_up:
            self.breaks("I8", f"a Reservation Conflict met I/O of a host on node {node.name} before its end")

    def failed_io(self, engine: DataPlane, volume: Volume, status: str) -> None:
        """A host was answered with an error that is none of a path."""
        if not self.lost & set(volume.drives):
            self.breaks("I8", f"volume {volume.name} answered {status!r} on node {engine.node.name}")

    # ------------------------------------------------------------ in the end

    def in_the_end(self, healed_at: int) -> None:
        """I3 and I5 of the whole history, and L1 since everything was mended."""
        found = check(self.world.hosts.complete_history())
        if found is not None:
            self.breaks("I3/I5", str(found))
        now = self.world.loop.now
        for worker in self.unserved(max(healed_at, now - 3 * SECOND)):
            last = worker.done_at / SECOND
            self.breaks("L1", f"{worker.host} got nothing from volume {worker.volume.name} since {last:.3f} s")

    def unserved(self, since: int) -> list[Worker]:
        """The hosts' threads that have got nothing since then, from volumes that L1 speaks of."""
        return [
            worker
            for worker in self.world.hosts.workers
            if worker.volume.name not in self.beyond and worker.done_at < since
        ]
