"""What can go wrong with a guest once everything it needs is there.

Why apart from ``pieces.Missing``: a missing program is an answer that a caller plans for (a demo goes on without the
Linux host, a test names why it is skipped); these are failures of something that should have worked.
"""

from __future__ import annotations

from controlplane.domain.errors import DeadlineExceeded, Ws7000Error


class GuestError(Ws7000Error):
    """The guest stopped (HOST-001), or a command in it failed (HOST-003)."""


class GuestLate(DeadlineExceeded):
    """A command in the guest, or something waited for there, did not come in time (HOST-002)."""


def stopped(log_tail: str) -> GuestError:
    """The machine ended by itself: a kernel panic, or QEMU refused its command line."""
    return GuestError(
        "HOST-001",
        "the virtual Linux host stopped",
        why=log_tail or "it wrote no log",
        remedy="read the kernel log above; give the machine more memory if it ran out of it",
    )


def late(what: str, timeout_s: float, log_tail: str) -> GuestLate:
    """``what`` is a noun phrase: the command, or the state that was waited for."""
    return GuestLate(
        "HOST-002",
        f"{what} did not come within {timeout_s:g} s",
        why=log_tail,
        remedy="the guest is emulated in software; on a busy machine give it more time",
    )


def command_failed(command: str, status: int, text: str) -> GuestError:
    """``text`` is what the command wrote, its standard error first."""
    return GuestError(
        "HOST-003",
        f"a command in the virtual Linux host ended with status {status}",
        why=text,
        where=command,
        details={"command": command, "status": status},
    )
