"""From array.yaml to what an agent is started with, and the secret that agents sign their heartbeats with."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from controlplane.domain.desired import Array, Node, heartbeat_paths
from controlplane.domain.errors import Conflict, Refused
from controlplane.domain.names import is_socket_path
from ha.config import AgentConfig, DataAddress, HeartbeatPath
from ha.model import NODES, NodeName, other

SECRET_BYTES: Final = 32
MAX_PATHS: Final = 8
"""More paths make no failure rarer that eight leave, and each costs a datagram a heartbeat (``ha.heartbeat``)."""


def agent_config(
    array: Array, name: NodeName, state: Path, *, engine: str = "", real_time: bool = False, watchdog: str = "off"
) -> AgentConfig:
    """What the agent of node ``name`` is started with; ``engine`` names its RPC socket where array.yaml gives the
    address that others reach it at.  Raises ``Refused`` HA-061."""
    if array.ha_intent is None:
        raise Refused(
            "HA-061",
            f"array {array.name} has no high availability",
            why="its file says 'ha: none'; without agents the plan itself raises and lowers ANA",
            remedy="write ha: {policy: fast} into array.yaml, with what the nodes need (docs/guides/ha.md)",
        )
    ours, peer = array.node(name), array.node(other(name))
    socket = os.path.abspath(engine) if engine else ours.rpc
    if not is_socket_path(socket):
        raise Refused(
            "HA-061",
            f"node {name} has no local RPC socket",
            why=f"its engine is reached at {socket}, and an agent finds the process that it watches by the peer of a "
            "UNIX socket",
            remedy="start the agent on the node itself, with --engine SOCKET",
        )
    return AgentConfig(
        array=array.name,
        node=name,
        engine=socket,
        control=ours.agent,
        folder=str(state.absolute() / f"agent-{name}"),
        secret_file=array.ha_intent.secret_file,
        policy=array.ha_intent.policy.value,
        failback=array.ha_intent.failback,
        paths=_paths(ours, peer),
        addresses=tuple(
            DataAddress(node=node, address=port.address, prefix=port.takeover.prefix, interface=port.takeover.interface)
            for node in NODES
            for port in array.node(node).ports
            if port.takeover is not None
        ),
        interfaces=tuple(dict.fromkeys(port.takeover.interface for port in ours.ports if port.takeover is not None)),
        real_time=real_time,
        watchdog=watchdog,
        power=array.ha_intent.power.value,
        peer_bmc=peer.bmc,
    )


def _paths(ours: Node, peer: Node) -> tuple[HeartbeatPath, ...]:
    """Both nodes count the pairs alike, so that a path has one name."""
    return tuple(
        HeartbeatPath(
            name=f"path-{number}",
            address=here,
            service=ours.heartbeat,
            peer_address=there,
            peer_service=peer.heartbeat,
        )
        for number, (here, there) in enumerate(heartbeat_paths(ours, peer)[:MAX_PATHS], start=1)
    )


def write_config(config: AgentConfig) -> Path:
    """The file that the agent reads, beside what it keeps; whole or not at all."""
    folder = Path(config.folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "config.json"
    beside = path.with_suffix(".new")
    beside.write_text(config.to_json(), encoding="utf-8")
    beside.chmod(0o600)
    beside.replace(path)
    return path


def write_secret(path: Path) -> None:
    """A new secret, for its owner alone.  Raises ``Conflict`` HA-065 where something lies there already: the agents
    that use it would no longer hear each other."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as problem:
        raise Conflict(
            "HA-065",
            f"{path} is there already",
            why="agents that were started with one secret do not hear those that were started with another",
            remedy="keep it; to change the secret, pause the agents, move the file away, and give both nodes a new one",
        ) from problem
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
