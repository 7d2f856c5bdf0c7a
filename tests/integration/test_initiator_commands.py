"""What a node asks of its drives beyond reading and writing: durability, comparing, copying, taking back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from boxes import BLOCK, DRIVE, VOLUME, Box, Lab, free_port, run
from wire_host import Host as RawHost

from dataplane.embedded.bdev.base import Bdev, Buffer, CompareFailed
from dataplane.embedded.bdev.waits import abortable
from dataplane.embedded.initiator.host import Host
from dataplane.nvme import commands
from dataplane.nvme.commands import Command, IoOp
from dataplane.nvme.status import NvmeError, Status

LOCAL = "127.0.0.1"
HOST = "nqn.2025-01.io.ws7000:host"
A, B = b"a" * BLOCK, b"b" * BLOCK


class Witness(Bdev):
    """A drive's medium that tells what reached it, and holds writes of the last block back."""

    def __init__(self) -> None:
        super().__init__("witness", BLOCK, 64)
        self.store = bytearray(BLOCK * 64)
        self.seen: list[str] = []
        self.held = asyncio.Event()

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        self.seen.append("read")
        return bytes(self.store[lba * BLOCK : (lba + blocks) * BLOCK])

    async def do_write(self, lba: int, data: Buffer) -> None:
        if lba == self.num_blocks - 1:
            with abortable():
                self.held.set()
                await asyncio.get_running_loop().create_future()
        self.seen.append("write")
        self.store[lba * BLOCK : lba * BLOCK + len(data)] = data

    async def do_write_through(self, lba: int, data: Buffer) -> None:
        await self.do_write(lba, data)
        self.seen[-1] = "write through"

    async def do_compare_and_write(self, lba: int, expected: Buffer, data: Buffer, *, fua: bool) -> None:
        self.seen.append(f"fused {fua}")
        await super().do_compare_and_write(lba, expected, data, fua=fua)

    async def do_copy(self, to_lba: int, from_lba: int, blocks: int, *, fua: bool) -> None:
        self.seen.append(f"copy {fua}")
        await super().do_copy(to_lba, from_lba, blocks, fua=fua)

    def take(self) -> list[str]:
        seen, self.seen = self.seen, []
        return seen


async def witness(made: Lab, **transport: Any) -> tuple[Witness, int]:
    """A shelf whose drive is a witness."""
    shelf, port, medium = made.box(), await free_port(), Witness()
    shelf.engine.bdevs.add(medium)
    if transport:
        await shelf.rpc("nvmf_create_transport", trtype="TCP", **transport)
    await shelf.serve(DRIVE, "witness", port)
    return medium, port


async def attached(made: Lab, port: int) -> tuple[Box, Bdev]:
    """A node with half of that drive, attached as nodes attach them: errors are repeated for ever."""
    node = made.box()
    await node.rpc("bdev_nvme_set_options", bdev_retry_count=-1, ctrlr_loss_timeout_sec=-1, reconnect_delay_sec=1)
    assert await node.attach("d", port) == ["dn1"]
    assert await node.rpc("bdev_split_create", base_bdev="dn1", split_count=2) == ["dn1p0", "dn1p1"]
    return node, node.engine.bdevs.get("dn1p1")


def test_fua_reaches_the_drive_as_fua() -> None:
    async def scenario(made: Lab) -> None:
        medium, port = await witness(made)
        _, part = await attached(made, port)
        await part.write(0, A)
        await part.write(1, B, fua=True)
        assert medium.take() == ["write", "write through"]
        assert medium.store[32 * BLOCK : 34 * BLOCK] == A + B

    run(scenario)


def test_compare_and_write_and_copy_are_the_drives() -> None:
    async def scenario(made: Lab) -> None:
        medium, port = await witness(made)
        _, part = await attached(made, port)
        await part.compare_and_write(3, bytes(BLOCK), A, fua=True)
        assert medium.take() == ["fused True", "read", "write through"]
        with pytest.raises(CompareFailed) as caught:
            await part.compare_and_write(3, bytes(BLOCK), B)
        assert caught.value.code == Status.COMPARE_FAILURE
        assert medium.take() == ["fused False", "read"], "once: a miscompare is an answer"
        with pytest.raises(NvmeError) as differs:
            await part.compare(3, B)
        assert differs.value.code == Status.COMPARE_FAILURE
        await part.compare(3, A)
        assert medium.take() == ["read", "read"]
        await part.copy(5, 3, 1, fua=True)
        assert medium.take()[0] == "copy True"
        assert await part.read(5, 1) == A

    run(scenario)


