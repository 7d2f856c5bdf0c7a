"""What can be done: one value per kind of step.

A step names its node, its subject, its risk, the sentence a person reads, what must hold before it
(``precondition``), what holds after it (``effect``) and how it is taken back (``inverse``).  The ``phase`` fixes its
place in the plan (see ``order``).  Steps say what, never how: ``reconcile.calls`` turns them into engine calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from controlplane.domain.desired import Qos
from controlplane.domain.image import (
    AnaState,
    DriveImage,
    ListenerKey,
    NamespaceImage,
    RaidImage,
    SplitImage,
    SubsystemImage,
)
from controlplane.domain.state import SliceRef


class Risk(StrEnum):
    """The worst that a step can do to somebody who is using the array."""

    NONE = "none"
    PATH_LOSS = "path loss"
    DATA_LOSS = "data loss"


class Phase(IntEnum):
    """The order of a plan.  What goes away goes first and from the top down, so that names and slices are free
    again; what comes is built from the bottom up; ANA is lowered first and raised last, so that no moment has
    two owners (I1)."""

    ANA_LOWER = 10
    DRAIN = 11
    HIDE = 20
    NAMESPACE_REMOVE = 21
    LISTENER_REMOVE = 22
    HOST_REMOVE = 23
    SUBSYSTEM_DELETE = 24
    KEY_REMOVE = 25
    RAID_DELETE = 30  # outer sets before inner ones
    SPLIT_DELETE = 40
    DRIVE_DETACH = 41
    DRIVE_OPTIONS = 45
    TRANSPORT = 50
    DRIVE_ATTACH = 51
    DRIVE_LABEL = 52
    SPLIT_CREATE = 53
    RAID_CREATE = 60  # inner sets before outer ones
    SCRUB = 70
    KEY_ADD = 79
    SUBSYSTEM_CREATE = 80
    HOST_ADD = 81
    NAMESPACE_ADD = 82
    QOS = 83  # SPDK v26.05 refuses to change the limits of a device that nobody has open
    SHOW = 84
    LISTENER_ADD = 85
    ANA_RAISE = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Base of all steps."""

    node: str
    subject: str
    sentence: str
    risk: Risk = Risk.NONE
    precondition: str = ""
    effect: str = ""
    inverse: str = ""
    destroys: str = ""
    """The name of what loses its data, for consent by name; empty when nothing does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAna(Step):
    """Set the ANA state of one group on one listener."""

    nqn: str
    listener: ListenerKey
    group: int
    state: AnaState


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Step):
    """Wait until no I/O of these namespaces is in flight on the node (a barrier after lowering ANA)."""

    nqn: str
    group: int
    namespaces: tuple[tuple[int, int], ...]
    """(nsid, group) pairs; SPDK pauses a namespace when its group is set, even to the same group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceAccess(Step):
    """Show a namespace to a host, or hide it."""

    nqn: str
    nsid: int
    host_nqn: str
    visible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AddNamespace(Step):
    nqn: str
    volume: str
    namespace: NamespaceImage


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNamespace(Step):
    nqn: str
    nsid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeListener(Step):
    """Add a listener (born inaccessible) or remove it."""

    nqn: str
    listener: ListenerKey
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeHost(Step):
    """Allow a host on a subsystem, with its key, or disallow it."""

    nqn: str
    host_nqn: str
    key: str
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeKey(Step):
    """Put a host's secret file into the engine's keyring, or take it out; the secret itself never passes."""

    key: str
    path: str
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSubsystem(Step):
    subsystem: SubsystemImage


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSubsystem(Step):
    nqn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRaid(Step):
    raid: RaidImage


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRaid(Step):
    raid: RaidImage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSplit(Step):
    split: SplitImage
    present: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDriveOptions(Step):
    """Pass flush to the drives and retry for ever; has to come before the first drive is attached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDrive(Step):
    drive: DriveImage


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachDrive(Step):
    drive: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelDrive(Step):
    """Write the array's label into slice 0: from here on the drive is ours.  ``clear`` zeroes what slice 0 may hold of
    an earlier array's journal first; never on a drive that is this array's already."""

    drive: str
    slice_bytes: int
    slice_count: int
    clear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTransport(Step):
    transport: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQos(Step):
    bdev: str
    qos: Qos


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub(Step):
    """Write zeroes over slices before their volume is first exported."""

    volume: str
    slices: frozenset[SliceRef]
    slice_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps that do not depend on each other: they may run at once, on one node in one pipeline."""

    phase: Phase
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered stages; empty when nothing differs."""

    stages: tuple[Stage, ...] = ()
    notes: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    unmanaged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return tuple(step for stage in self.stages for step in stage.steps)

    @property
    def worst(self) -> Risk:
        """The highest risk of any step."""
        order = list(Risk)
        return max((step.risk for step in self.steps), key=order.index, default=Risk.NONE)

    def __bool__(self) -> bool:
        return bool(self.stages)
