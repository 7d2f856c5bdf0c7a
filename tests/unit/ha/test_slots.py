"""Heartbeat slots as bytes: what was written is read, and nothing else is."""

from __future__ import annotations

import struct

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ha.journal.layout import SLOT_BYTES
from ha.keys import array_prefix, life_of, make_key
from ha.slots import Slot, decode, encode

ARRAY = array_prefix("lab")
U64 = st.integers(0, 2**64 - 1)
SLOT = Slot(array=ARRAY, node="a", key=make_key("lab", "a", life_of(1)), counter=7, at=(3, 5))


def sealed(rest: bytes) -> bytes:
    """A block whose checksum holds, whatever is in it."""
    return b"WS7000HB" + struct.pack("<I", crc32c.crc32c(rest)) + rest


@given(node=st.sampled_from("ab"), key=U64, counter=U64, at=st.tuples(U64, U64), array=st.integers(0, 2**16 - 1))
def test_what_is_written_is_read(node: str, key: int, counter: int, at: tuple[int, int], array: int) -> None:
    slot = Slot(array=array, node=node, key=key, counter=counter, at=at)  # type: ignore[arg-type]
    raw = encode(slot)
    assert len(raw) == SLOT_BYTES
    assert decode(raw, array, slot.node) == slot


def test_the_layout_is_the_one_on_the_drives() -> None:
    raw = encode(SLOT)
    assert raw[:8] == b"WS7000HB"
    assert struct.unpack_from("<IHcB", raw, 12) == (1, ARRAY, b"a", 0)
    assert struct.unpack_from("<QQQQ", raw, 20) == (SLOT.key, 7, 3, 5)
    assert raw[52:] == bytes(SLOT_BYTES - 52)


def test_that_of_another_array_or_node_is_none() -> None:
    raw = encode(SLOT)
    assert decode(raw, ARRAY ^ 1, "a") is None
    assert decode(raw, ARRAY, "b") is None


@given(bit=st.integers(0, SLOT_BYTES * 8 - 1))
def test_one_flipped_bit_makes_it_none(bit: int) -> None:
    raw = bytearray(encode(SLOT))
    raw[bit // 8] ^= 1 << bit % 8
    assert decode(bytes(raw), ARRAY, "a") is None


@pytest.mark.parametrize("raw", [b"", b"WS7000HB", bytes(SLOT_BYTES), encode(SLOT)[:-1], encode(SLOT) + b"\0"])
def test_what_is_no_slot_is_none(raw: bytes) -> None:
    assert decode(raw, ARRAY, "a") is None


@pytest.mark.parametrize(("at", "value"), [(0, 2), (6, ord("c")), (7, 1), (SLOT_BYTES - 13, 1)])
def test_a_block_with_a_good_checksum_that_encode_would_not_write_is_none(at: int, value: int) -> None:
    """Another format, an unknown node, the reserved byte, the rest."""
    rest = bytearray(encode(SLOT)[12:])
    rest[at] = value
    assert decode(sealed(bytes(rest)), ARRAY, "a") is None
