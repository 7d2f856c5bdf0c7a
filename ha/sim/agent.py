"""The simulated agent: what it sees, when it decides, and how its decisions reach the data plane, page and network.

Why: ``ha.decide`` is the product's own; this is the loop around it, with everything that a real loop suffers: answers
late or never, messages twice, its own death and its own pauses.  What arrives while it is stopped is found when it
goes on.
Each lane (liveness, slots, reports) has at most one command on its way to each drive.

Invariants: an outcome is shown once; nothing of an agent that has ended acts any more, but what it sent goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ha.model import (
    Answer,
    Drives,
    Engine,
    EngineState,
    GroupId,
    Order,
    Outcome,
    Peer,
    Phase,
    Says,
    Seen,
    ServiceMap,
    Slots,
    other,
)
from ha.sim.adapter import Adapter
from ha.sim.drives import SLOT, TORN, Op, Report
from ha.sim.engine import WHOLE
from ha.sim.loop import MS
from ha.sim.net import PATHS

if TYPE_CHECKING:
    from ha.sim.engine import DataPlane
    from ha.sim.node import Node

_LIVENESS_TICKS: Final = 3


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat: who sent it as its how-manieth, and which of the receiver's it has heard last."""

    life: int
    number: int
    says: Says
    heard: tuple[int, int]
    paths: tuple[str, ...]


