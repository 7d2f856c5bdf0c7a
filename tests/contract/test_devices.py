"""Devices, splits, sets, limits and counters: made, read back, taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataplane.rpc.methods import bdev, framework, raid
from dataplane.rpc.values import QosLimits, SplitConfig

UUID = "22222222-2222-4222-8222-222222222222"
MIB = 1 << 20
EPERM, ENODEV = -1, -19


def names(engine: Any) -> set[str]:
    return {info.name for info in engine.run(bdev.get_bdevs())}


@pytest.mark.parametrize("kind", ["malloc", "null"])
def test_a_device_of_the_engine_keeps_what_it_was_given(engine: Any, kind: str) -> None:
    create, delete = (
        (bdev.malloc_create, bdev.malloc_delete) if kind == "malloc" else (bdev.null_create, bdev.null_delete)
    )
    assert engine.run(create("d", block_size_bytes=4096, size_bytes=4 * MIB, uuid=UUID)) == "d"
    info = engine.run(bdev.get_bdev("d"))
    assert (info.name, info.uuid, info.block_size_bytes, info.size_bytes) == ("d", UUID, 4096, 4 * MIB)
    assert (info.claimed, info.product_name) == (False, f"{kind.capitalize()} disk")
    assert {"read", "write", "write_zeroes"} <= info.io_types
    assert engine.run(bdev.get_bdev(UUID)).name == "d"
    engine.run(delete("d"))
    assert engine.refused(bdev.get_bdev("d")).no_such_device


def test_a_file_is_a_device_and_stays_when_that_goes(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(b"\xa5" * MIB)
    assert engine.run(bdev.aio_create("a", path=str(path), block_size_bytes=4096, fallocate=True, uuid=UUID)) == "a"
    info = engine.run(bdev.get_bdev("a"))
    assert (info.uuid, info.size_bytes, info.aio_path, info.product_name) == (UUID, MIB, str(path), "AIO disk")
    assert {"unmap", "write_zeroes", "flush"} <= info.io_types
    engine.run(bdev.aio_delete("a"))
    assert names(engine) == set()
    assert path.read_bytes() == b"\xa5" * MIB


def test_without_fallocate_a_file_does_not_unmap(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(MIB))
    engine.run(bdev.aio_create("a", path=str(path), block_size_bytes=4096))
    assert "unmap" not in engine.run(bdev.get_bdev("a")).io_types


def test_a_split_cuts_from_the_beginning_and_claims_its_base(engine: Any) -> None:
    engine.malloc("s", 8)
    assert engine.run(bdev.split_create("s", count=3, size_bytes=2 * MIB)) == ("sp0", "sp1", "sp2")
    for index in range(3):
        part = engine.run(bdev.get_bdev(f"sp{index}"))
        assert (part.split_base, part.split_offset_blocks, part.size_bytes) == ("s", index * 4096, 2 * MIB)
    assert engine.run(bdev.get_bdev("s")).claimed
    assert engine.refused(bdev.get_bdev("sp3")).no_such_device
    engine.run(bdev.split_delete("s"))
    assert names(engine) == {"s"}
    assert not engine.run(bdev.get_bdev("s")).claimed


def test_parts_of_equal_drives_have_equal_uuids_on_every_engine_life(engine: Any) -> None:
    """A slice's UUID follows from the base's UUID and its offset, so two nodes see the same one."""
    seen = []
    for _ in range(2):
        engine.malloc("s", 4, UUID)
        engine.run(bdev.split_create("s", count=2, size_bytes=2 * MIB))
        seen.append([engine.run(bdev.get_bdev(f"sp{index}")).uuid for index in range(2)])
        engine.run(bdev.split_delete("s"))
        engine.run(bdev.malloc_delete("s"))
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 2


@pytest.mark.parametrize(
    ("level", "strip_bytes", "blocks"), [("raid0", 65536, 16384), ("concat", 65536, 16384), ("raid1", None, 8192)]
)
def test_a_set_over_two_devices(engine: Any, level: str, strip_bytes: int | None, blocks: int) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    call = raid.create("v", level=level, base_bdevs=["m0", "m1"], strip_size_bytes=strip_bytes, uuid=UUID)
    engine.run(call)
    (info,) = engine.run(raid.get_bdevs())
    assert (info.name, info.level, info.uuid, info.state) == ("v", level, UUID, "online")
    assert (info.strip_size_bytes, info.base_names, info.superblock) == (strip_bytes or 0, ("m0", "m1"), False)
    assert (info.num_bases, info.discovered, info.operational) == (2, 2, 2)
    assert all(base.configured and base.data_size_blocks == 8192 for base in info.bases)
    device = engine.run(bdev.get_bdev("v"))
    assert (device.uuid, device.num_blocks) == (UUID, blocks)
    assert engine.run(bdev.get_bdev("m0")).claimed
    assert engine.refused(raid.create("w", level="raid1", base_bdevs=["m0", "m1"])).number == EPERM
    engine.run(raid.delete("v"))
    assert names(engine) == {"m0", "m1"}
    assert not engine.run(bdev.get_bdev("m0")).claimed
    assert engine.refused(raid.delete("v")).number == ENODEV


def test_sets_stand_on_sets(engine: Any) -> None:
    for index in range(4):
        engine.malloc(f"m{index}")
    engine.run(raid.create("leg0", level="raid1", base_bdevs=["m0", "m1"]))
    engine.run(raid.create("leg1", level="raid1", base_bdevs=["m2", "m3"]))
    engine.run(raid.create("v", level="raid0", base_bdevs=["leg0", "leg1"], strip_size_bytes=65536, uuid=UUID))
    sets = {info.name: info for info in engine.run(raid.get_bdevs("online"))}
    assert {name: info.base_names for name, info in sets.items()} == {
        "leg0": ("m0", "m1"), "leg1": ("m2", "m3"), "v": ("leg0", "leg1"),
    }  # fmt: skip
    assert engine.run(bdev.get_bdev("v")).num_blocks == 16384
    assert engine.run(bdev.get_bdev("leg0")).claimed


def test_a_set_waits_for_its_bases(engine: Any) -> None:
    """Made before its devices are there, it is ``configuring``.  As engines of an array start without examining,
    it goes online when the device that came late is examined, not before."""
    engine.malloc("m0")
    engine.run(raid.create("v", level="raid1", base_bdevs=["m0", "m1"], uuid=UUID))
    (info,) = engine.run(raid.get_bdevs("configuring"))
    assert [base.configured for base in info.bases] == [True, False]
    assert "v" not in names(engine)
    engine.malloc("m1")
    assert engine.run(raid.get_bdevs("online")) == ()
    engine.rpc("bdev_examine", name="m1")
    engine.run(bdev.wait_for_examine())
    assert engine.run(raid.get_bdevs("online"))[0].name == "v"
    assert engine.run(bdev.get_bdev("v")).uuid == UUID


def test_a_mirror_that_loses_a_leg_stays_and_shows_the_gap(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    engine.run(raid.create("v", level="raid1", base_bdevs=["m0", "m1"]))
    engine.run(bdev.malloc_delete("m1"))
    (info,) = engine.run(raid.get_bdevs())
    assert (info.state, info.operational, [base.configured for base in info.bases]) == ("online", 1, [True, False])


def test_a_stripe_that_loses_a_column_is_gone(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    engine.run(raid.create("v", level="raid0", base_bdevs=["m0", "m1"], strip_size_bytes=65536))
    engine.run(bdev.malloc_delete("m1"))
    assert "v" not in names(engine)
    assert [info.state for info in engine.run(raid.get_bdevs())] in ([], ["offline"])


def test_limits_are_set_read_and_taken_away(engine: Any) -> None:
    """On an exported device, as volumes are: SPDK answers EAGAIN to a second change of one that nobody has open."""
    engine.malloc("m0")
    engine.serve("nqn.2026-01.io.ws7000:contract:limited", "m0")
    engine.run(bdev.set_qos_limit("m0", rw_ios_per_s=5000, r_bytes_per_s=8 * MIB))
    assert engine.run(bdev.get_bdev("m0")).qos == QosLimits(rw_ios_per_s=5000, r_bytes_per_s=8 * MIB)
    engine.run(bdev.set_qos_limit("m0", rw_ios_per_s=1500))
    assert engine.run(bdev.get_bdev("m0")).qos.rw_ios_per_s == 2000, "raised to a multiple of 1000"
    engine.run(bdev.set_qos_limit("m0", rw_ios_per_s=0, rw_bytes_per_s=0, r_bytes_per_s=0, w_bytes_per_s=0))
    assert engine.run(bdev.get_bdev("m0")).qos == QosLimits()


def test_the_configuration_tells_the_limits_in_force_of_all_devices_at_once(engine: Any) -> None:
    """What the device says and what the configuration says is the same, rounding included."""
    for name in ("m0", "m1", "m2"):
        engine.malloc(name)
    for name in ("m0", "m1"):
        engine.serve(f"nqn.2026-01.io.ws7000:contract:limited-{name}", name)
    engine.run(bdev.set_qos_limit("m0", rw_ios_per_s=1500, rw_bytes_per_s=9 * MIB, r_bytes_per_s=8 * MIB))
    engine.run(bdev.set_qos_limit("m1", w_bytes_per_s=MIB))
    found = bdev.limits_in_config(engine.run(framework.get_config("bdev")))
    assert found == {name: engine.run(bdev.get_bdev(name)).qos for name in ("m0", "m1")}
    assert found["m0"].rw_ios_per_s == 2000
    engine.run(bdev.set_qos_limit("m1", w_bytes_per_s=0))
    assert set(bdev.limits_in_config(engine.run(framework.get_config("bdev")))) == {"m0"}


def test_the_configuration_tells_how_many_parts_were_asked_for_as_long_as_there_are_parts(engine: Any) -> None:
    """Not how many fitted; an entry goes with the parts, whether they are taken away or their base is."""

    def splits() -> dict[str, SplitConfig]:
        return bdev.splits_in_config(engine.run(framework.get_config("bdev")))

    engine.malloc("s")
    engine.malloc("t")
    assert splits() == {}
    engine.run(bdev.split_create("s", count=2, size_bytes=MIB))
    made = engine.run(bdev.split_create("t", count=9999, size_bytes=MIB))
    assert splits() == {"s": SplitConfig(count=2, part_bytes=MIB), "t": SplitConfig(count=9999, part_bytes=MIB)}
    assert len(made) == engine.run(bdev.get_bdev("t")).size_bytes // MIB
    engine.run(bdev.split_delete("t"))
    assert set(splits()) == {"s"}
    engine.run(bdev.malloc_delete("s"))
    assert splits() == {}


def test_counters_of_the_named_devices(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    info = engine.run(bdev.get_iostat(["m0"]))
    assert [stat.name for stat in info.bdevs] == ["m0"]
    assert info.tick_rate_hz > 0
    assert (info.bdevs[0].bytes_written, info.bdevs[0].write_ops) == (0, 0)
    assert {stat.name for stat in engine.run(bdev.get_iostat()).bdevs} == {"m0", "m1"}
