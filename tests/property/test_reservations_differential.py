"""Random reservation commands of three hosts: our rules against the specification, our engine against SPDK.

The first machine knows nothing of the code: it is the state of a namespace as NVMe base 2.0c section 8.19 describes
it.  What SPDK does otherwise (see ``dataplane.embedded.nvmf.reservations``) it leaves out.  The second sends the same
commands to both engines and compares statuses, reports and notifications after each.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from reserving import Party, host_uuid

from dataplane.embedded.nvmf import reservations as rules
from dataplane.embedded.nvmf.reservations import State, Who
from dataplane.launch import EngineKind, EngineProcess, find_spdk, free_ports
from dataplane.nvme import commands
from dataplane.nvme import reservations as wire
from dataplane.nvme.reservations import AcquireAction, RegisterAction, ReleaseAction, ReservationType
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev, nvmf
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress

HOSTS = ("a", "b", "c")
NQN = "nqn.2026-01.io.ws7000:property:reservations"
UUID = "5e000000-0000-4000-8000-000000000002"

hosts = st.sampled_from(HOSTS)
keys = st.integers(0, 3)
types = st.integers(1, 6)
OK, CONFLICT, INVALID = Status.SUCCESS, Status.RESERVATION_CONFLICT, Status.INVALID_FIELD


class Specified(RuleBasedStateMachine):
    """``keys`` of the registrants, ``rtype``, and who are ``holders``: all that section 8.19 speaks of."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.keys: dict[str, int] = {}
        self.rtype = 0
        self.holder: str | None = None

    @property
    def holders(self) -> set[str]:
        if self.rtype in (5, 6):
            return set(self.keys)
        return {self.holder} if self.rtype and self.holder else set()

    def end(self) -> None:
        self.rtype, self.holder = 0, None

    def remove(self, gone: set[str]) -> None:
        """A reservation ends with its last holder."""
        last = bool(self.holders) and self.holders <= gone
        for name in gone:
            self.keys.pop(name, None)
        if last:
            self.end()

    def run(self, host: str, built: tuple[commands.Command, bytes], expected: Status) -> None:
        """Our rules come to the same status and the same state."""
        command, data = built
        hostid = host_uuid(host).bytes
        if rules.permits(self.state, hostid, command):
            outcome = rules.apply(self.state, Who(hostid, 1), command, data, can_persist=False)
            status, self.state = outcome.status, outcome.state
        else:
            status = CONFLICT
        assert status == expected
        assert {item.hostid: item.key for item in self.state.registrations} == {
            host_uuid(name).bytes: key for name, key in self.keys.items()
        }
        assert self.state.rtype == self.rtype
        held = {name for name in HOSTS if self.state.rtype and self.state.holds(host_uuid(name).bytes)}
        assert held == self.holders

    @rule(host=hosts, key=keys)
    def register(self, host: str, key: int) -> None:
        known = self.keys.get(host)
        expected = OK if key == known or (key and known is None) else CONFLICT if known else INVALID
        if expected == OK:
            self.keys[host] = key
        self.run(host, wire.register(1, 0, key), expected)

    @rule(host=hosts, key=keys, ignore=st.booleans())
    def unregister(self, host: str, key: int, ignore: bool) -> None:
        right = host in self.keys and (ignore or self.keys[host] == key)
        if right:
            self.remove({host})
        built = wire.register(1, key, 0, RegisterAction.UNREGISTER, ignore_existing=ignore)
        self.run(host, built, OK if right else CONFLICT)

    @rule(host=hosts, key=keys, new=st.integers(1, 3), ignore=st.booleans())
    def replace_key(self, host: str, key: int, new: int, ignore: bool) -> None:
        right = ignore or self.keys.get(host) == key
        if right:
            self.keys[host] = new
        built = wire.register(1, key, new, RegisterAction.REPLACE, ignore_existing=ignore)
        self.run(host, built, OK if right else CONFLICT)

    @rule(host=hosts, key=keys, rtype=types)
    def acquire(self, host: str, key: int, rtype: int) -> None:
        expected = CONFLICT
        if host in self.keys and self.keys[host] == key:
            if not self.rtype:
                self.rtype, self.holder, expected = rtype, host, OK
            elif host in self.holders and self.rtype == rtype:
                expected = OK
        self.run(host, wire.acquire(1, key, ReservationType(rtype)), expected)

    @rule(host=hosts, key=keys, rtype=types, victim=keys, abort=st.booleans())
    def preempt(self, host: str, key: int, rtype: int, victim: int, abort: bool) -> None:
        matching = {name for name, known in self.keys.items() if known == victim}
        expected = OK if host in self.keys and self.keys[host] == key else CONFLICT
        if expected == OK:
            if self.rtype in (5, 6):
                if victim == 0:
                    rtype = self.rtype  # SPDK keeps the type
                    self.remove(set(self.keys) - {host})
                elif matching:
                    self.remove(matching)
                else:
                    expected = CONFLICT
            elif self.rtype and victim == 0:
                expected = CONFLICT
            elif self.rtype and matching & self.holders:
                if self.holder != host:  # the holder that preempts itself changes its type alone
                    self.remove(matching - {host})
                self.rtype, self.holder = rtype, host
            else:
                self.remove(matching)  # SPDK takes a key that nobody has, too
        action = AcquireAction.PREEMPT_AND_ABORT if abort else AcquireAction.PREEMPT
        self.run(host, wire.acquire(1, key, ReservationType(rtype), action, preempt_key=victim), expected)

    @rule(host=hosts, key=keys, rtype=types)
    def release(self, host: str, key: int, rtype: int) -> None:
        expected = OK if host in self.keys and self.keys[host] == key else CONFLICT
        if expected == OK and self.rtype:
            if self.rtype != rtype:
                expected = INVALID
            elif host in self.holders:
                self.end()
        self.run(host, wire.release(1, key, ReservationType(rtype)), expected)

    @rule(host=hosts, key=keys)
    def clear(self, host: str, key: int) -> None:
        right = host in self.keys and self.keys[host] == key
        if right:
            self.remove(set(self.keys))
        built = wire.release(1, key, ReservationType.NONE, ReleaseAction.CLEAR)
        self.run(host, built, OK if right else CONFLICT)

    @rule(host=hosts)
    def read_and_write(self, host: str) -> None:
        registered, holder = host in self.keys, host in self.holders
        reads = self.rtype in (0, 1, 3, 5) or holder or (registered and self.rtype == 4)
        writes = not self.rtype or holder or (registered and self.rtype in (3, 4))
        hostid = host_uuid(host).bytes
        assert rules.permits(self.state, hostid, commands.read(1, 0, 1, 512)) == reads
        assert rules.permits(self.state, hostid, commands.write(1, 0, 1, 512)) == writes


