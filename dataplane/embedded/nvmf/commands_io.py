"""What each I/O command other than Read, Write and Flush does to a bdev.

Why: these are rare, so they stand apart from the path of every read and write (``io``), which has checked before
that the host may reach the namespace at all.  This module must never look at a gate, an ANA state or a
reservation.

Invariant: a command that the transport's options mask is Invalid Opcode, as one that is not advertised should be.
Source: SPDK v26.05 lib/nvmf/ctrlr.c (nvmf_ctrlr_process_io_cmd), ctrlr_bdev.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.embedded.bdev.base import CompareFailed
from dataplane.nvme import identify as layout
from dataplane.nvme.commands import COPY_SOURCE_SIZE, Command, IoOp, parse_ranges, parse_source
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.nvme.layout import Raw

FUA = 1 << 30
_DEALLOCATE = 1 << 25
_ATTRIBUTE_DEALLOCATE = 4
_NOTHING = b""
_OPTIONAL = {
    IoOp.COMPARE: layout.ONCS_COMPARE,
    IoOp.WRITE_ZEROES: layout.ONCS_WRITE_ZEROES,
    IoOp.DATASET_MANAGEMENT: layout.ONCS_DATASET_MANAGEMENT,
    IoOp.COPY: layout.ONCS_COPY,
}
_OF_THE_TARGET = (
    IoOp.RESERVATION_REGISTER, IoOp.RESERVATION_REPORT, IoOp.RESERVATION_ACQUIRE, IoOp.RESERVATION_RELEASE,
)  # fmt: skip
"""Answered by the target or not at all: the drive behind it knows this node, not the host."""


async def run(controller: Controller, bdev: Bdev, command: Command, data: Raw) -> Raw:
    """Run one command; what it reads, else nothing.  Raises NvmeError."""
    opcode = command.opcode
    needed = _OPTIONAL.get(opcode, 0)  # type: ignore[call-overload]  # an opcode that no name stands for is not there
    if needed & ~controller.options.oncs or opcode in _OF_THE_TARGET:
        raise NvmeError(Status.INVALID_OPCODE, dnr=True)
    match opcode:
        case IoOp.COMPARE:
            await bdev.compare(command.slba, _whole_blocks(bdev, command, data))
        case IoOp.WRITE_ZEROES:
            await _write_zeroes(bdev, command)
        case IoOp.DATASET_MANAGEMENT:
            await _dataset_management(controller, bdev, command, data)
        case IoOp.COPY:
            await _copy(bdev, command, data)
        case _:
            if controller.options.disable_command_passthru:
                raise NvmeError(Status.INVALID_OPCODE, dnr=True)
            return await bdev.pass_through(command, data)
    return _NOTHING


def check_range(bdev: Bdev, command: Command, buffer_bytes: int | None) -> int:
    """The number of blocks, which lie inside the bdev and fit into the buffer; raises NvmeError."""
    blocks = (command.cdw12 & 0xFFFF) + 1
    if command.slba + blocks > bdev.num_blocks:
        raise NvmeError(Status.LBA_OUT_OF_RANGE)
    if buffer_bytes is not None and blocks * bdev.block_size > buffer_bytes:
        raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
    return blocks


def _whole_blocks(bdev: Bdev, command: Command, data: Raw) -> Raw:
    """The data of the command's blocks; what a host sends beyond them does not count."""
    size = check_range(bdev, command, len(data)) * bdev.block_size
    return data if len(data) == size else memoryview(data)[:size]


async def _write_zeroes(bdev: Bdev, command: Command) -> None:
    """More than WZSL allows is only slower, as in SPDK."""
    blocks = check_range(bdev, command, None)
    if command.cdw12 & _DEALLOCATE:
        raise NvmeError(Status.INVALID_FIELD)
    await bdev.write_zeroes(command.slba, blocks)
    if command.cdw12 & FUA:
        await bdev.flush()


async def _dataset_management(controller: Controller, bdev: Bdev, command: Command, data: Raw) -> None:
    """Deallocate as many ranges, and as much of each, as Identify promises (DMRL, DMRSL); it is a hint."""
    if not command.cdw11 & _ATTRIBUTE_DEALLOCATE:
        return  # the other attributes are taken and do nothing
    count = (command.cdw10 & 0xFF) + 1
    if count * 16 > len(data):
        raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
    longest = controller.subsystem.options.dmrsl
    ranges = parse_ranges(data, 1 if longest else count)
    offered = bdev.supported_io_types().get("unmap", False)
    for lba, blocks in ranges:
        size = min(blocks, longest) if longest else blocks
        if not offered or lba + size > bdev.num_blocks:
            raise NvmeError(Status.INTERNAL_ERROR)  # what SPDK makes of a range that its bdev layer refuses
        if size:
            await bdev.unmap(lba, size)


async def _copy(bdev: Bdev, command: Command, data: Raw) -> None:
    more = command.cdw12 & 0xFF
    if len(data) != (more + 1) * COPY_SOURCE_SIZE:
        raise NvmeError(Status.DATA_SGL_LENGTH_INVALID)
    if more:
        raise NvmeError(Status.COMMAND_SIZE_LIMIT_EXCEEDED)
    if command.cdw12 >> 8 & 0xF:
        raise NvmeError(Status.INVALID_FIELD)  # format 0 only
    source, blocks = parse_source(data)
    if max(source, command.slba) + blocks > bdev.num_blocks:
        raise NvmeError(Status.INTERNAL_ERROR)
    await bdev.copy(command.slba, source, blocks, fua=bool(command.cdw12 & FUA))


async def compare_and_write(
    bdev: Bdev, first: tuple[Command, Raw], second: tuple[Command, Raw]
) -> tuple[NvmeError | None, NvmeError | None]:
    """Run a fused pair whose halves are a Compare and a Write; how each of them ended."""
    compare, write = first[0], second[0]
    try:
        if (compare.slba, compare.cdw12 & 0xFFFF) != (write.slba, write.cdw12 & 0xFFFF):
            raise CompareFailed(Status.INVALID_FIELD)
        try:
            expected, data = _whole_blocks(bdev, compare, first[1]), _whole_blocks(bdev, write, second[1])
        except NvmeError as error:
            raise CompareFailed(error.code) from error
        if len(data) > bdev.acwu * bdev.block_size:
            raise CompareFailed(Status.INTERNAL_ERROR)
        await bdev.compare_and_write(write.slba, expected, data, fua=bool(write.cdw12 & FUA))
    except CompareFailed as error:
        return error, NvmeError(Status.ABORTED_FAILED_FUSED)
    except NvmeError as error:
        return error, error
    return None, None
