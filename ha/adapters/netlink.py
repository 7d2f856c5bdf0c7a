"""The two things that an agent asks the kernel about the network: established connections, and its addresses.

Why not a library: the agent is one thread with a running event loop, decides every few milliseconds and keeps its
memory locked. pyroute2 has sock_diag only for use outside a running loop, and takes hundreds of microseconds of
Python for each connection; what is needed here are three messages of fixed layout.  This module must never wait: the
kernel does what is asked within ``send``, and its answer lies ready.

Sources: include/uapi/linux/{netlink,inet_diag,sock_diag,rtnetlink,if_addr}.h of Linux; man 7 netlink, sock_diag,
rtnetlink.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

from ha.says import HostConnection

_NETLINK_ROUTE: Final = 0
_NETLINK_SOCK_DIAG: Final = 4
_ERROR, _DONE = 2, 3
_F_REQUEST, _F_ACK, _F_DUMP = 1, 4, 0x300
_F_REPLACE, _F_CREATE = 0x100, 0x400
_SOCK_DIAG_BY_FAMILY: Final = 20
_RTM_NEWADDR, _RTM_DELADDR = 20, 21
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD: Final = 2
_ESTABLISHED: Final = 1
_HEADER: Final = struct.Struct("=IHHII")
_DIAG_REQUEST: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct("!HH16s16s")
_PORTS_AT: Final = 4
_SOCKET_ID_BYTES: Final = 48
_ADDRESS_MESSAGE: Final = struct.Struct("=BBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_RECEIVE_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 1.0


def connections(service: int) -> Iterator[HostConnection]:
    """Established TCP connections whose own port is ``service``.  Raises ``OSError``."""
    for family in (socket.AF_INET, socket.AF_INET6):
        which = struct.pack("!H", service).ljust(_SOCKET_ID_BYTES, b"\0")
        request = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + which
        for body in _ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _F_DUMP, request):
            own, other, source, target = _PORTS.unpack_from(body, _PORTS_AT)
            if own == service:
                yield HostConnection(
                    address=_text(family, source),
                    service=own,
                    host_address=_text(family, target),
                    host_service=other,
                )


def _text(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)


def add_address(interface: str, address: str, prefix: int) -> None:
    """Give the interface the address, at once and without asking around; nothing if it has it.  Raises ``OSError``."""
    _ask_address(_RTM_NEWADDR, _F_CREATE | _F_REPLACE, interface, address, prefix)


def remove_address(interface: str, address: str, prefix: int) -> None:
    """Take the address from the interface; nothing if it has it not.  Raises ``OSError``."""
    try:
        _ask_address(_RTM_DELADDR, 0, interface, address, prefix)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
            raise


def _ask_address(kind: int, flags: int, interface: str, address: str, prefix: int) -> None:
    found = ipaddress.ip_address(address)
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    # Duplicate address detection would keep an IPv6 address back for a second; who asks for it has fenced its owner.
    head = _ADDRESS_MESSAGE.pack(family, prefix, _IFA_F_NODAD, 0, socket.if_nametoindex(interface))
    attributes = b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(found.packed), name) + found.packed for name in (_IFA_LOCAL, _IFA_ADDRESS)
    )
    for _ in _ask(_NETLINK_ROUTE, kind, flags | _F_ACK, head + attributes):
        pass


def _ask(family: int, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """The bodies of the answers to one request, until the kernel says that this was all."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as line:
        line.settimeout(_TIMEOUT_S)
        line.bind((0, 0))
        line.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | _F_REQUEST, 1, 0) + body)
        while True:
            raw = line.recv(_RECEIVE_BYTES)
            while raw:
                length, answer, _, _, _ = _HEADER.unpack_from(raw)
                rest, raw = raw[_HEADER.size : length], raw[(length + 3) & ~3 :]
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", rest)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                if answer == _DONE:
                    return
                yield rest
