"""Operations on the sets and namespaces of the data plane: ``Load``, ``DetachDrives``, ``Rebuild``.

Each is answered once, with what the engine shows and not with what was sent: a leg counts as out when no set has it,
a rebuild as done when the legs are in and nothing is being copied.  This module must never choose what to drop.

Sources: module/bdev/raid/bdev_raid.c.  Taking a leg out that is not in, or that is on its way out, is
answered with ENODEV alike, so that answer is followed by a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc.errors import RpcError
from dataplane.rpc.methods import nvme, nvmf, raid
from dataplane.rpc.values import RaidInfo
from ha.adapters.groups import FOR_EVER_MS, Channel, all_of, look
from ha.model import Answer, DetachDrives, GroupId, Load, Operation, Outcome, Rebuild, ServiceMap

Lock = Callable[[str], asyncio.Lock]
"""The lock of a subsystem, by its NQN; see ``ha.adapters.groups``."""

LOOK_S: Final = 0.05
SLOW_LOOK_S: Final = 1.0
NOT_IN_TIME: Final = "it was not done in time"


async def run(operation: Operation, channel: Channel, lock: Lock) -> Outcome:
    """The outcome of ``operation``, at its deadline at the latest."""
    match operation.work:
        case Load() as load:
            problem = await _within(operation, _load(load, channel, lock))
        case Rebuild() as rebuild:
            problem = await _within(operation, _rebuild(rebuild, channel))
        case DetachDrives(drives=drives):
            return await _detach(operation, drives, channel)
        case work:
            raise ValueError(f"{type(work).__name__} is no work of the engine")
    return Outcome(number=operation.number, ok=not problem, problem=problem)


async def _within(operation: Operation, work: Coroutine[Any, Any, str]) -> str:
    """What went wrong, or nothing.  What is late goes on: it holds the locks of what it was about to change."""
    task = asyncio.create_task(work)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    seconds = None if operation.deadline_ms is None else operation.deadline_ms / 1000
    done, _ = await asyncio.wait((task,), timeout=seconds)
    return task.result() if done else NOT_IN_TIME


_RUNNING: Final[set[asyncio.Task[str]]] = set()
"""The loop itself holds tasks only weakly."""


async def _load(load: Load, channel: Channel, lock: Lock) -> str:
    problems = await asyncio.gather(
        _drop([leg for _, leg in load.drop], channel),
        *(_hide(nqn, [n for q, n in load.refuse if q == nqn], channel, lock) for nqn in {q for q, _ in load.refuse}),
    )
    return "; ".join(problem for problem in problems if problem)


async def _drop(legs: list[str], channel: Channel) -> str:
    """Take the legs out, all at once."""
    answers = await all_of(channel, (raid.remove_base_bdev(leg) for leg in legs), FOR_EVER_MS)
    doubtful = set()
    for leg, answer in zip(legs, answers, strict=True):
        if isinstance(answer, RpcError) and answer.no_such_device:
            doubtful.add(leg)
        elif isinstance(answer, Ws7000Error):
            return str(answer)
    while doubtful:
        found = await _sets(channel)
        if isinstance(found, str):
            return found
        if doubtful.isdisjoint(base.name for each in found for base in each.bases if base.configured):
            break
        await asyncio.sleep(LOOK_S)
    return ""


async def _hide(nqn: str, nsids: list[int], channel: Channel, lock: Lock) -> str:
    """Take the namespaces away from every host, one after the other as their subsystem needs it."""
    async with lock(nqn):
        for nsid in nsids:
            try:
                await channel.run(nvmf.remove_ns(nqn, nsid), FOR_EVER_MS)
            except Ws7000Error as problem:
                seen = await look(channel, nqn)
                if seen is None or nsid in seen.nsids:
                    return str(problem)
    return ""


async def _detach(operation: Operation, drives: Iterable[str], channel: Channel) -> Outcome:
    """Each drive by itself: one that hangs holds no other up."""

    async def one(drive: str) -> tuple[Answer, str]:
        try:
            async with asyncio.timeout(None if operation.deadline_ms is None else operation.deadline_ms / 1000):
                await channel.run(nvme.detach_controller(drive), FOR_EVER_MS)
        except TimeoutError:
            return Answer.SILENT, f"{drive}: {NOT_IN_TIME}"
        except Ws7000Error as problem:
            gone = isinstance(problem, RpcError) and problem.no_such_device
            return (Answer.OK, "") if gone else (Answer.FAILED, f"{drive}: {problem}")
        return Answer.OK, ""

    names = list(drives)
    answers = await asyncio.gather(*(one(drive) for drive in names))
    problem = "; ".join(why for _, why in answers if why)
    told = {drive: answer for drive, (answer, _) in zip(names, answers, strict=True)}
    return Outcome(number=operation.number, answers=told, ok=not problem, problem=problem)


async def _rebuild(rebuild: Rebuild, channel: Channel) -> str:
    """Put the legs in that are not, and wait until all are equal."""
    found = await _sets(channel)
    if isinstance(found, str):
        return found
    inside = {base.name for each in found for base in each.bases}
    missing = [(name, leg) for name, leg in rebuild.add if leg not in inside]
    answers = await all_of(channel, (raid.add_base_bdev(name, leg) for name, leg in missing), FOR_EVER_MS)
    for answer in answers:
        if isinstance(answer, Ws7000Error):
            return str(answer)
    wait_s = LOOK_S
    while True:
        found = await _sets(channel)
        if isinstance(found, str):
            return found
        state = _equal(rebuild, {each.name: each for each in found})
        if state is not None:
            return state
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, SLOW_LOOK_S)


def _equal(rebuild: Rebuild, found: dict[str, RaidInfo]) -> str | None:
    """Nothing when every leg is in and equal, why it will not be, or None while it is not yet."""
    for name, leg in rebuild.add:
        each = found.get(name)
        base = next((one for one in each.bases if one.name == leg), None) if each is not None else None
        if each is None or base is None:
            return f"{leg} is not in {name}: it was lost, or its rebuild has failed"
        if each.process is not None or not base.configured:
            return None
    return ""


async def whole(of: ServiceMap, channel: Channel) -> frozenset[GroupId]:
    """The groups in whose mirrors every leg is in; none where that cannot be seen."""
    found = await _sets(channel)
    if isinstance(found, str):
        return frozenset()
    inside = {base.name for each in found for base in each.bases if base.configured}
    return frozenset(
        group
        for group, at in of.groups.items()
        if all(leg.bdev in inside for space in at.namespaces for mirror in space.mirrors for leg in mirror.legs)
    )


async def _sets(channel: Channel) -> tuple[RaidInfo, ...] | str:
    try:
        return await channel.run(raid.get_bdevs(), FOR_EVER_MS)
    except Ws7000Error as problem:
        return str(problem)
