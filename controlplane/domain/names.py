"""Names and addresses: what a legal one looks like, and its one canonical spelling.

Why: a name that is legal here must be legal everywhere it goes (engine objects, keyring names, NQNs, file
names), so that nothing fails half-way through an apply.  Each function returns the canonical text or raises
``NamingError``, whose message says what is wrong with it.  This module must never guess or repair silently:
the only things it changes are letter case and leading zeroes that mean nothing.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

NAME_PATTERN: Final = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
NAME_MAX: Final = 40
NQN_MAX: Final = 223
"""NVMe base 2.0, 4.7 (223 bytes and a null); SPDK include/spdk/nvmf_spec.h SPDK_NVMF_NQN_MAX_LEN."""
UUID_NQN: Final = "nqn.2014-08.org.nvmexpress:uuid:"
DISCOVERY_NQN: Final = "nqn.2014-08.org.nvmexpress.discovery"
SERIAL_MAX: Final = 20
"""Identify Controller, bytes 23:04 (NVMe base 2.0, figure 275): 20 ASCII characters."""
INTERFACE_MAX: Final = 15
"""``IFNAMSIZ`` is 16 with its null (Linux include/uapi/linux/if.h)."""
USER_MAX: Final = 64
SOCKET_PATH_MAX: Final = 107
"""``sun_path`` holds 108 bytes with its null (unix(7))."""

_NAME: Final = re.compile(NAME_PATTERN)
_LABEL: Final = r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NQN: Final = re.compile(rf"nqn\.[0-9]{{4}}-(?:0[1-9]|1[0-2])\.{_LABEL}(?:\.{_LABEL})*:(.+)")
_PCIE: Final = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_HOST_PORT: Final = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]/]+)):([0-9]{1,5})")
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


class NamingError(ValueError):
    """The text is not a legal name or address of its kind; the message is the reason, as a clause."""


def check_name(text: str) -> str:
    """A name of a pool, volume, drive and so on: lower-case letters, digits and inner hyphens, at most 40."""
    if _NAME.fullmatch(text):
        return text
    if not text:
        raise NamingError("a name cannot be empty")
    if len(text) > NAME_MAX:
        raise NamingError(f"a name has at most {NAME_MAX} characters, this one has {len(text)}")
    raise NamingError("a name has only lower-case letters, digits and, inside, hyphens")


def check_nqn(text: str) -> str:
    """An NVMe qualified name, by the rules of SPDK lib/nvmf/subsystem.c nvmf_nqn_is_valid (NVMe base 2.0, 4.7).

    Stricter in one thing: white space and control characters are refused, since no host can type them.
    """
    if len(text.encode("utf-8", "replace")) > NQN_MAX:
        raise NamingError(f"an NQN has at most {NQN_MAX} bytes")
    if text == DISCOVERY_NQN:
        raise NamingError("this NQN belongs to the discovery service")
    if text.startswith(UUID_NQN):
        return UUID_NQN + _uuid(text.removeprefix(UUID_NQN))
    if not text.startswith("nqn."):
        raise NamingError("an NQN begins with 'nqn.'")
    found = _NQN.fullmatch(text)
    if not found:
        raise NamingError("an NQN has the form nqn.YYYY-MM.reverse.domain:name")
    if any(not letter.isprintable() or letter.isspace() for letter in found.group(1)):
        raise NamingError("an NQN has no white space and no control characters")
    return text


def _uuid(text: str) -> str:
    try:
        canonical = str(UUID(text))
    except ValueError:
        canonical = ""
    if canonical != text.lower():
        raise NamingError("after 'uuid:' an NQN has a UUID of the form 11111111-2222-3333-4444-555555555555")
    # Hosts send the text as it is and the target compares bytes: the case must stay as typed.
    return text


def pcie_address(text: str) -> str:
    """The full PCIe address, lower case: ``01:00.0`` and ``0000:01:00.0`` are both ``0000:01:00.0``."""
    found = _PCIE.fullmatch(text)
    if not found or int(found.group(3), 16) > 0x1F:
        raise NamingError("a PCIe address has the form domain:bus:device.function, as in 0000:01:00.0")
    domain = int(found.group(1) or "0", 16)
    return f"{domain:04x}:{found.group(2)}:{found.group(3)}.{found.group(4)}".lower()


def ip_text(text: str) -> str:
    """An IP address that a host can connect to, in canonical spelling."""
    try:
        address = ip_address(text)
    except ValueError:
        raise NamingError("it is not an IPv4 or IPv6 address (host names are not looked up here)") from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise NamingError("an address with a zone (after %) means something on one machine only")
    if address.is_unspecified:
        raise NamingError("hosts connect to a certain address, and this one stands for all of them")
    if address.is_multicast:
        raise NamingError("it is a multicast address")
    return str(address)


def check_serial(text: str) -> str:
    """A drive's serial number: 1 to 20 printable ASCII characters, without blanks at either end."""
    if not 1 <= len(text) <= SERIAL_MAX:
        raise NamingError(f"an NVMe serial number has 1 to {SERIAL_MAX} characters")
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        raise NamingError("an NVMe serial number is printable ASCII without blanks at either end")
    return text


