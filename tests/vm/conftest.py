"""A booted Linux host, and two nodes that export the same volume to it, for the tests of this folder.

The guest is booted once; the tests that talk to nodes run once for each engine.  An engine that is not installed,
or a machine that cannot boot a guest, is a skip that says what is missing.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from cli.demo.linux_host import Connect, LinuxHost, Missing, Namespace, Pieces, Shape, find_pieces
from dataplane.launch import free_ports

NQN = "nqn.2024-01.com.example:ws7000:default"
DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
ANA_GROUP = 1
VOLUME_BYTES = 512 * 1024**2  # XFS makes nothing below 300 MiB; the files stay sparse
CNTLIDS = {"a": range(1, 1000), "b": range(1000, 2000)}
START_TIMEOUT_S = 60
RPC_TIMEOUT_S = 30
# Not every guest needs these: tests that do are skipped by name where they are missing.
WORKLOAD_PROGRAMS = ("fio", "mkfs.xfs", "xfs_repair")
WORKLOAD_MODULES = ("xfs",)


@dataclass(frozen=True)
class Host:
    """What the guest says it is."""

    nqn: str
    uuid: str


@dataclass(frozen=True)
class Hosts:
    """Two hosts with rights, of which the first is not shown the second namespace, and one without."""

    first: Host = Host("nqn.2024-01.com.example:host:first", "11111111-1111-4111-8111-111111111111")
    second: Host = Host("nqn.2024-01.com.example:host:second", "22222222-2222-4222-8222-222222222222")
    stranger: Host = Host("nqn.2024-01.com.example:host:stranger", "33333333-3333-4333-8333-333333333333")


HOSTS = Hosts()


class EngineProcess:
    """An engine of this test, spoken to over its own socket with nothing but json: an independent client."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        self._address = str(folder / f"{name}.sock")
        self._log = folder / f"{name}.log"
        self._command = [*command, "-r", self._address]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Return when the engine takes calls."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.call("rpc_get_methods")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"engine {self.name} does not answer:\n{self.log()}")
            select.select([], [], [], 0.05)

    def call(self, method: str, **params: object) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(RPC_TIMEOUT_S)
            wire.connect(self._address)
            wire.sendall(json.dumps(request | ({"params": params} if params else {})).encode())
            text = b""
            while piece := wire.recv(65536):
                text += piece
                try:
                    reply = json.loads(text)
                except ValueError:
                    continue
                assert "error" not in reply, f"{method} on {self.name}: {reply['error']}"
                return reply["result"]
        raise ConnectionError(f"engine {self.name} ended its connection in the middle of {method}")

    def listen_address(self) -> dict[str, str]:
        return {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(self.port)}

    def set_ana(self, state: str) -> None:
        self.call(
            "nvmf_subsystem_listener_set_ana_state",
            nqn=NQN, listen_address=self.listen_address(), ana_state=state, anagrpid=ANA_GROUP,
        )  # fmt: skip

    def signal(self, number: int) -> None:
        """Send it to the process, which must be alive."""
        assert self._process.poll() is None, self.log()
        os.killpg(self._process.pid, number)

    def crash(self) -> None:
        """It ends without a word."""
        self.signal(signal.SIGKILL)
        self._process.wait(10)

    def start_again(self) -> None:
        """A new process, empty, at the old socket."""
        Path(self._address).unlink(missing_ok=True)
        self._process = self._start()
        self.wait()

    def writes(self) -> int:
        """How many write commands this engine has put on the volume's file."""
        return self.call("bdev_get_iostat", names=["bdev1"])["bdevs"][0]["num_write_ops"]

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)


def export(node: EngineProcess, folder: Path) -> None:
    """``volume`` as namespace 1 for every host with rights, ``masked`` as namespace 2 for the second host."""
    cntlids = CNTLIDS[node.name]
    file, masked = folder / "volume", folder / "masked"
    node.call("nvmf_create_transport", trtype="TCP")
    node.call(
        "nvmf_create_subsystem",
        nqn=NQN, serial_number="WS7000VM", model_number="WS7000", ana_reporting=True, max_namespaces=8,
        min_cntlid=cntlids.start, max_cntlid=cntlids.stop - 1,
    )  # fmt: skip
    for host in (HOSTS.first, HOSTS.second):
        node.call("nvmf_subsystem_add_host", nqn=NQN, host=host.nqn)
    for nsid, path in ((1, file), (2, masked)):
        node.call("bdev_aio_create", name=f"bdev{nsid}", filename=str(path), block_size=512, fallocate=True)
        namespace = {
            "nsid": nsid,
            "bdev_name": f"bdev{nsid}",
            "nguid": f"{nsid:032x}",
            "uuid": f"00000000-0000-4000-8000-{nsid:012d}",
            "anagrpid": ANA_GROUP,
        }
        hidden = {"no_auto_visible": True} if path == masked else {}
        node.call("nvmf_subsystem_add_ns", nqn=NQN, namespace=namespace | hidden)
    node.call("nvmf_ns_add_host", nqn=NQN, nsid=2, host=HOSTS.second.nqn)
    for nqn in (NQN, DISCOVERY_NQN):
        node.call("nvmf_subsystem_add_listener", nqn=nqn, listen_address=node.listen_address())


