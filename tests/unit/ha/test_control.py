"""The control socket: what is said over it, and callers that misbehave."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import DeadlineExceeded, NotFound, Refused, Unreachable, UsageError, Ws7000Error
from ha import control, desk
from ha.control import Control, Request, orders_of
from ha.desk import Desk
from ha.model import GroupId, Move, Order, Pause, Repaired, Reply, Save, TakeOver

ONE, TWO = GroupId("default", 1), GroupId("default", 2)
OTHER = GroupId("night", 1)
GROUPS = frozenset({ONE, TWO, OTHER})


class Told:
    """A node that notes the orders down and answers them as it was told to."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.answers: dict[type[Order], tuple[str, str]] = {}  # type: ignore[valid-type]
        self.state: tuple[int, bytes] | None = None
        self.known: frozenset[GroupId] | None = GROUPS
        self.generation = 0
        self.is_member = asyncio.Event()
        self.gone: list[str] = []

    def status(self) -> Mapping[str, Any]:
        return {"node": "a", "phase": "member"}

    async def history(self, limit: int) -> list[dict[str, object]]:
        return [{"sentence": str(number)} for number in range(limit)]

    def saved(self) -> tuple[int, bytes] | None:
        return self.state

    def groups(self) -> frozenset[GroupId] | None:
        return self.known

    async def learn(self, snapshot: bytes) -> None:
        self.state = (1, snapshot)

    def built(self, generation: int) -> None:
        self.generation = generation

    async def member(self) -> None:
        try:
            await self.is_member.wait()
        except asyncio.CancelledError:
            self.gone.append("rejoin_wait")
            raise

    async def carry_out(self, make: Callable[[int], Order]) -> Reply:
        order = make(len(self.orders) + 1)
        self.orders.append(order)
        code, why = self.answers.get(type(order), ("", ""))
        return Reply(number=order.number, code=code, why=why)


class Running:
    """A desk on a loop of its own, as in the agent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.new_event_loop()
        self.node = Told()
        self.desk = Desk(str(path), self.node)
        self._thread = threading.Thread(target=self.loop.run_forever)

    def do(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def start(self) -> None:
        self._thread.start()
        self.do(self.desk.open())

    def stop(self) -> None:
        self.do(self.desk.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def set_member(self) -> None:
        self.loop.call_soon_threadsafe(self.node.is_member.set)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path / "control")
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def raw(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        yield sock


def ended(sock: socket.socket) -> bool:
    """Whether nothing more comes."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def line(sock: socket.socket) -> Any:
    with sock.makefile("rb") as reader:
        return json.loads(reader.readline())


# ------------------------------------------------------------------ requests as values


def orders(method: str, groups: frozenset[GroupId] | None = GROUPS, **params: Any) -> list[Order]:
    request = Request.of(json.dumps({"method": method, "params": params}).encode())
    return [make(number) for number, make in enumerate(orders_of(request, groups), 7)]


def test_requests_become_orders() -> None:
    assert orders("switchover", to="b") == [Move(number=7, groups=GROUPS, to="b")]
    assert orders("switchover", to="b", subsystem="night") == [Move(number=7, groups=frozenset({OTHER}), to="b")]
    assert orders("failback") == [
        Move(number=7, groups=frozenset({ONE, OTHER}), to="a"),
        Move(number=8, groups=frozenset({TWO}), to="b"),
    ]
    assert orders("failback", frozenset({ONE})) == [Move(number=7, groups=frozenset({ONE}), to="a")]
    assert orders("pause") == [Pause(number=7, paused=True)]
    assert orders("resume") == [Pause(number=7, paused=False)]
    assert orders("takeover", peer_is_off=True) == [TakeOver(number=7, peer_is_off=True)]
    assert orders("takeover") == [TakeOver(number=7, peer_is_off=False)]
    assert orders("repaired", drive="d3") == [Repaired(number=7, drive="d3")]
    raw_state = b"\0state"
    encoded = base64.b64encode(raw_state).decode()
    assert orders("save", expects=4, generation=5, snapshot_b64=encoded) == [
        Save(number=7, generation=5, expects=4, snapshot=raw_state, digest=hashlib.sha256(raw_state).hexdigest())
    ]
    assert orders("save", None, expects=0, generation=1, snapshot_b64=encoded, form=True)[0].form is True  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{", b"null", b'{"method": 1}', b'{"method": "load", "params": []}', b'{"method": "format"}',
        b'{"method": "load", "params": {"all": true}}', b"[" * 100_000, b"\xff\xfe", rb'{"method": "\ud800"}',
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError, match="HA-032"):
        Request.of(text)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("switchover", {}), ("switchover", {"to": "c"}), ("switchover", {"to": 1}), ("repaired", {}),
        ("switchover", {"to": "b", "subsystem": ""}), ("repaired", {"drive": ""}), ("takeover", {"peer_is_off": 1}),
        ("save", {"expects": 0, "generation": 1}), ("save", {"expects": 0, "generation": 1, "snapshot_b64": "!"}),
        ("save", {"expects": -1, "generation": 1, "snapshot_b64": "AA=="}),
        ("save", {"expects": True, "generation": 1, "snapshot_b64": "AA=="}),
        ("save", {"expects": 0, "generation": 1 << 70, "snapshot_b64": "AA=="}),
        ("save", {"expects": 0, "generation": 1, "snapshot_b64": "AA==", "form": "yes"}),
        ("save", {"expects": 0, "generation": 1, "snapshot_b64": "ä"}),
    ],
)  # fmt: skip
def test_parameters_that_are_wrong_are_refused(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="HA-032"):
        orders(method, **params)


