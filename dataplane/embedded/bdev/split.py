"""Equal parts of a bdev: the slices of a drive.

Why: slices are the unit of allocation, so that a drive serves many volumes.  This module must never cache
anything: a part holds three numbers, since a node has twelve thousand of them.

Invariants: parts do not overlap and lie inside their base; the UUID of a part follows from the base's UUID and
its range, so that both nodes see the same one; either all parts of a base exist or none.
Source: SPDK v26.05 module/bdev/split/vbdev_split.c, lib/bdev/part.c.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import uuid as uuidlib
from dataclasses import dataclass, field
from typing import Final

from dataplane.embedded.bdev.base import Bdev, BdevError, BdevRegistry
from dataplane.embedded.bdev.layer import Layer

MIB: Final = 1 << 20
CLAIM: Final = "split"
_NAMESPACE: Final = uuidlib.UUID("976b899e-3e1e-4d71-ab69-c2b08e9df8b8").bytes
"""BDEV_PART_NAMESPACE_UUID of lib/bdev/part.c."""


def derived_uuid(namespace: bytes, name: bytes) -> str:
    """The UUID (version 5) of a name of any bytes, which SPDK takes from structures."""
    # SHA-1 is what version 5 UUIDs are made of (RFC 9562); nothing here is secret.
    digest = hashlib.sha1(namespace + name, usedforsecurity=False).digest()
    return str(uuidlib.UUID(bytes=digest[:16], version=5))


def part_uuid(base_uuid: str, offset_blocks: int, num_blocks: int) -> str:
    """The UUID that lib/bdev/part.c gives to a range of a base."""
    name = uuidlib.UUID(base_uuid).bytes + struct.pack("<QQ", offset_blocks, num_blocks)
    return derived_uuid(_NAMESPACE, name)


class SplitPart(Layer):
    """One part; every call goes to the base at an offset."""

    __slots__ = ()
    product_name = "Split Disk"

    def __init__(self, base: Bdev, name: str, offset_blocks: int, num_blocks: int) -> None:
        super().__init__(base, name, part_uuid(base.uuid, offset_blocks, num_blocks), offset_blocks, num_blocks)

    @property
    def prompt(self) -> bool:
        """As the base, if nothing holds I/O back here."""
        return self.unhindered and self.base.prompt

    def driver_specific(self) -> dict[str, object]:
        """The ``split`` object."""
        return {"split": {"base_bdev": self.base.name, "offset_blocks": self.offset_blocks}}


@dataclass(slots=True)
class SplitConfig:
    """One ``bdev_split_create``; ``parts`` is empty until its base exists."""

    base_name: str
    split_count: int
    split_size_mb: int
    base: Bdev | None = None
    parts: list[SplitPart] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """The call that creates it again."""
        params = {
            "base_bdev": self.base_name,
            "split_count": self.split_count,
            "split_size_mb": self.split_size_mb,
        }
        return {"method": "bdev_split_create", "params": params}


class Splits:
    """All splits of the process; ``examine`` is registered with the bdev registry."""

    def __init__(self, bdevs: BdevRegistry) -> None:
        self._bdevs = bdevs
        self.configs: dict[str, SplitConfig] = {}

    def create(self, base_name: str, split_count: int, split_size_mb: int) -> list[str]:
        """Split a base now, or when it appears; the names of the parts.  Raises ``BdevError``."""
        if split_count == 0:
            raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
        if base_name in self.configs:
            raise BdevError(errno.EEXIST, os.strerror(errno.EEXIST))
        config = SplitConfig(base_name, split_count, split_size_mb)
        self.configs[base_name] = config
        base = self._bdevs.find(base_name)
        if base is not None:
            try:
                self._apply(config, base)
            except BdevError:
                del self.configs[base_name]
                raise
        return [part.name for part in config.parts]

    def examine(self, bdev: Bdev) -> None:
        """A bdev appeared: split it if that was asked for.  A split that fails leaves the bdev whole."""
        config = self.configs.get(bdev.name)
        if config is None or config.base is not None:
            return
        try:
            self._apply(config, bdev)
        except BdevError:
            del self.configs[bdev.name]

    def _apply(self, config: SplitConfig, base: Bdev) -> None:
        size_blocks, count = self._sizes(config, base)
        names = [f"{config.base_name}p{index}" for index in range(count)]
        if any(self._bdevs.is_taken(name) for name in names) or base.claimed_by is not None:
            # SPDK answers ENOMEM when a part cannot be made, for whatever reason.
            raise BdevError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self._bdevs.claim(base, CLAIM)
        config.base = base
        base.remove_hooks.append(self._base_removed)
        for index, name in enumerate(names):
            part = SplitPart(base, name, index * size_blocks, size_blocks)
            config.parts.append(part)
            self._bdevs.add(part)

    @staticmethod
    def _sizes(config: SplitConfig, base: Bdev) -> tuple[int, int]:
        """Blocks per part and number of parts that fit."""
        if config.split_size_mb:
            size_bytes = config.split_size_mb * MIB
            if size_bytes % base.block_size:
                raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
            size_blocks = size_bytes // base.block_size
        else:
            size_blocks = base.num_blocks // config.split_count
        if size_blocks == 0:
            raise BdevError(errno.EINVAL, os.strerror(errno.EINVAL))
        return size_blocks, min(config.split_count, base.num_blocks // size_blocks)

    async def delete(self, base_name: str) -> None:
        """Remove the parts of a base and release it; raises ``BdevError(ENOENT)``."""
        config = self.configs.get(base_name)
        if config is None:
            raise BdevError(errno.ENOENT, os.strerror(errno.ENOENT))
        await self._dissolve(config)

    async def _base_removed(self, base: Bdev) -> None:
        for config in list(self.configs.values()):
            if config.base is base:
                await self._dissolve(config)

    async def _dissolve(self, config: SplitConfig) -> None:
        for part in config.parts:
            await self._bdevs.remove(part)
        if config.base is not None:
            if self._base_removed in config.base.remove_hooks:
                config.base.remove_hooks.remove(self._base_removed)
            if config.base.claimed_by == CLAIM:
                self._bdevs.release(config.base)
        if self.configs.get(config.base_name) is config:
            del self.configs[config.base_name]
