"""The data plane of this node: which process it is, whether it lives, what it serves, and its end.

Why: whoever may serve is an *incarnation*, one life of one process, so everything here hangs on knowing it.  The
process is found by the peer credentials of its JSON-RPC socket and held by a pidfd, which can never mean another
process.  Its key is drawn from boot, process and start time, so an agent that is started again finds the same key.

It must never report an answer of one incarnation for another, never report a group raised or drained that this
connection has not set, and never kill any process but the one that it holds.

A pid from the peer credentials is that of the process that listened.  It counts once the process has answered a
question that was asked after its pidfd was opened; so the pid had not been given to another meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc.methods import framework
from ha import keys
from ha.adapters import sets
from ha.adapters.groups import FOR_EVER_MS, Channel, Groups, Wanted
from ha.adapters.lease_page import NOBODY, Process
from ha.model import NO_KEY, Engine, EngineState, GroupId, NodeName, Operation, Outcome, ServiceMap
from ha.policy import Policy

log = logging.getLogger(__name__)

QUESTIONS: Final = 7
"""How many questions are asked in the time after which a data plane counts as hung."""
AGAIN_S: Final = 0.05
"""Between two attempts to connect: one that comes back is found at once, and one that is not there costs little."""
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Connection(Channel, Protocol):
    """A channel to the data plane, and who is at its other end."""

    @property
    def peer_pid(self) -> int:
        """The process that listens there."""

    async def close(self) -> None:
        """End it; calls under way end as lost."""


@dataclass(slots=True)
class Incarnation:
    """One life of a data plane.  ``handle`` is its pidfd; it becomes readable when the process has ended."""

    process: Process
    key: int
    handle: int
    ended: bool = False
    answered_at: int | None = None
    built: int = 0

    @classmethod
    def of(cls, array: str, node: NodeName, pid: int) -> Incarnation:
        """Raises ``OSError`` when there is no such process."""
        handle = os.pidfd_open(pid)
        try:
            process = Process.of(pid)
            if process is None:
                raise ProcessLookupError(f"process {pid} has ended")
            life = keys.life_of(BOOT.read_text(encoding="ascii").strip(), pid, process.started)
        except BaseException:
            os.close(handle)
            raise
        return cls(process, keys.make_key(array, node, life), handle)

    def gone(self) -> bool:
        """Whether the process has ended, asked of the kernel."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)


