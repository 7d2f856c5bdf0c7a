"""A real Linux kernel as an NVMe-oF host, booted in QEMU under software emulation: no KVM, no root, no image.

    found = find_pieces()
    if isinstance(found, Missing):
        print(found)                       # names what is not installed, and the command that installs it
    else:
        with LinuxHost(found) as host:
            host.connect(Connect(nqn=..., port=4420, hostnqn=..., hostid=...))
            host.check("mkfs.ext4 -q /dev/nvme0n1")

Read in this order: ``pieces`` and ``kernel`` (what is there), ``modules``, ``cpio`` and ``image`` (the first root
file system), ``init.sh`` and ``channel`` (how commands travel), ``machine`` (the process), ``nvme_view`` (what the
kernel shows), ``host`` (all of it together).
"""

from __future__ import annotations

from cli.demo.linux_host.errors import GuestError, GuestLate
from cli.demo.linux_host.host import GUEST_ADDRESS, HOST_LOOPBACK, Connect, LinuxHost, Result
from cli.demo.linux_host.machine import Shape
from cli.demo.linux_host.nvme_view import Controller, Discovered, Namespace, NamespacePath, Subsystem
from cli.demo.linux_host.pieces import Missing, Pieces, find_pieces, find_program

__all__ = [
    "GUEST_ADDRESS",
    "HOST_LOOPBACK",
    "Connect",
    "Controller",
    "Discovered",
    "GuestError",
    "GuestLate",
    "LinuxHost",
    "Missing",
    "Namespace",
    "NamespacePath",
    "Pieces",
    "Result",
    "Shape",
    "Subsystem",
    "find_pieces",
    "find_program",
]
