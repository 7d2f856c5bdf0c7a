"""Errors made on purpose: commands of one opcode that end with a status that no controller gave.

Why: what a node does with a refusing drive can only be tried when the drive refuses at will.  This module must never
send, wait or know a connection; it says what becomes of a command, and counts.

Invariants: at most one injection an opcode on a queue, the last one given; each command uses up one of its count, and
a command that failed by itself none.
Source: SPDK v26.05 lib/nvme/nvme_qpair.c (``spdk_nvme_qpair_add_cmd_error_injection``), nvme_internal.h
(``nvme_complete_request``).
"""

from __future__ import annotations

from dataclasses import dataclass

from dataplane.nvme.commands import Completion, status_field


@dataclass(slots=True)
class Injection:
    """The next ``left`` commands end with ``code`` (SCT << 8 | SC).

    ``hold_s`` None: they are executed, and the answer is exchanged.  Otherwise they are never sent, and end after
    so many seconds.
    """

    code: int
    left: int = 1
    hold_s: float | None = None


class Injections:
    """Those of one queue, by opcode."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, Injection] = {}

    def add(self, opcode: int, injection: Injection) -> None:
        """Instead of the one that there was."""
        self._known[opcode] = injection

    def remove(self, opcode: int) -> None:
        """None for this opcode; what is held stays held."""
        self._known.pop(opcode, None)

    def held(self, opcode: int) -> Injection | None:
        """The injection that keeps this command from being sent, or None."""
        found = self._known.get(opcode)
        if found is None or found.hold_s is None or not found.left:
            return None
        found.left -= 1
        return found

    def exchange(self, opcode: int, completion: Completion) -> Completion:
        """The completion that the caller is to see."""
        found = self._known.get(opcode)
        if found is None or found.hold_s is not None or not found.left or completion.code:
            return completion
        found.left -= 1
        return completion._replace(status=status_field(found.code))
