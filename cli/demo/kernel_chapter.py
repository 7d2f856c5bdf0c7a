"""The chapter of the Linux kernel: a real host in QEMU, over both paths, with native multipath.

It runs where QEMU, a Debian kernel and nvme-cli are found; elsewhere it says what is missing.  It writes a
volume that our own host has already verified, and reads it back after a planned switchover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cli.demo.lab import Lab
from cli.demo.linux_host import Connect, LinuxHost, Missing, find_pieces
from controlplane.domain.errors import Unreachable
from controlplane.domain.state import State
from controlplane.reconcile.reconciler import Reconciler

VOLUME = "checkpoint"
MEBIBYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelResult:
    """What the kernel host did; ``ran`` is false when it could not."""

    ran: bool
    summary: str
    paths: int = 0

    def to_json(self) -> dict[str, object]:
        """As the demo's JSON shows it."""
        return {"ran": self.ran, "summary": self.summary, "paths": self.paths}


def run_kernel_host(lab: Lab, state: State, wish: str, say: Callable[[str], None]) -> KernelResult:
    """Boot, connect both paths, write, switch over, read back, compare."""
    if wish == "no":
        return KernelResult(ran=False, summary="not asked for")
    found = find_pieces()
    if isinstance(found, Missing):
        if wish == "yes":
            raise Unreachable("CLI-021", "no Linux kernel host can be booted here", why=str(found))
        say(f"Linux kernel host: skipped ({str(found).splitlines()[0]})")
        return KernelResult(ran=False, summary="skipped: QEMU, a kernel or nvme-cli is missing")
    say("Linux kernel host: booting Debian's kernel in QEMU ...")
    nqn = state.subsystems["default"].nqn
    hostnqn = lab.array.host("gpu1").nqn
    nsid = state.volumes[VOLUME].nsid
    with LinuxHost(found) as host:
        for node in lab.array.nodes:
            for port in node.ports:
                host.connect(Connect(nqn=nqn, port=port.service, hostnqn=hostnqn, hostid=hostnqn.rpartition(":")[2]))
        seen = host.namespace(nqn, nsid, paths=len(lab.array.nodes))
        device = f"/dev/{seen.name}"
        host.check(f"dd if=/dev/urandom of=/tmp/data bs=1M count={MEBIBYTES} 2>/dev/null")
        host.check(f"dd if=/tmp/data of={device} bs=1M conv=fsync 2>/dev/null")
        say(f"Linux {host.kernel}: {device} over {len(seen.paths)} paths, wrote {MEBIBYTES} MiB")
        with Reconciler.in_folder(lab.array, lab.state) as reconciler:
            reconciler.switchover("a")
            host.check("echo 3 > /proc/sys/vm/drop_caches")
            host.check(f"dd if={device} bs=1M count={MEBIBYTES} 2>/dev/null | cmp - /tmp/data")
            say("Linux kernel host: read it back through the other node after a switchover, equal")
            reconciler.switchover("home")
        host.disconnect(nqn)
        return KernelResult(
            ran=True, summary=f"Linux {host.kernel}, {MEBIBYTES} MiB equal after a switchover", paths=len(seen.paths)
        )
