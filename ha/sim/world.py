"""One simulated array from one seed: nodes, drives, networks, hosts, faults, and who looks on.

``World(seed).run()`` forms the array, breaks things for some seconds of virtual time, mends everything, and waits for
the bound of L1.  Invariant: the same seed gives the same trace, whatever the machine; ``trace_hash`` says so.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from ha.model import (
    NODES,
    GroupId,
    GroupMap,
    Leg,
    MirrorMap,
    NamespaceMap,
    NodeName,
    Order,
    Phase,
    Record,
    Reply,
    Save,
    ServiceMap,
)
from ha.policy import FAST, Policy
from ha.serving import namespaces, out_legs
from ha.sim.checkers import Broken, Checkers
from ha.sim.drives import Command, Drive
from ha.sim.engine import WHOLE, DataPlane, Volume
from ha.sim.hosts import Hosts
from ha.sim.loop import MS, SECOND, Clock, Loop
from ha.sim.mutants import Mutant
from ha.sim.nemesis import Nemesis
from ha.sim.net import Network
from ha.sim.node import Node

ARRAY: Final = "0b5f6c1e-6b0e-4c55-9d5e-2f0d3d1f7a01"
NQN: Final = "nqn.2026-01.com.wanshu:default"
FORMING_US: Final = 6 * SECOND
BOUND_US: Final = 9 * SECOND
"""L1 in the simulator: how long after everything was mended every volume has to be served again."""


def brisk(rng: random.Random) -> Policy:
    """The fast policy with the long times shortened, or no seed would live to see them."""
    return replace(
        FAST,
        name="brisk",
        boot_ms=800,
        retry_ms=300,
        hold_ms=2_500,
        quarantine_ms=400,
        drive_dead_ms=2_000,
        failback=rng.random() < 0.3,
    ).checked()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed."""

    seed: int
    mutant: str
    broken: tuple[Broken, ...]
    trace: tuple[str, ...]
    trace_hash: str
    events: int
    accesses: int


