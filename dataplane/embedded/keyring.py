"""Keys in files: names for secrets, so that no secret ever goes through the RPC.

Why: DH-HMAC-CHAP and TLS keys are read from files that only their owner can read.  This module must never log,
show or keep the contents of a key.

Invariants: the file is checked when it is named and again every time it is read; a key has one name; a key that was
removed is read no more, whoever still holds it.
Source: SPDK v26.05 lib/keyring/keyring.c, module/keyring/file/keyring.c.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

from dataplane.embedded.bdev.base import BdevError
from dataplane.nvme.dhchap import TEXT_MAX, BadSecret, Secret


def _fault(number: int) -> BdevError:
    return BdevError(number, os.strerror(number))


def _check(found: os.stat_result) -> None:
    if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.getuid():
        raise _fault(errno.EPERM)


@dataclass(slots=True, eq=False)
class Key:
    """A named key; ``holders`` counts the keyring itself and everyone who uses it."""

    name: str
    path: str
    holders: int = 1
    removed: bool = False

    def to_json(self) -> dict[str, object]:
        """As ``keyring_get_keys`` shows it."""
        shown: dict[str, object] = {
            "name": self.name,
            "module": "keyring_file",
            "removed": self.removed,
            "probed": False,
            "refcnt": self.holders,
        }
        return shown if self.removed else {**shown, "path": self.path}

    def secret(self) -> Secret:
        """The DH-HMAC-CHAP secret in the file, as it is now.

        Raises ``BdevError`` (as ``Keyring.add_file``; ENOKEY when removed, ENOBUFS when longer than a secret can
        be) and ``BadSecret``.
        """
        if self.removed:
            raise _fault(errno.ENOKEY)
        try:
            with open(self.path, "rb") as file:
                _check(os.fstat(file.fileno()))
                contents = file.read(TEXT_MAX + 1)
        except OSError as error:
            raise _fault(error.errno or errno.EIO) from error
        if len(contents) > TEXT_MAX:
            raise _fault(errno.ENOBUFS)
        try:
            return Secret.parse(contents)
        except BadSecret as error:
            raise BadSecret(f"key {self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The keys of DH-HMAC-CHAP: what the host has to know, and what the controller has to know when it is asked."""

    host: Key | None = None
    controller: Key | None = None

    def names(self) -> dict[str, object]:
        """As the RPC methods show them."""
        pairs = (("dhchap_key", self.host), ("dhchap_ctrlr_key", self.controller))
        return {word: key.name for word, key in pairs if key is not None}

    @property
    def one_sided(self) -> bool:
        """A key of the controller alone proves nothing."""
        return self.controller is not None and self.host is None


NO_KEYS = KeyPair()


class Keyring:
    """The global keyring; ``NAME`` and ``:NAME`` are the same key."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._removed: list[Key] = []

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
        """Forget a key; whoever holds it has nothing to read any more.  Raises ``BdevError(ENOKEY)``."""
        key = self._keys.pop(name.lstrip(":"), None)
        if key is None:
            raise _fault(errno.ENOKEY)
        key.removed = True
        self._removed.append(key)
        self.release(KeyPair(key))

    def find(self, name: str) -> Key | None:
        """The key of that name."""
        return self._keys.get(name.lstrip(":"))

    def hold(self, keys: KeyPair) -> KeyPair:
        """Count one more user of both, until ``release``."""
        for key in (keys.host, keys.controller):
            if key is not None:
                key.holders += 1
        return keys

    def release(self, keys: KeyPair) -> None:
        """One user less."""
        for key in (keys.host, keys.controller):
            if key is not None:
                key.holders -= 1
        self._removed = [key for key in self._removed if key.holders]

    def to_json(self) -> list[dict[str, object]]:
        """All keys in the order they were added, then those removed that somebody holds."""
        return [key.to_json() for key in (*self._keys.values(), *self._removed)]

    def config(self) -> list[dict[str, object]]:
        """The calls that name them again."""
        return [
            {"method": "keyring_file_add_key", "params": {"name": key.name, "path": key.path}}
            for key in self._keys.values()
        ]
