"""A mirror that gets a leg back while hosts use it: what is shown, what a host meets, how it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from dataplane.embedded.initiator.host import Host, HostOptions
from dataplane.embedded.initiator.multipath import HostNamespace
from dataplane.embedded.initiator.reconnect import LossPolicy
from dataplane.nvme.status import NvmeError
from dataplane.rpc.methods import bdev, nvme, nvmf, raid

NQN = "nqn.2026-01.io.ws7000:contract:mirror"
SHELF = "nqn.2026-01.io.ws7000:contract:shelf"
HOST = "nqn.2026-01.io.ws7000:host:a"
BLOCK, KIB, MIB = 512, 1 << 10, 1 << 20
BLOCKS = 4 * MIB // BLOCK
EPERM, EIO, ENODEV, EINVAL = -1, -5, -19, -22
EAGER = HostOptions(loss=LossPolicy(ctrlr_loss_timeout_s=-1, reconnect_delay_s=0.05), retry_limit=0)
Story = Callable[[HostNamespace], Awaitable[None]]


@pytest.fixture(autouse=True)
def options(engine: Any) -> Iterator[None]:
    """Small windows; what a test set is taken back."""
    engine.run(raid.set_options(process_window_size_bytes=64 * KIB))
    yield
    engine.run(raid.set_options(process_window_size_bytes=MIB, process_max_bandwidth_bytes_per_s=0))


def slow(engine: Any) -> None:
    """A rebuild of 4 MiB takes seconds, so that a test meets it under way."""
    engine.run(raid.set_options(process_max_bandwidth_bytes_per_s=MIB))


def play(port: int, story: Story) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), Host(HOST) as host:
            await story((await host.connect(NQN, [("127.0.0.1", port)], EAGER)).namespace(1))

    asyncio.run(whole())


def pattern(seed: str, blocks: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(blocks * BLOCK)


def only(engine: Any) -> Any:
    """The one set."""
    (info,) = engine.run(raid.get_bdevs())
    return info


def settled(engine: Any) -> Any:
    """The one set, once nothing is rebuilt any more."""
    return engine.until(raid.get_bdevs(), lambda sets: not sets or sets[0].process is None)[0]


def mirror(engine: Any, *legs: str) -> None:
    """Set ``v`` over devices of 4 MiB, with the first one removed and added again: its rebuild begins."""
    for leg in legs:
        engine.malloc(leg)
    engine.run(raid.create("v", level="raid1", base_bdevs=legs))


def rebuilding(engine: Any, target: str) -> Any:
    """Add the leg; the set as it is shown once the rebuild runs."""
    engine.run(raid.add_base_bdev("v", target))
    (info,) = engine.until(raid.get_bdevs(), lambda sets: sets[0].process is not None)
    return info


def contents(engine: Any, name: str) -> bytes:
    """All blocks of a device that nothing else uses."""
    found = bytearray()
    nqn = f"{NQN}:{name}"
    port = engine.serve(nqn, name)

    async def whole() -> None:
        async with asyncio.timeout(60), Host(HOST) as host:
            space = (await host.connect(nqn, [("127.0.0.1", port)], EAGER)).namespace(1)
            for lba in range(0, space.num_blocks, 128):
                found.extend(await space.read(lba, min(128, space.num_blocks - lba)))

    asyncio.run(whole())
    engine.run(nvmf.delete_subsystem(nqn))
    return bytes(found)


def test_a_leg_that_left_is_filled_again_and_equal_afterwards(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    port = engine.serve(NQN, "v")

    async def write(space: HostNamespace) -> None:
        for lba in range(0, BLOCKS, 128):
            await space.write(lba, pattern(f"first {lba}", 128))
        await asyncio.to_thread(engine.run, raid.remove_base_bdev("m0"))
        for lba in range(1000, 3000, 100):
            await space.write(lba, pattern(f"alone {lba}", 40))

    play(port, write)
    assert [base.configured for base in only(engine).bases] == [False, True]
    engine.run(raid.add_base_bdev("v", "m0"))
    info = settled(engine)
    assert (info.discovered, info.operational, info.base_names) == (2, 2, ("m0", "m1"))
    engine.run(nvmf.delete_subsystem(NQN))
    engine.run(raid.delete("v"))
    first, second = contents(engine, "m0"), contents(engine, "m1")
    assert first == second
    assert first[1000 * BLOCK : 1040 * BLOCK] == pattern("alone 1000", 40)


def test_progress_is_shown_while_it_lasts(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    info = rebuilding(engine, "m0")
    assert (info.state, info.discovered, info.operational) == ("online", 2, 2)
    assert [base.configured for base in info.bases] == [True, True]
    assert (info.process.kind, info.process.target) == ("rebuild", "m0")
    seen = []
    while (process := only(engine).process) is not None:
        assert process.blocks_done % (64 * KIB // BLOCK) == 0
        assert process.percent_done == process.blocks_done * 100 // BLOCKS
        seen.append(process.blocks_done)
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert seen[-1] <= BLOCKS


def test_a_host_reads_what_it_wrote_all_the_time(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    port = engine.serve(NQN, "v")
    slow(engine)

    async def story(space: HostNamespace) -> None:
        model = bytearray()
        for lba in range(0, BLOCKS, 128):
            model += pattern(f"first {lba}", 128)
            await space.write(lba, bytes(model[-128 * BLOCK :]))
        await asyncio.to_thread(rebuilding, engine, "m0")
        lba = step = 0
        while (await asyncio.to_thread(only, engine)).process is not None:
            step += 1
            lba = (lba + 1777) % (BLOCKS - 128)
            data = pattern(f"{step}", 128)
            await space.write(lba, data)
            model[lba * BLOCK : (lba + 128) * BLOCK] = data
            if step % 3 == 0:
                await space.write_zeroes(lba + 5, 20)
                model[(lba + 5) * BLOCK : (lba + 25) * BLOCK] = bytes(20 * BLOCK)
            near = max(0, lba - 64)
            assert bytes(await space.read(near, 128)) == model[near * BLOCK : (near + 128) * BLOCK]
        assert step > 3
        for lba in range(0, BLOCKS, 128):
            assert bytes(await space.read(lba, 128)) == model[lba * BLOCK : (lba + 128) * BLOCK]

    play(port, story)
    engine.run(nvmf.delete_subsystem(NQN))
    engine.run(raid.delete("v"))
    assert contents(engine, "m0") == contents(engine, "m1")


def test_only_one_leg_is_rebuilt_at_a_time(engine: Any) -> None:
    mirror(engine, "m0", "m1", "m2")
    engine.run(raid.remove_base_bdev("m0"))
    engine.run(raid.remove_base_bdev("m1"))
    slow(engine)
    rebuilding(engine, "m0")
    assert engine.refused(raid.add_base_bdev("v", "m1")).number == EPERM
    engine.run(raid.set_options(process_max_bandwidth_bytes_per_s=0))
    settled(engine)
    engine.run(raid.add_base_bdev("v", "m1"))
    assert settled(engine).operational == 3


def test_what_cannot_become_a_leg(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.malloc("small", 2)
    engine.malloc("other")
    engine.run(bdev.malloc_create("wide", block_size_bytes=4096, size_bytes=4 * MIB))
    assert engine.refused(raid.add_base_bdev("v", "other")).number == EINVAL, "no empty place"
    engine.run(raid.remove_base_bdev("m0"))
    assert engine.refused(raid.add_base_bdev("v", "nobody")).number == ENODEV
    assert engine.refused(raid.add_base_bdev("v", "m1")).number == EPERM, "it is a leg already"
    assert engine.refused(raid.add_base_bdev("v", "small")).number == EINVAL
    assert engine.refused(raid.add_base_bdev("v", "wide")).number == EINVAL
    assert engine.refused(raid.add_base_bdev("nowhere", "other")).number == ENODEV
    info = only(engine)
    assert (info.state, info.operational, info.base_names) == ("online", 1, ("", "m1"))
    engine.run(raid.add_base_bdev("v", "other"))
    assert settled(engine).base_names == ("other", "m1")


def test_the_target_may_leave_and_come_again(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    for _ in range(3):
        rebuilding(engine, "m0")
        engine.run(raid.remove_base_bdev("m0"))
        info = only(engine)
        assert (info.state, info.process, info.operational, info.base_names) == ("online", None, 1, ("", "m1"))
        assert not engine.run(bdev.get_bdev("m0")).claimed
    engine.run(raid.set_options(process_max_bandwidth_bytes_per_s=0))
    engine.run(raid.add_base_bdev("v", "m0"))
    assert settled(engine).operational == 2


def test_a_target_that_is_deleted_leaves(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    rebuilding(engine, "m0")
    engine.run(bdev.malloc_delete("m0"))
    info = only(engine)
    assert (info.state, info.process, info.operational, info.base_names) == ("online", None, 1, ("", "m1"))


def test_without_the_last_leg_to_copy_from_the_set_ends(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    rebuilding(engine, "m0")
    engine.run(raid.remove_base_bdev("m1"))
    assert engine.run(raid.get_bdevs()) == ()
    assert {info.name for info in engine.run(bdev.get_bdevs())} == {"m0", "m1"}
    assert not any(info.claimed for info in engine.run(bdev.get_bdevs()))


def test_with_another_leg_to_copy_from_the_rebuild_goes_on(engine: Any) -> None:
    mirror(engine, "m0", "m1", "m2")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    rebuilding(engine, "m0")
    engine.run(raid.remove_base_bdev("m1"))
    info = only(engine)
    assert (info.process.target, info.operational, info.base_names) == ("m0", 2, ("m0", "", "m2"))
    engine.run(raid.set_options(process_max_bandwidth_bytes_per_s=0))
    assert settled(engine).operational == 2


def test_a_set_may_be_deleted_while_it_rebuilds(engine: Any) -> None:
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    slow(engine)
    rebuilding(engine, "m0")
    engine.run(raid.delete("v"))
    assert engine.run(raid.get_bdevs()) == ()
    assert {(info.name, info.claimed) for info in engine.run(bdev.get_bdevs())} == {("m0", False), ("m1", False)}


def test_a_leg_that_is_a_drive_goes_with_its_namespace(engine: Any, other: Any) -> None:
    """Hot removal: the shelf takes the namespace away while the set rebuilds onto it."""
    other.malloc("m0")
    port = other.serve(SHELF, "m0")
    engine.run(nvme.attach_controller_tcp("d0", address="127.0.0.1", port=port, subnqn=SHELF, hostnqn=HOST))
    engine.malloc("m1")
    engine.run(raid.create("v", level="raid1", base_bdevs=["d0n1", "m1"]))
    engine.run(raid.remove_base_bdev("d0n1"))
    slow(engine)
    rebuilding(engine, "d0n1")
    other.run(nvmf.remove_ns(SHELF, 1))
    (info,) = engine.until(raid.get_bdevs(), lambda sets: sets[0].operational == 1)
    assert (info.state, info.process, info.base_names) == ("online", None, ("", "m1"))
    engine.until(bdev.get_bdevs(), lambda infos: "d0n1" not in {info.name for info in infos})


@pytest.mark.parametrize("at_once", [True, False])
def test_a_target_that_cannot_be_used_leaves(engine: Any, at_once: bool) -> None:
    """Unreadable when it is added: refused.  Unwritable later: the rebuild ends and the leg is given back."""
    mirror(engine, "m0", "m1")
    engine.run(raid.remove_base_bdev("m0"))
    engine.malloc("bad")
    engine.rpc("bdev_error_create", base_name="bad")
    kind = "read" if at_once else "write"
    engine.rpc("bdev_error_inject_error", name="EE_bad", io_type=kind, error_type="failure", num=1)
    if at_once:
        assert engine.refused(raid.add_base_bdev("v", "EE_bad")).number == EIO
    else:
        engine.run(raid.add_base_bdev("v", "EE_bad"))
        engine.until(raid.get_bdevs(), lambda sets: sets[0].operational == 1 and sets[0].process is None)
    info = only(engine)
    assert (info.state, info.base_names) == ("online", ("", "m1"))
    assert not engine.run(bdev.get_bdev("EE_bad")).claimed


def test_a_read_error_of_the_last_leg_to_copy_from_ends_the_set(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("bad")
    engine.rpc("bdev_error_create", base_name="bad")
    engine.run(raid.create("v", level="raid1", base_bdevs=["m0", "EE_bad"]))
    engine.run(raid.remove_base_bdev("m0"))
    engine.rpc("bdev_error_inject_error", name="EE_bad", io_type="read", error_type="failure", num=1)
    engine.run(raid.add_base_bdev("v", "m0"))
    engine.until(raid.get_bdevs(), lambda sets: not sets)
    assert not any(engine.run(bdev.get_bdev(name)).claimed for name in ("m0", "EE_bad"))


def test_above_the_mark_a_host_reads_only_from_legs_that_are_equal(engine: Any) -> None:
    """The target's blocks are other ones, and it is asked for none of them before they are copied."""
    mirror(engine, "m0", "m1")
    port = engine.serve(NQN, "v")
    slow(engine)

    async def story(space: HostNamespace) -> None:
        last = BLOCKS - 128
        await space.write(last, pattern("old", 128))
        await asyncio.to_thread(engine.run, raid.remove_base_bdev("m0"))
        await space.write(last, pattern("new", 128))
        await asyncio.to_thread(rebuilding, engine, "m0")
        reads = await asyncio.gather(*(space.read(last, 128) for _ in range(16)))
        assert {bytes(data) for data in reads} == {pattern("new", 128)}
        with pytest.raises(NvmeError):
            await space.read(BLOCKS, 1)

    play(port, story)
