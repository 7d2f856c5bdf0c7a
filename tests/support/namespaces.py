"""Network namespaces of a test: machines with interfaces of their own, joined by a switch, inside one process.

A socket belongs to the namespace that its thread was in when it was made, so one test can be every machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.returncode, f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(fd)


class Machines:
    """Machines on one switch; each has ``eth0``."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._prefix = f"ws{os.getpid()}-"
        self._made: list[str] = []

    def permitted(self) -> None:
        """Make the switch; raises ``OSError`` where that may not be done."""
        self._namespace("switch")
        self._inside("switch", "link", "add", "br0", "type", "bridge")
        self._inside("switch", "link", "set", "br0", "up")

    def start(self) -> None:
        """Make the machines."""
        for name in self._names:
            self._namespace(name)
            switch = f"{self._prefix}switch"
            self._inside(name, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", switch)
            self._inside(name, "link", "set", "eth0", "up")
            self._inside("switch", "link", "set", "dev", name, "master", "br0", "up")

    def _namespace(self, name: str) -> None:
        _ip("netns", "add", f"{self._prefix}{name}")
        self._made.append(name)
        self._inside(name, "link", "set", "lo", "up")

    def _inside(self, name: str, *words: str) -> None:
        _ip("-n", f"{self._prefix}{name}", *words)

    def address(self, name: str, address: str, interface: str = "eth0") -> None:
        """Give the machine an address, as ``192.0.2.1/24``."""
        self._inside(name, "address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))

    def cable(self, first: str, second: str, interface: str) -> None:
        """Join two machines by a cable of their own; its ends have the same name."""
        other = f"{self._prefix}{second}"
        self._inside(first, "link", "add", interface, "type", "veth", "peer", "name", interface, "netns", other)
        for name in (first, second):
            self._inside(name, "link", "set", "dev", interface, "up")

    def mislead(self, name: str, address: str, interface: str) -> None:
        """What the machine sends to the address goes to nobody, and it does not know; what it hears stays."""
        nobody = ("lladdr", "02:00:00:00:00:01", "dev", interface, "nud", "permanent")
        self._inside(name, "neighbour", "replace", address, *nobody)

    def lead(self, name: str, address: str, interface: str) -> None:
        """It arrives again."""
        self._inside(name, "neighbour", "delete", address, "dev", interface)

    def has(self, name: str, address: str) -> bool:
        """Whether the machine has the address."""
        done = subprocess.run(
            ["ip", "-n", f"{self._prefix}{name}", "-json", "address"], capture_output=True, text=True, check=True
        )
        return any(each["local"] == address for link in json.loads(done.stdout) for each in link["addr_info"])

    def serve_from_anywhere(self, name: str) -> None:
        """Let programs listen on addresses that are not up yet."""
        with self.on(name):
            for family in ("ipv4", "ipv6"):
                Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").write_text("1", encoding="ascii")

    def unplug(self, name: str) -> None:
        """The machine is heard no more, and hears nothing; it does not know."""
        self._inside("switch", "link", "set", "dev", name, "nomaster")

    def plug(self, name: str) -> None:
        """The cable is in again."""
        self._inside("switch", "link", "set", "dev", name, "master", "br0")

    def down(self, name: str, interface: str = "eth0") -> None:
        """The machine's own interface is taken down."""
        self._inside(name, "link", "set", "dev", interface, "down")

    def up(self, name: str, interface: str = "eth0") -> None:
        """And up again."""
        self._inside(name, "link", "set", "dev", interface, "up")

    @contextlib.contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Be on that machine, for sockets that are made and for what is asked of the kernel."""
        home = f"/proc/self/task/{_LIBC.gettid()}/ns/net"
        fd = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(f"/run/netns/{self._prefix}{name}")
            try:
                yield
            finally:
                if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def stop(self) -> None:
        for name in reversed(self._made):
            _ip("netns", "delete", f"{self._prefix}{name}")


@contextlib.contextmanager
def machines(*names: str) -> Iterator[Machines]:
    """Running machines; skips by name where they cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed: no network namespaces")
    if os.geteuid() != 0 or not Path("/proc/self/ns/net").exists():
        pytest.skip("network namespaces need root")
    made = Machines(names)
    try:
        try:
            made.permitted()
        except OSError as error:
            pytest.skip(f"network namespaces are not permitted here: {error}")
        made.start()
        yield made
    finally:
        made.stop()
