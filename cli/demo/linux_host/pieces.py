"""What a virtual Linux host is made of, found on this machine; what is missing is named with its package.

Why: the harness must run as root and as a person, on a machine where nothing was prepared, and must never end in
a traceback because a program is not installed.  This module must never install anything, and never touch the
machine's own boot loader.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.demo.linux_host.kernel import Kernel, NoKernel, find_kernel

QEMU: Final = "qemu-system-x86_64"
_SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# program -> the Debian package that brings it
_PACKAGES: Final[dict[str, str]] = {
    QEMU: "qemu-system-x86",
    "busybox": "busybox-static",
    "nvme": "nvme-cli",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "ldd": "libc-bin",
    "rdma": "iproute2",
    "fio": "fio",
    "mkfs.xfs": "xfsprogs",
    "xfs_repair": "xfsprogs",
}
GUEST_PROGRAMS: Final = ("nvme", "mkfs.ext4", "e2fsck")


@dataclass(frozen=True, slots=True)
class Missing:
    """Why no guest can be started here: the things not found, and the Debian packages that bring them."""

    things: tuple[str, ...]
    packages: tuple[str, ...]

    @property
    def command(self) -> str:
        """What to type, or an empty string where no package helps."""
        return f"apt-get install {' '.join(self.packages)}" if self.packages else ""

    def __str__(self) -> str:
        remedy = f"; as root: {self.command}" if self.command else ""
        return f"no virtual Linux host: {', '.join(self.things)} not found{remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Everything a guest needs; ``programs`` are copied into it together with their shared libraries."""

    qemu: Path
    busybox: Path
    kernel: Kernel
    programs: tuple[Path, ...]


def find_program(name: str) -> Path | None:
    """Absolute path of a program on PATH or in the administrator's folders, which a person's PATH lacks."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def find_pieces(
    programs: Iterable[str] = (), *, modules: Iterable[str] = (), cache: Path | None = None, fetch: bool = True
) -> Pieces | Missing:
    """Pieces for a guest with nvme-cli, the ext4 tools and ``programs``, and a kernel with ``modules``.

    The kernel is an installed one, else one in ``cache``, else one fetched from the distribution into ``cache``
    (see ``kernel.default_cache``).  That is 70 MB, so nothing is fetched where a program is missing anyway, or
    without ``fetch``.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return Missing((f"an x86-64 machine (this is {platform.machine()})",), ())
    wanted = (QEMU, "busybox", "ldd", *GUEST_PROGRAMS, *programs)
    found = {name: find_program(name) for name in wanted}
    things = [name for name, path in found.items() if path is None]
    packages = [_PACKAGES.get(name, name) for name in things]
    kernel = find_kernel(tuple(modules), cache, fetch=fetch and not things)
    if isinstance(kernel, NoKernel):
        things.append(f"a Linux kernel ({kernel.reason})")
        packages.append(kernel.package)
    paths = {name: path for name, path in found.items() if path is not None}
    if things or isinstance(kernel, NoKernel):
        return Missing(tuple(things), tuple(dict.fromkeys(packages)))
    return Pieces(
        qemu=paths[QEMU],
        busybox=paths["busybox"],
        kernel=kernel,
        programs=tuple(paths[name] for name in (*GUEST_PROGRAMS, *programs)),
    )
