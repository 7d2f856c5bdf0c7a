"""A model of two engines: what each step does to a node's image, and nothing else.

It is not a mock of an engine but the meaning of the steps, so that plans of any length can be run, cut and run
again as plain values.  Like an engine it refuses what cannot be done (a set without its members, a namespace
without its bdev), so that a wrong order fails here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controlplane.domain.desired import (
    Array,
    Drive,
    FabricsDrive,
    HaIntent,
    HaMode,
    Host,
    Node,
    Pool,
    Port,
    Protection,
    Subsystem,
    Volume,
    subsystem_nqn,
)
from controlplane.domain.image import AnaState, NodeImage, SubsystemImage, slice_bdev
from controlplane.domain.state import State
from controlplane.planner import labels
from controlplane.planner import steps as s
from controlplane.planner.allocate import DriveFacts
from controlplane.planner.plan import Proposal, make_plan

MIB = 1 << 20
ARRAY_UUID = "5b2f3f3e-0000-4000-8000-000000000001"


def node(name: str) -> Node:
    """A node with one TCP port."""
    address = "192.0.2.1" if name == "a" else "192.0.2.2"
    port = Port(transport="tcp", address=address, service=4420, family="ipv4")
    return Node(name=name, rpc=f"/run/{name}.sock", ports=(port,), cores=())  # type: ignore[arg-type]


def drive(index: int) -> Drive:
    """A drive behind a shelf."""
    source = FabricsDrive(transport="tcp", address="198.51.100.1", service=4420, nqn=f"nqn.2014-08.test:d{index}")
    return Drive(name=f"d{index}", source=source)


def small_array() -> Array:
    """Two nodes, six drives of 16 MiB, two pools, three volumes, two hosts."""
    names = tuple(f"d{i}" for i in range(6))
    return Array(
        name="t",
        nodes=(node("a"), node("b")),
        drives=tuple(drive(i) for i in range(6)),
        pools=(
            Pool(name="fast", drives=names[:3]),
            Pool(name="safe", drives=names[3:], protection=Protection.MIRROR),
        ),
        subsystems=(Subsystem(name="default", nqn=subsystem_nqn("t", "default")),),
        volumes=(
            Volume(name="v1", size_bytes=6 * MIB, pool="fast", hosts=("h1",)),
            Volume(name="v2", size_bytes=3 * MIB, pool="safe", hosts=("h1", "h2")),
            Volume(name="v3", size_bytes=MIB, pool="fast", home="b", hosts=("h2",)),
        ),
        hosts=(Host(name="h1", nqn="nqn.2014-08.test:h1"), Host(name="h2", nqn="nqn.2014-08.test:h2")),
    )


def ha_array() -> Array:
    """The small array whose agents say which node serves what."""
    nodes = tuple(replace(n, agent=f"/run/{n.name}.agent.sock") for n in small_array().nodes)
    intent = HaIntent(quorum_drives=3, secret_file="/etc/ws7000/ha.secret")
    return replace(small_array(), nodes=nodes, ha=HaMode.ACTIVE_ACTIVE, ha_intent=intent)


class Model:
    """Both nodes' images, the drives' labels, and the saved state."""

    def __init__(self, array: Array, size_bytes: int = 16 * MIB) -> None:
        self.state = State(array=replace(array, volumes=(), subsystems=()), uuid=ARRAY_UUID)
        self.nodes = {n.name: NodeImage(node=n.name) for n in array.nodes}
        self.labels: dict[str, labels.LabelFacts] = {}
        self.size_bytes = size_bytes
        self.zeroed: set[tuple[str, int]] = set()
        self.in_flight: set[tuple[str, str, int]] = set()
        """(node, NQN, group) that was served and has not been drained since."""

    @property
    def facts(self) -> dict[str, DriveFacts]:
        """What attached drives say of themselves."""
        names = {name for image in self.nodes.values() for name in image.drives}
        return {n: DriveFacts(size_bytes=self.size_bytes, block_bytes=512, serial=f"S{n}") for n in sorted(names)}

    def propose(self, array: Array) -> Proposal:
        """A plan from what is there now."""
        # As with a real engine, the label of a drive that is not attached anywhere is not known.
        seen_labels = {name: self.labels.get(name, labels.Blank()) for name in self.facts}
        return make_plan(array, self.state, self.nodes, self.facts, seen_labels)

    def save(self, state: State) -> None:
        """As the store does."""
        self.state = replace(state, generation=self.state.generation + 1)

    def settle(self, array: Array, *, rounds: int = 5) -> int:
        """Plan and run until nothing differs; returns how many steps were run."""
        count = 0
        for _ in range(rounds):
            proposal = self.propose(array)
            assert not proposal.problems, [str(p) for p in proposal.problems]
            if proposal.state != self.state:
                self.save(proposal.state)
            if not proposal.plan:
                return count
            for step in proposal.plan.steps:
                self.run(step)
                count += 1
        raise AssertionError(f"still differs: {proposal.plan.steps[0].sentence}")

    def restart(self, name: str) -> None:
        """An engine lost everything."""
        self.nodes[name] = NodeImage(node=name)
        self.in_flight = {item for item in self.in_flight if item[0] != name}

    def owners(self, nqn: str, group: int) -> list[str]:
        """Nodes on which some listener serves the group."""
        return [
            name
            for name, image in self.nodes.items()
            if nqn in image.subsystems
            and any(
                states.get(group) is not AnaState.INACCESSIBLE for states in image.subsystems[nqn].listeners.values()
            )
        ]

    def serve(self, nqn: str, group: int, node: str) -> None:
        """What the agents do: raise the group on all listeners of ``node``, and lower it on those of the other."""
        for name, image in self.nodes.items():
            state = AnaState.OPTIMIZED if name == node else AnaState.INACCESSIBLE
            sub = image.subsystems[nqn]
            listeners = {key: {**states, group: state} for key, states in sub.listeners.items()}
            subsystems = {**image.subsystems, nqn: replace(sub, listeners=listeners)}
            self.nodes[name] = replace(image, subsystems=subsystems)

    def run(self, step: s.Step) -> None:
        """The effect of one step."""
        image = self.nodes[step.node]
        match step:
            case s.SetDriveOptions():
                assert not image.drives, "options come before drives"
                self.nodes[step.node] = replace(image, drive_options=True)
            case s.CreateTransport():
                self.nodes[step.node] = replace(image, transports=image.transports | {step.transport})
            case s.AttachDrive():
                seen = replace(step.drive, size_bytes=self.size_bytes, serial=f"S{step.drive.name}")
                self.nodes[step.node] = replace(image, drives={**image.drives, seen.name: seen})
            case s.DetachDrive():
                assert step.drive not in image.splits
                self.nodes[step.node] = replace(image, drives=_without(image.drives, step.drive))
            case s.LabelDrive():
                assert step.drive in image.drives
                self.labels[step.drive] = labels.wanted_label(self.state, step.drive)
            case s.ChangeSplit():
                assert step.split.drive in image.drives
                splits = _without(image.splits, step.split.drive)
                if step.present:
                    splits[step.split.drive] = step.split
                self.nodes[step.node] = replace(image, splits=splits)
            case s.Scrub():
                self._scrub(step)
            case s.CreateRaid() | s.DeleteRaid() | s.SetQos():
                self._raid(step)
            case _:
                self._nvmf(step)

    def _scrub(self, step: s.Scrub) -> None:
        for image in self.nodes.values():
            for sub in image.subsystems.values():
                for ns in sub.namespaces.values():
                    members = _slices(image, ns.bdev)
                    hit = {slice_bdev(r.drive, r.index) for r in step.slices} & members
                    assert not hit, f"scrub of {step.volume} would hit exported {ns.bdev}"
        self.zeroed |= {(r.drive, r.index) for r in step.slices}
        self.save(self.state.scrubbed(step.volume, step.slices))

    def _raid(self, step: s.Step) -> None:
        image = self.nodes[step.node]
        raids = dict(image.raids)
        if isinstance(step, s.CreateRaid):
            in_use = {m for r in raids.values() for m in r.members}
            assert step.raid.name not in raids
            for member in step.raid.members:
                assert member in raids or member.rpartition("n1p")[0] in image.splits, f"no member {member}"
                assert member not in in_use, f"{member} is claimed"
            raids[step.raid.name] = step.raid
            self.nodes[step.node] = replace(image, raids=raids)
        elif isinstance(step, s.DeleteRaid):
            name = step.raid.name
            assert not any(name in r.members for r in raids.values()), f"{name} is in use"
            exported = {n.bdev for sub in image.subsystems.values() for n in sub.namespaces.values()}
            assert name not in exported
            self.nodes[step.node] = replace(image, raids=_without(raids, name), qos=_without(image.qos, name))
        elif isinstance(step, s.SetQos):
            qos = _without(image.qos, step.bdev)
            if not step.qos.unlimited:
                qos[step.bdev] = step.qos
            self.nodes[step.node] = replace(image, qos=qos)

    def _nvmf(self, step: s.Step) -> None:
        image = self.nodes[step.node]
        if isinstance(step, s.CreateSubsystem):
            bare = replace(step.subsystem, hosts={}, listeners={}, namespaces={})
            self.nodes[step.node] = replace(image, subsystems={**image.subsystems, bare.nqn: bare})
            return
        if isinstance(step, s.DeleteSubsystem):
            self.nodes[step.node] = replace(image, subsystems=_without(image.subsystems, step.nqn))
            return
        if isinstance(step, s.Drain):
            assert step.node not in self.owners(step.nqn, step.group), "drained while still serving"
            self.in_flight.discard((step.node, step.nqn, step.group))
            return
        sub = image.subsystems[step.nqn]  # type: ignore[attr-defined]
        changed = self._subsystem(sub, image, step)
        self.nodes[step.node] = replace(image, subsystems={**image.subsystems, sub.nqn: changed})

    def _subsystem(self, sub: SubsystemImage, image: NodeImage, step: s.Step) -> SubsystemImage:
        match step:
            case s.SetAna():
                if step.state is not AnaState.INACCESSIBLE:
                    owners = set(self.owners(step.nqn, step.group)) - {step.node}
                    assert not owners, f"group {step.group} is still served by {owners} (I1)"
                    late = {item for item in self.in_flight if item[1:] == (step.nqn, step.group)}
                    late = {item for item in late if item[0] != step.node}
                    assert not late, f"I/O of group {step.group} may still be in flight on {late} (I5)"
                    if any(ns.group == step.group for ns in sub.namespaces.values()):
                        self.in_flight.add((step.node, step.nqn, step.group))
                states = {**sub.listeners[step.listener], step.group: step.state}
                return replace(sub, listeners={**sub.listeners, step.listener: states})
            case s.ChangeListener(present=True):
                born = dict.fromkeys((1, 2), AnaState.INACCESSIBLE)
                return replace(sub, listeners={**sub.listeners, step.listener: born})
            case s.ChangeListener():
                return replace(sub, listeners=_without(sub.listeners, step.listener))
            case s.ChangeHost(present=True):
                return replace(sub, hosts={**sub.hosts, step.host_nqn: step.key})
            case s.ChangeHost():
                return replace(sub, hosts=_without(sub.hosts, step.host_nqn))
            case s.AddNamespace():
                name = step.namespace.bdev.removeprefix("vol-")
                assert step.namespace.bdev in image.raids
                assert not self.state.volumes[name].unscrubbed, "exported before it was scrubbed"
                hidden = replace(step.namespace, hosts=frozenset())
                if step.node in self.owners(step.nqn, hidden.group):
                    self.in_flight.add((step.node, step.nqn, hidden.group))
                return replace(sub, namespaces={**sub.namespaces, hidden.nsid: hidden})
            case s.RemoveNamespace():
                return replace(sub, namespaces=_without(sub.namespaces, step.nsid))
            case s.NamespaceAccess():
                ns = sub.namespaces[step.nsid]
                hosts = ns.hosts | {step.host_nqn} if step.visible else ns.hosts - {step.host_nqn}
                return replace(sub, namespaces={**sub.namespaces, step.nsid: replace(ns, hosts=hosts)})
        raise AssertionError(f"the model does not know {type(step).__name__}")


def _without(mapping: Mapping[Any, Any], key: object) -> dict[Any, Any]:
    return {k: v for k, v in mapping.items() if k != key}


def _slices(image: NodeImage, bdev: str) -> set[str]:
    if bdev not in image.raids:
        return {bdev}
    return {leaf for member in image.raids[bdev].members for leaf in _slices(image, member)}
