"""Shelf, two nodes with agents and a host, each on a machine of its own, and data addresses that the agents move.

The nodes hear each other over a cable of their own; drives and hosts are on the switch.  The array is applied as
people do it, and the agents' configuration is made from it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ha_lab import VOLUMES, HaLab
from namespaces import Machines, machines
from small_lab import array_in, small_lab

from cli.ha.agent_config import agent_config, write_secret
from controlplane.domain.desired import Array, HaIntent, HaMode, HaPolicy, Node, Port, Shelf, Takeover
from controlplane.domain.state import State
from controlplane.planner.plan import Consent
from dataplane.embedded.initiator.host import HostConnection
from dataplane.launch import EngineKind
from ha.model import NODES, NodeName, other

SERVICE: Final = 4420
CABLE: Final = "beat0"
PREFIX: Final = 24
FIXED: Final = {"a": "192.0.2.2", "b": "192.0.2.3", "shelf": "192.0.2.10", "host": "192.0.2.20"}
DATA: Final[dict[NodeName, str]] = {"a": "192.0.2.100", "b": "192.0.2.101"}
HEARD: Final[dict[NodeName, str]] = {"a": "198.51.100.1", "b": "198.51.100.2"}


def array(folder: Path, policy: str) -> Array:
    """The small array with agents, data addresses that move, and heartbeats over the cable."""
    plain = array_in(folder, *VOLUMES)

    def node(name: NodeName, given: Node) -> Node:
        port = Port(
            transport="tcp", address=DATA[name], service=SERVICE, family="ipv4",
            takeover=Takeover(interface="eth0", prefix=PREFIX),
        )  # fmt: skip
        return replace(given, ports=(port,), agent=str(folder / f"{name}.agent"), heartbeat_addresses=(HEARD[name],))

    return replace(
        plain,
        nodes=tuple(node(each.name, each) for each in plain.nodes),
        shelf=Shelf(address=FIXED["shelf"], service=SERVICE),
        ha=HaMode.ACTIVE_ACTIVE,
        ha_intent=HaIntent(policy=HaPolicy(policy), quorum_drives=3, secret_file=str(folder / "secret")),
    )


@dataclass(slots=True)
class NetLab(HaLab):
    """``net`` are the machines: a, b, shelf and host."""

    net: Machines = field(kw_only=True)

    def configure(self) -> None:
        """As ``ws7000 ha agent`` does; which links there are is not asked, for sysfs shows those of another machine."""
        assert self.lab.array.ha_intent is not None
        write_secret(Path(self.lab.array.ha_intent.secret_file))
        for node in NODES:
            self.folder(node).mkdir()
            config = replace(agent_config(self.lab.array, node, self.lab.folder), interfaces=())
            (self.folder(node) / "config.json").write_text(config.to_json(), encoding="utf-8")

    def form(self) -> State:
        """Apply; also after a data plane was started anew."""
        with self.lab.reconciler() as reconciler:
            return reconciler.apply(Consent(everything=True)).state

    def silence(self, node: NodeName) -> None:
        """All links of the node go down; it runs on."""
        self.net.down(node)
        self.net.down(node, CABLE)

    def plug_in(self, node: NodeName) -> None:
        """And up again."""
        self.net.up(node)
        self.net.up(node, CABLE)

    def deafen(self, node: NodeName) -> None:
        """The node hears no heartbeat any more, and is heard."""
        self.net.mislead(other(node), HEARD[node], CABLE)

    def at(self, node: NodeName) -> set[NodeName]:
        """The machines that have the data address of that node."""
        return {name for name in NODES if self.net.has(name, DATA[node])}


@contextmanager
def net_lab(kind: EngineKind, folder: Path, policy: str) -> Iterator[tuple[NetLab, State]]:
    """Each node serves its own groups and has its own address."""
    with machines(*FIXED) as net:
        for name, address in FIXED.items():
            net.address(name, f"{address}/{PREFIX}")
        net.cable("a", "b", CABLE)
        for node in NODES:
            net.address(node, f"{HEARD[node]}/{PREFIX}", CABLE)
            net.serve_from_anywhere(node)
        with small_lab(kind, folder, array=array(folder, policy), on=net.on) as lab:
            made = NetLab(lab, policy, net=net)
            try:
                made.configure()
                for node in NODES:
                    made.start_agent(node)
                state = made.form()
                made.settled()
                while made.at("a") != {"a"} or made.at("b") != {"b"}:
                    pass
                yield made, state
            except BaseException as problem:
                problem.add_note(made.show())
                raise
            finally:
                made.close()


class Writer:
    """Writes tagged blocks to volumes, round and round, each once the one before it was acknowledged; an error ends
    it."""

    BLOCKS: Final = 32

    def __init__(self, connection: HostConnection, state: State, *volumes: str) -> None:
        self._spaces = {name: connection.namespace(state.volumes[name].nsid) for name in volumes}
        self.count = dict.fromkeys(volumes, 0)
        self._more = asyncio.Condition()
        self._ending = False
        self._tasks = [asyncio.create_task(self._write(name)) for name in volumes]

    def _tag(self, name: str, number: int) -> bytes:
        return hashlib.shake_128(f"{name}/{number}".encode()).digest(self._spaces[name].block_size)

    async def _write(self, name: str) -> None:
        while not self._ending:
            number = self.count[name]
            await self._spaces[name].write(number % self.BLOCKS, self._tag(name, number))
            async with self._more:
                self.count[name] += 1
                self._more.notify_all()

    async def goes_on(self) -> None:
        """Return when every volume took each of its blocks once more; raises what a write raised."""
        wanted = {name: count + self.BLOCKS for name, count in self.count.items()}

        async def reached() -> None:
            async with self._more:
                await self._more.wait_for(lambda: all(self.count[name] >= wanted[name] for name in wanted))

        waiting = asyncio.create_task(reached())
        done, _ = await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        assert waiting in done

    async def end(self) -> None:
        """Stop, and hold what is stored against what was acknowledged last."""
        self._ending = True
        await asyncio.gather(*self._tasks)
        for name, space in self._spaces.items():
            for place in range(self.BLOCKS):
                number = (self.count[name] - 1 - place) // self.BLOCKS * self.BLOCKS + place
                assert bytes(await space.read(place, 1)) == self._tag(name, number), (name, place)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; it is asked in a thread, so the host goes on."""
    while not await asyncio.to_thread(condition):
        pass
