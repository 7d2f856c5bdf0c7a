"""The power of a node as agent and commands ask for it: a child process, and a deadline.

Why: see ``ha.power``, which is that process.  This module must never import what speaks to a BMC, and never hold the
agent up: what it starts goes on beside everything else and ends in the history.

When the agent has a node power-cycled: it was fenced in a failover, its groups are served here, and nothing is heard
of it.  One that is still heard mends itself, and to cycle it would only make that longer.  One of which the operator
said that it is off is left to the operator.  And never twice within ``AGAIN_MS``: two nodes that keep each other from
starting would help nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from controlplane.domain import errors
from controlplane.domain.desired import Bmc, PowerPolicy
from controlplane.domain.errors import Refused, Unreachable, UsageError, Ws7000Error
from ha.config import AgentConfig
from ha.model import NodeName, other
from ha.power import Asked, failed

WITHIN_S: Final = 60.0
MARGIN_S: Final = 15.0
"""What connecting and answering may take on top."""
AGAIN_MS: Final = 600_000
_KINDS: Final[Mapping[str, type[Ws7000Error]]] = {kind.__name__: kind for kind in (Refused, Unreachable, UsageError)}


async def ask(node: str, bmc: Bmc, action: str, within_s: float = WITHIN_S) -> str:
    """The state of the node's power after ``action``.  Raises HA-070 to HA-073."""
    # A BMC is reached directly: a proxy of the environment would get the password.
    environment = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ha.power", "-", action, stdin=pipe, stdout=pipe, stderr=nothing, env=environment
        )
    except OSError as problem:
        raise failed(node, bmc, f"no process could be started for it: {problem}") from problem
    text = Asked(node=node, bmc=bmc, within_s=within_s).to_json().encode()
    try:
        async with asyncio.timeout(within_s + MARGIN_S):
            out, _ = await child.communicate(text)
    except TimeoutError as problem:
        raise failed(node, bmc, f"no answer came within {within_s + MARGIN_S:g} s") from problem
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())
    return _result(node, bmc, out, child.returncode)


def _result(node: str, bmc: Bmc, out: bytes, status: int | None) -> str:
    try:
        body: dict[str, Any] = json.loads(out)
        if isinstance(body.get("result"), str):
            return str(body["result"])
        error = body["error"]
        kind = _KINDS.get(str(error.get("kind")), Ws7000Error)
        rest = {name: str(error.get(name, "")) for name in ("why", "remedy", "where")}
        raise kind(str(error["code"]), str(error["what"]), **rest)  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise failed(node, bmc, f"its process ended with status {status} and no answer") from problem


def told(problem: errors.Ws7000Error) -> str:
    """An error as one sentence."""
    return f"{problem.code}: {problem.what}: {problem.why}"


class PeerPower:
    """The peer's power as an agent uses it; ``tell`` gets what was done, in words."""

    def __init__(self, config: AgentConfig, silent_ms: int, tell: Callable[[str], None]) -> None:
        self._peer: NodeName = other(config.node)
        self._wanted = config.power == PowerPolicy.AFTER_TAKEOVER
        self._bmc = config.peer_bmc
        self._silent_ms = silent_ms
        self._tell = tell
        self._cycled_at: int | None = None
        self._task: asyncio.Task[None] | None = None

    def taken(self, *, forced: bool, heard_at: int | None, now: int) -> None:
        """The peer was shut out in a failover, and this node serves: begin what is to be done, and return."""
        if not self._wanted:
            return
        if forced:
            self._tell(f"the power of node {self._peer} is left alone: the operator said that it is off")
        elif heard_at is not None and now - heard_at <= self._silent_ms:
            self._tell(f"the power of node {self._peer} is left alone: its agent is heard")
        elif self._cycled_at is not None and now - self._cycled_at < AGAIN_MS:
            self._tell(
                f"node {self._peer} was power-cycled less than {AGAIN_MS // 60_000} minutes ago, and is left alone"
            )
        elif self._bmc is None:
            self._tell(f"HA-071: node {self._peer} is to be power-cycled, and no BMC is configured for it")
        else:
            self._cycled_at = now
            self._task = asyncio.create_task(self._cycle(self._bmc))

    async def _cycle(self, bmc: Bmc) -> None:
        self._tell(f"node {self._peer} is silent; its BMC at {bmc.where} is asked to power-cycle it")
        try:
            state = await ask(self._peer, bmc, "cycle")
        except Ws7000Error as problem:
            self._tell(told(problem))
        else:
            self._tell(f"node {self._peer} {'was power-cycled' if state != 'off' else 'is off, and was left off'}")

    def close(self) -> None:
        """The agent ends; what has not been asked yet is not asked any more."""
        if self._task is not None:
            self._task.cancel()
