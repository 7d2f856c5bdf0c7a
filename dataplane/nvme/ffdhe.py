"""Diffie-Hellman over the finite field groups that DH-HMAC-CHAP names.

Why: the shared secret of both sides makes a recorded exchange useless for guessing at the secret of the host.  This
module must never make a random number: private exponents come from the caller, as bytes.

Invariants: a public value of the peer that tells nothing about both sides (0, 1, p - 1, or outside of the group)
is refused; no step of ``power`` takes longer than a few milliseconds, since Python lets no other thread run within
one operation on integers, however large they are.
Sources: RFC 7919 (groups, length of exponents in section 5.2), NVMe base 2.0c section 8.13.5.3 (identifiers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Final, Self

GENERATOR: Final = 2


class DhGroup(IntEnum):
    """DH group identifiers; the names are those of SPDK's RPC."""

    NULL = 0
    FFDHE2048 = 1
    FFDHE3072 = 2
    FFDHE4096 = 3
    FFDHE6144 = 4
    FFDHE8192 = 5

    @property
    def label(self) -> str:
        """``null``, ``ffdhe2048``, ..."""
        return self.name.lower()

    @property
    def size(self) -> int:
        """Bytes of a public value and of the shared secret; 0 for ``NULL``."""
        return 0 if self is DhGroup.NULL else _GROUPS[self].bits // 8

    @property
    def exponent_size(self) -> int:
        """Random bytes that make a private exponent."""
        return 0 if self is DhGroup.NULL else _GROUPS[self].exponent_size


@dataclass(frozen=True, slots=True)
class _Group:
    """``offset`` is the X of RFC 7919 appendix A; ``exponent_size`` is at least its bound, in whole bytes."""

    bits: int
    offset: int
    exponent_size: int


_GROUPS: Final = {
    DhGroup.FFDHE2048: _Group(2048, 560316, 32),
    DhGroup.FFDHE3072: _Group(3072, 2625351, 40),
    DhGroup.FFDHE4096: _Group(4096, 5736041, 48),
    DhGroup.FFDHE6144: _Group(6144, 15705020, 56),
    DhGroup.FFDHE8192: _Group(8192, 10965728, 64),
}


class BadPublicValue(ValueError):
    """The public value of the peer is none of its group."""


@cache
def prime(group: DhGroup) -> int:
    """p = 2^b - 2^(b-64) + (floor(2^(b-130) e) + X) 2^64 - 1, as RFC 7919 defines it."""
    shape = _GROUPS[group]
    return (
        (1 << shape.bits)
        - (1 << (shape.bits - 64))
        + ((_scaled_e(shape.bits - 130) + shape.offset) << 64)
        - 1
    )  # fmt: skip


def _scaled_e(bits: int) -> int:
    """floor(2^bits e), from the series of e with guard bits below."""
    guard = 64
    term = total = 1 << (bits + guard)
    count = 1
    while term:
        term //= count
        total += term
        count += 1
    return total >> guard


def power(base: int, exponent: int, modulus: int) -> int:
    """base^exponent mod modulus, four bits of the exponent at a time.

    Not ``pow``: that is one operation, in which no other thread would run for tenths of a second.
    """
    table = [1]
    for _ in range(15):
        table.append(table[-1] * base % modulus)
    result = 1
    for shift in range((exponent.bit_length() + 3) // 4 * 4 - 4, -1, -4):
        result = pow(result, 16, modulus) * table[exponent >> shift & 15] % modulus
    return result


def _is_square(value: int, modulus: int) -> bool:
    """Whether the Jacobi symbol is 1: the squares are the subgroup that 2 generates."""
    sign = 1
    while value:
        twos = (value & -value).bit_length() - 1
        value >>= twos
        if twos & 1 and modulus & 7 in (3, 5):
            sign = -sign
        if value & modulus & 2:
            sign = -sign
        value, modulus = modulus % value, value
    return modulus == 1 and sign == 1


@dataclass(frozen=True, slots=True)
class DhKey:
    """A key pair for one exchange."""

    group: DhGroup
    public: bytes
    private: int = field(repr=False)

    @classmethod
    def make(cls, group: DhGroup, random: bytes) -> Self:
        """From ``group.exponent_size`` random bytes."""
        if group is DhGroup.NULL or len(random) != group.exponent_size:
            raise ValueError(f"{len(random)} bytes are no private exponent of {group.label}")
        private = int.from_bytes(random) | 1 << (8 * len(random) - 1)
        return cls(group, power(GENERATOR, private, prime(group)).to_bytes(group.size), private)

    def share(self, peer: bytes) -> bytes:
        """The secret that both sides know, ``group.size`` bytes; raises ``BadPublicValue``."""
        modulus, value = prime(self.group), int.from_bytes(peer)
        if not 1 < value < modulus - 1 or not _is_square(value, modulus):
            raise BadPublicValue(f"no public value of {self.group.label}")
        return power(value, self.private, modulus).to_bytes(self.group.size)
