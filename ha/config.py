"""What an agent is started with: one JSON file, so that the agent needs neither YAML nor pydantic.

``ws7000 ha agent`` makes it from array.yaml.  Paths are absolute.  This module must never decide anything.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from controlplane.domain.desired import Bmc
from ha.model import NodeName


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatPath:
    """One UDP path between the nodes: a name that both use, and the two ends."""

    name: str
    address: str
    service: int
    peer_address: str
    peer_service: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAddress:
    """An address that moves with its node's groups: brought up by agents only.  ``node`` is its home."""

    node: NodeName
    address: str
    prefix: int
    interface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """``engine`` is the socket of the data plane's JSON-RPC, ``control`` the agent's own; ``folder`` keeps the agent's
    cache, history and lease page; ``secret_file`` holds the key that heartbeats are signed with (32 bytes, hex)."""

    array: str
    node: NodeName
    engine: str
    control: str
    folder: str
    secret_file: str
    policy: str
    paths: tuple[HeartbeatPath, ...]
    failback: bool = False
    """Whether groups come home by themselves; goes over what the policy of that name says."""
    addresses: tuple[DataAddress, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Network interfaces of the data ports, to see which have a link; empty where that is not asked."""
    real_time: bool = False
    watchdog: str = "off"
    """off, automatic or required."""
    watchdog_device: str = "/dev/watchdog"
    power: str = "off"
    """off or after-takeover: whether the peer is power-cycled once it was shut out."""
    peer_bmc: Bmc | None = None
    """What switches the peer's power."""

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AgentConfig:
        """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for anything else than ``to_json`` writes."""
        body: dict[str, Any] = json.loads(text)
        body["paths"] = tuple(HeartbeatPath(**path) for path in body["paths"])
        body["addresses"] = tuple(DataAddress(**address) for address in body["addresses"])
        body["interfaces"] = tuple(body["interfaces"])
        if body.get("peer_bmc") is not None:
            body["peer_bmc"] = Bmc(**body["peer_bmc"])
        return cls(**body)
