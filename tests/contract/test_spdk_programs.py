"""SPDK's own programs as hosts: identify, perf, bdevperf, discovery, and its reservation test.

Why: they were written by others to find fault with a target.  They run against both engines, so that what they say
about ours can be compared with what they say about their own.  A program that is not there is a skip by its name.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dataplane.launch import EngineProcess, find_spdk
from dataplane.rpc.call import Call
from dataplane.rpc.methods import nvmf
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress

pytestmark = [pytest.mark.spdk, pytest.mark.timeout(300)]

NQN = "nqn.2026-01.io.ws7000:contract:programs"
DISCOVERY = "nqn.2014-08.org.nvmexpress.discovery"
LOCAL = "127.0.0.1"
MIB = 1 << 20
NO_HUGE = ("--no-huge", "-s", "512")
PLACES = ("bin/{0}", "examples/{0}", "../build/examples/{0}", "../test/nvme/{1}/{0}")
WHOLE = "WS7000_WHOLE_MATRIX"
WORKLOADS = ("read", "write", "randread", "randwrite", "randrw")
FEW = [
    ("randrw", 1, 512), ("randrw", 128, 512), ("randwrite", 32, 4096), ("randread", 128, 4096), ("write", 16, 131072),
    ("read", 8, MIB), ("randrw", 128, MIB),
]  # fmt: skip
MATRIX = list(itertools.product(WORKLOADS, (1, 8, 32, 128), (512, 4096, 65536, MIB)))


def program(name: str, folder: str = "") -> Path:
    """The program below the prefix or in the source tree beside it; skips the test where it is not there."""
    target = find_spdk()
    if target is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    prefix = target.parent.parent
    for place in PLACES:
        found = prefix / place.format(name, folder or name)
        if os.access(found, os.X_OK) and found.is_file():
            return found
    pytest.skip(f"SPDK's program {name} not found below {prefix} nor beside it")


def run(*words: object, timeout_s: float = 60) -> str:
    """What the program says; it must end with status 0."""
    done = subprocess.run(
        [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def needs_huge_pages() -> None:
    """Some of SPDK's programs cannot be told to do without."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    if int(re.findall(r"HugePages_Free:\s+(\d+)", meminfo)[0]) < 64:
        pytest.skip("this program of SPDK's needs 64 free huge pages (sysctl vm.nr_hugepages)")


@dataclass(frozen=True)
class Served:
    """A namespace of 64 MiB on a port."""

    port: int

    @property
    def path(self) -> str:
        return f"trtype:TCP adrfam:IPv4 traddr:{LOCAL} trsvcid:{self.port}"

    @property
    def volume(self) -> str:
        return f"{self.path} subnqn:{NQN}"


@pytest.fixture
def served(engine: Any) -> Served:
    engine.malloc("m0", size_mib=64)
    return Served(engine.serve(NQN, "m0"))


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\*ERROR\*|\bERROR\b", line)]


def test_identify_finds_nothing_wrong(served: Served) -> None:
    said = run(program("spdk_nvme_identify"), *NO_HUGE, "-r", served.volume)
    assert not errors(said)
    assert re.search(r"Size \(in LBAs\): +131072 ", said)
    assert re.search(r"Subsystem NQN: +" + re.escape(NQN), said)
    assert re.search(r"ANA group ID: +1", said)


@pytest.mark.parametrize(
    ("workload", "depth", "size"),
    MATRIX if os.environ.get(WHOLE) else FEW,
    ids=str,
)
def test_perf_meets_no_error(served: Served, workload: str, depth: int, size: int) -> None:
    words = ["-q", depth, "-o", size, "-w", workload, "-t", 1, "-r", served.volume]
    mix = ["-M", 50] if workload == "randrw" else []
    said = run(program("spdk_nvme_perf"), *NO_HUGE, *words, *mix)
    # At its end it polls a queue that it has just disconnected, and says so, whichever the target.
    wrong = [line for line in errors(said) if "DISCONNECTED] CQ transport error -6" not in line]
    assert not wrong, said
    total = re.search(r"^Total +: +([\d.]+)", said, re.MULTILINE)
    assert total is not None
    assert float(total[1]) > 0


@pytest.mark.parametrize("flags", [("-H",), ("-I",), ("-H", "-I")], ids=["header", "data", "both"])
def test_perf_with_digests_meets_no_error(served: Served, flags: tuple[str, ...]) -> None:
    words = ["-q", 32, "-o", 16384, "-w", "randrw", "-M", 50, "-t", 1, "-r", served.volume]
    said = run(program("spdk_nvme_perf"), *NO_HUGE, *words, *flags)
    assert re.search(r"^Total +: +[1-9]", said, re.MULTILINE), said


