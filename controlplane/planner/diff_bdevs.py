"""What must be done below the namespaces: drives, slices, RAID sets, limits, for one node.

An object that cannot be changed in place is taken down and built again, with every set that stands on it.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain.desired import Qos
from controlplane.domain.image import NodeImage, RaidImage, drive_bdev
from controlplane.domain.units import show_rate, show_size
from controlplane.planner import steps as s
from controlplane.planner.steps import Phase

Placed = tuple[Phase, int, s.Step]


def drives(want: NodeImage, seen: NodeImage) -> Iterator[Placed]:
    """Options, attachments, and how each drive is cut."""
    if want.drive_options and not seen.drive_options:
        yield (
            Phase.DRIVE_OPTIONS,
            0,
            s.SetDriveOptions(
                node=want.node,
                subject="drives",
                sentence="pass flush on to the drives and never answer a host for a lost drive",
                precondition="no drive is attached",
                effect="a flush is durable, a lost or refused leg stalls instead of failing",
                inverse="none needed",
            ),
        )
    moved = _moved(want, seen)
    yield from _attachments(want, seen, moved)
    yield from _splits(want, seen, moved)


def _moved(want: NodeImage, seen: NodeImage) -> set[str]:
    """Drives that are attached but no longer wanted, or wanted from elsewhere."""
    return {
        name
        for name, drive in seen.drives.items()
        if name not in want.drives or want.drives[name].source != drive.source
    }


def _attachments(want: NodeImage, seen: NodeImage, moved: set[str]) -> Iterator[Placed]:
    node = want.node
    for name in sorted(moved):
        yield (
            Phase.DRIVE_DETACH,
            0,
            s.DetachDrive(
                node=node,
                subject=name,
                drive=name,
                sentence=f"detach drive {name}",
                precondition="no volume stands on it",
                effect="the node no longer reaches the drive",
                inverse="attach it again",
            ),
        )
    for name, drive in sorted(want.drives.items()):
        if name not in seen.drives or name in moved:
            yield (
                Phase.DRIVE_ATTACH,
                0,
                s.AttachDrive(
                    node=node,
                    subject=name,
                    drive=drive,
                    sentence=f"attach drive {name} ({drive.source})",
                    effect=f"bdev {drive_bdev(name)} exists",
                    inverse="detach it",
                ),
            )


def _splits(want: NodeImage, seen: NodeImage, moved: set[str]) -> Iterator[Placed]:
    node = want.node
    for name in sorted(set(want.splits) | set(seen.splits)):
        new, old = want.splits.get(name), seen.splits.get(name)
        if old is not None and (new != old or name in moved):
            yield (
                Phase.SPLIT_DELETE,
                0,
                s.ChangeSplit(
                    node=node,
                    subject=name,
                    split=old,
                    present=False,
                    sentence=f"give up the slices of drive {name}",
                    precondition="no set uses a slice",
                    effect="the drive is whole",
                    inverse="cut it again",
                ),
            )
        if new is not None and (new != old or name in moved):
            yield (
                Phase.SPLIT_CREATE,
                0,
                s.ChangeSplit(
                    node=node,
                    subject=name,
                    split=new,
                    present=True,
                    sentence=f"cut drive {name} into {new.count} slices of {show_size(new.slice_bytes)}",
                    precondition="the drive is attached",
                    effect=f"{new.count} slices",
                    inverse="give them up",
                ),
            )


def replaced_raids(want: NodeImage, seen: NodeImage) -> set[str]:
    """Names of seen sets that are gone or different, and of every set that stands on one of them."""
    stale = _moved(want, seen) | {name for name, split in seen.splits.items() if want.splits.get(name) != split}
    out = {name for name, raid in seen.raids.items() if want.raids.get(name) != raid}
    if stale:
        out |= {
            raid.name
            for raid in seen.raids.values()
            if any(member.rpartition("n1p")[0] in stale for member in raid.members)
        }
    while out:
        above = {r.name for r in seen.raids.values() if r.name not in out and out.intersection(r.members)}
        if not above:
            break
        out |= above
    return out


def raids(want: NodeImage, seen: NodeImage, replaced: set[str]) -> Iterator[Placed]:
    """Sets to take down and to build."""
    for raid in seen.raids.values():
        if raid.name in replaced:
            yield (
                Phase.RAID_DELETE,
                -raid.depth,
                s.DeleteRaid(
                    node=want.node,
                    subject=raid.name,
                    raid=raid,
                    sentence=f"take down {_raid_text(raid)}",
                    precondition="no namespace exports it",
                    effect="its slices are free",
                    inverse="build it again from the same slices",
                ),
            )
    for raid in want.raids.values():
        if raid.name not in seen.raids or raid.name in replaced:
            yield (
                Phase.RAID_CREATE,
                raid.depth,
                s.CreateRaid(
                    node=want.node,
                    subject=raid.name,
                    raid=raid,
                    sentence=f"build {_raid_text(raid)}",
                    precondition="its members exist",
                    effect="the set is online",
                    inverse="take it down",
                ),
            )


def _raid_text(raid: RaidImage) -> str:
    kind = {"raid1": "mirror", "raid0": "stripe set", "concat": "chain"}.get(raid.level, raid.level)
    many = f"{len(raid.members)} {'member' if len(raid.members) == 1 else 'members'}"
    chunk = f", chunks of {show_size(raid.strip_bytes)}" if raid.strip_bytes else ""
    return f"{kind} {raid.name} ({many}{chunk})"


def qos(want: NodeImage, seen: NodeImage, replaced: set[str]) -> Iterator[Placed]:
    """Limits to set, change or lift; a set that is built anew has none."""
    for bdev in sorted(set(want.qos) | set(seen.qos)):
        new = want.qos.get(bdev, Qos())
        old = seen.qos.get(bdev, Qos())
        gone = bdev not in want.raids
        if gone or (new == old and bdev not in replaced):
            continue
        if new.unlimited and bdev in replaced:
            continue
        yield (
            Phase.QOS,
            0,
            s.SetQos(
                node=want.node,
                subject=bdev,
                bdev=bdev,
                qos=new,
                sentence=f"limit {bdev} to {qos_text(new)}",
                effect="I/O above the limit waits",
                inverse=f"limit it to {qos_text(old)}",
            ),
        )


def qos_text(qos: Qos) -> str:
    """The limits for people."""
    parts = [f"{qos.rw_iops} IOPS"] if qos.rw_iops else []
    for rate, what in (
        (qos.rw_bytes_per_s, "in all"),
        (qos.read_bytes_per_s, "reading"),
        (qos.write_bytes_per_s, "writing"),
    ):
        if rate:
            parts.append(f"{show_rate(rate)} {what}")
    return ", ".join(parts) or "nothing (no limit)"
