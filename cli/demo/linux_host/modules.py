"""Which kernel modules to load, and in which order.

Why: the guest has no udev and no depmod, and a kernel package that was only unpacked has no ``modules.dep``
either.  So the order is worked out here from what every module says of itself in its ``.modinfo`` section.  This
module must never guess: a module that the kernel neither has built in nor ships is an error that names it.

Names: the kernel treats ``-`` and ``_`` alike, and so does everything below.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_DEPENDS: Final = b"\0depends="
_ENDINGS: Final = ("", ".xz", ".gz")


class NoSuchModuleError(LookupError):
    """The kernel's folder holds no module of this name that can be read, and none is built in."""


@dataclass(frozen=True, slots=True)
class Module:
    """One loadable module: its plain name and its unpacked ELF image."""

    name: str
    image: bytes

    @property
    def needs(self) -> tuple[str, ...]:
        """Plain names of the modules whose symbols this one uses (``depends=`` in its .modinfo section)."""
        start = self.image.find(_DEPENDS)
        if start < 0:
            return ()
        start += len(_DEPENDS)
        listed = self.image[start : self.image.index(b"\0", start)].decode()
        return tuple(plain(name) for name in listed.split(",") if name)


def plain(name: str) -> str:
    """The name as /proc/modules shows it: ``kernel/drivers/nvme/host/nvme-tcp.ko`` -> ``nvme_tcp``."""
    return name.rsplit("/", 1)[-1].split(".ko", maxsplit=1)[0].replace("-", "_")


@dataclass(frozen=True, slots=True)
class ModuleFolder:
    """One ``/lib/modules/<version>``: ``modules.order`` and ``modules.builtin``, which every package ships."""

    folder: Path
    paths: dict[str, str] = field(default_factory=dict)
    built_in: frozenset[str] = frozenset()

    @classmethod
    def open(cls, folder: Path) -> ModuleFolder:
        """Read the two lists; raises ``OSError`` where one is missing."""
        listed = (folder / "modules.order").read_text().split()
        built_in = (folder / "modules.builtin").read_text().split()
        return cls(folder, {plain(path): path for path in listed}, frozenset(map(plain, built_in)))

    def read(self, name: str) -> Module:
        """One module, unpacked; raises ``NoSuchModuleError``."""
        path = self.paths.get(plain(name))
        for ending in _ENDINGS if path else ():
            file = self.folder / f"{path}{ending}"
            if file.is_file():
                return Module(plain(name), _unpack(file.read_bytes(), ending))
        raise NoSuchModuleError(plain(name))

    def in_loading_order(self, wanted: Iterable[str]) -> tuple[Module, ...]:
        """The wanted modules and what they need, each once, each after its needs; raises ``NoSuchModuleError``."""
        ordered: dict[str, Module] = {}
        for name in wanted:
            self._place(plain(name), ordered)
        return tuple(ordered.values())

    def _place(self, name: str, ordered: dict[str, Module]) -> None:
        if name in ordered or name in self.built_in:
            return
        module = self.read(name)
        for needed in module.needs:
            self._place(needed, ordered)
        ordered[name] = module


def _unpack(data: bytes, ending: str) -> bytes:
    match ending:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case _:
            return data