TestSpecified = Specified.TestCase
TestSpecified.settings = settings(stateful_step_count=40, deadline=None)


class Served:
    """An engine with one namespace, and three hosts that are connected to it."""

    def __init__(self, kind: EngineKind, folder: Path, core: int, port: int) -> None:
        self.process = EngineProcess.start(kind, folder / f"{kind}.sock", core=core).ready()
        self.session = Session(self.process.socket, schema=None)
        self.port = port
        self.parties: dict[str, Party] = {}
        self.session.run(nvmf.create_transport("TCP"))
        self.session.run(bdev.malloc_create("m0", block_size_bytes=512, size_bytes=1 << 20, uuid=UUID))
        self.session.run(
            nvmf.create_subsystem(
                NQN, serial_number="S1", model_number="WS7000", max_namespaces=1, allow_any_host=True,
                min_cntlid=1, max_cntlid=0xFFEF,
            )
        )  # fmt: skip
        self.session.run(nvmf.add_listener(NQN, ListenAddress.of("tcp", "127.0.0.1", port), ana_state="optimized"))

    async def begin(self) -> None:
        """A fresh reservation.  SPDK v26.05 ends when the first preempt-and-abort of a namespace is refused."""
        for name in HOSTS:
            self.parties[name] = await Party.connect(name, NQN, self.port)
        first = self.parties["a"]
        assert await first.register(1) == OK
        assert await first.acquire(1, 1, AcquireAction.PREEMPT_AND_ABORT, 9) == OK
        assert await first.register(0, 1, RegisterAction.UNREGISTER) == OK

    async def end(self) -> None:
        """Disconnect."""
        for party in self.parties.values():
            await party.close()

    def again(self, *, add: bool) -> None:
        """Put the namespace in, or take it out."""
        if add:
            call = nvmf.add_ns(
                NQN, bdev_name="m0", nsid=1, nguid=f"{1:032x}", uuid=UUID, ana_group=1, auto_visible=True
            )
            self.session.run(call)
        else:
            self.session.run(nvmf.remove_ns(NQN, 1))

    def stop(self) -> None:
        """End the process."""
        self.session.close()
        self.process.stop()


