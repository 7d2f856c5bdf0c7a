"""The life of raid sets: made of legs that come and go.

Why: a set may be described before its legs exist, must assemble itself when they do, must say plainly when it
lost one, and fills the leg that is given to it instead.  This module must never invent data: it has no superblock.

Invariants: a set is online exactly while it is registered as a bdev; every configured leg is claimed by its
set, and no other; a set that went offline keeps its other legs until they leave or it is deleted; a set rebuilds
one leg at a time, and without an equal leg it does not go on.
Source: SPDK v26.05 module/bdev/raid/bdev_raid.c.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass, field
from typing import Final

from dataplane.embedded.bdev.base import NULL_UUID, Bdev, BdevError, BdevRegistry
from dataplane.embedded.bdev.raid_io import MappedRaid, RaidBdev
from dataplane.embedded.bdev.raid_map import Concatenated, Striped
from dataplane.embedded.bdev.raid_mirror import MirroredRaid
from dataplane.embedded.bdev.raid_rebuild import Rebuild, RebuildPlan, bandwidth, window_blocks
from dataplane.embedded.bdev.raid_superblock import READ_BYTES, is_superblock
from dataplane.nvme.status import NvmeError

CLAIM: Final = "raid"
LEVELS: Final = {"raid0": "raid0", "0": "raid0", "raid1": "raid1", "1": "raid1", "concat": "concat"}
"""Names of levels as clients write them; raid5f is known to SPDK's decoder, and refused."""
MAX_LEGS: Final = 255
_MIN_LEGS: Final = {"raid0": 1, "concat": 1, "raid1": 2}
_MAX_NAME: Final = 63


def fault(number: int) -> BdevError:
    """The error of that number with the C library's words."""
    return BdevError(number, os.strerror(number))


