"""The shelf process: exports files as NVMe drives, so that nothing else knows the difference.

One subsystem per drive with one namespace, as EBOF shelves do.  The NGUID, UUID and serial number follow from
array and drive name, so that a restarted shelf shows the same drives.  For trying out and for tests; it must
never be pointed at a file that is something else: an existing file of another size is refused.
"""

from __future__ import annotations

import hashlib
import os
import uuid as uuidlib
from pathlib import Path

from controlplane.domain.desired import Array, Drive, FileDrive, shelf_nqn
from controlplane.domain.errors import Refused, Ws7000Error
from controlplane.domain.units import show_size
from dataplane.rpc.methods import bdev, nvmf
from dataplane.rpc.session import Session
from dataplane.rpc.values import ListenAddress

BLOCK_BYTES = 4096
DEADLINE_S = 60.0
RESERVATIONS = ".reservations"
"""What a drive keeps of its reservations through a loss of power lies beside its file, under its name and this."""


def file_drives(array: Array) -> list[tuple[Drive, FileDrive]]:
    """The drives of the array that are files."""
    return [(drive, drive.source) for drive in array.drives if isinstance(drive.source, FileDrive)]


def prepare_files(array: Array) -> None:
    """Create the missing files, sparse; refuse one of another size."""
    for drive, source in file_drives(array):
        path = Path(source.path)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(handle, source.size_bytes)
            finally:
                os.close(handle)
        elif path.stat().st_size != source.size_bytes:
            raise Refused(
                "PLAN-016",
                f"drive {drive.name}: {path} has {show_size(path.stat().st_size)}, not {show_size(source.size_bytes)}",
                why="a file that is not of the written size is probably something else",
                remedy="correct the size in array.yaml, or move the file away",
            )


def drive_uuid(array: Array, drive: str) -> str:
    """The UUID of a file drive's namespace."""
    return str(uuidlib.uuid5(uuidlib.NAMESPACE_URL, shelf_nqn(array.name, drive)))


def serve(array: Array, session: Session) -> None:
    """Make a fresh engine export every file drive; three pipelined rounds, as the later calls need the earlier."""
    shelf = array.shelf
    if shelf is None:
        return
    where = ListenAddress.of("tcp", shelf.address, shelf.service)
    drives = file_drives(array)
    first = [nvmf.create_transport("TCP")]
    first += [
        bdev.aio_create(  # type: ignore[misc]
            drive.name,
            path=str(Path(source.path).absolute()),
            block_size_bytes=BLOCK_BYTES,
            fallocate=True,
            uuid=drive_uuid(array, drive.name),
        )
        for drive, source in drives
    ]
    second = []
    third = []
    fourth = []
    for drive, source in drives:
        nqn = shelf_nqn(array.name, drive.name)
        serial = drive.serial or hashlib.sha256(nqn.encode()).hexdigest()[:16].upper()
        second.append(
            nvmf.create_subsystem(
                nqn,
                serial_number=serial,
                model_number="WS7000 file drive",
                max_namespaces=1,
                min_cntlid=1,
                max_cntlid=0xFFEF,
                allow_any_host=True,
            )
        )
        identity = drive_uuid(array, drive.name)
        third.append(
            nvmf.add_ns(
                nqn,
                bdev_name=drive.name,
                nsid=1,
                nguid=uuidlib.UUID(identity).hex,
                uuid=identity,
                ana_group=1,
                auto_visible=True,
                ptpl_file=str(Path(source.path).absolute()) + RESERVATIONS,
            )
        )
        fourth.append(nvmf.add_listener(nqn, where, ana_state="optimized"))
    for batch in (first, second, third, fourth):
        for reply in session.pipeline(batch, deadline_s=DEADLINE_S):
            if isinstance(reply, Ws7000Error):
                raise reply
