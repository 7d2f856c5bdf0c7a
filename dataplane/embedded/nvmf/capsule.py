"""What a command capsule and its data must look like before the command is looked at.

Why: a host that breaks these rules has lost count of the stream, so its connection ends, with the reason.  This
module must never know a queue.  Sources: NVMe/TCP Transport 1.0c section 3.3.2; SPDK v26.05 lib/nvmf/tcp.c
(nvmf_tcp_req_parse_sgl, nvmf_tcp_h2c_data_hdr_handle).
"""

from __future__ import annotations

from dataplane.embedded.nvmf.transfer import Transfer
from dataplane.nvme.commands import SGL_IN_CAPSULE, SGL_TRANSPORT
from dataplane.nvme.pdu import CapsuleCmd, FatalError, H2CData
from dataplane.nvme.pdu_reader import PduError

_PLEN_OFFSET = 4
_SGL_OFFSET = 8 + 24
_SGL_KIND_OFFSET = _SGL_OFFSET + 8  # SPDK names what follows the address, not the byte of the type itself
_CCCID_OFFSET = 8
_TTAG_OFFSET = 10


def _broken(fes: FatalError, fei: int, what: str) -> PduError:
    """The error that ends a connection; who read the PDU adds its header (``PduReader.refuse``)."""
    return PduError(fes, fei, b"", what)


def check_transport_sgl(pdu: CapsuleCmd, max_io_size: int) -> None:
    """Data in PDUs of its own, no more than MDTS allows; raises PduError."""
    if pdu.command.sgl_type == SGL_IN_CAPSULE and len(pdu.data) != pdu.command.length:
        raise _broken(FatalError.INVALID_HEADER, _PLEN_OFFSET, "SGL length is not that of the data")
    if pdu.command.sgl_type != SGL_TRANSPORT:
        raise _broken(FatalError.UNSUPPORTED, _SGL_KIND_OFFSET, "SGL type not supported")
    if pdu.command.length > max_io_size:
        raise _broken(FatalError.LIMIT_EXCEEDED, 0, f"{pdu.command.length} bytes in one command")


def check_capsule(pdu: CapsuleCmd, limit: int) -> None:
    """Data in the capsule, at most ``limit`` bytes; raises PduError."""
    command, size = pdu.command, len(pdu.data)
    if size != command.length:
        raise _broken(FatalError.INVALID_HEADER, _PLEN_OFFSET, "SGL length is not that of the data")
    if command.address:
        raise _broken(FatalError.UNSUPPORTED, _SGL_OFFSET, "in-capsule data with an offset")
    if size > limit:
        raise _broken(FatalError.LIMIT_EXCEEDED, 0, f"{size} bytes in the capsule")


def check_data(pdu: H2CData, transfer: Transfer | None, tags: int) -> Transfer:
    """The transfer that ``pdu`` goes on with; raises PduError.  ``tags``: those that a queue may have."""
    if transfer is None:
        fes = FatalError.INVALID_HEADER if 0 < pdu.ttag <= tags else FatalError.SEQUENCE
        raise _broken(fes, _TTAG_OFFSET, "data that nobody asked for")
    if pdu.cid != transfer.command.cid:
        raise _broken(FatalError.SEQUENCE, _CCCID_OFFSET, "data of another command")
    if pdu.offset != transfer.offset or pdu.offset + len(pdu.data) > transfer.command.length:
        raise _broken(FatalError.OUT_OF_RANGE, 0, "data outside of what was asked for")
    return transfer
