"""What Linux reads from a controller, and what it does when namespaces come, go and grow, and with reservations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fio
import pytest
from fio import Job
from kernel_log import WAITING, watched

from cli.demo.linux_host import Connect, LinuxHost, Namespace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]

MIB = 1 << 20
EXTRA_NSID = 5
RESERVATIONS = 1 << 5  # ONCS
KEYS = ("0x1111", "0x2222")
# The kernel warns where a command that nvme-cli sends has effects that it does not know, the scope bits of NVMe 2.0
# among them.
EFFECTS = r"nvme nvme\d+: (IO|Admin) command:[0-9a-f]{2} has unusual effects:[0-9a-f]{8}"

# A write against a reservation of another host: the one error that belongs to a test here.
CONFLICT = (
    r"nvme\d+(c\d+)?n\d+: I/O Cmd\(0x1\) @ LBA 0, 8 blocks, I/O Error \(sct 0x0 / sc 0x83\) ?(DNR )?",
    r"(reservation conflict|critical nexus) error, dev nvme\d+(c\d+)?n\d+, sector 0 op 0x1:\(WRITE\) .*",
)

READ_OUTS = (
    "id-ctrl {c} -H", "id-ns {n} -H", "ns-descs {n}", "list-ns {c}", "nvm-id-ctrl {c}", "smart-log {c}",
    "error-log {c}", "effects-log {c} -H", "changed-ns-list-log {c}", "fw-log {c}", "ana-log {c}",
    "supported-log-pages {c}", "list", "list-subsys", "ns-rescan {c}", "flush {n}",
)  # fmt: skip
FEATURES = (0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0F, 0x16)


def controller(namespace: Namespace) -> str:
    """The device of the controller behind the first path."""
    return f"/dev/{namespace.paths[0].controller.name}"


def test_nvme_cli_reads_everything_cleanly(linux: LinuxHost, volume: Namespace) -> None:
    names = {"c": controller(volume), "n": volume.device}
    with watched(linux, EFFECTS):
        for words in READ_OUTS:
            result = linux.run(f"nvme {words.format(**names)}")
            assert result.rc == 0, f"{words}: {result.err}{result.out}"
            assert "error" not in result.err.lower(), f"{words}: {result.err}"
        for feature in FEATURES:
            result = linux.run(f"nvme get-feature {names['c']} -f {feature} -H")
            assert result.rc == 0, f"feature {feature:#x}: {result.err}"


def test_what_the_read_outs_say_agrees_with_the_export(linux: LinuxHost, nodes: Any, volume: Namespace) -> None:
    identity = json.loads(linux.check(f"nvme id-ctrl {controller(volume)} -o json"))
    assert identity["subnqn"] == nodes.nqn
    assert identity["sn"].strip() == "WS7000VM"
    assert identity["cmic"] & 0b1010 == 0b1010  # several controllers, ANA
    namespace = json.loads(linux.check(f"nvme id-ns {volume.device} -o json"))
    assert namespace["nsze"] * 512 == volume.size_bytes
    assert namespace["nmic"] & 1
    groups = json.loads(linux.check(f"nvme ana-log {controller(volume)} -o json"))["ANA DESC LIST "]
    assert [group["grpid"] for group in groups] == [1]


def test_a_controller_reset_by_the_host_comes_back(linux: LinuxHost, nodes: Any, volume: Namespace) -> None:
    with watched(linux, *WAITING):
        linux.check(f"nvme reset {controller(volume)}")
        linux.namespace(nodes.nqn, 1, paths=2)
        linux.check(f"dd if={volume.device} of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null")


@pytest.fixture
def spare(linux: LinuxHost, nodes: Any) -> Iterator[str]:
    """A device of 16 MiB on each node that nothing shows yet."""
    for node in (nodes.a, nodes.b):
        node.call("bdev_null_create", name="spare", num_blocks=16 * MIB // 512, block_size=512)
    yield "spare"
    linux.disconnect(nodes.nqn)
    for node in (nodes.a, nodes.b):
        node.call("bdev_null_delete", name="spare")


def add(node: Any, nqn: str, bdev_name: str) -> None:
    uuid = f"00000000-0000-4000-8000-{EXTRA_NSID:012d}"
    namespace = {
        "nsid": EXTRA_NSID, "bdev_name": bdev_name, "nguid": f"{EXTRA_NSID:032x}", "uuid": uuid, "anagrpid": 1,
    }  # fmt: skip
    node.call("nvmf_subsystem_add_ns", nqn=nqn, namespace=namespace)


def test_a_namespace_appears_and_goes_while_connected(
    linux: LinuxHost, nodes: Any, volume: Namespace, spare: str
) -> None:
    """By the notices alone: nobody asks the host to look."""
    with watched(linux, *WAITING):
        for _ in range(2):
            for node in (nodes.a, nodes.b):
                add(node, nodes.nqn, spare)
            seen = linux.namespace(nodes.nqn, EXTRA_NSID, paths=2)
            assert seen.size_bytes == 16 * MIB
            assert seen.device != volume.device
            linux.check(f"dd if=/dev/zero of={seen.device} bs=64k count=16 oflag=direct 2>/dev/null")
            for node in (nodes.a, nodes.b):
                node.call("nvmf_subsystem_remove_ns", nqn=nodes.nqn, nsid=EXTRA_NSID)
            linux.wait_until("the end of the namespace", lambda: linux.block_devices() == (volume.name,))
        linux.check(f"nvme changed-ns-list-log {controller(volume)}")


def test_a_namespace_that_grows_is_larger_at_the_host(
    linux: LinuxHost, nodes: Any, volume: Namespace, spare: str
) -> None:
    if "bdev_null_resize" not in nodes.a.call("rpc_get_methods"):
        pytest.skip("this engine has no bdev_null_resize")
    with watched(linux, *WAITING):
        for node in (nodes.a, nodes.b):
            add(node, nodes.nqn, spare)
        linux.namespace(nodes.nqn, EXTRA_NSID, paths=2)
        for node in (nodes.a, nodes.b):
            node.call("bdev_null_resize", name=spare, new_size=32)

        def grown() -> bool:
            return linux.namespace(nodes.nqn, EXTRA_NSID, paths=2).size_bytes == 32 * MIB

        linux.wait_until("the larger size", grown)
        for node in (nodes.a, nodes.b):
            node.call("nvmf_subsystem_remove_ns", nqn=nodes.nqn, nsid=EXTRA_NSID)
        linux.wait_until("the end of the namespace", lambda: linux.block_devices() == (volume.name,))


def offers_reservations(linux: LinuxHost, namespace: Namespace) -> bool:
    identity = json.loads(linux.check(f"nvme id-ctrl {controller(namespace)} -o json"))
    return bool(identity["oncs"] & RESERVATIONS)


@contextmanager
def as_host(linux: LinuxHost, nodes: Any, host: Any) -> Iterator[Namespace]:
    """The volume, connected by this host alone: what it registered stays when it goes."""
    linux.connect(Connect(nqn=nodes.nqn, port=nodes.a.port, hostnqn=host.nqn, hostid=host.uuid))
    try:
        yield linux.namespace(nodes.nqn, 1)
    finally:
        linux.disconnect(nodes.nqn)


def report(linux: LinuxHost, device: str) -> Any:
    return json.loads(linux.check(f"nvme resv-report {device} --eds -o json"))


def test_two_hosts_contend_for_a_reservation(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    """Through the real nvme-cli: register, acquire, a conflict, preempt, release, unregister."""
    with watched(linux, EFFECTS, *CONFLICT):
        with as_host(linux, nodes, hosts.first) as namespace:
            assert offers_reservations(linux, namespace), "the engine does not offer reservations"
            linux.check(f"nvme resv-register {namespace.device} --nrkey={KEYS[0]} --rrega=0")
            linux.check(f"nvme resv-acquire {namespace.device} --crkey={KEYS[0]} --rtype=1 --racqa=0")
        with as_host(linux, nodes, hosts.second) as namespace:
            device = namespace.device
            linux.check(f"nvme resv-register {device} --nrkey={KEYS[1]} --rrega=0")
            assert (report(linux, device)["rtype"], report(linux, device)["regctl"]) == (1, 2)
            refused = linux.run(f"nvme resv-acquire {device} --crkey={KEYS[1]} --rtype=1 --racqa=0")
            assert "Conflict" in refused.err + refused.out
            write = f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct"
            assert linux.run(write).rc != 0
            linux.check(f"dd if={device} of=/dev/null bs=4k count=1 iflag=direct")
            linux.check(f"nvme resv-acquire {device} --crkey={KEYS[1]} --prkey={KEYS[0]} --rtype=1 --racqa=1")
            linux.check(write)
            (left,) = report(linux, device)["regctlext"]
            assert (left["rkey"], left["rcsts"]) == (int(KEYS[1], 16), 1)
            linux.check(f"nvme resv-release {device} --crkey={KEYS[1]} --rtype=1 --rrela=0")
            linux.check(f"nvme resv-register {device} --crkey={KEYS[1]} --rrega=1")
            assert (report(linux, device)["rtype"], report(linux, device)["regctl"]) == (0, 0)


@pytest.mark.usefixtures("workloads")
def test_many_queues_of_many_commands(linux: LinuxHost, nodes: Any, hosts: Any) -> None:
    path = Connect(
        nqn=nodes.nqn, port=nodes.a.port, hostnqn=hosts.first.nqn, hostid=hosts.first.uuid, queues=8, queue_depth=128
    )  # fmt: skip
    with watched(linux):
        linux.connect(path)
        device = linux.namespace(nodes.nqn, 1).device
        job = Job(rw="randwrite", bs="4k", size_mib=1, depth=64, more=("--numjobs=4", "--offset_increment=8m"))
        fio.verified(linux, job, device)
        linux.disconnect(nodes.nqn)
