"""A small Redfish service as a process: one system whose power can be read and reset, for tests.

``python redfish_service.py FOLDER`` prints its port once it listens, and writes each reset to ``FOLDER/resets``.
What it is like (``Habits``) lies in ``FOLDER/habits.json``, its certificate, if any, in ``FOLDER/service.pem``.
Resources after DMTF DSP0266 and DSP2046: service root, sessions, systems, one ComputerSystem and its Reset."""

from __future__ import annotations

import base64
import dataclasses
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

USER: Final = "operator"
SYSTEM: Final = "/redfish/v1/Systems/1"
RESET: Final = f"{SYSTEM}/Actions/ComputerSystem.Reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """``stuck``: resets are taken and nothing happens; ``mute``: nothing is ever answered; ``garbled``: what is
    answered is no Redfish; ``sessions``: it offers sessions, else basic authentication is what it knows."""

    password: str
    power: str = "On"
    allows: tuple[str, ...] = ("On", "ForceOff", "ForceRestart", "PowerCycle")
    stuck: bool = False
    mute: bool = False
    garbled: bool = False
    sessions: bool = True


class _Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.habits = Habits(**json.loads((folder / "habits.json").read_text(encoding="utf-8")))
        self.power = self.habits.power
        self.tokens: set[str] = set()
        self.never = threading.Event()
        certificate = folder / "service.pem"
        if certificate.exists():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def reset(self, kind: str) -> None:
        with (self.folder / "resets").open("a", encoding="utf-8") as file:
            file.write(kind + "\n")
        if not self.habits.stuck:
            self.power = "Off" if kind == "ForceOff" else "On"


class _Handler(BaseHTTPRequestHandler):
    server: _Service
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def _answer(self, status: int, body: dict[str, Any] | None, **headers: str) -> None:
        raw = b"<html>no" if self.server.habits.garbled else json.dumps(body).encode() if body is not None else b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def _known(self) -> bool:
        expected = base64.b64encode(f"{USER}:{self.server.habits.password}".encode()).decode()
        known = self.headers.get("Authorization") == f"Basic {expected}"
        return known or self.headers.get("X-Auth-Token") in self.server.tokens

    def do_GET(self) -> None:
        if self.server.habits.mute:
            self.server.never.wait()
        path = self.path.rstrip("/")
        if path == "/redfish/v1":
            root: dict[str, Any] = {
                "@odata.id": "/redfish/v1/", "Id": "Root", "Name": "Root", "RedfishVersion": "1.15.0",
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
            }  # fmt: skip
            if self.server.habits.sessions:
                root["SessionService"] = {"@odata.id": "/redfish/v1/SessionService"}
                root["Links"] = {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}}
            self._answer(200, root)
        elif not self._known():
            self._answer(401, {"error": {"code": "Base.1.0.NoValidSession", "message": "who are you"}})
        elif path == "/redfish/v1/Systems":
            members = [{"@odata.id": SYSTEM}]
            self._answer(200, {"@odata.id": path, "Name": "Systems", "Members": members, "Members@odata.count": 1})
        elif path == "/redfish/v1/SessionService":
            sessions = {"@odata.id": "/redfish/v1/SessionService/Sessions"}
            self._answer(200, {"@odata.id": path, "Id": "S", "Name": "S", "ServiceEnabled": True, "Sessions": sessions})
        elif path == SYSTEM:
            action = {"target": RESET, "ResetType@Redfish.AllowableValues": list(self.server.habits.allows)}
            body = {"@odata.id": SYSTEM, "Id": "1", "Name": "node", "PowerState": self.server.power}
            self._answer(200, {**body, "Actions": {"#ComputerSystem.Reset": action}})
        else:
            self._answer(404, {"error": {"code": "Base.1.0.NotFound", "message": path}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path == "/redfish/v1/SessionService/Sessions" and self.server.habits.sessions:
            if (body.get("UserName"), body.get("Password")) != (USER, self.server.habits.password):
                self._answer(401, {"error": {"code": "Base.1.0.NoValidSession", "message": "wrong"}})
                return
            token = f"token-{len(self.server.tokens)}"
            self.server.tokens.add(token)
            where = f"/redfish/v1/SessionService/Sessions/{token}"
            session = {"@odata.id": where, "Id": token, "Name": token, "UserName": USER}
            self._answer(201, session, X_Auth_Token=token, Location=where)
        elif self.path == RESET and self._known():
            self.server.reset(body["ResetType"])
            self._answer(204, None)
        else:
            self._answer(401, {"error": {"code": "Base.1.0.NoValidSession", "message": "who are you"}})

    def do_DELETE(self) -> None:
        self.server.tokens.discard(self.path.rpartition("/")[2])
        (self.server.folder / "ended").touch()
        self._answer(204, None)


@dataclass(slots=True)
class Bmc:
    """The running process as a test sees it."""

    folder: Path
    url: str
    process: subprocess.Popen[str] = field(repr=False)

    @property
    def resets(self) -> list[str]:
        """What was asked of it, in order."""
        log = self.folder / "resets"
        return log.read_text(encoding="utf-8").split() if log.exists() else []


@contextmanager
def redfish_service(folder: Path, habits: Habits) -> Iterator[Bmc]:
    """Such a process; with ``service.pem`` in the folder, over TLS."""
    folder.mkdir(exist_ok=True)
    (folder / "habits.json").write_text(json.dumps(dataclasses.asdict(habits)), encoding="utf-8")
    scheme = "https" if (folder / "service.pem").exists() else "http"
    with subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Bmc(folder, f"{scheme}://127.0.0.1:{int(process.stdout.readline())}", process)
        finally:
            process.kill()


if __name__ == "__main__":
    with _Service(Path(sys.argv[1])) as service:
        print(service.server_address[1], flush=True)  # noqa: T201 - what the caller waits for
        service.serve_forever()