class Agent:
    """One life of a node's agent."""

    def __init__(self, node: Node, life: int) -> None:
        self.node = node
        self.world = node.world
        self.loop = node.world.loop
        self.rng = node.world.rng
        self.policy = node.world.policy
        self.life = life
        self.gone = False
        self.stopped = False
        self.decide = self.world.mutant.decider()
        self.memory = self.world.mutant.first(node.name)
        self.says: Says | None = None
        self.phase = Phase.ABSENT
        self.outcomes: deque[Outcome] = deque()
        self.orders: list[Order] = []
        self.map: ServiceMap | None = self.world.map_known()
        self.sentence = ""
        self._backlog: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._next_cycle = 0
        self._ticks = 0
        self._beats = 0
        self._sent: dict[int, int] = {}
        self._heard = (0, 0)
        self._heard_at: int | None = None
        self._acked_at: int | None = None
        self._heard_paths: dict[str, int] = {}
        self._peer_paths: tuple[str, ...] = ()
        self._peer_says: Says | None = None
        self._ended_key = 0
        self._served = node.served
        self._forget_engine()
        self.adapter = Adapter(self)
        self._tick()
        self._beat()
        self._slot_lane()
        self._report_lane()

    def _forget_engine(self) -> None:
        """A new data plane: nothing that the old one showed counts for it."""
        self._busy: set[tuple[str, str]] = set()
        self._answered_at: int | None = None
        self._asking = False
        self._own: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._peer_slots: dict[str, tuple[int, int]] = {}
        self._peer_slot_at: int | None = None
        self._newest = (0, 0)
        self._conflicts: set[str] = set()
        self._registrants: dict[str, frozenset[int]] = {}
        self._answered: dict[str, int] = dict.fromkeys(self.node.ports, self.now_ms())
        self._slot_number = 0

    # ------------------------------------------------------------ the process

    def now_ms(self) -> int:
        """The node's clock."""
        return self.node.now_ms()

    def deliver(self, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401 - whatever it takes
        """Something reaches this process: now, when it goes on, or never."""
        if self.gone:
            return
        if self.stopped:
            self._backlog.append((call, arguments))
        else:
            call(*arguments)

    def later(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """A timer of this process."""
        self.loop.after(delay, self.deliver, call, *arguments)

    def stop(self) -> None:
        """SIGSTOP, or a machine that pauses."""
        self.stopped = True

    def go_on(self) -> None:
        """It goes on with all that has come meanwhile."""
        self.stopped = False
        backlog, self._backlog = self._backlog, []
        for call, arguments in backlog:
            self.deliver(call, *arguments)

    @property
    def engine(self) -> DataPlane | None:
        """The data plane that this agent knows: the node's, while it lives."""
        engine = self.node.engine
        return engine if engine is not None and engine.alive else None

    def engine_started(self) -> None:
        """A new incarnation answers on the socket."""
        self.deliver(self._engine_started)

    def _engine_started(self) -> None:
        self._forget_engine()
        self.adapter.engine_started()
        self.cycle()

    def engine_ended(self) -> None:
        """The pidfd says so."""
        assert self.node.engine is not None
        self.deliver(self._engine_ended, self.node.engine.key)

    def _engine_ended(self, key: int) -> None:
        self._ended_key = key
        self.adapter.engine_ended()
        self.cycle()

    def order(self, order: Order) -> None:
        """The operator's."""
        self.deliver(self._order, order)

    def _order(self, order: Order) -> None:
        self.orders.append(order)
        self.cycle()

    # ------------------------------------------------------------ deciding

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % _LIVENESS_TICKS == 1:
            self._ask()
        self.cycle()
        self.later(self.node.clock.lasts(self.policy.tick_ms) + self.rng.randrange(300), self._tick)

    def cycle(self) -> None:
        """See, decide, act."""
        outcome = self.outcomes.popleft() if self.outcomes else None
        orders, self.orders = tuple(self.orders), []
        seen = self._seen(outcome, orders)
        decision = self.decide(self.policy, self.memory, seen, self.now_ms())
        self.memory = decision.memory
        actions = decision.actions
        if decision.sentence != self.sentence:
            self.sentence = decision.sentence
            self.world.say(self.node.name, decision.sentence)
        record = self.memory.record
        if record is not None and record.snapshot is not None:
            self._know_map(record.snapshot.generation)
        takeover = self.memory.takeover
        if takeover is not None and takeover.found is not None and takeover.found.snapshot is not None:
            self._know_map(takeover.found.snapshot.generation)
        self.phase = actions.says.phase
        if self.phase in (Phase.JOINING, Phase.TAKING, Phase.MEMBER):
            self.node.served = self.memory.key
        # A lease that an earlier life of the agent gave stays until this one knows the record.
        if self.memory.record is not None or not seen.engine.served:
            self.node.leash.page(actions.lease_until)
        self.world.checkers.decided(self.node, decision)
        if actions.operation is not None:
            self.adapter.execute(actions.operation)
        self.adapter.want(actions.serve, actions.drain)
        if actions.kill is not None and self.engine is not None and self.engine.key == actions.kill.key:
            self.engine.kill()
        for reply in actions.replies:
            self.world.replied(self.node.name, reply)
        changed = self.says is None or _urgent(self.says) != _urgent(actions.says)
        self.says = actions.says
        if changed:
            self._send_beat()
        if self.outcomes:
            self.later(0, self.cycle)

    def _know_map(self, generation: int) -> None:
        if self.map is None or self.map.generation != generation:
            self.map = self.world.map_of(generation)

    def finished(self, outcome: Outcome) -> None:
        """An operation has its outcome."""
        self.outcomes.append(outcome)
        self.later(0, self.cycle)

    def _seen(self, outcome: Outcome | None, orders: tuple[Order, ...]) -> Seen:
        now = self.now_ms()
        quorum = self.world.map.quorum
        half = len(quorum) // 2
        own, read = sorted(self._own.values(), reverse=True), sorted(self._read.values(), reverse=True)
        engine = self.node.engine
        if self.engine is not None and engine is not None:
            state, key = EngineState.ALIVE, engine.key
        else:
            state, key = (EngineState.DEAD, self._ended_key) if self._ended_key else (EngineState.ABSENT, 0)
        return Seen(
            engine=Engine(
                state=state,
                key=key,
                answered_at=self._answered_at,
                built=self.map.generation if self.map is not None else 0,
                served=key == self._served != 0,
                whole=self._whole(),
                raised=frozenset(self.adapter.raised),
                drained=frozenset(self.adapter.drained),
            ),
            peer=Peer(
                heard_at=self._heard_at,
                acked_at=self._acked_at,
                says=self._peer_says,
                paths={
                    path: (path in self._peer_paths, now - self._heard_paths.get(path, -10_000) < 500) for path in PATHS
                },
            ),
            slots=Slots(
                own_at=own[half] if len(own) > half else None,
                read_at=read[half] if len(read) > half else None,
                peer_at=self._peer_slot_at,
            ),
            drives=Drives(
                conflicts=frozenset(self._conflicts),
                registrants=dict(self._registrants),
                silent=frozenset(d for d, at in self._answered.items() if now - at > self.policy.drive_dead_ms),
            ),
            map=self.map,
            newest=self._newest,
            outcome=outcome,
            orders=orders,
            ports_up=self.node.ports_up,
        )

    def let_go(self, drive: str) -> None:
        """The commands on their way to a drive that is detached have ended."""
        self._busy = {(lane, at) for lane, at in self._busy if at != drive}

    def _whole(self) -> frozenset[GroupId]:
        """The groups in whose mirrors no leg is missing on this node."""
        engine, known = self.engine, self.map
        if engine is None or known is None:
            return frozenset()
        return frozenset(
            group
            for group, at in known.groups.items()
            if all(
                engine.legs.get(mirror.name, {}).get(leg.drive) == WHOLE
                for space in at.namespaces
                for mirror in space.mirrors
                for leg in mirror.legs
            )
        )

    # ------------------------------------------------------------ heartbeats

    def _beat(self) -> None:
        self._send_beat()
        self.later(self.node.clock.lasts(self.policy.heartbeat_ms) + self.rng.randrange(2 * MS), self._beat)

    def _send_beat(self) -> None:
        if self.says is None:
            return
        self._beats += 1
        now = self.now_ms()
        self._sent[self._beats] = now
        self._sent.pop(self._beats - 400, None)
        paths = tuple(path for path, at in self._heard_paths.items() if now - at < 500)
        beat = Beat(self.life, self._beats, self.says, self._heard, paths)
        for path in PATHS:
            self.world.network.send(self.node.name, path, beat)

    def hear(self, path: str, beat: Beat) -> None:
        """A heartbeat of the peer has come."""
        self.deliver(self._hear, path, beat)

    def _hear(self, path: str, beat: Beat) -> None:
        now = self.now_ms()
        self._heard_paths[path] = now
        if (beat.life, beat.number) <= self._heard:
            return
        self._heard = (beat.life, beat.number)
        self._heard_at = now
        self._peer_says = beat.says
        self._peer_paths = beat.paths
        life, number = beat.heard
        if life == self.life:
            sent_at = self._sent.get(number)
            if sent_at is not None and (self._acked_at is None or sent_at > self._acked_at):
                self._acked_at = sent_at

    # ------------------------------------------------------------ lanes

    def command(
        self,
        drive: str,
        op: Op,
        done: Callable[[Answer, Any], None],
        cell: tuple[Any, ...] = (),
        value: Any = None,  # noqa: ANN401 - what a block holds
        why: str = "",
    ) -> None:
        """A raw command through the data plane's JSON-RPC; ``done`` is called when, and if, the answer comes."""
        engine = self.engine
        if engine is None:
            return
        engine.later(
            self._rpc_us(),
            engine.send,
            drive,
            op,
            lambda answer, found: self.later(self._rpc_us(), done, answer, found),
            cell,
            value,
            why,
        )

    def _rpc_us(self) -> int:
        return self.rng.randrange(300, 4_300)

    def call(self, call: Callable[[], None]) -> None:
        """A method of the data plane, called through its JSON-RPC."""
        if self.engine is not None:
            self.engine.later(self._rpc_us(), call)

    def _ask(self) -> None:
        engine = self.engine
        if engine is None or self._asking:
            return
        self._asking = True
        sent_at = self.now_ms()

        def answered() -> None:
            if self.engine is engine:
                self._asking = False
                self._answered_at = sent_at

        engine.later(self._rpc_us(), lambda: self.later(self._rpc_us(), answered))

    def _lane(self, name: str, drive: str, op: Op, done: Callable[[Answer, Any], None], **what: Any) -> None:  # noqa: ANN401
        """One command of a lane, unless the one before it is still on its way."""
        engine = self.engine
        if engine is None or (name, drive) in self._busy:
            return
        self._busy.add((name, drive))
        known = self.memory.registered

        def answered(answer: Answer, found: Any) -> None:  # noqa: ANN401
            if self.engine is not engine:
                return
            self._busy.discard((name, drive))
            if answer is not Answer.FAILED:
                self._answered[drive] = self.now_ms()
            # A drive that it is not registered on refuses it, and that says nothing.
            if answer is Answer.CONFLICT and self.phase is Phase.MEMBER and drive in known & self.memory.registered:
                self._conflicts.add(drive)
            if answer is Answer.OK:
                done(answer, found)

        self.command(drive, op, answered, **what)

    def _slot_lane(self) -> None:
        self.later(self.node.clock.lasts(self.policy.slot_ms) + self.rng.randrange(MS), self._slot_lane)
        if self.phase not in (Phase.MEMBER, Phase.TAKING):
            return
        now, me, peer = self.now_ms(), self.node.name, other(self.node.name)
        self._slot_number += 1
        at = self.says.at if self.says is not None else (0, 0)
        value = (self.life, self._slot_number, at)
        for drive in self.world.map.quorum:

            def wrote(_answer: Answer, _found: Any, drive: str = drive) -> None:  # noqa: ANN401
                self._own[drive] = now

            def read(_answer: Answer, found: Any, drive: str = drive) -> None:  # noqa: ANN401
                self._read[drive] = now
                self._see_slot(drive, found)

            self._lane("slot", drive, Op.WRITE, wrote, cell=(SLOT, me), value=value)
            self._lane("peer", drive, Op.READ, read, cell=(SLOT, peer))

    def _see_slot(self, drive: str, found: Any) -> None:  # noqa: ANN401 - whatever lies there
        if found is None or found is TORN:
            return
        life, number, at = found
        before = self._peer_slots.get(drive)
        self._peer_slots[drive] = (life, number)
        self._newest = max(self._newest, at)
        if before is not None and (life, number) > before:
            self._peer_slot_at = self.now_ms()

    def _report_lane(self) -> None:
        self.later(2 * self.node.clock.lasts(self.policy.slot_ms) + self.rng.randrange(MS), self._report_lane)
        for drive in self.node.ports:

            def reported(_answer: Answer, found: Any, drive: str = drive) -> None:  # noqa: ANN401
                assert isinstance(found, Report)
                if drive in self.world.map.quorum:
                    self._registrants[drive] = found.registrants

            self._lane("report", drive, Op.REPORT, reported)


def _urgent(says: Says) -> tuple[Any, ...]:
    """What the peer should hear at once."""
    return (says.phase, says.key, says.ended, says.at, says.asks, dict(says.releases), says.blind, says.rebuilt)
