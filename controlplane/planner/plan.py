"""The whole plan: allocate, render, compare, order, and say what speaks against it.

``make_plan`` is the one entry: it never raises for what the admin may want or what the array looks like; it
returns a plan together with the refusals, so that ``plan`` can show both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from controlplane.domain.desired import Array, FabricsDrive, PcieDrive
from controlplane.domain.errors import Refused, Unreachable, Ws7000Error
from controlplane.domain.image import VOLUME_PREFIX, AnaState, NodeImage, Seen, Unknown, volume_bdev
from controlplane.domain.state import State
from controlplane.domain.units import show_size
from controlplane.planner import steps as s
from controlplane.planner.allocate import Allocation, DriveFacts, allocate
from controlplane.planner.diff import diff_node
from controlplane.planner.diff_bdevs import Placed
from controlplane.planner.image import key_name, wanted_images
from controlplane.planner.labels import LabelFacts, label_steps
from controlplane.planner.order import into_stages
from controlplane.planner.steps import Phase, Plan, Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What the operator has agreed to lose: everything (``--yes``), or what is named."""

    everything: bool = False
    names: frozenset[str] = frozenset()

    def covers(self, name: str) -> bool:
        """True when the loss of ``name`` was agreed to."""
        return self.everything or name in self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A plan, the state it leads to, and the refusals: with any of these it must not be applied."""

    plan: Plan
    state: State
    problems: tuple[Ws7000Error, ...] = ()

    @property
    def refused(self) -> bool:
        """True when something speaks against applying it."""
        return bool(self.problems)


def make_plan(
    array: Array,
    state: State,
    seen: Mapping[str, Seen],
    facts: Mapping[str, DriveFacts],
    labels: Mapping[str, LabelFacts],
    *,
    whole: bool = False,
    apart: frozenset[str] = frozenset(),
) -> Proposal:
    """The way from what is ``seen`` to ``array``, given what was decided before.

    A plan that attaches a drive goes no further than that: the next round sees whose drive it is, through each
    node.  ``whole`` shows what is expected to come after that, for people only.  Nodes ``apart`` are left out where
    they cannot be observed: they are fenced, so that nothing which is done to the drives meets I/O of theirs."""
    blind = [
        Unreachable(
            "PLAN-010",
            f"node {name} could not be observed",
            why=view.reason,
            remedy="start its engine, or check the rpc address in array.yaml; a plan for one node alone could "
            "raise a group that the other still serves",
        )
        for name, view in sorted(seen.items())
        if isinstance(view, Unknown) and name not in apart
    ]
    allocation = allocate(array, state, facts)
    problems = (*blind, *allocation.problems)
    if blind or allocation.problems:
        return Proposal(plan=Plan(notes=allocation.notes), state=allocation.state, problems=problems)
    images = {name: view for name, view in seen.items() if isinstance(view, NodeImage)}
    placed, mismatches = _steps(state, allocation, images, labels)
    if not whole and any(phase is Phase.DRIVE_ATTACH for phase, _depth, _step in placed):
        # ANA waits too: what is lowered now could be refused the raising once the drives have been looked at.
        placed = [item for item in placed if Phase.DRAIN < item[0] <= Phase.DRIVE_ATTACH]
    plan = Plan(
        stages=into_stages(placed),
        notes=allocation.notes,
        pending=allocation.pending,
        unmanaged={name: image.unmanaged for name, image in images.items() if image.unmanaged},
    )
    return Proposal(plan=plan, state=allocation.state, problems=(*problems, *mismatches))


def _steps(
    before: State,
    allocation: Allocation,
    images: Mapping[str, NodeImage],
    labels: Mapping[str, LabelFacts],
) -> tuple[list[Placed], list[Ws7000Error]]:
    after = allocation.state
    placed: list[Placed] = []
    final = _as_scrubbed(after)
    wanted = wanted_images(final)
    for name, image in wanted.items():
        if name in images:
            placed += _with_secrets(final, diff_node(image, images[name]))
    placed += _drains(placed, images)
    placed = _mark_loss(before, after, placed)
    placed += _scrubs(after, images)
    labelled, problems = label_steps(before, after, labels)
    return placed + labelled, [
        *problems,
        *_left_alone(before, after),
        *_self_willed(images),
        *_beyond_engine(after, images),
        *_split_mirrors(wanted, images, agents=after.array.active_active),
        *_stale_state(after, images),
        *_built_blind(placed, images, labels),
        *_wrong_serials(after, images),
    ]


def _left_alone(before: State, after: State) -> list[Ws7000Error]:
    """An array whose agents own its ANA states, and that is to have none: the plan would raise what they lower, and
    the drives' reservations, which nobody would hold any more, keep a restarted engine out."""
    if not before.array.active_active or after.array.active_active or not before.drives:
        return []
    return [
        Refused(
            "PLAN-026",
            "high availability cannot be taken off an array that has drives",
            why="its drives are reserved for members that its agents admit; an engine alone could not use them",
            remedy="keep ha in array.yaml; to change the nodes by hand for a while: ws7000 ha pause",
        )
    ]


