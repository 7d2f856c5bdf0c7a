"""The data of one command on its way from the host.

Why: a transfer may come in any number of PDUs, and an Abort that finds its command here has to wait for it: the
host was told to send, so the connection would break if its data met nothing.  This module must never answer a
command.

Invariants: data is taken in order and never beyond what was asked for; an Abort that waits is answered when the
data is complete, the connection ends, or the time that the transport allows is over, whichever is first.
Source: SPDK v26.05 lib/nvmf/tcp.c (_nvmf_tcp_qpair_abort_request, which waits as long but then lets the command run).
"""

from __future__ import annotations

import asyncio

from dataplane.nvme.commands import Command
from dataplane.nvme.layout import Raw
from dataplane.nvme.pdu import H2CData


class Transfer:
    """A command whose data is on its way from the host."""

    __slots__ = ("_aborts", "_buffer", "began", "command", "damaged", "offset")

    def __init__(self, command: Command, began: float) -> None:
        self.command = command
        self.began = began
        self.offset = 0
        self.damaged = False  # some of it did not match its digest: the rest is still taken, as SPDK does
        self._buffer: bytearray | None = None  # only when the data comes in more than one PDU
        self._aborts: list[asyncio.Future[bool]] = []

    def take(self, pdu: H2CData) -> Raw | None:
        """All of the data once the last of it is here; ``pdu`` was checked (``capsule.check_data``)."""
        end = pdu.offset + len(pdu.data)
        self.offset = end
        self.damaged |= pdu.digest_error
        whole = end == self.command.length
        if whole and self._buffer is None:
            return pdu.data
        if self._buffer is None:
            self._buffer = bytearray(self.command.length)
        self._buffer[pdu.offset : end] = pdu.data
        return self._buffer if whole else None

    async def abort(self, timeout_s: float) -> bool:
        """Whether the command ended instead of running; waits for its data, but no longer than ``timeout_s``."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._aborts.append(answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return False
        finally:
            self._aborts.remove(answer)

    def settle(self, *, complete: bool) -> bool:
        """The transfer is over: whether somebody waits for the command to be aborted, who is told so."""
        waiting = [answer for answer in self._aborts if not answer.done()]
        for answer in waiting:
            answer.set_result(complete)
        return complete and bool(waiting)
