"""The leash with real processes: it kills what outlived its lease, whatever became of the agent, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lease_agent
import pytest

from controlplane.domain.errors import Unreachable
from dataplane.launch import EngineKind, EngineProcess, find_spdk
from ha.adapters.lease_page import (
    NOBODY,
    PAGE_BYTES,
    AgentPage,
    LeashPage,
    LeashState,
    Order,
    Process,
    Unreadable,
    now_ms,
    now_ns,
)
from ha.adapters.process import Leash
from ha.leash import EXIT_TAKEN
from ha.leash import Leash as LeashProcess

HOUR_MS = 3_600_000


def until(condition: Callable[[], bool]) -> None:
    """Let the others run until it is so; the test's time limit is the only clock."""
    while not condition():
        os.sched_yield()


class Lab:
    """A page, and processes that are ended when the test is over."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease.page"
        self._children: list[subprocess.Popen[bytes]] = []
        self._leashes: set[Process] = set()

    def victim(self) -> tuple[subprocess.Popen[bytes], Process]:
        child = subprocess.Popen(["sleep", "1000"])
        self._children.append(child)
        process = Process.of(child.pid)
        assert process is not None
        return child, process

    def agent(self, pid: int, lease_ms: int) -> subprocess.Popen[bytes]:
        """An agent of its own process that has armed the lease."""
        child = subprocess.Popen(
            [sys.executable, lease_agent.__file__, str(self.path), str(pid), str(lease_ms)], stdout=subprocess.PIPE
        )
        self._children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"armed\n"
        until(lambda: self.leash().armed)
        return child

    def started(self, page: AgentPage, data_plane: Process) -> Leash:
        """A leash that guards ``data_plane``, started by this very process."""
        leash = Leash(page)
        page.write(data_plane)
        leash.ensure()
        until(lambda: leash.guards(data_plane))
        self.leash()
        return leash

    def leash(self) -> LeashState:
        """What the leash says now."""
        page = LeashPage(self.path)
        state = page.leash()
        page.close()
        self._leashes.add(state.leash)
        return state

    def order(self) -> Order:
        page = LeashPage(self.path)
        try:
            return page.order()
        finally:
            page.close()

    def end(self) -> None:
        for child in self._children:
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()
        for each in self._leashes:
            if each.alive:
                os.kill(each.pid, signal.SIGKILL)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    running = Lab(tmp_path)
    yield running
    running.end()


@pytest.fixture
def page(lab: Lab) -> Iterator[AgentPage]:
    opened = AgentPage(lab.path)
    yield opened
    opened.write(end=True)
    until(lambda: not opened.leash().leash.alive)
    opened.close()


@pytest.mark.parametrize("stop", [signal.SIGSTOP, signal.SIGKILL])
def test_the_data_plane_dies_when_its_agent_does_not_renew(lab: Lab, stop: signal.Signals) -> None:
    child, victim = lab.victim()
    agent = lab.agent(victim.pid, 500)
    agent.send_signal(stop)
    assert child.wait() == -signal.SIGKILL
    ended = lab.order().lease_until_ns
    assert ended is not None
    assert now_ns() > ended
    until(lambda: lab.leash().killed == victim)


@pytest.mark.parametrize("kind", ["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def test_an_engine_dies_and_its_agent_learns_who_did_it(lab: Lab, tmp_path: Path, kind: EngineKind) -> None:
    if kind == "spdk" and find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    engine = EngineProcess.start(kind, tmp_path / "engine.sock").ready()
    victim = Process.of(engine.process.pid)
    assert victim is not None
    agent = lab.agent(victim.pid, 500)
    agent.send_signal(signal.SIGSTOP)
    assert engine.process.wait() == -signal.SIGKILL
    until(lambda: lab.leash().killed == victim)
    until(lambda: lab.leash().guards == NOBODY)
    assert lab.leash().leash.alive  # the agent is stopped, not gone


def test_it_says_truly_what_the_kernel_gave_it(lab: Lab, page: AgentPage) -> None:
    _, victim = lab.victim()
    said = lab.started(page, victim).state
    assert said.real_time == (os.sched_getscheduler(said.leash.pid) == os.SCHED_FIFO)
    status = Path(f"/proc/{said.leash.pid}/status").read_text(encoding="ascii")
    assert said.memory_locked == ("VmLck:\t       0 kB" not in status)
    assert not said.armed


def test_it_lives_while_its_agent_renews(lab: Lab) -> None:
    child, victim = lab.victim()
    lab.agent(victim.pid, 1000)
    first = lab.order().lease_until_ns
    assert first is not None
    until(lambda: now_ns() > first)
    assert child.poll() is None
    assert lab.leash().guards == victim


def test_the_leash_outlives_its_agent_and_the_next_one_finds_it(lab: Lab) -> None:
    child, victim = lab.victim()
    first = lab.agent(victim.pid, HOUR_MS)
    leash = lab.leash().leash
    os.kill(leash.pid, signal.SIGTERM)
    os.kill(leash.pid, signal.SIGHUP)
    first.kill()
    first.wait()
    second = lab.agent(0, HOUR_MS)  # takes up what the page names
    assert lab.order().data_plane == victim
    assert lab.leash().leash == leash
    assert leash.alive
    second.kill()
    second.wait()
    assert child.poll() is None
    child.kill()
    child.wait()
    until(lambda: not leash.alive)  # nothing to guard, nobody to guard it for


def test_a_lease_goes_on_running_while_the_agent_is_started_again(lab: Lab) -> None:
    _, victim = lab.victim()
    agent = lab.agent(victim.pid, HOUR_MS)
    agent.kill()
    agent.wait()
    before = lab.order()
    page = AgentPage(lab.path)
    assert page.before == before
    assert page.order().lease_until_ns == before.lease_until_ns
    assert page.order().agent == Process.of(os.getpid())
    page.close()


def test_a_process_that_got_the_number_of_the_data_plane_is_spared(lab: Lab, page: AgentPage) -> None:
    other, bystander = lab.victim()
    child, victim = lab.victim()
    leash = lab.started(page, victim)
    recycled = Process(pid=bystander.pid, started=bystander.started - 1)
    page.write(recycled, lease_until_ms=now_ms() - 1)
    until(lambda: leash.state.guards == NOBODY)
    page.write(victim, lease_until_ms=now_ms() - 1)
    assert child.wait() == -signal.SIGKILL
    assert other.poll() is None


def test_a_lease_that_is_made_shorter_ends_sooner(lab: Lab, page: AgentPage) -> None:
    child, victim = lab.victim()
    leash = lab.started(page, victim)
    page.write(victim, lease_until_ms=now_ms() + HOUR_MS)
    until(lambda: leash.state.armed)
    page.write(victim, lease_until_ms=now_ms() - 1)
    assert child.wait() == -signal.SIGKILL


def test_a_data_plane_that_has_ended_and_was_not_waited_for_is_not_held(lab: Lab, page: AgentPage) -> None:
    child, victim = lab.victim()
    leash = lab.started(page, victim)
    child.kill()
    until(lambda: leash.state.guards == NOBODY)
    held = LeashProcess(LeashPage(lab.path), leash.state)
    held._guard.hold(victim)
    assert held._guard.fd is None, "its number is still there, as long as nobody has waited for it"


def test_unarmed_nothing_is_killed_and_arming_late_is_seen(lab: Lab, page: AgentPage) -> None:
    child, victim = lab.victim()
    other, second = lab.victim()
    leash = lab.started(page, victim)
    page.write(second)
    until(lambda: leash.guards(second))
    assert child.poll() is None
    page.write(second, lease_until_ms=now_ms() - 1)
    assert other.wait() == -signal.SIGKILL
    assert child.poll() is None


@pytest.mark.parametrize("size", [PAGE_BYTES, 0, 100])
def test_a_page_that_cannot_be_read_is_a_lease_that_has_ended(lab: Lab, size: int) -> None:
    child, victim = lab.victim()
    agent = lab.agent(victim.pid, 300)
    agent.send_signal(signal.SIGSTOP)
    page = LeashPage(lab.path)
    with lab.path.open("r+b") as file:
        file.write(b"\xff" * PAGE_BYTES)
    os.truncate(lab.path, size)
    with pytest.raises(Unreadable):
        page.order()
    assert child.wait() == -signal.SIGKILL
    page.close()


def test_what_was_not_armed_is_not_killed_for_an_unreadable_page(lab: Lab) -> None:
    child, victim = lab.victim()
    armed_child, armed = lab.victim()
    page = AgentPage(lab.path)
    for process, until_ms in ((victim, None), (armed, now_ms() + HOUR_MS)):
        page.write(process, lease_until_ms=until_ms)
        mine = LeashPage(lab.path)
        leash = LeashProcess(mine, LeashState())
        assert leash._look()
        whole = lab.path.read_bytes()
        lab.path.write_bytes(b"\xff" * PAGE_BYTES)
        readable = leash._look()
        assert not readable
        leash._kill_if_over(readable=readable)
        lab.path.write_bytes(whole)
        mine.close()
    assert armed_child.wait() == -signal.SIGKILL
    assert child.poll() is None
    page.close()


def test_one_agent_and_one_leash_to_a_page(lab: Lab, page: AgentPage) -> None:
    _, victim = lab.victim()
    leash = lab.started(page, victim)
    with pytest.raises(BlockingIOError):
        AgentPage(lab.path)
    second = subprocess.run([sys.executable, "-m", "ha.leash", str(lab.path)], check=False)
    assert second.returncode == EXIT_TAKEN
    first = leash.state.leash
    leash.ensure()
    assert leash.state.leash == first


def test_a_writer_that_dies_in_the_middle_leaves_the_order_before(lab: Lab) -> None:
    page = AgentPage(lab.path)
    reader = LeashPage(lab.path)
    page.write(Process(pid=5, started=6), key=7, lease_until_ms=1000)
    page.write(Process(pid=5, started=6), key=7, lease_until_ms=2000)
    before, old = lab.path.read_bytes(), page.order()
    page.write(Process(pid=8, started=9), key=1, lease_until_ms=3000)
    after, new = lab.path.read_bytes(), page.order()
    changed = [at for at in range(PAGE_BYTES) if before[at] != after[at]]
    seen = set()
    for cut in range(changed[0], changed[-1] + 2):
        lab.path.write_bytes(after[:cut] + before[cut:])
        assert reader.order() in (old, new)
        seen.add(reader.order())
    assert seen == {old, new}
    reader.close()
    page.close()


def test_a_page_is_read_whole_while_it_is_written_as_fast_as_can_be(lab: Lab) -> None:
    page = AgentPage(lab.path)
    reader = LeashPage(lab.path)
    ended = threading.Event()

    def write() -> None:
        lease = 0
        while not ended.is_set():
            lease += 1
            page.write(Process(pid=lease, started=lease), key=lease, lease_until_ms=lease)

    def read() -> Order:
        while True:
            try:
                return reader.order()
            except Unreadable:
                continue

    writer = threading.Thread(target=write)
    writer.start()
    last, seen = 0, set()
    for _ in range(5000):
        order = read()
        if order.lease_until_ns is not None:
            lease = order.lease_until_ns // 1_000_000
            assert (order.key, order.data_plane) == (lease, Process(pid=lease, started=lease))
            assert lease >= last
            last = lease
            seen.add(lease)
    ended.set()
    writer.join()
    assert len(seen) > 1
    reader.close()
    page.close()


def test_a_fresh_page_asks_for_nothing(lab: Lab) -> None:
    page = AgentPage(lab.path)
    assert page.before == Order()
    assert page.leash() == LeashState()
    page.close()


def test_a_leash_that_does_not_start_is_an_error_with_a_code(lab: Lab) -> None:
    lab.path.with_suffix(".leash").mkdir()
    page = AgentPage(lab.path)
    leash = Leash(page)
    leash.ensure()
    with pytest.raises(Unreachable, match="HA-045"):
        until(lambda: leash.ensure() is not None)
    leash.ensure()  # not at once again
    assert leash._child == 0
    page.close()
