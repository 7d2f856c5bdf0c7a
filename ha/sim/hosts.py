"""Simulated hosts: each writes blocks with tags of its own and reads them, over the paths that multipath gives it.

Why: what hosts see is what is promised.  A host sends to the node whose path it believes in; a path error (a dropped
connection, Asymmetric Access Inaccessible) makes it try the other, for as long as it takes, and is no error to its
application.  A data plane that hangs says nothing, so its hosts notice at the end of the keep-alive time, or when their
connection is reset.  Everything else that a data plane answers goes to the application, and to the checkers (I8).

Every block is written by one host alone, one write at a time, and read by all: writes of one block that overlap are
ordered by nobody, least of all on the legs of a mirror, so no application has them.  Nor is a read of a mirrored block
begun while it is being written: SPDK reads from either leg, and a write reaches one before the other.  A host may die
with the data plane that it used, and leave a write behind that nobody repeats.

Invariant: an operation is recorded once with its call, and once with its return if there was one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ha.model import NODES, NodeName, other
from ha.sim.engine import BLOCKS, INACCESSIBLE, OK, Io, Volume
from ha.sim.linear import NOTHING, Access
from ha.sim.loop import MS

if TYPE_CHECKING:
    from ha.sim.engine import DataPlane
    from ha.sim.world import World

HOSTS: Final = ("h1", "h2")
READER: Final = "h3"
"""It only reads, over RDMA: neither a refused write nor a takeover of addresses stops it, so it asks a fenced node
longest."""
_KATO_US: Final = 1_500 * MS


class Connection:
    """A host's connection to one incarnation."""

    __slots__ = ("engine", "open")

    def __init__(self, engine: DataPlane) -> None:
        self.engine = engine
        self.open = True


class Worker:
    """One thread of a host's application on one volume: one operation at a time."""

    def __init__(self, hosts: Hosts, host: str, volume: Volume) -> None:
        self.hosts = hosts
        self.world = hosts.world
        self.host = host
        self.volume = volume
        self.node: NodeName = volume.group.home
        self.done_at = 0
        self.count = 0
        self._attempt = 0
        self._write = False
        self._tag = 0
        self._lba = 0
        self._called = 0
        self.waiting = False
        self._think()

    def _think(self) -> None:
        gap = self.world.rng.randrange(self.world.gap_us)
        self.world.loop.after(gap, self._begin)

    def _begin(self) -> None:
        rng = self.world.rng
        self._write = self.host != READER and rng.random() < 0.5
        self._lba = rng.randrange(BLOCKS)
        if self._write:
            self._lba = self._lba // len(HOSTS) * len(HOSTS) + HOSTS.index(self.host)
        if self.volume.mirror:
            if not self._write and self._block in self.hosts.writing:
                self._think()
                return
            if self._write:
                self.hosts.writing.add(self._block)
        self._tag = self.hosts.next_tag() if self._write else NOTHING
        self._called = self.world.loop.now
        self.waiting = True
        self.try_again()

    @property
    def _block(self) -> str:
        return f"{self.volume.name}/{self._lba}"

    def try_again(self) -> None:
        """Send it over the path that the host believes in, or look for one."""
        connection = self.hosts.connection(self.host, self.node)
        if connection is None:
            self.node = other(self.node)
            connection = self.hosts.connection(self.host, self.node)
        self._attempt += 1
        attempt = self._attempt
        if connection is None:
            self.world.loop.after(self.world.rng.randrange(5 * MS, 40 * MS), self._retry, attempt)
            return
        engine = connection.engine

        def reply(status: str, tag: Any) -> None:  # noqa: ANN401 - what the block held
            self.world.loop.after(self._wire_us(), self._answered, attempt, connection, status, tag)

        io = Io(self.host, self.volume, self._lba, write=self._write, tag=self._tag, reply=reply)
        self.world.loop.after(self._wire_us(), self._arrives, connection, io)
        self.world.loop.after(_KATO_US, self._keep_alive, attempt, connection, engine)

    def _arrives(self, connection: Connection, io: Io) -> None:
        if connection.open:
            connection.engine.deliver(connection.engine.submit, io)

    def _wire_us(self) -> int:
        return self.world.rng.randrange(30, 200)

    def _retry(self, attempt: int) -> None:
        if attempt == self._attempt and self.waiting:
            self.try_again()

    def retry_soon(self, *, gone: bool) -> None:
        """Its connection is gone."""
        if self._write and gone and self.world.rng.random() < 0.2:
            self._end(False, None)  # noqa: FBT003 - the host died with it
            return
        self.world.loop.after(self.world.rng.randrange(100, 3 * MS), self._retry, self._attempt)

    def _keep_alive(self, attempt: int, connection: Connection, engine: DataPlane) -> None:
        if attempt != self._attempt or not self.waiting or not connection.open:
            return
        if engine.alive and not engine.hung:
            self.world.loop.after(_KATO_US, self._keep_alive, attempt, connection, engine)
        else:
            self.hosts.close(self.host, connection)

    def _answered(self, attempt: int, connection: Connection, status: str, tag: Any) -> None:  # noqa: ANN401
        if attempt != self._attempt or not self.waiting or not connection.open:
            return
        if status == INACCESSIBLE:
            self.node = other(self.node)
            self._attempt += 1
            self.world.loop.after(self.world.rng.randrange(1 * MS, 15 * MS), self._retry, self._attempt)
            return
        if status != OK:
            self.world.checkers.failed_io(connection.engine, self.volume, status)
        self._end(status == OK, tag)

    def _end(self, good: bool, tag: Any) -> None:  # noqa: ANN401
        now = self.world.loop.now
        self.waiting = False
        self._attempt += 1
        if self._write:
            self.hosts.writing.discard(self._block)
        if good:
            self.done_at = now
            self.count += 1
        if good or self._write:
            self.hosts.record(self, now if good else None, self._tag if self._write else tag or NOTHING)
        self._think()

    def record(self, returned: int | None, tag: int) -> Access:
        """What the history says of this operation."""
        return Access(
            block=self._block, write=self._write, tag=tag, called=self._called, returned=returned, by=self.host
        )

    def unanswered(self) -> Access | None:
        """The write that nobody was told the end of, when the world ends."""
        return self.record(None, self._tag) if self.waiting and self._write else None


