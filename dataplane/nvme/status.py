"""NVMe status values and the error that carries one.

A status is (SCT, SC): status code type and status code; names and numbers follow NVMe base 2.0, section
4.2.3.  ``NvmeError`` is how an I/O or admin command fails inside the engine and the initiator: the status
that a host sees travels unchanged from the device that refused to the completion queue entry.
"""

from __future__ import annotations

from enum import IntEnum


class StatusType(IntEnum):
    """SCT."""

    GENERIC = 0
    COMMAND_SPECIFIC = 1
    MEDIA = 2
    PATH = 3
    VENDOR = 7


class Status(IntEnum):
    """SCT << 8 | SC, so that one number names a status."""

    SUCCESS = 0x000
    INVALID_OPCODE = 0x001
    INVALID_FIELD = 0x002
    COMMAND_ID_CONFLICT = 0x003
    DATA_TRANSFER_ERROR = 0x004
    INTERNAL_ERROR = 0x006
    ABORTED_BY_REQUEST = 0x007
    ABORTED_SQ_DELETION = 0x008
    ABORTED_FAILED_FUSED = 0x009
    ABORTED_MISSING_FUSED = 0x00A
    INVALID_NAMESPACE = 0x00B
    COMMAND_SEQUENCE_ERROR = 0x00C
    INVALID_SGL_DESCRIPTOR = 0x00D
    INVALID_SGL_COUNT = 0x00E
    DATA_SGL_LENGTH_INVALID = 0x00F
    SGL_TYPE_INVALID = 0x011
    INVALID_SGL_OFFSET = 0x016
    HOST_ID_INCONSISTENT = 0x018
    KEEP_ALIVE_EXPIRED = 0x019
    KEEP_ALIVE_INVALID = 0x01A
    TRANSIENT_TRANSPORT_ERROR = 0x022
    NAMESPACE_WRITE_PROTECTED = 0x020
    COMMAND_INTERRUPTED = 0x021
    LBA_OUT_OF_RANGE = 0x080
    CAPACITY_EXCEEDED = 0x081
    NAMESPACE_NOT_READY = 0x082
    RESERVATION_CONFLICT = 0x083
    INVALID_QUEUE_ID = 0x101
    INVALID_QUEUE_SIZE = 0x102
    ASYNC_EVENT_LIMIT = 0x105
    INVALID_LOG_PAGE = 0x109
    FEATURE_NOT_SAVEABLE = 0x10D
    FEATURE_NOT_CHANGEABLE = 0x10E
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10F
    FABRICS_INCOMPATIBLE_FORMAT = 0x180
    FABRICS_CONTROLLER_BUSY = 0x181
    FABRICS_INVALID_PARAM = 0x182
    FABRICS_RESTART_DISCOVERY = 0x183
    COMMAND_SIZE_LIMIT_EXCEEDED = 0x183  # the same number, of I/O commands
    FABRICS_INVALID_HOST = 0x184
    DISCOVERY_RESTART = 0x190
    AUTHENTICATION_REQUIRED = 0x191
    WRITE_FAULT = 0x280
    UNRECOVERED_READ_ERROR = 0x281
    COMPARE_FAILURE = 0x285
    ACCESS_DENIED = 0x286
    INTERNAL_PATH_ERROR = 0x300
    ANA_PERSISTENT_LOSS = 0x301
    ANA_INACCESSIBLE = 0x302
    ANA_TRANSITION = 0x303
    HOST_PATH_ERROR = 0x370
    HOST_ABORTED = 0x371

    @property
    def sct(self) -> int:
        """Status code type."""
        return self.value >> 8

    @property
    def sc(self) -> int:
        """Status code."""
        return self.value & 0xFF


class NvmeError(Exception):
    """A command ended with a status other than success.

    ``sct`` and ``sc`` are kept as numbers, since a device may answer a status that has no name here.
    """

    def __init__(self, status: Status | int, *, dnr: bool = False) -> None:
        self.code = int(status)
        self.sct = self.code >> 8
        self.sc = self.code & 0xFF
        self.dnr = dnr
        super().__init__(describe(self.code))


def describe(code: int) -> str:
    """The status for people: ``Reservation Conflict (SCT 0h SC 83h)``."""
    try:
        name = Status(code).name.replace("_", " ").title()
    except ValueError:
        name = "Status"
    return f"{name} (SCT {code >> 8:X}h SC {code & 0xFF:02X}h)"
