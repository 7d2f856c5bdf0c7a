"""What the volumes do on each node for a while, for the advice: the one place here that asks engines."""

from __future__ import annotations

import time
from contextlib import ExitStack

from cli.ha.advise import Advice, advise, loads_of
from controlplane.domain.state import State
from controlplane.reconcile.agents import Agents, newest
from controlplane.reconcile.engines import engine_address
from dataplane.rpc.methods import bdev
from dataplane.rpc.session import Session


def advice(state: State, agents: Agents, seconds: float) -> Advice:
    """Count I/O for ``seconds`` on the nodes that are members, and say what to move.  Raises HA-060, and what an engine
    that does not answer raises."""
    record = newest(agents.heard())
    assert record is not None, "every agent was heard"
    with ExitStack() as stack:
        sessions: dict[str, Session] = {
            node.name: stack.enter_context(Session(engine_address(node.rpc), node=node.name))
            for node in state.array.nodes
            if node.name in record.members
        }
        before = {name: session.run(bdev.get_iostat()) for name, session in sessions.items()}
        time.sleep(seconds)
        after = {name: session.run(bdev.get_iostat()) for name, session in sessions.items()}
    return advise(loads_of(state, record.owners, before, after), record.members)