class Hosts:
    """All hosts: their connections, their workers and what they saw."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.history: list[Access] = []
        self.writing: set[str] = set()
        """Mirrored blocks with a write on its way."""
        self._tags = NOTHING
        self._connections: dict[tuple[str, NodeName], Connection] = {}
        self.resets = {READER: False, **{host: world.rng.random() < 0.6 for host in HOSTS}}
        """Whether a takeover of addresses reaches it (TCP); others wait for the keep-alive time."""
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Connect, and begin to work."""
        for host in self.resets:
            for node in NODES:
                self._connect(host, node)
        self.workers = [Worker(self, host, volume) for host in self.resets for volume in self.world.volumes]

    def next_tag(self) -> int:
        """A tag that no other write has."""
        self._tags += 1
        return self._tags

    def record(self, worker: Worker, returned: int | None, tag: int) -> None:
        """The end of an operation."""
        access = worker.record(returned, tag)
        self.history.append(access)
        self.world.note(f"{access.by} {access.block} {access.write} {access.tag} {access.called} {access.returned}")

    def complete_history(self) -> list[Access]:
        """With the writes that are still on their way."""
        return self.history + [access for worker in self.workers if (access := worker.unanswered()) is not None]

    # ------------------------------------------------------------ connections

    def connection(self, host: str, node: NodeName) -> Connection | None:
        """The open connection to that node, if there is one."""
        connection = self._connections.get((host, node))
        return connection if connection is not None and connection.open else None

    def _connect(self, host: str, node: NodeName) -> None:
        """Until it is connected; old commands at the same incarnation have to have ended."""
        if self.connection(host, node) is None:
            engine = self.world.nodes[node].engine
            at = self.world.nodes[node]
            if at.powered and engine is not None and engine.alive and not engine.hung and not engine.dying:
                before = self._connections.get((host, node))
                if before is None or before.engine is not engine or not engine.busy_with(host):
                    self._connections[host, node] = Connection(engine)
                    return
        else:
            return
        self.world.loop.after(self.world.rng.randrange(50 * MS, 200 * MS), self._connect, host, node)

    def close(self, host: str, connection: Connection) -> None:
        """The host gives the connection up, or sees it reset."""
        if not connection.open:
            return
        connection.open = False
        node = connection.engine.node.name
        self.world.loop.after(self.world.rng.randrange(50 * MS, 200 * MS), self._connect, host, node)
        for worker in self.workers:
            if worker.host == host and worker.waiting and worker.node == node:
                worker.retry_soon(gone=not connection.engine.alive)

    def dropped(self, engine: DataPlane, *, told: bool) -> None:
        """The data plane is gone; without power nobody tells the hosts."""
        for (host, _node), connection in list(self._connections.items()):
            if connection.engine is engine and connection.open:
                delay = self.world.rng.randrange(100, 2 * MS) if told else _KATO_US
                self.world.loop.after(delay, self.close, host, connection)

    def kicked(self, node: NodeName) -> None:
        """The other node has taken the addresses: what TCP hosts send is answered with a reset."""
        for host in self.resets:
            connection = self.connection(host, node)
            if connection is not None and self.resets[host]:
                self.world.loop.after(self.world.rng.randrange(2 * MS, 20 * MS), self.close, host, connection)
