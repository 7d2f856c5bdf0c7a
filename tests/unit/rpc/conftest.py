"""A scripted engine on a real UNIX socket: each test says what it reads and what it writes, byte by byte."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane.rpc.session import Session

REPLIES = Path(__file__).with_name("replies-26.05.json")


class Line:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket, requests: list[dict[str, Any]]) -> None:
        self.sock = sock
        self._requests = requests
        self._held = ""

    def request(self) -> dict[str, Any] | None:
        """The next request; None when the session closed the connection."""
        while True:
            text = self._held.lstrip()
            if text:
                try:
                    found, end = json.JSONDecoder().raw_decode(text)
                except ValueError:
                    pass
                else:
                    self._held = text[end:]
                    self._requests.append(found)
                    return found
            data = self.sock.recv(65536)
            if not data:
                return None
            self._held += data.decode("ascii")

    def nothing_more(self) -> bool:
        """Whether no further byte has arrived yet."""
        try:
            return not self._held and not self.sock.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return not self._held

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def result(self, request: dict[str, Any], value: Any) -> None:
        self.raw(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value}).encode() + b"\n")

    def error(self, request: dict[str, Any], number: int, message: str) -> None:
        body = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": number, "message": message}}
        self.raw(json.dumps(body).encode() + b"\n")

    def closed_by_session(self) -> bool:
        """Wait for the session to close, reading whatever it still sends."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


Script = Callable[[Line], None]


class Peer:
    """Accepts one connection for each script, one after another."""

    def __init__(self, listener: socket.socket, address: Any, scripts: tuple[Script, ...]) -> None:
        self.address = address
        self.requests: list[dict[str, Any]] = []
        self.problems: list[Exception] = []
        self.accepted = 0
        self._ended = threading.Semaphore(0)
        self._listener = listener
        self._scripts = scripts
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            for script in self._scripts:
                sock, _ = self._listener.accept()
                self.accepted += 1
                with sock:
                    script(Line(sock, self.requests))
                self._ended.release()
        except OSError as problem:
            if self._listener.fileno() >= 0:
                self.problems.append(problem)
        except Exception as problem:  # noqa: BLE001  # raised again by the test's own thread
            self.problems.append(problem)

    @property
    def methods(self) -> list[str]:
        return [request["method"] for request in self.requests]

    def wait_for_end(self) -> None:
        """Wait until one more script has ended and its connection is closed."""
        assert self._ended.acquire(timeout=10)

    def finish(self) -> None:
        """Wait for the scripts; raise what went wrong in one."""
        self._thread.join(timeout=10)
        assert not self._thread.is_alive(), "a script still waits"
        if self.problems:
            raise self.problems[0]


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """The path of a UNIX socket has at most 107 bytes; pytest's own directories may be longer."""
    path = Path(tempfile.mkdtemp(prefix="ws"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def peer(short_dir: Path) -> Iterator[Callable[..., Peer]]:
    """``peer(script, ...)``: an engine that runs one script for each connection; checked at the end."""
    made: list[tuple[Peer, socket.socket]] = []

    def make(*scripts: Script, tcp: bool = False) -> Peer:
        if tcp:
            listener = socket.create_server(("127.0.0.1", 0))
            address: Any = listener.getsockname()
        else:
            address = str(short_dir / f"{len(made)}.sock")
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(address)
            listener.listen()
        made.append((Peer(listener, address, scripts), listener))
        return made[-1][0]

    yield make
    for each, listener in made:
        try:
            each.finish()
        finally:
            listener.close()


@pytest.fixture
def session() -> Iterator[Callable[..., Session]]:
    """``session(peer)``: a session with it that checks no schema unless told to; closed before the scripts
    are waited for."""
    made: list[Session] = []

    def make(to: Any, **options: Any) -> Session:
        options.setdefault("schema", None)
        options.setdefault("deadline_s", 10.0)
        made.append(Session(getattr(to, "address", to), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def replies() -> dict[str, Any]:
    """Answers that nvmf_tgt of SPDK v26.05 gave, by method."""
    found: dict[str, Any] = json.loads(REPLIES.read_text(encoding="utf-8"))
    return found