def test_a_drive_that_cannot_is_helped() -> None:
    async def scenario(made: Lab) -> None:
        medium, port = await witness(made, masked_oncs=["nvmcmps", "nvmcpys"], masked_fuses=["fcws"])
        _, part = await attached(made, port)
        await part.compare_and_write(3, bytes(BLOCK), A)
        await part.compare(3, A)
        await part.copy(5, 3, 1)
        assert medium.take() == ["read", "write", "read", "read", "write"]
        with pytest.raises(CompareFailed):
            await part.compare_and_write(3, B, A)
        assert await part.read(5, 1) == A

    run(scenario)


def test_two_nodes_count_in_one_block_of_a_drive() -> None:
    """The drive holds the pair together; no node knows of the other's."""

    async def count(part: Bdev, rounds: int) -> None:
        for _ in range(rounds):
            while True:
                held = bytes(await part.read(0, 1))
                more = (int.from_bytes(held[:8], "little") + 1).to_bytes(8, "little").ljust(BLOCK, b"\0")
                try:
                    await part.compare_and_write(0, held, more)
                except CompareFailed:
                    continue
                break

    async def scenario(made: Lab) -> None:
        medium, port = await witness(made)
        parts = [(await attached(made, port))[1] for _ in range(2)]
        await asyncio.gather(*(count(part, 15) for part in parts for _ in range(4)))
        assert int.from_bytes(medium.store[32 * BLOCK : 32 * BLOCK + 8], "little") == 120

    run(scenario)


async def serve(made: Lab, node: Box, bdev: str) -> RawHost:
    """A host of that bdev of the node."""
    port = await free_port()
    await node.serve(VOLUME, bdev, port)
    return await RawHost.open(port, nqn=VOLUME)


def test_an_abort_goes_down_to_the_drive() -> None:
    async def scenario(made: Lab) -> None:
        medium, port = await witness(made)
        node, _ = await attached(made, port)
        host = await serve(made, node, "dn1p1")
        last = commands.write(1, 31, 1, BLOCK).with_data(BLOCK, in_capsule=True)
        held = host.io.submit(last, A)
        await medium.held.wait()
        assert (await host.admin.run(commands.abort(1, held)))[0].cdw0 == 0
        assert (await host.io.wait(held))[0].code == Status.ABORTED_BY_REQUEST
        assert medium.take() == []
        await host.close()

    run(scenario)


def test_a_command_that_waits_for_a_path_is_aborted() -> None:
    async def scenario(made: Lab) -> None:
        shelf, port = await made.drive()
        node, _ = await attached(made, port)
        host = await serve(made, node, "dn1p1")
        await shelf.set_ana(DRIVE, port, "inaccessible")
        held = host.io.submit(commands.read(1, 0, 1, BLOCK))
        space = node.engine.bdevs.get("dn1").namespace  # type: ignore[attr-defined]  # an NvmeBdev
        while not space.counters.waits:
            await asyncio.sleep(0)
        assert (await host.admin.run(commands.abort(1, held)))[0].cdw0 == 0
        assert (await host.io.wait(held))[0].code == Status.ABORTED_BY_REQUEST
        await shelf.set_ana(DRIVE, port, "optimized")
        assert await host.io.ok(commands.read(1, 0, 1, BLOCK)) == bytes(BLOCK)
        await host.close()

    run(scenario)


