"""DH-HMAC-CHAP: secrets as people write them, and the responses that are calculated with them.

Why: target and initiator prove the same thing to each other, with the same few lines.  This module must never show
a key: not in ``repr``, not in an error.  It makes no random numbers and compares nothing.

Sources: NVMe base 2.0c section 8.13.5 (messages, responses), 8.13.5.8 and TP 8006 (secret representation); checked
against exchanges with SPDK v26.05 (lib/nvme/nvme_auth.c), see tests/unit/nvme/test_dhchap.py.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

_SECRET: Final = re.compile(rb"DHHC-1:([0-9A-Fa-f]{2}):([A-Za-z0-9+/=]*):")
_KEY_SIZES: Final = (32, 48, 64)
_CRC_SIZE: Final = 4
_TRANSFORM: Final = b"NVMe-over-Fabrics"
TEXT_MAX: Final = 256  # bytes of a secret that SPDK reads


class Digest(IntEnum):
    """Hash function identifiers."""

    SHA256 = 1
    SHA384 = 2
    SHA512 = 3

    @property
    def label(self) -> str:
        """The name in SPDK's RPC, and in ``hashlib``."""
        return self.name.lower()

    @property
    def size(self) -> int:
        """Bytes of a hash, a challenge and a response."""
        return _SIZES[self]


_SIZES: Final = {Digest.SHA256: 32, Digest.SHA384: 48, Digest.SHA512: 64}


class BadSecret(ValueError):
    """The text is no secret; says what is wrong, never what was read."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A key and the hash function it is transformed with; None: it is used as it is."""

    key: bytes = field(repr=False)
    transform: Digest | None = None

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read ``DHHC-1:hh:BASE64:``; raises ``BadSecret``.  What follows the last colon is ignored, as in SPDK."""
        raw = text.encode() if isinstance(text, str) else text
        found = _SECRET.match(raw)
        if found is None:
            raise BadSecret("not of the form DHHC-1:hh:base64:")
        number = int(found.group(1), 16)
        if number not in (0, *Digest):
            raise BadSecret(f"transformed with an unknown hash function {number:02x}")
        try:
            body = base64.b64decode(found.group(2), validate=True)
        except (binascii.Error, ValueError):
            raise BadSecret("its key is not base64") from None
        key, crc = body[:-_CRC_SIZE], body[-_CRC_SIZE:]
        if len(key) not in _KEY_SIZES:
            raise BadSecret("its key has neither 32, 48 nor 64 bytes")
        if zlib.crc32(key) != int.from_bytes(crc, "little"):
            raise BadSecret("the checksum is wrong")
        return cls(key, Digest(number) if number else None)

    def text(self) -> str:
        """The form that ``parse`` reads."""
        body = self.key + zlib.crc32(self.key).to_bytes(_CRC_SIZE, "little")
        return f"DHHC-1:{self.transform or 0:02x}:{base64.b64encode(body).decode()}:"

    def transformed(self, nqn: str) -> bytes:
        """The key that the owner of ``nqn`` calculates with."""
        if self.transform is None:
            return self.key
        return hmac.digest(self.key, nqn.encode() + _TRANSFORM, self.transform.label)


@dataclass(frozen=True, slots=True)
class Question:
    """A challenge and what it is bound to; ``shared`` is the Diffie-Hellman secret, empty without a group."""

    digest: Digest
    tid: int
    seqnum: int
    challenge: bytes
    shared: bytes = field(default=b"", repr=False)

    def _augmented(self) -> bytes:
        if not self.shared:
            return self.challenge
        key = hashlib.new(self.digest.label, self.shared).digest()
        return hmac.digest(key, self.challenge, self.digest.label)

    def _answer(self, secret: Secret, role: bytes, own_nqn: str, peer_nqn: str) -> bytes:
        concatenation = 0  # secure channel concatenation is never offered
        message = b"".join((
            self._augmented(), self.seqnum.to_bytes(4, "little"), self.tid.to_bytes(2, "little"),
            bytes([concatenation]), role, own_nqn.encode(), b"\0", peer_nqn.encode(),
        ))  # fmt: skip
        return hmac.digest(secret.transformed(own_nqn), message, self.digest.label)

    def host_answer(self, secret: Secret, hostnqn: str, subnqn: str) -> bytes:
        """What a host with that secret responds."""
        return self._answer(secret, b"HostHost", hostnqn, subnqn)

    def controller_answer(self, secret: Secret, hostnqn: str, subnqn: str) -> bytes:
        """What a controller with that secret responds."""
        return self._answer(secret, b"Controller", subnqn, hostnqn)