class LegRefused(BdevError):
    """What a new leg holds speaks against it; SPDK finds that later than the rest, and words it differently."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


@dataclass(slots=True)
class Leg:
    """A place for a base bdev; ``name`` is None once its bdev was removed, ``leaving`` runs while it is."""

    name: str | None
    uuid: str = NULL_UUID
    bdev: Bdev | None = None
    data_size: int = 0
    leaving: asyncio.Task[None] | None = None

    def to_json(self) -> dict[str, object]:
        """An entry of ``base_bdevs_list``."""
        return {
            "name": self.name,
            "uuid": self.uuid,
            "is_configured": self.bdev is not None,
            "data_offset": 0,
            "data_size": self.data_size,
        }


@dataclass(slots=True)
class RaidSet:
    """One raid set in the state ``configuring``, ``online`` or ``offline``."""

    name: str
    level: str
    strip_size_kb: int
    legs: list[Leg]
    uuid: str
    state: str = "configuring"
    operational: int = 0
    block_size: int = 0
    bdev: RaidBdev | None = None
    rebuild: Rebuild | None = None
    deleting: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def discovered(self) -> int:
        """Legs that are configured."""
        return sum(leg.bdev is not None for leg in self.legs)

    @property
    def min_operational(self) -> int:
        """Legs that the set cannot do without."""
        return 1 if self.level == "raid1" else len(self.legs)

    def is_target(self, leg: Leg) -> bool:
        """Whether this leg is being rebuilt."""
        return self.rebuild is not None and self.legs[self.rebuild.place] is leg

    def to_json(self) -> dict[str, object]:
        """The ``raid`` object of ``bdev_get_bdevs``."""
        process: dict[str, object] = {}
        if self.rebuild is not None:
            plan = self.rebuild.plan
            process["process"] = {
                "type": "rebuild",
                "target": self.rebuild.target.name,
                "progress": {"blocks": plan.mark, "percent": plan.percent},
            }
        return {
            "uuid": self.uuid,
            "strip_size_kb": self.strip_size_kb,
            "state": self.state,
            "raid_level": self.level,
            "superblock": False,
            "num_base_bdevs": len(self.legs),
            "num_base_bdevs_discovered": self.discovered,
            "num_base_bdevs_operational": self.operational,
            **process,
            "base_bdevs_list": [leg.to_json() for leg in self.legs],
        }

    def call(self) -> dict[str, object]:
        """The call that creates it again."""
        params: dict[str, object] = {"name": self.name, "uuid": self.uuid}
        if self.strip_size_kb:
            params["strip_size_kb"] = self.strip_size_kb
        params["raid_level"] = self.level
        params["base_bdevs"] = [
            leg.name if leg.name is not None else f"removed_base_bdev_{place}" for place, leg in enumerate(self.legs)
        ]
        return {"method": "bdev_raid_create", "params": params}


class Raids:
    """All raid sets of the process, by name; ``examine`` is registered with the bdev registry."""

    def __init__(self, bdevs: BdevRegistry) -> None:
        self._bdevs = bdevs
        self.sets: dict[str, RaidSet] = {}
        self._held: dict[str, tuple[RaidSet, Leg]] = {}  # by the name of the base bdev
        self.process_window_size_kb = 1024
        self.process_max_bandwidth_mb_sec = 0

    def find(self, name: str) -> RaidSet | None:
        """The set of that name."""
        return self.sets.get(name)

    async def create(self, name: str, level: str, strip_size_kb: int, base_names: list[str], uuid: str) -> None:
        """Describe a set, and bring it online when its legs are there.  Raises ``BdevError``."""
        self._check(name, level, strip_size_kb, base_names)
        raid = RaidSet(name, level, strip_size_kb, [Leg(base) for base in base_names], uuid)
        raid.operational = len(raid.legs)
        self.sets[name] = raid
        try:
            for leg in raid.legs:
                bdev = self._bdevs.find(leg.name or "")
                if bdev is not None:
                    self._configure(raid, leg, bdev)
        except BdevError:
            await self.delete(raid)
            raise

    def _check(self, name: str, level: str, strip_size_kb: int, base_names: list[str]) -> None:
        if not name or len(name.encode()) > _MAX_NAME:
            raise fault(errno.EINVAL)
        if name in self.sets:
            raise fault(errno.EEXIST)
        power_of_2 = strip_size_kb > 0 and strip_size_kb & (strip_size_kb - 1) == 0
        if (strip_size_kb != 0) if level == "raid1" else not power_of_2:
            raise fault(errno.EINVAL)
        if level not in _MIN_LEGS or len(base_names) < _MIN_LEGS[level]:
            raise fault(errno.EINVAL)

    def examine(self, bdev: Bdev) -> None:
        """A bdev appeared: take it into every configuring set that waits for it."""
        for raid in list(self.sets.values()):
            if raid.state != "configuring" or raid.deleting:
                continue
            for leg in raid.legs:
                if leg.bdev is None and (leg.name == bdev.name or leg.uuid == bdev.uuid):
                    try:
                        self._configure(raid, leg, bdev)
                    except BdevError:
                        # The set stays configuring and shows the leg as missing, as in SPDK.
                        break
                    break

    def _configure(self, raid: RaidSet, leg: Leg, bdev: Bdev) -> None:
        """Claim ``bdev`` for ``leg``; with the last leg the set goes online, if it is online the leg is rebuilt.

        Raises ``BdevError``.
        """
        if leg.uuid not in (NULL_UUID, bdev.uuid) or (leg.uuid != NULL_UUID and leg.name not in (None, bdev.name)):
            raise fault(errno.EINVAL)
        self._bdevs.claim(bdev, CLAIM)
        leg.name = leg.name or bdev.name
        leg.uuid = bdev.uuid
        leg.bdev = bdev
        self._held[bdev.name] = raid, leg
        bdev.remove_hooks.append(self._base_removed)
        wrong_size = bdev.num_blocks == 0 or leg.data_size > bdev.num_blocks
        if wrong_size or raid.block_size not in (0, bdev.block_size):
            self._free(raid, leg)
            raise fault(errno.EINVAL)
        raid.block_size = bdev.block_size
        leg.data_size = leg.data_size or bdev.num_blocks
        if isinstance(raid.bdev, MirroredRaid):
            self._start_rebuild(raid, raid.bdev, leg, bdev)
        elif raid.discovered == raid.operational:
            self._start(raid)

    def _start_rebuild(self, raid: RaidSet, mirror: MirroredRaid, leg: Leg, bdev: Bdev) -> None:
        raid.operational += 1
        plan = RebuildPlan(mirror.num_blocks, window_blocks(self.process_window_size_kb, mirror.block_size))
        tokens = bandwidth(self.process_max_bandwidth_mb_sec, asyncio.get_running_loop().time())

        async def mirror_removed(_mirror: Bdev) -> None:
            await rebuild.stop()

        def ended() -> None:
            mirror.remove_hooks.remove(mirror_removed)
            raid.rebuild = None
            if not rebuild.equal and not rebuild.stopping:
                self._begin_removal(raid, mirror, leg)

        rebuild = Rebuild(mirror, raid.legs.index(leg), bdev, plan, tokens, ended)
        raid.rebuild = rebuild
        mirror.remove_hooks.append(mirror_removed)
        rebuild.start()

    def _start(self, raid: RaidSet) -> None:
        """Register the set as a bdev."""
        legs = [leg.bdev for leg in raid.legs if leg.bdev is not None]
        uuid = None if raid.uuid == NULL_UUID else raid.uuid
        bdev: RaidBdev
        if raid.level == "raid1":
            size = min(leg.data_size for leg in raid.legs)
            sizes = [size] * len(legs)

            def failed(place: int, leg: Bdev) -> None:
                self._leg_failed(raid, place, leg)

            bdev = MirroredRaid(raid.name, uuid, legs, size, raid.to_json, raid.call, failed)
        else:
            strip_blocks = raid.strip_size_kb * 1024 // raid.block_size
            if strip_blocks == 0:
                raise fault(errno.EINVAL)
            kind = Striped if raid.level == "raid0" else Concatenated
            layout = kind.over([leg.data_size for leg in raid.legs], strip_blocks)
            sizes = [layout.leg_size(place) for place in range(len(legs))]
            bdev = MappedRaid(raid.name, uuid, legs, layout, raid.to_json, raid.call)
        for leg, size in zip(raid.legs, sizes, strict=True):
            leg.data_size = size
        raid.uuid = bdev.uuid
        raid.bdev = bdev
        raid.state = "online"
        try:
            self._bdevs.add(bdev)
        except BdevError:
            raid.state, raid.bdev = "configuring", None
            raise

    def base_resized(self, bdev: Bdev) -> None:
        """A leg grew: the set grows with its smallest leg, except concat (as in SPDK)."""
        raid, _ = self._held.get(bdev.name, (None, None))
        if raid is None or raid.bdev is None or raid.level == "concat":
            return
        sizes = [leg.bdev.num_blocks for leg in raid.legs if leg.bdev is not None]
        if isinstance(raid.bdev, MappedRaid):
            layout = Striped.over(sizes, raid.strip_size_kb * 1024 // raid.block_size)
            size, leg_size = layout.num_blocks, layout.leg_blocks
            raid.bdev.grow(layout)
        else:
            size = leg_size = min(sizes)
            if raid.rebuild is not None:
                raid.rebuild.plan.num_blocks = size
        for leg in raid.legs:
            leg.data_size = leg_size
        self._bdevs.resize(raid.bdev, size)

    def _free(self, raid: RaidSet, leg: Leg) -> None:
        """Give a leg back: SPDK forgets its name, and its UUID except while the set is configuring."""
        bdev, leg.bdev, leg.name = leg.bdev, None, None
        if raid.state != "configuring":
            leg.uuid = NULL_UUID
        if bdev is not None:
            self._held.pop(bdev.name, None)
            self._bdevs.release(bdev)
            if self._base_removed in bdev.remove_hooks:
                bdev.remove_hooks.remove(self._base_removed)

    async def _base_removed(self, bdev: Bdev) -> None:
        found = self._held.get(bdev.name)
        if found is not None:
            await self._remove_leg(*found)

    async def remove_base(self, name: str) -> None:
        """``bdev_raid_remove_base_bdev``; raises ``BdevError(ENODEV)`` when it is no leg of a set."""
        found = self._held.get(self._bdevs.get(name).name)
        if found is None or found[1].leaving is not None:
            raise fault(errno.ENODEV)
        await self._remove_leg(*found)

    async def _remove_leg(self, raid: RaidSet, leg: Leg) -> None:
        if raid.state != "online":
            self._free(raid, leg)
            if raid.state == "offline" and raid.discovered == 0:
                self._forget(raid)
            return
        if isinstance(raid.bdev, MirroredRaid):
            await asyncio.shield(self._begin_removal(raid, raid.bdev, leg))
            return
        raid.operational -= 1
        await self._go_offline(raid)
        self._free(raid, leg)
        if raid.discovered == 0:
            self._forget(raid)

    def _begin_removal(self, raid: RaidSet, mirror: MirroredRaid, leg: Leg) -> asyncio.Task[None]:
        """Take a leg out of a mirror; whoever asks for it meanwhile gets the same task."""
        if leg.leaving is None:
            leg.leaving = asyncio.get_running_loop().create_task(self._remove_mirror_leg(raid, mirror, leg))
            raid.tasks.add(leg.leaving)
            leg.leaving.add_done_callback(raid.tasks.discard)
        return leg.leaving

    async def _remove_mirror_leg(self, raid: RaidSet, mirror: MirroredRaid, leg: Leg) -> None:
        """Wait for I/O under way, then go on without the leg; the last one takes the set with it.

        A rebuild ends with its target, and with the last leg that it can copy from: then the target goes first.
        """
        held, rebuild = leg.bdev, raid.rebuild
        try:
            if rebuild is not None and (raid.is_target(leg) or not self._equal_ones_stay(raid)):
                target = raid.legs[rebuild.place]
                await rebuild.stop()
                if target is not leg and not rebuild.equal:
                    await asyncio.shield(self._begin_removal(raid, mirror, target))
            async with mirror.gate.closed():
                if leg.bdev is None or leg.bdev is not held:
                    return
                mirror.drop_leg(raid.legs.index(leg))
                self._free(raid, leg)
                raid.operational -= 1
        finally:
            leg.leaving = None
        if raid.operational < raid.min_operational and raid.bdev is mirror:
            await self._go_offline(raid)
            self._forget(raid)

    @staticmethod
    def _equal_ones_stay(raid: RaidSet) -> bool:
        return any(leg.bdev is not None and leg.leaving is None and not raid.is_target(leg) for leg in raid.legs)

    def _leg_failed(self, raid: RaidSet, place: int, bdev: Bdev) -> None:
        """An I/O failed on a leg of a mirror: send it nothing more, and give it back once I/O has ended."""
        leg = raid.legs[place]
        mirror = raid.bdev
        if leg.bdev is not bdev or not isinstance(mirror, MirroredRaid) or not mirror.uses(bdev):
            return
        mirror.drop_leg(place)
        self._begin_removal(raid, mirror, leg)

    async def _go_offline(self, raid: RaidSet) -> None:
        raid.state = "offline"
        if raid.bdev is not None:
            await self._bdevs.remove(raid.bdev)
            raid.bdev = None

    def _forget(self, raid: RaidSet) -> None:
        if self.sets.get(raid.name) is raid:
            del self.sets[raid.name]

    async def delete(self, raid: RaidSet) -> None:
        """Take the set away and release its legs; raises ``BdevError(EALREADY)`` while that goes on."""
        if raid.deleting:
            raise fault(errno.EALREADY)
        raid.deleting = True
        if raid.state == "online":
            await self._go_offline(raid)
        for leg in raid.legs:
            self._free(raid, leg)
        self._forget(raid)

    async def add_base(self, raid: RaidSet, name: str) -> None:
        """``bdev_raid_add_base_bdev``: fill an empty place; a set that is online begins to rebuild it.

        Raises ``BdevError``: EPERM while another leg is rebuilt or when the bdev is claimed, EINVAL without an
        empty place or when the bdev does not fit, ENODEV, and as ``LegRefused`` EIO when it cannot be read and
        EEXIST when it belongs to another set.
        """
        place = self._empty_place(raid, name)
        bdev = self._bdevs.find(name)
        if bdev is None:
            if raid.state == "configuring":
                place.name = name
            raise fault(errno.ENODEV)
        if bdev.claimed_by is not None:
            raise fault(errno.EPERM)
        await self._check_unused(bdev)
        # Much may have happened while that was read.
        place = self._empty_place(raid, name)
        if self._bdevs.find(name) is not bdev or self.sets.get(raid.name) is not raid:
            raise fault(errno.ENODEV)
        self._configure(raid, place, bdev)

    def _empty_place(self, raid: RaidSet, name: str) -> Leg:
        if raid.rebuild is not None:
            raise fault(errno.EPERM)
        bdev = self._bdevs.find(name)
        empty = [leg for leg in raid.legs if leg.name is None and leg.bdev is None]
        mine = [leg for leg in empty if raid.state == "configuring" and bdev is not None and leg.uuid == bdev.uuid]
        places = mine or [leg for leg in empty if leg.uuid == NULL_UUID]
        if not places or raid.state == "offline":
            raise fault(errno.EINVAL)
        return places[0]

    @staticmethod
    async def _check_unused(bdev: Bdev) -> None:
        blocks = min(bdev.num_blocks, -(-READ_BYTES // bdev.block_size))
        try:
            head = bytes(await bdev.read(0, blocks))
        except NvmeError as error:
            raise LegRefused(errno.EIO) from error
        if is_superblock(head):
            raise LegRefused(errno.EEXIST)