@dataclass(frozen=True)
class Nodes:
    """Both nodes, and the names that go with them; ``a`` owns the ANA group when a test starts."""

    a: EngineProcess
    b: EngineProcess
    folder: Path
    nqn: str = NQN

    def path(self, node: EngineProcess, host: Host) -> Connect:
        return Connect(nqn=self.nqn, port=node.port, hostnqn=host.nqn, hostid=host.uuid)

    def home(self) -> None:
        self.b.set_ana("inaccessible")
        self.a.set_ana("optimized")

    def revive(self, node: EngineProcess, ana_state: str) -> None:
        """Start an engine that crashed, and have it export what it exported, in that state from the first moment."""
        node.start_again()
        export(node, self.folder)
        node.set_ana(ana_state)

    def switch_over(self) -> None:
        """From ``a`` to ``b``: never both optimized."""
        self.a.set_ana("inaccessible")
        self.b.set_ana("optimized")


@pytest.fixture(scope="session")
def pieces() -> Pieces:
    if os.environ.get("WS7000_NO_VM"):
        pytest.skip("WS7000_NO_VM is set: no Linux kernel is booted")
    found = find_pieces()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    return found


@pytest.fixture(scope="session")
def workload_pieces(pieces: Pieces) -> Pieces | Missing:
    """What the tests with fio and XFS need beyond ``pieces``."""
    return find_pieces(WORKLOAD_PROGRAMS, modules=WORKLOAD_MODULES)


@pytest.fixture(scope="session")
def linux(pieces: Pieces, workload_pieces: Pieces | Missing) -> Iterator[LinuxHost]:
    """The one guest of all tests: with everything that is there."""
    if isinstance(workload_pieces, Missing):
        with LinuxHost(pieces) as host:
            yield host
    else:
        # fio's libraries take 80 MB, once packed and once unpacked.
        with LinuxHost(workload_pieces, Shape(memory_mib=768, modules=WORKLOAD_MODULES)) as host:
            yield host


@pytest.fixture
def workloads(workload_pieces: Pieces | Missing) -> None:
    """Skips the test where the guest has no fio or no XFS."""
    if isinstance(workload_pieces, Missing):
        pytest.skip(str(workload_pieces))


@pytest.fixture(scope="session")
def spdk() -> Path:
    """SPDK's nvmf_tgt below WS7000_SPDK_PREFIX, else on PATH."""
    prefix = os.environ.get("WS7000_SPDK_PREFIX")
    path = os.pathsep.join([f"{prefix}/bin", f"{prefix}/build/bin"]) if prefix else None
    found = shutil.which("nvmf_tgt", path=path)
    if found is None:
        pytest.skip("SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX")
    return Path(found).resolve()


@pytest.fixture(scope="session")
def hosts() -> Hosts:
    return HOSTS


def engine_command(engine: str, request: pytest.FixtureRequest) -> list[str]:
    if engine == "embedded":
        return [sys.executable, "-m", "dataplane.embedded"]
    target: Path = request.getfixturevalue("spdk")
    # In interrupt mode two targets leave the processors to the guest.
    common = "--no-pci --no-huge -s 512 -m 0x1 --disable-cpumask-locks --interrupt-mode --silence-noticelog"
    return [str(target), *common.split()]


@pytest.fixture(scope="module", params=["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two engine processes that export the same files under the same names, as two nodes do."""
    command = engine_command(request.param, request)
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("volume", "masked"):
        with (folder / name).open("wb") as made:
            made.truncate(VOLUME_BYTES)
    with EngineProcess("a", command, folder) as a, EngineProcess("b", command, folder) as b:
        for node in (a, b):
            node.wait()
            export(node, folder)
        yield Nodes(a, b, folder)


@pytest.fixture
def nodes(linux: LinuxHost, pair: Nodes) -> Iterator[Nodes]:
    """The pair with ``a`` optimized; whatever a test leaves behind in the guest is undone."""
    pair.home()
    yield pair
    linux.run("touch /tmp/stop; umount -l /mnt 2>/dev/null")
    linux.disconnect(NQN)


@pytest.fixture
def volume(linux: LinuxHost, nodes: Nodes) -> Namespace:
    """Namespace 1, connected over both nodes as the first host."""
    for node in (nodes.a, nodes.b):
        linux.connect(nodes.path(node, HOSTS.first))
    states = {nodes.a.port: "optimized", nodes.b.port: "inaccessible"}
    return linux.namespace(NQN, 1, paths=2, ana_states=states)
