"""``bdev_nvme_send_cmd``: one command to a drive as it stands, and what is wrong in a call."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from node_lab import BLOCK, DRIVE, LONG_DELAY, NodeLab, Seen, pattern

from dataplane.launch import EngineProcess
from dataplane.nvme import commands
from dataplane.nvme.commands import AdminOp, Cns, Command, Completion, Feature, IoOp
from dataplane.nvme.status import Status

INVALID, INTERNAL = -32602, -32603
GONE = "No such device or address"
FLUSH = commands.flush(1)


@pytest.fixture
def lab(engine: Any, other: Any) -> Iterator[NodeLab]:
    made = NodeLab(engine, other)
    yield made
    made.close()


@pytest.fixture
def drive(lab: NodeLab) -> NodeLab:
    """Attached and exported, so that the node has an I/O queue to it."""
    lab.attach(*lab.paths("optimized"))
    return lab


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def call(command: Command = FLUSH, **more: Any) -> dict[str, Any]:
    """The parameters; in this order, which matters to a data length."""
    return {"name": "d0", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": text(command.pack()), **more}


def completion(answer: dict[str, str]) -> Completion:
    return Completion.parse(base64.urlsafe_b64decode(answer["cpl"]))


def send(lab: NodeLab, command: Command, **more: Any) -> tuple[Completion, dict[str, bytes]]:
    """The completion, and everything else that is answered."""
    answer = lab.node.rpc("bdev_nvme_send_cmd", **call(command, **more))
    parts = {name: base64.urlsafe_b64decode(value) for name, value in answer.items()}
    return Completion.parse(parts.pop("cpl")), parts


def only_embedded(lab: NodeLab, why: str = "SPDK v26.05 ends when the queue is gone") -> None:
    if lab.node.kind != "embedded":
        pytest.skip(why)


class Wire:
    """A connection to the node on which several calls are under way; they are begun in their order."""

    def __init__(self, lab: NodeLab) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(lab.node.process.socket))
        self.rest = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, number: int, method: str, params: dict[str, Any]) -> None:
        request = {"jsonrpc": "2.0", "id": number, "method": method, **({"params": params} if params else {})}
        self.socket.sendall(json.dumps(request).encode())

    def receive(self) -> dict[str, Any]:
        """The next answer."""
        while True:
            try:
                answer, end = json.JSONDecoder().raw_decode(self.rest)
            except json.JSONDecodeError:
                self.rest = (self.rest + self.socket.recv(1 << 16).decode()).lstrip()
            else:
                self.rest = self.rest[end:].lstrip()
                return dict(answer)

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.send(0, method, params)
        return self.receive()


# -- what goes and what comes


@pytest.mark.parametrize("blocks", [1, 7, 8, 16, 17, 256])
def test_data_of_every_size_goes_and_comes(drive: NodeLab, blocks: int) -> None:
    data = pattern("sizes", blocks)
    done, parts = send(drive, commands.write(1, 3, blocks, BLOCK), data=text(data))
    assert (done.code, parts) == (0, {})
    done, parts = send(drive, commands.read(1, 3, blocks, BLOCK), data_direction="c2h", data_len=len(data))
    assert (done.code, parts) == (0, {"data": data})


@pytest.mark.parametrize("size", [4, 512, 4096])
def test_an_admin_command_fetches_as_much_as_it_asks_for(drive: NodeLab, size: int) -> None:
    command = commands.identify(Cns.CONTROLLER)
    whole = send(drive, command, cmd_type="admin", data_direction="c2h", data_len=4096)[1]["data"]
    assert whole[4:7] == b"SN1"
    page = commands.get_log_page(commands.LogId.ANA, size)
    done, parts = send(drive, page, cmd_type="admin", data_direction="c2h", data_len=size)
    assert (done.code, len(parts["data"])) == (0, size)


def test_an_admin_command_brings_a_result(drive: NodeLab) -> None:
    done, parts = send(drive, commands.get_features(Feature.NUMBER_OF_QUEUES), cmd_type="admin")
    assert (done.code, parts) == (0, {})
    assert done.cdw0 & 0xFFFF


def test_the_opcode_says_which_way_the_data_goes(drive: NodeLab) -> None:
    """The direction of a call decides only whether the buffer is shown afterwards."""
    data = pattern("ways")
    done, parts = send(drive, commands.write(1, 0, 1, BLOCK), data_direction="c2h", data=text(data))
    assert (done.code, parts) == (0, {"data": data})
    done, parts = send(drive, commands.read(1, 0, 1, BLOCK), data_len=BLOCK)
    assert (done.code, parts) == (0, {})
    done, parts = send(drive, commands.read(1, 0, 1, BLOCK), data_direction="c2h", data=text(bytes(BLOCK)))
    assert (done.code, parts) == (0, {"data": data})
    done, parts = send(drive, FLUSH, data_direction="c2h", data=text(data))
    assert (done.code, parts) == (0, {"data": data})


def test_metadata_is_given_back_as_it_came(drive: NodeLab) -> None:
    """Over fabrics there is no separate metadata."""
    md = text(b"metadata")
    done, parts = send(drive, commands.write(1, 0, 1, BLOCK), data=text(pattern("m")), metadata=md)
    assert (done.code, parts) == (0, {})
    more = {"data_direction": "c2h", "data_len": BLOCK}
    done, parts = send(drive, commands.read(1, 0, 1, BLOCK), **more, metadata=md)
    assert (done.code, parts) == (0, {"data": pattern("m"), "metadata": b"metadata"})
    done, parts = send(drive, commands.read(1, 0, 1, BLOCK), **more, metadata_len=16)
    assert (done.code, parts["data"], len(parts["metadata"])) == (0, pattern("m"), 16)


def test_a_deadline_is_ignored(drive: NodeLab) -> None:
    held = {"cmd_type": "admin", "opc": AdminOp.GET_FEATURES, "do_not_submit": True, "timeout_in_us": 20_000}
    drive.inject(**held, sc=Status.INVALID_FIELD)
    command = commands.get_features(Feature.NUMBER_OF_QUEUES)
    assert send(drive, command, cmd_type="admin", timeout_ms=1)[0].code == Status.INVALID_FIELD
    assert send(drive, command, cmd_type="admin", timeout_ms=0)[0].code == 0


def test_an_injected_answer_is_not_tried_again(drive: NodeLab) -> None:
    """A raw command has no retries, whatever ``bdev_retry_count`` says."""
    drive.inject(AdminOp.IDENTIFY, cmd_type="admin", sct=3, sc=1)
    identify = commands.identify(Cns.CONTROLLER)
    codes = [send(drive, identify, cmd_type="admin", data_direction="c2h", data_len=4096)[0].code for _ in range(2)]
    assert codes == [Status.ANA_PERSISTENT_LOSS, 0]


def test_errors_injected_into_the_queue_of_the_node_meet_raw_commands_too(drive: NodeLab) -> None:
    only_embedded(drive, "SPDK sends raw commands over a queue of their own")
    drive.inject(IoOp.WRITE, sct=3, sc=1)
    command = commands.write(1, 9, 1, BLOCK)
    codes = [send(drive, command, data=text(pattern("x")))[0].code for _ in range(2)]
    assert codes == [Status.ANA_PERSISTENT_LOSS, 0]


@pytest.mark.parametrize(
    ("kind", "command", "code"),
    [
        ("io", commands.read(1, 1 << 40, 1, BLOCK), Status.LBA_OUT_OF_RANGE),
        ("io", commands.read(9, 0, 1, BLOCK), Status.INVALID_NAMESPACE),
        ("io", Command(0x7E, nsid=1), Status.INVALID_OPCODE),
        ("admin", Command(0x66), Status.INVALID_OPCODE),
        ("admin", commands.identify(0xEE), Status.INVALID_FIELD),
        ("admin", commands.get_features(0xEE), Status.INVALID_FIELD),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_nvme_error_stands_in_the_completion(drive: NodeLab, kind: str, command: Command, code: Status) -> None:
    done, parts = send(drive, command, cmd_type=kind, data_direction="c2h", data_len=4096 if kind == "admin" else BLOCK)
    assert done.code == code
    assert len(parts["data"]) in (BLOCK, 4096)


def test_the_second_half_of_a_fused_pair_alone(drive: NodeLab) -> None:
    pair = commands.fused(commands.compare(1, 0, 1, BLOCK), commands.write(1, 0, 1, BLOCK))
    assert send(drive, pair[1], data=text(pattern("f")))[0].code == Status.ABORTED_MISSING_FUSED
    assert send(drive, FLUSH)[0].code == 0


def test_both_halves_of_a_fused_pair(drive: NodeLab) -> None:
    """Two calls on one connection are sent to the drive in their order."""
    only_embedded(drive, "SPDK v26.05 answers neither half when the queue was made for them")
    assert send(drive, commands.write(1, 0, 1, BLOCK), data=text(pattern("before")))[0].code == 0
    pair = commands.fused(commands.compare(1, 0, 1, BLOCK), commands.write(1, 0, 1, BLOCK))
    halves = zip(pair, (pattern("before"), pattern("after")), strict=True)
    with Wire(drive) as wire:
        for number, (half, data) in enumerate(halves):
            wire.send(number, "bdev_nvme_send_cmd", call(half, data=text(data)))
        codes = {each["id"]: completion(each["result"]).code for each in (wire.receive(), wire.receive())}
    assert codes == {0: 0, 1: 0}
    assert send(drive, commands.read(1, 0, 1, BLOCK), data_direction="c2h", data_len=BLOCK)[1] == {
        "data": pattern("after")
    }


# -- what is wrong in a call


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "zz"},
        {"name": None},
        {"name": 5},
        {"cmd_type": "both"},
        {"data_direction": "up"},
        {"cmdbuf": text(bytes(63))},
        {"cmdbuf": text(bytes(65))},
        {"cmdbuf": ""},
        {"cmdbuf": 7},
        {"cmdbuf": text(FLUSH.pack()).rstrip("=")},
        {"cmdbuf": "+" * 85 + "A=="},
        {"cmdbuf": " " + text(FLUSH.pack())},
        {"cmdbuf": "=" + text(FLUSH.pack())[1:]},
        {"data": ""},
        {"data": "A"},
        {"data": "AAA"},
        {"data": "A==="},
        {"data": "AA=A"},
        {"data": "AA/A"},
        {"data": "ÄAAA"},
        {"data": "QUFB", "data_len": 4},
        {"data_len": 4, "data": "QUFB"},
        {"data": "QUE=", "data_len": 3},
        {"data_len": 2, "data": "QUE="},
        {"data": "QUFB", "data_len": 0},
        {"metadata": "A"},
        {"metadata": "QUFB", "metadata_len": 4},
        {"metadata_len": 4, "metadata": "QUFB"},
        {"metadata_len": 0},
        {"metadata_len": 0, "metadata": "QUFB"},
        {"data_len": -1},
        {"data_len": 1 << 32},
        {"timeout_ms": "1"},
        {"timeout_ms": -1},
        {"surplus": 1},
    ],
    ids=str,
)
def test_a_call_that_does_not_decode(drive: NodeLab, wrong: dict[str, Any]) -> None:
    given = {name: value for name, value in call(**wrong).items() if value is not None}
    assert drive.node.number("bdev_nvme_send_cmd", **given) == INVALID


@pytest.mark.parametrize(
    "given",
    [
        {"data": "QUFB", "data_len": 3},
        {"data_len": 3, "data": "QUFB"},
        {"data": "QUE=", "data_len": 2},
        {"data_len": 3, "data": "QUE="},
        {"data_len": 0, "data": "QUE="},
        {"data_len": 0},
    ],
    ids=str,
)
def test_a_length_that_agrees_with_the_data(drive: NodeLab, given: dict[str, Any]) -> None:
    """A length before the data is compared with that of the text, padding and all; one after it with the true one."""
    assert send(drive, FLUSH, **given)[0].code == 0


# -- a drive that is not there


def test_an_admin_command_to_a_lost_drive(lab: NodeLab) -> None:
    (port,) = lab.paths("optimized")
    lab.attach(port, **LONG_DELAY)

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, port)
        await seen.states("reconnect_is_delayed")
        given = call(commands.identify(Cns.CONTROLLER), cmd_type="admin", data_direction="c2h", data_len=4096)
        assert await seen.call(lab.node.number, "bdev_nvme_send_cmd", **given) == INTERNAL

    lab.play(story)


@pytest.mark.parametrize(("delay", "state"), [(LONG_DELAY, "reconnect_is_delayed"), ({}, "failed")])
def test_an_io_command_to_a_lost_drive_is_refused(lab: NodeLab, delay: dict[str, Any], state: str) -> None:
    only_embedded(lab)
    (port,) = lab.paths("optimized")
    lab.attach(port, **(delay or {"ctrlr_loss_timeout_sec": 0, "reconnect_delay_sec": 0}))

    async def story(seen: Seen) -> None:
        await seen.call(lab.lose, port)
        await seen.states(state)
        with pytest.raises(Exception, match=GONE):
            await seen.rpc("bdev_nvme_send_cmd", **call())
        await seen.call(lab.bring_back, port)
        if delay:
            assert await seen.rpc("bdev_nvme_reset_controller", name="d0") is True
        await seen.states("enabled")
        assert (await seen.call(send, lab, FLUSH))[0].code == 0

    lab.play(story)


def test_an_io_command_to_a_disabled_drive_is_refused(drive: NodeLab) -> None:
    only_embedded(drive)
    drive.node.rpc("bdev_nvme_disable_controller", name="d0")
    assert drive.node.number("bdev_nvme_send_cmd", **call()) == INTERNAL
    drive.node.rpc("bdev_nvme_enable_controller", name="d0")
    assert send(drive, FLUSH)[0].code == 0


def test_a_drive_that_is_lost_under_a_command(lab: NodeLab) -> None:
    """The command ends with the status that a driver gives: aborted with its queue; whoever sent it may repeat it."""
    only_embedded(lab)
    (port,) = lab.paths("optimized")
    lab.attach(port)
    lab.slow(2)

    async def story(seen: Seen) -> None:
        ahead = await seen.begin(*range(0, 32 * 128, 128), blocks=128)
        await seen.until(lambda: lab.written() > 0)
        with Wire(lab) as wire:
            command = commands.write(1, 8000, 128, BLOCK)
            wire.send(1, "bdev_nvme_send_cmd", call(command, data=text(pattern("raw", 128))))
            wire.send(2, "spdk_get_version", {})
            assert (await seen.call(wire.receive))["id"] == 2
            await seen.call(lab.lose, port)
            answer = await seen.call(wire.receive)
        done = completion(answer["result"])
        assert (done.code, done.dnr) == (Status.ABORTED_SQ_DELETION, False)
        await seen.call(lab.slow, 0)
        await seen.call(lab.bring_back, port)
        assert await asyncio.gather(*ahead) == [0] * 32

    lab.play(story)


def test_a_shelf_that_died_just_before(lab: NodeLab, tmp_path: Path) -> None:
    only_embedded(lab)
    process = EngineProcess.start(lab.node.kind, tmp_path / "s.sock").ready()
    shelf = type(lab.node)(process)
    shelf.malloc("m1")
    port = shelf.serve(DRIVE, "m1")
    lab.attach(port, export=False)
    process.kill()
    with Wire(lab) as wire:
        while "error" not in (answer := wire.ask("bdev_nvme_send_cmd", call())):
            assert completion(answer["result"]).code == Status.ABORTED_SQ_DELETION
    assert (answer["error"]["code"], answer["error"]["message"]) == (INTERNAL, GONE)
    assert lab.node.rpc("spdk_get_version")
    shelf.stop()
