"""What is fuzzed: plain functions of bytes, for a coverage-guided fuzzer, for hypothesis and for the corpus alike.

Why: whatever comes from a socket or a file may be anything.  A target must raise only when something is wrong, so
the errors that a module promises are caught here and nothing else.  Targets must never open a socket or wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import crc32c

from controlplane.domain.errors import NotFound, Refused, SpecError, UsageError
from controlplane.spec import load as load_spec
from controlplane.store import codec
from dataplane.embedded import rpc
from dataplane.embedded.rpc import config, wire
from dataplane.embedded.rpc.jsontext import JsonSyntaxError, Reader
from dataplane.embedded.rpc.registry import METHODS, RpcFault
from dataplane.nvme import commands, fabrics, identify, logs, reservations
from dataplane.nvme import pdu as p
from dataplane.nvme.pdu_reader import PduError, PduReader
from dataplane.rpc.wire import Conversation, WireError
from ha import control, heartbeat, says, slots
from ha.journal import record, snapshot
from ha.journal.layout import SLOT_BYTES
from ha.keys import array_prefix
from ha.model import NODES, GroupId, Save

Target = Callable[[bytes], None]
_MAX_PDU: Final = 8192


def _read(reader: PduReader, data: bytes, step: int) -> list[p.Pdu | str]:
    """What the reader makes of ``data`` that arrives ``step`` bytes at a time; the error, if any, as its text."""
    found: list[p.Pdu | str] = []
    try:
        for start in range(0, len(data), step):
            for item in reader.feed(data[start : start + step]):
                found.append(item)
                if isinstance(item, p.IcReq | p.IcResp):
                    reader.digests = item.digests
    except PduError as error:
        # Its echo may be shorter when less had arrived, its size never more than the specification's.
        found.append(f"{error.fes} {error.fei} {len(error.term(from_host=True).pack()) <= p.TERM_MAX}")
    return found


def _pdus(data: bytes, receives: frozenset[p.PduType], greeting: p.PduType) -> None:
    """The first byte says how the rest arrives; the same PDUs have to come out as from the whole."""
    if not data:
        return
    stream = data[1:]
    if data[0] & 1:
        head = p.IcReq if greeting is p.PduType.IC_REQ else p.IcResp
        stream = head(digests=p.Digests(bool(data[0] & 2), bool(data[0] & 4))).pack() + stream
    made = (PduReader(receives, _MAX_PDU, buffer_size=64, greeting=greeting) for _ in range(2))
    whole, cut = (_read(reader, stream, step) for reader, step in zip(made, (1 << 20, 1 + (data[0] >> 3)), strict=True))
    assert whole == cut
    assert not any(isinstance(item, str) and item.endswith("False") for item in whole)


def pdu_from_host(data: bytes) -> None:
    """The target's side of a connection."""
    _pdus(data, p.CONTROLLER_RECEIVES, p.PduType.IC_REQ)


def pdu_from_controller(data: bytes) -> None:
    """The initiator's side of a connection."""
    _pdus(data, p.HOST_RECEIVES, p.PduType.IC_RESP)


