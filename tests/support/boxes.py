"""Embedded engines on loopback that attach to each other: a shelf with a drive, nodes that serve it on.

Why: what the initiator does shows only between real targets, and several test files need the same few engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc.dispatch import call
from dataplane.embedded.rpc.registry import RUNTIME, RpcFault
from dataplane.launch import free_ports

DRIVE = "nqn.2025-01.io.ws7000:drive"
VOLUME = "nqn.2025-01.io.ws7000:volume"
UUID = "6d0d2fc6-6c40-4a9c-8dd2-4f1a47f4f0a1"
BLOCK = 512


class Box:
    """One engine; ``rpc`` calls a method and answers its result, or ``(code, message)``."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.state = RUNTIME

    async def rpc(self, name: str, /, **params: Any) -> Any:
        try:
            return await call(self.engine, name, params or None)
        except RpcFault as fault:
            return fault.code, fault.message

    async def serve(self, nqn: str, bdev: str, port: int, *, ana: str = "optimized", **subsystem: Any) -> None:
        """A subsystem with one namespace, as the control plane makes it."""
        await self.rpc("nvmf_create_transport", trtype="TCP")
        given = {"serial_number": "S1", "allow_any_host": True, "ana_reporting": True, "max_namespaces": 8, **subsystem}
        assert await self.rpc("nvmf_create_subsystem", nqn=nqn, **given) is True
        await self.add_namespace(nqn, bdev)
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port)}
        assert await self.rpc("nvmf_subsystem_add_listener", nqn=nqn, listen_address=address) is True
        if ana != "optimized":
            await self.set_ana(nqn, port, ana)

    async def add_namespace(self, nqn: str, bdev: str, nsid: int = 1, uuid: str = UUID) -> None:
        nguid = uuid.replace("-", "")
        namespace = {"bdev_name": bdev, "nsid": nsid, "uuid": uuid, "nguid": nguid, "anagrpid": 1}
        assert await self.rpc("nvmf_subsystem_add_ns", nqn=nqn, namespace=namespace) == nsid

    async def set_ana(self, nqn: str, port: int, state: str) -> None:
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port)}
        answer = await self.rpc(
            "nvmf_subsystem_listener_set_ana_state", nqn=nqn, listen_address=address, ana_state=state, anagrpid=1
        )
        assert answer is True

    async def attach(self, name: str, port: int, subnqn: str = DRIVE, **more: Any) -> Any:
        return await self.rpc(
            "bdev_nvme_attach_controller",
            name=name, trtype="TCP", adrfam="IPv4", traddr="127.0.0.1", trsvcid=str(port), subnqn=subnqn, **more,
        )  # fmt: skip


async def free_port() -> int:
    return free_ports(1)[0]


class Lab:
    """Engines that are closed at the end, the newest first."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []

    def box(self) -> Box:
        self.boxes.append(Box())
        return self.boxes[-1]

    async def drive(self, blocks: int = 8192, port: int | None = None) -> tuple[Box, int]:
        """A shelf with one drive in memory."""
        shelf, chosen = self.box(), port or await free_port()
        await shelf.rpc("bdev_malloc_create", name="m", num_blocks=blocks, block_size=BLOCK)
        await shelf.serve(DRIVE, "m", chosen)
        return shelf, chosen

    async def node(self, shelf_port: int, ana: str, first_cntlid: int) -> tuple[Box, int]:
        """A node that serves the shelf's drive on under the volume's name."""
        node, port = self.box(), await free_port()
        await node.rpc("bdev_nvme_set_options", bdev_retry_count=-1, ctrlr_loss_timeout_sec=-1, reconnect_delay_sec=1)
        assert await node.attach("d", shelf_port) == ["dn1"]
        await node.serve(VOLUME, "dn1", port, ana=ana, min_cntlid=first_cntlid, max_cntlid=first_cntlid + 99)
        return node, port

    async def close(self) -> None:
        for box in reversed(self.boxes):
            await box.engine.close()


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    try:
        yield made
    finally:
        await made.close()


def run(scenario: Callable[[Lab], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), lab() as made:
            await scenario(made)

    asyncio.run(whole())
