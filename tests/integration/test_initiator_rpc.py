"""bdev_nvme_* on one engine against another: what SPDK v26.05 answers to the same calls."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc.dispatch import call
from dataplane.embedded.rpc.registry import RUNTIME, RpcFault
from dataplane.nvme.commands import Cns, Command, Completion, IoOp, identify, read, write
from dataplane.nvme.status import Status

DRIVE = "nqn.2025-01.io.ws7000:drive"
BLOCK = 512


class Pair:
    """A shelf with two namespaces on two ports, and the engine that attaches them."""

    def __init__(self) -> None:
        self.shelf, self.node = Engine(), Engine()
        self.shelf.state = self.node.state = RUNTIME
        self.ports: list[int] = []

    async def at(self, engine: Engine, name: str, /, **params: Any) -> Any:
        try:
            return await call(engine, name, params or None)
        except RpcFault as fault:
            return fault.code, fault.message

    async def rpc(self, name: str, /, **params: Any) -> Any:
        return await self.at(self.node, "bdev_nvme_" + name, **params)

    async def attach(self, port: int = 0, **more: Any) -> Any:
        params = {"name": "d", "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "subnqn": DRIVE, **more}
        params.setdefault("trsvcid", str(self.ports[port]))
        return await self.rpc("attach_controller", **{key: value for key, value in params.items() if value is not None})

    async def send(self, command: Command, kind: str = "io", **more: Any) -> Any:
        text = base64.urlsafe_b64encode(command.pack()).decode()
        answer = await self.rpc("send_cmd", **{"name": "d", "cmd_type": kind, "cmdbuf": text, **more})
        if isinstance(answer, tuple):
            return answer
        data = base64.urlsafe_b64decode(answer.get("data", ""))
        return Completion.parse(base64.urlsafe_b64decode(answer["cpl"])).code, data

    async def open(self) -> None:
        await self.at(self.shelf, "nvmf_create_transport", trtype="TCP")
        await self.at(
            self.shelf, "nvmf_create_subsystem",
            nqn=DRIVE, serial_number="S1", allow_any_host=True, ana_reporting=True, max_namespaces=8,
        )  # fmt: skip
        for nsid in (1, 2):
            await self.at(self.shelf, "bdev_malloc_create", name=f"m{nsid}", num_blocks=4096, block_size=BLOCK)
            namespace = {"bdev_name": f"m{nsid}", "nsid": nsid}
            assert await self.at(self.shelf, "nvmf_subsystem_add_ns", nqn=DRIVE, namespace=namespace) == nsid
        for _ in range(2):
            probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            port = int(probe.sockets[0].getsockname()[1])
            probe.close()
            await probe.wait_closed()
            address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port)}
            await self.at(self.shelf, "nvmf_subsystem_add_listener", nqn=DRIVE, listen_address=address)
            self.ports.append(port)


def run(scenario: Callable[[Pair], Awaitable[None]]) -> None:
    async def whole() -> None:
        pair = Pair()
        try:
            async with asyncio.timeout(60):
                await pair.open()
                await scenario(pair)
        finally:
            await pair.node.close()
            await pair.shelf.close()

    asyncio.run(whole())


EINVAL, ENODEV, EIO = (-22, "Invalid argument"), (-19, "No such device"), (-5, "Input/output error")
UNDECODED = (-32603, "spdk_json_decode_object failed")


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"name": None}, UNDECODED),
        ({"multipath": "both"}, UNDECODED),
        ({"surplus": 1}, UNDECODED),
        ({"max_bdevs": 0}, (-22, "max_bdevs cannot be zero")),
        ({"num_io_queues": 0}, (-22, "num_io_queues out of bounds, min: 1 max: 65536")),
        ({"num_io_queues": 65537}, (-22, "num_io_queues out of bounds, min: 1 max: 65536")),
        ({"adrfam": "IPv5"}, (-22, "Failed to parse adrfam: IPv5")),
        ({"trsvcid": "1" * 33}, (-22, "trsvcid too long: " + "1" * 33)),
        ({"hostnqn": "h" * 224}, (-22, "hostnqn too long: " + "h" * 224)),
        ({"name": ""}, EINVAL),
        ({"name": "x" * 512}, EINVAL),
        ({"ctrlr_loss_timeout_sec": -5}, EINVAL),
        ({"ctrlr_loss_timeout_sec": 0, "reconnect_delay_sec": 1}, EINVAL),
        ({"multipath_opts": {"policy": "active_active", "min_io": 0}}, EINVAL),
        ({"adrfam": None}, EIO),
        ({"adrfam": "IPv6"}, EIO),
        ({"traddr": "127.0.0.999"}, EIO),
        ({"trsvcid": "abc"}, EIO),
        ({"trsvcid": "1"}, EIO),
        ({"subnqn": None}, EIO),
        ({"subnqn": "nqn.2025-01.io.ws7000:absent"}, EIO),
        ({"trtype": "PCIe"}, (-19, "The embedded engine attaches NVMe over TCP only, not PCIe")),
        ({"psk": "key0"}, (-95, "The embedded engine attaches without TLS only")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_attach_that_is_refused_leaves_nothing(given: dict[str, Any], answer: tuple[int, str]) -> None:
    async def scenario(pair: Pair) -> None:
        assert await pair.attach(**given) == answer
        assert await pair.rpc("get_controllers") == []
        assert await pair.rpc("set_options") is True

    run(scenario)


def test_attach_list_and_detach() -> None:
    async def scenario(pair: Pair) -> None:
        assert await pair.attach() == ["dn1", "dn2"]
        (group,) = await pair.rpc("get_controllers", name="d")
        (shown,) = group["ctrlrs"]
        assert (group["name"], shown["state"], shown["host"]["addr"]) == ("d", "enabled", "")
        assert shown["trid"] == {
            "trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(pair.ports[0]), "subnqn": DRIVE,
        }  # fmt: skip
        assert await pair.rpc("set_options") == (-1, "RPC not permitted with nvme controllers already attached")
        (bdev,) = await pair.at(pair.node, "bdev_get_bdevs", name="dn1")
        (shelf_bdev,) = await pair.at(pair.shelf, "bdev_get_bdevs", name="m1")
        assert (bdev["num_blocks"], bdev["uuid"]) == (4096, shelf_bdev["uuid"])
        assert bdev["driver_specific"]["nvme"][0]["ns_data"] == {"id": 1, "ana_state": "optimized", "can_share": True}
        assert await pair.rpc("detach_controller", name="zz") == ENODEV
        assert await pair.rpc("detach_controller", name="d", trsvcid="9") == (-6, "No such device or address")
        assert await pair.rpc("detach_controller", name="d") is True
        assert await pair.at(pair.node, "bdev_get_bdevs") == []
        assert await pair.rpc("get_controllers", name="d") == (-22, "Controller d does not exist")

    run(scenario)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({}, (-114, "A controller named d already exists with the specified network path")),
        ({"name": "e"}, (-17, "File exists")),
        ({"port": 1, "multipath": "disable"}, (-114, "A controller named d already exists and multipath is disabled")),
        ({"port": 1, "multipath": "failover"}, EINVAL),
        (
            {"port": 1, "subnqn": "x"},
            (-22, f"A controller named d already exists, but uses a different subnqn ({DRIVE})"),
        ),
        ({"port": 1, "hostnqn": "x"}, (-22, "A controller named d already exists, but uses a different hostnqn (h)")),
        (
            {"port": 1, "prchk_guard": True},
            (-22, "A controller named d already exists. To add a path, do not specify PI options."),
        ),
        ({"port": 1, "multipath_opts": {"policy": "active_active"}}, EINVAL),
    ],
)
def test_a_second_attach_that_does_not_fit(given: dict[str, Any], answer: tuple[int, str]) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.attach(hostnqn="h")
        assert await pair.attach(**{"hostnqn": "h", **given}) == answer
        assert len((await pair.rpc("get_controllers"))[0]["ctrlrs"]) == 1

    run(scenario)


def test_two_paths_under_one_name() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.attach()
        assert await pair.attach(1) == ["dn1", "dn2"]
        (group,) = (await pair.rpc("get_io_paths", name="dn1"))["poll_groups"]
        assert [(path["current"], path["connected"], path["accessible"]) for path in group["io_paths"]] == [
            (True, True, True),
            (False, True, True),
        ]
        cntlids = [path["cntlid"] for path in group["io_paths"]]
        assert await pair.rpc("reset_controller", name="d", cntlid=cntlids[1]) is True
        assert await pair.rpc("reset_controller", name="d", cntlid=999) == ENODEV
        assert await pair.rpc("detach_controller", name="d", trsvcid=str(pair.ports[0])) is True
        (group,) = (await pair.rpc("get_io_paths", name="dn1"))["poll_groups"]
        assert [path["transport"]["trsvcid"] for path in group["io_paths"]] == [str(pair.ports[1])]
        bdev = pair.node.bdevs.get("dn1")
        await bdev.write(0, b"x" * BLOCK)
        assert bytes(await bdev.read(0, 1)) == b"x" * BLOCK

    run(scenario)


def test_a_second_address_waits_for_the_first_to_fail() -> None:
    async def scenario(pair: Pair) -> None:
        loss = {"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 1}
        assert await pair.attach(multipath="failover", **loss) == ["dn1", "dn2"]
        assert await pair.attach(1, multipath="failover", **loss) == []
        assert await pair.attach(1, multipath="failover", **loss) == (-114, "Operation already in progress")
        ((shown,),) = [group["ctrlrs"] for group in await pair.rpc("get_controllers")]
        assert [trid["trsvcid"] for trid in shown["alternate_trids"]] == [str(pair.ports[1])]
        config = pair.node.nvme.config()
        assert [entry["params"]["trsvcid"] for entry in config[1:]] == [str(port) for port in pair.ports]
        assert await pair.rpc("detach_controller", name="d", trsvcid=str(pair.ports[0])) is True
        bdev = pair.node.bdevs.get("dn1")
        await bdev.write(0, b"y" * BLOCK)
        ((shown,),) = [group["ctrlrs"] for group in await pair.rpc("get_controllers")]
        assert (shown["state"], shown["trid"]["trsvcid"]) == ("enabled", str(pair.ports[1]))
        assert "alternate_trids" not in shown

    run(scenario)


def test_health_and_raw_commands() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.attach()
        health = await pair.rpc("get_controller_health_info", name="d")
        assert (health["serial_number"], health["media_errors"]) == ("S1", 0)
        assert await pair.rpc("get_controller_health_info", name="zz") == (-32603, "Device not found")
        assert await pair.rpc("get_controller_health_info") == (-32603, "Missing device name")
        text = base64.urlsafe_b64encode(b"z" * BLOCK).decode()
        assert await pair.send(write(1, 5, 1, BLOCK), data_direction="h2c", data=text) == (0, b"")
        assert await pair.send(read(1, 5, 1, BLOCK), data_direction="c2h", data_len=BLOCK) == (0, b"z" * BLOCK)
        code, data = await pair.send(identify(Cns.CONTROLLER), "admin", data_direction="c2h", data_len=4096)
        assert (code, data[4:6]) == (0, b"S1")
        wrong = Command(0x7E, nsid=1)
        assert (await pair.send(wrong, data_direction="c2h"))[0] == Status.INVALID_OPCODE
        assert (await pair.send(read(9, 0, 1, BLOCK), data_direction="c2h", data_len=BLOCK))[0] == 0x00B

    run(scenario)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "zz"}, {"cmdbuf": "AAAA"}, {"cmdbuf": "!!!"}, {"cmd_type": "both"}, {"data_direction": "up"},
        {"data": "A"}, {"data": "QUFB", "data_len": 4}, {"data": ""},
    ],
    ids=str,
)  # fmt: skip
def test_a_raw_command_that_does_not_decode(given: dict[str, Any]) -> None:
    async def scenario(pair: Pair) -> None:
        await pair.attach()
        text = base64.urlsafe_b64encode(Command(IoOp.FLUSH, nsid=1).pack()).decode()
        params = {"name": "d", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": text, **given}
        assert await pair.rpc("send_cmd", **params) == (-32602, "Invalid argument")

    run(scenario)


def test_a_bdev_goes_with_its_namespace_and_comes_with_it() -> None:
    async def scenario(pair: Pair) -> None:
        await pair.attach()
        gone, back = asyncio.Event(), asyncio.Event()
        pair.node.bdevs.removed.append(lambda _: gone.set())
        pair.node.bdevs.added.append(lambda _: back.set())
        await pair.at(pair.shelf, "nvmf_subsystem_remove_ns", nqn=DRIVE, nsid=2)
        await gone.wait()
        assert [bdev.name for bdev in pair.node.bdevs] == ["dn1"]
        await pair.at(pair.shelf, "nvmf_subsystem_add_ns", nqn=DRIVE, namespace={"bdev_name": "m2", "nsid": 2})
        await back.wait()
        assert [bdev.name for bdev in pair.node.bdevs] == ["dn1", "dn2"]

    run(scenario)
