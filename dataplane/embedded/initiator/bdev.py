"""A bdev on a namespace behind one or more controllers: a drive of a shelf, as a node sees it.

Why: everything a node stacks (slices, stripes, mirrors) stands on bdevs.  This module must never retry or choose
a path (``multipath``), and never keep data: a flush always goes to the drive, since a node acknowledges only
what the drive confirmed.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``nbdev_create``, ``bdev_nvme_io_type_supported``).
"""

from __future__ import annotations

import asyncio
import uuid as uuidlib
from typing import Any, Final

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.initiator.describe import namespace_json
from dataplane.embedded.initiator.multipath import BLOCKS_MAX, HostNamespace
from dataplane.embedded.initiator.options import MultipathOptions
from dataplane.nvme import identify
from dataplane.nvme.commands import PSDT_SGL, SGL_TRANSPORT, Command
from dataplane.nvme.status import NvmeError, Status

_TO_HOST: Final = 2
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

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        """On some path, with FUA: the drive answers when it is durable.  (SPDK's ``bdev_nvme`` leaves FUA out.)"""
        if len(data):
            await self.namespace.write(lba, data, fua=True)

    @property
    def acwu(self) -> int:
        """What the drive says, when it can compare and write at all."""
        controller, shown = self._identity, self.namespace.shown.data
        if not controller.fuses & identify.FUSES_COMPARE_AND_WRITE:
            return 1
        return (shown.nacwu if shown.nsfeat & identify.NSFEAT_ATOMIC_WRITE_UNIT else controller.acwu) + 1

    @property
    def max_copy(self) -> int:
        """What the drive says, when it can copy at all."""
        return self.namespace.shown.data.mssrl if self._identity.oncs & identify.ONCS_COPY else 0

    @property
    def _identity(self) -> identify.IdentifyController:
        paths = self.namespace.paths
        return paths[0].controller.identity if paths else identify.IdentifyController()

    async def do_compare(self, lba: int, expected: Buffer) -> None:
        """Compare where the controller has it."""
        if self._identity.oncs & identify.ONCS_COMPARE:
            await self.namespace.compare(lba, expected)
        else:
            await super().do_compare(lba, expected)

    async def do_compare_and_write(self, lba: int, expected: Buffer, data: Buffer, *, fua: bool) -> None:
        """Fused where the controller has it: atomic towards other nodes too."""
        if self._identity.fuses & identify.FUSES_COMPARE_AND_WRITE:
            await self.namespace.compare_and_write(lba, expected, data, fua=fua)
        else:
            await super().do_compare_and_write(lba, expected, data, fua=fua)

    async def do_copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool) -> None:
        """Copy where the controller has it and the length fits into one command."""
        if blocks <= min(self.max_copy, BLOCKS_MAX):
            await self.namespace.copy(to_lba, from_lba, blocks, fua=fua)
        else:
            await super().do_copy(to_lba, from_lba, blocks, fua=fua)

    async def pass_through(self, command: Command, data: Buffer) -> Buffer:
        """The same command to the drive's namespace; nothing is known about the blocks that it changes."""
        size = command.length if command.opcode & 3 == _TO_HOST else 0
        if max(size, len(data)) > self.namespace.max_transfer_bytes:
            raise NvmeError(Status.INVALID_FIELD, dnr=True)  # beyond MDTS a controller may end the connection
        sent = command._replace(
            flags=PSDT_SGL, nsid=self.namespace.nsid, address=0, length=size, sgl_type=SGL_TRANSPORT if size else 0
        )
        answer: Buffer = b""

        async def send(_lba: int, _blocks: int) -> None:
            nonlocal answer
            answer = (await self.namespace.execute(sent, data, read_size=size)).check()

        await self._change(0, self.num_blocks, send)
        return answer

    async def abort(self, task: asyncio.Task[Any]) -> bool:
        """By the drive that has the command."""
        associations = [path.controller.association for path in self.namespace.paths]
        return any([await each.abort_of(task) for each in associations if each is not None])

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
        identity = self._identity
        oncs = identity.oncs
        return {
            "read": True,
            "write": True,
            "unmap": bool(oncs & identify.ONCS_DATASET_MANAGEMENT),
            "flush": True,
            "reset": True,
            "nvme_io": True,
            "write_zeroes": True,
            "compare": bool(oncs & identify.ONCS_COMPARE),
            "compare_and_write": bool(identity.fuses & identify.FUSES_COMPARE_AND_WRITE),
            "abort": True,
            "copy": bool(oncs & identify.ONCS_COPY),
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
