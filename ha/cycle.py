"""The cycle of an agent: see, let ``decide`` decide, do what was decided.

Why: one thread with one event loop, so that nothing is seen half and no two decisions can meet.  A cycle runs every
tick, and at once when the data plane has ended, a heartbeat brought news, work has an outcome or an order came.

It must never wait for anything in a cycle, never decide, and never start work that ``decide`` did not ask for.  In each
cycle what stops comes first: the end of the data plane, then the lease, and only then what is raised.

A group is raised only while a leash holds the data plane: without one nothing would end it with its lease.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from controlplane.domain.errors import Refused, Ws7000Error
from ha import control, history, status
from ha.adapters.engine import Connection, EngineAccess
from ha.adapters.lease_page import NOBODY, AgentPage, Process
from ha.adapters.moving import DataAddresses
from ha.adapters.power import PeerPower
from ha.adapters.process import Leash
from ha.adapters.realtime import Sweeper
from ha.adapters.sockets import Listing
from ha.asked import Asked
from ha.beats import Beats, Wire
from ha.config import AgentConfig
from ha.decide import Decision, decide, first
from ha.maps import Built, Maps, Served
from ha.memory import Kind, Memory
from ha.model import (
    NO_KEY,
    Actions,
    DetachDrives,
    Drives,
    Engine,
    EngineState,
    GroupId,
    KickHosts,
    Load,
    NodeName,
    Operation,
    Order,
    Outcome,
    Phase,
    Rebuild,
    Reply,
    Save,
    Seen,
    ServiceMap,
    Slots,
    SnapshotAt,
)
from ha.policy import Policy
from ha.reading import MapReading
from ha.watchdog import Watch

_SERVING: Final = (Phase.JOINING, Phase.TAKING, Phase.MEMBER)
LOOK_MS: Final = 1_000
"""Between two looks at the sets while legs are out."""


class DriveWork(Protocol):
    """The drives through one connection to the data plane (``ha.adapters.drives``)."""

    def use(self, of: ServiceMap, key: int) -> None:
        """Which drives, and whose registrations, from now on."""

    async def run(self, operation: Operation) -> Outcome:
        """Carry it out; the outcome comes in any case."""

    async def read_snapshot(self, at: SnapshotAt, deadline_ms: int) -> bytes | None:
        """The snapshot from whichever quorum drive has it whole."""

    def slots(self, now: int) -> Slots:
        """Heartbeats through the drives."""

    def drives(self, now: int) -> Drives:
        """The drives as last seen."""

    def newest_hint(self) -> tuple[int, int]:
        """The highest position of a record that the peer's slots announce."""

    def say(self, at: tuple[int, int]) -> None:
        """What the own slots announce."""

    async def close(self) -> None:
        """Stop."""


