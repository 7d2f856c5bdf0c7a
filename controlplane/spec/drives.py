"""Entries of ``drives`` opened into one drive each, and the checks that need one entry or all of them.

Drive names are identities in the state of the array, so they are never numbered by position: removing one line
would rename the drives after it.  A name is given, or comes from the name of the file.
"""

from __future__ import annotations

from pathlib import PurePath

from controlplane.domain import names
from controlplane.domain.desired import Drive, FabricsDrive, FileDrive, PcieDrive
from controlplane.spec import limits
from controlplane.spec.model import ArraySpec, DriveSpec
from controlplane.spec.patterns import PatternError, expand
from controlplane.spec.problems import shown
from controlplane.spec.report import Report
from controlplane.spec.yaml_source import Path

_PATTERN_FIX = 'write the range in braces and the text in quotes, as in "d{00..23}"'


def open_drives(spec: ArraySpec, report: Report) -> list[tuple[Path, Drive]]:
    """Every drive with the path of the entry it comes from."""
    found: list[tuple[Path, Drive]] = []
    for index, entry in enumerate(spec.drives):
        path: Path = ("drives", index)
        before = len(report.problems)
        drives = _open(entry, path, report)
        if len(report.problems) > before:
            report.partial.open.add("drives")
        found += [(path, drive) for drive in drives]
        if len(found) > limits.DRIVES.value:
            report.problem(
                "SPEC-041", path, f"the array has more than {limits.DRIVES.value} drives",
                limits.DRIVES.source, "split the drives among several arrays",
            )  # fmt: skip
            report.partial.open.add("drives")
            break
    _unique(found, report)
    return found


def _open(entry: DriveSpec, path: Path, report: Report) -> list[Drive]:
    given = [key for key in ("pcie", "nvmeof", "file") if getattr(entry, key) is not None]
    if len(given) != 1:
        said = f"{' and '.join(given)} are given together" if given else "it has no pcie, nvmeof or file"
        report.problem(
            "SPEC-018", path, f"{report.label(path)}: {said}", "a drive is reached in exactly one way",
            "give one of pcie, nvmeof and file; a serial number alone does not say where the drive is",
        )  # fmt: skip
        return []
    if (entry.file is None) != (entry.size is None):
        what = "a file needs a size" if entry.size is None else "a size is given for a drive that is no file"
        report.problem(
            "SPEC-018", path, f"{report.label(path)}: {what}",
            "a real drive tells its own size, a file has the one given here",
            "add 'size: 256MiB'" if entry.size is None else "remove the key size",
        )  # fmt: skip
        return []
    return _build(entry, path, report)


def _expanded(text: str, path: Path, report: Report) -> list[str] | None:
    try:
        return expand(text)
    except PatternError as error:
        report.problem("SPEC-017", path, f"{shown(text)} is no pattern", str(error), _PATTERN_FIX)
        return None


def _build(entry: DriveSpec, path: Path, report: Report) -> list[Drive]:
    sources: list[PcieDrive | FabricsDrive | FileDrive]
    if entry.pcie is not None:
        sources = [PcieDrive(address=address) for address in entry.pcie]
    elif entry.nvmeof is not None:
        shelf = entry.nvmeof
        nqns = _expanded(shelf.nqn, (*path, "nvmeof", "nqn"), report)
        if nqns is None or not all(_nqn_fits(nqn, (*path, "nvmeof", "nqn"), report) for nqn in nqns):
            return []
        sources = [
            FabricsDrive(transport=shelf.transport, address=shelf.address, service=shelf.service, nqn=nqn)
            for nqn in nqns
        ]
    else:
        assert entry.file is not None
        assert entry.size is not None
        files = _expanded(entry.file, (*path, "file"), report)
        if files is None:
            return []
        sources = [FileDrive(path=report.absolute(file), size_bytes=entry.size) for file in files]
    titles = _names(entry, sources, path, report)
    serials = _serials(entry, len(sources), path, report)
    if titles is None or serials is None:
        return []
    return [
        Drive(name=name, source=source, serial=serial, failure_domain=entry.failure_domain)
        for name, source, serial in zip(titles, sources, serials, strict=True)
    ]


def _nqn_fits(nqn: str, path: Path, report: Report) -> bool:
    try:
        names.check_nqn(nqn)
    except names.NamingError as error:
        report.problem(
            "SPEC-014", path, f"{shown(nqn)} cannot stand here", str(error),
            "the shelf's discovery shows its NQNs: nvme discover -t tcp -a ADDRESS",
        )  # fmt: skip
        return False
    return True


def _names(
    entry: DriveSpec, sources: list[PcieDrive | FabricsDrive | FileDrive], path: Path, report: Report
) -> list[str] | None:
    key: Path = (*path, "name")
    if entry.name is not None:
        found = _expanded(entry.name, key, report)
        if found is None:
            return None
    elif entry.file is not None:
        key = (*path, "file")
        found = [PurePath(source.path).stem for source in sources if isinstance(source, FileDrive)]
    else:
        report.problem(
            "SPEC-004", path, f"{report.label(path)} has no key 'name'",
            "names are the drives' identity for life, so they are not numbered by position",
            'add a line such as \'name: "d{00..23}"\'',
        )  # fmt: skip
        return None
    if len(found) != len(sources):
        report.problem(
            "SPEC-017", key, f"{len(found)} names stand against {len(sources)} drives",
            "each drive of an entry takes one name, in order", f"give a range of {len(sources)} names",
        )  # fmt: skip
        return None
    for name in found:
        if not _name_fits(name, key, report):
            return None
    return found


def _name_fits(name: str, path: Path, report: Report) -> bool:
    why = "the word all stands for every drive in a pool" if name == "all" else ""
    try:
        names.check_name(name)
    except names.NamingError as error:
        why = str(error)
    if why:
        report.problem("SPEC-010", path, f"{shown(name)} cannot name a drive", why, "add a key name, as in d00")
    return not why


def _serials(entry: DriveSpec, count: int, path: Path, report: Report) -> list[str] | list[None] | None:
    if entry.serial is None:
        return [None] * count
    if len(entry.serial) != count:
        report.problem(
            "SPEC-017", (*path, "serial"), f"{len(entry.serial)} serial numbers stand against {count} drives",
            "each drive of an entry takes one serial number, in order", "give as many as there are drives",
        )  # fmt: skip
        return None
    return entry.serial


def _unique(found: list[tuple[Path, Drive]], report: Report) -> None:
    """No name, no device and no serial number twice."""
    seen: dict[tuple[str, object], Path] = {}
    for path, drive in found:
        where = drive.source
        device: tuple[str, object] = ("device", where)
        if isinstance(where, FileDrive):
            device = ("device", where.path)
        keys = [("SPEC-030", ("name", drive.name), f"the name {drive.name!r}"),
                ("SPEC-033", device, _device(drive))]  # fmt: skip
        if drive.serial is not None:
            keys.append(("SPEC-033", ("serial", drive.serial), f"the serial number {drive.serial!r}"))
        for code, key, words in keys:
            if key in seen:
                report.problem(
                    code, path, f"{words} is given to two drives",
                    f"it stands already in line {report.line(seen[key])}",
                    "one of the two is wrong: check both against the labels of the drives",
                )  # fmt: skip
            seen.setdefault(key, path)


def _device(drive: Drive) -> str:
    match drive.source:
        case PcieDrive(address=address):
            return f"the PCIe address {address}"
        case FabricsDrive(nqn=nqn):
            return f"the shelf's NQN {nqn}"
        case FileDrive(path=path):
            return f"the file {shown(path)}"
