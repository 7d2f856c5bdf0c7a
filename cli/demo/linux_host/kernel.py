"""A Linux kernel to boot: the installed one, or the distribution's package unpacked into a cache folder.

Why: the real NVMe host driver is the judge of what we export.  This module must never install a package: an
unpacked kernel serves a guest as well, and leaves this machine's boot loader alone.

The compressed image is unpacked here as well, because under software emulation the guest would spend longer on
that than on all the rest of its boot (6.5 s against 2.5 s, measured).
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.demo.linux_host.modules import ModuleFolder, NoSuchModuleError

BASE_MODULES: Final = (
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "crc32c_generic",  # ext4 and NVMe/TCP digests ask for it by an alias, which no dependency shows
    "nvme_tcp",
    "ext4",
)
_META_PACKAGE: Final = "linux-image-amd64"
_DEPENDS: Final = re.compile(r"^\s*Depends:\s*(linux-image-\S+-amd64)\s*$", re.MULTILINE)
_DOWNLOAD_TIMEOUT_S: Final = 600
# Name size, size of the entry address (4 or 8 bytes), type, name.
_PVH_ENTRY_NOTES: Final = tuple(struct.pack("<III", 4, size, 18) + b"Xen\0" for size in (4, 8))


@dataclass(frozen=True, slots=True)
class Kernel:
    """A bootable image and its modules, of one version."""

    version: str
    image: Path
    modules: ModuleFolder


@dataclass(frozen=True, slots=True)
class NoKernel:
    """No kernel was found or fetched; ``package`` is what an administrator could install."""

    reason: str
    package: str


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/ws7000``; without it ``.cache/vm`` in the source tree, or ``~/.cache/ws7000``."""
    xdg = os.environ.get("XDG_CACHE_HOME")
    if xdg:
        return Path(xdg) / "ws7000"
    tree = Path(__file__).resolve().parents[3]
    return tree / ".cache" / "vm" if (tree / "pyproject.toml").is_file() else Path.home() / ".cache" / "ws7000"


def find_kernel(modules: tuple[str, ...] = (), cache: Path | None = None, *, fetch: bool = True) -> Kernel | NoKernel:
    """The newest usable kernel: installed, else unpacked earlier, else, with ``fetch``, fetched now."""
    wanted = (*BASE_MODULES, *modules)
    folder = (cache or default_cache()) / "kernels"
    roots = [Path("/"), *sorted(folder.glob("linux-image-*"))]
    for root in roots:
        usable = kernels_below(root, wanted)
        if usable:
            return usable[-1]
    if not fetch:
        return NoKernel("no usable one in /boot", _META_PACKAGE)
    fetched = _fetch(folder)
    if isinstance(fetched, NoKernel):
        return fetched
    usable = kernels_below(fetched, wanted)
    return usable[-1] if usable else NoKernel(f"{fetched.name} lacks a module", _META_PACKAGE)


def kernels_below(root: Path, modules: tuple[str, ...]) -> list[Kernel]:
    """Readable kernels of a root folder that have all of ``modules``, oldest version first."""
    usable: list[Kernel] = []
    for image in (root / "boot").glob("vmlinuz-*"):
        version = image.name.removeprefix("vmlinuz-")
        try:
            folder = ModuleFolder.open(root / "lib" / "modules" / version)
            folder.in_loading_order(modules)
        except (OSError, NoSuchModuleError):
            continue
        if os.access(image, os.R_OK):  # some distributions let only root read it
            usable.append(Kernel(version, image, folder))
    return sorted(usable, key=lambda kernel: _version_key(kernel.version))


def _version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", version))


def _fetch(folder: Path) -> Path | NoKernel:
    """Unpack the package that the meta package stands for into ``folder``; its folder there, once complete."""
    tools = [name for name in ("apt-cache", "apt-get", "dpkg") if shutil.which(name) is None]
    if tools:
        return NoKernel(f"no usable one in /boot, and without {', '.join(tools)} none can be fetched", _META_PACKAGE)
    depends = _tool("apt-cache", "depends", _META_PACKAGE)
    found = _DEPENDS.search(depends.stdout)
    if found is None:
        return NoKernel(f"no usable one in /boot, and apt knows no {_META_PACKAGE}: run apt-get update", _META_PACKAGE)
    package = found.group(1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="unpacking-") as work:
            return _unpack(package, Path(work), folder / package)
    except OSError as error:
        return NoKernel(f"no usable one in /boot, and {folder} cannot hold one: {error.strerror}", _META_PACKAGE)


def _unpack(package: str, work: Path, target: Path) -> Path | NoKernel:
    download = _tool("apt-get", "download", package, cwd=work)
    files = list(work.glob("*.deb"))
    if download.returncode or not files:
        reason = download.stderr.strip().splitlines()[-1:] or ["no file came"]
        return NoKernel(f"no usable one in /boot, and {package} could not be fetched: {reason[0]}", _META_PACKAGE)
    root = work / "root"
    unpacked = _tool("dpkg", "-x", str(files[0]), str(root))
    if unpacked.returncode:
        return NoKernel(f"{package} could not be unpacked: {unpacked.stderr.strip()}", _META_PACKAGE)
    try:
        root.rename(target)  # in one step, so that nobody ever finds half a kernel
    except OSError:
        if not target.is_dir():  # else another process was quicker, and its kernel is as good
            raise
    return target


def _tool(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(  # noqa: S603 - fixed programs; the package name comes from apt itself
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False,
            timeout=_DOWNLOAD_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {_DOWNLOAD_TIMEOUT_S} s")


def unpacked_image(image: bytes) -> bytes | None:
    """The ELF kernel inside a compressed x86 image, or None where QEMU has to boot the image as it is.

    None for an image that is not packed with xz, or whose kernel has no PVH entry point (Linux x86 boot
    protocol 2.08, offsets 1F1h, 202h, 248h, 24Ch; Xen's ELF note 18).
    """
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        return None
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    try:
        # A decompressor object, because 4 bytes of size follow the stream within the payload.
        kernel = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(image[start : start + length])
    except lzma.LZMAError:
        return None
    return kernel if any(note in kernel for note in _PVH_ENTRY_NOTES) else None
