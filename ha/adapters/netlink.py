"""What an agent asks the kernel about the network, through pyroute2: established connections, and its addresses.

Why so thin: pyroute2 knows the messages, and this module which of them are needed.  Its synchronous calls run an event
loop of their own and refuse to be called where one runs, so the agent calls this module in a thread, never in its
loop.  It is imported at the first call, so that an agent without data addresses never loads it.

This module must never decide, and raises ``OSError`` for whatever the kernel refuses.  One thing is not seen: pyroute2
passes over the errors of sock_diag (``MarshalDiag.error_type``), so a kernel without tcp_diag shows no connections.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ha.config import DataAddress
from ha.says import HostConnection

_IFA_F_NODAD: Final = 2
_NOT_THERE: Final = (errno.EADDRNOTAVAIL, errno.ENODEV)


def connections(service: int) -> Iterator[HostConnection]:
    """Established TCP connections whose own port is ``service``; the kernel picks them.  Raises ``OSError``."""
    from pyroute2.netlink.diag import SS_ESTABLISHED, DiagSocket

    with DiagSocket() as kernel:
        for family in (socket.AF_INET, socket.AF_INET6):
            # No extensions: what else there is to know of a connection is not needed here, and costs.
            for each in kernel.get_sock_stats(
                family=family, states=1 << SS_ESTABLISHED, protocol=socket.IPPROTO_TCP, extensions=0, sport=service
            ):
                yield HostConnection(
                    address=_plain(each["idiag_src"]),
                    service=each["idiag_sport"],
                    host_address=_plain(each["idiag_dst"]),
                    host_service=each["idiag_dport"],
                )


def _plain(address: str) -> str:
    """An IPv4 address as such, on a socket for both families too."""
    mapped = ipaddress.IPv6Address(address).ipv4_mapped if ":" in address else None
    return str(mapped or address)


def addresses_here(addresses: Iterable[DataAddress]) -> frozenset[DataAddress]:
    """Which of them are up on their interfaces now.  Raises ``OSError``."""
    with _kernel() as kernel:
        found = {
            (each["index"], str(ipaddress.ip_address(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))))
            for each in kernel.get_addr()
        }
    here = set()
    for address in addresses:
        with contextlib.suppress(OSError):  # the interface is gone, and its addresses with it
            if (socket.if_nametoindex(address.interface), str(ipaddress.ip_address(address.address))) in found:
                here.add(address)
    return frozenset(here)


def add_address(interface: str, address: str, prefix: int) -> None:
    """Give the interface the address, at once and without asking around; nothing if it has it.  Raises ``OSError``."""
    # Duplicate address detection would keep an IPv6 address back for a second; who asks for it has fenced its owner.
    _change("replace", interface, address, prefix, flags=_IFA_F_NODAD)


def remove_address(interface: str, address: str, prefix: int) -> None:
    """Take the address from the interface; nothing if it has it not.  Raises ``OSError``."""
    try:
        _change("del", interface, address, prefix)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise


def _change(how: str, interface: str, address: str, prefix: int, **more: int) -> None:
    index = socket.if_nametoindex(interface)
    with _kernel() as kernel:
        kernel.addr(how, index=index, address=address, prefixlen=prefix, **more)


@contextlib.contextmanager
def _kernel() -> Iterator[Any]:
    """A socket to rtnetlink; what it raises becomes ``OSError``."""
    from pyroute2.iproute import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as kernel:
            yield kernel
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from error
