"""Answers of methods; every expected answer was read from SPDK v26.05 (nvmf_tgt) with the same calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NO_DECODE = "spdk_json_decode_object failed"
U = "11111111-2222-4333-8444-555555555555"

INVALID = (-22, "Invalid argument")
PARSE = (-32700, NO_DECODE)
NOT_SUPPORTED = (-95, "Operation not supported")
SPLIT = "Failed to create {} split bdevs from '{}'"
RAID = "Failed to create RAID bdev r"
RAID_INVALID = (-22, f"{RAID}: Invalid argument")
RAID_EXISTS = (-17, "Failed to create RAID bdev n: File exists")
EMPTY_LEG = (-22, "The base bdev name cannot be empty: Invalid argument")


def raid(name: str, level: str, bases: list[str], strip_size_kb: int | None = None) -> dict[str, object]:
    params: dict[str, object] = {"name": name, "raid_level": level, "base_bdevs": bases}
    return params if strip_size_kb is None else params | {"strip_size_kb": strip_size_kb}


REFUSED: list[tuple[str, dict[str, object], tuple[int, str]]] = [
    ("spdk_get_version", {"x": 1}, (-32602, "spdk_get_version method requires no parameters")),
    ("nosuch", {}, (-32601, "Method not found")),
    ("rpc_get_methods", {"x": 1}, (-32602, "Invalid parameters")),
    ("bdev_aio_create", {}, (-32603, NO_DECODE)),
    ("bdev_aio_create", {"name": "b", "filename": "F"}, INVALID),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 100}, INVALID),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 1000}, INVALID),
    ("bdev_aio_create", {"name": "b", "filename": "/no/x", "block_size": 512}, (-2, "No such file or directory")),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 512, "zz": 1}, (-32603, NO_DECODE)),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 512, "nowait": True}, NOT_SUPPORTED),
    ("bdev_aio_create", {"name": "", "filename": "F", "block_size": 512}, INVALID),
    ("bdev_aio_create", {"name": "b", "filename": "D", "block_size": 512}, (-21, "Is a directory")),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 512, "uuid": "zz"}, (-32603, NO_DECODE)),
    ("bdev_aio_create", {"name": "a", "filename": "F", "block_size": 512}, (-17, "File exists")),
    ("bdev_aio_create", {"name": "b", "filename": "F", "block_size": 512, "uuid": U}, (-17, "File exists")),
    ("bdev_aio_delete", {"name": "zz"}, (-19, "No such device")),
    ("bdev_null_delete", {"name": "a"}, (-19, "No such device")),
    ("bdev_get_bdevs", {"name": "zz"}, (-19, "No such device")),
    ("bdev_get_bdevs", {"name": "zz", "timeout": 1}, (-110, "Connection timed out")),
    ("bdev_get_bdevs", {"foo": 1}, (-32603, NO_DECODE)),
    ("bdev_malloc_create", {"num_blocks": 0, "block_size": 512}, INVALID),
    ("bdev_malloc_create", {"num_blocks": 16, "block_size": 500}, INVALID),
    ("bdev_malloc_create", {"num_blocks": 16, "block_size": 0}, (-12, "Cannot allocate memory")),
    ("bdev_null_create", {"name": "n2", "num_blocks": 9, "block_size": 512, "md_size": 7}, INVALID),
    ("bdev_null_create", {"num_blocks": 1}, (-32603, NO_DECODE)),
    ("bdev_split_create", {"base_bdev": "z", "split_count": 0}, (-32602, f"{SPLIT.format(0, 'z')}: Invalid argument")),
    ("bdev_split_create", {"base_bdev": "a", "split_count": 4}, (-32602, f"{SPLIT.format(4, 'a')}: File exists")),
    ("bdev_split_create", {"base_bdev": "n"}, (-32602, "Invalid parameters")),
    ("bdev_split_delete", {"base_bdev": "zz"}, (-32602, "No such file or directory")),
    ("bdev_raid_get_bdevs", {"category": "bogus"}, PARSE),
    ("bdev_raid_create", raid("r", "raid9", ["n"], 4), PARSE),
    ("bdev_raid_create", raid("r", "raid0", ["n"]), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid0", ["n"], 63), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid0", ["ap0"], 2), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid0", [], 4), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid0", [""], 4), EMPTY_LEG),
    ("bdev_raid_create", raid("r", "raid0", ["n", "n"], 4), (-1, f"{RAID}: Operation not permitted")),
    ("bdev_raid_create", raid("r", "raid0", ["ap0", "n"], 4), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid5f", ["x", "y", "z"], 4), RAID_INVALID),
    ("bdev_raid_create", raid("r", "raid1", ["x", "y"], 4), RAID_INVALID),
    ("bdev_raid_create", raid("n", "raid0", ["ap0"], 4), RAID_EXISTS),
    ("bdev_raid_delete", {"name": "zz"}, (-19, "raid bdev zz not found")),
    ("bdev_raid_delete", {}, PARSE),
    ("bdev_raid_add_base_bdev", {"raid_bdev": "zz", "base_bdev": "n"}, (-19, "raid bdev zz is not found in config")),
    ("bdev_raid_add_base_bdev", {}, (-32603, NO_DECODE)),
    ("bdev_raid_remove_base_bdev", {"name": "n"}, (-19, "Failed to remove base bdev from raid bdev")),
    ("bdev_raid_remove_base_bdev", {"name": "zz"}, (-19, "Failed to remove base bdev from raid bdev")),
    ("bdev_raid_set_options", {"process_window_size_kb": 0}, INVALID),
    ("bdev_set_qos_limit", {"name": "a"}, (-22, "No rate limits specified")),
    ("bdev_set_qos_limit", {"name": "zz", "rw_ios_per_sec": 1}, (-19, "No such device")),
    ("bdev_examine", {"name": "a"}, INVALID),
    ("bdev_examine", {}, (-32602, NO_DECODE)),
    ("bdev_wait_for_examine", {"x": 1}, (-32602, "bdev_wait_for_examine requires no parameters")),
    ("bdev_get_iostat", {"name": "a"}, (-32603, NO_DECODE)),
    ("bdev_get_iostat", {"names": ["zz"]}, (-19, "No such device")),
    ("bdev_get_iostat", {"names": ["n", "a"], "per_channel": True}, INVALID),
    ("bdev_reset_iostat", {"mode": "x"}, (-32603, NO_DECODE)),
    ("notify_get_types", {"x": 1}, (-32602, "No parameters required")),
    ("notify_get_notifications", {"x": 2}, (-32602, "Invalid argument")),
    ("framework_get_subsystems", {"x": 1}, (-32602, "'framework_get_subsystems' requires no arguments")),
    ("framework_get_config", {"name": "zz"}, (-32602, "Subsystem 'zz' not found")),
    ("framework_get_config", {}, (-32602, "Invalid arguments")),
    ("framework_get_reactors", {"x": 1}, (-32602, "`framework_get_reactors` requires no arguments")),
    ("framework_set_scheduler", {"name": "bogus"}, (-32603, "Unknown error -22")),
    ("framework_set_scheduler", {}, (-32602, "Invalid parameters")),
    ("sock_impl_get_options", {"impl_name": "zz"}, (-32602, "Invalid parameters")),
    ("log_set_level", {"level": "error"}, (-32603, NO_DECODE)),
    ("thread_get_stats", {"x": 1}, (-32602, "'thread_get_stats' requires no arguments")),
    ("spdk_kill_instance", {"sig_name": "SIGFOO"}, (-32602, "Invalid parameters")),
]  # fmt: skip


async def prepared(make_engine: Callable[[], Any], tmp_path: Path) -> tuple[Any, Any]:
    """A file bdev ``a`` of 4096 byte blocks in four parts, and a null bdev ``n`` of 512."""
    engine, call = make_engine()
    drive = tmp_path / "drive"
    with drive.open("wb") as file:
        file.truncate(64 << 20)
    await call("bdev_aio_create", name="a", filename=str(drive), block_size=4096, uuid=U)
    await call("bdev_split_create", base_bdev="a", split_count=4, split_size_mb=4)
    await call("bdev_null_create", name="n", num_blocks=100, block_size=512)
    return engine, call


@pytest.mark.parametrize(("method", "params", "answer"), REFUSED, ids=lambda value: str(value)[:60])
def test_refusals(
    make_engine: Callable[[], Any],
    tmp_path: Path,
    method: str,
    params: dict[str, object],
    answer: tuple[int, str],
) -> None:
    async def run() -> object:
        engine, call = await prepared(make_engine, tmp_path)
        files = {"F": str(tmp_path / "drive"), "D": str(tmp_path)}
        given = {key: files.get(str(value), value) for key, value in params.items()}
        found = await call(method, **given)
        await engine.close()
        return found

    assert asyncio.run(run()) == answer


def test_a_bdev_as_it_is_shown(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> list[Any]:
        engine, call = await prepared(make_engine, tmp_path)
        await call("bdev_set_qos_limit", name="a", rw_ios_per_sec=1500, rw_mbytes_per_sec=3)
        shown = [(await call("bdev_get_bdevs", name=name))[0] for name in ("a", "ap1")]
        await engine.close()
        return shown

    drive, part = asyncio.run(run())
    yes = {"read", "write", "flush", "reset", "write_zeroes"}
    assert {kind for kind, supported in drive.pop("supported_io_types").items() if supported} == yes
    assert drive == {
        "name": "a",
        "aliases": [U],
        "product_name": "AIO disk",
        "block_size": 4096,
        "num_blocks": 16384,
        "preferred_write_alignment": 0,
        "preferred_write_granularity": 0,
        "optimal_write_size": 0,
        "preferred_unmap_alignment": 0,
        "preferred_unmap_granularity": 0,
        "uuid": U,
        "assigned_rate_limits": {
            "rw_ios_per_sec": 2000,
            "rw_mbytes_per_sec": 3,
            "r_mbytes_per_sec": 0,
            "w_mbytes_per_sec": 0,
        },
        "claimed": True,
        "claim_type": "exclusive_write",
        "zoned": False,
        "driver_specific": {
            "aio": {
                "filename": str(tmp_path / "drive"),
                "block_size_override": True,
                "readonly": False,
                "fallocate": False,
                "nowait": False,
            }
        },
    }
    assert part["uuid"] == "5b6b6e1d-1ec1-5969-a7e2-b438ac852119"
    assert part["driver_specific"] == {"split": {"base_bdev": "a", "offset_blocks": 1024}}


def test_the_configuration_brings_everything_back(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    async def run() -> tuple[Any, Any]:
        engine, call = await prepared(make_engine, tmp_path)
        bases = ["ap0", "ap1"]
        await call("bdev_raid_create", name="r", raid_level="raid0", strip_size_kb=64, base_bdevs=bases)
        await call("bdev_set_qos_limit", name="r", r_mbytes_per_sec=7)
        before = await call("bdev_get_bdevs")
        calls: Any = await call("framework_get_config", name="bdev")
        await engine.close()
        again, call_again = make_engine()
        for each in calls[1:]:  # bdev_set_options is of the state before
            if each["method"] != "bdev_nvme_set_options" and each["method"] != "bdev_nvme_set_hotplug":
                assert not isinstance(await call_again(each["method"], **each.get("params", {})), tuple), each
        after = await call_again("bdev_get_bdevs")
        await again.close()
        return before, after

    before, after = asyncio.run(run())
    assert sorted(before, key=lambda bdev: bdev["name"]) == sorted(after, key=lambda bdev: bdev["name"])


def test_notifications(make_engine: Callable[[], Any]) -> None:
    async def run() -> list[Any]:
        _, call = make_engine()
        await call("bdev_null_create", name="n", num_blocks=8, block_size=512)
        await call("bdev_split_create", base_bdev="n", split_count=2)
        await call("bdev_null_delete", name="n")
        return [await call("notify_get_notifications"), await call("notify_get_notifications", id=4, max=1)]

    everything, one = asyncio.run(run())
    assert [(each["id"], each["type"][5:], each["ctx"]) for each in everything] == [
        (0, "register", "n"),
        (1, "register", "np0"),
        (2, "register", "np1"),
        (3, "unregister", "np0"),
        (4, "unregister", "np1"),
        (5, "unregister", "n"),
    ]
    assert one == [{"type": "bdev_unregister", "ctx": "np1", "id": 4}]


def test_keys_are_checked_named_and_never_shown(make_engine: Callable[[], Any], tmp_path: Path) -> None:
    good, loose = tmp_path / "good", tmp_path / "loose"
    for path, mode in ((good, 0o600), (loose, 0o640)):
        path.write_text("NVMeTLSkey-1:01:secret:")
        path.chmod(mode)

    async def run() -> list[Any]:
        _, call = make_engine()
        return [
            await call("keyring_file_add_key", name="k", path="rel"),
            await call("keyring_file_add_key", name="k", path=str(tmp_path / "none")),
            await call("keyring_file_add_key", name="k", path=str(loose)),
            await call("keyring_file_add_key", name="k"),
            await call("keyring_file_add_key", name="k", path=str(good), unknown=1),
            await call("keyring_file_add_key", name=":k", path=str(good)),
            await call("keyring_file_add_key", name="x:k", path=str(good)),
            await call("keyring_get_keys"),
            await call("keyring_file_remove_key", name="k"),
            await call("keyring_file_remove_key", name="k"),
        ]

    answers = asyncio.run(run())
    shown = {"name": "k", "module": "keyring_file", "removed": False, "probed": False, "refcnt": 1, "path": str(good)}
    assert answers == [
        (-1, "Operation not permitted"),
        (-2, "No such file or directory"),
        (-1, "Operation not permitted"),
        (-32602, "Invalid argument"),
        True,
        (-17, "File exists"),
        (-22, "Invalid argument"),
        [shown],
        True,
        (-126, "Required key not available"),
    ]
