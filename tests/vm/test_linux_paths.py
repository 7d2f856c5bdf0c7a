"""Paths that go away and come back while fio writes and verifies: no error at the application, no byte lost.

Nothing here fences: that is the work of high availability, above the engines.  So wherever an engine that was
stopped may still write what it had received, the workload writes every block once, and a late write repeats what is
there already.
"""

from __future__ import annotations

import signal
from typing import Any

import fio
import pytest
from fio import Job, looping
from kernel_log import LOSS, WAITING, watched
from relay import Relay

from cli.demo.linux_host import Connect, LinuxHost, Namespace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300), pytest.mark.usefixtures("workloads")]

# A pass is short, so that many lie between two faults; reads and writes are in flight at once.
PASS = Job(rw="randwrite", bs="16k", size_mib=2, depth=8, more=("--bsrange=4k-64k", "--verify_backlog=16"))

# The port goes on serving discovery, so a host that comes back too early is told that it may not use the subsystem.
REFUSED = r"nvme nvme\d+: Connect for subsystem \S+ is not allowed, hostnqn: \S+"


def connect(linux: LinuxHost, nodes: Any, hosts: Any, *ports: int) -> None:
    """Paths over these ports, with a keep alive that notices silence soon."""
    for port in ports:
        path = Connect(
            nqn=nodes.nqn, port=port, hostnqn=hosts.first.nqn, hostid=hosts.first.uuid, keep_alive_s=2
        )  # fmt: skip
        linux.connect(path)


def both(linux: LinuxHost, nodes: Any, states: dict[int, str]) -> Namespace:
    """Wait for both paths with those ANA states."""
    return linux.namespace(nodes.nqn, 1, paths=2, ana_states=states)


def controllers(linux: LinuxHost, nodes: Any) -> dict[int, str]:
    """The kernel's state of the controller behind each port."""
    subsystem = linux.subsystem(nodes.nqn)
    return {} if subsystem is None else {each.port: each.state for each in subsystem.controllers}


def grown(linux: LinuxHost, node: Any, by: int = 20) -> None:
    """Wait until the engine has put that many further writes on the volume."""
    wanted = node.writes() + by
    linux.wait_until(f"writes through {node.name}", lambda: node.writes() >= wanted)


def listen(node: Any, nqn: str, verb: str) -> None:
    node.call(f"nvmf_subsystem_{verb}_listener", nqn=nqn, listen_address=node.listen_address())


