"""What a command capsule must look like before its command is looked at.

Why: a host that breaks these rules has lost count of the stream, so its connection ends, with the reason.  This
module must never know a queue.  Sources: NVMe/TCP Transport 1.0c section 3.3.2; SPDK v26.05 lib/nvmf/tcp.c
(nvmf_tcp_req_parse_sgl).
"""

from __future__ import annotations

from dataplane.nvme import pdu as wire
from dataplane.nvme.commands import SGL_TRANSPORT
from dataplane.nvme.layout import Raw
from dataplane.nvme.pdu import CapsuleCmd, FatalError, H2CData
from dataplane.nvme.pdu_reader import PduError

_PLEN_OFFSET = 4
_SGL_OFFSET = 8 + 24
_SGL_TYPE_OFFSET = _SGL_OFFSET + 15


def broken(fes: FatalError, fei: int, item: CapsuleCmd | H2CData | None, what: str) -> PduError:
    """The error that ends a connection because of ``item``."""
    header: Raw = b""
    if isinstance(item, CapsuleCmd):
        header = wire.COMMON.pack(wire.PduType.CAPSULE_CMD, 0, 72, 0, 72) + item.command.pack()
    elif item is not None:
        header = wire.h2c_data(item)[0]
    return PduError(fes, fei, header, what)


def check_transport_sgl(pdu: CapsuleCmd, max_io_size: int) -> None:
    """Data in PDUs of its own, no more than MDTS allows; raises PduError."""
    if pdu.command.sgl_type != SGL_TRANSPORT:
        raise broken(FatalError.UNSUPPORTED, _SGL_TYPE_OFFSET, pdu, "SGL type not supported")
    if pdu.command.length > max_io_size:
        raise broken(FatalError.LIMIT_EXCEEDED, 0, pdu, f"{pdu.command.length} bytes in one command")


def check_capsule(pdu: CapsuleCmd, limit: int) -> None:
    """Data in the capsule, at most ``limit`` bytes; raises PduError."""
    command, size = pdu.command, len(pdu.data)
    if size != command.length:
        raise broken(FatalError.INVALID_HEADER, _PLEN_OFFSET, pdu, "SGL length is not that of the data")
    if command.address:
        raise broken(FatalError.UNSUPPORTED, _SGL_OFFSET, pdu, "in-capsule data with an offset")
    if size > limit:
        raise broken(FatalError.LIMIT_EXCEEDED, 0, pdu, f"{size} bytes in the capsule")
