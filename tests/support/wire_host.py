"""A host made of nothing but codecs: it sends any command, in any order, and holds its data back when told to.

Why: our own initiator is well behaved, and what a target does with a host that is not can only be seen from one
that need not be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from dataplane.nvme import commands, fabrics, identify, pdu
from dataplane.nvme.commands import Cns, Command, Completion
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.pdu_reader import PduReader

NQN = "nqn.2025-01.io.ws7000:test"
HOST = "nqn.2025-01.io.ws7000:host"
BLOCK = 512
WAIT_S = 20.0


class Ended(Exception):
    """The controller closed the connection; ``term`` is its last word, if it had one."""

    def __init__(self, term: pdu.TermReq | None) -> None:
        super().__init__(repr(term))
        self.term = term


class Wire:
    """One connection.  Commands are answered by the PDUs that come, whatever their order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, agreed: pdu.Digests) -> None:
        self.reader, self.writer, self.agreed = reader, writer, agreed
        self.pdus = PduReader(pdu.HOST_RECEIVES, 1 << 21)
        self.queue: list[pdu.Pdu] = []
        self.term: pdu.TermReq | None = None
        self.cid = 0
        self.done: dict[int, tuple[Completion, bytes]] = {}
        self.data: dict[int, bytearray] = {}
        self.to_send: dict[int, bytes] = {}
        self.asked: dict[int, pdu.R2T] = {}

    @classmethod
    async def open(cls, port: int, agreed: pdu.Digests = pdu.NO_DIGESTS, hpda: int = 0) -> Wire:
        wire = cls(*await asyncio.open_connection("127.0.0.1", port), agreed)
        wire.write(pdu.IcReq(digests=agreed, hpda=hpda).pack())
        answer = await wire.next()
        assert isinstance(answer, pdu.IcResp)
        assert answer.digests == agreed
        wire.pdus.digests = agreed
        return wire

    def write(self, *pieces: Any) -> None:
        self.writer.write(b"".join(pieces))

    async def next(self) -> pdu.Pdu:
        """The next PDU; raises Ended."""
        while not self.queue:
            await self._receive()
        return self.queue.pop(0)

    async def terminated(self) -> pdu.TermReq:
        """The controller's last word, while the connection may still be there; raises Ended without one."""
        while self.term is None:
            await self._receive()
        return self.term

    async def _receive(self) -> None:
        async with asyncio.timeout(WAIT_S):
            try:
                raw = await self.reader.read(1 << 16)
            except ConnectionError:
                raw = b""
        if not raw:
            raise Ended(self.term)
        for item in self.pdus.feed(raw):
            if isinstance(item, pdu.TermReq):
                self.term = item
            else:
                self.queue.append(item)

    def submit(self, command: Command, data: bytes = b"") -> int:
        """Send a command, its data in the capsule or when asked for; its identifier."""
        self.cid = (self.cid + 1) % 0xFFF0
        command = command.with_cid(self.cid)
        capsule = data if command.sgl_type == commands.SGL_IN_CAPSULE else b""
        if data and not capsule:
            self.to_send[self.cid] = data
        self.write(*pdu.capsule_cmd(command, capsule, self.agreed))
        return self.cid

    async def wait(self, cid: int) -> tuple[Completion, bytes]:
        """The completion of ``cid`` and the data that came for it."""
        while cid not in self.done:
            self.take(await self.next())
        return self.done.pop(cid)

    def take(self, item: pdu.Pdu) -> None:
        match item:
            case pdu.C2HData(cid, offset, data, last, success):
                buffer = self.data.setdefault(cid, bytearray())
                assert offset == len(buffer)
                buffer += data
                if success:
                    assert last
                    self.done[cid] = (Completion(cid=cid), bytes(self.data.pop(cid)))
            case pdu.CapsuleResp(completion):
                self.done[completion.cid] = (completion, bytes(self.data.pop(completion.cid, b"")))
            case pdu.R2T(cid) if cid not in self.to_send:
                self.asked[cid] = item
            case pdu.R2T(cid, ttag, offset, length):
                data = self.to_send.pop(cid)[offset : offset + length]
                for start in range(0, len(data), 48 << 10):
                    part = data[start : start + (48 << 10)]
                    last = start + len(part) == len(data)
                    piece = pdu.H2CData(cid, ttag, offset + start, part, last=last)
                    self.write(*pdu.h2c_data(piece, self.agreed))
            case _:
                raise AssertionError(item)

    async def asked_for(self, cid: int) -> pdu.R2T:
        """Wait until the controller asks for the data of ``cid``, which was submitted without any."""
        while cid not in self.asked:
            self.take(await self.next())
        return self.asked.pop(cid)

    def give(self, asked: pdu.R2T, data: bytes) -> None:
        """Send that data now."""
        self.to_send[asked.cid] = data
        self.take(asked)

    async def run(self, command: Command, data: bytes = b"") -> tuple[Completion, bytes]:
        """Submit and wait."""
        return await self.wait(self.submit(command, data))

    async def status(self, command: Command, data: bytes = b"") -> int:
        """SCT << 8 | SC of a command."""
        return (await self.run(command, data))[0].code

    async def ok(self, command: Command, data: bytes = b"") -> bytes:
        """The data of a command that must succeed."""
        completion, answer = await self.run(command, data)
        assert completion.code == 0, hex(completion.code)
        return answer

    async def connect(
        self, nqn: str = NQN, host: str = HOST, qid: int = 0, cntlid: int = 0xFFFF, kato_ms: int = 0,
        entries: int = 32, hostid: bytes = b"h" * 16,
    ) -> Completion:  # fmt: skip
        data = fabrics.ConnectData(hostid, cntlid, nqn, host).pack()
        return (await self.run(fabrics.connect(qid, entries, kato_ms), data))[0]

    async def enable(self) -> None:
        await self.ok(fabrics.property_set(fabrics.Property.CC, 0x460001))

    async def drain(self) -> None:
        """Throw away what comes; raises Ended."""
        while True:
            await self.next()

    async def ended(self) -> pdu.TermReq | None:
        """Wait until the controller closes; its termination request."""
        while True:
            try:
                self.take(await self.next())
            except Ended as end:
                return end.term

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return  # the other side was first


