"""Real engines of both kinds behind one interface: every test of this directory runs once on each.

Why: the product promises that it behaves the same on the embedded engine and on SPDK, so nothing here may ask
which of them it speaks to, except to name a difference that ``docs/reference/engines.md`` lists.  Engines live for
the whole session, since an SPDK target polls a core for as long as it lives; what a test made is taken away after
it, in the order in which things stand on each other.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from secret_lab import HOST, MINE, NQN, THEIRS, Keys

from dataplane.launch import EngineKind, EngineProcess, command_line, find_spdk, free_ports
from dataplane.rpc.call import Call
from dataplane.rpc.errors import RpcError
from dataplane.rpc.methods import bdev, keyring, nvme, nvmf, raid
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress

BLOCK: Final = 512
MIB: Final = 1 << 20
LOOPBACK: Final = "127.0.0.1"
NO_SPDK: Final = "SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX"
_LAYERS = {"Error Injection Disk": "bdev_error_delete", "delay": "bdev_delay_delete"}
_LEAVES = {"Malloc disk": "bdev_malloc_delete", "Null disk": "bdev_null_delete", "AIO disk": "bdev_aio_delete"}


def raw(method: str, **params: Any) -> Call[Any]:
    """A call as it stands, its reply unread."""
    return Call(method, params, parse=lambda reply: reply)


class Engine:
    """One engine process.  ``schema=None``: what is wrong in a call is the engine's to find here, not ours."""

    def __init__(self, process: EngineProcess) -> None:
        self.process = process
        self.kind: EngineKind = process.kind
        self.session = Session(process.socket, schema=None)
        self.checked = Session(process.socket)

    def run(self, call: Call[Any]) -> Any:
        """The parsed reply."""
        return self.session.run(call)

    def rpc(self, method: str, **params: Any) -> Any:
        """The raw result."""
        return self.session.run(raw(method, **params))

    def number(self, method: str, **params: Any) -> int:
        """The number of the error that this call must end with."""
        return self.refused(raw(method, **params)).number

    def refused(self, call: Call[Any]) -> RpcError:
        """The error that this call must end with."""
        with pytest.raises(RpcError) as caught:
            self.session.run(call)
        return caught.value

    def until(self, call: Call[Any], wanted: Callable[[Any], bool]) -> Any:
        """The first reply that is as wanted; the test's own timeout ends the wait for one that never comes."""
        while True:
            reply = self.session.run(call)
            if wanted(reply):
                return reply

    # -- what tests build on

    def malloc(self, name: str, size_mib: int = 4, uuid: str | None = None) -> str:
        """A device in memory."""
        return str(self.run(bdev.malloc_create(name, block_size_bytes=BLOCK, size_bytes=size_mib * MIB, uuid=uuid)))

    def transport(self) -> None:
        """TCP, once in an engine's life."""
        if not self.run(nvmf.get_transports()):
            self.run(nvmf.create_transport("TCP", masked_oncs=["reservs"]))

    def subsystem(self, nqn: str, **more: Any) -> str:
        """A subsystem as the control plane makes them, unless said otherwise."""
        self.transport()
        given = {
            "serial_number": "SN1", "model_number": "WS7000", "max_namespaces": 8, "min_cntlid": 1,
            "max_cntlid": 0xFFEF,
        }  # fmt: skip
        self.run(nvmf.create_subsystem(nqn, **{**given, **more}))
        return nqn

    def namespace(self, nqn: str, bdev_name: str, nsid: int = 1, *, auto_visible: bool = True, group: int = 1) -> int:
        """A namespace whose identity follows from its number: two engines show the same one."""
        return int(
            self.run(
                nvmf.add_ns(
                    nqn, bdev_name=bdev_name, nsid=nsid, nguid=f"{nsid:032x}",
                    uuid=f"00000000-0000-4000-8000-{nsid:012x}", ana_group=group, auto_visible=auto_visible,
                )
            )
        )  # fmt: skip

    def listen(self, nqn: str, ana_state: str | None = "optimized", port: int | None = None) -> int:
        """A listener on loopback; its port."""
        port = port or free_ports(1)[0]
        self.run(nvmf.add_listener(nqn, ListenAddress.of("tcp", LOOPBACK, port), ana_state=ana_state))
        return port

    def serve(self, nqn: str, *bdevs: str, ana_state: str = "optimized", **more: Any) -> int:
        """A subsystem for everybody with the devices as namespaces 1, 2, ...; its port."""
        self.subsystem(nqn, **{"allow_any_host": True, **more})
        for nsid, name in enumerate(bdevs, 1):
            self.namespace(nqn, name, nsid)
        return self.listen(nqn, ana_state)

    def set_ana(self, nqn: str, port: int, state: str, group: int | None = None) -> None:
        """Of one group, or of all."""
        self.run(nvmf.set_ana_state(nqn, ListenAddress.of("tcp", LOOPBACK, port), state, ana_group=group))

    # -- the end of a test

    def sweep(self) -> None:
        """Take away what there is, whoever made it."""
        self.sweep_to_devices()
        self._sweep_devices()

    def sweep_to_devices(self) -> None:
        """Take away subsystems and sets: what they stood on is left, its data too."""
        for subsystem in self.run(nvmf.get_subsystems()):
            self.run(nvmf.delete_subsystem(subsystem.nqn))
        sets = self.run(raid.get_bdevs())
        while sets:
            inner = {base.name for each in sets for base in each.bases}
            for each in sets:
                if each.name not in inner:
                    self.run(raid.delete(each.name))
            sets = self.run(raid.get_bdevs())

    def _sweep_devices(self) -> None:
        while layers := [info for info in self.run(bdev.get_bdevs()) if info.product_name in _LAYERS]:
            for info in layers:
                if not info.claimed:
                    self.rpc(_LAYERS[info.product_name], name=info.name)
        for base in {info.split_base for info in self.run(bdev.get_bdevs())} - {""}:
            self.run(bdev.split_delete(base))
        for controller in self.run(nvme.get_controllers()):
            self.run(nvme.detach_controller(controller.name))
        for info in self.run(bdev.get_bdevs()):
            self.rpc(_LEAVES[info.product_name], name=info.name)
        for key in self.run(keyring.get_keys()):
            self.run(keyring.file_remove_key(key.name))

    def stop(self) -> None:
        """End the process."""
        self.session.close()
        self.checked.close()
        self.process.stop()


