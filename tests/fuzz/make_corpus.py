"""Writes the seeds of the corpus: small inputs that our own codecs make, so that a fuzzer begins behind the door.

Deterministic: ``python tests/fuzz/make_corpus.py`` changes nothing that is up to date.  Files whose names begin
with ``found-`` are findings; they are never touched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Final

from fuzz_targets import HEARS

from controlplane.domain.state import State
from controlplane.spec.load import load
from controlplane.store import codec
from dataplane.nvme import commands, fabrics, identify, logs, pdu, reservations
from dataplane.nvme.commands import Command, Completion
from ha import heartbeat, slots
from ha.journal import record, snapshot, strict
from ha.keys import array_prefix
from ha.model import GroupId, GroupMap, Leg, ListenerAt, MirrorMap, NamespaceMap, Record, ServiceMap

CORPUS: Final = Path(__file__).parent / "corpus"
_ROOT: Final = Path(__file__).resolve().parents[2]
BOTH: Final = pdu.Digests(header=True, data=True)


def join(pieces: list[pdu.Raw]) -> bytes:
    return b"".join(pieces)


def from_host(agreed: pdu.Digests) -> bytes:
    """Connect, a read, a write in the capsule, data for an R2T, and the end of the session."""
    connect = fabrics.connect(0, 32, 10_000)
    write = commands.write(1, 0, 1, 512).with_data(512, in_capsule=True)
    return b"".join(
        [
            join(pdu.capsule_cmd(connect, fabrics.ConnectData(subnqn="nqn.a", hostnqn="nqn.b").pack(), agreed)),
            join(pdu.capsule_cmd(commands.read(1, 0, 8, 512).with_cid(1), b"", agreed)),
            join(pdu.capsule_cmd(write.with_cid(2), bytes(512), agreed, 16)),
            join(pdu.h2c_data(pdu.H2CData(3, 3, 0, b"d" * 64, last=False), agreed)),
            join(pdu.h2c_data(pdu.H2CData(3, 3, 64, b"e" * 4, last=True), agreed)),
            pdu.TermReq(from_host=True, fes=1, fei=4, header=bytes(8)).pack(),
        ]
    )


def from_controller(agreed: pdu.Digests) -> bytes:
    """Data, a completion, an R2T, and the end of the session."""
    return b"".join(
        [
            join(pdu.c2h_data(pdu.C2HData(1, 0, b"d" * 512, last=True, success=True), agreed)),
            pdu.capsule_resp(Completion(cdw0=1, cid=2, status=4), agreed),
            pdu.r2t(pdu.R2T(3, 1, 0, 8192), agreed),
            pdu.TermReq(from_host=False, fes=2, header=bytes(24)).pack(),
        ]
    )


def sessions(stream: bytes, with_digests: bytes) -> dict[str, bytes]:
    """How a stream is cut, and with what agreed, stands in the first byte (``fuzz_targets``)."""
    return {"whole": b"\xf9" + stream, "bytes": b"\x01" + stream, "digests": b"\x0f" + with_digests, "raw": b"\x08"}


def payloads() -> dict[str, bytes]:
    ana = logs.AnaLog(3, (logs.AnaGroup(1, 1, (1, 2), 1), logs.AnaGroup(2, 3, (), 2)))
    host = reservations.Registrant(1, holder=True, host_id=b"h" * 16, key=7)
    short = reservations.Registrant(1, holder=False, host_id=b"h" * 8, key=7)
    report = reservations.ReservationReport(2, 6, persist=True, registrants=(host,))
    return {
        "command": Command(2, nsid=1, length=4096, sgl_type=0x5A).pack(),
        "connect": fabrics.ConnectData(b"h" * 16, 1, "nqn.a", "nqn.b").pack(),
        "ana": ana.pack(),
        "report-long": report.pack(extended=True),
        "report-short": reservations.ReservationReport(2, 6, persist=False, registrants=(short,)).pack(extended=False),
        "namespace-ids": identify.NamespaceIds(b"e" * 8, b"n" * 16, b"u" * 16).pack()[:64],
        "nsids": identify.nsid_list([1, 2, 9])[:16],
        "ranges": commands.deallocate(1, [(0, 8), (64, 8)])[1],
    }


def requests() -> dict[str, bytes]:
    texts = {
        "plain": '{"jsonrpc":"2.0","id":1,"method":"bdev_get_bdevs","params":{"name":"m0"}}',
        "batch": '[{"id":"a","method":"spdk_get_version"},{"id":1.5e3,"method":"x","params":[]},3]',
        "twice": '{"id":1,"id":2,"method":"x"}',
        "strange": '{"id":-0,"method":"\\u0000\\ud83d\\ude00","params":{"a":1e999,"b":[[[[]]]]}}',
        "lone": '{"id":1,"method":"\\ud800"}',
        "huge": '{"id":' + "9" * 400 + ',"method":"x"}',
        "deep": "[" * 70,
        "comment": '// x\n{"id":1, /* y */ "method":"x"}',
    }
    return {name: text.encode() for name, text in texts.items()}


def parameters() -> dict[str, bytes]:
    values: dict[str, object] = {
        "bdev": {"name": "m0", "num_blocks": 64, "block_size": 512, "uuid": "11111111-2222-4333-8444-555555555555"},
        "listener": {
            "nqn": "nqn.2016-06.io.spdk:a", "ana_state": "optimized", "anagrpid": 1,
            "listen_address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"},
        },
        "namespace": {"nqn": "nqn.2016-06.io.spdk:a", "namespace": {"bdev_name": "m0", "nsid": 1, "nguid": "0" * 32}},
        "raid": {"name": "r", "raid_level": "raid1", "base_bdevs": ["a", "b"], "strip_size_kb": 64},
        "numbers": {"nsid": -1, "rw_mbytes_per_sec": 2**64, "timeout": 1.5, "enable": 1},
        "list": [1, "a", None, True],
    }  # fmt: skip
    return {name: json.dumps(value).encode() for name, value in values.items()}


def configurations() -> dict[str, bytes]:
    calls = {"subsystem": "bdev", "config": [{"method": "bdev_malloc_create", "params": {"name": "m0"}}]}
    return {
        "sound": json.dumps({"subsystems": [calls, {"subsystem": "nvmf", "config": None}]}).encode(),
        "batch": b'// calls\n{"subsystems":[{"subsystem":"bdev","config":[[{"method":"a"},{"method":"b"}]]}]}',
        "cut": b'{"subsystems":[{"subsystem":',
    }


def arrays() -> dict[str, bytes]:
    found = {path.stem: path.read_bytes() for path in sorted((_ROOT / "examples").glob("*.yaml"))}
    return found | {"anchors": b"a: &a [1, 2]\nb: *a\nc: {<<: *a}\n", "escape": b'name: "\\ud800"\n', "bad": b"\xff: 1"}


def states() -> dict[str, bytes]:
    array = load((_ROOT / "examples/laptop.yaml").read_text(), base=Path("/srv")).array
    encoded = codec.encode(State(array=array, uuid="11111111-2222-4333-8444-555555555555"))
    return {"empty": encoded, "body": encoded.split(b"\n")[1], "head": encoded.split(b"\n")[0]}


def journals() -> dict[str, bytes]:
    groups = {GroupId("default", 1): GroupMap(nqn="nqn.2014-08.test:s", listeners={"a": (ListenerAt(
        transport="tcp", address="192.0.2.1", service=4420),)}, namespaces=(
        NamespaceMap(nsid=1, volume="v", bare=("d0",)),
        NamespaceMap(nsid=2, volume="w", mirrors=(MirrorMap(name="vol-w.m0", legs=(Leg(bdev="d0n1p1", drive="d0"),)),)),
    ))}  # fmt: skip
    service = ServiceMap(array_uuid="u", generation=3, quorum=("d0",), block_bytes={"d0": 4096}, groups=groups)
    whole = strict.canonical({"map": snapshot.map_to_json(service), "state": "text"})
    encoded = record.encode(
        Record(
            array_uuid="u", epoch=2, sequence=5, leader="b", owners={GroupId("default", 1): "a"},
            members={"a": 1, "b": 2}, failed=frozenset({"d1"}), resync=frozenset({GroupId("default", 2)}),
            evictions={"a": 1}, snapshot=snapshot.located(whole, 1, 3),
        ),
        record.NO_PREVIOUS,
    )  # fmt: skip
    body = encoded[encoded.index(b"{") :].rstrip(b"\0")
    # Not packed: another zlib writes other bytes.
    return {"record": encoded, "record-body": body, "snapshot-body": whole}


def beats() -> dict[str, bytes]:
    """Bodies of datagrams: a fuzzer does not find signatures, and nothing is packed (see ``journals``)."""
    said = strict.canonical({
        "node": "b", "version": 1, "phase": "member", "key": 7, "at": [2, 5], "leader": "b",
        "members": {"a": 1, "b": 7}, "releases": [["default", 1, 4]], "silent": ["d1"],
    })  # fmt: skip
    codec = heartbeat.Codec("array", bytes(heartbeat.SECRET_BYTES))
    ends = b"\4\x11\x44" + bytes(4) + b"\4\1\1" + bytes(4)
    frame = heartbeat.Frame(node="b", boot=22, sequence=9, path="p0", piece=said, greets=((HEARS, 1),))
    frames = {
        "says": frame,
        "acknowledges": replace(frame, hears=HEARS, heard={"p0": 1, "p1": 1}, greets=()),
        "piece": replace(frame, part=1, parts=3, edition=4),
        "connections": replace(frame, kind=heartbeat.Kind.CONNECTIONS, piece=ends),
    }
    signature = len(codec.signed(b""))
    bodies = {name: codec.encode(each)[:-signature] for name, each in frames.items()}
    return bodies | {"signed": codec.encode(frame), "said": said, "told": ends}


def node_slots() -> dict[str, bytes]:
    slot = slots.Slot(array=array_prefix("array"), node="b", key=7, counter=3, at=(2, 5))
    whole = slots.encode(slot)
    return {"block": whole, "body": whole[12:].rstrip(b"\0"), "cut": whole[:100]}


def orders() -> dict[str, bytes]:
    made: dict[str, dict[str, object]] = {
        "status": {}, "history": {"limit": 5}, "switchover": {"to": "b", "subsystem": "default"}, "failback": {},
        "save": {"expects": 1, "generation": 2, "snapshot_b64": "c25hcA==", "form": True}, "repaired": {"drive": "d1"},
        "takeover": {"peer_is_off": True}, "learn": {"snapshot_b64": "?"}, "built": {"generation": 1 << 70},
    }  # fmt: skip
    return {name: strict.canonical({"method": name, "params": params}) for name, params in made.items()}


def seeds() -> dict[str, dict[str, bytes]]:
    texts = requests()
    return {
        "pdu_from_host": sessions(from_host(pdu.NO_DIGESTS), from_host(BOTH)),
        "pdu_from_controller": sessions(from_controller(pdu.NO_DIGESTS), from_controller(BOTH)),
        "structures": payloads(),
        "json_text": {name: bytes([1 + 4 * (at % 3)]) + text for at, (name, text) in enumerate(texts.items())},
        "rpc_request": texts,
        "registry": parameters(),
        "rpc_replies": {
            "sound": b'\x07{"jsonrpc":"2.0","id":1,"result":[]}\n{"jsonrpc":"2.0","id":2,"error":{"code":-1}}',
            "stray": b'\x00{"id":99,"result":true}{"id":null,"error":{}}',
        },
        "start_config": configurations(),
        "array_yaml": arrays(),
        "state": states(),
        "journal": journals(),
        "heartbeats": beats(),
        "heartbeat_slots": node_slots(),
        "control_request": orders(),
    }


def main() -> None:
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if old.name not in inputs and not old.name.startswith("found-"):
                old.unlink()
        for name, data in inputs.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
