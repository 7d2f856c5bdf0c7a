"""I/O commands: from a submission queue entry to a call of a bdev.

Why: here is where ANA states, visibility, reservations and pauses meet every single read and write.  This
module must never touch a bdev of a namespace whose gate is closed, nor one that the host does not see.
Source: SPDK v26.05 lib/nvmf/ctrlr.c (nvmf_ctrlr_process_io_cmd), ctrlr_bdev.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.nvme.commands import Command, IoOp, parse_ranges
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AnaState
from dataplane.nvme.reservations import COMMANDS as RESERVATION_COMMANDS
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.tcp import TcpQueue

_FUA = 1 << 30
_DEALLOCATE = 1 << 25
_PATH_STATUS = {
    AnaState.INACCESSIBLE: Status.ANA_INACCESSIBLE,
    AnaState.PERSISTENT_LOSS: Status.ANA_PERSISTENT_LOSS,
    AnaState.CHANGE: Status.ANA_TRANSITION,
}
_NOTHING = b""


async def execute(queue: TcpQueue, controller: Controller, command: Command, data: Raw) -> Raw:
    """Run one I/O command; what a read returns, else nothing.  Raises NvmeError."""
    subsystem = controller.subsystem
    nsid = command.nsid
    if not 0 < nsid <= subsystem.max_nsid:
        raise NvmeError(Status.INVALID_NAMESPACE, dnr=True)
    gate = subsystem.gate(nsid)
    if gate.closed:
        await queue.parked(gate.wait_open())
    gate.inside += 1
    passage = None
    try:
        if not controller.enabled:
            raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
        namespace = controller.namespace(nsid)
        if namespace is None:
            raise NvmeError(Status.INVALID_NAMESPACE, dnr=True)
        state = controller.ana_state(namespace.anagrpid)
        if state > AnaState.NON_OPTIMIZED:
            raise NvmeError(_PATH_STATUS[state])
        passage = namespace.reserved.admit(controller.hostid, command)
        if command.flags & 3:
            raise NvmeError(Status.INVALID_FIELD, dnr=True)  # no fused commands
        if command.opcode in RESERVATION_COMMANDS:
            return await namespace.reserved.execute(controller, command, data)
        return await _run(namespace.bdev, command, data)
    finally:
        if passage is not None:
            passage.leave()
        gate.leave()


async def _run(bdev: Bdev, command: Command, data: Raw) -> Raw:
    opcode = command.opcode
    if opcode == IoOp.READ:
        blocks = _check(bdev, command, command.length)
        return await bdev.read(command.slba, blocks)
    if opcode == IoOp.WRITE:
        size = _check(bdev, command, len(data)) * bdev.block_size
        await bdev.write(command.slba, data if len(data) == size else memoryview(data)[:size])
        if command.cdw12 & _FUA:
            await bdev.flush()
        return _NOTHING
    if opcode == IoOp.FLUSH:
        await bdev.flush()
        return _NOTHING
    if opcode == IoOp.WRITE_ZEROES:
        blocks = _check(bdev, command, None)
        if command.cdw12 & _DEALLOCATE:
            raise NvmeError(Status.INVALID_FIELD)
        await bdev.write_zeroes(command.slba, blocks)
        return _NOTHING
    if opcode == IoOp.DATASET_MANAGEMENT:
        await _dataset_management(bdev, command, data)
        return _NOTHING
    raise NvmeError(Status.INVALID_OPCODE, dnr=True)


def _check(bdev: Bdev, command: Command, buffer_bytes: int | None) -> int:
    """The number of blocks, which lie inside the bdev and fit into the buffer."""
    blocks = (command.cdw12 & 0xFFFF) + 1
    if command.slba + blocks > bdev.num_blocks:
        raise NvmeError(Status.LBA_OUT_OF_RANGE)
    if buffer_bytes is not None and blocks * bdev.block_size > buffer_bytes:
        raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
    return blocks


async def _dataset_management(bdev: Bdev, command: Command, data: Raw) -> None:
    count = (command.cdw10 & 0xFF) + 1
    if not command.cdw11 & 4:
        return  # hints other than deallocate are taken and do nothing
    if count * 16 > len(data):
        raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
    ranges = parse_ranges(data, count)
    if any(lba + blocks > bdev.num_blocks for lba, blocks in ranges):
        raise NvmeError(Status.LBA_OUT_OF_RANGE)
    for lba, blocks in ranges:
        if blocks:
            await bdev.unmap(lba, blocks)
