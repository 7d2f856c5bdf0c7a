"""I/O commands: from a submission queue entry to a call of a bdev.

Why: here is where ANA states, visibility, reservations and pauses meet every single read and write.  This module
must never touch a bdev of a namespace whose gate is closed, nor one that the host does not see.  What is not on the
path of every read and write is in ``commands_io``.  Source: SPDK v26.05 lib/nvmf/ctrlr.c
(nvmf_ctrlr_process_io_cmd, nvmf_ctrlr_process_io_fused_cmd), ctrlr_bdev.c.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dataplane.embedded.nvmf import commands_io
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.identify import FUSES_COMPARE_AND_WRITE
from dataplane.nvme.layout import Raw
from dataplane.nvme.logs import AnaState
from dataplane.nvme.reservations import COMMANDS as RESERVATION_COMMANDS
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.fused import Half
    from dataplane.embedded.nvmf.reserved import Passage
    from dataplane.embedded.nvmf.subsystem import Namespace
    from dataplane.embedded.nvmf.tcp import TcpQueue

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
        namespace = _reachable(controller, command)
        passage = namespace.reserved.admit(controller.hostid, command)
        if command.opcode in RESERVATION_COMMANDS and not command.fuse:
            return await namespace.reserved.execute(controller, command, data)
        return await _run(controller, namespace.bdev, command, data)
    finally:
        if passage is not None:
            passage.leave()
        gate.leave()


def _reachable(controller: Controller, command: Command) -> Namespace:
    """The namespace of the command, which the host may reach this way; raises NvmeError."""
    if not controller.enabled:
        raise NvmeError(Status.COMMAND_SEQUENCE_ERROR)
    namespace = controller.namespace(command.nsid)
    if namespace is None:
        raise NvmeError(Status.INVALID_NAMESPACE, dnr=True)
    state = controller.ana_state(namespace.anagrpid)
    if state > AnaState.NON_OPTIMIZED:
        raise NvmeError(_PATH_STATUS[state])
    return namespace


async def _run(controller: Controller, bdev: Bdev, command: Command, data: Raw) -> Raw:
    opcode = command.opcode
    if command.flags & 3:
        raise NvmeError(Status.INVALID_FIELD, dnr=True)  # FUSE 3; halves of pairs do not come here
    try:
        if opcode == IoOp.READ:
            blocks = commands_io.check_range(bdev, command, command.length)
            if command.cdw12 & commands_io.FUA:
                await bdev.flush()  # what is read must be durable, NVM Command Set 1.0c section 3.2.4
            return await bdev.read(command.slba, blocks)
        if opcode == IoOp.WRITE:
            size = commands_io.check_range(bdev, command, len(data)) * bdev.block_size
            whole = data if len(data) == size else memoryview(data)[:size]
            await bdev.write(command.slba, whole, fua=bool(command.cdw12 & commands_io.FUA))
            return _NOTHING
        if opcode == IoOp.FLUSH:
            await bdev.flush()
            return _NOTHING
    except NvmeError as error:
        error.dnr = False  # a bdev's word is to this engine: lib/bdev hands on SCT and SC alone
        raise
    return await commands_io.run(controller, bdev, command, data)


async def abort(controller: Controller | None, command: Command | None, task: asyncio.Task[bool]) -> bool:
    """Ask the bdev of an I/O command to take back what ``task`` has begun for it; whether it will end so."""
    namespace = controller.namespace(command.nsid) if controller is not None and command is not None else None
    return namespace is not None and await namespace.bdev.abort(task)


async def execute_pair(
    queue: TcpQueue, controller: Controller, first: Half, second: Half
) -> tuple[NvmeError | None, NvmeError | None]:
    """Run a fused pair; how each half ended."""
    subsystem = controller.subsystem
    nsids = {half.command.nsid for half in (first, second)}
    gates = [subsystem.gate(nsid) for nsid in nsids if 0 < nsid <= subsystem.max_nsid]
    while any(gate.closed for gate in gates):
        for gate in gates:
            if gate.closed:
                await queue.parked(gate.wait_open())
    for gate in gates:
        gate.inside += 1
    passages: list[Passage] = []
    try:
        one = _refused(controller, first.command, IoOp.COMPARE, passages)
        two = _refused(controller, second.command, IoOp.WRITE if one is None else None, passages)
        if one is not None or two is not None:
            # As SPDK: the half that is right finds no partner.
            return one or NvmeError(Status.ABORTED_MISSING_FUSED), two or NvmeError(Status.ABORTED_MISSING_FUSED)
        bdev = _reachable(controller, second.command).bdev
        return await commands_io.compare_and_write(bdev, (first.command, first.data), (second.command, second.data))
    finally:
        for passage in passages:
            passage.leave()
        for gate in gates:
            gate.leave()


def _refused(
    controller: Controller, command: Command, opcode: IoOp | None, passages: list[Passage]
) -> NvmeError | None:
    """Why that command cannot be the half of a pair that has to be an ``opcode``, if that still matters.

    What it was admitted with is added to ``passages``.
    """
    try:
        passage = _reachable(controller, command).reserved.admit(controller.hostid, command)
        if passage is not None:
            passages.append(passage)
    except NvmeError as error:
        return error
    if not controller.options.fuses & FUSES_COMPARE_AND_WRITE:
        return NvmeError(Status.INVALID_FIELD, dnr=True)
    return None if opcode in (None, command.opcode) else NvmeError(Status.INVALID_OPCODE)