class Both(RuleBasedStateMachine):
    """The same to two engines."""

    engines: tuple[Served, Served]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()

    @initialize()
    def begin(self) -> None:
        for engine in self.engines:
            engine.again(add=True)
            self.runner.run(engine.begin())

    def teardown(self) -> None:
        for engine in self.engines:
            self.runner.run(engine.end())
            engine.again(add=False)
        self.runner.close()

    async def one(self, engine: Served, host: str, command: commands.Command, data: bytes, size: int) -> Any:
        """Everything that a step shows."""
        status = await engine.parties[host].send(command, data, size)
        report = await engine.parties["a"].report()
        rows = [(row.key, row.holder, row.host_id) for row in report.registrants]
        pages = [[await party.page(4)] for party in engine.parties.values()]
        return status, report.generation, report.rtype, report.persist, rows, pages

    def step(self, host: str, built: tuple[commands.Command, bytes], size: int = 0) -> None:
        ours, theirs = (self.runner.run(self.one(engine, host, *built, size)) for engine in self.engines)
        assert ours == theirs

    @rule(
        host=hosts, current=keys, new=keys, action=st.integers(0, 3), ignore=st.booleans(),
        persist=st.sampled_from([0, 0, 1, 2, 3]),
    )  # fmt: skip
    def register(self, host: str, current: int, new: int, action: int, ignore: bool, persist: int) -> None:
        command, data = wire.register(1, current, new)
        self.step(host, (command._replace(cdw10=action | int(ignore) << 3 | persist << 30), data))

    @rule(host=hosts, new=st.integers(1, 3))
    def join(self, host: str, new: int) -> None:
        self.step(host, wire.register(1, 0, new, RegisterAction.REPLACE, ignore_existing=True))

    @rule(
        host=hosts, key=keys, victim=keys, action=st.integers(0, 3), rtype=st.integers(0, 7),
        ignore=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def acquire(self, host: str, key: int, victim: int, action: int, rtype: int, ignore: bool) -> None:
        command, data = wire.acquire(1, key, ReservationType.NONE, preempt_key=victim)
        self.step(host, (command._replace(cdw10=action | int(ignore) << 3 | rtype << 8), data))

    @rule(host=hosts, key=keys, action=st.integers(0, 2), rtype=st.integers(0, 7), ignore=st.booleans())
    def release(self, host: str, key: int, action: int, rtype: int, ignore: bool) -> None:
        command, data = wire.release(1, key, ReservationType.NONE)
        self.step(host, (command._replace(cdw10=action | int(ignore) << 3 | rtype << 8), data))

    @rule(host=hosts)
    def read(self, host: str) -> None:
        self.step(host, (commands.read(1, 0, 1, 512), b""), 512)

    @rule(host=hosts)
    def write(self, host: str) -> None:
        self.step(host, (commands.write(1, 0, 1, 512), bytes(512)))


@pytest.mark.spdk
@pytest.mark.skipif(find_spdk() is None, reason="SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
def test_both_engines_answer_the_same(tmp_path: Path) -> None:
    made: list[Served] = []
    try:
        made.append(Served("embedded", tmp_path, 0, free_ports(1)[0]))
        made.append(Served("spdk", tmp_path, 1, free_ports(1)[0]))
        Both.engines = (made[0], made[1])
        run_state_machine_as_test(
            Both,
            settings=settings(
                max_examples=settings().max_examples // 8,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        for engine in made:
            engine.stop()
