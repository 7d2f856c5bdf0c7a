"""Shelf and two nodes as real processes, small enough for a test; the array is given as a value."""

from __future__ import annotations

import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.domain.desired import (
    Array,
    Drive,
    FileDrive,
    Host,
    Node,
    Pool,
    Port,
    Protection,
    Shelf,
    Subsystem,
    Volume,
    subsystem_nqn,
)
from controlplane.reconcile import shelf
from controlplane.reconcile.reconciler import Reconciler
from dataplane.launch import EngineKind, EngineProcess, free_ports
from dataplane.rpc.session import Session

MIB = 1 << 20
HOSTS = {
    "h1": "nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111",
    "h2": "nqn.2014-08.org.nvmexpress:uuid:22222222-2222-4222-8222-222222222222",
}


def array_in(folder: Path, *volumes: Volume) -> Array:
    """Six file drives of 16 MiB; pool ``fast`` of four, mirrored pool ``safe`` of two."""
    numbers = free_ports(3)
    names = [f"d{i}" for i in range(6)]

    def node(name: str, number: int) -> Node:
        port = Port(transport="tcp", address="127.0.0.1", service=number, family="ipv4")
        return Node(name=name, rpc=str(folder / f"{name}.sock"), ports=(port,), cores=())  # type: ignore[arg-type]

    return Array(
        name="lab",
        nodes=(node("a", numbers[0]), node("b", numbers[1])),
        drives=tuple(
            Drive(name=n, source=FileDrive(path=str(folder / f"{n}.img"), size_bytes=16 * MIB)) for n in names
        ),
        pools=(
            Pool(name="fast", drives=tuple(names[:4])),
            Pool(name="safe", drives=tuple(names[4:]), protection=Protection.MIRROR),
        ),
        subsystems=(Subsystem(name="default", nqn=subsystem_nqn("lab", "default")),),
        volumes=volumes,
        hosts=tuple(Host(name=name, nqn=nqn) for name, nqn in HOSTS.items()),
        shelf=Shelf(address="127.0.0.1", service=numbers[2]),
    )


@dataclass(slots=True)
class SmallLab:
    """Running engines around a folder."""

    kind: EngineKind
    folder: Path
    array: Array
    engines: dict[str, EngineProcess] = field(default_factory=dict)
    on: Callable[[str], AbstractContextManager[None]] = nullcontext
    """The machine of that name, for what is started there."""

    def start(self, name: str) -> None:
        """Start the engine of that name, empty."""
        core = {"shelf": 0, "a": 1, "b": 0}[name]
        with self.on(name):
            self.engines[name] = EngineProcess.start(self.kind, self.folder / f"{name}.sock", core=core)

    def restart(self, name: str) -> None:
        """Crash it, and start it empty."""
        self.engines[name].kill()
        self.engines[name].socket.unlink(missing_ok=True)
        self.start(name)
        self.engines[name].ready()

    def reconciler(self, array: Array | None = None) -> Reconciler:
        """A reconciler over the lab's state folder."""
        return Reconciler.in_folder(array or self.array, self.folder / "state")

    @property
    def nqn(self) -> str:
        """NQN of the default subsystem."""
        return self.array.subsystem("default").nqn

    @property
    def paths(self) -> list[tuple[str, int]]:
        """Where the nodes listen."""
        return [(port.address, port.service) for node in self.array.nodes for port in node.ports]


@contextmanager
def small_lab(
    kind: EngineKind,
    folder: Path,
    *volumes: Volume,
    array: Array | None = None,
    on: Callable[[str], AbstractContextManager[None]] = nullcontext,
) -> Iterator[SmallLab]:
    """The lab with its shelf exporting; nothing is applied yet.  ``array`` replaces the usual one."""
    lab = SmallLab(kind, folder, array or array_in(folder, *volumes), on=on)
    try:
        shelf.prepare_files(lab.array)
        for name in ("shelf", "a", "b"):
            lab.start(name)
        for engine in lab.engines.values():
            engine.ready()
        with Session(str(lab.engines["shelf"].socket)) as session:
            shelf.serve(lab.array, session)
        yield lab
    finally:
        # Nodes before the shelf, as one would.
        for engine in reversed(list(lab.engines.values())):
            engine.stop()


def host_id(nqn: str) -> uuidlib.UUID:
    """The host identifier inside a UUID NQN."""
    return uuidlib.UUID(nqn.rpartition(":")[2])