def test_commands_that_the_target_does_not_know_are_the_drives() -> None:
    class Vendor(Witness):
        async def pass_through(self, command: Command, data: Buffer) -> Buffer:
            self.seen.append(f"{command.opcode:#x} {command.cdw10} {bytes(data[:1])!r}")
            return b"answer".ljust(command.length, b"!") if command.opcode & 3 == 2 else b""

    async def scenario(made: Lab) -> None:
        shelf, port, medium = made.box(), await free_port(), Vendor()
        shelf.engine.bdevs.add(medium)
        await shelf.serve(DRIVE, "witness", port)
        node = made.box()
        assert await node.attach("d", port) == ["dn1"]
        host = await serve(made, node, "dn1")
        ask = Command(0x82, nsid=1, cdw10=7).with_data(512, in_capsule=False)
        assert await host.io.ok(ask) == b"answer".ljust(512, b"!")
        await host.io.ok(Command(0x81, nsid=1, cdw10=8).with_data(BLOCK, in_capsule=True), A)
        await host.io.ok(Command(IoOp.VERIFY, nsid=1, cdw10=9))
        assert medium.take() == ["0x82 7 b''", "0x81 8 b'a'", "0xc 9 b''"]
        assert await host.io.status(Command(IoOp.RESERVATION_REPORT, nsid=1)) == Status.INVALID_FIELD
        assert medium.take() == [], "reservations are the target's own"
        await host.close()

    run(scenario)


def test_a_transport_that_passes_nothing_through() -> None:
    async def scenario(made: Lab) -> None:
        _, port = await witness(made)
        node = made.box()
        await node.rpc("nvmf_create_transport", trtype="TCP", disable_command_passthru=True)
        assert await node.attach("d", port) == ["dn1"]
        host = await serve(made, node, "dn1")
        completion = (await host.io.run(Command(IoOp.VERIFY, nsid=1)))[0]
        assert (completion.code, completion.dnr) == (Status.INVALID_OPCODE, True)
        await host.close()

    run(scenario)


# Discovery


async def refer(box: Box, *ports: int) -> None:
    for port in ports:
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": LOCAL, "trsvcid": str(port)}
        assert await box.rpc("nvmf_discovery_add_referral", address=address) is True


async def services(made: Lab, count: int) -> tuple[list[Box], list[int]]:
    """Engines with a subsystem each, ``...:0`` and so on."""
    boxes, ports = [made.box() for _ in range(count)], [await free_port() for _ in range(count)]
    for index, (box, port) in enumerate(zip(boxes, ports, strict=True)):
        await box.rpc("bdev_null_create", name="n", num_blocks=64, block_size=BLOCK)
        await box.serve(f"{VOLUME}:{index}", "n", port)
    return boxes, ports


def names(entries: Sequence[Any]) -> list[str]:
    return [entry.subnqn.rpartition(":")[2] for entry in entries]


def test_referrals_are_followed_once_and_cycles_told() -> None:
    async def scenario(made: Lab) -> None:
        boxes, ports = await services(made, 4)
        await refer(boxes[0], ports[2], ports[1])
        await refer(boxes[1], ports[3], ports[0])
        await refer(boxes[2], ports[3], ports[2])
        nobody = await free_port()
        await refer(boxes[3], nobody)
        async with Host(HOST) as host:
            found = await host.explore(LOCAL, ports[0])
        assert sorted(names(found.entries)) == ["0", "1", "2", "3"]
        assert {port for _, port in found.asked} == {*ports, nobody}
        assert found.asked[0] == (LOCAL, ports[0])
        reasons = {(int(each.referral.trsvcid), each.reason.partition(":")[0]) for each in found.not_asked}
        assert reasons == {
            (ports[0], "it leads back to where it came from"),
            (ports[2], "it leads back to where it came from"),
            (ports[3], "asked already"),
            (nobody, "cannot connect to 127.0.0.1"),
        }

    run(scenario)


def test_referrals_are_followed_no_deeper_than_asked_for() -> None:
    async def scenario(made: Lab) -> None:
        boxes, ports = await services(made, 4)
        for box, further in zip(boxes, ports[1:], strict=False):
            await refer(box, further)
        async with Host(HOST) as host:
            for depth in range(4):
                found = await host.explore(LOCAL, ports[0], referrals=depth)
                assert names(found.entries) == [str(index) for index in range(depth + 1)]
                assert [int(each.referral.trsvcid) for each in found.not_asked] == ports[depth + 1 : depth + 2]

    run(scenario)
