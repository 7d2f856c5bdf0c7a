"""What a bdev says about how it is best used: nothing that anybody has to keep to.

Why: hosts choose their own block and transfer sizes by these, so a drive's must reach the host through a node.
This module must never know a device.

Invariant: 0 always means "not known", and what a host is told then follows from the physical block size.
Source: SPDK v26.05 lib/nvmf/ctrlr_bdev.c (nvmf_bdev_ctrlr_identify_ns).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hints:
    """In blocks, but for ``physical_block_size``, which is in bytes and, when 0, the block size."""

    physical_block_size: int = 0
    write_granularity: int = 0
    write_alignment: int = 0
    unmap_granularity: int = 0
    unmap_alignment: int = 0
    optimal_write: int = 0
    io_boundary: int = 0


NO_HINTS = Hints()