class Agent:
    """See the module.  The parts are given; ``ha.agent`` puts them together."""

    def __init__(
        self,
        config: AgentConfig,
        policy: Policy,
        clock: Callable[[], int],
        *,
        drives: Callable[[Connection], DriveWork],
        beats: Beats,
        wire: Wire,
        page: AgentPage,
        leash: Leash,
        kept: history.History,
        ports: Callable[[], tuple[int, int]],
        addresses: DataAddresses,
        watch: Watch,
        power: PeerPower,
    ) -> None:
        self._config = config
        self._policy = policy
        self._clock = clock
        self._make_drives = drives
        self._beats = beats
        self._wire = wire
        self._page = page
        self._leash = leash
        self._history = kept
        self._said = history.Said()
        self._ports = ports
        self._addresses = addresses
        self._watch = watch
        self._power = power
        self._listing = Listing(config.node, clock)
        self._unlisted = ""
        folder = Path(config.folder)
        self._maps = Maps(folder)
        self._reading = MapReading(self._maps, policy.journal_ms, self._begin, self.wake)
        self._built = Built(folder)
        self._served = Served(folder)
        self._whole: frozenset[GroupId] = frozenset()
        self._looking = False
        self._memory: Memory = first(config.node)
        self._seen = Seen()
        self._seen_at = 0
        self._last: Decision | None = None
        self._drives: DriveWork | None = None
        self._wake = asyncio.Event()
        self._outcomes: deque[Outcome] = deque()
        self._asked = Asked(self.wake)
        self._tasks: set[asyncio.Task[None]] = set()
        self._kicking: asyncio.Future[tuple[bool, str]] | None = None
        self._stopping = False
        self._unleashed = ""
        self._raised: frozenset[GroupId] = frozenset()
        self._killed = NO_KEY
        self.engine: EngineAccess | None = None

    # -- the loop

    def wake(self) -> None:
        """Decide at once."""
        self._wake.set()

    def stop(self) -> None:
        """End after the cycle that runs now."""
        self._stopping = True
        self._wake.set()

    async def run(self, engine: EngineAccess) -> None:
        """Cycles until ``stop``."""
        self.engine = engine
        sweeper = Sweeper(self._clock())
        while not self._stopping:
            self._wake.clear()
            self.cycle()
            self._watch.alive(self._seen_at)
            if self._outcomes:  # each gets a cycle of its own
                await asyncio.sleep(0)
                continue
            if not self._tasks:
                sweeper.idle(self._clock())
            try:
                async with asyncio.timeout(self._policy.tick_ms / 1000):
                    await self._wake.wait()
            except TimeoutError:
                continue
        serving = self._memory.phase in _SERVING or self._seen.engine.raised
        self._watch.end(served=bool(serving) and not self._memory.paused)

    def cycle(self) -> None:
        """See, decide, do."""
        now = self._seen_at = self._clock()
        if self._drives is not None and self._maps.current is not None:
            self._drives.use(self._maps.current, self._key())
        self._seen = self._look(now)
        decision = decide(self._policy, self._memory, self._seen, now)
        before, self._memory = self._memory, decision.memory
        if self._memory.phase in _SERVING:
            self._served.keep(self._memory.key)
        self._do(decision.actions)
        self._tell(before, decision)
        self._last = decision
        self._reading.look(self._memory, self._drives)
        self._look_at_sets()

    def _key(self) -> int:
        return self.engine.engine().key if self.engine is not None else NO_KEY

    def _engine(self) -> Engine:
        assert self.engine is not None
        engine = self.engine.engine()
        return replace(engine, served=engine.key == self._served.before != NO_KEY, whole=self._whole)

    def _look(self, now: int) -> Seen:
        assert self.engine is not None
        up, ports = self._ports()
        drives, engine, memory = self._drives, self._engine(), self._memory
        lives = engine.state is EngineState.ALIVE
        unfit = self._watch.look(
            now,
            serves=lives and memory.phase in _SERVING and not memory.paused,
            could=lives and memory.phase in (Phase.ABSENT, Phase.OUTSIDE) and self._maps.current is not None,
        )
        return Seen(
            engine=engine,
            peer=self._beats.peer(now),
            slots=drives.slots(now) if drives is not None else Slots(),
            drives=drives.drives(now) if drives is not None else Drives(),
            map=self._maps.current,
            newest=drives.newest_hint() if drives is not None else (0, 0),
            outcome=self._outcomes.popleft() if self._outcomes else None,
            orders=self._asked.new(),
            holds=self._addresses.holds,
            ports_up=up,
            ports=ports,
            unfit=unfit,
        )

    def _do(self, actions: Actions) -> None:
        assert self.engine is not None
        if actions.kill is not None and self.engine.kill(actions.kill.key) and self._killed != actions.kill.key:
            self._killed = actions.kill.key  # it takes a while to end, and is asked for until it has
            self._history.write("kill", f"the data plane was ended: {actions.kill.why}")
        process = self.engine.process
        self._renew(process, actions.lease_until)
        self._hold()
        # What a data plane serves is known only once the record is: an agent that was started again while the array is
        # paused must not lower what its data plane serves.
        if self._maps.current is not None and self._memory.record is not None:
            held = self._leash.guards(process)
            serve = actions.serve if held else actions.serve & self._seen.engine.raised
            self.engine.want(serve, actions.drain, self._maps.current)
        self._settle(actions.addresses)
        self._beats.say(actions.says, self._seen_at, self._wire)
        if self._drives is not None:
            self._drives.say(actions.says.at)
        if actions.operation is not None:
            self._begin(self._carry_out(actions.operation))
        self._asked.answered(actions.replies)

    def _renew(self, process: Process, until: int | None) -> None:
        """Write the lease.  One that an agent before this one gave stays as it is until this one knows the record: the
        peer counts on its end, and this agent has nothing yet to extend it by."""
        before = self._page.before
        if self._memory.record is None and before.lease_until_ns is not None and before.data_plane.alive:
            self._page.write(before.data_plane, key=before.key, lease_until_ms=before.lease_until_ns // 1_000_000)
        else:
            self._page.write(process, key=self._key(), lease_until_ms=until)

    def _settle(self, nodes: frozenset[NodeName]) -> None:
        """See that the data addresses are where they belong, and that the peer knows the hosts' connections here."""
        now, working = self._seen_at, self._memory.operation
        if working is not None and isinstance(working.work, KickHosts):
            nodes |= {working.work.node}  # what is being taken over is not to be given back meanwhile
        work = self._addresses.settling(nodes, now)
        if work is not None:
            self._begin(work)
        of = self._maps.current
        told = self._addresses.configured and self._memory.phase is Phase.MEMBER
        if told and of is not None and self._listing.due(now):
            self._begin(self._list(of))

    async def _list(self, of: ServiceMap) -> None:
        try:
            self._beats.tell(await self._listing.packed(of), self._clock(), self._wire)
            self._unlisted = ""
        except Ws7000Error as problem:
            if self._unlisted != str(problem):
                self._unlisted = str(problem)
                self._history.write("addresses", self._unlisted)

    def _hold(self) -> None:
        """See that a leash runs."""
        try:
            self._leash.ensure()
        except Ws7000Error as problem:
            if self._unleashed != str(problem):
                self._unleashed = str(problem)
                self._history.write("leash", self._unleashed)

    def _tell(self, before: Memory, decision: Decision) -> None:
        after = decision.memory
        if self._said.news(decision.sentence, self._seen_at) or after.phase is not before.phase:
            self._history.write("phase" if after.phase is not before.phase else "says", decision.sentence,
                                phase=str(after.phase), epoch=after.record.epoch if after.record else 0)  # fmt: skip
        if after.taken_at is not None and after.taken_at != before.taken_at and after.timeline:
            steps = [{"at_ms": at - after.timeline[0][0], "what": what} for at, what in after.timeline]
            self._history.write("takeover", f"took over in {steps[-1]['at_ms']} ms", steps=steps)
            if before.takeover is not None and before.takeover.kind is Kind.FAILOVER:
                heard_at = self._seen.peer.heard_at
                self._power.taken(forced=before.takeover.forced, heard_at=heard_at, now=self._seen_at)
        if self._seen.engine.raised != self._raised:
            self._raised = self._seen.engine.raised
            groups = ", ".join(sorted(str(group) for group in self._raised))
            self._history.write("serves", f"ANA groups served here: {groups or 'none'}")
        if after.phase is Phase.MEMBER:
            self._asked.joined()

    # -- work

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # what nobody foresaw ends the agent, by the loop's exception handler

    async def _carry_out(self, operation: Operation) -> None:
        """One outcome for each operation, whatever happens."""
        outcome = Outcome(number=operation.number, ok=False, problem="the data plane was lost meanwhile")
        try:
            outcome = await self._outcome(operation)
        except Ws7000Error as problem:
            outcome = Outcome(number=operation.number, ok=False, problem=str(problem))
        finally:
            self._outcomes.append(outcome)
            self.wake()

    async def _outcome(self, operation: Operation) -> Outcome:
        assert self.engine is not None
        match operation.work:
            case Load() | DetachDrives() | Rebuild():
                return await self.engine.run(operation)
            case KickHosts():
                return await self._kick(operation.number, operation.work.node, operation.deadline_ms)
        if self._drives is None:
            return Outcome(number=operation.number, ok=False, problem="there is no data plane to reach drives with")
        return await self._drives.run(operation)

    async def _kick(self, number: int, node: NodeName, deadline_ms: int | None) -> Outcome:
        """The outcome at the deadline, whatever the kernel does; what was begun goes on, and nothing overtakes it."""
        work = asyncio.ensure_future(self._addresses.kick(node, self._beats.connections))
        self._kicking = work
        within = deadline_ms / 1000 if deadline_ms is not None else None
        if not (await asyncio.wait({work}, timeout=within))[0]:
            return Outcome(number=number, ok=False, problem=f"the addresses were not moved within {deadline_ms} ms")
        done, said = work.result()
        self._history.write("hosts", said)
        return Outcome(number=number, ok=done, problem="" if done else said)

    def meet(self, connection: Connection | None, _key: int) -> None:
        """A connection to the data plane was made, or has ended."""
        gone, self._drives = self._drives, None
        if gone is not None:
            self._begin(gone.close())
        if connection is not None:
            self._drives = self._make_drives(connection)
            if self.engine is not None and self.engine.engine().built == 0:
                self.engine.built(self._built.of(self._key()))
        self.wake()

    def _look_at_sets(self) -> None:
        """While legs are out by the record: in which groups none is missing here."""
        record, service = self._memory.record, self._maps.current
        if record is None or not record.stale or service is None or self.engine is None:
            self._whole = frozenset()
        elif not self._looking:
            self._looking = True
            self._begin(self._look_at(service))

    async def _look_at(self, service: ServiceMap) -> None:
        assert self.engine is not None
        self._whole = await self.engine.whole(service)
        await asyncio.sleep(LOOK_MS / 1000)
        self._looking = False

    # -- what callers of the control socket get

    def status(self) -> Mapping[str, Any]:
        """The node as of the newest decision."""
        last = self._last
        body = status.status(
            self._policy,
            self._memory,
            self._seen,
            self._clock(),
            sentence=last.sentence if last is not None else "it is being started",
            lease_until=last.actions.lease_until if last is not None else None,
        )
        body["connections"] = self._listing.count
        body["watchdog"] = status.watchdog(self._watch.state)
        body["peer"]["refused"] = self._beats.refused
        if self.engine is not None:
            body["engine"] |= {
                "pid": self.engine.process.pid or None,
                "problem": self.engine.problem,
                "late": self.engine.problems,
            }
        return body

    async def history(self, limit: int) -> list[dict[str, object]]:
        """From the files, without holding the loop up."""
        return await asyncio.to_thread(history.read, Path(self._config.folder), limit)

    def saved(self) -> tuple[int, bytes] | None:
        """The state that the newest record names; None where no array is known here at all."""
        record = self._memory.record
        raw = self._maps.newest(self._memory)
        if record is not None and record.snapshot is not None and raw is not None:
            return record.snapshot.generation, raw
        if record is None and self._maps.current is None:
            return None
        raise control.unknown_array()

    def groups(self) -> frozenset[GroupId] | None:
        """Those of the map."""
        return frozenset(self._maps.current.groups) if self._maps.current is not None else None

    async def learn(self, snapshot: bytes) -> None:
        """See ``Maps.learn``."""
        await self._reading.learn(snapshot)

    def built(self, generation: int) -> None:
        """See ``EngineAccess.built``."""
        if self.engine is None or self.engine.process == NOBODY:
            raise Refused(
                "HA-034",
                "no data plane runs on this node, so none has been built",
                why=self.engine.problem if self.engine is not None else "",
                remedy="start the data plane, and apply again",
            )
        self._built.keep(self._key(), generation)
        self.engine.built(generation)

    async def member(self) -> None:
        """Returns when this node is a member."""
        if self._memory.phase is not Phase.MEMBER:
            await self._asked.member()

    async def carry_out(self, make: Callable[[int], Order]) -> Reply:
        """Give ``decide`` an order, and wait for its answer."""
        order = self._asked.numbered(make)
        if isinstance(order, Save):
            await self._reading.offer(order)
            if order.form:
                await self._looked_at()
        return await self._asked.answer_to(order)

    async def _looked_at(self) -> None:
        """Return when the drives of the array that was just learned have been looked at, or cannot be; an order to form
        it would be refused before."""
        until = self._clock() + self._policy.boot_ms
        while (of := self._maps.current) is not None and self._clock() < until:
            if sum(1 for drive in of.quorum if drive in self._seen.drives.registrants) >= of.majority:
                return
            await asyncio.sleep(self._policy.tick_ms / 1000)
