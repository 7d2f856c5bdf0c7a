"""A bdev on a namespace behind one or more controllers: a drive of a shelf, as a node sees it.

Why: everything a node stacks (slices, stripes, mirrors) stands on bdevs.  This module must never retry or choose
a path (``multipath``), and never keep data: a flush always goes to the drive, since a node acknowledges only
what the drive confirmed.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``nbdev_create``, ``bdev_nvme_io_type_supported``).
"""

from __future__ import annotations

import uuid as uuidlib
from typing import Final

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.initiator.describe import namespace_json
from dataplane.embedded.initiator.multipath import HostNamespace
from dataplane.embedded.initiator.options import MultipathOptions
from dataplane.nvme import identify

_UUID_NAMESPACE: Final = uuidlib.UUID("edaed2de-24bc-4b07-b559-f47ecbe730fd")
"""The name space of generated UUIDs (``nvme_generate_uuid``)."""


def generated_uuid(serial: str, nsid: int) -> str:
    """The UUID of a namespace that has none of its own: from the serial number and the NSID."""
    return str(uuidlib.uuid5(_UUID_NAMESPACE, f"{serial:<20}{nsid}"))


class NvmeBdev(Bdev):
    """``<controller name>n<nsid>``."""

    __slots__ = ("multipath", "namespace")
    product_name = "NVMe disk"

    def __init__(self, name: str, namespace: HostNamespace, uuid: str | None, multipath: MultipathOptions) -> None:
        super().__init__(name, namespace.block_size, namespace.num_blocks, uuid)
        self.namespace = namespace
        self.multipath = multipath

    @property
    def write_cache(self) -> bool:
        """Whether some path's controller reports a volatile write cache."""
        return any(path.controller.identity.vwc & 1 for path in self.namespace.paths)

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        """On some path."""
        return await self.namespace.read(lba, blocks) if blocks else b""

    async def do_write(self, lba: int, data: Buffer) -> None:
        """On some path."""
        if len(data):
            await self.namespace.write(lba, data)

    async def do_flush(self) -> None:
        """Always sent, whether ``enable_flush`` is set or not."""
        await self.namespace.flush()

    async def do_write_zeroes(self, lba: int, blocks: int) -> None:
        """Write Zeroes where the controller has it."""
        if blocks:
            await self.namespace.write_zeroes(lba, blocks)

    async def do_unmap(self, lba: int, blocks: int) -> None:
        """Dataset Management where the controller has it."""
        if blocks:
            await self.namespace.deallocate(lba, blocks)

    def supported_io_types(self) -> dict[str, bool]:
        """What the first path's controller can; zeroes can always be written."""
        oncs = self.namespace.paths[0].controller.identity.oncs if self.namespace.paths else 0
        return {
            "read": True,
            "write": True,
            "unmap": bool(oncs & identify.ONCS_DATASET_MANAGEMENT),
            "flush": True,
            "reset": True,
            "write_zeroes": True,
        }

    def driver_specific(self) -> dict[str, object]:
        """The ``nvme`` array, one entry a path."""
        shown: dict[str, object] = {
            "nvme": [namespace_json(path) for path in self.namespace.paths],
            "mp_policy": self.multipath.policy,
        }
        if self.multipath.policy == "active_active":
            shown["selector"] = self.multipath.selector
            if self.multipath.selector == "round_robin":
                shown["rr_min_io"] = self.multipath.min_io
        return shown
