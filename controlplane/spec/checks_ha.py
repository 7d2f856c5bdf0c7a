"""Checks of high availability: what two nodes need before one can stand in for the other.

Each function looks at one subject and reports everything it finds.  Whether the two nodes really reach every drive is
seen when the drives are adopted (``planner.labels``); here only the text is judged.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from controlplane.domain.desired import Array, FileDrive, PowerPolicy, heartbeat_paths
from controlplane.domain.names import SOCKET_PATH_MAX, is_socket_path
from controlplane.spec.model import ArraySpec
from controlplane.spec.problems import shown
from controlplane.spec.report import Report
from controlplane.spec.yaml_source import Path

_SOCKET: Final = ".sock"


def agent_beside(rpc: str) -> str:
    """Where the agent of an engine answers unless the file says otherwise; empty where the engine is not local."""
    return f"{rpc.removesuffix(_SOCKET)}.agent{_SOCKET}" if is_socket_path(rpc) else ""


def high_availability(array: Array, spec: ArraySpec, report: Report) -> None:
    """What standing in for each other needs: two nodes, drives both reach, drives enough to vote, agents that hear
    each other."""
    _bmcs(array, spec, report)
    if array.ha_intent is None:
        _addresses_that_nobody_moves(spec, report)
        return
    if len(spec.nodes) < 2 and report.whole("nodes"):
        report.problem(
            "SPEC-039", ("ha",), "high availability needs two nodes, and the file has one",
            "nobody could stand in for it", "write 'ha: none', or add node b",
        )  # fmt: skip
    _drives(array, spec, report)
    _agents(array, report)
    _takeovers(spec, report)
    if len(array.nodes) == 2:
        _heartbeats(array, spec, report)


def _drives(array: Array, spec: ArraySpec, report: Report) -> None:
    quorum = array.ha_intent.quorum_drives if array.ha_intent else 0
    pooled = {name for pool in array.pools for name in pool.drives}
    if report.whole("drives") and len(array.drives) < quorum:
        report.problem(
            "SPEC-044", ("ha", "quorum_drives"), f"{quorum} drives are to vote, and the file has {len(array.drives)}",
            "each voice is one drive", "add drives, write 'quorum_drives: 3', or 'ha: none'",
        )  # fmt: skip
    elif report.whole("drives", "pools") and array.pools and len(pooled) < quorum:
        report.problem(
            "SPEC-044", ("ha", "quorum_drives"), f"{quorum} drives are to vote, and the pools have {len(pooled)}",
            "only drives of pools are adopted, and a drive votes through what is written on it",
            "add drives to the pools, write 'quorum_drives: 3', or 'ha: none'",
        )  # fmt: skip
    files = [drive.name for drive in array.drives if isinstance(drive.source, FileDrive)]
    if files and spec.shelf is None and report.whole("shelf"):
        report.problem(
            "SPEC-039", ("ha",), f"drive {files[0]} is a file, and no shelf is given that both nodes reach",
            "a file belongs to one machine; only a shelf process shows it to both nodes",
            "add 'shelf: {address: ...}' with an address both nodes reach, or write 'ha: none'",
        )  # fmt: skip


def _agents(array: Array, report: Report) -> None:
    """Each agent has a socket of its own."""
    taken = {node.rpc: f"the engine of node {node.name}" for node in array.nodes}
    for index, node in enumerate(array.nodes):
        path: Path = ("nodes", index, "agent")
        if not node.agent:
            report.problem(
                "SPEC-039", ("nodes", index, "rpc"), f"node {node.name} has no key 'agent'",
                "its engine is reached over the network, so the socket of its agent does not follow from rpc",
                f"add 'agent: /run/ws7000/{node.name}.agent.sock' to the node",
            )  # fmt: skip
        elif len(node.agent.encode("utf-8", "replace")) > SOCKET_PATH_MAX:
            report.problem(
                "SPEC-019", path, f"the full path {shown(node.agent)} is too long for a UNIX socket",
                f"the kernel takes at most {SOCKET_PATH_MAX} bytes (unix(7))",
                "give a short absolute path, as in /run/ws7000/a.agent.sock",
            )  # fmt: skip
        elif node.agent in taken:
            report.problem(
                "SPEC-034", path, f"{node.agent} is given twice", f"{taken[node.agent]} answers there",
                "give each process its own socket",
            )  # fmt: skip
        taken.setdefault(node.agent, f"the agent of node {node.name}")


def _heartbeats(array: Array, spec: ArraySpec, report: Report) -> None:
    """The agents have a way to hear each other, and each its own end of it."""
    ours, peer = array.nodes
    if report.whole("nodes") and not heartbeat_paths(ours, peer):
        report.problem(
            "SPEC-039", ("nodes", 0, "ports"), "there is no path for heartbeats between the nodes",
            "they go between addresses of one family that stay on their node, and there is no such pair",
            "give each node 'heartbeat_addresses: [ADDRESS]', or leave takeover out of a port",
        )  # fmt: skip
    shared = sorted(set(ours.heard_at) & set(peer.heard_at))
    if shared and ours.heartbeat == peer.heartbeat:
        report.problem(
            "SPEC-034", ("nodes", 1, "heartbeat") if "heartbeat" in spec.nodes[1].model_fields_set else ("nodes", 1),
            f"both nodes send heartbeats from {shared[0]} UDP port {ours.heartbeat}",
            "two nodes on one address need two ports", f"add 'heartbeat: {ours.heartbeat + 1}' to node {peer.name}",
        )  # fmt: skip


def _bmcs(array: Array, spec: ArraySpec, report: Report) -> None:
    """Each BMC is reached in one way and switches one node; who is to use it has one."""
    taken: dict[str, str] = {}
    for index, node in enumerate(spec.nodes):
        path: Path = ("nodes", index, "bmc")
        if node.bmc is None:
            if array.ha_intent is not None and array.ha_intent.power is PowerPolicy.AFTER_TAKEOVER:
                report.problem(
                    "SPEC-039", ("ha", "power"), f"node {node.name} is to be power-cycled, and has no BMC",
                    "nothing else reaches the power of a node", f"add a bmc to node {node.name}, or write 'power: off'",
                )  # fmt: skip
            continue
        if (node.bmc.redfish is None) is (node.bmc.ipmi is None):
            report.problem(
                "SPEC-039", path, f"the BMC of node {node.name} is reached "
                + ("in no way" if node.bmc.redfish is None else "in two ways"),
                "it is spoken to over Redfish or over IPMI", "give one of redfish and ipmi",
            )  # fmt: skip
        elif node.bmc.ipmi is not None and node.bmc.model_fields_set & {"verify", "ca_file"}:
            report.problem(
                "SPEC-039", path, f"the BMC of node {node.name} is reached over IPMI, which has no certificates",
                "verify and ca_file are of Redfish", "leave them out, or give redfish instead of ipmi",
            )  # fmt: skip
        where = node.bmc.redfish or node.bmc.ipmi or ""
        if where in taken:
            report.problem(
                "SPEC-039", path, f"nodes {taken[where]} and {node.name} have the same BMC, {where}",
                "a BMC switches one machine, and the survivor would switch itself off", "give each node its own",
            )  # fmt: skip
        if where:
            taken.setdefault(where, node.name)


def _takeovers(spec: ArraySpec, report: Report) -> None:
    for index, node in enumerate(spec.nodes):
        for number, port in enumerate(node.ports):
            if port.takeover is not None and port.takeover.prefix > ip_address(port.address).max_prefixlen:
                report.problem(
                    "SPEC-012", ("nodes", index, "ports", number, "takeover", "prefix"),
                    f"{port.address} cannot have a prefix of {port.takeover.prefix} bits",
                    f"an address of its family has {ip_address(port.address).max_prefixlen}",
                    "see 'ip -brief address' for the prefix of the network",
                )  # fmt: skip


def _addresses_that_nobody_moves(spec: ArraySpec, report: Report) -> None:
    for index, node in enumerate(spec.nodes):
        for number, port in enumerate(node.ports):
            if port.takeover is not None:
                report.problem(
                    "SPEC-039", ("nodes", index, "ports", number, "takeover"),
                    f"{port.address} is to move between the nodes, and the file says 'ha: none'",
                    "the agents bring such an address up, and without high availability there are none",
                    "leave takeover out, or write how the nodes stand in for each other under ha",
                )  # fmt: skip
