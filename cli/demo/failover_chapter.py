"""The chapter of the failover: the data plane of node a is killed in the middle of a host's writes.

What is shown is what was seen: the longest time between two acknowledgements at the host, the steps of the takeover
as node b's agent noted them, and the data read back.  Then the node comes back and gets its groups again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from cli.demo import story
from cli.demo.lab import Lab
from controlplane.domain.state import State
from controlplane.reconcile.agent_view import AgentView, TakeoverView
from controlplane.reconcile.reconciler import Reconciler
from dataplane.embedded.initiator.host import HostConnection

VOLUME = "weights"
WRITES = 200
"""Acknowledged before the crash, and again after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverResult:
    """``stall_ms`` is the longest time between two acknowledgements; ``steps`` of the takeover are (ms, what)."""

    writes: int
    stall_ms: int
    verified: story.Verified
    steps: tuple[tuple[int, str], ...]

    def to_json(self) -> dict[str, object]:
        """As the demo's JSON shows it."""
        return {
            "writes": self.writes,
            "longest_stall_ms": self.stall_ms,
            "verified_bytes": self.verified.size_bytes,
            "wrong_blocks": self.verified.wrong_blocks,
            "takeover": [{"at_ms": at, "what": what} for at, what in self.steps],
        }


async def run_failover(
    lab: Lab, reconciler: Reconciler, connection: HostConnection, state: State, say: Callable[[str], None]
) -> FailoverResult:
    """Kill, go on writing, look at the takeover, read back, and let the node come back."""
    record = state.volumes[VOLUME]
    namespace = connection.namespace(record.nsid)
    writing = story.Rewriting(namespace, record)
    task = asyncio.create_task(writing.run())
    try:
        await _either(task, writing.until(WRITES))
        lab.engines["a"].kill()
        say(f"killed the data plane of node a in the middle of the writes (after {writing.acknowledged} of them)")
        await _either(task, writing.until(writing.acknowledged + WRITES))
    finally:
        writing.stop()
    await task
    stall_ms = round(writing.longest_gap_s * 1000)
    say(f"host gpu1: no error; the longest wait for an acknowledgement was {stall_ms} ms")
    takeover = await asyncio.to_thread(_takeover, reconciler)
    for at_ms, what in takeover.steps:
        say(f"  node b, {at_ms:5d} ms: {what}")
    verified = story.must(await story.read_all(namespace, record, writing.turns))
    say(f"host gpu1: read {VOLUME} back from node b: every acknowledged write is there")
    await asyncio.to_thread(_bring_back, lab, reconciler)
    say("node a: data plane started again, admitted by node b, built by an apply; its groups are home again")
    return FailoverResult(writes=writing.acknowledged, stall_ms=stall_ms, verified=verified, steps=takeover.steps)


async def _either(task: asyncio.Task[None], wait: Coroutine[None, None, None]) -> None:
    """Wait for the writes to get somewhere; a write that fails ends the wait, with its error."""
    waiting = asyncio.create_task(wait)
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        waiting.cancel()
        task.result()


def _takeover(reconciler: Reconciler) -> TakeoverView:
    assert reconciler.agents is not None
    view = reconciler.agents.heard(frozenset({"a"}))["b"]
    assert isinstance(view, AgentView)
    if view.takeover is None:
        raise story.broken("node b did not take over", view.sentence)
    return view.takeover


def _bring_back(lab: Lab, reconciler: Reconciler) -> None:
    lab.start_engine("a").ready()
    reconciler.apply()
    reconciler.switchover("home")
