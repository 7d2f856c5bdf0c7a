"""The agent of a node: ``python -m ha.agent CONFIG``.

Why here: the parts are put together in one place, and ``ha.cycle`` runs them.  This module must never decide.

The end of the agent.  Nothing is tidied up: whoever stops renewing the lease has to be sure that the data plane ends
with it, and that is the leash's task, whether the agent was told to stop, crashed or hangs.  So an agent that is told
to stop just ends, and the leash ends the data plane when the lease does.  While the array is paused there is no lease,
and the data plane goes on: that is how an agent is updated.  Data addresses stay where they are for the same reason
(``ha.adapters.moving``).  An error that nobody foresaw ends the agent too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from controlplane.domain.desired import PowerPolicy
from controlplane.domain.errors import Conflict, Ws7000Error
from dataplane.rpc.mux import Mux
from ha.adapters import realtime
from ha.adapters.drives import DriveAccess
from ha.adapters.engine import Connection, EngineAccess
from ha.adapters.lease_page import AgentPage, now_ms, place_of
from ha.adapters.moving import DataAddresses
from ha.adapters.network import Network, read_secret
from ha.adapters.power import PeerPower
from ha.adapters.process import Leash
from ha.beats import Beats
from ha.config import AgentConfig
from ha.cycle import Agent
from ha.desk import Desk
from ha.history import History
from ha.policy import POLICIES, Policy
from ha.watchdog import Watch, Watchdog, mode_of

LINK: Final = Path("/sys/class/net")


def read_config(path: Path) -> tuple[AgentConfig, Policy, bytes]:
    """Configuration, policy and secret; raises HA-038, HA-044."""
    try:
        config = AgentConfig.from_json(path.read_text(encoding="utf-8"))
        if config.policy not in POLICIES:
            raise ValueError(f"there is no policy {config.policy!r}")
        mode_of(config.watchdog)
        if config.power not in (PowerPolicy.OFF, PowerPolicy.AFTER_TAKEOVER):
            raise ValueError(f"power is off or after-takeover, not {config.power!r}")
        Path(config.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise Ws7000Error(
            "HA-038",
            f"the configuration {path} cannot be used",
            why=str(problem),
            remedy="start the agent with ws7000 ha agent, which writes it anew",
            where=str(path),
        ) from problem
    secret = read_secret(Path(config.secret_file))
    return config, replace(POLICIES[config.policy], failback=config.failback).checked(), secret


def hold_folder(folder: Path) -> int:
    """Lock the folder for this process; raises HA-039 while another agent has it."""
    handle = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(handle)
        raise Conflict(
            "HA-039",
            f"an HA agent runs already for {folder}",
            why="its lock is held",
            remedy="stop the other one, or use it",
            where=str(folder),
        ) from problem
    return handle


@dataclass(slots=True)
class Ports:
    """Which data ports have a link; asked of the system once in a while."""

    interfaces: tuple[str, ...]
    every_ms: int
    _at: int = 0
    _seen: tuple[int, int] = field(default=(1, 1))

    def __call__(self) -> tuple[int, int]:
        """(ports with a link, ports); one of one where nobody asked."""
        now = now_ms()
        if self.interfaces and now - self._at >= self.every_ms:
            self._at = now
            self._seen = sum(1 for name in self.interfaces if _has_link(name)), len(self.interfaces)
        return self._seen


def _has_link(interface: str) -> bool:
    try:
        return (LINK / interface / "carrier").read_text(encoding="ascii").strip() == "1"
    except OSError:  # it is down, or gone
        return False


async def serve(config: AgentConfig, policy: Policy, secret: bytes) -> None:
    """Until a signal ends it; raises what nobody foresaw."""
    loop = asyncio.get_running_loop()
    kept = History(Path(config.folder), config.node)
    page = AgentPage(place_of(Path(config.folder)))

    def woken() -> None:
        agent.wake()

    beats = Beats(config.array, config.node, secret, config.paths, policy, woken)
    network = Network(config.paths, beats.heard)

    def drives(connection: Connection) -> DriveAccess:
        assert isinstance(connection, Mux)
        return DriveAccess(connection, config.array, config.node, policy, now_ms, woken)

    mode = mode_of(config.watchdog)
    addresses = DataAddresses(config.addresses, lambda what: kept.write("addresses", what))
    power = PeerPower(config, policy.lease_ms, lambda what: kept.write("power", what))
    agent = Agent(
        config, policy, now_ms,
        drives=drives, beats=beats, wire=network, page=page, leash=Leash(page), kept=kept,
        ports=Ports(config.interfaces, every_ms=1000), addresses=addresses, power=power,
        watch=Watch(Watchdog(mode, config.watchdog_device), mode, lambda what: kept.write("watchdog", what)),
    )  # fmt: skip
    failed: list[BaseException] = []

    def unforeseen(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failed.append(context.get("exception") or RuntimeError(context["message"]))
        agent.stop()

    loop.set_exception_handler(unforeseen)
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, agent.stop)
    engine = EngineAccess(
        lambda: Mux.connect(config.engine), config.array, config.node, policy, now_ms,
        news=agent.wake, meet=agent.meet,
    )  # fmt: skip
    desk = Desk(config.control, agent)
    await addresses.look()
    network.open()
    await desk.open()
    _settle(config, kept)
    engine.start()
    try:
        await agent.run(engine)
        kept.write("stop", "the agent ends; while it holds a lease, so does its data plane")
    finally:
        network.close()
        await desk.close()
        power.close()
        kept.close()
    if failed:
        raise failed[0]


def _settle(config: AgentConfig, kept: History) -> None:
    """What keeps the agent on time, and what could not be had."""
    problems = [realtime.lock_memory()]
    if config.real_time:
        problems.append(realtime.schedule_first())
    realtime.freeze_garbage()
    missing = "; ".join(problem for problem in problems if problem)
    kept.write("start", f"the agent has started{': ' + missing if missing else ''}", process=os.getpid())


def main(arguments: list[str]) -> int:
    """The process; its exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m ha.agent CONFIG\n")
        return 2
    try:
        config, policy, secret = read_config(Path(arguments[0]))
        hold_folder(Path(config.folder))
        asyncio.run(serve(config, policy, secret))
    except Ws7000Error as problem:
        sys.stderr.write(f"{problem}\n  why: {problem.why}\n  do:  {problem.remedy}\n")
        return int(problem.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