def _self_willed(images: Mapping[str, NodeImage]) -> list[Ws7000Error]:
    """Engines that examine bdevs by themselves."""
    return [
        Refused(
            "PLAN-017",
            f"the engine of node {name} examines bdevs by itself",
            why="it would read every slice of every drive, and assemble what the other node has in use",
            remedy="start it with a configuration that sets bdev_auto_examine to false (examples/engine-start.json)",
        )
        for name, image in sorted(images.items())
        if image.auto_examine
    ]


def _stale_state(state: State, images: Mapping[str, NodeImage]) -> list[Ws7000Error]:
    """A volume that a node exports although the state says nobody may see it yet: the state is an old one."""
    exported = {
        namespace.bdev
        for image in images.values()
        for subsystem in image.subsystems.values()
        for namespace in subsystem.namespaces.values()
    }
    return [
        Refused(
            "PLAN-023",
            f"volume {name} is being served, but this state says that it was never exported",
            why="the state is older than the array, as after restoring a backup; going on would write zeroes over data",
            remedy="restore the newest state; without one, stop and keep the engines as they are",
        )
        for name, volume in sorted(state.volumes.items())
        if volume.unscrubbed and volume_bdev(name) in exported
    ]


def _built_blind(
    placed: list[Placed], images: Mapping[str, NodeImage], labels: Mapping[str, LabelFacts]
) -> list[Ws7000Error]:
    """Building on an attached drive that could not be read: nobody knows whose it is.  ANA moves are not held up."""
    silent = {name for image in images.values() for name in image.drives if name not in labels}
    used: set[str] = set()
    for _phase, _depth, step in placed:
        if isinstance(step, s.CreateRaid):
            used |= {member.rpartition("n1p")[0] for member in step.raid.members}
        elif isinstance(step, s.ChangeSplit) and step.present:
            used.add(step.split.drive)
        elif isinstance(step, s.LabelDrive):
            used.add(step.drive)
        elif isinstance(step, s.Scrub):
            used |= {ref.drive for ref in step.slices}
    return [
        Refused(
            "PLAN-024",
            f"drive {name} is attached but cannot be read",
            why="whose drive it is stands in its first block; nothing is built on a drive that does not say",
            remedy="see to the drive or its path; ws7000 drive list",
        )
        for name in sorted(silent & used)
    ]


_COPY_OUT: Final = (
    "do not restart this node's engine nor switch over; copy the volume's data to a new volume through this node, then "
    "remove it (rebuild is not offered yet)"
)
_REPAIR: Final = (
    "bring the drive back or replace it, then ws7000 ha drive-repaired DRIVE; the owner rebuilds the leg, and "
    "ws7000 ha status says when the legs are equal"
)