def test_a_move_needs_the_array_and_a_subsystem_of_it() -> None:
    with pytest.raises(Refused, match="HA-034"):
        orders("failback", None)
    with pytest.raises(NotFound, match="HA-033") as told:
        orders("switchover", to="b", subsystem="day")
    assert "default, night" in told.value.why


# ------------------------------------------------------------------ over the socket


def test_a_caller_gets_what_it_asks_for(running: Running) -> None:
    control = Control(running.path)
    assert control.status() == {"node": "a", "phase": "member"}
    assert len(control.history(3)) == 3
    assert control.load() is None
    running.node.state = (9, bytes(range(256)) * 1200)
    assert control.load() == running.node.state
    control.built(9)
    assert running.node.generation == 9
    control.switchover("b", "night")
    control.failback()
    control.pause()
    control.pause(paused=False)
    control.take_over(peer_is_off=True)
    control.repaired("d1")
    control.save(10, 9, b"x" * 300_000)
    kinds = [type(order) for order in running.node.orders]
    assert kinds == [Move, Move, Move, Pause, Pause, TakeOver, Repaired, Save]
    assert running.path.stat().st_mode & 0o777 == 0o600


def test_a_refusal_of_decide_reaches_the_caller(running: Running) -> None:
    running.node.answers[Move] = ("HA-005", "a takeover came between")
    with pytest.raises(Refused) as told:
        Control(running.path).failback()
    assert (told.value.code, told.value.what) == ("HA-005", "a takeover came between")
    assert len(running.node.orders) == 1, "the second half of what was refused is not tried"
    running.node.known = None
    with pytest.raises(Refused, match="HA-034"):
        Control(running.path).switchover("a")
    with pytest.raises(UsageError, match="HA-032"):
        Control(running.path).switchover("c")  # type: ignore[arg-type]
    assert len(running.node.orders) == 1


def test_no_agent_and_an_agent_that_is_silent(running: Running, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="HA-030"):
        Control(tmp_path / "nothing").status()
    with pytest.raises(DeadlineExceeded, match="HA-031"):
        Control(running.path).rejoin_wait(deadline_s=0.05)
    while not running.node.gone and running.desk.callers:
        pass
    running.set_member()
    Control(running.path).rejoin_wait()


def test_one_connection_carries_many_requests_in_order(running: Running) -> None:
    with raw(running.path) as sock:
        sock.sendall(b'{"method": "status"}\n{"method": "nonsense"}\nnot json\n{"method": "load"}\n')
        with sock.makefile("rb") as reader:
            answers = [json.loads(reader.readline()) for _ in range(4)]
    assert answers[0]["result"]["node"] == "a"
    assert [answer["error"]["code"] for answer in answers[1:3]] == ["HA-032", "HA-032"]
    assert answers[3] == {"result": None}


def test_a_half_closed_caller_gets_its_answer(running: Running) -> None:
    with raw(running.path) as sock:
        sock.sendall(b'{"method": "rejoin_wait"}\n')
        sock.shutdown(socket.SHUT_WR)
        running.set_member()
        assert line(sock) == {"result": {}}
        assert sock.recv(1) == b""


def test_a_request_that_is_too_long_ends_its_connection_only(running: Running) -> None:
    with raw(running.path) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read on
            sock.sendall(b"x" * (control.MAX_LINE_BYTES + 70_000))
        assert line(sock)["error"]["code"] == "HA-032"
        assert ended(sock)
    with pytest.raises(UsageError, match="HA-032"):
        Control(running.path).save(1, 0, bytes(control.MAX_LINE_BYTES))
    assert Control(running.path).status()["node"] == "a"


def test_silent_callers_take_a_bounded_number_of_places(running: Running) -> None:
    held = []
    for _ in range(desk.MAX_CALLERS):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(running.path))
        held.append(sock)
    while running.desk.callers < desk.MAX_CALLERS:
        pass
    with pytest.raises(Ws7000Error, match="HA-037"):
        Control(running.path).status()
    for sock in held:
        sock.close()
    while running.desk.callers:
        pass
    assert Control(running.path).status()["node"] == "a"


def test_a_caller_that_takes_nothing_loses_its_place(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "SEND_S", 0.05)
    running.node.state = (1, bytes(500_000))
    with raw(running.path) as sock:
        sock.sendall(b'{"method": "load"}\n' * 20)
        while running.desk.callers == 0:
            pass
        while running.desk.callers:
            pass
        assert Control(running.path).status()["node"] == "a"


def test_an_agent_that_ends_says_so(tmp_path: Path) -> None:
    running = Running(tmp_path / "control")
    running.start()
    with raw(running.path) as sock:
        sock.sendall(b'{"method": "rejoin_wait"}\n')
        while not running.desk.callers:
            pass
        running.stop()
        assert line(sock)["error"]["code"] == "HA-035"
    assert not running.path.exists()


def test_what_is_no_agent_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "other"))
        listening.listen()

        def answer(text: bytes) -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(text + b"\n")

        for text in (b"hello", b"[]", b'{"error": {}}', b'{"result": 3}'):
            answering = threading.Thread(target=answer, args=(text,))
            answering.start()
            with pytest.raises(Ws7000Error, match="HA-036"):
                Control(tmp_path / "other").status()
            answering.join(10)
