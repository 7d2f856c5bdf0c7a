"""Failovers by the agents, seen by the Linux kernel: native multipath, fio that verifies, and no error.

The array is the one of ``ws7000 ha bench``; the policy is ``slow``, for the guest is emulated and takes the processors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fio import Job, looping
from kernel_log import LOSS, watched

from cli.demo.linux_host import Connect, LinuxHost, Namespace
from cli.ha.failover.lab import HOST_NQN, FailoverLab
from controlplane.domain.desired import HaPolicy
from dataplane.launch import EngineKind, find_spdk
from ha.model import NodeName

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600), pytest.mark.usefixtures("workloads")]

PASS = Job(rw="randwrite", bs="16k", size_mib=2, depth=8, more=("--bsrange=4k-64k", "--verify_backlog=16"))
REFUSED = r"nvme nvme\d+: Connect for subsystem \S+ is not allowed, hostnqn: \S+"
"""A node that is being built again listens before it has the subsystem."""
VOLUME = "wide-a"


@pytest.fixture(params=["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FailoverLab]:
    kind: EngineKind = request.param
    if kind == "spdk" and find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    with FailoverLab(kind, tmp_path, HaPolicy.SLOW) as made:
        yield made


def port(lab: FailoverLab, node: NodeName) -> int:
    return lab.array.node(node).ports[0].service


def over_both(lab: FailoverLab, linux: LinuxHost, server: NodeName) -> Namespace:
    """The volume with both paths, served by that node."""
    assert lab.state is not None
    states = {port(lab, node): "optimized" if node == server else "inaccessible" for node in ("a", "b")}
    nsid = lab.state.volumes[VOLUME].nsid
    return linux.namespace(lab.state.subsystems["default"].nqn, nsid, paths=2, ana_states=states)  # type: ignore[arg-type]


@pytest.fixture
def connected(lab: FailoverLab, linux: LinuxHost) -> Iterator[Namespace]:
    """The volume, over both nodes, with a keep alive that notices silence soon."""
    assert lab.state is not None
    nqn = lab.state.subsystems["default"].nqn
    for node in lab.array.nodes:
        linux.connect(
            Connect(nqn=nqn, port=node.ports[0].service, hostnqn=HOST_NQN, hostid=HOST_NQN.rpartition(":")[2],
                    keep_alive_s=2)
        )  # fmt: skip
    yield over_both(lab, linux, "a")
    linux.run("touch /tmp/stop")
    linux.disconnect(nqn)


def test_a_data_plane_crashes_and_comes_back(lab: FailoverLab, linux: LinuxHost, connected: Namespace) -> None:
    with watched(linux, REFUSED, *LOSS), looping(linux, PASS, connected.device) as loop:
        loop.more()
        lab.note_down()
        lab.befall("data-plane-crash", "a")
        lab.wait_for(lambda at: set(at["b"]["engine"]["raised"]) == lab.home("a") | lab.home("b"))
        loop.more()
        lab.rejoin("a")
        over_both(lab, linux, "b")
        loop.more()
        lab.settle()
        over_both(lab, linux, "a")
        loop.more()


def test_groups_move_as_planned(lab: FailoverLab, linux: LinuxHost, connected: Namespace) -> None:
    with watched(linux, *LOSS), looping(linux, PASS, connected.device) as loop:
        for target in ("b", "a", "b", "a"):
            loop.more()
            lab.control("a").switchover(target, deadline_s=60.0)
            over_both(lab, linux, target)
        loop.more()
    assert {status["epoch"] for status in lab.status().values()} == {1}
