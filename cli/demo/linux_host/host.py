"""A Linux host to try an array with: ``with LinuxHost(pieces) as host: host.run("nvme list")``.

Why: whether a volume works is not for our own code to say.  Here the kernel's NVMe host driver, its native
multipath, a file system and nvme-cli are the judges.  This module is the only one of the package that waits; every
wait has an end, and leaving the ``with`` block always ends the guest.

The guest reaches this machine's loopback addresses as ``HOST_LOOPBACK``.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeVar

from cli.demo.linux_host import nvme_view
from cli.demo.linux_host.channel import Answer, Reader, Ready, encode_script
from cli.demo.linux_host.errors import command_failed, late, stopped
from cli.demo.linux_host.machine import Machine, Shape
from cli.demo.linux_host.nvme_view import Discovered, Namespace, Subsystem
from cli.demo.linux_host.pieces import Pieces

HOST_LOOPBACK: Final = "10.0.2.2"
GUEST_ADDRESS: Final = "10.0.2.15"
BOOT_TIMEOUT_S: Final = 120
COMMAND_TIMEOUT_S: Final = 60
# The guest kills a late command itself; this much longer the answer may take before the guest counts as stuck.
_GRACE_S: Final = 20
_POLL_INTERVAL_S: Final = 0.1
_RECEIVE_BYTES: Final = 65536

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said; ``rc`` is its exit status."""

    command: str
    rc: int
    out: str
    err: str

    def check(self) -> Result:
        """The result itself; raises ``GuestError`` where the status is not 0."""
        if self.rc:
            raise command_failed(self.command, self.rc, (self.err + self.out).strip())
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """One path to ask for.

    ``queues`` and ``queue_depth`` are small by default, because emulation has one processor.  ``ctrl_loss_s`` is
    how long the kernel tries to come back before it removes the path; -1 is for ever.  ``digests`` asks for a
    checksum of every header and of all data.
    """

    nqn: str
    port: int
    hostnqn: str
    hostid: str
    address: str = HOST_LOOPBACK
    transport: str = "tcp"
    queues: int = 1
    queue_depth: int = 32
    reconnect_delay_s: int = 1
    ctrl_loss_s: int = 600
    keep_alive_s: int = 5
    digests: bool = False

    def command(self) -> str:
        """The nvme-cli command line."""
        words = [
            *("nvme", "connect", "-t", self.transport, "-a", self.address, "-s", str(self.port)),
            *("-n", self.nqn, f"--hostnqn={self.hostnqn}", f"--hostid={self.hostid}"),
            *(f"--nr-io-queues={self.queues}", f"--queue-size={self.queue_depth}"),
            *(f"--reconnect-delay={self.reconnect_delay_s}", f"--ctrl-loss-tmo={self.ctrl_loss_s}"),
            f"--keep-alive-tmo={self.keep_alive_s}",
            *(("--hdr-digest", "--data-digest") if self.digests else ()),
        ]
        return shlex.join(words)