class Engines:
    """The engines of one kind; each is started when a test first asks for it."""

    def __init__(self, kind: EngineKind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.started: list[Engine] = []

    def get(self, index: int) -> Engine:
        """Number 0 or 1."""
        while len(self.started) <= index:
            number = len(self.started)
            process = EngineProcess.start(self.kind, self.folder / f"{number}.sock", core=number).ready()
            self.started.append(Engine(process))
        return self.started[index]

    def waiting(self) -> Engine:
        """A further engine, in the phase before ``framework_start_init``; the caller stops it."""
        path = self.folder / "waiting.sock"
        log = path.with_suffix(".log")
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*command_line(self.kind, path), "--wait-for-rpc"], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        return Engine(EngineProcess(kind=self.kind, socket=path, log=log, process=process).ready())


@pytest.fixture(scope="session", params=["embedded", pytest.param("spdk", marks=pytest.mark.spdk)])
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """The engines of one kind."""
    if request.param == "spdk" and find_spdk() is None:
        pytest.skip(NO_SPDK)
    made = Engines(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    for engine in made.started:
        engine.stop()


@pytest.fixture
def engine(engines: Engines) -> Iterator[Engine]:
    """An engine without anything but, maybe, the TCP transport."""
    made = engines.get(0)
    yield made
    made.sweep()


@pytest.fixture
def other(engines: Engines) -> Iterator[Engine]:
    """A second engine of the same kind: the other node, or the shelf."""
    made = engines.get(1)
    yield made
    made.sweep()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Finds a port."""
    return lambda: free_ports(1)[0]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Where secrets are put into files."""
    return Keys(tmp_path)


@pytest.fixture
def guarded(engine: Engine, keys: Keys) -> Iterator[int]:
    """The port of a volume for a host that must authenticate, and may ask the controller to."""
    engine.malloc("m0")
    number = engine.serve(NQN, "m0", allow_any_host=False)
    keys.add(engine, "host-key", MINE)
    keys.add(engine, "controller-key", THEIRS)
    engine.run(nvmf.add_host(NQN, HOST, dhchap_key="host-key", dhchap_ctrlr_key="controller-key"))
    yield number
    engine.run(nvmf.delete_subsystem(NQN))


@pytest.fixture(scope="module")
def start_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[EngineKind], tuple[Engine, Engine]]:
    """Starts two fresh engines of a kind; the caller stops them."""

    def start(kind: EngineKind) -> tuple[Engine, Engine]:
        made = Engines(kind, tmp_path_factory.mktemp(f"pair-{kind}"))
        return made.get(0), made.get(1)

    return start
