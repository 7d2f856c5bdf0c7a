"""A cpio archive in the "newc" form, which is what the Linux kernel unpacks as its first root file system.

Why: an initramfs is a list of names with contents, and writing it here needs no ``cpio`` program, no root and no
device nodes on the builder's file system.  This module must never read a file and never look at the clock: the
same entries give the same bytes.

Form (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): a header of the magic and 13 fields of
8 hexadecimal digits, the name with its zero byte, padding to 4 bytes, the data, padding to 4 bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in the archive.

    ``name`` is relative to the root, without a leading slash; ``mode`` carries the file type; ``data`` is the
    content of a regular file or the target of a symbolic link; ``device`` is (major, minor) of a device node.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """A folder that everybody may read."""
    return Entry(name=name, mode=stat.S_IFDIR | 0o755)


def regular(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """A regular file."""
    return Entry(name=name, mode=stat.S_IFREG | (0o755 if executable else 0o644), data=data)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, data=target.encode())


def character_device(name: str, major: int, minor: int) -> Entry:
    """A character device node, such as ``/dev/console`` (5, 1), which the kernel opens before init runs."""
    return Entry(name=name, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def with_parents(entries: Iterable[Entry]) -> list[Entry]:
    """The entries with every folder they stand in put before them, each name once; the first of a name wins."""
    placed: dict[str, Entry] = {}
    for entry in entries:
        parts = entry.name.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            placed.setdefault(parent, folder(parent))
        placed.setdefault(entry.name, entry)
    return list(placed.values())


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 4)


def _record(number: int, entry: Entry) -> Iterator[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, major, minor, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    yield header
    yield name
    yield _padding(len(header) + len(name))
    yield entry.data
    yield _padding(len(entry.data))


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive; folders must come before what stands in them (see ``with_parents``)."""
    complete = [*entries, Entry(name=_TRAILER, mode=0)]
    return b"".join(part for number, entry in enumerate(complete, start=1) for part in _record(number, entry))
