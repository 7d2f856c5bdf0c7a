"""Reads and writes that need not wait: run where they arrived, without a task each.

Why: a task costs as much as the whole rest of a small read from memory.  The coroutine is the same either way, so
that no rule about a command stands twice; its first step is taken at once, and only what has to wait after all goes
on as a task.  This module must never begin what is known to have to wait: waits that an Abort or the end of a
connection may cut short belong to a task.

Invariant: what ``start`` returns does exactly what the coroutine had still to do.
"""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

from dataplane.nvme.commands import IoOp

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.gate import Budget
    from dataplane.nvme.commands import Command

_OPCODES: Final = frozenset({int(IoOp.READ), int(IoOp.WRITE)})
_FUA: Final = 1 << 30


def begin(
    controller: Controller, command: Command, work: Coroutine[Any, Any, None], taken: int, budget: Budget
) -> Coroutine[Any, Any, None] | None:
    """Run ``work`` if nothing is known that it would have to wait for; what is left to be run as a task, or None.

    ``taken`` bytes of the budget are the command's already.
    """
    return start(work) if _possible(controller, command, taken, budget) else work


def _possible(controller: Controller, command: Command, taken: int, budget: Budget) -> bool:
    if command.opcode not in _OPCODES or command.flags & 3 or command.cdw12 & _FUA:
        return False
    if not taken and not budget.has(command.length):
        return False
    namespace = controller.namespace(command.nsid)
    return namespace is not None and namespace.bdev.prompt and not controller.subsystem.gate(command.nsid).closed


def start(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Take the first step; None when that was all, else the rest, to be run as a task."""
    try:
        waiting = work.send(None)
    except StopIteration:
        return None
    except Exception as problem:  # noqa: BLE001 - raised again where the boundary of a command is
        return _failed(problem)
    return _rest(work, waiting)


async def _failed(problem: Exception) -> None:
    raise problem


async def _rest(work: Coroutine[Any, Any, None], waiting: object) -> None:
    await _steps(work, waiting)


@types.coroutine
def _steps(work: Coroutine[Any, Any, None], waiting: object) -> Generator[Any, Any, None]:
    """Hand on what ``work`` waits for, and to it what comes of that."""
    while True:
        try:
            came = yield waiting
        except BaseException as problem:  # noqa: BLE001 - a cancellation is for the work to see
            failure: BaseException | None = problem
        else:
            failure = None
        try:
            waiting = work.send(came) if failure is None else work.throw(failure)
        except StopIteration:
            return
