"""Two nodes that attach the drives of two shelves, and the HA manager's access to them; the second shelf can be hung.

Everything is a real process; tests wait for what the connection or the drives show."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from dataplane.rpc.methods import framework, nvme, nvmf
from dataplane.rpc.mux import Mux
from ha.adapters.commands import Commands, Controllers
from ha.adapters.drives import DriveAccess
from ha.keys import life_of, make_key
from ha.model import Answer, NodeName, Operation, Outcome, Record, ServiceMap, Work
from ha.policy import SLOW, Policy

ARRAY = "lab"
LOCAL = "127.0.0.1"
BLOCK = 512
HOSTNQN = "nqn.2026-01.io.ws7000:host:fencing-{}"
PATIENT_MS = 60_000
"""For work that has to succeed on a busy machine."""
HUNG_MS = 1_500
"""For work that is to be given up."""
UUID = "0a000000-0000-4000-8000-000000000001"


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def key_of(node: NodeName, life: int = 1) -> int:
    return make_key(ARRAY, node, life_of(node, life))


def record(sequence: int = 1, epoch: int = 1, **more: Any) -> Record:
    return Record(
        array_uuid=UUID, epoch=epoch, sequence=sequence, leader="a", owners={}, members={"a": key_of("a")}, **more
    )


class Side:
    """One node's access to the drives."""

    def __init__(self, node: NodeName, mux: Mux, access: DriveAccess) -> None:
        self.node, self.mux, self.access = node, mux, access
        self.key = key_of(node)
        self.raw = Commands(mux, Controllers(mux, now_ms))
        """Commands of the node beside its access."""
        self._number = 0

    async def run(self, work: Work, deadline_ms: int = PATIENT_MS) -> Outcome:
        self._number += 1
        outcome = await self.access.run(Operation(number=self._number, work=work, deadline_ms=deadline_ms))
        assert outcome.number == self._number
        return outcome

    async def answers(self, work: Work, deadline_ms: int = PATIENT_MS) -> dict[str, Answer]:
        return dict((await self.run(work, deadline_ms)).answers)

    async def lives(self) -> bool:
        """Whether the engine answers over this very connection."""
        return bool((await self.mux.run(framework.get_version(), PATIENT_MS)).text)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; the engine is asked something meanwhile, so that time passes for it too."""
        while not condition():
            await self.lives()


class FencingLab:
    """``nodes`` a and b, ``shelves`` 0 and 1."""

    def __init__(self, nodes: dict[NodeName, Any], shelves: tuple[Any, Any], folder: Path) -> None:
        self.nodes, self.shelves, self.folder = nodes, shelves, folder
        self.drives: list[str] = []
        for each in (*nodes.values(), *shelves):
            if not each.run(nvmf.get_transports()):
                each.run(nvmf.create_transport("TCP"))

    def add(self, count: int, shelf: int = 0, through: Callable[[int], int] = lambda port: port) -> tuple[str, ...]:
        """Drives on a shelf, attached by both nodes; ``through`` gives the port to attach at."""
        port = 0
        names = tuple(f"d{len(self.drives) + n}" for n in range(count))
        for name in names:
            self.shelves[shelf].malloc(name, 1)
            port = self.export(name, shelf, port)
        for node in self.nodes:
            self.attach(node, names, through(port) if node == "a" else port)
        self.drives += names
        return names

    def export(self, name: str, shelf: int = 0, port: int = 0) -> int:
        """A device of a shelf as a drive; the port."""
        engine, nqn = self.shelves[shelf], self.nqn(name)
        engine.subsystem(nqn, allow_any_host=True)
        engine.run(
            nvmf.add_ns(
                nqn, bdev_name=name, nsid=1, nguid=uuid.uuid4().hex, uuid=str(uuid.uuid4()), ana_group=1,
                auto_visible=True, ptpl_file=str(self.folder / f"{shelf}-{name}.json"),
            )
        )  # fmt: skip
        return int(engine.listen(nqn, None, port or None))

    def attach(self, node: NodeName, names: tuple[str, ...], port: int) -> None:
        """Drives of one shelf, all at once."""
        calls = [
            nvme.attach_controller_tcp(
                name, address=LOCAL, port=port, subnqn=self.nqn(name), hostnqn=HOSTNQN.format(node), io_queues=1
            )
            for name in names
        ]
        self.nodes[node].session.run_all(calls)

    def nqn(self, drive: str) -> str:
        return f"nqn.2026-01.io.ws7000:contract:fencing-{drive}"

    @contextmanager
    def hung(self, shelf: int = 1) -> Iterator[Callable[[], None]]:
        """The shelf does not answer until the given function, or the end, lets it go on."""
        pid = self.shelves[shelf].process.process.pid

        def go_on() -> None:
            os.kill(pid, signal.SIGCONT)

        os.kill(pid, signal.SIGSTOP)
        try:
            yield go_on
        finally:
            go_on()

    def map(self, quorum: int = 5) -> ServiceMap:
        return ServiceMap(
            array_uuid=UUID, generation=1, quorum=tuple(self.drives[:quorum]),
            block_bytes=dict.fromkeys(self.drives, BLOCK),
        )  # fmt: skip

    @asynccontextmanager
    async def side(self, node: NodeName, policy: Policy = SLOW, quorum: int = 5) -> AsyncIterator[Side]:
        """The access of a node, with its lanes running."""
        async with self.connected(node) as mux:
            access = DriveAccess(mux, ARRAY, node, policy, now_ms)
            side = Side(node, mux, access)
            access.use(self.map(quorum), side.key)
            try:
                yield side
            finally:
                await access.close()

    @asynccontextmanager
    async def connected(self, node: NodeName) -> AsyncIterator[Mux]:
        """A connection to the engine of a node."""
        mux = await Mux.connect(self.nodes[node].process.socket, deadline_ms=PATIENT_MS)
        try:
            yield mux
        finally:
            await mux.close()

    def play(
        self, story: Callable[[Side, Side], Awaitable[None]], policy: Policy = SLOW, quorum: int = 5
    ) -> None:  # fmt: skip
        """The story of both nodes."""

        async def whole() -> None:
            async with asyncio.timeout(120), self.side("a", policy, quorum) as a, self.side("b", policy, quorum) as b:
                await story(a, b)

        asyncio.run(whole())

    def close(self) -> None:
        """Nodes before the shelves, as one would."""
        for each in (*self.nodes.values(), *self.shelves):
            each.sweep()
