"""What the guest's kernel says about its NVMe subsystems, as values.

Why sysfs and not ``nvme list-subsys``: the kernel's own files are the same for every release of nvme-cli, and
they show the ANA state of every path, which older releases leave out of their JSON.  This module is pure: the
text of the files in, values out.

Names (Linux, drivers/nvme/host): ``nvme-subsysX`` a subsystem, ``nvmeY`` a controller, ``nvmeXnZ`` the block
device that joins the paths, ``nvmeXcYnZ`` the path to it through controller ``nvmeY``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

# One reading of everything; a file that went away between listing and reading is simply not in it.
SNAPSHOT_SCRIPT: Final = """
cd /sys/class
for link in nvme-subsystem/*/nvme*; do echo "link:$link"; done
grep -sH '' nvme-subsystem/*/subsysnqn
grep -sH '' nvme/*/transport nvme/*/address nvme/*/state nvme/*/cntlid nvme/*/hostnqn
grep -sH '' nvme/*/nvme*n*/nsid nvme/*/nvme*n*/ana_state nvme/*/nvme*n*/ana_grpid
grep -sH '' block/nvme*/nsid block/nvme*/size block/nvme*/uuid block/nvme*/nguid
true
"""
_PATH: Final = re.compile(r"^nvme(\d+)c\d+n(\d+)$")
_BLOCK: Final = re.compile(r"^nvme\d+n\d+$")
_CONTROLLER: Final = re.compile(r"^nvme\d+$")
_SECTOR_BYTES: Final = 512  # the unit of /sys/block/*/size, whatever the block size


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """One connection of this host; ``state`` is the kernel's word: live, connecting, resetting, ..."""

    name: str
    transport: str
    address: str
    port: int
    state: str
    cntlid: int
    hostnqn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespacePath:
    """One way to a namespace; ``ana_state`` is the kernel's word: optimized, inaccessible, ...

    It is empty, and the group 0, where the controller reports no ANA.
    """

    name: str
    controller: Controller
    ana_state: str
    ana_group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """One block device of the host and the paths behind it."""

    name: str
    nsid: int
    size_bytes: int
    uuid: str
    nguid: str
    paths: tuple[NamespacePath, ...]

    @property
    def device(self) -> str:
        """The device file in the guest."""
        return f"/dev/{self.name}"

    def ana_states(self) -> dict[int, str]:
        """The ANA state of each path, by the port it goes to."""
        return {path.controller.port: path.ana_state for path in self.paths}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsystem:
    """An NVM subsystem this host is connected to."""

    name: str
    nqn: str
    controllers: tuple[Controller, ...]
    namespaces: tuple[Namespace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """One record of a discovery log page."""

    subtype: str
    transport: str
    address: str
    port: int
    nqn: str


def parse_snapshot(text: str) -> tuple[Subsystem, ...]:
    """Values of what ``SNAPSHOT_SCRIPT`` printed.  A controller that is still being made is left out."""
    members: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "link":
            _, subsystem, member = value.split("/")
            members.setdefault(subsystem, []).append(member)
        else:
            files[name] = value
    return tuple(
        _subsystem(name, nqn, members.get(name, []), files)
        for name in sorted(members)
        if (nqn := files.get(f"nvme-subsystem/{name}/subsysnqn")) is not None
    )


def _subsystem(name: str, nqn: str, members: list[str], files: dict[str, str]) -> Subsystem:
    made = (_controller(member, files) for member in sorted(members) if _CONTROLLER.match(member))
    controllers = tuple(controller for controller in made if controller is not None)
    paths = [path for controller in controllers for path in _paths(controller, files)]
    heads = {head for path in paths if _BLOCK.match(head := head_of(path.name))}
    namespaces = (_namespace(head, paths, files) for head in sorted(heads))
    return Subsystem(
        name=name,
        nqn=nqn,
        controllers=controllers,
        namespaces=tuple(namespace for namespace in namespaces if namespace is not None),
    )


def _controller(name: str, files: dict[str, str]) -> Controller | None:
    values = {key: files.get(f"nvme/{name}/{key}") for key in ("transport", "address", "state", "cntlid", "hostnqn")}
    address = dict(
        part.split("=", 1) for part in (values["address"] or "").split(",") if "=" in part
    )  # traddr=10.0.2.2,trsvcid=4420,src_addr=10.0.2.15
    if not values["cntlid"] or "trsvcid" not in address:
        return None
    return Controller(
        name=name,
        transport=values["transport"] or "",
        address=address.get("traddr", ""),
        port=int(address["trsvcid"]),
        state=values["state"] or "",
        cntlid=int(values["cntlid"]),
        hostnqn=values["hostnqn"] or "",
    )


def _paths(controller: Controller, files: dict[str, str]) -> list[NamespacePath]:
    prefix = f"nvme/{controller.name}/"
    names = {key.split("/")[2] for key in files if key.startswith(prefix) and key.endswith("/nsid")}
    return [
        NamespacePath(
            name=name,
            controller=controller,
            ana_state=files.get(f"{prefix}{name}/ana_state", ""),
            ana_group=int(files.get(f"{prefix}{name}/ana_grpid", "0")),
        )
        for name in sorted(names)
    ]


def head_of(path: str) -> str:
    """The block device that a path belongs to: ``nvme0c1n2`` -> ``nvme0n2``; anything else is its own."""
    found = _PATH.match(path)
    return f"nvme{found.group(1)}n{found.group(2)}" if found else path


def _namespace(name: str, paths: list[NamespacePath], files: dict[str, str]) -> Namespace | None:
    prefix = f"block/{name}/"
    if f"{prefix}nsid" not in files:
        return None
    return Namespace(
        name=name,
        nsid=int(files[f"{prefix}nsid"]),
        size_bytes=int(files.get(f"{prefix}size", "0")) * _SECTOR_BYTES,
        uuid=files.get(f"{prefix}uuid", ""),
        nguid=files.get(f"{prefix}nguid", ""),
        paths=tuple(path for path in paths if head_of(path.name) == name),
    )


def parse_discovery(text: str) -> tuple[Discovered, ...]:
    """Values of what ``nvme discover -o json`` printed; an empty text is an empty log page."""
    records = json.loads(text)["records"] if text.strip() else []
    return tuple(
        Discovered(
            subtype=record["subtype"],
            transport=record["trtype"],
            address=record["traddr"],
            port=int(record["trsvcid"]),
            nqn=record["subnqn"],
        )
        for record in records
    )
