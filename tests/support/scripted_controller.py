"""A controller on loopback that a test plays line by line, and our side of the connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dataplane.embedded.initiator.connection import Connection, Endpoint, open_connection
from dataplane.nvme import pdu
from dataplane.nvme.commands import Completion, status_field
from dataplane.nvme.pdu import NO_DIGESTS, C2HData, CapsuleCmd, Digests, IcReq, IcResp
from dataplane.nvme.pdu_reader import PduReader


class Peer:
    """The controller's side of a connection, driven line by line by a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.pdus = PduReader(pdu.CONTROLLER_RECEIVES, 1 << 20)
        self.queue: list[pdu.Pdu] = []
        self.digests = NO_DIGESTS

    async def next(self) -> pdu.Pdu | None:
        while not self.queue:
            try:
                raw = await self.reader.read(1 << 16)
            except ConnectionError:
                raw = b""
            if not raw:
                return None
            self.queue += self.pdus.feed(raw)
        return self.queue.pop(0)

    async def command(self) -> CapsuleCmd:
        got = await self.next()
        assert isinstance(got, CapsuleCmd)
        return got

    def send(self, *pieces: pdu.Raw) -> None:
        self.writer.write(b"".join(pieces))

    def complete(self, cid: int, code: int = 0) -> None:
        self.send(pdu.capsule_resp(Completion(cid=cid, status=status_field(code)), self.digests))

    def data(self, cid: int, offset: int, data: bytes, *, last: bool = True, success: bool = False) -> None:
        self.send(*pdu.c2h_data(C2HData(cid, offset, data, last, success), self.digests))

    async def greet(self, agreed: Digests = NO_DIGESTS, maxh2cdata: int = 4096) -> None:
        greeting = await self.next()
        assert isinstance(greeting, IcReq)
        self.send(IcResp(digests=agreed, maxh2cdata=maxh2cdata).pack())
        self.digests = self.pdus.digests = agreed


Script = Callable[[Peer], Awaitable[None]]
Act = Callable[[Connection], Awaitable[None]]


def play(script: Script, act: Act, agreed: Digests = NO_DIGESTS, entries: int = 4) -> None:
    """Run both sides to their ends; an error of either is the test's."""

    async def both() -> None:
        script_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            try:
                await peer.greet(agreed)
                await script(peer)
                script_done.set_result(None)
            except (AssertionError, ConnectionError) as error:
                script_done.set_exception(error)
            finally:
                writer.close()

        async with asyncio.timeout(20):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            connection = await open_connection(Endpoint("127.0.0.1", port, digests=agreed), entries, 1 << 17, 5)
            try:
                await act(connection)
                await script_done
            finally:
                await connection.close()
                server.close()
                await server.wait_closed()

    asyncio.run(both())
