"""Devices laid over others to fail or to wait, histograms, sizes that change: the same on both engines."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dataplane.embedded.initiator.host import Host, HostOptions
from dataplane.embedded.initiator.multipath import HostNamespace
from dataplane.embedded.initiator.reconnect import LossPolicy
from dataplane.nvme.status import NvmeError, Status
from dataplane.rpc.methods import bdev, faults, histogram, nvme, raid

NQN = "nqn.2026-01.io.ws7000:contract:bdevs"
HOST = "nqn.2026-01.io.ws7000:host:a"
UUID = "55555555-5555-4555-8555-555555555555"
BASE_UUID = "66666666-6666-4666-8666-666666666666"
BLOCK, MIB = 512, 1 << 20
EPERM, ENOMEM, EBUSY, EEXIST, ENODEV, EINVAL = -1, -12, -16, -17, -19, -22
EAGER = HostOptions(loss=LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=0.05), retry_limit=0)
Story = Callable[[HostNamespace], Awaitable[None]]


def play(port: int, story: Story) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), Host(HOST) as host:
            await story((await host.connect(NQN, [("127.0.0.1", port)], EAGER)).namespace(1))

    asyncio.run(whole())


def names(engine: Any) -> set[str]:
    return {info.name for info in engine.run(bdev.get_bdevs())}


def examine(engine: Any, name: str) -> None:
    """Engines of an array start without examining by themselves."""
    engine.rpc("bdev_examine", name=name)
    engine.run(bdev.wait_for_examine())


def inject(engine: Any, io_type: str, error_type: str, **more: Any) -> None:
    engine.rpc("bdev_error_inject_error", name="EE_m0", io_type=io_type, error_type=error_type, **more)


async def code_of(io: Awaitable[Any]) -> int:
    with pytest.raises(NvmeError) as caught:
        await io
    return caught.value.code


# -- devices that fail


def test_an_error_device_lies_over_its_base(engine: Any) -> None:
    engine.malloc("m0", 4, BASE_UUID)
    assert engine.rpc("bdev_error_create", base_name="m0", uuid=UUID) is True
    info = engine.run(bdev.get_bdev("EE_m0"))
    base = engine.run(bdev.get_bdev("m0"))
    assert (info.product_name, info.num_blocks, info.block_size_bytes) == ("Error Injection Disk", 8192, BLOCK)
    assert info.driver_specific == {"error_disk": {"base_bdev": "m0"}}
    # The UUID that was asked for is not used; it follows from the base's.
    assert (info.uuid, info.aliases) == ("e6ffe432-4c2a-5caf-b935-1b60b86e916e", (info.uuid,))
    assert (base.claimed, info.claimed) == (True, False)
    assert engine.number("bdev_error_create", base_name="m0") == EEXIST
    calls = [each for each in engine.rpc("framework_get_config", name="bdev") if each["method"] == "bdev_error_create"]
    assert [call["params"] for call in calls] == [{"base_name": "m0", "uuid": UUID}]
    engine.rpc("bdev_error_delete", name="EE_m0")
    assert not engine.run(bdev.get_bdev("m0")).claimed
    assert engine.number("bdev_error_delete", name="EE_m0") == ENODEV
    assert engine.number("bdev_error_delete", name="m0") == ENODEV


def test_an_error_device_may_wait_for_its_base_and_goes_with_it(engine: Any) -> None:
    engine.rpc("bdev_error_create", base_name="m0")
    assert names(engine) == set()
    engine.malloc("m0")
    examine(engine, "m0")
    assert names(engine) == {"m0", "EE_m0"}
    engine.run(bdev.malloc_delete("m0"))
    assert names(engine) == set()
    engine.malloc("m0")
    examine(engine, "m0")
    assert names(engine) == {"m0"}, "forgotten with its base"


def test_a_base_that_is_claimed_gets_no_error_device(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    engine.run(raid.create("v", level="raid1", base_bdevs=["m0", "m1"]))
    assert engine.number("bdev_error_create", base_name="m0") == EPERM
    assert "EE_m0" not in names(engine)


@pytest.mark.parametrize(
    ("params", "number"),
    [
        ({"io_type": "read", "error_type": "failure", "nvme_sct": 2}, EINVAL),
        ({"io_type": "read", "error_type": "nvme_failure"}, EINVAL),
        ({"io_type": "read", "error_type": "corrupt_data"}, EINVAL),
        ({"io_type": "write_zeroes", "error_type": "failure"}, -32603),
        ({"io_type": "read", "error_type": "lost"}, -32603),
        ({"io_type": "read"}, -32603),
    ],
)
def test_errors_that_cannot_be_injected(engine: Any, params: dict[str, Any], number: int) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    assert engine.number("bdev_error_inject_error", name="EE_m0", **params) == number


@pytest.mark.parametrize("name", ["m0", "nobody"])
def test_only_an_error_device_takes_errors(engine: Any, name: str) -> None:
    engine.malloc("m0")
    assert engine.number("bdev_error_inject_error", name=name, io_type="read", error_type="failure") == ENODEV
    assert engine.number("bdev_error_resume_pending", name=name) == ENODEV


def test_an_error_meets_as_many_as_it_is_for_and_only_its_kind(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    port = engine.serve(NQN, "EE_m0")

    async def story(space: HostNamespace) -> None:
        inject(engine, "write", "failure", num=2)
        assert bytes(await space.read(0, 1)) == bytes(BLOCK)
        for _ in range(2):
            assert await code_of(space.write(0, b"w" * BLOCK)) == Status.INTERNAL_ERROR
        await space.write(0, b"w" * BLOCK)
        inject(engine, "read", "nvme_failure", nvme_sct=2, nvme_sc=0x81)
        assert await code_of(space.read(0, 1)) == Status.UNRECOVERED_READ_ERROR
        assert bytes(await space.read(0, 1)) == b"w" * BLOCK
        inject(engine, "all", "failure", num=5)
        for io in (space.read(0, 1), space.write(0, b"x" * BLOCK), space.flush()):
            assert await code_of(io) == Status.INTERNAL_ERROR
        inject(engine, "clear", "failure")
        assert bytes(await space.read(0, 1)) == b"w" * BLOCK
        inject(engine, "read", "failure", queue_depth=1)
        assert bytes(await space.read(0, 1)) == b"w" * BLOCK, "nothing else is under way"

    play(port, story)


def test_data_is_corrupted_on_the_way(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    port = engine.serve(NQN, "EE_m0")

    async def story(space: HostNamespace) -> None:
        inject(engine, "read", "corrupt_data", corrupt_offset=3, corrupt_value=0xFF)
        assert bytes(await space.read(0, 1)) == bytes(3) + b"\xff" + bytes(BLOCK - 4)
        assert bytes(await space.read(0, 1)) == bytes(BLOCK)
        inject(engine, "write", "corrupt_data", corrupt_offset=BLOCK - 1, corrupt_value=1)
        await space.write(0, b"\x10" * BLOCK)
        assert bytes(await space.read(0, 1)) == b"\x10" * (BLOCK - 1) + b"\x11"

    play(port, story)


def test_what_is_pending_goes_on_when_it_is_resumed(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    port = engine.serve(NQN, "EE_m0")

    async def story(space: HostNamespace) -> None:
        inject(engine, "write", "pending", num=9)
        waiting = asyncio.create_task(space.write(0, b"p" * BLOCK))
        # Reads pass, and one that was sent later has been answered: the write waits.
        assert bytes(await space.read(0, 1)) == bytes(BLOCK)
        inject(engine, "clear", "pending")
        assert bytes(await space.read(0, 1)) == bytes(BLOCK)
        assert not waiting.done(), "clearing lets nothing go on"
        engine.rpc("bdev_error_resume_pending", name="EE_m0")
        await waiting
        assert bytes(await space.read(0, 1)) == b"p" * BLOCK

    play(port, story)


def test_without_memory_an_io_is_tried_again(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    port = engine.serve(NQN, "EE_m0")

    async def story(space: HostNamespace) -> None:
        inject(engine, "all", "nomem", num=3)
        await space.write(0, b"n" * BLOCK)
        assert bytes(await space.read(0, 1)) == b"n" * BLOCK

    play(port, story)


# -- devices that wait

LATENCIES = {"avg_read_latency": 1000, "p99_read_latency": 2000, "avg_write_latency": 3000, "p99_write_latency": 4000}


def test_a_delay_device_shows_what_it_was_given(engine: Any) -> None:
    engine.malloc("m0", 4, BASE_UUID)
    assert engine.rpc("bdev_delay_create", base_bdev_name="m0", name="slow", **LATENCIES) == "slow"
    info = engine.run(bdev.get_bdev("slow"))
    assert (info.product_name, info.num_blocks, info.uuid) == ("delay", 8192, "291393c9-257b-5477-954a-cae124e7bf84")
    shown = dict(info.driver_specific["delay"])
    assert (shown.pop("name"), shown.pop("base_bdev_name"), shown.pop("uuid")) == ("slow", "m0", info.uuid)
    assert shown.keys() == LATENCIES.keys()
    for line, us in LATENCIES.items():
        assert us - 1 <= shown[line] <= us, "SPDK counts whole ticks"
    assert engine.run(bdev.get_bdev("m0")).claimed
    engine.rpc("bdev_delay_update_latency", delay_bdev_name="slow", latency_type="avg_read", latency_us=5)
    assert engine.run(bdev.get_bdev("slow")).driver_specific["delay"]["avg_read_latency"] in (4, 5)
    calls = [each for each in engine.rpc("framework_get_config", name="bdev") if each["method"] == "bdev_delay_create"]
    assert [(call["params"]["name"], call["params"]["base_bdev_name"]) for call in calls] == [("slow", "m0")]
    engine.rpc("bdev_delay_delete", name="slow")
    assert not engine.run(bdev.get_bdev("m0")).claimed


def test_delays_that_cannot_be_made(engine: Any) -> None:
    engine.malloc("m0")
    upside_down = LATENCIES | {"avg_read_latency": 2001}
    assert engine.number("bdev_delay_create", base_bdev_name="m0", name="slow", **upside_down) == EINVAL
    engine.rpc("bdev_delay_create", base_bdev_name="m0", name="slow", uuid=UUID, **LATENCIES)
    assert engine.run(bdev.get_bdev(UUID)).name == "slow"
    assert engine.number("bdev_delay_create", base_bdev_name="m0", name="slow", **LATENCIES) == EEXIST
    update = {"latency_type": "avg_read", "latency_us": 1}
    assert engine.number("bdev_delay_update_latency", delay_bdev_name="m0", **update) == -32602
    assert engine.number("bdev_delay_delete", name="m0") == ENODEV
    assert engine.number("bdev_delay_delete", name="nobody") == ENODEV


def test_a_delay_device_comes_back_with_its_base(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_delay_create", base_bdev_name="m0", name="slow", **LATENCIES)
    engine.run(bdev.malloc_delete("m0"))
    assert names(engine) == set()
    engine.malloc("m0")
    examine(engine, "m0")
    assert names(engine) == {"m0", "slow"}


def test_a_slow_device_answers_right(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_delay_create", base_bdev_name="m0", name="slow", **LATENCIES)
    port = engine.serve(NQN, "slow")

    async def story(space: HostNamespace) -> None:
        data = [bytes([lba]) * BLOCK for lba in range(32)]
        await asyncio.gather(*(space.write(lba, part) for lba, part in enumerate(data)))
        assert [bytes(part) for part in await asyncio.gather(*(space.read(lba, 1) for lba in range(32)))] == data
        await space.flush()

    play(port, story)
    (stat,) = engine.run(bdev.get_iostat(["slow"])).bdevs
    tick_rate = engine.run(bdev.get_iostat(["slow"])).tick_rate_hz
    assert stat.read_latency_ticks >= 32 * LATENCIES["avg_read_latency"] * tick_rate // 1_000_000
    assert stat.write_latency_ticks >= 32 * LATENCIES["avg_write_latency"] * tick_rate // 1_000_000


# -- how long I/O takes


def counters(shown: dict[str, Any]) -> list[int]:
    packed = base64.b64decode(shown["histogram"])
    return list(struct.unpack(f"<{len(packed) // 8}Q", packed))


def test_a_histogram_counts_each_io_once(engine: Any) -> None:
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(space: HostNamespace) -> None:
        # SPDK's own upper bound, 120 s, does not fit into its 64 bits once it is multiplied by the tick rate.
        engine.rpc("bdev_enable_histogram", name="m0", enable=True, max_nsec=10**9)
        before = sum(counters(engine.rpc("bdev_get_histogram", name="m0")))
        for lba in range(20):
            await space.write(lba, bytes(BLOCK))
            await space.read(lba, 1)
        await space.flush()
        shown = engine.rpc("bdev_get_histogram", name="m0")
        assert sum(counters(shown)) - before == 41
        assert shown["granularity"] == 7
        assert len(counters(shown)) == (shown["max_range"] - shown["min_range"] + 1) << 7
        ranges = [ns * shown["tsc_rate"] // 10**9 for ns in (1000, 10**9)]
        assert shown["min_range"] == max(0, ranges[0].bit_length() - 7)
        assert shown["max_range"] == (ranges[1] - 1).bit_length() - 7
        borders = engine.rpc("bdev_get_histogram_borders", name="m0", borders=[0, 500_000])["borders_count"]
        assert borders[1:] == [before + 41, before + 41]
        assert engine.rpc("bdev_get_histogram_borders", name="m0", borders=[]).keys() == shown.keys()

    play(port, story)


def test_a_slow_device_shows_in_the_histogram(engine: Any) -> None:
    engine.malloc("m0")
    engine.run(faults.delay_create("slow", "m0", avg_write_ns=5_000_000, p99_write_ns=5_000_000))
    port = engine.serve(NQN, "slow")

    async def story(space: HostNamespace) -> None:
        engine.run(histogram.enable("slow", io_type="write"))
        for lba in range(8):
            await space.write(lba, bytes(BLOCK))

    play(port, story)
    info = engine.run(histogram.get("slow"))
    assert info.count == 8
    assert info.percentile_ns(1) > 5_000_000
    assert engine.run(histogram.count_below("slow", [1_000_000, 2_000_000_000])) == (0, 8, 8)


def test_a_histogram_may_be_of_one_kind_and_ends(engine: Any) -> None:
    engine.malloc("m0")
    port = engine.serve(NQN, "m0")

    async def story(space: HostNamespace) -> None:
        engine.rpc("bdev_enable_histogram", name="m0", enable=True, opc="write", granularity=3)
        for lba in range(5):
            await space.write(lba, bytes(BLOCK))
            await space.read(lba, 1)
        shown = engine.rpc("bdev_get_histogram", name="m0")
        assert (sum(counters(shown)), shown["granularity"]) == (5, 3)
        engine.rpc("bdev_enable_histogram", name="m0", enable=False)
        assert engine.number("bdev_get_histogram", name="m0") == -32603
        engine.rpc("bdev_enable_histogram", name="m0", enable=True)
        assert sum(counters(engine.rpc("bdev_get_histogram", name="m0"))) == 0, "it begins afresh"

    play(port, story)


def test_histograms_that_there_are_not(engine: Any) -> None:
    engine.malloc("m0")
    assert engine.number("bdev_get_histogram", name="m0") == ENOMEM
    assert engine.number("bdev_get_histogram_borders", name="m0", borders=[1]) == ENOMEM
    assert engine.number("bdev_get_histogram", name="nobody") == ENODEV
    assert engine.number("bdev_enable_histogram", name="nobody", enable=True) == ENODEV
    assert engine.number("bdev_enable_histogram", name="m0") == -32603
    engine.serve(NQN, "m0")
    refused = {"enable": True, "min_nsec": 2000, "max_nsec": 2000}
    assert engine.number("bdev_enable_histogram", name="m0", **refused) == ENOMEM


def test_errors_are_counted_by_what_they_were(engine: Any) -> None:
    engine.malloc("m0")
    engine.rpc("bdev_error_create", base_name="m0")
    port = engine.serve(NQN, "EE_m0")

    async def story(space: HostNamespace) -> None:
        inject(engine, "read", "failure", num=2)
        for _ in range(2):
            await code_of(space.read(0, 1))
        inject(engine, "write", "nvme_failure", nvme_sct=2, nvme_sc=0x80)
        await code_of(space.write(0, bytes(BLOCK)))
        await space.write(0, bytes(BLOCK))

    play(port, story)
    (stat,) = engine.run(bdev.get_iostat(["EE_m0"])).bdevs
    assert (stat.io_errors, stat.write_ops) == ({"failed": 2, "nvme_error": 1}, 1)
    engine.rpc("bdev_reset_iostat", name="EE_m0", mode="error")
    (stat,) = engine.run(bdev.get_iostat(["EE_m0"])).bdevs
    assert (stat.io_errors, stat.write_ops) == ({}, 1)


# -- sizes that change


def resizes(engine: Any) -> list[str]:
    return [each["ctx"] for each in engine.rpc("notify_get_notifications") if each["type"] == "bdev_resize"]


def test_a_null_device_grows_and_says_so(engine: Any) -> None:
    engine.run(bdev.null_create("n0", block_size_bytes=BLOCK, size_bytes=2 * MIB))
    before = len(resizes(engine))
    engine.rpc("bdev_null_resize", name="n0", new_size=2)
    engine.rpc("bdev_null_resize", name="n0", new_size=3)
    assert engine.run(bdev.get_bdev("n0")).size_bytes == 3 * MIB
    assert resizes(engine)[before:] == ["n0"], "only what changed is told"
    assert engine.number("bdev_null_resize", name="n0", new_size=2) == EINVAL
    assert engine.number("bdev_null_resize", name="nobody", new_size=9) == ENODEV
    engine.malloc("m0")
    assert engine.number("bdev_null_resize", name="m0", new_size=9) == EINVAL
    (call,) = [each for each in engine.rpc("framework_get_config", name="bdev") if each["method"] == "bdev_null_create"]
    assert call["params"]["num_blocks"] == 3 * MIB // BLOCK


def test_a_file_that_grew_is_a_larger_device(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(MIB))
    engine.run(bdev.aio_create("a0", path=str(path), block_size_bytes=BLOCK))
    os.truncate(path, 2 * MIB)
    assert engine.run(bdev.get_bdev("a0")).size_bytes == MIB, "not before it is asked for"
    engine.rpc("bdev_aio_rescan", name="a0")
    assert engine.run(bdev.get_bdev("a0")).size_bytes == 2 * MIB
    os.truncate(path, MIB)
    assert engine.number("bdev_aio_rescan", name="a0") == EBUSY, "a device never shrinks"
    assert engine.run(bdev.get_bdev("a0")).size_bytes == 2 * MIB
    engine.malloc("m0")
    assert engine.number("bdev_aio_rescan", name="m0") == ENODEV
    assert engine.number("bdev_aio_rescan", name="nobody") == ENODEV


def test_a_file_that_is_empty_is_a_drive_that_was_pulled_out(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(MIB))
    engine.run(bdev.aio_create("a0", path=str(path), block_size_bytes=BLOCK))
    os.truncate(path, 0)
    engine.rpc("bdev_aio_rescan", name="a0")
    engine.until(bdev.get_bdevs(), lambda infos: not infos)


@pytest.mark.parametrize(("level", "legs", "mib"), [("raid1", 2, 2), ("raid0", 2, 4), ("concat", 2, 2)])
def test_a_set_grows_with_its_smallest_leg(engine: Any, level: str, legs: int, mib: int) -> None:
    names_of_legs = [f"n{leg}" for leg in range(legs)]
    for name in names_of_legs:
        engine.run(bdev.null_create(name, block_size_bytes=BLOCK, size_bytes=MIB))
    strip = None if level == "raid1" else 65536
    engine.run(raid.create("v", level=level, base_bdevs=names_of_legs, strip_size_bytes=strip))
    size = engine.run(bdev.get_bdev("v")).size_bytes
    engine.rpc("bdev_null_resize", name="n0", new_size=2)
    assert engine.run(bdev.get_bdev("v")).size_bytes == size
    engine.rpc("bdev_null_resize", name="n1", new_size=3)
    engine.until(bdev.get_bdev("v"), lambda info: info.size_bytes == mib * MIB)
    (info,) = engine.run(raid.get_bdevs())
    used = 1 if level == "concat" else 2
    assert [base.data_size_blocks for base in info.bases] == [used * MIB // BLOCK] * legs


def test_hosts_are_told_that_a_namespace_grew(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(MIB))
    engine.run(bdev.aio_create("a0", path=str(path), block_size_bytes=BLOCK))
    port = engine.serve(NQN, "a0")

    async def whole() -> None:
        async with asyncio.timeout(60), Host(HOST) as host:
            connection = await host.connect(NQN, [("127.0.0.1", port)], EAGER)
            space = connection.namespace(1)
            assert space.num_blocks == MIB // BLOCK
            os.truncate(path, 2 * MIB)
            await asyncio.to_thread(engine.rpc, "bdev_aio_rescan", name="a0")
            while space.num_blocks != 2 * MIB // BLOCK:
                await connection.change()
            await space.write(2 * MIB // BLOCK - 1, b"e" * BLOCK)

    asyncio.run(whole())
    assert path.read_bytes()[-BLOCK:] == b"e" * BLOCK


def test_a_node_sees_that_a_drive_of_the_shelf_grew(engine: Any, other: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(MIB))
    other.run(bdev.aio_create("a0", path=str(path), block_size_bytes=BLOCK))
    port = other.serve(NQN, "a0")
    engine.run(nvme.attach_controller_tcp("d0", address="127.0.0.1", port=port, subnqn=NQN, hostnqn=HOST))
    os.truncate(path, 2 * MIB)
    other.rpc("bdev_aio_rescan", name="a0")
    engine.until(bdev.get_bdev("d0n1"), lambda info: info.size_bytes == 2 * MIB)
    assert "d0n1" in resizes(engine)


# -- limits


def test_what_limits_hold_back_ends_with_the_device(engine: Any) -> None:
    engine.malloc("m0", size_mib=32)
    port = engine.serve(NQN, "m0")
    engine.run(bdev.set_qos_limit("m0", w_bytes_per_s=MIB))

    async def story(space: HostNamespace) -> None:
        writes = [asyncio.create_task(space.write(lba, bytes(128 * BLOCK))) for lba in range(0, 65536, 128)]
        await writes[0]
        await asyncio.to_thread(engine.run, bdev.malloc_delete("m0"))
        ended = await asyncio.gather(*writes, return_exceptions=True)
        assert any(isinstance(each, NvmeError) for each in ended), "32 MiB do not pass before that"

    play(port, story)
    assert names(engine) == set()
