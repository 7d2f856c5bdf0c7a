"""One simulated node: its clock, its data plane and who restarts it, its leash, its agent.

Why the leash is here and not in the agent: it has to work while the agent is stopped.  It reads only the page that the
agent wrote last, and kills by the node's own clock, up to a tick late.  This module must never decide anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ha.keys import make_key
from ha.model import NodeName
from ha.sim.agent import Agent
from ha.sim.engine import DataPlane
from ha.sim.loop import MS, Clock

if TYPE_CHECKING:
    from ha.sim.world import World


GLANCE_MS = 50


class Leash:
    """Kills the data plane when the page has run out."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.until: int | None = None
        self.delay_us = 0
        """How much later than it should it looks, while it is disturbed."""
        self._waiting = False

    def page(self, until: int | None) -> None:
        """What the agent writes."""
        self.until = until
        if until is not None and not self._waiting:
            self._wait()

    def _wait(self) -> None:
        assert self.until is not None
        node = self.node
        jitter = node.world.rng.randrange(node.world.policy.tick_ms * MS)
        self._waiting = True
        # It reads the page again before the end as well, for a lease can be made shorter.
        ends = min(self.until + 1, node.now_ms() + GLANCE_MS)
        node.world.loop.at(node.clock.reaches(ends) + jitter + self.delay_us, self._look)

    def _look(self) -> None:
        self._waiting = False
        node = self.node
        if self.until is None or not node.powered:
            return
        if node.frozen:
            self._waiting = True
            node.on_thaw.append(self._look)
            return
        if node.now_ms() <= self.until:
            self._wait()
        elif node.engine is not None and node.engine.alive:
            node.world.say(node.name, "the leash kills the data plane: the lease has ended")
            node.engine.kill()

    def disturb(self, delay_us: int) -> None:
        """From now on it is late; a wait that has begun is not."""
        self.delay_us = delay_us


class Node:
    """Everything of one node that a loss of its power takes away."""

    def __init__(self, world: World, name: NodeName, clock: Clock) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.powered = True
        self.frozen = False
        self.on_thaw: list[Callable[[], None]] = []
        self.lives = 0
        self.engine: DataPlane | None = None
        self.engine_held = False
        """Whether the data plane is kept from starting again."""
        self.leash = Leash(self)
        self.served = 0
        """What agents write down: the key of the incarnation that was about to become a member."""
        self.agent: Agent | None = None
        self.agent_lives = 0
        self.ports = dict.fromkeys(world.map.block_bytes, True)
        self.ports_up = 1
        self.excused_until = 0
        """Until when the first guard of I8 (the lease) does not bind it, for what was done to it."""
        self.start_engine()
        self.start_agent()

    def now_ms(self) -> int:
        """Its own clock."""
        return self.clock.ms(self.world.loop.now)

    def excuse(self, length_us: int) -> None:
        """What is being done to it is beyond what the lease promises."""
        self.excused_until = max(self.excused_until, self.world.loop.now + length_us)

    @property
    def excused(self) -> bool:
        """See ``excused_until``."""
        return self.frozen or self.world.loop.now < self.excused_until

    # ------------------------------------------------------------ the data plane

    def start_engine(self) -> None:
        """A new incarnation, if the node can have one."""
        if not self.powered or self.engine_held or (self.engine is not None and self.engine.alive):
            return
        if self.frozen:
            self.on_thaw.append(self.start_engine)
            return
        self.lives += 1
        key = make_key(self.world.map.array_uuid, self.name, self.lives)
        self.engine = DataPlane(self, key, self.world.volumes)
        newest = self.world.checkers.newest
        if newest is not None:
            self.engine.detached = set(newest.failed)
            self.world.build(self.engine, newest)
        if self.agent is not None:
            self.agent.engine_started()

    def engine_ended(self, *, told: bool) -> None:
        """The process is gone: its hosts' connections drop, the agent sees it, and it is started again."""
        engine = self.engine
        assert engine is not None
        self.world.hosts.dropped(engine, told=told)
        if self.agent is not None:
            self.agent.engine_ended()
        if self.powered:
            self.world.loop.after(self.world.rng.randrange(150 * MS, 1_200 * MS), self.start_engine)

    def conflicted(self, engine: DataPlane, drive: str) -> None:
        """A drive refused I/O of a host: the first guard of I8 has to have ended the data plane before."""
        self.world.checkers.refused(self, engine, drive)

    # ------------------------------------------------------------ the agent

    def start_agent(self) -> None:
        """A new agent that remembers nothing."""
        if not self.powered or self.agent is not None:
            return
        self.agent_lives += 1
        self.agent = Agent(self, self.agent_lives)

    def crash_agent(self) -> None:
        """The agent's process is gone; the page it wrote stays."""
        if self.agent is not None:
            self.agent.gone = True
            self.agent = None

    # ------------------------------------------------------------ the whole node

    def freeze(self) -> None:
        """Nothing of it runs: a paused machine, or a kernel that hangs."""
        self.frozen = True
        if self.engine is not None:
            self.engine.stop()
        if self.agent is not None:
            self.agent.stop()

    def thaw(self) -> None:
        """It goes on and does not know how long it was away."""
        if not self.frozen:
            return
        self.frozen = False
        self.excuse(200 * MS)
        waiting, self.on_thaw = self.on_thaw, []
        calls = [*waiting]
        if self.engine is not None:
            calls.append(self.engine.go_on)
        if self.agent is not None:
            calls.append(self.agent.go_on)
        self.world.rng.shuffle(calls)
        for call in calls:
            self.world.loop.after(self.world.rng.randrange(15 * MS), self._resume, call)

    def _resume(self, call: Callable[[], None]) -> None:
        if self.frozen:
            self.on_thaw.append(call)
        else:
            call()

    def cut_power(self) -> None:
        """Everything is gone at once, and nobody is told."""
        if not self.powered:
            return
        self.powered = False
        self.frozen = False
        self.on_thaw.clear()
        self.leash.until = None
        self.crash_agent()
        if self.engine is not None and self.engine.alive:
            for drive in self.world.drives.values():
                drive.cut_off(self.engine.key)
            self.engine.dead(told=False)

    def restore_power(self) -> None:
        """It starts again, with a new incarnation."""
        if self.powered:
            return
        self.powered = True
        rng = self.world.rng
        self.world.loop.after(rng.randrange(300 * MS, 2_000 * MS), self.start_engine)
        self.world.loop.after(rng.randrange(100 * MS, 1_500 * MS), self.start_agent)
