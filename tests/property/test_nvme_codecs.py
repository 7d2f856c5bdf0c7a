"""Codecs: what is built is read back, however the stream is cut; garbage never does more than raise."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.nvme import pdu as p
from dataplane.nvme.commands import Command, Completion
from dataplane.nvme.fabrics import Capabilities, ConnectData
from dataplane.nvme.identify import IdentifyController, NamespaceIds
from dataplane.nvme.logs import AnaGroup, AnaLog
from dataplane.nvme.pdu_reader import PduError, PduReader
from dataplane.nvme.reservations import Registrant, ReservationReport, parse_report

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
payload = st.binary(min_size=1, max_size=3000).map(lambda raw: raw + bytes(-len(raw) % 4))
digests = st.builds(p.Digests, st.booleans(), st.booleans())
commands = st.builds(Command, u8, u8, u16, u32, u32, u32, u64, u64, u32, u8, u32, u32, u32, u32, u32, u32)
GOOD = st.sampled_from([False])  # what is built here has the digest that it should have
EVERYTHING = p.HOST_RECEIVES | p.CONTROLLER_RECEIVES

pdus = st.one_of(
    st.builds(p.CapsuleCmd, commands, st.one_of(st.just(b""), payload), GOOD),
    st.builds(p.CapsuleResp, st.builds(Completion, u32, u32, u16, u16, u16, u16)),
    st.builds(p.H2CData, u16, u16, u32, payload, st.booleans(), GOOD),
    st.builds(p.C2HData, u16, u32, payload, st.booleans(), st.booleans(), GOOD),
    st.builds(p.R2T, u16, u16, u32, u32),
)


def wire(item: p.Pdu, agreed: p.Digests, alignment: int) -> bytes:
    match item:
        case p.CapsuleCmd(command, data):
            return b"".join(p.capsule_cmd(command, data, agreed, alignment))
        case p.CapsuleResp(completion):
            return p.capsule_resp(completion, agreed)
        case p.H2CData():
            return b"".join(p.h2c_data(item, agreed, alignment))
        case p.C2HData():
            return b"".join(p.c2h_data(item, agreed, alignment))
        case p.R2T():
            return p.r2t(item, agreed)
    raise AssertionError(item)


@given(st.lists(pdus, max_size=8), digests, st.sampled_from([4, 64, 128]), st.data())
def test_a_stream_gives_its_pdus_however_it_is_cut(
    items: list[p.Pdu], agreed: p.Digests, alignment: int, data: st.DataObject
) -> None:
    stream = b"".join(wire(item, agreed, alignment) for item in items)
    reader = PduReader(EVERYTHING, 4096, buffer_size=8192)
    reader.digests = agreed
    found: list[p.Pdu] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)), label="piece")
        found += reader.feed(stream[:size])
        stream = stream[size:]
    assert found == items


@given(st.lists(st.binary(min_size=1, max_size=400), max_size=20), digests)
def test_garbage_gives_pdus_or_an_error(pieces: list[bytes], agreed: p.Digests) -> None:
    reader = PduReader(p.CONTROLLER_RECEIVES, 8192)
    reader.digests = agreed
    ended: PduError | None = None
    try:
        for piece in pieces:
            list(reader.feed(piece))
    except PduError as error:
        ended = error
    assert ended is None or len(ended.term(from_host=False).pack()) <= p.TERM_MAX


@given(pdus, digests.filter(lambda d: d.header), st.data())
def test_one_wrong_bit_in_a_header_is_noticed(item: p.Pdu, agreed: p.Digests, data: st.DataObject) -> None:
    raw = bytearray(wire(item, agreed, 4))
    bit = data.draw(st.integers(0, 8 * (p.HEADER_SIZE[p.PduType(raw[0])] + 4) - 1), label="bit")
    raw[bit // 8] ^= 1 << bit % 8
    reader = PduReader(EVERYTHING, 4096)
    reader.digests = agreed
    try:
        found = list(reader.feed(raw))
    except PduError:
        return
    assert found == []  # a greater length: the rest is still awaited


@given(st.binary(max_size=1200))
def test_parsers_of_untrusted_bytes_read_what_there_is(raw: bytes) -> None:
    ConnectData.parse(raw)
    IdentifyController.parse(raw)
    NamespaceIds.parse(raw)
    for parse in (AnaLog.parse, parse_report):
        with contextlib.suppress(ValueError):  # either a value or this error, both are right
            parse(raw)


@given(commands)
def test_a_command_is_read_back(command: Command) -> None:
    assert Command.parse(command.pack()) == command


ana_groups = st.builds(AnaGroup, u32, st.sampled_from([1, 2, 3, 4, 15]), st.lists(u32).map(tuple), u64)


@given(u64, st.lists(ana_groups, max_size=5).map(tuple))
def test_an_ana_log_is_read_back(changes: int, groups: tuple[AnaGroup, ...]) -> None:
    assert AnaLog.parse(AnaLog(changes, groups).pack()) == AnaLog(changes, groups)


@given(st.booleans(), u32, st.integers(0, 6), st.booleans(), st.data())
def test_a_reservation_report_is_read_back(
    extended: bool, generation: int, rtype: int, persist: bool, data: st.DataObject
) -> None:
    host = st.binary(min_size=16 if extended else 8, max_size=16 if extended else 8)
    rows = data.draw(st.lists(st.builds(Registrant, u16, st.booleans(), host, u64), max_size=5).map(tuple))
    report = ReservationReport(generation, rtype, persist, rows)
    assert parse_report(report.pack(extended=extended), extended=extended) == report


nibble = st.integers(0, 15)


@given(st.builds(Capabilities, u16, st.booleans(), st.integers(0, 3), u8, nibble, st.booleans(), u8, nibble, nibble))
def test_capabilities_are_read_back(value: Capabilities) -> None:
    assert Capabilities.parse(value.pack()) == value


@pytest.mark.parametrize("kind", [p.PduType.IC_RESP, p.PduType.C2H_DATA, p.PduType.R2T])
def test_a_pdu_of_the_wrong_direction_is_refused(kind: p.PduType) -> None:
    reader = PduReader(p.CONTROLLER_RECEIVES, 4096)
    with pytest.raises(PduError) as caught:
        list(reader.feed(p.COMMON.pack(kind, 0, p.HEADER_SIZE[kind], 0, 128)))
    assert caught.value.fes == p.FatalError.INVALID_HEADER
