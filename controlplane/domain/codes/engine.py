"""Pages of the ENG codes: the embedded engine's process."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = (
    Page(
        code="ENG-001",
        title="Another engine already serves this socket",
        explanation=(
            "An engine locks PATH.lock for as long as it lives, so that two never answer on one socket or write "
            "the same files. The lock is held now; the new engine touched nothing."
        ),
        remedy=(
            "Stop the engine that runs (SIGTERM, or the method spdk_kill_instance), or start this one on another "
            "socket: ws7000 engine -r /run/ws7000/b.sock"
        ),
    ),
    Page(
        code="ENG-002",
        title="The engine's socket cannot be made",
        explanation=(
            "The path of a UNIX socket has at most 107 bytes, and its directory has to exist and be writable. "
            "The reason that the system gave is in the message."
        ),
        remedy="Give a short path in a directory of your own: ws7000 engine -r /run/ws7000/a.sock",
    ),
    Page(
        code="ENG-003",
        title="The engine's start-up configuration cannot be used",
        explanation=(
            "The file has SPDK's format: an object with a list of subsystems, each with a list of method calls. "
            "Comments are allowed. A file that is no JSON, ends in the middle or has another form is refused as a "
            "whole, before anything is done."
        ),
        remedy=(
            'Correct the file; the smallest one is {"subsystems": [{"subsystem": "bdev", "config": '
            '[{"method": "bdev_null_create", "params": {"name": "n", "num_blocks": 1024, "block_size": 4096}}]}]}'
        ),
    ),
    Page(
        code="ENG-004",
        title="A call of the start-up configuration failed",
        explanation=(
            "Each call of the file is answered like a call on the socket. At the first one that fails the engine "
            "stops, since a half-configured engine would serve half of the namespaces."
        ),
        remedy=(
            "Correct the call that the message names, or go on in spite of failing calls with "
            "--json-ignore-init-errors."
        ),
    ),
)