def structures(data: bytes) -> None:
    """Everything that is parsed out of payloads; what can be built again has to be the same."""
    command = commands.Command.parse(data.ljust(commands.SQE_SIZE, b"\0"))
    assert commands.Command.parse(command.pack()) == command
    fabrics.ConnectCommand.of(command)
    completion = commands.Completion.parse(data.ljust(commands.CQE_SIZE, b"\0"))
    assert commands.Completion.parse(completion.pack()) == completion
    for layout in (
        fabrics.ConnectData, identify.IdentifyController, identify.IdentifyNamespace, identify.IdentifyNvmController,
        identify.IndependentNamespace, logs.DiscoveryEntry, logs.SmartLog, logs.ErrorEntry, logs.FirmwareSlotLog,
    ):  # fmt: skip
        value = layout.parse(data)
        assert len(value.pack()) == layout.SIZE
    assert identify.IdentifyNamespace.parse(data).block_size > 0
    identify.NamespaceIds.parse(data)
    identify.parse_nsid_list(data)
    commands.parse_ranges(data, len(data) // 16)
    number = int.from_bytes(data[:8], "little")
    fabrics.Capabilities.parse(number)
    fabrics.Configuration.parse(number & 0xFFFFFFFF)
    logs.AsyncEvent.parse(number & 0xFFFFFFFF)
    with contextlib.suppress(ValueError):
        page = logs.AnaLog.parse(data)
        assert logs.AnaLog.parse(page.pack()) == page
    with contextlib.suppress(ValueError):
        logs.DiscoveryLog.parse(data)
    for extended in (False, True):
        with contextlib.suppress(ValueError):
            report = reservations.parse_report(data, extended=extended)
            assert reservations.parse_report(report.pack(extended=extended), extended=extended) == report


def _values(data: bytes, step: int, *, comments: bool) -> list[object]:
    reader = Reader(comments=comments)
    found: list[object] = []
    try:
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
            while (item := reader.next()) is not None:
                found.append(item)
    except JsonSyntaxError:
        found.append("refused")
    return found


def json_text(data: bytes) -> None:
    """JSON cut anywhere; the first byte says where.  Numbers at the top level end where the data ends."""
    if not data:
        return
    text = b"[" + data[1:] if data[0] & 1 else data[1:]
    whole = _values(text, len(text) or 1, comments=bool(data[0] & 2))
    cut = _values(text, 1 + (data[0] >> 2), comments=bool(data[0] & 2))
    if data[0] & 1 and not data[0] & 2:
        # Only the first value: what follows it may be a number at the top level, which a cut may halve.
        assert whole[:1] == cut[:1]


def rpc_request(data: bytes) -> None:
    """Text to request to decoded parameters; the answer has to be sendable."""
    if not METHODS:
        rpc.import_methods()
    reader = Reader()
    try:
        reader.feed(data)
        while (found := reader.next()) is not None:
            for value in found[0] if isinstance(found[0], list) else [found[0]]:
                _request(value)
    except JsonSyntaxError:
        return


def _request(value: object) -> None:
    try:
        request = wire.read_request(value)
        method = METHODS.get(request.method)
        if method is not None:
            method.decode(request.params)
        answer = wire.result(request.id, []) or wire.error(request.id, -1, "no")
    except wire.BadRequestError as problem:
        answer = wire.bad_request(problem.id)
    except RpcFault as problem:
        answer = wire.fault(None, problem)
    assert answer.encode()


def registry(data: bytes) -> None:
    """The same parameters for every method there is: never anything but ``RpcFault``."""
    if not METHODS:
        rpc.import_methods()
    reader = Reader()
    try:
        reader.feed(data + b" ")
        found = reader.next()
    except JsonSyntaxError:
        return
    params = None if found is None else found[0]
    for method in METHODS.values():
        with contextlib.suppress(RpcFault):
            method.decode(params)


def rpc_replies(data: bytes) -> None:
    """What an engine answers to the control plane, cut as the first byte says."""
    if not data:
        return
    talk = Conversation()
    for number in range(4):
        talk.sent(number)
    step = 1 + data[0]
    with contextlib.suppress(WireError):
        for start in range(1, len(data), step):
            talk.feed(data[start : start + step])


_FOLDER = tempfile.TemporaryDirectory(prefix="ws7000-fuzz-")


def start_config(data: bytes) -> None:
    """The start-up configuration of the embedded engine."""
    path = Path(_FOLDER.name) / f"{os.getpid()}.json"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        config.load(str(path))


def array_yaml(data: bytes) -> None:
    """The description of an array, as a file, so that its encoding is checked too."""
    path = Path(_FOLDER.name) / f"{os.getpid()}.yaml"
    path.write_bytes(data)
    with contextlib.suppress(SpecError):
        load_spec.load(path)


def _sealed(body: bytes) -> bytes:
    """A body with the head that belongs to it: a fuzzer does not find checksums."""
    body = body.replace(b"\n", b" ").rstrip()
    try:
        generation = json.loads(body)["generation"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        generation = 0
    head = {"format": codec.FORMAT, "generation": generation, "crc32c": f"{crc32c.crc32c(body):08x}"}
    return json.dumps(head).encode() + b"\n" + body


def state(data: bytes) -> None:
    """The stored state; what is accepted is written back the same.  Without the right checksum: as a body."""
    for raw in (data, _sealed(data)):
        try:
            value = codec.decode(raw)
        except codec.BadStateError:
            continue
        assert codec.decode(codec.encode(value)) == value


def journal(data: bytes) -> None:
    """What lies on a drive: as a record, as the body of one, as a snapshot, as what one holds.  What is accepted is
    written back the same."""
    for raw in (data, record.framed(data, record.NO_PREVIOUS)):
        stored = record.decode(raw)
        if stored is not None:
            again = record.encode(stored.record, stored.previous)
            assert raw.startswith(again)
            assert record.digest_of(again) == stored.digest
    for raw in (data, zlib.compress(data)):
        whole = snapshot.unpack(raw)
        assert whole is None or snapshot.unpack(snapshot.pack(whole)) == whole


_CODEC: Final = heartbeat.Codec("array", bytes(heartbeat.SECRET_BYTES))
HEARS: Final = 11
"""The boot of the agent that hears; a heartbeat that greets it is believed."""


def heartbeats(data: bytes) -> None:
    """A datagram as it comes, and as one that is signed; what is refused must change nothing, and what is accepted is
    written back the same.  Then what a node says, plain and compressed."""
    signed = _CODEC.signed(data[: heartbeat.MAX_DATAGRAM - 16])
    frame = _CODEC.decode(signed)
    packed = b""
    if isinstance(frame, heartbeat.Frame):
        assert _CODEC.decode(_CODEC.encode(frame)) == frame
        with contextlib.suppress(ValueError):  # compressed it may be longer than a datagram
            packed = _CODEC.encode(dataclasses.replace(frame, piece=zlib.compress(frame.piece)))
    hearing = heartbeat.Hearing(_CODEC, "a", HEARS, ("p0", "p1"), silent_ms=100)
    hearing.speak(says.Says(node="a"), 1)
    for now, datagram in enumerate((data, signed, packed, packed, signed), start=2):
        before = hearing.peer(now)
        if hearing.feed(datagram, "p0", now) is not None:
            assert hearing.peer(now) == before
    assert sum(hearing.refusals.values()) > 0
    _said(data)


def _said(data: bytes) -> None:
    for raw in (data, zlib.compress(data)):
        with contextlib.suppress(ValueError):
            said = says.unpack_says(raw)
            assert says.unpack_says(says.pack_says(said)) == said
        with contextlib.suppress(ValueError):
            found = says.unpack_connections(raw)
            assert set(says.unpack_connections(says.pack_connections(found))) == set(found)


def heartbeat_slots(data: bytes) -> None:
    """A node's slot on a drive; what is accepted is written back the same.  Without the right checksum: as a body."""
    body = data[: SLOT_BYTES - 12]
    for raw in (data, slots.framed(body)):
        for node in NODES:
            slot = slots.decode(raw, array_prefix("array"), node)
            assert slot is None or slots.encode(slot) == raw


def control_request(data: bytes) -> None:
    """A line at the agent's control socket: an order as a whole, or a refusal."""
    for groups in (None, frozenset({GroupId("default", 1), GroupId("default", 2)})):
        with contextlib.suppress(UsageError, Refused, NotFound):
            request = control.Request.of(data)
            for number, make in enumerate(control.orders_of(request, groups), start=1):
                order = make(number)
                assert order.number == number
                assert not isinstance(order, Save) or order.snapshot == control.snapshot_of(request)
            if request.method == "history":
                assert 0 <= request.number("limit", control.HISTORY_LINES) <= control.MAX_NUMBER


TARGETS: Final[dict[str, Target]] = {
    each.__name__: each
    for each in (
        pdu_from_host, pdu_from_controller, structures, json_text, rpc_request, registry, rpc_replies, start_config,
        array_yaml, state, journal, heartbeats, heartbeat_slots, control_request,
    )
}  # fmt: skip
