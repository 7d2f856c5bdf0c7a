"""One QEMU process: started, spoken to through an inherited socket, and always ended.

Why a socket pair: there is no name in the file system to collide or to leave behind, and when this process dies,
however it dies, the guest sees the port close and powers off.  This module must never start QEMU in its own
process group, wait without a deadline, or end a process it did not start.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.demo.linux_host import image
from cli.demo.linux_host.kernel import unpacked_image
from cli.demo.linux_host.pieces import Pieces

_STOP_TIMEOUT_S: Final = 10
_LOG_TAIL_BYTES: Final = 4096
# panic=-1 with -no-reboot turns a kernel panic into the end of the process, which the reader of the socket sees
# at once.  The self-tests of the ciphers and mitigations cost much under emulation and protect nobody here.
_KERNEL_LINE: Final = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off cryptomgr.notests random.trust_cpu=on nvme_core.multipath=Y"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the guest is, and what it gets beyond the base: modules to load, files to copy."""

    memory_mib: int = 384
    cpus: int = 1
    modules: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


class Machine:
    """A running guest; ``socket`` is the other end of its command port.  Close it, or use it in ``with``."""

    def __init__(self, pieces: Pieces, shape: Shape) -> None:
        """Start QEMU; raises ``OSError`` or ``NoSuchModuleError`` where the image cannot be made."""
        self._folder = tempfile.TemporaryDirectory(prefix="ws7000-host-")
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._start(pieces, shape, theirs)
        except BaseException:
            self.socket.close()
            self._folder.cleanup()
            raise

    def _start(self, pieces: Pieces, shape: Shape, theirs: socket.socket) -> subprocess.Popen[bytes]:
        work = Path(self._folder.name)
        kernel = unpacked_image(pieces.kernel.image.read_bytes())
        if kernel is not None:
            (work / "vmlinux").write_bytes(kernel)
        (work / "initramfs").write_bytes(image.build(pieces, modules=shape.modules, files=shape.files))
        command = _command_line(
            pieces.qemu, shape, work, work / "vmlinux" if kernel is not None else pieces.kernel.image, theirs.fileno()
        )
        with (work / "qemu.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the program was found on PATH, the arguments are ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    def booted(self) -> None:
        """The guest holds its kernel and first root file system: their 70 MB need not stay."""
        for name in ("vmlinux", "initramfs"):
            (Path(self._folder.name) / name).unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The end of what QEMU said and of the kernel's console."""
        work = Path(self._folder.name)
        texts = [_tail(work / name) for name in ("qemu.log", "console.log")]
        return "\n".join(text for text in texts if text)

    def close(self) -> None:
        """Close the port, which powers the guest off; kill QEMU where that is not enough.  May be repeated."""
        self.socket.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_TIMEOUT_S)
        finally:
            self._folder.cleanup()


def _command_line(qemu: Path, shape: Shape, work: Path, kernel: Path, port_fd: int) -> list[str]:
    arguments = [
        "-nodefaults -no-user-config -display none -no-reboot -machine q35 -cpu max",
        "-accel tcg,thread=multi" if shape.cpus > 1 else "-accel tcg",
        f"-m {shape.memory_mib} -smp {shape.cpus}",
        "-device virtio-serial-pci -device virtserialport,chardev=port,name=ws7000.command",
        "-netdev user,id=net,ipv6=off -device virtio-net-pci,netdev=net,romfile=",
    ]
    return [
        str(qemu),
        *" ".join(arguments).split(),
        *("-chardev", f"socket,id=port,fd={port_fd}"),
        *("-serial", f"file:{work / 'console.log'}"),
        *("-kernel", str(kernel)),
        *("-initrd", str(work / "initramfs")),
        *("-append", _KERNEL_LINE),
    ]


def _tail(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return ""
    return data[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
