"""A connection to an engine on an event loop, as small as one can be: answers are matched by number."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from pathlib import Path
from typing import Any, Self, TypeVar

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc import errors
from dataplane.rpc.call import Call

T = TypeVar("T")


class PlainChannel:
    """``sent`` are the methods in the order in which they went out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._open: dict[int, asyncio.Future[Any]] = {}
        self.sent: list[Call[Any]] = []
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path) -> Self:
        try:
            return cls(*await asyncio.open_unix_connection(path, limit=1 << 24))
        except OSError as problem:
            raise errors.cannot_connect(str(path), "", str(problem)) from problem

    @property
    def peer_pid(self) -> int:
        sock: socket.socket = self._writer.get_extra_info("socket")
        pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    async def run(self, call: Call[T], deadline_ms: int) -> T:
        if self._task.done():
            raise self._lost(call.method)
        number = len(self.sent) + 1
        self.sent.append(call)
        self._open[number] = asyncio.get_running_loop().create_future()
        body = {"jsonrpc": "2.0", "id": number, "method": call.method}
        self._writer.write(json.dumps(body | ({"params": call.params} if call.params else {})).encode())
        async with asyncio.timeout(deadline_ms / 1000):
            answer = await self._open[number]
        if answer is None:
            raise self._lost(call.method)
        if "error" in answer:
            raise errors.rpc_error(call.method, answer["error"], call.params, address="", node="")
        return call.parse(answer.get("result"))

    def _lost(self, method: str) -> Ws7000Error:
        return errors.connection_lost("", "", method, "the engine closed it")

    async def _read(self) -> None:
        text, decoder = "", json.JSONDecoder()
        try:
            while part := await self._reader.read(1 << 16):
                text += part.decode("ascii")
                while text := text.lstrip():
                    try:
                        answer, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:]
                    self._open.pop(answer["id"]).set_result(answer)
        except OSError:
            pass
        finally:
            for waiting in self._open.values():
                if not waiting.done():
                    waiting.set_result(None)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