class EngineAccess:
    """See the module.  ``connect`` makes a connection or raises ``Ws7000Error``; ``news`` is called when something has
    changed that ``decide`` should see at once; ``meet`` gets each new connection with the key of its incarnation,
    and None when it has ended."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        array: str,
        node: NodeName,
        policy: Policy,
        clock: Callable[[], int],
        *,
        news: Callable[[], None],
        meet: Callable[[Connection | None, int], None] = lambda _connection, _key: None,
    ) -> None:
        self._connect = connect
        self._array = array
        self._node: NodeName = node
        self._policy = policy
        self._clock = clock
        self._news = news
        self._meet = meet
        self._life: Incarnation | None = None
        self._wanted = Wanted()
        self._connection: Connection | None = None
        self._groups: Groups | None = None
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why there is no data plane, or no connection to it."""

    # -- what is seen

    def engine(self) -> Engine:
        """The data plane as last seen."""
        life, groups = self._life, self._groups
        if life is None:
            return Engine()
        if life.ended:
            return Engine(state=EngineState.DEAD, key=life.key)
        return Engine(
            state=EngineState.ALIVE,
            key=life.key,
            answered_at=life.answered_at,
            built=life.built,
            raised=groups.raised if groups is not None else frozenset(),
            drained=groups.drained if groups is not None else frozenset(),
        )

    @property
    def problems(self) -> dict[str, str]:
        """Per NQN: why its groups are not yet as wanted."""
        return dict(self._groups.problems) if self._groups is not None else {}

    @property
    def process(self) -> Process:
        """That of the incarnation that lives; nobody where none does."""
        return self._life.process if self._life is not None and not self._life.ended else NOBODY

    # -- what is to be done

    def want(self, serve: frozenset[GroupId], drain: frozenset[GroupId], of: ServiceMap) -> None:
        """Raise ``serve``, lower all others, end the I/O of ``drain``; kept over connections."""
        self._wanted = Wanted(serve, drain, tuple(sorted(of.groups.items(), key=lambda one: one[0])))
        if self._groups is not None:
            self._groups.want(self._wanted)

    def built(self, generation: int) -> None:
        """The incarnation that lives has the objects of that generation; its listeners may be new ones."""
        if self._life is not None:
            self._life.built = generation
        if self._groups is not None:
            self._groups.forget()
        self._news()

    def kill(self, key: int) -> bool:
        """End the incarnation with that key, and no other; whether it was there to be killed."""
        life = self._life
        if life is None or life.key != key or life.ended:
            return False
        life.kill()
        return True

    async def run(self, operation: Operation) -> Outcome:
        """Carry out ``Load``, ``DetachDrives`` or ``Rebuild``; the outcome comes in any case."""
        if self._connection is None or self._groups is None or self._life is None or self._life.ended:
            return Outcome(number=operation.number, ok=False, problem=self.problem or "there is no data plane")
        return await sets.run(operation, self._connection, self._groups.lock)

    async def whole(self, of: ServiceMap) -> frozenset[GroupId]:
        """The groups in whose mirrors no leg is missing; none where that cannot be seen."""
        return await sets.whole(of, self._connection) if self._connection is not None else frozenset()

    # -- its life

    def start(self) -> None:
        """Look for the data plane from now on."""
        self._task = asyncio.create_task(self._live())

    async def close(self) -> None:
        """Let go of it; it goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._release()

    async def _live(self) -> None:
        while True:
            try:
                connection = await self._connect()
            except Ws7000Error as problem:
                self.problem = str(problem)
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                await self._with(connection)
            except (Ws7000Error, OSError) as problem:
                self.problem = str(problem)
            finally:
                await self._part(connection)
            await asyncio.sleep(AGAIN_S)

    async def _with(self, connection: Connection) -> None:
        """One connection, from its first answer to its end."""
        life = self._life
        if life is None or life.ended or life.gone() or life.process.pid != connection.peer_pid:
            fresh = Incarnation.of(self._array, self._node, connection.peer_pid)
            try:
                await connection.run(framework.get_version(), FOR_EVER_MS)
                await self._end_of_the_last()
            except BaseException:
                os.close(fresh.handle)
                raise
            self._release()
            life = self._life = fresh
            asyncio.get_running_loop().add_reader(fresh.handle, self._ended, fresh)
        else:
            await connection.run(framework.get_version(), FOR_EVER_MS)
        self.problem = ""
        self._connection = connection
        self._groups = Groups(connection, self._node, self._news)
        self._groups.want(self._wanted)
        self._meet(connection, life.key)
        await self._question(connection, life)

    async def _question(self, connection: Connection, life: Incarnation) -> None:
        """One question after the other; a hung data plane leaves the one that it was asked unanswered."""
        while True:
            sent_at = self._clock()
            await connection.run(framework.get_version(), FOR_EVER_MS)
            first, life.answered_at = life.answered_at is None, sent_at
            if first:
                self._news()
            await asyncio.sleep(self._policy.engine_ms / QUESTIONS / 1000)

    async def _end_of_the_last(self) -> None:
        """A data plane whose socket now belongs to another can be told nothing any more, so it must not serve."""
        life = self._life
        if life is None:
            return
        while not life.ended:
            if life.gone():
                self._ended(life)
            else:
                log.warning("process %d has lost its socket to another data plane: killed", life.process.pid)
                life.kill()
                await asyncio.sleep(AGAIN_S)
        # Let the death be seen before the next incarnation is.
        await asyncio.sleep(0)

    def _ended(self, life: Incarnation) -> None:
        asyncio.get_running_loop().remove_reader(life.handle)
        if not life.ended:
            life.ended = True
            self.problem = f"process {life.process.pid} has ended"
            self._news()

    async def _part(self, connection: Connection) -> None:
        groups, self._groups = self._groups, None
        if self._connection is not None:
            self._connection = None
            self._meet(None, NO_KEY)
        if groups is not None:
            await groups.close()
        await connection.close()

    def _release(self) -> None:
        if self._life is not None:
            asyncio.get_running_loop().remove_reader(self._life.handle)
            os.close(self._life.handle)
            self._life = None