def check_path(text: str) -> str:
    """A path that can be written to a file and passed to the kernel."""
    if not text or not text.isprintable():
        raise NamingError("a path is not empty and has no control characters")
    if len(text.encode("utf-8", "replace")) > 4095:
        raise NamingError("a path has at most 4095 bytes")
    return text


def is_socket_path(rpc: str) -> bool:
    """True if ``rpc`` is the path of a UNIX socket, False if it is ``host:port``."""
    return "/" in rpc


def check_rpc(text: str) -> str:
    """Where an engine answers: a path (with a ``/`` in it) or ``host:port``."""
    if is_socket_path(text):
        return check_socket_path(text)
    host, port = split_host_port(text)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_socket_path(text: str) -> str:
    """The path of a UNIX socket: with a ``/`` in it, as everywhere in array.yaml."""
    check_path(text)
    if not is_socket_path(text):
        raise NamingError("the path of a UNIX socket is written with a '/' in it")
    if len(text.encode()) > SOCKET_PATH_MAX:
        raise NamingError(f"the path of a UNIX socket has at most {SOCKET_PATH_MAX} bytes")
    return text


def check_interface(text: str) -> str:
    """The name of a network interface, as the kernel takes it (Linux net/core/dev.c, ``dev_valid_name``)."""
    if not 1 <= len(text.encode("utf-8", "replace")) <= INTERFACE_MAX:
        raise NamingError(f"the name of a network interface has 1 to {INTERFACE_MAX} bytes")
    if text in (".", "..") or any(letter in "/:" or letter.isspace() or not letter.isprintable() for letter in text):
        raise NamingError("the name of a network interface has no blanks, no '/' and no ':'")
    return text


def check_user(text: str) -> str:
    """The name of an account of a BMC."""
    if not 1 <= len(text) <= USER_MAX or not text.isprintable() or text != text.strip():
        raise NamingError(f"the name of an account has 1 to {USER_MAX} characters, without blanks at either end")
    return text


def redfish_url(text: str) -> str:
    """Where a Redfish service answers: ``https://host`` or ``https://host:port``; ``http`` on loopback only, because
    the password goes with each request."""
    check_path(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as problem:
        raise NamingError(f"it is no URL: {problem}") from None
    if parts.username is not None or parts.password is not None:
        raise NamingError("account and password do not stand in the URL, where anybody sees them")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise NamingError("it ends after the host and its port; /redfish/v1 follows by itself")
    if not host or any(letter.isspace() for letter in text):
        raise NamingError("a Redfish service is written as https://host or https://host:port")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise NamingError("a Redfish service is reached over https (http on loopback only)")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def split_host_port(text: str) -> tuple[str, int]:
    """``host:port`` or ``[address]:port`` in its two parts."""
    found = _HOST_PORT.fullmatch(text)
    if not found:
        raise NamingError("it is neither a path with a '/' in it nor host:port")
    host, port = found.group(1) or found.group(2), int(found.group(3))
    if not 1 <= port <= 65535:
        raise NamingError("a TCP port is 1 to 65535")
    if found.group(1) or re.fullmatch(r"[0-9.]+", host):
        return ip_text(host), port
    if not _HOST_NAME.fullmatch(host):
        raise NamingError(f"{host!r} is neither an address nor a host name")
    return host, port
