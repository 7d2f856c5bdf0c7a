"""What controllers and namespaces of this target say about themselves.

Why: hosts treat a target by what Identify says, so every value is SPDK's (v26.05 lib/nvmf/ctrlr.c,
ctrlr_bdev.c), vendor identifiers included: the engines must look alike to a host.  This module must never
promise a command that ``io`` and ``commands_io`` do not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.embedded.nvmf.controller import MAX_ASYNC_EVENTS, NVME_VERSION
from dataplane.nvme import identify as layout
from dataplane.nvme.commands import NSID_ALL, Cns, Command
from dataplane.nvme.logs import AnaState
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.bdev.base import Bdev
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.subsystem import Namespace

FIRMWARE = "WS7E0100"
VENDOR = 0x8086
_ANA_TRANSITION_S = 10
_ANA_STATES_AND_FIXED_GROUP = 0x47  # optimized, non-optimized, inaccessible; ANAGRPID fixed while attached


def identify(controller: Controller, command: Command, crdt: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    """The 4096 bytes that an Identify command asks for; raises NvmeError.  ``crdt``: command retry delay times."""
    if command.length < layout.IDENTIFY_SIZE:
        raise NvmeError(Status.INVALID_FIELD)
    cns = command.cdw10 & 0xFF
    if controller.subsystem.discovery and cns != Cns.CONTROLLER:
        raise NvmeError(Status.INVALID_FIELD)
    csi = command.cdw11 >> 24
    match cns:
        case Cns.CONTROLLER:
            return identify_controller(controller, crdt).pack()
        case Cns.NAMESPACE:
            namespace = _namespace(controller, command.nsid)
            return _namespace_data(controller, namespace).pack() if namespace else bytes(layout.IDENTIFY_SIZE)
        case Cns.ACTIVE_NSIDS | Cns.CSI_ACTIVE_NSIDS:
            return _active(controller, command.nsid, csi if cns == Cns.CSI_ACTIVE_NSIDS else 0)
        case Cns.NS_DESCRIPTORS:
            return _descriptors(controller, command.nsid)
        case Cns.CSI_NAMESPACE:
            if _namespace(controller, command.nsid) is None:
                raise NvmeError(Status.INVALID_NAMESPACE)
            return bytes(layout.IDENTIFY_SIZE)
        case Cns.CSI_CONTROLLER:
            return _nvm_controller(controller) if csi == 0 else bytes(layout.IDENTIFY_SIZE)
        case Cns.INDEPENDENT_NAMESPACE:
            namespace = _namespace(controller, command.nsid)
            if namespace is None:
                return bytes(layout.IDENTIFY_SIZE)
            return layout.IndependentNamespace(
                nmic=1, rescap=namespace.reserved.rescap, anagrpid=namespace.anagrpid, nstat=1
            ).pack()
        case Cns.COMMAND_SETS:
            if command.cdw10 >> 16 not in (0xFFFF, controller.cntlid):
                raise NvmeError(Status.INVALID_FIELD)
            return b"\x01".ljust(layout.IDENTIFY_SIZE, b"\0")
    raise NvmeError(Status.INVALID_FIELD)


def identify_controller(controller: Controller, crdt: tuple[int, int, int]) -> layout.IdentifyController:
    """CNS 01h."""
    options, subsystem = controller.options, controller.subsystem
    groups = subsystem.max_nsid if subsystem.ana_reporting else 0
    common: dict[str, int | str] = {
        "fr": FIRMWARE, "mdts": (options.max_io_size // 4096).bit_length() - 1, "cntlid": controller.cntlid,
        "ver": NVME_VERSION, "aerl": MAX_ASYNC_EVENTS - 1, "elpe": 127, "maxcmd": options.max_queue_depth,
        "fuses": controller.options.fuses & layout.FUSES_COMPARE_AND_WRITE,
        "sgls": 0x100005, "wctemp": 0x157, "cctemp": 0x175, "mnan": groups, "subnqn": subsystem.nqn,
    }  # fmt: skip
    if subsystem.discovery:
        return layout.IdentifyController(
            **common,  # type: ignore[arg-type]  # each name's type is that of its field
            oaes=layout.OAES_DISCOVERY_CHANGE, cntrltype=2, lpa=0x04,
        )  # fmt: skip
    oncs = optional_commands(controller)
    return layout.IdentifyController(
        **common,  # type: ignore[arg-type]
        vid=VENDOR, ssvid=VENDOR, ieee=b"\xe4\xd2\x5c", sn=subsystem.options.serial_number,
        mn=subsystem.options.model_number, rab=6, kas=options.kas,
        cmic=layout.CMIC_MULTI_PORT | layout.CMIC_MULTI_CONTROLLER | (layout.CMIC_ANA if groups else 0),
        oaes=layout.OAES_NAMESPACE_ATTRIBUTE | (layout.OAES_ANA_CHANGE if groups else 0),
        ctratt=layout.CTRATT_HOST_ID_128, cntrltype=1, acl=3, frmw=0x03, lpa=0x26, sqes=0x66, cqes=0x44,
        nn=subsystem.max_nsid, vwc=0x05, oncs=oncs, ocfs=int(bool(oncs & layout.ONCS_COPY)),
        crdt1=crdt[0], crdt2=crdt[1], crdt3=crdt[2],
        ioccsz=4 + options.in_capsule_data_size // 16, iorcsz=1, msdbd=1,
        anatt=_ANA_TRANSITION_S if groups else 0, anacap=_ANA_STATES_AND_FIXED_GROUP if groups else 0,
        anagrpmax=groups, nanagrpid=groups,
    )  # fmt: skip


def optional_commands(controller: Controller) -> int:
    """ONCS: what every bdev of the subsystem can do, or any of them is helped with, and no option masks."""
    bdevs = [item.bdev for item in controller.subsystem.namespaces.values()]
    oncs = layout.ONCS_COMPARE | layout.ONCS_COPY
    if all(_can(bdev, "unmap") for bdev in bdevs):
        oncs |= layout.ONCS_DATASET_MANAGEMENT
    if all(_can(bdev, "write_zeroes") for bdev in bdevs):
        oncs |= layout.ONCS_WRITE_ZEROES
    return (oncs | layout.ONCS_RESERVATIONS) & controller.options.oncs


def _can(bdev: Bdev, what: str) -> bool:
    return bdev.supported_io_types().get(what, False)


def _namespace(controller: Controller, nsid: int) -> Namespace | None:
    """The namespace, None for an inactive one; raises NvmeError for an NSID that cannot exist."""
    if not 0 < nsid <= controller.subsystem.max_nsid:
        raise NvmeError(Status.INVALID_NAMESPACE)
    return controller.namespace(nsid)


def _namespace_data(controller: Controller, namespace: Namespace) -> layout.IdentifyNamespace:
    bdev = namespace.bdev
    reporting = controller.subsystem.ana_reporting
    reachable = controller.ana_state(namespace.anagrpid) not in (AnaState.INACCESSIBLE, AnaState.PERSISTENT_LOSS)
    hints, most = bdev.hints, controller.options.max_io_size // bdev.block_size
    granule = hints.write_granularity or max(1, hints.physical_block_size // bdev.block_size)
    longest = bdev.max_copy if 0 < bdev.max_copy <= 0xFFFF else 0xFFFF
    return layout.IdentifyNamespace(
        nsze=bdev.num_blocks, ncap=bdev.num_blocks, nuse=bdev.num_blocks if reachable else 0,
        nsfeat=layout.NSFEAT_ATOMIC_WRITE_UNIT | layout.NSFEAT_OPTIMAL_SIZES, nawupf=granule - 1, npwg=granule - 1,
        npwa=(hints.write_alignment or granule) - 1, npdg=(hints.unmap_granularity or granule) - 1,
        npda=(hints.unmap_alignment or granule) - 1, noiob=min(hints.io_boundary, most),
        nmic=1, rescap=namespace.reserved.rescap, nows=min(0xFFFF, (hints.optimal_write or most) - 1),
        nacwu=bdev.acwu - 1, mssrl=longest, mcl=longest, msrc=0,
        anagrpid=namespace.anagrpid if reporting else 0, nguid=namespace.nguid, eui64=namespace.eui64,
        lbafs=layout.lba_format(bdev.block_size),
    )  # fmt: skip


def _active(controller: Controller, after: int, csi: int) -> bytes:
    if after >= NSID_ALL - 1:
        raise NvmeError(Status.INVALID_NAMESPACE)
    if csi != 0:
        raise NvmeError(Status.INVALID_FIELD)
    seen = [nsid for nsid in controller.subsystem.namespaces if controller.namespace(nsid) is not None]
    return layout.nsid_list(seen, after)


def _descriptors(controller: Controller, nsid: int) -> bytes:
    namespace = _namespace(controller, nsid)
    if namespace is None:
        raise NvmeError(Status.INVALID_FIELD)
    # The NVM command set's identifier is 0, which SPDK leaves out as it does every value of zeroes.
    return layout.NamespaceIds(namespace.eui64, namespace.nguid, namespace.uuid, csi=None).pack()


def _nvm_controller(controller: Controller) -> bytes:
    options = controller.subsystem.options
    ranges = 1 if options.dmrsl else 0
    return layout.IdentifyNvmController(
        wzsl=options.wzsl, dmrl=ranges, dmrsl=options.dmrsl, dmsl=ranges * options.dmrsl
    ).pack()
