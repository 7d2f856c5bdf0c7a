"""A host made of nothing but codecs, and a target that it can reach on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dataplane.embedded.bdev.base import Bdev
from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc.dispatch import call
from dataplane.embedded.rpc.registry import RUNTIME
from dataplane.nvme import commands, fabrics, identify, pdu
from dataplane.nvme.commands import Cns, Command, Completion
from dataplane.nvme.logs import AsyncEvent
from dataplane.nvme.pdu_reader import PduReader

NQN = "nqn.2025-01.io.ws7000:test"
HOST = "nqn.2025-01.io.ws7000:host"
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
        return self.queue.pop(0)

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
            case pdu.R2T(cid, ttag, offset, length):
                data = self.to_send.pop(cid)[offset : offset + length]
                for start in range(0, len(data), 48 << 10):
                    part = data[start : start + (48 << 10)]
                    last = start + len(part) == len(data)
                    piece = pdu.H2CData(cid, ttag, offset + start, part, last=last)
                    self.write(*pdu.h2c_data(piece, self.agreed))
            case _:
                raise AssertionError(item)

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


class SlowBdev(Bdev):
    """Blocks in memory whose I/O ends only when ``go`` is set."""

    product_name = "slow"

    def __init__(self, name: str, num_blocks: int = 64) -> None:
        super().__init__(name, 512, num_blocks)
        self.store = bytearray(512 * num_blocks)
        self.started = asyncio.Event()
        self.go = asyncio.Event()

    async def do_read(self, lba: int, blocks: int) -> bytes:
        self.started.set()
        await self.go.wait()
        return bytes(self.store[lba * 512 : (lba + blocks) * 512])

    async def do_write(self, lba: int, data: Any) -> None:
        self.started.set()
        await self.go.wait()
        self.store[lba * 512 : lba * 512 + len(data)] = data


class HastyBdev(SlowBdev):
    """Says that it need not wait, and waits."""

    @property
    def prompt(self) -> bool:
        return True


class Bench:
    """An engine with a subsystem on loopback; ``rpc`` calls a method."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.state = RUNTIME
        self.port = 0
        self.hosts: list[Host] = []

    async def rpc(self, name: str, /, **params: Any) -> Any:
        return await call(self.engine, name, params or None)

    def address(self, port: int | None = None) -> dict[str, str]:
        return {
            "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port or self.port),
        }  # fmt: skip

    async def listen(self, nqn: str = NQN, **more: Any) -> int:
        """Add a listener on a port that is free."""
        probe = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = int(probe.sockets[0].getsockname()[1])
        probe.close()
        await probe.wait_closed()
        listen_address = self.address(port)
        await self.rpc("nvmf_subsystem_add_listener", nqn=nqn, listen_address=listen_address, **more)
        return port

    async def add_bdev(self, name: str, num_blocks: int = 4096, block_size: int = 512) -> None:
        await self.rpc("bdev_malloc_create", name=name, num_blocks=num_blocks, block_size=block_size)

    async def host(self, **how: Any) -> Host:
        host = await Host.open(how.pop("port", self.port), **how)
        self.hosts.append(host)
        return host

    async def wire(self, agreed: pdu.Digests = pdu.NO_DIGESTS) -> Wire:
        return await Wire.open(self.port, agreed)


@asynccontextmanager
async def bench(transport: dict[str, Any] | None = None, **subsystem: Any) -> AsyncIterator[Bench]:
    """A subsystem with namespaces 1 (ANA group 1) and 2 (group 2), 2 MiB each."""
    made = Bench()
    await made.rpc("nvmf_create_transport", trtype="TCP", **(transport or {}))
    given = {"serial_number": "S1", "allow_any_host": True, "ana_reporting": True, "max_namespaces": 8}
    await made.rpc("nvmf_create_subsystem", nqn=NQN, **(given | subsystem))
    for nsid in (1, 2):
        await made.add_bdev(f"m{nsid}")
        namespace = {"bdev_name": f"m{nsid}", "nsid": nsid, "anagrpid": nsid}
        await made.rpc("nvmf_subsystem_add_ns", nqn=NQN, namespace=namespace)
    made.port = await made.listen()
    try:
        yield made
    finally:
        for host in made.hosts:
            await host.close()
        await made.engine.close()


Scenario = Callable[[Bench], Coroutine[Any, Any, None]]


class Lab:
    """What tests use: ``run`` a coroutine function against a fresh bench, and the names it needs."""

    nqn, hostnqn = NQN, HOST
    slow_bdev = SlowBdev
    hasty_bdev = HastyBdev
    wire = Wire
    ended = Ended

    @staticmethod
    def run(scenario: Scenario, **how: Any) -> None:
        async def whole() -> None:
            async with asyncio.timeout(60), bench(**how) as made:
                await scenario(made)

        asyncio.run(whole())


@pytest.fixture
def lab() -> type[Lab]:
    """The laboratory."""
    return Lab
