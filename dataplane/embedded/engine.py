"""The engine object that every RPC method works on, and the life of the process around it.

Why: one place says what a process owns, in which order it comes up and in which order it goes.  This module must
never know a single method.

Invariants: requests are served only between the STARTUP calls of the configuration and the orderly end; files
are synchronised before the process exits with 0; a second engine on the same socket is refused before it
touches anything.
Source: SPDK v26.05 lib/event/app.c.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from controlplane.domain.errors import ExitCode, Ws7000Error
from dataplane.embedded import rpc
from dataplane.embedded.bdev.base import BdevRegistry
from dataplane.embedded.bdev.delay import Delays
from dataplane.embedded.bdev.error import Errors
from dataplane.embedded.bdev.raid import Raids
from dataplane.embedded.bdev.split import Splits
from dataplane.embedded.initiator.bdev import NvmeBdev
from dataplane.embedded.initiator.module import NvmeModule
from dataplane.embedded.keyring import Keyring
from dataplane.embedded.nvmf.target import NvmfTarget
from dataplane.embedded.rpc.config import ConfigEntry, apply, load
from dataplane.embedded.rpc.framework import version
from dataplane.embedded.rpc.listener import Listener
from dataplane.embedded.rpc.notify import Notifications
from dataplane.embedded.rpc.options import LOGGER, NOTICE, Options
from dataplane.embedded.rpc.registry import RUNTIME, STARTUP, State

log = logging.getLogger(__name__)

DEFAULT_SOCKET: Final = "/var/tmp/spdk.sock"  # noqa: S108 - the path that SPDK's own clients try first
_END_SECONDS: Final = 20.0
"""How long the parts may take to end before the process goes without them."""


class Engine:
    """Everything one engine process owns."""

    def __init__(self) -> None:
        rpc.import_methods()
        self.state: State = STARTUP
        self.started_ns = time.monotonic_ns()
        self.bdevs = BdevRegistry()
        self.splits = Splits(self.bdevs)
        self.raids = Raids(self.bdevs)
        self.errors = Errors(self.bdevs)
        self.delays = Delays(self.bdevs)
        self.bdevs.examiners += [
            self.delays.examine,
            self.errors.examine,
            self.splits.examine,
            self.raids.examine,
        ]
        self.notifications = Notifications()
        self.bdevs.added.append(lambda bdev: self.notifications.send("bdev_register", bdev.name))
        self.bdevs.removed.append(lambda bdev: self.notifications.send("bdev_unregister", bdev.name))
        self.bdevs.resized.append(lambda bdev: self.notifications.send("bdev_resize", bdev.name))
        self.bdevs.resized.append(self.raids.base_resized)
        self.keyring = Keyring()
        self.options = Options()
        self.malloc_count = 0
        self.nvmf = NvmfTarget(self.bdevs, self.keyring)
        self.nvme = NvmeModule(self.bdevs, self.keyring)
        self.running = asyncio.Event()
        self.stopping = asyncio.Event()
        self.listener: Listener | None = None
        self.entries: list[ConfigEntry] = []
        self.ignore_config_errors = False
        self.failure: Ws7000Error | None = None

    async def configure_startup(self) -> None:
        """The STARTUP calls of the configuration; raises ``Ws7000Error`` ENG-004."""
        await apply(self, self.entries, ignore_errors=self.ignore_config_errors)

    async def start_framework(self) -> bool:
        """From STARTUP to RUNTIME and through the rest of the configuration; False: the process ends."""
        if self.listener is not None:
            self.listener.resumed.clear()
        self.state = RUNTIME
        try:
            await apply(self, self.entries, ignore_errors=self.ignore_config_errors)
        except Ws7000Error as error:
            self.failure = error
            self.stopping.set()
            return False
        finally:
            if self.listener is not None:
                self.listener.resumed.set()
        self.running.set()
        return True

    async def close(self) -> None:
        """End everything from the hosts down to the files; what does not end in time is left behind."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self.nvmf.close()
                for bdev in reversed(list(self.bdevs)):
                    if not isinstance(bdev, NvmeBdev):
                        await self.bdevs.remove(bdev)
                await self.nvme.close()
        except TimeoutError:
            log.error("some parts did not end within %.0f s and are left behind", _END_SECONDS)
            for bdev in list(self.bdevs):
                await bdev.close()


async def serve(
    socket_path: str,
    *,
    wait_for_rpc: bool = False,
    config_path: str | None = None,
    ignore_config_errors: bool = False,
    rpc_poll_us: int = 0,
    ready: Callable[[Engine], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or ``engine.stopping``; raises ``Ws7000Error`` when it cannot start.

    ``ready`` is called once requests are accepted.
    """
    entries = load(config_path) if config_path is not None else []
    engine = Engine()
    engine.entries = entries
    engine.ignore_config_errors = ignore_config_errors
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, engine.stopping.set)
    listener = Listener(engine, socket_path, poll_us=rpc_poll_us)
    try:
        listener.bind()
        engine.listener = listener
        await engine.configure_startup()
        if not wait_for_rpc:
            await engine.start_framework()
        if engine.failure is None:
            listener.start()
            log.log(NOTICE, "%s serves %s", version(), socket_path)
            if ready is not None:
                ready(engine)
        await engine.stopping.wait()
    finally:
        listener.close()
        await engine.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if engine.failure is not None:
        raise engine.failure
    log.log(NOTICE, "ended in order")


class _OneLine(logging.Formatter):
    """One record, one line, with a trace where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def start_logging() -> None:
    """Log to standard error, one line per record."""
    logger = logging.getLogger(LOGGER)
    if logger.handlers:
        return
    logging.addLevelName(NOTICE, "NOTICE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: a node has a connection per host and queue."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays at %d: %s", soft, error)


def run(
    socket_path: str = DEFAULT_SOCKET,
    *,
    wait_for_rpc: bool = False,
    config_path: str | None = None,
    ignore_config_errors: bool = False,
    rpc_poll_us: int = 0,
) -> int:
    """The whole process; its exit status."""
    start_logging()
    raise_file_limit()
    try:
        asyncio.run(
            serve(
                socket_path,
                wait_for_rpc=wait_for_rpc,
                config_path=config_path,
                ignore_config_errors=ignore_config_errors,
                rpc_poll_us=rpc_poll_us,
            )
        )
    except Ws7000Error as error:
        parts = [f"{error.code}: {error.what}", error.why, error.remedy]
        log.error("%s", "; ".join(part for part in parts if part))
        return int(error.exit_code)
    return int(ExitCode.OK)
