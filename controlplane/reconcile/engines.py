"""What the nodes' engines are: address and version.  Reads only, and never raises for a node that is silent."""

from __future__ import annotations

from controlplane.domain.desired import Array
from controlplane.domain.errors import Ws7000Error
from dataplane.rpc.methods import framework
from dataplane.rpc.session import Session

DEADLINE_S = 5.0


def engine_address(text: str) -> str | tuple[str, int]:
    """The address in ``rpc`` of a node: a UNIX socket path, or ``host:port``."""
    if "/" in text:
        return text
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdigit() else text


def engine_versions(array: Array) -> dict[str, str]:
    """What each node's engine calls itself; empty where it does not answer."""
    found: dict[str, str] = {}
    for node in array.nodes:
        try:
            with Session(engine_address(node.rpc), node=node.name) as session:
                found[node.name] = session.run(framework.get_version(), deadline_s=DEADLINE_S).text
        except Ws7000Error:
            found[node.name] = ""
    return found
