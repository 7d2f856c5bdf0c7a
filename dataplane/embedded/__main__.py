"""``python -m dataplane.embedded``: the engine with the command line of SPDK's ``nvmf_tgt``.

Why: tests and scripts start either engine with the same words.  Flags that only make sense for SPDK are accepted
and named as ignored.
"""

from __future__ import annotations

import argparse
import logging
import sys

from dataplane.embedded.engine import DEFAULT_SOCKET, run, start_logging
from dataplane.embedded.rpc.framework import version

MAX_RPC_POLL_US = 1_000_000
_IGNORED_SWITCHES = (
    ("-d", "--limit-coredump"), ("-g", "--single-file-segments"), ("-u", "--no-pci"), ("-R", "--huge-unlink"),
    ("--interrupt-mode",), ("--silence-noticelog",), ("--disable-cpumask-locks",), ("--no-huge",),
    ("--enforce-numa",),
)  # fmt: skip
_IGNORED_VALUES = (
    ("-e", "--tpoint-group"), ("-i", "--shm-id"), ("-m", "--cpumask"), ("-n", "--mem-channels"),
    ("-p", "--main-core"), ("-s", "--mem-size"), ("-B", "--pci-blocked"), ("-L", "--logflag"),
    ("-A", "--pci-allowed"), ("--huge-dir",), ("--num-trace-entries",), ("--iova-mode",),
    ("--base-virtaddr",), ("--env-context",), ("--vfio-vf-token",), ("--msg-mempool-size",), ("--lcores",),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags of lib/event/app.c; unknown ones are refused."""
    made = argparse.ArgumentParser(prog="python -m dataplane.embedded", description="WS7000 embedded engine")
    made.add_argument("-r", "--rpc-socket", default=DEFAULT_SOCKET, metavar="PATH", help="RPC socket")
    made.add_argument("-c", "--config", "--json", metavar="FILE", help="start-up configuration (JSON)")
    made.add_argument("--wait-for-rpc", action="store_true", help="wait for framework_start_init")
    made.add_argument("--json-ignore-init-errors", action="store_true", help="go on after a call that failed")
    made.add_argument(
        "--rpc-poll-us",
        type=_interval_us,
        default=0,
        metavar="N",
        help="look at the RPC socket every N microseconds only (SPDK: 4000); 0, the default: at once",
    )
    made.add_argument("-v", "--version", action="version", version=version())
    ignored = made.add_argument_group("accepted for SPDK's sake, without effect")
    for names in _IGNORED_SWITCHES:
        ignored.add_argument(*names, action="append_const", const=names[-1], dest="ignored")
    for names in _IGNORED_VALUES:
        ignored.add_argument(*names, action=_Ignore, dest="ignored", metavar="X")
    return made


def _interval_us(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_RPC_POLL_US:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and {MAX_RPC_POLL_US}")
    return value


class _Ignore(argparse.Action):
    """Remembers the flag and forgets its value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature is argparse's
        namespace: argparse.Namespace,
        values: object,  # noqa: ARG002 - the signature is argparse's
        option_string: str | None = None,  # noqa: ARG002 - the signature is argparse's
    ) -> None:
        namespace.ignored = [*(namespace.ignored or []), self.option_strings[-1]]


def main() -> int:
    """Run until a signal."""
    given = parser().parse_args()
    start_logging()
    if given.ignored:
        logging.getLogger(__package__).warning("without effect here: %s", " ".join(given.ignored))
    return run(
        given.rpc_socket,
        wait_for_rpc=given.wait_for_rpc,
        config_path=given.config,
        ignore_config_errors=given.json_ignore_init_errors,
        rpc_poll_us=given.rpc_poll_us,
    )


if __name__ == "__main__":
    sys.exit(main())
