"""A host made of nothing but codecs, and a target that it can reach on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from wire_host import HOST, NQN, Ended, Host, Wire

from dataplane.embedded.bdev.base import Bdev
from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc.dispatch import call
from dataplane.embedded.rpc.registry import RUNTIME
from dataplane.nvme import pdu


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