class Host:
    """An admin queue and one I/O queue."""

    def __init__(self, port: int, admin: Wire, io: Wire, cntlid: int) -> None:
        self.port, self.admin, self.io, self.cntlid = port, admin, io, cntlid

    @classmethod
    async def open(cls, port: int, agreed: pdu.Digests = pdu.NO_DIGESTS, **how: Any) -> Host:
        admin = await Wire.open(port, agreed)
        connected = await admin.connect(**how)
        assert connected.code == 0, hex(connected.code)
        await admin.enable()
        cntlid = connected.cdw0 & 0xFFFF
        io = await Wire.open(port, agreed)
        how.pop("kato_ms", None)
        assert (await io.connect(qid=1, cntlid=cntlid, **how)).code == 0
        return cls(port, admin, io, cntlid)

    async def nsids(self) -> list[int]:
        return identify.parse_nsid_list(await self.admin.ok(commands.identify(Cns.ACTIVE_NSIDS)))

    async def event(self, cid: int) -> AsyncEvent:
        return AsyncEvent.parse((await self.admin.wait(cid))[0].cdw0)

    async def close(self) -> None:
        await self.io.close()
        await self.admin.close()


def read(lba: int, blocks: int = 1, nsid: int = 1) -> Command:
    return commands.read(nsid, lba, blocks, BLOCK)


def write(lba: int, blocks: int = 1, nsid: int = 1) -> Command:
    return commands.write(nsid, lba, blocks, BLOCK)


def play(port: int, story: Callable[[Host], Awaitable[None]], **how: Any) -> None:
    """The story of one host, connected as ``how`` says, within a minute."""

    async def whole() -> None:
        async with asyncio.timeout(60):
            host = await Host.open(port, **how)
            try:
                await story(host)
            finally:
                await host.close()

    asyncio.run(whole())
