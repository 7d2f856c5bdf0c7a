"""Keep secrets out of logs, errors and ``repr``.

Why: JSON-RPC carries TLS pre-shared keys, DH-HMAC-CHAP keys and crypto keys as plain text, and people paste
logs and error texts into tickets.  Everything of this package that turns a call into text goes through here.
This module must never be asked to hide by value alone: the *name* of a parameter decides, and the two published
key formats are recognised wherever they stand.

Invariant: ``redact`` returns new containers and never changes what it was given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from dataplane.rpc.jsontype import Json

HIDDEN: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:psk|secret|msecret|passw(?:or)?d|passphrase|token)$"
    r"|(?:^|_)dhchap_(?:ctrlr_)?key$"
    r"|^key2?$"
    r"|(?:^|_)(?:private|secret)_key$",
    re.IGNORECASE,
)
# NVMe TP 8018 (PSK interchange format) and TP 8006 (DH-HMAC-CHAP secret representation).
_KEY_TEXT: Final = re.compile(r"\b(?:NVMeTLSkey-1|DHHC-1):[^\s\"',]+")


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name holds key material or names a key file."""
    return _SECRET_NAME.search(name) is not None


def redact(value: Json) -> Json:
    """A copy of ``value`` for people to read, with every secret replaced by ``***``."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if is_secret_name(str(key)) and item is not None else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return _KEY_TEXT.sub(HIDDEN, value)
    return value


def secrets_of(value: Json) -> frozenset[str]:
    """Every string that stands behind a secret name anywhere in ``value``."""
    if isinstance(value, Mapping):
        found: set[str] = set()
        for key, item in value.items():
            if is_secret_name(str(key)):
                found |= _strings(item)
            else:
                found |= secrets_of(item)
        return frozenset(found)
    if isinstance(value, list | tuple):
        return frozenset().union(*(secrets_of(item) for item in value))
    return frozenset()


def _strings(value: Json) -> set[str]:
    if isinstance(value, str):
        return {value} if value else set()
    if isinstance(value, Mapping):
        return set().union(*(_strings(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_strings(item) for item in value))
    return set()


def scrub(text: str, params: Json) -> str:
    """``text`` without the secrets of ``params``: an engine may quote in its message what it was sent."""
    for secret in sorted(secrets_of(params), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _KEY_TEXT.sub(HIDDEN, text)
