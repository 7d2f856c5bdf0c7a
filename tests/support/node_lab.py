"""A node that attaches a drive of a shelf and exports it, and a host that sees one answer for each command it sends.

What goes wrong is done to the shelf, over its RPC; tests wait for what the node then shows."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from dataplane.embedded.initiator.association import Association, AssociationOptions, open_association
from dataplane.embedded.initiator.connection import Endpoint
from dataplane.launch import START_CONFIG
from dataplane.nvme import commands
from dataplane.rpc.methods import nvmf
from dataplane.rpc.values import ListenAddress

DRIVE = "nqn.2026-01.io.ws7000:contract:rules-drive"
EXPORT = "nqn.2026-01.io.ws7000:contract:rules-export"
HOST = "nqn.2026-01.io.ws7000:host:rules"
LOCAL = "127.0.0.1"
BLOCK = 512
PATIENT = {"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1}
LONG_DELAY = {"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1000}
LAUNCHED: dict[str, Any] = next(
    dict(entry["params"])
    for part in START_CONFIG["subsystems"]  # type: ignore[attr-defined]
    for entry in part["config"]
    if entry["method"] == "bdev_nvme_set_options"
)
CHANGED = {
    "disable_auto_failback": False, "io_path_stat": False, "fast_io_fail_timeout_sec": 0,
    "multipath_opts": {"policy": "active_passive", "selector": "round_robin", "min_io": 1},
}  # fmt: skip
Story = Callable[["Seen"], Awaitable[None]]


def pattern(seed: str, blocks: int = 1) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(blocks * BLOCK)


class Seen:
    """What the host does, and what the node shows meanwhile."""

    def __init__(self, lab: NodeLab, host: Association) -> None:
        self.lab, self.host = lab, host

    async def write(self, lba: int, data: bytes = b"") -> int:
        """The status of one write."""
        data = data or pattern(str(lba))
        reply = await self.host.io(commands.write(1, lba, len(data) // BLOCK, BLOCK), data)
        return reply.completion.code

    async def read(self, lba: int, blocks: int = 1) -> bytes:
        reply = await self.host.io(commands.read(1, lba, blocks, BLOCK), read_size=blocks * BLOCK)
        return bytes(reply.check())

    async def begin(self, *lbas: int, blocks: int = 1) -> list[asyncio.Task[int]]:
        """Writes under way, sent before anything that follows."""
        writes = [asyncio.create_task(self.write(lba, pattern(str(lba), blocks))) for lba in lbas]
        await asyncio.sleep(0)
        return writes

    async def call(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Something that waits for an engine, while the host goes on."""
        return await asyncio.to_thread(function, *args, **more)

    async def rpc(self, method: str, **params: Any) -> Any:
        """A call to the node."""
        return await self.call(self.lab.node.rpc, method, **params)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when the node, asked again and again, shows it."""
        while not await self.call(condition):
            pass

    async def states(self, *wanted: str) -> None:
        """Return when the controllers stand so."""
        await self.until(lambda: self.lab.states() == list(wanted))


class NodeLab:
    """``node`` attaches ``d0`` of ``shelf`` over the ports that a test asks for, and exports ``d0n1``."""

    def __init__(self, node: Any, shelf: Any) -> None:
        self.node, self.shelf = node, shelf
        self.exported = 0
        shelf.malloc("m0", 8)
        self.serve()

    def serve(self) -> None:
        """The subsystem of the drive, without a listener."""
        self.shelf.subsystem(DRIVE, allow_any_host=True)
        self.shelf.namespace(DRIVE, "m0")

    def options(self, **changed: Any) -> None:
        self.node.rpc("bdev_nvme_set_options", **changed)

    def attach(self, *ports: int, export: bool = True, **more: Any) -> None:
        """Attach all of them under one name."""
        for port in ports:
            self.node.rpc("bdev_nvme_attach_controller", **self.call(port, **more))
        if export:
            self.exported = self.node.serve(EXPORT, "d0n1")

    def call(self, port: int, **more: Any) -> dict[str, Any]:
        """The parameters that attach one."""
        return {
            "name": "d0", "trtype": "TCP", "adrfam": "IPv4", "traddr": LOCAL, "trsvcid": str(port), "subnqn": DRIVE,
            **PATIENT, **more,
        }  # fmt: skip

    # -- the shelf

    def paths(self, *states: str) -> list[int]:
        """A listener for each ANA state."""
        return [self.shelf.listen(DRIVE, state) for state in states]

    def lose(self, port: int) -> None:
        """The listener goes, and with it the connections."""
        self.shelf.run(nvmf.remove_listener(DRIVE, ListenAddress.of("tcp", LOCAL, port)))

    def bring_back(self, port: int, ana_state: str = "optimized") -> None:
        self.shelf.listen(DRIVE, ana_state, port)

    def ana(self, port: int, state: str) -> None:
        self.shelf.set_ana(DRIVE, port, state)

    def slow(self, mbytes_per_sec: int) -> None:
        """What the drive writes in a second; 0: as much as it can."""
        self.shelf.rpc("bdev_set_qos_limit", name="m0", rw_mbytes_per_sec=mbytes_per_sec)

    def written(self) -> int:
        """Commands that the drive has executed."""
        return int(self.shelf.rpc("bdev_get_iostat", names=["m0"])["bdevs"][0]["num_write_ops"])

    # -- the node

    def states(self) -> list[str]:
        """Of the controllers, in the order in which they were attached."""
        return [each["state"] for group in self.node.rpc("bdev_nvme_get_controllers") for each in group["ctrlrs"]]

    def ports(self) -> list[int]:
        """Of the addresses in use."""
        groups = self.node.rpc("bdev_nvme_get_controllers")
        return [int(each["trid"]["trsvcid"]) for group in groups for each in group["ctrlrs"]]

    def cntlid(self, index: int) -> int:
        return int(self.node.rpc("bdev_nvme_get_controllers")[0]["ctrlrs"][index]["cntlid"])

    def io_paths(self) -> dict[int, dict[str, Any]]:
        """By port."""
        (group,) = self.node.rpc("bdev_nvme_get_io_paths", name="d0n1")["poll_groups"]
        return {int(path["transport"]["trsvcid"]): path for path in group["io_paths"]}

    def path_writes(self) -> dict[int, int]:
        """Writes that went well over each port; needs the option ``io_path_stat``."""
        stats = self.node.rpc("bdev_nvme_get_path_iostat", name="d0n1")["stats"]
        return {int(each["trid"]["trsvcid"]): each["stat"]["num_write_ops"] for each in stats}

    def inject(self, opc: int, **more: Any) -> None:
        self.node.rpc("bdev_nvme_add_error_injection", **{"name": "d0", "cmd_type": "io", "opc": opc, **more})

    def devices(self) -> Iterable[str]:
        return [each["name"] for each in self.node.rpc("bdev_get_bdevs")]

    # -- the test

    def play(self, story: Story) -> None:
        """Run it with a host connected to what the node exports."""

        async def whole() -> None:
            options = AssociationOptions(EXPORT, HOST, bytes(range(16)), Endpoint(LOCAL, self.exported))
            async with asyncio.timeout(30):
                association = await open_association(options)
                try:
                    await story(Seen(self, association))
                finally:
                    await association.close()

        asyncio.run(whole())

    def close(self) -> None:
        """Leave the node as it was launched; the drive goes first, so that no I/O waits for it."""
        for group in self.node.rpc("bdev_nvme_get_controllers"):
            self.node.rpc("bdev_nvme_detach_controller", name=group["name"])
        self.node.sweep()
        self.options(**LAUNCHED, **CHANGED)
