"""Identify structures, log pages and PDUs against offsets of the specification."""

from __future__ import annotations

import pytest

from dataplane.nvme import identify, logs, pdu
from dataplane.nvme.commands import Completion
from dataplane.nvme.pdu_reader import PduError, PduReader


def test_identify_controller_fields_lie_where_hosts_look() -> None:
    value = identify.IdentifyController(
        sn="S1", mn="Model", cntlid=0x1234, cmic=0x0B, anagrpmax=8, nn=32, subnqn="nqn.x", ioccsz=260, kas=100
    )
    raw = value.pack()
    assert len(raw) == 4096
    assert raw[4:24] == b"S1".ljust(20)
    assert raw[24:64] == b"Model".ljust(40)
    assert (raw[76], raw[78:80], raw[320:322]) == (0x0B, b"\x34\x12", b"\x64\0")
    assert (raw[344:348], raw[516:520]) == (b"\x08\0\0\0", b"\x20\0\0\0")
    assert raw[768:774] == b"nqn.x\0"
    assert raw[1792:1796] == b"\x04\x01\0\0"
    assert identify.IdentifyController.parse(raw) == value


def test_identify_namespace_knows_its_block_size() -> None:
    value = identify.IdentifyNamespace(nsze=100, anagrpid=2, nguid=b"n" * 16, lbafs=identify.lba_format(4096))
    raw = value.pack()
    assert (raw[92:96], raw[104:120], raw[128:132]) == (b"\x02\0\0\0", b"n" * 16, b"\0\0\x0c\0")
    assert identify.IdentifyNamespace.parse(raw).block_size == 4096


def test_lists() -> None:
    raw = identify.nsid_list([9, 3, 5], after=3)
    assert (len(raw), identify.parse_nsid_list(raw)) == (4096, [5, 9])
    assert identify.controller_list([4, 2, 1], first=2)[:6] == b"\x02\0\x02\0\x04\0"


def test_namespace_descriptors_leave_out_what_is_zero() -> None:
    ids = identify.NamespaceIds(nguid=b"g" * 16, uuid=b"u" * 16, csi=0)
    raw = ids.pack()
    assert raw[:4] == b"\x02\x10\0\0"
    assert raw[20:24] == b"\x03\x10\0\0"
    assert raw[40:45] == b"\x04\x01\0\0\0"
    assert identify.NamespaceIds.parse(raw) == ids
    assert identify.NamespaceIds.parse(b"\xff\xff\0\0") == identify.NamespaceIds(csi=None)


def test_the_ana_log_of_two_groups() -> None:
    page = logs.AnaLog(
        5, (logs.AnaGroup(1, logs.AnaState.OPTIMIZED, (1, 3)), logs.AnaGroup(2, logs.AnaState.INACCESSIBLE, (2,)))
    )
    raw = page.pack()
    assert raw[:16] == b"\x05".ljust(8, b"\0") + b"\x02".ljust(8, b"\0")
    assert (raw[16:24], raw[32], raw[48:56]) == (b"\x01\0\0\0\x02\0\0\0", 1, b"\x01\0\0\0\x03\0\0\0")
    assert logs.AnaLog.parse(raw) == page
    assert len(page.pack(groups_only=True)) == 16 + 2 * 32
    with pytest.raises(ValueError, match="ends in the namespaces of group 2"):
        logs.AnaLog.parse(raw[:-1])


def test_the_discovery_log() -> None:
    entry = logs.DiscoveryEntry(subnqn="nqn.x", traddr="10.0.0.1", trsvcid="4420", portid=3, asqsz=32)
    raw = logs.DiscoveryLog(7, (entry,)).pack()
    assert (len(raw), raw[:24]) == (2048, b"\x07".ljust(8, b"\0") + b"\x01".ljust(16, b"\0"))
    assert raw[1024:1034] == bytes([3, 1, 2, 0, 3, 0, 0xFF, 0xFF, 32, 0])
    assert (raw[1056:1060], raw[1280:1286], raw[1536:1544]) == (b"4420", b"nqn.x\0", b"10.0.0.1")
    assert logs.DiscoveryLog.parse(raw) == logs.DiscoveryLog(7, (entry,))
    assert logs.DiscoveryLog.parse(raw[:1024]).entries == ()


def test_small_logs() -> None:
    assert logs.changed_namespaces([3, 1])[:12] == b"\x01\0\0\0\x03\0\0\0\0\0\0\0"
    assert logs.changed_namespaces(list(range(1, 1026)))[:8] == b"\xff\xff\xff\xff\0\0\0\0"
    assert logs.parse_effects_log(logs.effects_log({6: 1}, {1: 3})) == ({6: 1}, {1: 3})
    assert logs.AsyncEvent(2, 3, 0x0C).pack() == 0x0C0302
    assert logs.AsyncEvent.parse(0x0C0302) == logs.AsyncEvent(2, 3, 0x0C)
    assert logs.SmartLog(temperature=300, host_reads=1 << 70).pack()[1:3] == b"\x2c\x01"


