"""The data plane as the agent holds it: a real engine of either kind, that is raised, stopped, killed and restarted."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dataplane.embedded.initiator.host import Host
from dataplane.launch import EngineKind, EngineProcess, free_ports
from dataplane.rpc.call import Call
from dataplane.rpc.methods import bdev, nvmf, raid
from dataplane.rpc.mux import Mux
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress
from ha import keys
from ha.adapters.engine import EngineAccess
from ha.model import (
    Answer,
    DetachDrives,
    EngineState,
    GroupId,
    GroupMap,
    ListenerAt,
    Load,
    NamespaceMap,
    Operation,
    Rebuild,
    ServiceMap,
)
from ha.policy import FAST

NQN = "nqn.2026-01.io.ws7000:test:engine-access"
HOST = "nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111"
ONE, TWO = GroupId("default", 1), GroupId("default", 2)
MIB = 1 << 20
BLOCK = 512
T = TypeVar("T")
NONE: frozenset[GroupId] = frozenset()


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Lab:
    """One engine; two namespaces on two mirrors, namespace 1 in group 1 and 2 in group 2."""

    def __init__(self, kind: EngineKind, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "engine.sock"
        self.number = free_ports(1)[0]
        self.engine = EngineProcess.start(kind, self.path, core=1).ready()

    def restart(self) -> None:
        self.engine.kill()
        self.path.unlink(missing_ok=True)
        self.engine = EngineProcess.start(self.kind, self.path, core=1).ready()

    def run(self, *calls: Call[Any]) -> list[Any]:
        with Session(self.path) as session:
            return [session.run(call) for call in calls]

    def build(self) -> None:
        """What the control plane makes."""
        legs = [f"leg{number}" for number in range(4)]
        self.run(
            *(bdev.malloc_create(leg, block_size_bytes=BLOCK, size_bytes=4 * MIB) for leg in legs),
            raid.create("set1", level="raid1", base_bdevs=legs[:2], uuid=str(uuid.uuid4())),
            raid.create("set2", level="raid1", base_bdevs=legs[2:], uuid=str(uuid.uuid4())),
            # The write is done below at once, and its end is held back for two seconds.
            Call("bdev_delay_create", {"base_bdev_name": "set1", "name": "slow", "avg_read_latency": 0,
                                       "p99_read_latency": 0, "avg_write_latency": 2_000_000,
                                       "p99_write_latency": 2_000_000}),
            nvmf.create_transport("TCP"),
            nvmf.create_subsystem(NQN, serial_number="SN", model_number="WS7000", max_namespaces=8, min_cntlid=1,
                                  max_cntlid=100, allow_any_host=True),
            *(nvmf.add_ns(NQN, bdev_name=name, nsid=nsid, nguid=f"{nsid:032x}", uuid=str(uuid.uuid4()),
                          ana_group=nsid, auto_visible=True) for nsid, name in ((1, "slow"), (2, "set2"))),
            nvmf.add_listener(NQN, ListenAddress.of("tcp", "127.0.0.1", self.number)),
        )  # fmt: skip

    def states(self) -> dict[int, str]:
        """ANA state by group."""
        ((listener,),) = self.run(nvmf.get_listeners(NQN))
        return {number: listener.ana_states[number] for number in (1, 2)}

    @property
    def map(self) -> ServiceMap:
        here = (ListenerAt(transport="tcp", address="127.0.0.1", service=self.number),)
        return ServiceMap(
            array_uuid=str(uuid.UUID(int=1)),
            generation=1,
            quorum=("d0",),
            block_bytes={"d0": BLOCK},
            groups={
                group: GroupMap(
                    nqn=NQN,
                    listeners={"a": here},
                    namespaces=(NamespaceMap(nsid=group.number, volume=f"v{group.number}"),),
                )
                for group in (ONE, TWO)
            },
        )


@pytest.fixture
def lab(kind: EngineKind, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(kind, tmp_path)
    try:
        yield made
    finally:
        made.engine.stop()


class Heard(Mux):
    """A connection that notes down what goes over it, in order."""

    calls: list[Call[Any]]

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        self.__dict__.setdefault("calls", []).append(call)
        return await super().run(call, deadline_ms)


class Held:
    """An access under way, and how to wait for what it shows."""

    def __init__(self, access: EngineAccess, channels: list[Heard]) -> None:
        self.access = access
        self.channels = channels

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0)

    async def alive(self) -> int:
        """The key of the incarnation that has answered."""
        await self.until(
            lambda: self.access.engine().state is EngineState.ALIVE and self.access.engine().answered_at is not None
        )
        return self.access.engine().key

    def sent(self, method: str) -> list[dict[str, Any]]:
        return [call.params for channel in self.channels for call in channel.calls if call.method == method]


@asynccontextmanager
async def holding(lab: Lab) -> AsyncIterator[Held]:
    channels: list[Heard] = []

    async def connect() -> Heard:
        made = await Heard.connect(lab.path)
        assert isinstance(made, Heard)
        channels.append(made)
        return made

    access = EngineAccess(connect, "lab", "a", FAST, now_ms, news=lambda: None)
    access.start()
    try:
        yield Held(access, channels)
    finally:
        await access.close()


def play(lab: Lab, story: Callable[[Held], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), holding(lab) as held:
            await story(held)

    asyncio.run(whole())


def operation(work: Any, deadline_ms: int | None = 20_000) -> Operation:
    return Operation(number=7, work=work, deadline_ms=deadline_ms)  # type: ignore[arg-type]


# ------------------------------------------------------------------ incarnations


def test_an_incarnation_has_one_key_and_its_end_is_seen(lab: Lab) -> None:
    found: list[int] = []

    async def story(held: Held) -> None:
        key = await held.alive()
        found.append(key)
        assert keys.node_of("lab", key) == "a"
        assert held.access.process.pid == lab.engine.process.pid
        assert held.access.kill(key + 1) is False
        assert lab.engine.running
        held.access.built(5)
        assert held.access.engine().built == 5
        assert held.access.kill(key) is True
        await held.until(lambda: held.access.engine().state is EngineState.DEAD)
        assert held.access.engine().key == key
        assert held.access.kill(key) is False
        assert held.access.process.pid == 0
        await asyncio.to_thread(lab.restart)
        await held.until(lambda: held.access.engine().state is EngineState.ALIVE)
        assert held.access.engine().built == 0
        found.append(await held.alive())

    play(lab, story)
    assert found[0] != found[1]

    async def again(held: Held) -> None:
        assert await held.alive() == found[1], "an agent that is started again finds the key of what runs"

    play(lab, again)


def test_a_stopped_engine_answers_nothing_and_is_asked_once(lab: Lab) -> None:
    async def story(held: Held) -> None:
        key = await held.alive()
        lab.engine.process.send_signal(signal.SIGSTOP)
        # Once its last answer has been read, one question is on its way and stays so.
        asked = -1
        while asked != len(held.sent("spdk_get_version")):
            asked = len(held.sent("spdk_get_version"))
            before = held.access.engine().answered_at
            await asyncio.wait((asyncio.create_task(held.until(
                lambda before=before: held.access.engine().answered_at != before)),), timeout=0.3)  # type: ignore[misc] # fmt: skip
        assert held.access.engine().state is EngineState.ALIVE
        stopped_at = held.access.engine().answered_at
        assert stopped_at is not None
        lab.engine.process.send_signal(signal.SIGCONT)
        await held.until(lambda: (held.access.engine().answered_at or 0) > stopped_at)
        assert held.access.engine().key == key

    play(lab, story)


def test_an_engine_whose_socket_another_took_is_ended(lab: Lab) -> None:
    async def story(held: Held) -> None:
        key = await held.alive()
        lab.engine.process.send_signal(signal.SIGSTOP)
        first = lab.engine
        beside = lab.path.with_name("beside.sock")
        lab.engine = await asyncio.to_thread(lambda: EngineProcess.start(lab.kind, beside, core=0).ready())
        beside.replace(lab.path)
        first.process.send_signal(signal.SIGCONT)
        await held.channels[-1].close()
        await held.until(lambda: held.access.engine().key not in (0, key))
        assert held.access.process.pid == lab.engine.process.pid
        assert await asyncio.to_thread(first.process.wait) == -signal.SIGKILL

    play(lab, story)


# ------------------------------------------------------------------ groups


def test_groups_are_raised_and_lowered_as_wanted(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        await held.alive()
        held.access.want(frozenset({ONE}), NONE, lab.map)
        await held.until(lambda: held.access.engine().raised == {ONE})
        assert await asyncio.to_thread(lab.states) == {1: "optimized", 2: "inaccessible"}
        held.access.want(frozenset({TWO}), NONE, lab.map)
        await held.until(lambda: held.access.engine().raised == {TWO})
        assert await asyncio.to_thread(lab.states) == {1: "inaccessible", 2: "optimized"}
        assert held.access.engine().drained == NONE, "nobody asked for a drain"
        held.access.want(NONE, frozenset({TWO}), lab.map)
        await held.until(lambda: held.access.engine().drained == {TWO})
        assert held.access.engine().raised == NONE
        assert held.access.problems == {}

    play(lab, story)


def test_a_raise_that_is_not_wanted_any_more_is_not_sent(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        await held.alive()
        held.access.want(NONE, NONE, lab.map)
        await held.until(lambda: len(held.sent("nvmf_subsystem_listener_set_ana_state")) == 2)
        held.access.want(frozenset({ONE, TWO}), NONE, lab.map)
        held.access.want(frozenset({TWO}), NONE, lab.map)
        await held.until(lambda: held.access.engine().raised == {TWO})
        raised = [
            params["anagrpid"]
            for params in held.sent("nvmf_subsystem_listener_set_ana_state")
            if params["ana_state"] == "optimized"
        ]
        assert raised == [2]

    play(lab, story)


def test_nothing_is_claimed_over_a_new_connection(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        key = await held.alive()
        held.access.want(frozenset({ONE}), NONE, lab.map)
        await held.until(lambda: held.access.engine().raised == {ONE})
        await held.channels[-1].close()
        await held.until(lambda: held.access.engine().raised == NONE)
        await held.until(lambda: held.access.engine().raised == {ONE})
        assert len(held.channels) == 2
        assert held.access.engine().key == key

    play(lab, story)


def test_a_drain_waits_for_the_io_of_its_namespace(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        await held.alive()
        held.access.want(frozenset({ONE, TWO}), NONE, lab.map)
        await held.until(lambda: held.access.engine().raised == {ONE, TWO})
        async with Host(HOST) as host:
            connection = await host.connect(NQN, [("127.0.0.1", lab.number)])
            writing = asyncio.create_task(connection.namespace(1).write(0, bytes(BLOCK)))
            while await asyncio.to_thread(writes, lab, "set1") == 0:
                pass
            assert await asyncio.to_thread(writes, lab, "slow") == 0, "it is on its way"
            held.access.want(NONE, frozenset({ONE, TWO}), lab.map)
            await held.until(lambda: ONE in held.access.engine().drained)
            assert await asyncio.to_thread(writes, lab, "slow") == 1, "it has ended"
            await held.until(lambda: held.access.engine().drained == {ONE, TWO})
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    play(lab, story)


def writes(lab: Lab, name: str) -> int:
    """Writes that the device has finished."""
    (stats,) = lab.run(Call("bdev_get_iostat", {"names": [name]}))
    return int(stats["bdevs"][0]["num_write_ops"])


def test_what_is_not_there_is_lowered_and_drained_and_not_raised(lab: Lab) -> None:
    async def story(held: Held) -> None:
        await held.alive()
        held.access.want(NONE, frozenset({ONE, TWO}), lab.map)
        await held.until(lambda: held.access.engine().drained == {ONE, TWO})
        held.access.want(frozenset({ONE}), NONE, lab.map)
        await held.until(lambda: NQN in held.access.problems)
        assert held.access.engine().raised == NONE
        await asyncio.to_thread(lab.build)
        await held.until(lambda: held.access.engine().raised == {ONE})
        held.access.built(1)
        assert held.access.engine().raised == NONE, "its listeners may be new ones"
        await held.until(lambda: held.access.engine().raised == {ONE})
        assert held.access.problems == {}

    play(lab, story)


# ------------------------------------------------------------------ operations


def legs(lab: Lab, name: str) -> set[str]:
    (found,) = lab.run(raid.get_bdevs())
    return {base.name for each in found if each.name == name for base in each.bases if base.configured}


def test_load_takes_legs_out_and_hides_volumes(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        await held.alive()
        held.access.want(NONE, NONE, lab.map)
        work = Load(drop=(("set1", "leg1"), ("set2", "leg3")), refuse=((NQN, 2),))
        for _ in range(2):
            outcome = await held.access.run(operation(work))
            assert (outcome.number, outcome.ok, outcome.problem) == (7, True, "")
        assert await asyncio.to_thread(legs, lab, "set1") == {"leg0"}
        assert await asyncio.to_thread(legs, lab, "set2") == {"leg2"}
        (subsystem,) = await asyncio.to_thread(lab.run, nvmf.get_subsystem(NQN))
        assert [space.nsid for space in subsystem.namespaces] == [1]
        rebuilt = await held.access.run(operation(Rebuild(groups=frozenset({ONE}), add=(("set1", "leg1"),)), None))
        assert rebuilt.problem == ""
        assert rebuilt.ok
        assert await asyncio.to_thread(legs, lab, "set1") == {"leg0", "leg1"}

    play(lab, story)


def test_work_that_cannot_be_done_says_why(lab: Lab) -> None:
    lab.build()

    async def story(held: Held) -> None:
        await held.alive()
        bad = await held.access.run(operation(Rebuild(groups=frozenset({ONE}), add=(("set1", "no-such"),)), None))
        assert not bad.ok
        assert bad.problem
        gone = await held.access.run(operation(DetachDrives(drives=("d7", "d8"))))
        assert gone.answers == {"d7": Answer.OK, "d8": Answer.OK}
        assert gone.ok
        lab.engine.process.send_signal(signal.SIGSTOP)
        late = await held.access.run(operation(Load(drop=(("set1", "leg1"),)), 100))
        silent = await held.access.run(operation(DetachDrives(drives=("d7",)), 100))
        assert not late.ok
        assert silent.answers == {"d7": Answer.SILENT}
        lab.engine.kill()
        await held.until(lambda: held.access.engine().state is EngineState.DEAD)
        lost = await held.access.run(operation(Load()))
        assert not lost.ok
        assert lost.problem

    play(lab, story)
