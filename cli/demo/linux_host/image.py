"""The guest's first root file system: a static shell, NVMe tools with their libraries, modules, and init.

Why built here: no root, no image to download, nothing left behind.  This module must never change the machine
it reads from; the only program it runs is ``ldd``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from cli.demo.linux_host import cpio
from cli.demo.linux_host.kernel import BASE_MODULES
from cli.demo.linux_host.pieces import Pieces

_LDD_LINE: Final = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_FOLDERS: Final = ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "etc", "var/run", "var/tmp", "etc/nvme")
# nvme-cli and SPDK start without these, but complain; the kernel calls /sbin/modprobe by that name.
_MODPROBE: Final = "sbin/modprobe"
_LDD_TIMEOUT_S: Final = 60


def shared_libraries(program: Path) -> tuple[Path, ...]:
    """Absolute paths of what the dynamic loader would map for ``program``; empty for a static one."""
    ran = subprocess.run(  # noqa: S603 - a fixed program; the argument is a path that was found
        ["ldd", str(program)],  # noqa: S607 - its place differs between distributions
        capture_output=True, text=True, check=False, timeout=_LDD_TIMEOUT_S,
    )  # fmt: skip
    return tuple(Path(found) for found in _LDD_LINE.findall(ran.stdout))


def build(pieces: Pieces, *, modules: Iterable[str] = (), files: Iterable[Path] = ()) -> bytes:
    """The archive; ``modules`` are loaded at boot after the base ones, ``files`` copied to their own paths.

    Raises ``NoSuchModuleError`` for a module the kernel lacks and ``OSError`` for a file that cannot be read.
    """
    return cpio.archive(cpio.with_parents(_entries(pieces, tuple(modules), tuple(files))))


def _entries(pieces: Pieces, modules: tuple[str, ...], files: tuple[Path, ...]) -> Iterator[cpio.Entry]:
    yield from map(cpio.folder, _FOLDERS)
    yield cpio.character_device("dev/console", 5, 1)
    init = resources.files("cli.demo.linux_host").joinpath("init.sh").read_bytes()
    yield cpio.regular("init", init, executable=True)
    yield from _module_entries(pieces, modules)
    yield from _accounts()
    # The nvme tools come first, so that busybox puts no link of its own in their place.
    yield from _copied((*pieces.programs, *files))
    yield from _busybox(pieces.busybox)


def _accounts() -> Iterator[cpio.Entry]:
    yield cpio.regular("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    yield cpio.regular("etc/group", b"root:x:0:\n")
    yield cpio.regular("etc/hosts", b"127.0.0.1 localhost\n")
    yield cpio.link("etc/mtab", "/proc/self/mounts")


def _module_entries(pieces: Pieces, modules: tuple[str, ...]) -> Iterator[cpio.Entry]:
    ordered = pieces.kernel.modules.in_loading_order((*BASE_MODULES, *modules))
    for module in ordered:
        yield cpio.regular(f"modules/{module.name}.ko", module.image)
    listing = "".join(f"/modules/{module.name}.ko\n" for module in ordered)
    yield cpio.regular("etc/modules-in-order", listing.encode())
    # Everything is loaded already: whatever the kernel still asks for, it is told there is none.
    yield cpio.regular(_MODPROBE, b"#!/bin/sh\nexit 1\n", executable=True)


def _copied(files: Iterable[Path]) -> Iterator[cpio.Entry]:
    taken: set[Path] = set()
    for file in files:
        libraries = shared_libraries(file) if _is_elf(file) else ()
        for path in (file, *libraries):
            if path not in taken:
                taken.add(path)
                executable = bool(path.stat().st_mode & 0o111)
                # Links on the way are resolved by reading; the name stays the one the loader asks for.
                yield cpio.regular(str(path).lstrip("/"), path.read_bytes(), executable=executable)


def _is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def _busybox(busybox: Path) -> Iterator[cpio.Entry]:
    yield from _copied([busybox])
    ran = subprocess.run(  # noqa: S603 - the path was found on PATH
        [str(busybox), "--list"], capture_output=True, text=True, check=True, timeout=_LDD_TIMEOUT_S
    )
    for applet in ran.stdout.split():
        yield cpio.link(f"bin/{applet}", str(busybox))