def test_a_data_pdu_with_digests_and_alignment() -> None:
    agreed = pdu.Digests(header=True, data=True)
    pieces = pdu.c2h_data(pdu.C2HData(5, 0, b"d" * 8, last=True, success=True), agreed, alignment=64)
    raw = b"".join(pieces)
    assert raw[:8] == bytes([0x07, 0x0F, 24, 64]) + (76).to_bytes(4, "little")
    assert (raw[24:28], raw[64:72]) == (pdu.digest(raw[:24]), b"d" * 8)
    assert raw[72:] == pdu.digest(b"d" * 8)
    assert pdu.digest(b"123456789") == bytes.fromhex("839206e3")  # the check value of CRC-32C


def test_connection_requests() -> None:
    raw = pdu.IcReq(hpda=3, digests=pdu.Digests(header=True), maxr2t=15).pack()
    assert (len(raw), raw[:8], raw[8:16]) == (128, b"\0\0\x80\0\x80\0\0\0", b"\0\0\x03\x01\x0f\0\0\0")
    assert list(PduReader(pdu.CONTROLLER_RECEIVES, 4096).feed(raw)) == [
        pdu.IcReq(hpda=3, digests=pdu.Digests(header=True), maxr2t=15)
    ]
    answer = pdu.IcResp(maxh2cdata=65536)
    assert list(PduReader(pdu.HOST_RECEIVES, 4096).feed(answer.pack())) == [answer]


def test_a_termination_request_carries_the_header_that_was_wrong() -> None:
    term = pdu.TermReq(from_host=True, fes=2, fei=4, header=bytes(72))
    assert len(term.pack()) == 96
    assert list(PduReader(pdu.CONTROLLER_RECEIVES, 4096).feed(term.pack())) == [term]
    assert len(pdu.TermReq(from_host=False, fes=1, header=bytes(1000)).pack()) == pdu.TERM_MAX


@pytest.mark.parametrize(
    ("raw", "fes", "fei"),
    [
        (pdu.COMMON.pack(0x0A, 0, 24, 0, 24), 1, 0),
        (pdu.COMMON.pack(pdu.PduType.CAPSULE_CMD, 0, 64, 0, 64), 1, 2),
        (pdu.COMMON.pack(pdu.PduType.CAPSULE_CMD, 1, 72, 0, 76), 1, 1),
        (pdu.COMMON.pack(pdu.PduType.CAPSULE_CMD, 0, 72, 72, 1 << 30), 1, 4),
        (pdu.COMMON.pack(pdu.PduType.CAPSULE_CMD, 0, 72, 0, 71), 1, 4),
        (pdu.COMMON.pack(pdu.PduType.H2C_DATA, 0, 24, 20, 64), 1, 3),
        (pdu.COMMON.pack(pdu.PduType.H2C_DATA, 0, 24, 24, 24), 1, 3),
        (pdu.COMMON.pack(pdu.PduType.IC_REQ, 0, 128, 0, 129), 1, 4),
        (pdu.H2C_DATA_HEAD.pack(pdu.PduType.H2C_DATA, 0, 24, 24, 32, 1, 1, 0, 4) + bytes(8), 1, 16),
    ],
)
def test_the_reader_names_the_field_that_is_wrong(raw: bytes, fes: int, fei: int) -> None:
    with pytest.raises(PduError) as caught:
        list(PduReader(pdu.CONTROLLER_RECEIVES, 8192).feed(raw))
    assert (caught.value.fes, caught.value.fei) == (fes, fei)


def test_payloads_stay_what_they_were_when_more_arrives() -> None:
    reader = PduReader(pdu.HOST_RECEIVES, 4096, buffer_size=8192)
    kept = []
    for number in range(40):
        sent = pdu.c2h_data(pdu.C2HData(number, 0, bytes([number]) * 1000, last=True, success=True))
        kept += list(reader.feed(b"".join(sent)))
        list(reader.feed(pdu.capsule_resp(Completion(cid=number))))
    assert [bytes(item.data) for item in kept if isinstance(item, pdu.C2HData)] == [
        bytes([number]) * 1000 for number in range(40)
    ]


def test_a_closed_reader_holds_no_buffer_and_leaves_payloads_alone() -> None:
    reader = PduReader(pdu.HOST_RECEIVES, 4096, buffer_size=8192)
    (arrived,) = reader.feed(b"".join(pdu.c2h_data(pdu.C2HData(1, 0, b"x" * 512, last=True, success=True))))
    reader.close()
    assert len(reader.get_buffer()) == 0
    assert isinstance(arrived, pdu.C2HData)
    assert bytes(arrived.data) == b"x" * 512