def test_connections_that_are_cut_again_and_again(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    """The second node is optimized as well: it takes what the first one did not answer."""
    with Relay(nodes.a.port) as a, Relay(nodes.b.port) as b, watched(linux, *LOSS):
        nodes.b.set_ana("optimized")
        states = {a.port: "optimized", b.port: "optimized"}
        connect(linux, nodes, hosts, a.port, b.port)
        with looping(linux, PASS, both(linux, nodes, states).device) as loop:
            for relay in (a, b, a, b):
                loop.more()
                assert relay.cut() == 2  # the admin queue and one I/O queue
                both(linux, nodes, states)
            loop.more()
        linux.disconnect(nodes.nqn)


def test_both_nodes_connections_cut_at_once(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    with Relay(nodes.a.port) as a, Relay(nodes.b.port) as b, watched(linux, *LOSS):
        states = {a.port: "optimized", b.port: "inaccessible"}
        connect(linux, nodes, hosts, a.port, b.port)
        with looping(linux, PASS, both(linux, nodes, states).device) as loop:
            loop.more()
            assert (a.cut(), b.cut()) == (2, 2)
            both(linux, nodes, states)
            loop.more()
        linux.disconnect(nodes.nqn)


def test_an_engine_that_is_stopped_and_goes_on(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    """The host finds out by its keep alive alone, and goes on with what was never answered through the other node."""
    once = Job(rw="randwrite", bs="16k", size_mib=32, depth=8, more=("--verify_backlog=16", "--rate_iops=,300"))
    a, b = nodes.a, nodes.b
    with watched(linux, *LOSS):
        connect(linux, nodes, hosts, a.port, b.port)
        device = both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"}).device
        linux.check(f"rm -f /tmp/once.rc; ({once.command(device)} >/tmp/once 2>&1; echo $? >/tmp/once.rc) &")
        grown(linux, a)
        a.signal(signal.SIGSTOP)
        try:
            b.set_ana("optimized")
            linux.wait_until("the loss of the silent path", lambda: controllers(linux, nodes)[a.port] == "connecting")
            grown(linux, b)
        finally:
            a.signal(signal.SIGCONT)
        a.set_ana("inaccessible")
        assert linux.run("test -e /tmp/once.rc").rc != 0, linux.check("cat /tmp/once")
        both(linux, nodes, {a.port: "inaccessible", b.port: "optimized"})
        rc = linux.wait_until("fio's end", lambda: linux.run("cat /tmp/once.rc 2>/dev/null").out or None, timeout_s=120)
        assert rc == "0\n", linux.check("cat /tmp/once")
        fio.run(linux, once, device, "--verify_only")


def test_an_engine_that_crashes_and_a_new_one_in_its_place(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    a, b = nodes.a, nodes.b
    with watched(linux, *LOSS):
        connect(linux, nodes, hosts, a.port, b.port)
        device = both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"}).device
        with looping(linux, PASS, device) as loop:
            loop.more()
            a.crash()
            b.set_ana("optimized")
            loop.more()
            nodes.revive(a, "inaccessible")
            both(linux, nodes, {a.port: "inaccessible", b.port: "optimized"})
            b.set_ana("inaccessible")
            a.set_ana("optimized")
            loop.more()
        linux.disconnect(nodes.nqn)


def test_a_listener_that_is_removed_and_added_again(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    a, b = nodes.a, nodes.b
    with watched(linux, REFUSED, *LOSS):
        connect(linux, nodes, hosts, a.port, b.port)
        device = both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"}).device
        with looping(linux, PASS, device) as loop:
            loop.more()
            listen(a, nodes.nqn, "remove")
            linux.wait_until("the loss of the path", lambda: controllers(linux, nodes)[a.port] == "connecting")
            b.set_ana("optimized")
            loop.more()
            b.set_ana("inaccessible")
            listen(a, nodes.nqn, "add")
            both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"})
            loop.more()
        linux.disconnect(nodes.nqn)


def test_without_any_listener_the_io_waits(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    a, b = nodes.a, nodes.b
    with watched(linux, REFUSED, *LOSS):
        connect(linux, nodes, hosts, a.port, b.port)
        device = both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"}).device
        with looping(linux, PASS, device) as loop:
            loop.more()
            for node in (a, b):
                listen(node, nodes.nqn, "remove")
            lost = {a.port: "connecting", b.port: "connecting"}
            linux.wait_until("the loss of both paths", lambda: controllers(linux, nodes) == lost)
            passes = loop.passes()
            for node in (b, a):
                listen(node, nodes.nqn, "add")
            b.set_ana("inaccessible")
            both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"})
            assert loop.passes() <= passes + 1  # the one that may have ended while the loss was noticed
            loop.more()
        linux.disconnect(nodes.nqn)


def test_inaccessible_everywhere_and_back(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    """No connection ends; what the engines refuse is kept, and sent again when a path is accessible."""
    a, b = nodes.a, nodes.b
    with watched(linux, *WAITING):
        connect(linux, nodes, hosts, a.port, b.port)
        device = both(linux, nodes, {a.port: "optimized", b.port: "inaccessible"}).device
        with looping(linux, PASS, device) as loop:
            for node, peer in ((b, a), (a, b), (b, a), (a, b)):
                loop.more()
                peer.set_ana("inaccessible")
                both(linux, nodes, {a.port: "inaccessible", b.port: "inaccessible"})
                refused = (a.writes(), b.writes())
                node.set_ana("optimized")
                both(linux, nodes, {node.port: "optimized", peer.port: "inaccessible"})
                assert peer.writes() == refused[(a, b).index(peer)]
            loop.more()
        linux.disconnect(nodes.nqn)
