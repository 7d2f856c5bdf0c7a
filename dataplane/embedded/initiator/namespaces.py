"""What a controller shows: its namespaces and the ANA state of each.

Why: reading them takes several commands that may fail halfway, and the result is a plain value, so both stand
apart from the controller that keeps the value.  This module must never keep state between two readings.
Sources: NVMe base 2.0c sections 5.17 (Identify), 8.1 (ANA); SPDK v26.05 module/bdev/nvme/bdev_nvme.c
(``nbdev_create`` for the UUID, ``bdev_nvme_compare_ns`` for the identity).
"""

from __future__ import annotations

import itertools
import logging
import uuid as uuidlib
from dataclasses import dataclass
from typing import Final

from dataplane.embedded.initiator.association import Association
from dataplane.nvme import identify
from dataplane.nvme.commands import Cns, LogId
from dataplane.nvme.identify import IdentifyNamespace, IdentifyNvmController, NamespaceIds
from dataplane.nvme.logs import AnaLog, AnaState
from dataplane.nvme.status import NvmeError, Status

log = logging.getLogger(__name__)

ANA_LOG_MAX: Final = 1 << 20
_NSIDS_PER_LIST: Final = 1024
_BLOCK_SIZES: Final = range(9, 17)  # as powers of two: 512 bytes to 64 KiB


@dataclass(frozen=True, slots=True)
class Shown:
    """A namespace as one controller shows it; sizes in blocks, ``block_size`` in bytes."""

    nsid: int
    block_size: int
    num_blocks: int
    nguid: bytes
    eui64: bytes
    uuid: bytes
    group: int
    shared: bool
    data: IdentifyNamespace

    @property
    def identity(self) -> tuple[bytes, bytes, bytes]:
        """Two paths lead to the same namespace only when these are equal."""
        return self.nguid, self.eui64, self.uuid

    @property
    def bdev_uuid(self) -> str | None:
        """The UUID that a bdev on it has: the NGUID where there is one, else the UUID, else None."""
        raw = self.nguid if any(self.nguid) else self.uuid
        return str(uuidlib.UUID(bytes=raw)) if any(raw) else None


@dataclass(frozen=True, slots=True)
class Limits:
    """Blocks in one Write Zeroes and in one deallocated range; 0: the controller cannot do it."""

    write_zeroes_blocks: int = 0
    deallocate_blocks: int = 0


@dataclass(frozen=True, slots=True)
class AnaView:
    """The ANA log of one controller.  ``groups`` by group, ``nsids`` by namespace; both empty without ANA."""

    groups: dict[int, AnaState]
    nsids: dict[int, AnaState]

    def of(self, shown: Shown) -> AnaState:
        """The state of a namespace; without ANA, or where the log is silent about it, optimized (as SPDK)."""
        state = self.nsids.get(shown.nsid)
        return state if state is not None else self.groups.get(shown.group, AnaState.OPTIMIZED)


NO_ANA: Final = AnaView({}, {})


async def read_namespaces(association: Association) -> dict[int, Shown]:
    """Every active namespace that can be used; raises ``NvmeError`` and ``TransportLost``."""
    found: dict[int, Shown] = {}
    last = 0
    while True:
        nsids = identify.parse_nsid_list(await association.identify(Cns.ACTIVE_NSIDS, nsid=last))
        if any(later <= earlier for earlier, later in itertools.pairwise([last, *nsids])):
            raise NvmeError(Status.DATA_TRANSFER_ERROR)  # a list that does not ascend need never end
        for nsid in nsids:
            shown = await _read_one(association, nsid)
            if shown is not None:
                found[nsid] = shown
        if len(nsids) < _NSIDS_PER_LIST:
            return found
        last = nsids[-1]


async def _read_one(association: Association, nsid: int) -> Shown | None:
    try:
        data = IdentifyNamespace.parse(await association.identify(Cns.NAMESPACE, nsid=nsid))
        ids = NamespaceIds.parse(await association.identify(Cns.NS_DESCRIPTORS, nsid=nsid))
    except NvmeError as error:
        # It may have been removed between the list and this command; the next event brings a new scan.
        log.warning("namespace %d of %s cannot be identified: %s", nsid, association.options.subnqn, error)
        return None
    entry = (data.flbas & 0xF) * 4
    odd_format = any(data.lbafs[entry : entry + 2]) or data.lbafs[entry + 2] not in _BLOCK_SIZES
    if not data.nsze or odd_format or ids.csi not in (None, 0):
        log.warning(
            "namespace %d of %s is empty, has a format that is not served or another command set",
            nsid, association.options.subnqn,
        )  # fmt: skip
        return None
    return Shown(
        nsid, data.block_size, data.nsze, data.nguid, data.eui64, ids.uuid, data.anagrpid, bool(data.nmic & 1), data
    )  # fmt: skip


async def read_limits(association: Association, block_size: int) -> Limits:
    """The limits for blocks of ``block_size`` bytes; raises ``TransportLost``."""
    oncs = association.identity.oncs
    zeroes = 1 << 16 if oncs & identify.ONCS_WRITE_ZEROES else 0
    freed = 0xFFFFFFFF if oncs & identify.ONCS_DATASET_MANAGEMENT else 0
    try:
        raw = await association.identify(Cns.CSI_CONTROLLER)
    except NvmeError:
        return Limits(zeroes, freed)
    nvm = IdentifyNvmController.parse(raw)
    if nvm.wzsl:
        page = 4096 << association.capabilities.page_min
        zeroes = min(zeroes, max(1, (page << nvm.wzsl) // block_size))
    if nvm.dmrsl:
        freed = min(freed, nvm.dmrsl)
    return Limits(zeroes, freed)


async def read_ana(association: Association, namespaces: int) -> AnaView:
    """The ANA log; ``namespaces`` is how many are expected in it.  Raises ``NvmeError``, ``TransportLost``."""
    identity = association.identity
    if not identity.cmic & identify.CMIC_ANA:
        return NO_ANA
    size = 16 + 32 * max(1, identity.nanagrpid) + 4 * namespaces
    while True:
        try:
            page = AnaLog.parse(await association.log(LogId.ANA, min(size, ANA_LOG_MAX)))
            break
        except ValueError:
            # More namespaces than expected: the log ended inside a group.
            if size >= ANA_LOG_MAX:
                raise NvmeError(Status.DATA_TRANSFER_ERROR) from None
            size *= 2
    groups: dict[int, AnaState] = {}
    nsids: dict[int, AnaState] = {}
    for group in page.groups:
        try:
            state = AnaState(group.state)
        except ValueError:
            state = AnaState.INACCESSIBLE  # a state of a later specification: not one to send I/O to
        groups[group.group] = state
        nsids.update(dict.fromkeys(group.nsids, state))
    return AnaView(groups, nsids)
