"""Striped, concatenated and mirrored sets, without superblock: the map of an array says what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, starmap
from operator import itemgetter

from controlplane.domain.units import KIB
from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.jsontype import Json
from dataplane.rpc.methods import units
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import RaidBase, RaidInfo, RaidProcess


def create(
    name: str,
    *,
    level: str,
    base_bdevs: Sequence[str],
    uuid: str | None = None,
    strip_size_bytes: int | None = None,
) -> Call[None]:
    """A set of ``level`` raid0, raid1 or concat over at most 255 bases.  raid0 and concat need
    ``strip_size_bytes`` (whole KiB, a power of two); raid1 takes none."""
    return Call(
        "bdev_raid_create",
        {
            "name": name,
            "raid_level": level,
            "base_bdevs": list(base_bdevs),
            "strip_size_kb": units.kib("strip_size_bytes", strip_size_bytes),
            "uuid": uuid,
            "superblock": False,
        },
        parse=reply.done,
    )


def delete(name: str) -> Call[None]:
    """Take the set away; the data on its bases stay."""
    return Call("bdev_raid_delete", {"name": name}, parse=reply.done)


def get_bdevs(category: str = "all") -> Call[tuple[RaidInfo, ...]]:
    """Every set that is ``online``, ``configuring``, ``offline``, or ``all``."""
    return Call(
        "bdev_raid_get_bdevs",
        {"category": category},
        parse=lambda raw: reply.objects(raw, "bdev_raid_get_bdevs", _raid, _usual),
    )


def add_base_bdev(raid_bdev: str, base_bdev: str) -> Call[None]:
    """Put ``base_bdev`` into an empty place of the set and rebuild it from the others; answered when the
    rebuild has begun."""
    return Call("bdev_raid_add_base_bdev", {"raid_bdev": raid_bdev, "base_bdev": base_bdev}, parse=reply.done)


def remove_base_bdev(base_bdev: str) -> Call[None]:
    """Take ``base_bdev`` out of the set that has it; a set without redundancy goes offline by that."""
    return Call("bdev_raid_remove_base_bdev", {"name": base_bdev}, parse=reply.done)


def set_options(
    *, process_window_size_bytes: int | None = None, process_max_bandwidth_bytes_per_s: int | None = None
) -> Call[None]:
    """How rebuilds that begin from now on copy: in windows of whole KiB, during which hosts wait for that range,
    and at most so many bytes (whole MiB) each second; 0 is no limit."""
    return Call(
        "bdev_raid_set_options",
        {
            "process_window_size_kb": units.kib("process_window_size_bytes", process_window_size_bytes),
            "process_max_bandwidth_mb_sec": units.mib(
                "process_max_bandwidth_bytes_per_s", process_max_bandwidth_bytes_per_s
            ),
        },
        parse=reply.done,
    )


_SET_FIELDS = itemgetter(
    "name",
    "uuid",
    "raid_level",
    "state",
    "strip_size_kb",
    "superblock",
    "num_base_bdevs",
    "num_base_bdevs_discovered",
    "num_base_bdevs_operational",
    "base_bdevs_list",
)
_SET_KINDS = [str, str, str, str, int, bool, int, int, int, list]
_BASE_FIELDS = itemgetter("name", "uuid", "is_configured", "data_offset", "data_size")
_BASE_KINDS = [str, str, bool, int, int]


def _usual(raw: Json) -> RaidInfo | None:
    """A set with every field, all its bases and no rebuild: the same as ``_raid`` reads, in a fifth of the time.  A
    node has thousands of bases, and what reads them is most of what an apply with nothing to do costs."""
    try:
        found = _SET_FIELDS(raw)
        bases = [_BASE_FIELDS(base) for base in found[9]]
    except (KeyError, TypeError):
        return None
    if list(map(type, found)) != _SET_KINDS or raw.get("process") is not None:
        return None
    if list(map(type, chain.from_iterable(bases))) != _BASE_KINDS * len(bases):
        return None
    name, uuid, level, state, strip_kib, superblock, num_bases, discovered, operational, _ = found
    return RaidInfo(
        name=name,
        uuid=uuid,
        level=level,
        state=state,
        strip_size_bytes=strip_kib * KIB,
        superblock=superblock,
        bases=tuple(starmap(RaidBase, bases)),
        num_bases=num_bases,
        discovered=discovered,
        operational=operational,
    )


def _raid(entry: Fields) -> RaidInfo:
    process = entry.inner("process")
    return RaidInfo(
        name=entry.text("name"),
        uuid=entry.text("uuid"),
        level=entry.text("raid_level"),
        state=entry.text("state"),
        strip_size_bytes=entry.number("strip_size_kb") * KIB,
        superblock=entry.flag("superblock"),
        bases=entry.each("base_bdevs_list", _base),
        num_bases=entry.number("num_base_bdevs"),
        discovered=entry.number("num_base_bdevs_discovered"),
        operational=entry.number("num_base_bdevs_operational"),
        process=_process(process) if process.raw else None,
    )


def _base(entry: Fields) -> RaidBase:
    return RaidBase(
        name=entry.text("name", ""),
        uuid=entry.text("uuid", ""),
        configured=entry.flag("is_configured"),
        data_offset_blocks=entry.number("data_offset", 0),
        data_size_blocks=entry.number("data_size", 0),
    )


def _process(entry: Fields) -> RaidProcess:
    progress = entry.inner("progress")
    return RaidProcess(
        kind=entry.text("type"),
        target=entry.text("target", ""),
        blocks_done=progress.number("blocks", 0),
        percent_done=progress.number("percent", 0),
    )
