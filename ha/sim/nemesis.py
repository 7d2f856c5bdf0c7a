"""What goes wrong, and when: a schedule of faults from the seed; then everything is mended.

Why its own plan for each seed: some seeds break one thing thoroughly, some break everything at once, and some strike at
the very moment at which a node begins or ends an operation, for that is where order matters.  Faults first, to see
that nothing unsafe happens; then ``mend``, to see that everything is served again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ha.model import NODES, Move, NodeName, Pause, Phase, Record, Repaired, TakeOver, other
from ha.sim.engine import WHOLE
from ha.sim.loop import MS, SECOND
from ha.sim.net import PATHS

if TYPE_CHECKING:
    from ha.sim.node import Node
    from ha.sim.world import World

FAULTS_FOR_US: Final = 6 * SECOND


class Nemesis:
    """The faults of one seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.ends_at = 0
        self._orders = 0
        self._strikes: dict[NodeName, tuple[int, Callable[[Node], None]]] = {}
        self._over = False
        every: list[tuple[Callable[[], None], int]] = [
            (self._kill_engine, 5), (self._hang_engine, 4), (self._crash_agent, 4), (self._stop_agent, 4),
            (self._freeze, 5), (self._delay_leash, 1), (self._cut_power, 3), (self._cut_both, 1),
            (self._hang_drive, 3), (self._kill_drive, 1), (self._kill_port, 2), (self._slow_drive, 1),
            (self._cut_network, 4), (self._move, 6), (self._pause, 1), (self._save, 2), (self._strike, 5),
            (self._take_over, 1), (self._ports, 2), (self._starve, 2),
        ]  # fmt: skip
        if world.mutant.faults:
            every = [(fault, weight) for fault, weight in every if fault.__name__[1:] in world.mutant.faults]
        elif self.rng.random() < 0.5:
            every = self.rng.sample(every, 4)
        self._faults = [fault for fault, _ in every]
        self._weights = [weight for _, weight in every]

    def begin(self) -> None:
        """Plan the faults from now on."""
        loop, rng = self.world.loop, self.rng
        self.ends_at = loop.now + FAULTS_FOR_US
        for _ in range(rng.choice((4, 8) if self.world.mutant.faults else (1, 2, 3, 5, 8, 12))):
            loop.at(loop.now + rng.randrange(FAULTS_FOR_US), rng.choices(self._faults, self._weights)[0])

    def next_order(self) -> int:
        """A number that no other order has."""
        self._orders += 1
        return self._orders

    def _say(self, what: str) -> None:
        self.world.say("!", what)

    def _node(self) -> Node:
        return self.world.nodes[self.rng.choice(NODES)]

    def _until_mended(self, delay: int, call: Callable[[], None]) -> None:
        """The end of a fault; ``mend`` ends all that are left."""

        def ends() -> None:
            if not self._over:
                call()

        self.world.loop.after(delay, ends)

    # ------------------------------------------------------------ processes

    def _kill_engine(self) -> None:
        self._killed(self._node())

    def _killed(self, node: Node) -> None:
        if node.engine is not None and node.engine.alive:
            self._say(f"the data plane of {node.name} is killed")
            node.engine.kill()
            if self.rng.random() < 0.2:
                node.engine_held = True
                self._until_mended(self.rng.randrange(SECOND, 4 * SECOND), lambda: self._let(node))

    def _let(self, node: Node) -> None:
        node.engine_held = False
        node.start_engine()

    def _length_us(self) -> int:
        return self.rng.choice((60, 150, 250, 320, 400, 600, 800, 1_000, 1_300, 2_500)) * MS + self.rng.randrange(
            40 * MS
        )

    def _hang_engine(self) -> None:
        node, length = self._node(), self._length_us()
        engine = node.engine
        if engine is not None and engine.alive and not engine.hung:
            self._say(f"the data plane of {node.name} hangs for {length // MS} ms")
            engine.stop()
            node.excuse(length + 100 * MS)
            self._until_mended(length, lambda: None if node.frozen else engine.go_on())

    def _crash_agent(self) -> None:
        self._crashed(self._node())

    def _crashed(self, node: Node) -> None:
        if node.agent is not None:
            self._say(f"the agent of {node.name} crashes")
            node.crash_agent()
            self._until_mended(self.rng.randrange(20 * MS, 2 * SECOND), node.start_agent)

    def _stop_agent(self) -> None:
        node, length = self._node(), self._length_us()
        agent = node.agent
        if agent is not None and not agent.stopped:
            self._say(f"the agent of {node.name} is stopped for {length // MS} ms")
            agent.stop()
            self._until_mended(length, lambda: None if node.frozen else agent.go_on())

    def _freeze(self) -> None:
        self._frozen(self._node())

    def _frozen(self, node: Node) -> None:
        length = self._length_us()
        if node.powered and not node.frozen:
            self._say(f"node {node.name} pauses for {length // MS} ms")
            node.freeze()
            self._until_mended(length, node.thaw)

    def _delay_leash(self) -> None:
        node, length = self._node(), self._length_us()
        delay = self.rng.randrange(20 * MS, 400 * MS)
        self._say(f"the leash of {node.name} is {delay // MS} ms late for {length // MS} ms")
        node.leash.disturb(delay)
        node.excuse(length + delay + 500 * MS)
        self._until_mended(length, lambda: node.leash.disturb(0))

    def _starve(self) -> None:
        """Neither agent nor leash gets a processor, and the data plane, which has its own, serves on."""
        node = self._node()
        agent, length = node.agent, self.rng.randrange(600 * MS, 1_500 * MS)
        if agent is None or agent.stopped or node.frozen:
            return
        self._say(f"agent and leash of {node.name} starve for {length // MS} ms")
        agent.stop()
        node.leash.disturb(length)
        node.excuse(2 * length + 500 * MS)
        self._until_mended(length, lambda: None if node.frozen else agent.go_on())
        self._until_mended(length, lambda: node.leash.disturb(0))

    # ------------------------------------------------------------ power

    def _cut_power(self) -> None:
        self._cut(self._node())

    def _cut(self, node: Node) -> None:
        if node.powered:
            self._say(f"node {node.name} loses its power")
            node.cut_power()
            self._until_mended(self.rng.randrange(300 * MS, 4 * SECOND), node.restore_power)

    def _cut_both(self) -> None:
        self._say("everything loses its power")
        for name in self.rng.sample(NODES, 2):
            node = self.world.nodes[name]
            node.cut_power()
            self._until_mended(self.rng.randrange(100 * MS, 2 * SECOND), node.restore_power)
        for drive in self.world.drives.values():
            drive.lose_power()

    # ------------------------------------------------------------ drives

    def _hang_drive(self) -> None:
        drive = self.world.drives[self.rng.choice(sorted(self.world.drives))]
        length = self.rng.choice((150, 400, 1_000, 3_000)) * MS
        if not drive.hung:
            self._say(f"drive {drive.name} hangs for {length // MS} ms")
            self.world.checkers.lost.add(drive.name)
            drive.hang()
            self._until_mended(length, drive.go_on)

    def _kill_drive(self) -> None:
        drive = self.world.drives[self.rng.choice(sorted(self.world.drives))]
        self._say(f"drive {drive.name} dies")
        self.world.checkers.lost.add(drive.name)
        drive.dead = True

    def _kill_port(self) -> None:
        node, drive = self._node(), self.rng.choice(sorted(self.world.drives))
        self._say(f"node {node.name} does not reach drive {drive}")
        self.world.checkers.lost.add(drive)
        node.ports[drive] = False
        self._until_mended(self.rng.randrange(100 * MS, 4 * SECOND), lambda: node.ports.update({drive: True}))

    def _slow_drive(self) -> None:
        drive = self.world.drives[self.rng.choice(sorted(self.world.drives))]
        drive.slow_us = self.rng.choice((0, 20, 100, 250)) * MS
        drive.longest_us = 1_500 * MS
        self._say(f"drive {drive.name} needs {drive.slow_us // MS} ms more for each command, for some 1500")
        self.world.checkers.lost.add(drive.name)

        def quick() -> None:
            drive.slow_us = 0
            drive.longest_us = 130 * MS

        self._until_mended(self.rng.randrange(500 * MS, 3 * SECOND), quick)

    # ------------------------------------------------------------ networks

    def _cut_network(self) -> None:
        choices: tuple[tuple[NodeName, ...], ...] = (NODES, NODES, ("a",), ("b",))
        senders = self.rng.choice(choices)
        paths = self.rng.choice((PATHS, PATHS, PATHS[:1], PATHS[1:]))
        ways = {(sender, path) for sender in senders for path in paths}
        self._say("no heartbeat passes from " + ", ".join(f"{sender} on {path}" for sender, path in sorted(ways)))
        self.world.network.cut |= ways
        length = self.rng.randrange(50 * MS, 4 * SECOND)
        self._until_mended(length, lambda: self.world.network.mend(ways))

    def _ports(self) -> None:
        node = self._node()
        agent = node.agent
        if agent is not None:
            self._say(f"the data ports of {node.name} lose their links")
            node.ports_up = 0

            def linked() -> None:
                node.ports_up = 1

            self._until_mended(self.rng.randrange(300 * MS, 3 * SECOND), linked)

    # ------------------------------------------------------------ the operator

    def _leader(self) -> NodeName:
        newest = self.world.checkers.newest
        return newest.leader if newest is not None and self.rng.random() < 0.9 else self.rng.choice(NODES)

    def _move(self) -> None:
        groups = self.rng.sample(sorted(self.world.map.groups), self.rng.choice((1, 2)))
        to = self.rng.choice(NODES)
        self.world.give(self._leader(), Move(number=self.next_order(), groups=frozenset(groups), to=to))

    def _pause(self) -> None:
        self.world.give(self._leader(), Pause(number=self.next_order(), paused=True))
        length = self.rng.randrange(200 * MS, 2 * SECOND)
        self._until_mended(length, self.resume)

    def resume(self) -> None:
        """Hands on again, at whoever leads."""
        newest = self.world.checkers.newest
        if newest is not None and newest.paused:
            for name in NODES:
                self.world.give(name, Pause(number=self.next_order(), paused=False))

    def _save(self) -> None:
        self.world.give(self._leader(), self.world.save())

    def _take_over(self) -> None:
        """Only where it is true: the operator has seen to it that the other node has no power."""
        node = self._node()
        self._cut(node)
        order = TakeOver(number=self.next_order(), peer_is_off=True)
        self.world.loop.after(self.rng.randrange(300 * MS), self._forced, node, order)

    def _forced(self, off: Node, order: TakeOver) -> None:
        if not off.powered:
            self.world.give(other(off.name), order)

    # ------------------------------------------------------------ at the worst moment

    def _strike(self) -> None:
        """At one of the next moments at which a node begins an operation or hears from a drive about it."""
        what = self.rng.choice((self._cut, self._killed, self._crashed, self._frozen))
        self._strikes[self.rng.choice(NODES)] = (self.rng.randrange(40), what)
        if self.rng.random() < 0.7:
            self.rng.choice((self._move, self._kill_engine, self._cut_network))()

    def boundary(self, node: Node) -> None:
        """A node is at such a moment."""
        strike = self._strikes.get(node.name)
        if strike is None:
            return
        left, what = strike
        if left:
            self._strikes[node.name] = (left - 1, what)
        else:
            del self._strikes[node.name]
            what(node)

    # ------------------------------------------------------------ and in the end

    def mend(self) -> None:
        """Everything works again; what the operator has to say is said until it is heard."""
        self._say("everything is mended")
        self._over = True
        self._strikes.clear()
        world = self.world
        world.network.heal()
        for drive in world.drives.values():
            drive.dead = False
            drive.slow_us = 0
            drive.longest_us = 130 * MS
            if drive.hung:
                drive.go_on()
        for node in world.nodes.values():
            node.ports = dict.fromkeys(node.ports, True)
            node.ports_up = 1
            node.engine_held = False
            node.leash.disturb(0)
            if not node.powered:
                node.restore_power()
            if node.frozen:
                node.thaw()
            if node.engine is not None:
                node.engine.go_on()
            if node.agent is not None and node.agent.stopped:
                node.agent.go_on()
            world.loop.after(100 * MS, node.start_agent)
            world.loop.after(100 * MS, node.start_engine)
        world.loop.after(500 * MS, self._see_to_it)

    def _apply(self, newest: Record) -> None:
        """An apply of the control plane: volumes that were hidden for a drive that is back are shown again, and a
        standby whose sets miss a leg is built anew once the owner has made the legs equal."""
        equal = {
            group
            for name, node in self.world.nodes.items()
            if node.agent is not None
            for group in node.agent.memory.rebuilt
            if newest.owners.get(group) == name
        }
        for name, node in self.world.nodes.items():
            engine = node.engine
            if engine is None or not engine.alive:
                continue
            hidden = {(v.nqn, v.nsid) for v in self.world.volumes if v.name in newest.refused}
            engine.refused &= hidden
            for volume in engine.sources.values():
                standby = newest.owners.get(volume.group) != name and volume.group not in engine.raised
                if standby and newest.stale and volume.group in equal:
                    engine.legs[volume.mirror] = {drive: WHOLE for _, drive in volume.legs}

    def _attached(self, drive: str) -> bool:
        """Attach the drive where it was given up; whether that had been done when this look began."""
        engines = [node.engine for node in self.world.nodes.values() if node.engine is not None]
        away = [engine for engine in engines if drive in engine.detached]
        for engine in away:
            engine.detached.discard(drive)
        return not away

    def _see_to_it(self) -> None:
        """The operator resumes what is paused and says which drives are back."""
        newest = self.world.checkers.newest
        if newest is not None:
            self.resume()
            self._apply(newest)
            leader = self.world.nodes[newest.leader].agent
            if newest.failed and leader is not None and leader.phase is Phase.MEMBER:
                drive = min(newest.failed)
                if self._attached(drive):
                    self.world.give(newest.leader, Repaired(number=self.next_order(), drive=drive))
        self.world.loop.after(700 * MS, self._see_to_it)
