"""From an array back to array.yaml: ``load(to_yaml(array))`` is ``array`` again.

Every value is written out, defaults too, so that the text means the same under a later version with other
defaults.  PyYAML decides by YAML 1.1 which texts need quotes; here everything that is not plainly a word is
quoted, so that readers of both versions agree.
"""

from __future__ import annotations

import re
from typing import Final

import yaml

from controlplane.domain.desired import (
    Array,
    Bmc,
    Drive,
    FabricsDrive,
    FileDrive,
    HaIntent,
    NetworkIntent,
    Node,
    PcieDrive,
    Pool,
    Port,
    TrafficClass,
    Volume,
)
from controlplane.domain.units import GIB, KIB, MIB, TIB
from controlplane.spec.model import API_VERSION

_WORD: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_NOT_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class _Dumper(yaml.SafeDumper):
    """SafeDumper with its own idea of quotes, and without anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _WORD.fullmatch(text) and text.lower() not in _NOT_WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def to_yaml(array: Array) -> str:
    """The whole array as array.yaml, every shorthand opened; reads back as the same array."""
    return yaml.dump(
        _array(array), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )


def exact_size(size_bytes: int) -> str:
    """The size in the largest binary unit that divides it: exact, unlike what is shown to people."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _array(array: Array) -> dict[str, object]:
    body: dict[str, object] = {
        "apiVersion": API_VERSION,
        "kind": "Array",
        "name": array.name,
        "ha": "none" if array.ha_intent is None else _ha(array.ha_intent),
        "nodes": [_node(node) for node in array.nodes],
    }
    if array.shelf is not None:
        body["shelf"] = {"address": array.shelf.address, "service": array.shelf.service}
    body["drives"] = [_drive(drive) for drive in array.drives]
    body["pools"] = [_pool(pool) for pool in array.pools]
    body["subsystems"] = [{"name": each.name, "nqn": each.nqn} for each in array.subsystems]
    body["hosts"] = [
        _without_none({"name": host.name, "nqn": host.nqn, "secret_file": host.secret_file}) for host in array.hosts
    ]
    body["volumes"] = [_volume(volume) for volume in array.volumes]
    if array.network is not None:
        body["network"] = _network(array.network)
    return body


def _ha(intent: HaIntent) -> dict[str, object]:
    return {
        "policy": intent.policy.value,
        "quorum_drives": intent.quorum_drives,
        "secret_file": intent.secret_file,
        "failback": intent.failback,
        "power": intent.power.value,
    }


def _node(node: Node) -> dict[str, object]:
    return _without_none(
        {
            "name": node.name,
            "rpc": node.rpc,
            "cores": list(node.cores),
            "agent": node.agent or None,
            "heartbeat": node.heartbeat,
            "heartbeat_addresses": list(node.heartbeat_addresses) or None,
            "bmc": None if node.bmc is None else _bmc(node.bmc),
            "ports": [_port(port) for port in node.ports],
        }
    )


def _bmc(bmc: Bmc) -> dict[str, object]:
    """Only where the password lies; what is not of IPMI is left out there."""
    way = {"redfish": bmc.redfish, "verify": bmc.verify, "ca_file": bmc.ca_file} if bmc.redfish else {"ipmi": bmc.ipmi}
    return _without_none({**way, "user": bmc.user, "password_file": bmc.password_file})


def _port(port: Port) -> dict[str, object]:
    entry: dict[str, object] = {"transport": port.transport, "address": port.address, "service": port.service}
    if port.takeover is not None:
        entry["takeover"] = {"interface": port.takeover.interface, "prefix": port.takeover.prefix}
    return entry


def _without_none(entry: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry.items() if value is not None}


def _drive(drive: Drive) -> dict[str, object]:
    entry: dict[str, object] = {"name": drive.name}
    match drive.source:
        case PcieDrive(address=address):
            entry["pcie"] = address
        case FabricsDrive() as shelf:
            entry["nvmeof"] = {
                "transport": shelf.transport,
                "address": shelf.address,
                "service": shelf.service,
                "nqn": shelf.nqn,
            }
        case FileDrive(path=path, size_bytes=size_bytes):
            entry |= {"file": path, "size": exact_size(size_bytes)}
    entry |= {"serial": drive.serial, "failure_domain": drive.failure_domain}
    return _without_none(entry)


def _pool(pool: Pool) -> dict[str, object]:
    return _without_none(
        {
            "name": pool.name,
            "drives": list(pool.drives),
            "protection": pool.protection.value,
            "slices_per_drive": pool.slices_per_drive,
            "slice_size": None if pool.slice_bytes is None else exact_size(pool.slice_bytes),
        }
    )


def _volume(volume: Volume) -> dict[str, object]:
    rates = {
        "rate": volume.qos.rw_bytes_per_s,
        "read_rate": volume.qos.read_bytes_per_s,
        "write_rate": volume.qos.write_bytes_per_s,
    }
    qos = _without_none({"iops": volume.qos.rw_iops}) | {
        key: f"{exact_size(rate)}/s" for key, rate in rates.items() if rate is not None
    }
    return _without_none(
        {
            "name": volume.name,
            "size": exact_size(volume.size_bytes),
            "pool": volume.pool,
            "subsystem": volume.subsystem,
            "stripe": volume.stripe_width,
            "chunk": exact_size(volume.chunk_bytes),
            "home": volume.home,
            "qos": qos or None,
            "hosts": list(volume.hosts),
            "read_only": volume.read_only,
        }
    )


def _network(network: NetworkIntent) -> dict[str, object]:
    return {
        "profile": network.profile,
        "mtu": network.mtu,
        "cable": f"{network.cable_m}m",
        "classes": [_class(each) for each in network.classes],
    }


def _class(each: TrafficClass) -> dict[str, object]:
    share = None if each.share_percent is None else f"{each.share_percent}%"
    return _without_none(
        {
            "name": each.name,
            "dscp": each.dscp,
            "priority": each.priority,
            "lossless": each.lossless,
            "strict": each.strict,
            "share": share,
        }
    )
