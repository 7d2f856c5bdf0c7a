"""The PDUs that answer a command: its data where it reads, its completion where the data does not imply it.

This module must never send anything.  Source: NVMe/TCP Transport 1.0c section 3.3.2.2 (SUCCESS in the last data PDU).
"""

from __future__ import annotations

from dataplane.embedded.nvmf.admin import Answer
from dataplane.embedded.nvmf.outbox import fitted
from dataplane.nvme import pdu as wire
from dataplane.nvme.commands import AdminOp, Command, Completion
from dataplane.nvme.layout import Raw
from dataplane.nvme.pdu import Digests

_TO_HOST = 2


def pdus(
    command: Command, completion: Completion, answer: Answer, agreed: Digests, alignment: int, *, success: bool
) -> list[Raw]:
    """What to send; ``success``: the host was told that data may stand for a completion without anything to say."""
    pieces: list[Raw] = []
    opcode = command.nsid if command.opcode == AdminOp.FABRICS else command.opcode
    if not completion.status and command.length and opcode & 3 == _TO_HOST:
        done = success and not answer.cdw0 and not answer.cdw1
        data = fitted(answer.data, command.length)
        pieces += wire.c2h_data(wire.C2HData(command.cid, 0, data, last=True, success=done), agreed, alignment)
        if done:
            return pieces
    pieces.append(wire.capsule_resp(completion, agreed))
    return pieces
