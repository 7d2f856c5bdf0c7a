"""Pipelines, generations, doubt, schema choice: what the session promises beyond the official client."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
from spdk.rpc import config

from controlplane.domain.errors import Conflict, DeadlineExceeded, EngineError, Unreachable
from dataplane.rpc import session as session_module
from dataplane.rpc.call import Call
from dataplane.rpc.errors import GenerationChanged, ReplyError, RpcError, SchemaError
from dataplane.rpc.methods import bdev, framework
from dataplane.rpc.session import AUTOMATIC, WINDOW_CALLS, Session

VERSION = {"version": "SPDK v26.05", "fields": {"major": 26, "minor": 5, "patch": 0, "suffix": ""}}


def echo(line: Any) -> None:
    while (request := line.request()) is not None:
        line.result(request, request.get("params"))


def engine_of(version: Any) -> Any:
    """Answers spdk_get_version with ``version`` and echoes the rest."""

    def script(line: Any) -> None:
        while (request := line.request()) is not None:
            line.result(request, version if request["method"] == "spdk_get_version" else request.get("params"))

    return script


def test_a_pipeline_is_sent_at_once_and_answered_in_any_order(peer: Any, session: Any) -> None:
    def backwards(line: Any) -> None:
        requests = [line.request() for _ in range(24)]
        for request in reversed(requests):
            line.result(request, request["params"]["n"])

    with session(peer(backwards)) as client:
        assert client.pipeline([Call("m", {"n": n}) for n in range(24)]) == list(range(24))
        assert client.pipeline([]) == []


def test_a_pipeline_keeps_within_its_window_of_calls(peer: Any, session: Any) -> None:
    def careful(line: Any) -> None:
        requests = [line.request() for _ in range(WINDOW_CALLS)]
        assert line.nothing_more()
        for request in requests:
            line.result(request, request["params"]["n"])
        echo(line)

    with session(peer(careful)) as client:
        outcomes = client.pipeline([Call("m", {"n": n}) for n in range(WINDOW_CALLS + 36)])
    assert outcomes == [*range(WINDOW_CALLS), *({"n": n} for n in range(WINDOW_CALLS, WINDOW_CALLS + 36))]


def test_a_pipeline_keeps_within_its_window_of_bytes(peer: Any, session: Any) -> None:
    def careful(line: Any) -> None:
        for _ in range(3):
            request = line.request()
            assert line.nothing_more()
            line.result(request, request["params"]["n"])

    long = "x" * 100_000
    with session(peer(careful)) as client:
        assert client.pipeline([Call("m", {"n": n, "pad": long}) for n in range(3)]) == [0, 1, 2]


def test_both_directions_move_at_once(peer: Any, session: Any) -> None:
    def stubborn(line: Any) -> None:
        first = line.request()
        line.result(first, "y" * 3_000_000)  # blocks until the session reads, while it still wants to send
        echo(line)

    calls = [Call("m", {"n": 0}), *(Call("m", {"pad": "x" * 60_000}) for _ in range(8))]
    with session(peer(stubborn)) as client:
        outcomes = client.pipeline(calls)
    assert len(outcomes[0]) == 3_000_000
    assert outcomes[1:] == [call.params for call in calls[1:]]


def test_the_outcomes_of_a_broken_pipeline_are_told_apart(peer: Any, session: Any) -> None:
    def breaks(line: Any) -> None:
        requests = [line.request() for _ in range(4)]
        line.error(requests[1], -19, "No such device")
        line.result(requests[0], "ok")
        line.result(requests[3], "no array")

    calls = [Call("m"), Call("m"), Call("lost"), bdev.get_bdevs()]
    with session(peer(breaks)) as client:
        good, refused, lost, odd = client.pipeline(calls)
    assert good == "ok"
    assert isinstance(refused, RpcError)
    assert isinstance(lost, Unreachable)
    assert (lost.code, lost.details["method"]) == ("RPC-002", "lost")
    assert isinstance(odd, ReplyError)


def test_run_all_raises_the_first_error(peer: Any, session: Any) -> None:
    def refuse(line: Any) -> None:
        requests = [line.request() for _ in range(3)]
        for request in requests:
            line.error(request, -request["params"]["n"], "no")

    with session(peer(refuse)) as client, pytest.raises(RpcError) as caught:
        client.run_all([Call("m", {"n": n}) for n in (17, 19, 22)])
    assert caught.value.errno_name == "EEXIST"


def test_a_late_pipeline_says_so_for_each_unanswered_call(peer: Any, session: Any) -> None:
    def half(line: Any) -> None:
        requests = [line.request() for _ in range(2)]
        line.result(requests[1], "ok")
        line.closed_by_session()

    with session(peer(half)) as client:
        late, good = client.pipeline([Call("slow"), Call("quick")], 0.1)
    assert isinstance(late, DeadlineExceeded)
    assert good == "ok"


def test_the_generation_rises_with_each_connection(peer: Any, session: Any) -> None:
    def once(line: Any) -> None:
        line.result(line.request(), "ok")

    engine = peer(once, once)
    with session(engine) as client:
        assert client.generation == 0
        assert client.connect() == 1
        assert client.connect() == 1
        assert client.call("first") == "ok"
        engine.wait_for_end()
        assert client.call("second") == "ok", "the engine closed the idle connection; nothing was lost"
        assert client.generation == 2


def test_a_call_that_names_another_generation_is_not_sent(peer: Any, session: Any) -> None:
    def once(line: Any) -> None:
        line.result(line.request(), "ok")

    engine = peer(once, echo)
    with session(engine) as client:
        client.call("observe", if_generation=1)
        engine.wait_for_end()
        with pytest.raises(GenerationChanged) as caught:
            client.call("act", if_generation=1)
    assert isinstance(caught.value, Conflict)
    assert (caught.value.code, caught.value.expected, caught.value.actual) == ("RPC-006", 1, 2)
    assert engine.methods == ["observe"]


def test_bytes_that_come_unasked_are_no_answer(peer: Any, session: Any) -> None:
    unasked = threading.Event()

    def chatty(line: Any) -> None:
        first = line.request()
        line.result(first, "ok")
        line.raw(json.dumps({"jsonrpc": "2.0", "id": first["id"] + 1, "result": "forged"}).encode())
        unasked.set()
        line.closed_by_session()

    with session(peer(chatty, echo)) as client:
        assert client.call("first") == "ok"
        unasked.wait(10)
        assert client.call("second", {"n": 2}) == {"n": 2}


def test_a_line_feed_that_comes_after_its_answer_is_no_doubt(peer: Any, session: Any) -> None:
    sent = threading.Event()

    def two_parts(line: Any) -> None:
        first = line.request()
        line.raw(json.dumps({"jsonrpc": "2.0", "id": first["id"], "result": "ok"}).encode())
        done.wait(10)
        line.raw(b"\n")
        sent.set()
        echo(line)

    done = threading.Event()
    with session(peer(two_parts)) as client:
        assert client.call("first") == "ok"
        done.set()
        sent.wait(10)
        assert client.call("second", {"n": 2}) == {"n": 2}
        assert client.generation == 1


def test_a_version_with_a_stray_answer_beside_it_is_not_built_on(peer: Any, session: Any) -> None:
    def odd(line: Any) -> None:
        request = line.request()
        both = [{"id": request["id"], "result": VERSION}, {"id": 10**6, "result": 1}]
        line.raw(json.dumps(both).encode())
        line.closed_by_session()

    engine = peer(odd, engine_of(VERSION))
    with session(engine, schema=AUTOMATIC) as client:
        with pytest.raises(EngineError) as caught:
            client.call("bdev_get_bdevs")
        assert caught.value.code == "RPC-005"
        client.call("bdev_get_bdevs")
    assert engine.methods == ["spdk_get_version", "spdk_get_version", "bdev_get_bdevs"]


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"id":1,"result":\xff}', b'{"a":1}', b"[1]", b'{"id":1]}'],
)
def test_garbage_closes_the_connection_and_is_coded(peer: Any, session: Any, garbage: Any) -> None:
    def talks(line: Any) -> None:
        line.request()
        line.raw(garbage)
        line.closed_by_session()

    with session(peer(talks, echo)) as client:
        with pytest.raises(EngineError) as caught:
            client.call("first")
        assert caught.value.code == "RPC-005"
        assert client.call("second", {"n": 2}) == {"n": 2}


def test_a_request_that_the_engine_cannot_read_is_coded(peer: Any, session: Any) -> None:
    def lost(line: Any) -> None:
        line.request()
        line.raw(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}')

    with session(peer(lost)) as client, pytest.raises(EngineError) as caught:
        client.call("first")
    assert caught.value.code == "RPC-005"


def test_a_lost_connection_is_not_sent_again(peer: Any, session: Any) -> None:
    engine = peer(lambda line: line.request(), echo)
    with session(engine) as client, pytest.raises(Unreachable) as caught:
        client.call("bdev_null_create", {"name": "n"})
    assert caught.value.code == "RPC-002"
    assert engine.methods == ["bdev_null_create"]
    with session(engine) as client:
        client.call("go on")


def test_killing_the_engine_needs_no_answer(peer: Any, session: Any) -> None:
    with session(peer(lambda line: line.request())) as client:
        assert client.run(framework.kill_instance("SIGKILL")) is None


def test_an_engine_that_is_not_there(session: Any, short_dir: Any) -> None:
    with pytest.raises(Unreachable) as caught:
        session(short_dir / "no.sock", node="b").call("anything")
    assert caught.value.code == "RPC-001"
    assert "No such file" in str(caught.value)
    assert caught.value.where == "b"


def test_a_tcp_engine(peer: Any, session: Any) -> None:
    engine = peer(echo, tcp=True)
    with session(engine) as client:
        assert client.call("m", {"n": 1}) == {"n": 1}
        assert client.address == f"127.0.0.1:{engine.address[1]}"
    assert Session(("fd00::1", 5260)).address == "[fd00::1]:5260"


def test_a_host_name_is_refused_because_its_look_up_has_no_deadline(session: Any) -> None:
    with pytest.raises(Unreachable, match="not a numeric IP address"):
        session(("engine.example", 5260)).call("anything")


def test_the_schema_follows_the_engines_version_and_is_asked_once(peer: Any, session: Any) -> None:
    engine = peer(engine_of(VERSION))
    with session(engine, schema=AUTOMATIC) as client:
        assert client.version().minor == 5
        assert client.call("bdev_get_bdevs", {"name": "x"}) == {"name": "x"}
        with pytest.raises(SchemaError) as caught:
            client.call("nvmf_create_subsystem", {"nqn": "q", "admin_label": "x"})
        client.call("bdev_get_bdevs")
    assert caught.value.code == "RPC-011"
    assert engine.methods == ["spdk_get_version", "spdk_get_version", "bdev_get_bdevs", "bdev_get_bdevs"]


def test_a_newer_engine_gets_the_newer_schema(peer: Any, session: Any) -> None:
    newer = {"version": "SPDK v26.09", "fields": {"major": 26, "minor": 9}}
    with session(peer(engine_of(newer)), schema=AUTOMATIC) as client:
        params = {"nqn": "q", "admin_label": "x"}
        assert client.call("nvmf_create_subsystem", params) == params


@pytest.mark.parametrize(
    ("text", "minor", "suffix"),
    [("SPDK v26.09-pre git sha1 1a2b3c4", 9, "-pre"), ("SPDK v26.09.1", 9, ".1"), ("SPDK v26.11", 11, "")],
)
def test_releases_to_come_are_spoken_to_as_the_newest_that_is_known(
    peer: Any, session: Any, text: str, minor: int, suffix: str
) -> None:
    version = {"version": text, "fields": {"major": 26, "minor": minor, "patch": 0, "suffix": suffix}}
    with session(peer(engine_of(version)), schema=AUTOMATIC) as client:
        params = {"nqn": "q", "admin_label": "x"}
        assert client.call("nvmf_create_subsystem", params) == params


def test_an_engine_that_is_too_old_gets_nothing_but_the_question(peer: Any, session: Any) -> None:
    old = {"version": "SPDK v26.01", "fields": {"major": 26, "minor": 1, "patch": 0, "suffix": ""}}
    engine = peer(engine_of(old))
    with session(engine, schema=AUTOMATIC, node="a") as client:
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                client.call("bdev_get_bdevs")
            assert caught.value.code == "RPC-017"
            assert "SPDK v26.01" in str(caught.value)
        assert client.version().text == "SPDK v26.01"
    assert set(engine.methods) == {"spdk_get_version"}


def test_a_restarted_engine_of_another_release_is_asked_anew(peer: Any, session: Any) -> None:
    """And spoken to in its own words: the caller does not see which of the two it was."""
    newer = {"version": "SPDK v26.09", "fields": {"major": 26, "minor": 9}}

    def lives_for(version: Any, calls: int) -> Any:
        def script(line: Any) -> None:
            for _ in range(calls):
                request = line.request()
                line.result(request, version if request["method"] == "spdk_get_version" else request["params"])

        return script

    engine = peer(lives_for(VERSION, 2), lives_for(newer, 3), lives_for(VERSION, 2))
    wanted = Call("nvmf_set_config", {"discovery_filters": ["address"]})
    labelled = {"nqn": "q", "admin_label": "x"}
    with session(engine, schema=AUTOMATIC) as client:
        assert client.run(wanted) == {"discovery_filter": "address"}
        engine.wait_for_end()
        assert client.run(wanted) == {"discovery_filters": ["address"]}
        assert client.call("nvmf_create_subsystem", labelled) == labelled
        engine.wait_for_end()
        with pytest.raises(SchemaError):
            client.call("nvmf_create_subsystem", labelled)
        assert client.run(wanted) == {"discovery_filter": "address"}
        assert client.generation == 3


def test_an_engine_that_hides_its_version_gets_the_oldest_schema(peer: Any, session: Any) -> None:
    def hidden(line: Any) -> None:
        line.error(line.request(), -32601, "Method not found")
        echo(line)

    with session(peer(hidden), schema=AUTOMATIC) as client, pytest.raises(SchemaError):
        client.call("nvmf_create_subsystem", {"nqn": "q", "admin_label": "x"})


def test_one_refused_call_keeps_the_whole_pipeline_unsent(peer: Any, session: Any) -> None:
    engine = peer(engine_of(VERSION))
    with session(engine, schema=AUTOMATIC) as client, pytest.raises(SchemaError):
        client.pipeline([bdev.get_bdevs(), Call("bdev_get_bdevs", {"nmae": "x"})])
    assert engine.methods == ["spdk_get_version"]


def test_a_request_that_does_not_fit_is_refused(peer: Any, session: Any) -> None:
    engine = peer(echo)
    with session(engine) as client:
        for params in ({"pad": "x" * 300_000}, {"many": list(range(9000))}):
            with pytest.raises(SchemaError) as caught:
                client.call("m", params)
            assert caught.value.code == "RPC-007"
        with pytest.raises(SchemaError) as caught:
            client.call("m", {"x": object()})
        assert caught.value.code == "RPC-013"
        with pytest.raises(ValueError, match="deadline"):
            client.call("m", deadline_s=0)
    assert engine.requests == []


def test_threads_share_a_session_and_get_their_own_answers(peer: Any, session: Any) -> None:
    client = session(peer(echo))
    wrong: list[object] = []

    def work(me: int) -> None:
        for n in range(25):
            sent = {"me": me, "n": n}
            if client.call("m", sent) != sent:
                wrong.append(sent)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert client.generation == 1


def test_spdks_own_helpers_work_over_it(peer: Any, session: Any) -> None:
    def configured(line: Any) -> None:
        answers = {
            "spdk_get_version": VERSION,
            "framework_get_subsystems": [{"subsystem": "bdev", "depends_on": []}],
            "framework_get_config": [{"method": "bdev_set_options", "params": {"bdev_auto_examine": False}}],
        }
        while (request := line.request()) is not None:
            line.result(request, answers[request["method"]])

    text = io.StringIO()
    with session(peer(configured), schema=AUTOMATIC) as client:
        config.save_config(client, text)
    saved = json.loads(text.getvalue())
    assert saved["subsystems"][0]["config"][0]["method"] == "bdev_set_options"


def test_a_session_shows_no_more_than_it_should(peer: Any, session: Any) -> None:
    engine = peer(echo)
    with session(engine, node="a") as client:
        client.connect()
        assert repr(client) == f"Session({engine.address!r}, node='a', generation=1, connected)"
    assert session_module.DEFAULT_DEADLINE_S > 0
