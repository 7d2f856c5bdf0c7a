"""Recognising a leg that belongs to another set.

Why: the first blocks of a leg of a set with superblock say so, and a rebuild would write over it.  This module must
never write; sets of this engine have no superblock of their own.
Source: SPDK v26.05 module/bdev/raid/bdev_raid_sb.c (``raid_bdev_parse_superblock``).
"""

from __future__ import annotations

import struct
from typing import Final

from crc32c import crc32c

READ_BYTES: Final = 20480
"""No superblock is longer: 256 bytes, and 64 for each of at most 255 legs."""
_SIGNATURE: Final = b"SPDKRAID"
_LENGTH_AT: Final = 12
_CRC_AT: Final = 16
_LEAST: Final = 256
_ONES: Final = 0xFFFFFFFF


def is_superblock(head: bytes) -> bool:
    """Whether a device that begins with ``head`` is a leg of a set with superblock.  Damaged ones do not count."""
    if len(head) < _LEAST or not head.startswith(_SIGNATURE):
        return False
    length, stored = struct.unpack_from("<II", head, _LENGTH_AT)
    if not _LEAST <= length <= len(head):
        return False
    body = bytearray(head[:length])
    body[_CRC_AT : _CRC_AT + 4] = bytes(4)
    # SPDK starts the sum at 0 and does not invert it at the end.
    return bool((crc32c(bytes(body), _ONES) ^ _ONES) == stored)