class LinuxHost(AbstractContextManager["LinuxHost"]):
    """A booted guest.  Not for several threads at once: commands run one after another."""

    def __init__(self, pieces: Pieces, shape: Shape | None = None) -> None:
        self._pieces = pieces
        self._shape = shape or Shape()
        self._machine: Machine | None = None
        self._reader = Reader()
        self._last_number = 0
        self.kernel = ""

    def __enter__(self) -> Self:
        """Boot, and wait until commands are taken; raises ``GuestError``, ``GuestLate`` or ``OSError``."""
        self._machine = Machine(self._pieces, self._shape)
        try:
            message = self._receive("the boot of the virtual Linux host", BOOT_TIMEOUT_S)
            if not isinstance(message, Ready):
                raise stopped(self._machine.log_tail())
            self.kernel = message.kernel
            self._machine.booted()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the guest.  May be repeated."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.close()

    @property
    def machine(self) -> Machine:
        """The running machine; raises ``RuntimeError`` outside of the ``with`` block."""
        if self._machine is None:
            raise RuntimeError("the Linux host is not running")
        return self._machine

    # Commands.

    def run(self, script: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Result:
        """Run a shell script and wait for its end; raises ``GuestLate`` (it is killed then) or ``GuestError``.

        What it leaves running in the background must write elsewhere than to its standard output.
        """
        self._last_number += 1
        try:
            self.machine.socket.sendall(encode_script(self._last_number, timeout_s, script))
        except OSError:
            raise stopped(self.machine.log_tail()) from None
        message = self._receive(f"the end of {script.strip()!r}", timeout_s + _GRACE_S)
        if not isinstance(message, Answer) or message.number != self._last_number:
            raise stopped(self.machine.log_tail())
        if message.status is None:
            raise late(f"the end of {script.strip()!r}", timeout_s, self.machine.log_tail())
        return Result(script, message.status, message.out, message.err)

    def check(self, script: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """Standard output of a script that must succeed; raises ``GuestError`` where it does not."""
        return self.run(script, timeout_s=timeout_s).check().out

    def wait_until(self, what: str, probe: Callable[[], Seen | None], *, timeout_s: float = COMMAND_TIMEOUT_S) -> Seen:
        """The first value of ``probe`` that is neither None nor False; raises ``GuestLate`` naming ``what``.

        For states of the guest's kernel that no command waits for, such as a scan of namespaces.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            seen = probe()
            if seen is not None and seen is not False:
                return seen
            if time.monotonic() >= deadline:
                raise late(what, timeout_s, self.kernel_log())
            time.sleep(_POLL_INTERVAL_S)

    def kernel_log(self) -> str:
        """The guest's kernel messages, from its ring buffer."""
        return self.check("dmesg")

    # NVMe.

    def connect(self, path: Connect, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Connect one path; raises ``GuestError`` with what nvme-cli and the kernel said where it is refused.

        Namespaces appear a little later: see ``namespace``.
        """
        result = self.run(path.command(), timeout_s=timeout_s)
        if result.rc:
            kernel = self.run("dmesg | tail -n 5").out
            raise command_failed(result.command, result.rc, f"{result.err}{result.out}{kernel}".strip())

    def disconnect(self, nqn: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        """Drop every path to a subsystem; none is no error."""
        self.check(f"nvme disconnect -n {shlex.quote(nqn)}", timeout_s=timeout_s)

    def discover(
        self, port: int, hostnqn: str, hostid: str, *, address: str = HOST_LOOPBACK, transport: str = "tcp"
    ) -> tuple[Discovered, ...]:
        """The discovery log page that this host NQN is shown."""
        words = ["nvme", "discover", "-t", transport, "-a", address, "-s", str(port), "-o", "json"]
        return nvme_view.parse_discovery(self.check(shlex.join([*words, f"--hostnqn={hostnqn}", f"--hostid={hostid}"])))

    def subsystems(self) -> tuple[Subsystem, ...]:
        """What the kernel is connected to now, with every path and its ANA state."""
        return nvme_view.parse_snapshot(self.check(nvme_view.SNAPSHOT_SCRIPT))

    def subsystem(self, nqn: str) -> Subsystem | None:
        """One of ``subsystems``, or None."""
        return next((found for found in self.subsystems() if found.nqn == nqn), None)

    def block_devices(self) -> tuple[str, ...]:
        """Names of the NVMe block devices a person would see, such as ``nvme0n1``; hidden paths are left out."""
        return tuple(sorted(self.check("cd /dev && for n in nvme*n*; do [ -b $n ] && echo $n; done; true").split()))

    def namespace(
        self,
        nqn: str,
        nsid: int,
        *,
        paths: int = 1,
        ana_states: dict[int, str] | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Namespace:
        """Wait for a namespace with that many live paths and, where given, these ANA states by port."""

        def seen() -> Namespace | None:
            subsystem = self.subsystem(nqn)
            for namespace in subsystem.namespaces if subsystem else ():
                live = [path for path in namespace.paths if path.controller.state == "live"]
                right = ana_states is None or namespace.ana_states() == ana_states
                if namespace.nsid == nsid and len(live) == paths and namespace.size_bytes and right:
                    return namespace
            return None

        wanted = f" in states {ana_states}" if ana_states else ""
        return self.wait_until(f"namespace {nsid} of {nqn} over {paths} paths{wanted}", seen, timeout_s=timeout_s)

    # The wire below.

    def _receive(self, what: str, timeout_s: float) -> Ready | Answer:
        deadline = time.monotonic() + timeout_s
        while True:
            self.machine.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.machine.socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                raise late(what, timeout_s, self.machine.log_tail()) from None
            except ConnectionError:
                data = b""
            if not data:
                raise stopped(self.machine.log_tail())
            messages = self._reader.feed(data)
            if messages:
                # One script is under way at a time, so there is never a second message in the same piece.
                return messages[0]
