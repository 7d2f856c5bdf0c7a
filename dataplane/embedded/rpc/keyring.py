"""Keys in files (``keyring_*``): names for secrets, so that no secret ever goes through the RPC.

Why: DH-HMAC-CHAP and TLS keys are read from files that only their owner can read.  This module must never log,
show or keep the contents of a key.

Invariants: the file is checked when it is named and again every time it is read; a key has one name.
Source: SPDK v26.05 lib/keyring/keyring.c, module/keyring/file/keyring.c.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dataplane.embedded.bdev.base import BdevError
from dataplane.embedded.rpc.registry import INVALID_PARAMS, RUNTIME, Param, Params, method

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

MAX_KEY_BYTES: Final = 4096
_DECODE: Final = (INVALID_PARAMS, os.strerror(errno.EINVAL))


def _fault(number: int) -> BdevError:
    return BdevError(number, os.strerror(number))


def _check(found: os.stat_result) -> None:
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.getuid():
        raise _fault(errno.EPERM)


@dataclass(slots=True)
class Key:
    """A named key; ``holders`` counts the keyring itself and everyone who uses it."""

    name: str
    path: str
    holders: int = 1

    def to_json(self) -> dict[str, object]:
        """As ``keyring_get_keys`` shows it."""
        return {
            "name": self.name,
            "module": "keyring_file",
            "removed": False,
            "probed": False,
            "refcnt": self.holders,
            "path": self.path,
        }


class Keyring:
    """The global keyring; ``NAME`` and ``:NAME`` are the same key."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def add_file(self, name: str, path: str) -> None:
        """Name a file; raises ``BdevError``: EINVAL, EEXIST, EPERM or what the file system says."""
        if name.find(":") > 0:
            raise _fault(errno.EINVAL)
        if name.lstrip(":") in self._keys:
            raise _fault(errno.EEXIST)
        if not path.startswith("/"):
            raise _fault(errno.EPERM)
        try:
            _check(os.stat(path))
        except OSError as error:
            raise _fault(error.errno or errno.EIO) from error
        self._keys[name.lstrip(":")] = Key(name, path)

    def remove(self, name: str) -> None:
        """Forget a key; whoever holds it keeps it.  Raises ``BdevError(ENOKEY)``."""
        if self._keys.pop(name.lstrip(":"), None) is None:
            raise _fault(errno.ENOKEY)

    def knows(self, name: str) -> bool:
        """Whether there is a key of that name."""
        return name.lstrip(":") in self._keys

    def hold(self, name: str) -> Key | None:
        """The key, held until ``release``; None when there is none of that name."""
        key = self._keys.get(name.lstrip(":"))
        if key is not None:
            key.holders += 1
        return key

    @staticmethod
    def release(key: Key) -> None:
        """Give a key back."""
        key.holders -= 1

    @staticmethod
    def read(key: Key) -> bytes:
        """The contents, at most 4096 bytes; raises ``BdevError`` as ``add_file``, ENOBUFS when longer."""
        try:
            with open(key.path, "rb") as file:
                _check(os.fstat(file.fileno()))
                contents = file.read(MAX_KEY_BYTES + 1)
        except OSError as error:
            raise _fault(error.errno or errno.EIO) from error
        if len(contents) > MAX_KEY_BYTES:
            raise _fault(errno.ENOBUFS)
        return contents

    def to_json(self) -> list[dict[str, object]]:
        """All keys in the order they were added."""
        return [key.to_json() for key in self._keys.values()]

    def config(self) -> list[dict[str, object]]:
        """The calls that name them again."""
        return [
            {"method": "keyring_file_add_key", "params": {"name": key.name, "path": key.path}}
            for key in self._keys.values()
        ]


@method("keyring_get_keys", RUNTIME, ignores_params=True)
async def keyring_get_keys(engine: Engine, p: Params) -> object:  # noqa: ARG001 - SPDK does not look either
    """Names and paths, never contents."""
    return engine.keyring.to_json()


@method(
    "keyring_file_add_key",
    RUNTIME,
    Param("name", "string", required=True),
    Param("path", "string", required=True),
    relaxed=True,
    decode_error=_DECODE,
)
async def keyring_file_add_key(engine: Engine, p: Params) -> object:
    """Name a file that only its owner, who runs the engine, can read."""
    engine.keyring.add_file(p["name"], p["path"])
    return True


@method("keyring_file_remove_key", RUNTIME, Param("name", "string", required=True), decode_error=_DECODE)
async def keyring_file_remove_key(engine: Engine, p: Params) -> object:
    """Forget a key."""
    engine.keyring.remove(p["name"])
    return True
