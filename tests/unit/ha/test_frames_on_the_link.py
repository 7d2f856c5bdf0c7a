"""The frames and segments of a takeover, byte by byte."""

from __future__ import annotations

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from ha.adapters.addresses import advertisement, arp, bare_ack, checksum

MAC = bytes.fromhex("02a1b2c3d4e5")
V4 = [ipaddress.ip_address(each).packed for each in ("192.0.2.100", "192.0.2.1")]
V6 = [ipaddress.ip_address(each).packed for each in ("2001:db8::100", "2001:db8::1")]


def test_gratuitous_arp() -> None:
    assert arp(1, MAC, V4[0]).hex() == "00010800060400" + "01" + MAC.hex() + "c0000264" + "00" * 6 + "c0000264"
    assert arp(2, MAC, V4[0]).hex() == "00010800060400" + "02" + MAC.hex() + "c0000264" + MAC.hex() + "c0000264"


def test_unsolicited_advertisement() -> None:
    packet = advertisement(MAC, V6[0])
    assert packet[:8].hex() == "60000000" + "0020" + "3a" + "ff"
    assert packet[8:24] == V6[0]
    assert packet[24:40].hex() == "ff02" + "00" * 13 + "01"
    assert packet[40:42].hex() == "8800"
    assert packet[44:].hex() == "20000000" + V6[0].hex() + "0201" + MAC.hex()
    # A receiver sums the pseudo header and all of the message, and gets nothing.
    assert checksum(packet[8:40] + struct.pack("!II", 32, 58) + packet[40:]) == 0


def test_a_segment_that_is_of_no_connection() -> None:
    segment = bare_ack(V4[0], 4420, V4[1], 50000)
    assert segment[:16].hex() == "1144" + "c350" + "00" * 8 + "5010" + "0000"
    assert checksum(V4[0] + V4[1] + struct.pack("!BBH", 0, 6, 20) + segment) == 0
    segment = bare_ack(V6[0], 4420, V6[1], 50000)
    assert checksum(V6[0] + V6[1] + struct.pack("!II", 20, 6) + segment) == 0


def test_the_checksum_of_the_rfc() -> None:
    """The example of RFC 1071, section 3."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF


@given(st.binary(max_size=100))
def test_what_carries_its_checksum_sums_to_nothing(raw: bytes) -> None:
    even = raw + bytes(len(raw) % 2)
    assert checksum(even + struct.pack("!H", checksum(even))) == 0