def bdevperf(folder: Path, paths: list[dict[str, Any]], *words: object) -> list[str]:
    """The command that runs a workload on the namespaces behind these paths."""
    options = {"bdev_retry_count": -1, "ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1}
    config = [{"method": "bdev_nvme_set_options", "params": options}]
    config += [{"method": "bdev_nvme_attach_controller", "params": path} for path in paths]
    config += [{"method": "bdev_wait_for_examine"}]
    file = folder / "bdevperf.json"
    file.write_text(json.dumps({"subsystems": [{"subsystem": "bdev", "config": config}]}), encoding="utf-8")
    common = [program("bdevperf"), "-m", "0x2", "--disable-cpumask-locks", *NO_HUGE, "-r", folder / "bdevperf.sock"]
    return [str(word) for word in (*common, "-c", file, *words)]


def attach(port: int, nqn: str = NQN, **more: Any) -> dict[str, Any]:
    return {
        "name": "N", "trtype": "TCP", "adrfam": "IPv4", "traddr": LOCAL, "trsvcid": str(port), "subnqn": nqn, **more,
    }  # fmt: skip


def check_bdevperf(said: str) -> None:
    """I/O was done and verified, and none of it failed."""
    total = re.search(r"Total +: +([\d.]+) +[\d.]+ +([\d.]+) +([\d.]+)", said)
    assert total is not None, said
    assert float(total[1]) > 0, said
    assert float(total[2]) == 0, said


@pytest.mark.parametrize(("depth", "size"), [(32, 4096), (8, 65536), (1, 512)])
def test_bdevperf_verifies_what_it_wrote(served: Served, tmp_path: Path, depth: int, size: int) -> None:
    command = bdevperf(tmp_path, [attach(served.port)], "-q", depth, "-o", size, "-w", "verify", "-t", 2)
    check_bdevperf(run(*command))


def test_discovery_lists_the_subsystem(engine: Any, served: Served, tmp_path: Path) -> None:
    """SPDK's identify reads the discovery log page of the same port."""
    engine.run(nvmf.add_listener(DISCOVERY, ListenAddress.of("tcp", LOCAL, served.port)))
    try:
        said = run(program("spdk_nvme_identify"), *NO_HUGE, "-r", f"{served.path} subnqn:{DISCOVERY}")
    finally:
        engine.run(nvmf.remove_listener(DISCOVERY, ListenAddress.of("tcp", LOCAL, served.port)))
    assert not errors(said)
    assert f"NVM Subsystem Qualified Name: {NQN}" in re.sub(r" +", " ", said)


def test_reserve_passes(engines: Any, free_port: Any, tmp_path: Path) -> None:
    """On an engine of its own, since the transport of the others masks reservations."""
    needs_huge_pages()
    reserve = program("reserve")
    process = EngineProcess.start(engines.kind, tmp_path / "reserve.sock").ready()
    try:
        port = free_port()
        memory = {"name": "m", "num_blocks": 8192, "block_size": 512}
        with Session(process.socket, schema=None) as session:
            for method, params in (
                ("bdev_malloc_create", memory),
                ("nvmf_create_transport", {"trtype": "TCP"}),
                ("nvmf_create_subsystem", {"nqn": NQN, "allow_any_host": True, "serial_number": "SN1"}),
                ("nvmf_subsystem_add_ns", {"nqn": NQN, "namespace": {"nsid": 1, "bdev_name": "m"}}),
            ):
                session.run(raw_call(method, params))
            session.run(nvmf.add_listener(NQN, ListenAddress.of("tcp", LOCAL, port), ana_state=None))
        said = run(reserve, "-r", Served(port).volume)
        assert "failed" not in said.lower(), said
        assert not errors(said), said
        # It counts what it left out where a controller offers none, and ends well all the same.
        assert "Reservation Generation Counter" in said, said
    finally:
        process.stop()


# One volume on two nodes of different kinds, and a host that sees it through both.


@dataclass(frozen=True)
class Node:
    process: EngineProcess
    port: int


def start_node(kind: Any, folder: Path, file: Path, cntlids: range, port: int, core: int, ana: str) -> Node:
    """A node that serves ``file``, with the names that every node gives it."""
    process = EngineProcess.start(kind, folder / f"{kind}-node.sock", core=core).ready()
    with Session(process.socket, schema=None) as session:
        for method, params in (
            ("nvmf_create_transport", {"trtype": "TCP"}),
            ("bdev_aio_create", {"name": "v", "filename": str(file), "block_size": 512}),
            (
                "nvmf_create_subsystem",
                {
                    "nqn": NQN, "allow_any_host": True, "ana_reporting": True, "serial_number": "SN1",
                    "max_namespaces": 8, "min_cntlid": cntlids.start, "max_cntlid": cntlids.stop - 1,
                },
            ),
            (
                "nvmf_subsystem_add_ns",
                {
                    "nqn": NQN,
                    "namespace": {
                        "nsid": 1, "bdev_name": "v", "anagrpid": 1, "nguid": "1" * 32,
                        "uuid": "00000000-0000-4000-8000-000000000001",
                    },
                },
            ),
        ):  # fmt: skip
            session.run(raw_call(method, params))
        session.run(nvmf.add_listener(NQN, ListenAddress.of("tcp", LOCAL, port), ana_state=ana))
    return Node(process, port)


def raw_call(method: str, params: dict[str, Any]) -> Any:
    return Call(method, params, parse=lambda reply: reply)


@pytest.mark.parametrize("dies", ["embedded", "spdk"])
@pytest.mark.parametrize("host", ["embedded", "spdk", "bdevperf"])
def test_one_of_two_nodes_of_different_kinds_dies(
    tmp_path: Path, free_port: Any, request: pytest.FixtureRequest, host: Any, dies: str
) -> None:
    """The host goes on through the other kind of node; bdevperf verifies, at the nodes or behind an engine as host."""
    file = tmp_path / "volume"
    with file.open("wb") as made:
        made.truncate(64 * MIB)
    if find_spdk() is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    nodes: dict[str, Node] = {}
    for kind, cntlids, core in (("embedded", range(1, 100), 0), ("spdk", range(100, 200), 0)):
        ana = "optimized" if kind == dies else "non_optimized"
        nodes[kind] = start_node(kind, tmp_path, file, cntlids, free_port(), core, ana)
        request.addfinalizer(nodes[kind].process.stop)
    paths = [attach(node.port, multipath="multipath") for node in nodes.values()]
    if host != "bdevperf":
        middle = EngineProcess.start(host, tmp_path / "middle.sock", core=1).ready()
        request.addfinalizer(middle.stop)
        paths = [attach(serve_behind(middle, paths, free_port()), nqn=f"{NQN}:behind")]
    command = bdevperf(tmp_path, paths, "-q", 8, "-o", 4096, "-w", "verify", "-t", 8)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as perf:
        request.addfinalizer(perf.kill)
        wait_for_writes(nodes[dies], 200)
        nodes[dies].process.kill()
        wait_for_writes(nodes["spdk" if dies == "embedded" else "embedded"], 200)
        assert perf.stdout is not None
        said = perf.stdout.read().decode()
    assert perf.returncode == 0, said
    check_bdevperf(said)


def serve_behind(middle: EngineProcess, paths: list[dict[str, Any]], port: int) -> int:
    """An engine that attaches the volume over ``paths`` and exports it again at ``port``."""
    nqn = f"{NQN}:behind"
    with Session(middle.socket, schema=None) as session:
        for path in paths:
            session.run(raw_call("bdev_nvme_attach_controller", path))
        for method, params in (
            ("nvmf_create_transport", {"trtype": "TCP"}),
            ("nvmf_create_subsystem", {"nqn": nqn, "allow_any_host": True, "serial_number": "SN2"}),
            ("nvmf_subsystem_add_ns", {"nqn": nqn, "namespace": {"nsid": 1, "bdev_name": "Nn1"}}),
        ):
            session.run(raw_call(method, params))
        session.run(nvmf.add_listener(nqn, ListenAddress.of("tcp", LOCAL, port), ana_state=None))
    return port


def wait_for_writes(node: Node, count: int) -> None:
    """Return when that many further writes have reached the node's device."""
    with Session(node.process.socket, schema=None) as session:

        def writes() -> int:
            reply = session.run(raw_call("bdev_get_iostat", {"names": ["v"]}))
            return int(reply["bdevs"][0]["num_write_ops"])

        wanted = writes() + count
        while writes() < wanted:  # the engine's answer takes its time; pytest's timeout is the end of it
            continue
