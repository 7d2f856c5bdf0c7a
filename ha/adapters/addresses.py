"""Data addresses that move between the nodes: taking one over, and making its hosts notice at once.

Why: a TCP connection to a node that has lost its power ends only when a timer of the host runs out.  When the other
node has the address, the host's segments reach a kernel that knows no such connection, and it answers RST: the host
fails over within a round trip.  Idle connections send nothing, so the host is made to: a segment that cannot be right
(CTDB calls it a tickle) makes its TCP answer with an acknowledgement (RFC 9293, section 3.10.7.4), and that one meets
the RST.

What it must never do: decide.  Two nodes with one address is what a fence is there to prevent, so ``take`` is for who
has fenced the other node (or got its word), and ``release`` comes before a node that comes back is let in.

Order for each address: the address, then the word to the switches and hosts, where it is now (gratuitous ARP, RFC 5227
section 3; unsolicited neighbor advertisement, RFC 4861 section 7.2.6), then the tickles.  All of it may be done
again; doing it once more some hundred milliseconds later covers a lost frame.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.domain.errors import Unreachable
from ha.adapters.netlink import add_address, addresses_here, remove_address
from ha.config import DataAddress
from ha.model import NodeName
from ha.says import HostConnection

_ETH_ARP: Final = 0x0806
_ETH_IPV6: Final = 0x86DD
_EVERYBODY: Final = b"\xff" * 6
_ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
_ALL_NODES: Final = ipaddress.IPv6Address("ff02::1").packed
_ARP_REQUEST, _ARP_REPLY = 1, 2
_ADVERTISEMENT: Final = 136
_OVERRIDE: Final = 0x2000_0000
_ACK: Final = 0x10
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_TCP: Final = struct.Struct("!HHIIBBHHH")
_PSEUDO_V6: Final = struct.Struct("!16s16sI3xB")
_PSEUDO_V4: Final = struct.Struct("!4s4sxBH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kicked:
    """What a takeover of addresses came to; ``problems`` are of HA-047, one for each address that is not ours now."""

    addresses: tuple[str, ...] = ()
    tickled: int = 0
    problems: tuple[Unreachable, ...] = ()


def take(addresses: Sequence[DataAddress], node: NodeName, connections: Iterable[HostConnection]) -> Kicked:
    """Take what belongs to ``node`` over and make its hosts leave it.  Every address is tried, whatever becomes of
    another.  A thousand connections keep the caller some milliseconds: an agent does this in a thread."""
    taken: list[str] = []
    problems: list[Unreachable] = []
    tickled = 0
    known = tuple(connections)
    for each in addresses:
        if each.node != node:
            continue
        try:
            add_address(each.interface, each.address, each.prefix)
            taken.append(each.address)
            announce(each.interface, each.address)
            plain = str(ipaddress.ip_address(each.address))
            tickled += tickle(plain, (one for one in known if one.address == plain))
        except OSError as error:
            problems.append(_not_taken(each, error))
    return Kicked(addresses=tuple(taken), tickled=tickled, problems=tuple(problems))


def release(addresses: Sequence[DataAddress], node: NodeName) -> tuple[Unreachable, ...]:
    """Give back what belongs to ``node``; what comes back are addresses that are still here (HA-047)."""
    problems = []
    for each in addresses:
        if each.node == node:
            try:
                remove_address(each.interface, each.address, each.prefix)
            except OSError as error:
                problems.append(_not_taken(each, error))
    return tuple(problems)


def settle(
    addresses: Sequence[DataAddress], nodes: frozenset[NodeName]
) -> tuple[frozenset[DataAddress], tuple[Unreachable, ...]]:
    """Have exactly the addresses of ``nodes`` up here; what is up then, and what could not be moved (HA-047).  What is
    to go goes first.  Raises ``OSError`` where the kernel does not say what there is."""
    here = addresses_here(addresses)
    problems: list[Unreachable] = []
    for node in sorted({each.node for each in here} - nodes):
        problems += release(addresses, node)
    for node in sorted({each.node for each in addresses if each not in here} & nodes):
        problems += take([each for each in addresses if each not in here], node, ()).problems
    return addresses_here(addresses), tuple(problems)


def _not_taken(address: DataAddress, error: OSError) -> Unreachable:
    return Unreachable(
        "HA-047",
        f"the data address {address.address} cannot be moved on {address.interface}",
        why=error.strerror or str(error),
        remedy=f"see ip address show dev {address.interface}; the agent needs CAP_NET_ADMIN and CAP_NET_RAW",
        where=address.interface,
    )


def announce(interface: str, address: str) -> None:
    """Tell everybody on the link that the address is here.  Raises ``OSError``."""
    found = ipaddress.ip_address(address)
    kind = _ETH_ARP if found.version == 4 else _ETH_IPV6
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as line:
        line.bind((interface, 0))
        own = line.getsockname()[4]
        if found.version == 4:
            # Some listen to requests only, some to replies only.
            for operation in (_ARP_REQUEST, _ARP_REPLY):
                line.send(_EVERYBODY + own + struct.pack("!H", kind) + arp(operation, own, found.packed))
        else:
            line.send(_ALL_NODES_MAC + own + struct.pack("!H", kind) + advertisement(own, found.packed))


def arp(operation: int, own: bytes, address: bytes) -> bytes:
    """A gratuitous ARP message: sender and target are the address itself."""
    target = own if operation == _ARP_REPLY else bytes(6)
    return _ARP.pack(1, 0x0800, 6, 4, operation, own, address, target, address)


def advertisement(own: bytes, address: bytes) -> bytes:
    """An IPv6 packet: an unsolicited neighbor advertisement that overrides what was known."""
    option = struct.pack("!BB", 2, 1) + own
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address + option
    pseudo = _PSEUDO_V6.pack(address, _ALL_NODES, len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255) + address + _ALL_NODES + body


def tickle(address: str, connections: Iterable[HostConnection]) -> int:
    """Make the hosts send something on these connections to ``address``, which is ours; returns how many were reached
    for."""
    own = ipaddress.ip_address(address)
    family = socket.AF_INET if own.version == 4 else socket.AF_INET6
    done = 0
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP) as line:
        # From the address that the hosts know.  What they answer is the kernel's to refuse; no copy is kept for us.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        line.bind((address, 0))
        for each in connections:
            host = ipaddress.ip_address(each.host_address)
            segment = bare_ack(own.packed, each.service, host.packed, each.host_service)
            with contextlib.suppress(OSError):
                line.sendto(segment, socket.MSG_DONTWAIT, (each.host_address, 0))
                done += 1
    return done


def bare_ack(own: bytes, service: int, host: bytes, host_service: int) -> bytes:
    """A TCP segment with numbers that are of no connection: sequence and acknowledgement 0, no window, no data."""
    head = _TCP.pack(service, host_service, 0, 0, 5 << 4, _ACK, 0, 0, 0)
    if len(own) == 4:
        pseudo = _PSEUDO_V4.pack(own, host, socket.IPPROTO_TCP, len(head))
    else:
        pseudo = _PSEUDO_V6.pack(own, host, len(head), socket.IPPROTO_TCP)
    return head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]


def checksum(raw: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = raw + bytes(len(raw) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
