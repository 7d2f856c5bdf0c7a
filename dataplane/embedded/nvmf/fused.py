"""Which commands of a queue are the halves of a fused one.

Why: whether two commands are a pair follows from the order in which they arrive, but they run only when the data
of both is here.  This module must never run or answer a command: it says what is due.

Invariants: a second half belongs to the command right before it; a half whose partner is missing, or ended before
it could run, is handed out alone, to be answered Aborted due to Missing Fused Command; each half is handed out
once.  Sources: NVMe base 2.0c section 3.4.2; SPDK v26.05 lib/nvmf/tcp.c (nvmf_tcp_check_fused_ordering).
"""

from __future__ import annotations

from dataplane.nvme.commands import FUSE_FIRST, FUSE_SECOND, Command
from dataplane.nvme.layout import Raw


class Half:
    """One of two; ``taken`` bytes of the budget belong to its data, which is there once it is ``ready``."""

    __slots__ = ("alone", "command", "data", "other", "ready", "taken")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.data: Raw = b""
        self.taken = 0
        self.ready = False
        self.other: Half | None = None
        self.alone = False


class FusedCommands:
    """Those of one queue that have not run yet."""

    __slots__ = ("_halves", "first")

    def __init__(self) -> None:
        self.first: Half | None = None
        """The command that came last, when it was a first half."""
        self._halves: dict[int, Half] = {}

    def arrived(self, command: Command) -> Half | None:
        """A command came; a first half that is ready and now known to be alone."""
        before, self.first = self.first, None
        fuse = command.fuse
        if fuse in (FUSE_FIRST, FUSE_SECOND):
            half = self._halves[command.cid] = Half(command)
            if fuse == FUSE_FIRST:
                self.first = half
            elif before is not None:
                half.other, before.other = before, half
                return None
            else:
                half.alone = True
        return self._leave_alone(before)

    def ready(self, command: Command, data: Raw, taken: int) -> tuple[Half, ...]:
        """The data of a half is here: what can be done now, a pair in order, a half that is alone, or nothing."""
        half = self._halves[command.cid]
        half.data, half.taken, half.ready = data, taken, True
        if half.alone:
            return (self._halves.pop(command.cid),)
        other = half.other
        if other is None or not other.ready:
            return ()
        del self._halves[half.command.cid], self._halves[other.command.cid]
        return (half, other) if command.fuse == FUSE_FIRST else (other, half)

    def ended(self, cid: int) -> Half | None:
        """That command ended without having run; its partner, if that is ready and now alone."""
        half = self._halves.pop(cid, None)
        if half is None:
            return None
        if self.first is half:
            self.first = None
        return self._leave_alone(half.other)

    def drop(self) -> int:
        """The connection is gone: forget them; the bytes of the budget that those held that were ready."""
        taken = sum(half.taken for half in self._halves.values())
        self._halves.clear()
        self.first = None
        return taken

    def _leave_alone(self, half: Half | None) -> Half | None:
        if half is None:
            return None
        half.alone, half.other = True, None
        return self._halves.pop(half.command.cid) if half.ready else None
