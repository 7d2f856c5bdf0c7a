"""What an operator chooses: transport options, listen addresses, and which NQNs are names at all.

This module must never open anything.  Invariant: an ``Address`` compares as SPDK compares transport IDs (letters
without case).  Sources: SPDK v26.05 lib/nvmf/transport.c, tcp.c (defaults), subsystem.c (nvmf_nqn_is_valid).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from dataplane.nvme.fabrics import DISCOVERY_NQN
from dataplane.nvme.logs import AddressFamily

ADDRESS_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6", "ib": "IB", "fc": "FC"}
NQN_MAX = 223
_UUID_NQN = "nqn.2014-08.org.nvmexpress:uuid:"
_LABEL = "[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_NQN = re.compile(rf"nqn\.[0-9]{{4}}-[0-9]{{2}}\.({_LABEL}(?:\.{_LABEL})*):.+", re.DOTALL)
_LABEL_MAX = 63


def nqn_is_valid(nqn: str) -> bool:
    """Whether SPDK would take ``nqn`` as a subsystem or host name."""
    if len(nqn.encode()) > NQN_MAX:
        return False
    if nqn == DISCOVERY_NQN:
        return True
    if nqn.startswith(_UUID_NQN):
        try:
            return str(uuid.UUID(nqn[len(_UUID_NQN) :])) == nqn[len(_UUID_NQN) :].lower()
        except ValueError:
            return False
    match = _NQN.fullmatch(nqn)
    return match is not None and all(len(label) <= _LABEL_MAX for label in match.group(1).split("."))


@dataclass(frozen=True, slots=True)
class Address:
    """A transport address: where a listener is, or where the other end of a connection is."""

    trtype: str
    adrfam: str
    traddr: str
    trsvcid: str

    @classmethod
    def of_socket(cls, name: tuple[str, int] | tuple[str, int, int, int] | None) -> Address:
        """What a TCP socket calls its end, or the other one."""
        if not name:
            return cls("TCP", "IPv4", "", "")
        return cls("TCP", "IPv6" if ":" in name[0] else "IPv4", name[0], str(name[1]))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What two equal addresses have in common."""
        return self.trtype.lower(), self.adrfam, self.traddr.lower(), self.trsvcid.lower()

    @property
    def port(self) -> int:
        """The TCP port; raises ValueError when ``trsvcid`` is none."""
        number = int(self.trsvcid) if re.fullmatch("[0-9]{1,5}", self.trsvcid) else 0
        if not 0 < number < 65536:
            raise ValueError(f"{self.trsvcid!r} is no TCP port")
        return number

    @property
    def family(self) -> int:
        """ADRFAM as the discovery log holds it."""
        return AddressFamily.IPV6 if self.adrfam == "IPv6" else AddressFamily.IPV4

    def to_json(self) -> dict[str, object]:
        """As the RPC methods show it."""
        return {
            "trtype": self.trtype, "adrfam": self.adrfam, "traddr": self.traddr, "trsvcid": self.trsvcid,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Options of the TCP transport.  Sizes in bytes, ``min_kato`` in ms, ``kas`` in 100 ms.

    Options about SPDK's buffers and pollers are kept and shown, but do nothing here.
    """

    max_queue_depth: int = 128
    max_io_qpairs_per_ctrlr: int = 127
    in_capsule_data_size: int = 4096
    max_io_size: int = 131072
    max_aq_depth: int = 128
    iobuf_small_cache_size: int = 0xFFFFFFFF
    iobuf_large_cache_size: int = 0xFFFFFFFF
    dif_insert_or_strip: bool = False
    zcopy: bool = False
    c2h_success: bool = True
    sock_priority: int = 0
    abort_timeout_sec: int = 1
    ack_timeout: int = 0
    data_wr_pool_size: int = 0
    disable_command_passthru: bool = False
    kas: int = 100
    min_kato: int = 10000
    oncs: int = 0xFFFF
    fuses: int = 0xFFFF

    def to_json(self) -> dict[str, object]:
        """As ``nvmf_get_transports`` shows them."""
        names = (
            "max_queue_depth", "max_io_qpairs_per_ctrlr", "in_capsule_data_size", "max_io_size", "max_aq_depth",
            "iobuf_small_cache_size", "iobuf_large_cache_size", "dif_insert_or_strip", "zcopy", "c2h_success",
            "sock_priority", "abort_timeout_sec", "ack_timeout", "data_wr_pool_size",
            "disable_command_passthru", "kas", "min_kato",
        )  # fmt: skip
        return {"trtype": "TCP"} | {name: getattr(self, name) for name in names}
