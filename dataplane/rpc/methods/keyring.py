"""Keys by name: the engine reads the material from a file, it never travels in a call."""

from __future__ import annotations

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import KeyInfo


def file_add_key(name: str, path: str) -> Call[None]:
    """Make the file at the absolute ``path`` (mode 0600, owned by the engine's user) known as ``name``;
    EEXIST when the name is taken (module/keyring/file/keyring.c)."""
    return Call("keyring_file_add_key", {"name": name, "path": path}, parse=reply.done)


def file_remove_key(name: str) -> Call[None]:
    """Forget the key ``name``."""
    return Call("keyring_file_remove_key", {"name": name}, parse=reply.done)


def get_keys() -> Call[tuple[KeyInfo, ...]]:
    """The names of all keys."""

    def read(key: Fields) -> KeyInfo:
        return KeyInfo(
            name=key.text("name"),
            module=key.text("module", ""),
            removed=key.flag("removed", default=False),
            path=key.text("path", ""),
        )

    return Call("keyring_get_keys", parse=lambda raw: reply.objects(raw, "keyring_get_keys", read))
