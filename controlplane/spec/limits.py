"""Limits that a file is held against before anything is touched, each with the place it comes from.

Why: the engine says no late, in the middle of an apply, and often with a bare errno.  SPDK sources are quoted
as of v26.05.  This module must hold numbers only; who checks them is ``checks`` and ``fields``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controlplane.domain.units import KIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound with its unit in the name of the constant; ``source`` is shown to the person who meets it."""

    value: int
    source: str


SUBSYSTEMS: Final = Limit(
    value=1024, source="SPDK lib/nvmf/nvmf.c SPDK_NVMF_DEFAULT_MAX_SUBSYSTEMS, the discovery subsystem counts"
)
LISTENERS_PER_SUBSYSTEM: Final = Limit(
    value=16, source="SPDK lib/nvmf/nvmf_internal.h NVMF_MAX_LISTENERS_PER_SUBSYSTEM"
)
CNTLID_MIN: Final = Limit(value=1, source="SPDK lib/nvmf/nvmf_internal.h NVMF_MIN_CNTLID")
CNTLID_MAX: Final = Limit(value=0xFFEF, source="SPDK lib/nvmf/nvmf_internal.h NVMF_MAX_CNTLID")
NODES: Final = Limit(
    value=2,
    source=f"CNTLIDs {CNTLID_MIN.value} to {CNTLID_MAX.value:X}h are cut in halves, so that two nodes give none twice; "
    f"{CNTLID_MAX.source}",
)
NAMESPACES_PER_SUBSYSTEM: Final = Limit(
    value=1024, source="max_namespaces of every subsystem; SPDK also caps NSIDs and ANA group ids with it"
)
BASE_BDEVS: Final = Limit(value=255, source="SPDK module/bdev/raid/bdev_raid.h num_base_bdevs is a uint8_t")
QOS_IOPS_STEP: Final = Limit(value=1000, source="SPDK lib/bdev/bdev.c SPDK_BDEV_QOS_MIN_IOS_PER_SEC")
QOS_BYTES_STEP: Final = Limit(value=MIB, source="SPDK lib/bdev/bdev.c SPDK_BDEV_QOS_MIN_BYTES_PER_SEC")
SLICES_PER_DRIVE: Final = Limit(value=512, source="the map of the array; each slice is one SPDK bdev on each node")
SLICE_STEP_BYTES: Final = Limit(value=MIB, source="SPDK bdev_split_create takes split_size_mb, which counts MiB")
CHUNK_MIN_BYTES: Final = Limit(value=4 * KIB, source="the block size of the drives; SPDK strip_size_kb counts KiB")
CHUNK_MAX_BYTES: Final = Limit(value=MIB, source="a chunk must divide every slice, and slices are whole MiB")
CORES: Final = Limit(value=1024, source="SPDK include/spdk/cpuset.h SPDK_CPUSET_SIZE")
FILE_BLOCK_BYTES: Final = Limit(value=4 * KIB, source="the shelf exports file drives with 4 KiB blocks")
SIZE_MAX_BYTES: Final = Limit(value=2**63 - 1, source="sizes are signed 64-bit numbers in the engine's JSON")
DRIVES: Final = Limit(
    value=1024, source="each drive is an NVMe controller of the engine, attached and polled on every node"
)
