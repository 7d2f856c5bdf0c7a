"""The keyring_* methods, and how other methods name keys.

This module must never read a key.  Source: SPDK v26.05 lib/keyring/keyring_rpc.c, module/keyring/file/keyring_rpc.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from dataplane.embedded.keyring import KeyPair
from dataplane.embedded.rpc.registry import INVALID_PARAMS, RUNTIME, Param, Params, method

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

KEYS: Final = (Param("dhchap_key", "string"), Param("dhchap_ctrlr_key", "string"))
_DECODE: Final = (INVALID_PARAMS, os.strerror(errno.EINVAL))


def find_keys(engine: Engine, p: Params) -> KeyPair | None:
    """The keys that a call names with ``KEYS``; None when one of them is not in the keyring."""
    found = [engine.keyring.find(p[param.name]) if param.name in p else None for param in KEYS]
    if any(param.name in p and key is None for param, key in zip(KEYS, found, strict=True)):
        return None
    return KeyPair(*found)


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
