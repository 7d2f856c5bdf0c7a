"""Each measured fault of SPDK's own client (spdk 26.9), by its name, shown to be absent here."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from spdk.rpc.client import JSONRPCAbstractClient, JSONRPCException

from controlplane.domain.errors import DeadlineExceeded, Unreachable
from dataplane.rpc.call import Call
from dataplane.rpc.errors import RpcError
from dataplane.rpc.wire import Repeated


def echo(line: Any) -> None:
    """Answer each request with its own parameters."""
    while (request := line.request()) is not None:
        line.result(request, request.get("params"))


def test_the_late_answer_of_a_timed_out_call_is_given_to_no_other(peer: Any, session: Any) -> None:
    gave_up = threading.Event()

    def slow(line: Any) -> None:
        first = line.request()
        gave_up.wait(10)
        with contextlib.suppress(OSError):  # closed: that is the point
            line.result(first, "late")

    engine = peer(slow, echo)
    with session(engine) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.call("first", {"n": 1}, deadline_s=0.05)
        gave_up.set()
        assert caught.value.code == "RPC-003"
        assert client.call("second", {"n": 2}) == {"n": 2}
    assert engine.accepted == 2


def test_a_number_is_never_used_twice_even_after_a_reconnect(peer: Any, session: Any) -> None:
    engine = peer(lambda line: line.request(), echo)
    with session(engine) as client:
        with pytest.raises(Unreachable):
            client.call("first")
        client.call("second")
    assert len({request["id"] for request in engine.requests}) == 2


def test_the_answer_to_another_number_is_not_taken(peer: Any, session: Any) -> None:
    def confused(line: Any) -> None:
        request = line.request()
        line.raw(json.dumps({"jsonrpc": "2.0", "id": request["id"] + 7, "result": "not yours"}).encode())
        line.raw(json.dumps({"jsonrpc": "2.0", "id": str(request["id"]), "result": "not yours"}).encode())
        line.result(request, "yours")

    with session(peer(confused)) as client:
        assert client.call("anything") == "yours"


def test_the_deadline_is_wall_clock_and_covers_a_dripped_reply(peer: Any, session: Any) -> None:
    never = threading.Event()
    sent = []

    def drip(line: Any) -> None:
        request = line.request()
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": "x" * 5000}).encode()
        try:
            for byte in body:
                line.raw(bytes([byte]))
                sent.append(byte)
                never.wait(0.005)
        except OSError:
            pass
        assert len(sent) < len(body), "the session waited for the whole reply"

    with session(peer(drip)) as client, pytest.raises(DeadlineExceeded):
        client.call("anything", deadline_s=0.1)
    assert sent, "bytes kept coming while the clock ran"


def test_the_deadline_covers_connecting_to_an_engine_with_a_full_backlog(short_dir: Path, session: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(short_dir / "full.sock"))
        listener.listen(0)
        waiting = []
        try:
            while True:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                waiting.append(sock)
                sock.settimeout(0.0)
                sock.connect(str(short_dir / "full.sock"))
        except BlockingIOError:
            pass
        with pytest.raises(DeadlineExceeded):
            session(short_dir / "full.sock").call("anything", deadline_s=0.05)
        for sock in waiting:
            sock.close()


def test_the_deadline_covers_the_wait_for_another_threads_call(peer: Any, session: Any) -> None:
    answer, asked = threading.Event(), threading.Event()

    def held(line: Any) -> None:
        request = line.request()
        asked.set()
        answer.wait(10)
        line.result(request, "for the first")

    client = session(peer(held))
    got: list[Any] = []
    first = threading.Thread(target=lambda: got.append(client.call("first")))
    first.start()
    asked.wait(10)
    with pytest.raises(DeadlineExceeded):
        client.call("second", deadline_s=0.05)
    answer.set()
    first.join(10)
    assert got == ["for the first"]


def test_a_character_split_between_two_reads_is_kept(peer: Any, session: Any) -> None:
    text = "Größe 驱动器 💾"

    def split(line: Any) -> None:
        request = line.request()
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": text}, ensure_ascii=False)
        for byte in body.encode("utf-8"):
            line.raw(bytes([byte]))

    with session(peer(split)) as client:
        assert client.call("anything") == text


def test_a_reply_of_several_megabytes_is_read(peer: Any, session: Any) -> None:
    devices = [{"name": f"d{n}", "aliases": ['a"\\{[', "x" * 400]} for n in range(8000)]

    def large(line: Any) -> None:
        line.result(line.request(), devices)

    with session(peer(large)) as client:
        assert client.call("bdev_get_bdevs") == devices


def test_the_callers_parameters_are_never_changed(peer: Any, session: Any) -> None:
    def refuse(line: Any) -> None:
        line.error(line.request(), -32602, "Invalid parameters")
        echo(line)

    params = {"name": "x", "uuid": None, "inner": {"a": None, "b": [1, {"c": None}]}}
    before = json.dumps(params)
    with session(peer(refuse)) as client:
        with pytest.raises(RpcError):
            client.call("bdev_get_bdevs", params)
        assert json.dumps(params) == before
        assert client.call("again", params) == {"name": "x", "inner": {"b": [1, {}]}}
    assert json.dumps(params) == before


def test_an_error_has_a_number_and_is_no_text_to_search(peer: Any, session: Any) -> None:
    def refuse(line: Any) -> None:
        line.error(line.request(), -19, "No such device")

    engine = peer(refuse)
    with session(engine, node="a") as client, pytest.raises(RpcError) as caught:
        client.call("bdev_get_bdevs", {"name": "zz"})
    error = caught.value
    assert (error.number, error.errno_name, error.method) == (-19, "ENODEV", "bdev_get_bdevs")
    assert (error.message, error.address, error.node) == ("No such device", engine.address, "a")
    assert (error.code, error.no_such_device, error.exists) == ("RPC-004", True, False)
    assert "bdev_get_bdevs failed on a: No such device" in str(error)
    assert isinstance(error, JSONRPCException), "SPDK's own helpers catch this"


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(-1, "RPC-008", ""), (-32601, "RPC-009", ""), (-17, "RPC-004", "EEXIST"), (-32602, "RPC-004", "")],
)
def test_the_number_decides_the_code(peer: Any, session: Any, number: Any, code: Any, name: Any) -> None:
    engine = peer(lambda line: line.error(line.request(), number, "no"))
    with session(engine) as client, pytest.raises(RpcError) as caught:
        client.call("anything")
    assert (caught.value.code, caught.value.errno_name) == (code, name)


def test_a_misspelt_attribute_is_no_method(session: Any) -> None:
    client = session("/nowhere")
    assert isinstance(client, JSONRPCAbstractClient)
    assert hasattr(client, "bdev_get_bdevs")
    assert not hasattr(client, "bdev_get_bdev")
    with pytest.raises(AttributeError, match="nvmf_get_subsystem'"):
        client.nvmf_get_subsystem  # noqa: B018


def test_no_logger_is_touched_and_no_secret_is_logged(peer: Any, session: Any, caplog: Any) -> None:
    handlers = list(logging.getLogger().handlers)
    secret = "NVMeTLSkey-1:01:VGhpcyBpcyBhIHNlY3JldA==:"
    with caplog.at_level(logging.DEBUG), session(peer(echo)) as client:
        client.call("nvmf_subsystem_add_host", {"nqn": "q", "psk": "hunter2", "dhchap_key": secret})
        client.call("other", {"note": f"uses {secret}"})
    assert logging.getLogger().handlers == handlers
    assert "nvmf_subsystem_add_host" in caplog.text
    assert "hunter2" not in caplog.text
    assert "VGhpcyBpcyBhIHNlY3JldA" not in caplog.text


def test_a_secret_that_the_engine_quotes_is_not_in_the_error(peer: Any, session: Any) -> None:
    def quote(line: Any) -> None:
        request = line.request()
        line.error(request, -22, f"bad key {request['params']['key']} for {request['params']['name']}")

    with session(peer(quote)) as client, pytest.raises(RpcError) as caught:
        client.call("accel_crypto_key_create", {"name": "k1", "key": "00112233445566778899"})
    shown = f"{caught.value} {caught.value!r} {caught.value.to_json()} {caught.value.message}"
    assert "0011" not in shown
    assert "bad key *** for k1" in caught.value.message


def test_a_closed_session_connects_again(peer: Any, session: Any) -> None:
    def one(line: Any) -> None:
        request = line.request()
        line.result(request, "ok")
        line.closed_by_session()

    with session(peer(one, one)) as client:
        assert client.call("first") == "ok"
        client.close()
        client.close()
        assert client.call("second") == "ok"
        assert client.generation == 2


def test_repeated_names_are_kept(peer: Any, session: Any) -> None:
    def health(line: Any) -> None:
        request = line.request()
        body = (
            f'{{"jsonrpc":"2.0","id":{request["id"]},"result":'
            '{"temperature_sensor_celsius":40,"a":1,"temperature_sensor_celsius":41}}'
        )
        line.raw(body.encode())

    with session(peer(health)) as client:
        found = client.run(Call("bdev_nvme_get_controller_health_info", {"name": "d0"}))
    assert found == {"temperature_sensor_celsius": [40, 41], "a": 1}
    assert isinstance(found["temperature_sensor_celsius"], Repeated)