def _split_mirrors(
    wanted: Mapping[str, NodeImage], images: Mapping[str, NodeImage], *, agents: bool
) -> list[Ws7000Error]:
    """Mirrors of a wanted volume that no longer have both legs.

    Taking such a set down and building it again would bring the old leg back without a rebuild, and reads would
    show what it held when it dropped out; so nothing is planned until somebody has decided which leg is right."""
    problems: list[Ws7000Error] = []
    for node, image in images.items():
        split = [
            name
            for name, raid in image.raids.items()
            if raid.level == "raid1" and not (raid.members and all(raid.members)) and name in wanted[node].raids
        ]
        problems += [
            Refused(
                "PLAN-019",
                f"mirror {name} on node {node} has lost a leg",
                why="the leg that dropped out lacks what was written since; without a rebuild it would be "
                "served as good data",
                remedy=_REPAIR if agents else _COPY_OUT,
            )
            for name in sorted(split)
        ]
    return problems


def _beyond_engine(state: State, images: Mapping[str, NodeImage]) -> list[Ws7000Error]:
    """What is wanted of an embedded engine that only SPDK does; said before anything is changed."""
    small = [image.node for image in images.values() if image.embedded]
    wishes = [
        f"node {node.name} has an RDMA port"
        for node in state.array.nodes
        if any(port.transport == "rdma" for port in node.ports)
    ]
    wishes += [
        f"drive {drive.name} is {'a PCIe drive' if isinstance(drive.source, PcieDrive) else 'reached over RDMA'}"
        for drive in state.array.drives
        if isinstance(drive.source, PcieDrive)
        or (isinstance(drive.source, FabricsDrive) and drive.source.transport == "rdma")
    ]
    return [
        Refused(
            "PLAN-018",
            f"{wish}, and node {small[0]} runs the embedded engine",
            why="the embedded engine serves NVMe over TCP only, from drives behind a TCP shelf",
            remedy="run SPDK on the nodes (docs/guides/spdk.md), or leave this out of array.yaml",
        )
        for wish in wishes
        if small
    ]


def _drains(placed: list[Placed], images: Mapping[str, NodeImage]) -> list[Placed]:
    """Before a group is raised on one node, wait on every other until its I/O of that group has ended.

    It hangs on the raising, not on the lowering: the plan that lowered the group may have been cut before it
    came to the drain, and what is seen does not tell."""
    raised = {
        (step.nqn, step.group, step.node)
        for _phase, _depth, step in placed
        if isinstance(step, s.SetAna) and step.state is not AnaState.INACCESSIBLE
    }
    found: list[Placed] = []
    for nqn, group, owner in sorted(raised):
        for name, image in sorted(images.items()):
            subsystem = image.subsystems.get(nqn)
            if name == owner or subsystem is None:
                continue
            nsids = tuple((n.nsid, n.group) for n in subsystem.namespaces.values() if n.group == group)
            if nsids:
                drain = s.Drain(
                    node=name,
                    subject=nqn,
                    nqn=nqn,
                    group=group,
                    namespaces=nsids,
                    sentence=f"wait until no I/O of ANA group {group} is in flight on node {name}",
                    precondition="the group is inaccessible there",
                    effect="what was acknowledged is on the drives",
                    inverse="none needed",
                )
                found.append((Phase.DRAIN, 0, drain))
    return found


def _as_scrubbed(state: State) -> State:
    """The state once every planned scrub has been done; scrubs come before exports in the plan."""
    volumes = {
        name: replace(volume, unscrubbed=frozenset()) if volume.unscrubbed else volume
        for name, volume in state.volumes.items()
    }
    return replace(state, volumes=volumes)


def _with_secrets(state: State, placed: list[Placed]) -> list[Placed]:
    """Fill in the secret file of each key; the images compare keys by name only."""
    paths = {key_name(host.name): host.secret_file or "" for host in state.array.hosts}
    return [
        (phase, depth, replace(step, path=paths.get(step.key, "")) if isinstance(step, s.ChangeKey) else step)
        for phase, depth, step in placed
    ]


