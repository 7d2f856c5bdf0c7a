"""What the guest's kernel may say: whatever else it says about NVMe, blocks or a file system is a surprise.

Why a list of what is allowed: the kernel has hundreds of lines about a target that misbehaves, and a test must not
depend on knowing them all.  Sources: Linux 6.1, drivers/nvme/host.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cli.demo.linux_host import LinuxHost

_ABOUT: Final = re.compile(
    r"nvme|blk_|I/O error|EXT4-fs|XFS|JBD2|hung|blocked for|WARNING|BUG|Call Trace|Oops|digest", re.IGNORECASE
)
_STAMP: Final = re.compile(r"^\[\s*[\d.]+\] ")
ORDINARY: Final = (
    r"nvme nvme\d+: creating \d+ I/O queues\.",
    r"nvme nvme\d+: mapped \d+/\d+/\d+ default/read/poll queues\.",
    r'nvme nvme\d+: new ctrl: NQN "\S+", addr \S+',
    r'nvme nvme\d+: Removing ctrl: NQN "\S+"',
    r"nvme nvme\d+: rescanning namespaces\.",
    r"nvme nvme\d+: resetting controller",
    r"nvme\d+n\d+: detected capacity change from \d+ to \d+",
    r"EXT4-fs \(nvme\d+n\d+\): (mounted|unmounting) .*",
    r"XFS \(nvme\d+n\d+\): (Mounting V5 Filesystem|Ending clean mount|Unmounting Filesystem).*",
    r"SGI XFS with .*",
)
"""A connection that is made, used and ended."""
WAITING: Final = (
    r"block nvme\d+n\d+: no usable path - requeuing I/O",
    r"nvme_ns_head_submit_bio: \d+ callbacks suppressed",  # the line above, too often
)
"""No path is accessible: I/O is kept until one is."""
LOSS: Final = (
    r"nvme nvme\d+: starting error recovery",
    r"nvme nvme\d+: Reconnecting in \d+ seconds\.\.\.",
    r"nvme nvme\d+: Failed reconnect attempt \d+",
    r"nvme nvme\d+: Successfully reconnected \(\d+ attempts?\)",
    r"nvme nvme\d+: failed to connect socket: -\d+",
    r"nvme nvme\d+: failed to send request -\d+",
    r"nvme nvme\d+: failed nvme_keep_alive_end_io error=\d+",
    r"nvme nvme\d+: queue \d+: timeout request .*",
    r"nvme nvme\d+: Connect command failed, error wo/DNR bit: -?\d+",
    r"nvme nvme\d+: failed to connect queue: \d+ ret=-?\d+",
    r"nvme nvme\d+: (Property|Reading) .* failed.*",
    r"nvme nvme\d+: queue_size \d+ > ctrl .*",
    r"nvme nvme\d+: long keepalive RTT \(\d+ ms\)",
    *WAITING,
)
"""A path that goes away and comes back, and nothing worse: above all no I/O error."""


def surprises(text: str, allowed: tuple[str, ...]) -> list[str]:
    """Lines about storage that match none of ``allowed`` as a whole."""
    lines = (_STAMP.sub("", line) for line in text.splitlines())
    return [
        line for line in lines if _ABOUT.search(line) and not any(re.fullmatch(pattern, line) for pattern in allowed)
    ]


@contextmanager
def watched(linux: LinuxHost, *more: str) -> Iterator[None]:
    """What the kernel says during the block is ordinary or matches one of ``more``."""
    linux.check("dmesg -c >/dev/null")
    yield
    text = linux.kernel_log()
    found = surprises(text, (*ORDINARY, *more))
    assert not found, "\n".join(found)