class World:
    """Everything there is, and the one source of chance."""

    def __init__(self, seed: int, mutant: Mutant | None = None) -> None:
        self.seed = seed
        self.mutant = mutant or Mutant()
        self.rng = random.Random(seed)  # noqa: S311 - a schedule, no secret
        self.loop = Loop()
        self.policy = brisk(self.rng)
        self.gap_us = self.rng.choice((30, 60, 120)) * MS
        self.trace: list[str] = []
        self._hash = hashlib.sha256()
        self.replies: list[tuple[NodeName, Reply]] = []
        self._known = False
        self.map = service_map(self.rng)
        self.volumes = volumes_of(self.map)
        self.checkers = Checkers(self)
        self.drives = {name: Drive(name, self.loop, self.rng, self.checkers) for name in self.map.drives}
        self.network = Network(self.loop, self.rng)
        self.network.deliver = self._deliver
        self.hosts = Hosts(self)
        self.mutant.prepare(self)
        self.nodes: dict[NodeName, Node] = {}
        for name in NODES:
            self.nodes[name] = Node(self, name, self._clock())
        self.nemesis = Nemesis(self)

    def _clock(self) -> Clock:
        drift = self.policy.drift_ppm
        ppm = self.rng.choice((-drift, drift, 0, self.rng.randint(-drift, drift)))
        return Clock(self.rng.randrange(10 * SECOND, 1_000_000 * SECOND), ppm)

    def run(self) -> Verdict:
        """The whole life of the array."""
        self.loop.at(400 * MS, self._form)
        self.hosts.start()
        self._until(FORMING_US, self._formed)
        self.nemesis.begin()
        self.loop.run(self.nemesis.ends_at)
        self.nemesis.mend()
        healed_at = self.loop.now
        self._until(healed_at + BOUND_US, lambda: self._whole(healed_at))
        self.checkers.in_the_end(healed_at)
        return Verdict(
            seed=self.seed,
            mutant=self.mutant.name,
            broken=tuple(self.checkers.broken),
            trace=tuple(self.trace),
            trace_hash=self._hash.hexdigest(),
            events=self.loop.events,
            accesses=len(self.hosts.history),
        )

    def _until(self, latest: int, done: Callable[[], bool]) -> None:
        """Go on until it is so, and a little longer; at the latest until then."""
        while self.loop.now < latest and not done():
            self.loop.run(min(latest, self.loop.now + 200 * MS))
        self.loop.run(min(latest, self.loop.now + SECOND))

    def _formed(self) -> bool:
        newest = self.checkers.newest
        return newest is not None and len(newest.members) == len(NODES)

    def _whole(self, healed_at: int) -> bool:
        """Both nodes are members, nothing is failed or to be rebuilt, and every volume has been served since."""
        newest = self.checkers.newest
        if newest is None or len(newest.members) < len(NODES) or newest.failed | newest.stale or newest.resync:
            return False
        if any(node.agent is None or node.agent.phase is not Phase.MEMBER for node in self.nodes.values()):
            return False
        return self.loop.now - healed_at > SECOND and not self.checkers.unserved(healed_at)

    def _form(self) -> None:
        """The operator forms the array: until that is done, nobody knows of it."""
        self._known = True
        for node in self.nodes.values():
            if node.agent is not None:
                node.agent.map = self.map
        self.give("a", self.save(form=True))

    def give(self, node: NodeName, order: Order) -> None:
        """An order of the operator, if anybody is there to take it."""
        agent = self.nodes[node].agent
        if agent is not None:
            self.say(node, f"is ordered: {type(order).__name__} {order.number}")
            agent.order(order)

    def save(self, *, form: bool = False) -> Save:
        """The next generation of the array's state."""
        newest = self.checkers.newest
        held = newest.snapshot.generation if newest is not None and newest.snapshot is not None else 0
        number = self.nemesis.next_order()
        body = f"state {held + 1}".encode()
        digest = hashlib.sha256(body).hexdigest()
        return Save(number=number, generation=held + 1, expects=held, snapshot=body, digest=digest, form=form)

    def _deliver(self, to: NodeName, path: str, message: Any) -> None:  # noqa: ANN401 - a heartbeat
        node = self.nodes[to]
        if node.powered and node.agent is not None:
            node.agent.hear(path, message)

    # ------------------------------------------------------------ what the parts ask of the whole

    def map_known(self) -> ServiceMap | None:
        """What an agent finds in its cache."""
        return self.map if self._known else None

    def map_of(self, generation: int) -> ServiceMap:
        """The map of that generation; the array's content stays, its number goes up."""
        return self.map if generation == self.map.generation else replace(self.map, generation=generation)

    def altered(self, command: Command) -> Command:
        """A command as it leaves a node."""
        return self.mutant.altered(command)

    def recorded(self, record: Record) -> None:
        """A record has come to lie on a majority."""
        for node in self.nodes.values():
            if node.engine is not None and node.engine.alive:
                self.build(node.engine, record)
        owners = ", ".join(f"{group.number} on {owner}" for group, owner in sorted(record.owners.items()))
        extra = "".join(
            f", {name} {' '.join(str(each) for each in sorted(value))}"
            for name, value in (
                ("failed", record.failed),
                ("stale", record.stale),
                ("resync", record.resync),
                ("refused", record.refused),
            )
            if value
        )
        paused = ", paused" if record.paused else ""
        members = " ".join(f"{name}:{key & 0xFFFF:x}" for name, key in sorted(record.members.items()))
        self.say("-", f"record {record.at} of {record.leader}: {owners}; members {members}{extra}{paused}")

    def build(self, engine: DataPlane, record: Record | None) -> None:
        """An apply makes a standby's sets what the record says, and hides what cannot be served.  The control plane's
        part, and here it is done at once; what a node serves is its agent's."""
        if record is None:
            return
        name = engine.node.name
        for volume in self.volumes:
            if record.owners.get(volume.group) == name or volume.group in engine.raised:
                continue
            if volume.name in record.refused:
                engine.refused.add((volume.nqn, volume.nsid))
            else:
                engine.refused.discard((volume.nqn, volume.nsid))
            if volume.mirror:
                mirror = next(m for _, n in namespaces(self.map) for m in n.mirrors if m.name == volume.mirror)
                out = out_legs(mirror, record, resync=volume.group in record.resync)
                engine.legs[volume.mirror] = {leg.drive: WHOLE for leg in mirror.legs if leg not in out}

    def replied(self, node: NodeName, reply: Reply) -> None:
        """The end of an order."""
        self.replies.append((node, reply))
        self.say(node, f"answers order {reply.number}: {reply.code or 'done'} {reply.why}")
        if reply.code and self.checkers.newest is None:
            self.loop.after(300 * MS, self._form)

    def say(self, who: str, what: str) -> None:
        """A line of the trace."""
        line = f"{self.loop.now / SECOND:10.6f} {who} {what}"
        self.trace.append(line)
        self.note(line)

    def note(self, what: str) -> None:
        """Something that the trace's hash depends on."""
        self._hash.update(what.encode())


def service_map(rng: random.Random) -> ServiceMap:
    """Five drives, three of them quorum drives; two groups, each with a bare volume and a mirrored one."""
    drives = tuple(f"d{number}" for number in range(5))
    groups: dict[GroupId, GroupMap] = {}
    for number in (1, 2):
        bare = rng.choice(drives)
        legs = rng.sample(drives, 2)
        mirror = MirrorMap(
            name=f"m{number}",
            legs=tuple(Leg(bdev=f"m{number}-{drive}", drive=drive) for drive in legs),
        )
        namespaces = (
            NamespaceMap(nsid=2 * number, volume=f"bare{number}", bare=(bare,)),
            NamespaceMap(nsid=2 * number + 1, volume=f"pair{number}", mirrors=(mirror,)),
        )
        groups[GroupId("default", number)] = GroupMap(nqn=NQN, listeners={}, namespaces=namespaces)
    return ServiceMap(
        array_uuid=ARRAY,
        generation=1,
        quorum=tuple(rng.sample(drives, 3)),
        block_bytes=dict.fromkeys(drives, 4096),
        groups=groups,
    )


def volumes_of(service: ServiceMap) -> tuple[Volume, ...]:
    """The map's volumes, as data planes build them."""
    found: list[Volume] = []
    for group, at in service.groups.items():
        for namespace in at.namespaces:
            mirror = namespace.mirrors[0] if namespace.mirrors else None
            found.append(
                Volume(
                    name=namespace.volume,
                    group=group,
                    nqn=at.nqn,
                    nsid=namespace.nsid,
                    drive=namespace.bare[0] if namespace.bare else "",
                    mirror=mirror.name if mirror else "",
                    legs=tuple((leg.bdev, leg.drive) for leg in mirror.legs) if mirror else (),
                )
            )
    return tuple(found)