def _mark_loss(before: State, after: State, placed: list[Placed]) -> list[Placed]:
    """Taking down the set of a volume that is no longer wanted loses its data: say so, with its name."""
    known = {volume.uuid: name for name, volume in before.volumes.items()}
    marked: list[Placed] = []
    for phase, depth, step in placed:
        if not isinstance(step, s.DeleteRaid) or "." in step.subject or not _is_lost(step.raid.uuid, before, after):
            marked.append((phase, depth, step))
            continue
        name = known.get(step.raid.uuid, step.subject.removeprefix(VOLUME_PREFIX))
        size = show_size(before.volumes[name].size_bytes) if step.raid.uuid in known else "unknown to this state"
        fatal = replace(
            step,
            risk=Risk.DATA_LOSS,
            destroys=name,
            sentence=f"delete volume {name} ({size}) and free its slices",
            inverse="none: its data is gone",
        )
        marked.append((phase, depth, fatal))
    return marked


def _is_lost(uuid: str, before: State, after: State) -> bool:
    """Whether the volume of that UUID ends here: known or not, unless its end was agreed to before a crash."""
    return uuid not in before.doomed and all(volume.uuid != uuid for volume in after.volumes.values())


def lost_volumes(before: State, after: State) -> tuple[str, ...]:
    """Names of the volumes whose data goes with the step from one state to the other."""
    return tuple(sorted(set(before.volumes) - set(after.volumes)))


def refuse_loss(before: State, proposal: Proposal, consent: Consent) -> list[Ws7000Error]:
    """A refusal for everything that would be destroyed without consent."""
    names = {step.destroys for step in proposal.plan.steps if step.destroys}
    names |= set(lost_volumes(before, proposal.state))
    return [
        Refused(
            "PLAN-011",
            f"this would destroy the data of {name}",
            why="it is in use by this array or holds something else, and nobody agreed to lose it",
            remedy=f"keep it in array.yaml, or agree with --destroy {name} (or --yes for everything)",
            details={"name": name},
        )
        for name in sorted(names)
        if not consent.covers(name)
    ]


def _scrubs(state: State, images: Mapping[str, NodeImage]) -> list[Placed]:
    """Zeroes go through the owner; through any other node where that one is left out."""
    found: list[Placed] = []
    for volume in state.volumes.values():
        if not volume.unscrubbed:
            continue
        count = len(volume.unscrubbed)
        owner = state.owner(volume.subsystem, volume.group)
        found.append(
            (
                Phase.SCRUB,
                0,
                s.Scrub(
                    node=owner if owner in images else min(images, default=owner),
                    subject=volume.name,
                    volume=volume.name,
                    slices=volume.unscrubbed,
                    slice_bytes=volume.slice_bytes,
                    sentence=f"write zeroes over {count} slices of new volume {volume.name} "
                    f"({show_size(count * volume.slice_bytes)})",
                    precondition="the volume has never been exported",
                    effect="it reads zeroes",
                    inverse="none needed: nobody has written there yet",
                ),
            )
        )
    return found


def _wrong_serials(state: State, images: Mapping[str, NodeImage]) -> list[Ws7000Error]:
    """A drive whose serial number is not the adopted one: somebody swapped drives or cables."""
    problems: list[Ws7000Error] = []
    for name, record in sorted(state.drives.items()):
        for image in images.values():
            drive = image.drives.get(name)
            expected = state.array.drive(name).serial or record.serial
            if drive is not None and drive.serial and expected and drive.serial != expected:
                problems.append(
                    Refused(
                        "PLAN-012",
                        f"drive {name} on node {image.node} has serial {drive.serial}, not {expected}",
                        why="another drive stands in its place; building volumes on it would mix their data",
                        remedy="put the right drive back, or give this one a name of its own",
                    )
                )
    return problems
