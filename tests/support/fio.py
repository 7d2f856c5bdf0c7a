"""Workloads of fio in the guest: every block that is written carries a checksum, and every checksum is read back.

Why fio: it was written by others, it keeps many commands in flight, and it knows what each block must hold.  A run
proves nothing unless it verified as many bytes as it wrote, so that is looked at as well.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from cli.demo.linux_host import LinuxHost

MIB: Final = 1 << 20
_TIMEOUT_S: Final = 120


@dataclass(frozen=True, kw_only=True)
class Job:
    """One workload; ``more`` are further options, as fio's command line takes them."""

    rw: str
    bs: str = "4k"
    size_mib: int = 4
    depth: int = 16
    offset_mib: int = 0
    more: tuple[str, ...] = ()

    def command(self, target: str, *more: str) -> str:
        """Writes and verifies ``target``: a device, or a file in a file system."""
        words = [
            *("fio", "--name=job", f"--filename={target}", "--ioengine=libaio", "--direct=1", f"--rw={self.rw}"),
            *(f"--bs={self.bs}", f"--size={self.size_mib}M", f"--offset={self.offset_mib}M"),
            *(f"--iodepth={self.depth}", "--verify=crc32c", "--verify_fatal=1", "--output-format=json"),
            *self.more,
            *more,
        ]
        return shlex.join(words)


def run(linux: LinuxHost, job: Job, target: str, *more: str) -> dict[str, Any]:
    """The workload's report; an I/O error or a wrong checksum is a ``GuestError``."""
    text = linux.check(job.command(target, *more), timeout_s=_TIMEOUT_S)
    report: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0]
    assert report["error"] == 0
    return report


def verified(linux: LinuxHost, job: Job, target: str, *more: str) -> dict[str, Any]:
    """As ``run``; everything that was written was read back."""
    report = run(linux, job, target, *more)
    written, read = report["write"]["io_bytes"], report["read"]["io_bytes"]
    assert read >= written > 0, (written, read)
    return report


_LOOP: Final = """
rm -f /tmp/stop /tmp/passes /tmp/failed /tmp/ended
(
    pass=0
    while [ ! -e /tmp/stop ]; do
        {command} --randseed=$((pass + 1)) >/tmp/pass 2>&1 || {{ cp /tmp/pass /tmp/failed; break; }}
        pass=$((pass + 1))
        echo $pass >/tmp/passes.new && mv /tmp/passes.new /tmp/passes
    done
    echo >/tmp/ended
) >/dev/null 2>&1 &
"""


class Loop:
    """A workload that starts over, each time with other data, until it is told to stop."""

    def __init__(self, linux: LinuxHost) -> None:
        self._linux = linux

    def passes(self) -> int:
        """How many times it wrote and verified everything; an error in it fails the test here."""
        said = self._linux.check("cat /tmp/failed 2>/dev/null; echo; cat /tmp/passes 2>/dev/null || echo 0")
        failed, count = said.strip("\n").rpartition("\n")[::2]
        assert not failed.strip(), failed
        return int(count)

    def more(self, count: int = 1) -> None:
        """Wait for that many further whole passes."""
        wanted = self.passes() + count
        self._linux.wait_until(f"pass {wanted} of the workload", lambda: self.passes() >= wanted, timeout_s=_TIMEOUT_S)

    def finish(self) -> None:
        """Let the pass under way come to its end; it must be a good one."""
        self._linux.check("touch /tmp/stop")
        end = "test -e /tmp/ended"
        self._linux.wait_until("the end of the workload", lambda: self._linux.run(end).rc == 0, timeout_s=_TIMEOUT_S)
        assert self.passes() > 0


@contextmanager
def looping(linux: LinuxHost, job: Job, target: str) -> Iterator[Loop]:
    """The workload runs while the block does; afterwards it has ended well."""
    linux.check(_LOOP.format(command=job.command(target)))
    loop = Loop(linux)
    try:
        yield loop
    finally:
        linux.run("touch /tmp/stop")
    loop.finish()
