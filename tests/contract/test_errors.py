"""What every engine refuses, with the number that SPDK v26.05 answers, and that a refused call changes nothing.

The planner reads numbers: ENODEV of a bdev method means "not there"; the nvmf methods answer INVALID and INTERNAL
for several things, so it reads first.  Each row is a method, the number, and parameters that are wrong in one way.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import Ws7000Error
from dataplane.rpc.errors import RpcError
from dataplane.rpc.methods import bdev, keyring, nvmf, raid

WORLD = "nqn.2026-01.io.ws7000:contract:world"
MISSING = "nqn.2026-01.io.ws7000:contract:missing"
HOST = "nqn.2026-01.io.ws7000:host:a"
UUID = "11111111-1111-4111-8111-111111111111"

PARSE, INVALID, INTERNAL, UNKNOWN = -32700, -32602, -32603, -32601
PHASE = -1
EPERM, ENOENT, EIO = -errno.EPERM, -errno.ENOENT, -errno.EIO
EEXIST, ENODEV, EINVAL, ENOKEY = -errno.EEXIST, -errno.ENODEV, -errno.EINVAL, -errno.ENOKEY
EISDIR, ETIMEDOUT = -errno.EISDIR, -errno.ETIMEDOUT

Row = tuple[str, int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class World:
    """What the rows refer to: the port of the listener, a port without one, a folder with files."""

    port: int
    free: int
    folder: Path


def build(engine: Any, folder: Path, free: int) -> World:
    """One of everything."""
    for name, size in (("a0", 1 << 20), ("odd", 1000)):
        (folder / name).write_bytes(bytes(size))
    for name, mode in (("k0", 0o600), ("open", 0o644)):
        (folder / name).write_text("x")
        os.chmod(folder / name, mode)
    for name, size_mib in (("m0", 4), ("m1", 4), ("m2", 4), ("s0", 8)):
        engine.malloc(name, size_mib, UUID if name == "m0" else None)
    engine.run(bdev.null_create("n0", block_size_bytes=512, size_bytes=4 << 20))
    engine.run(bdev.null_create("n4k", block_size_bytes=4096, size_bytes=4 << 20))
    engine.run(bdev.aio_create("a0", path=str(folder / "a0"), block_size_bytes=512))
    engine.run(bdev.split_create("s0", count=2, size_bytes=2 << 20))
    engine.run(raid.create("r0", level="raid1", base_bdevs=["m1", "m2"]))
    engine.run(keyring.file_add_key("k0", str(folder / "k0")))
    engine.subsystem(WORLD)
    engine.namespace(WORLD, "r0", 1)
    engine.namespace(WORLD, "n0", 2, auto_visible=False)
    engine.run(nvmf.ns_add_host(WORLD, 2, HOST))
    engine.run(nvmf.add_host(WORLD, HOST))
    return World(engine.listen(WORLD, "inaccessible"), free, folder)


def at(port: int, **other: str) -> dict[str, str]:
    """An address on loopback, wrong where ``other`` says so."""
    return {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(port), **other}


def rows(w: World) -> list[Row]:
    """Every wrong call."""
    return [*device_rows(w), *drive_rows(w), *target_rows(w), *process_rows(w)]


def device_rows(w: World) -> list[Row]:
    """Devices, splits and sets."""
    return [
        ("bdev_get_bdevs", ENODEV, {"name": "zz"}),
        ("bdev_get_bdevs", ETIMEDOUT, {"name": "zz", "timeout": 1}),
        ("bdev_malloc_create", EEXIST, {"name": "m0", "block_size": 512, "num_blocks": 8}),
        ("bdev_malloc_create", EEXIST, {"name": "x", "block_size": 512, "num_blocks": 8, "uuid": UUID}),
        ("bdev_malloc_create", EINVAL, {"name": "x", "block_size": 100, "num_blocks": 8}),
        ("bdev_malloc_create", EINVAL, {"name": "x", "block_size": 512, "num_blocks": 0}),
        ("bdev_malloc_create", INTERNAL, {"name": "x", "block_size": 512, "num_blocks": 8, "uuid": "1"}),
        ("bdev_malloc_create", INTERNAL, {"name": "x", "block_size": 512}),
        ("bdev_malloc_create", INTERNAL, {"name": "x", "block_size": 512, "num_blocks": 8, "size": 1}),
        ("bdev_malloc_create", INTERNAL, {"name": "x", "block_size": "512", "num_blocks": 8}),
        ("bdev_malloc_delete", ENODEV, {"name": "zz"}),
        ("bdev_malloc_delete", ENODEV, {"name": "n0"}),
        ("bdev_null_create", EEXIST, {"name": "n0", "block_size": 512, "num_blocks": 8}),
        ("bdev_null_create", EINVAL, {"name": "x", "block_size": 512, "num_blocks": 0}),
        ("bdev_null_create", EINVAL, {"name": "x", "block_size": 500, "num_blocks": 8}),
        ("bdev_null_delete", ENODEV, {"name": "zz"}),
        ("bdev_null_delete", ENODEV, {"name": "m0"}),
        ("bdev_null_delete", ENODEV, {"name": "r0"}),
        ("bdev_aio_create", ENOENT, {"name": "x", "filename": f"{w.folder}/missing", "block_size": 512}),
        ("bdev_aio_create", EEXIST, {"name": "a0", "filename": f"{w.folder}/a0", "block_size": 512}),
        ("bdev_aio_create", EINVAL, {"name": "x", "filename": f"{w.folder}/a0", "block_size": 100}),
        ("bdev_aio_create", EINVAL, {"name": "x", "filename": f"{w.folder}/a0", "block_size": 256}),
        ("bdev_aio_create", EINVAL, {"name": "x", "filename": f"{w.folder}/odd", "block_size": 512}),
        ("bdev_aio_create", EINVAL, {"name": "x", "filename": f"{w.folder}/a0"}),
        ("bdev_aio_create", EISDIR, {"name": "x", "filename": str(w.folder), "block_size": 512}),
        ("bdev_aio_create", INTERNAL, {"name": "x"}),
        ("bdev_aio_delete", ENODEV, {"name": "zz"}),
        ("bdev_aio_delete", ENODEV, {"name": "m0"}),
        ("bdev_split_create", INVALID, {"base_bdev": "s0", "split_count": 2, "split_size_mb": 1}),
        ("bdev_split_create", INVALID, {"base_bdev": "m0", "split_count": 0}),
        ("bdev_split_create", INVALID, {"base_bdev": "m1", "split_count": 2, "split_size_mb": 1}),
        ("bdev_split_create", INVALID, {"base_bdev": "r0", "split_count": 2}),
        ("bdev_split_delete", INVALID, {"base_bdev": "zz"}),
        ("bdev_split_delete", INVALID, {"base_bdev": "m0"}),
        ("bdev_split_create", INVALID, {"base_bdev": "m0", "split_count": 1, "foo": 1}),
        ("bdev_raid_create", EEXIST, {"name": "r0", "raid_level": "raid0", "base_bdevs": ["m0"], "strip_size_kb": 64}),
        ("bdev_raid_create", EPERM, {"name": "x", "raid_level": "raid0", "base_bdevs": ["m1"], "strip_size_kb": 64}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid0", "base_bdevs": ["m0"]}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid0", "base_bdevs": ["m0"], "strip_size_kb": 3}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0"], "strip_size_kb": 64}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0"]}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid1", "base_bdevs": []}),
        ("bdev_raid_create", EPERM, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0", "m0"]}),
        ("bdev_raid_create", EINVAL, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0", "n4k"]}),
        ("bdev_raid_create", PARSE, {"name": "x", "raid_level": "raid7", "base_bdevs": ["m0"]}),
        (
            "bdev_raid_create",
            EINVAL,
            {"name": "x", "raid_level": "concat", "base_bdevs": ["m0", ""], "strip_size_kb": 64},
        ),
        ("bdev_raid_create", PARSE, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0", "s0p0"], "uuid": "nope"}),
        ("bdev_raid_create", PARSE, {"name": "x", "raid_level": "raid1", "base_bdevs": ["m0", "s0p0"], "strip": 1}),
        ("bdev_raid_create", EEXIST, {"name": "m0", "raid_level": "raid1", "base_bdevs": ["s0p0", "s0p1"]}),
        ("bdev_raid_create", EPERM, {"name": "x", "raid_level": "raid1", "base_bdevs": ["s0", "m0"]}),
        ("bdev_raid_delete", ENODEV, {"name": "zz"}),
        ("bdev_raid_delete", ENODEV, {"name": "m0"}),
        ("bdev_raid_add_base_bdev", ENODEV, {"raid_bdev": "zz", "base_bdev": "m0"}),
        ("bdev_raid_add_base_bdev", ENODEV, {"raid_bdev": "m0", "base_bdev": "s0p0"}),
        ("bdev_raid_add_base_bdev", EINVAL, {"raid_bdev": "r0", "base_bdev": "zz"}),
        ("bdev_raid_add_base_bdev", EINVAL, {"raid_bdev": "r0", "base_bdev": "m0"}),
        ("bdev_raid_add_base_bdev", EINVAL, {"raid_bdev": "r0", "base_bdev": "m1"}),
        ("bdev_raid_remove_base_bdev", ENODEV, {"name": "zz"}),
        ("bdev_raid_remove_base_bdev", ENODEV, {"name": "m0"}),
        ("bdev_raid_get_bdevs", PARSE, {"category": "some"}),
        ("bdev_raid_get_bdevs", PARSE, {}),
        ("bdev_set_qos_limit", ENODEV, {"name": "zz", "rw_ios_per_sec": 1000}),
        ("bdev_set_qos_limit", EINVAL, {"name": "m0"}),
        ("bdev_set_qos_limit", INTERNAL, {"name": "m0", "rw_ios_per_sec": -1}),
        ("bdev_set_qos_limit", INTERNAL, {"name": "m0", "iops": 1}),
        ("bdev_get_iostat", ENODEV, {"names": ["zz"]}),
    ]


def drive_rows(w: World) -> list[Row]:
    """Drives."""
    return [
        ("bdev_nvme_detach_controller", ENODEV, {"name": "zz"}),
        ("bdev_nvme_get_controllers", EINVAL, {"name": "zz"}),
        ("bdev_nvme_set_options", INTERNAL, {"enable_flash": True}),
        ("bdev_nvme_set_options", EINVAL, {"ctrlr_loss_timeout_sec": -1, "reconnect_delay_sec": 0}),
        ("bdev_nvme_set_options", EINVAL, {"bdev_retry_count": -2}),
        (
            "bdev_nvme_attach_controller",
            EIO,
            {
                "name": "x",
                "trtype": "TCP",
                "adrfam": "IPv4",
                "traddr": "127.0.0.1",
                "trsvcid": str(w.free),
                "subnqn": WORLD,
                "multipath": "disable",
            },
        ),
        (
            "bdev_nvme_attach_controller",
            INTERNAL,
            {
                "name": "x",
                "trtype": "TCP",
                "adrfam": "IPv4",
                "traddr": "127.0.0.1",
                "trsvcid": str(w.free),
                "subnqn": WORLD,
                "foo": 1,
            },
        ),
        ("bdev_nvme_attach_controller", INTERNAL, {"name": "x", "trtype": "TCP"}),
        (
            "bdev_nvme_attach_controller",
            EINVAL,
            {
                "name": "x",
                "trtype": "TCP",
                "adrfam": "IPv9",
                "traddr": "127.0.0.1",
                "trsvcid": str(w.free),
                "subnqn": WORLD,
            },
        ),
        (
            "bdev_nvme_attach_controller",
            ENODEV,
            {"name": "x", "trtype": "PCIe", "traddr": "0000:99:00.0", "multipath": "disable"},
        ),
        (
            "bdev_nvme_attach_controller",
            EINVAL,
            {
                "name": "x",
                "trtype": "TCP",
                "adrfam": "IPv4",
                "traddr": "127.0.0.1",
                "trsvcid": str(w.free),
                "subnqn": WORLD,
                "ctrlr_loss_timeout_sec": -1,
                "reconnect_delay_sec": 0,
            },
        ),
        (
            "bdev_nvme_attach_controller",
            EINVAL,
            {
                "name": "x",
                "trtype": "TCP",
                "adrfam": "IPv4",
                "traddr": "127.0.0.1",
                "trsvcid": str(w.free),
                "subnqn": WORLD,
                "ctrlr_loss_timeout_sec": -2,
                "reconnect_delay_sec": 1,
            },
        ),
        ("bdev_nvme_send_cmd", INVALID, {"name": "zz", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": "AAAA"}),
        (
            "bdev_nvme_send_cmd",
            INVALID,
            {"name": "zz", "cmd_type": "io", "data_direction": "h2c", "cmdbuf": "A" * 86 + "=="},
        ),
    ]


def target_rows(w: World) -> list[Row]:
    """The target."""
    return [
        ("nvmf_create_transport", INTERNAL, {"trtype": "TCP"}),
        ("nvmf_create_transport", INVALID, {"trtype": "NONE"}),
        ("nvmf_create_transport", INVALID, {}),
        ("nvmf_get_transports", ENODEV, {"trtype": "RDMA"}),
        ("nvmf_get_transports", INVALID, {"foo": 1}),
        ("nvmf_create_subsystem", INTERNAL, {"nqn": WORLD}),
        ("nvmf_create_subsystem", INTERNAL, {"nqn": "bad"}),
        ("nvmf_create_subsystem", INTERNAL, {"nqn": "nqn.2026-01.io.ws7000:" + "x" * 210}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "serial_number": "S" * 21}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "model_number": "M" * 41}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "serial_number": "S\n"}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "min_cntlid": 5, "max_cntlid": 4}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "min_cntlid": 0, "max_cntlid": 4}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "min_cntlid": 1, "max_cntlid": 0xFFF0}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "min_cntlid": 70000}),
        ("nvmf_create_subsystem", INVALID, {"nqn": MISSING, "nope": 1}),
        ("nvmf_create_subsystem", INVALID, {}),
        ("nvmf_create_subsystem", INTERNAL, {"nqn": MISSING, "tgt_name": "other"}),
        ("nvmf_delete_subsystem", INVALID, {"nqn": MISSING}),
        ("nvmf_delete_subsystem", INVALID, {"nqn": ""}),
        ("nvmf_delete_subsystem", INTERNAL, {"nqn": WORLD, "tgt_name": "other"}),
        ("nvmf_get_stats", INTERNAL, {"tgt_name": "other"}),
        ("nvmf_get_subsystems", INTERNAL, {"tgt_name": "other"}),
        ("nvmf_get_subsystems", ENODEV, {"nqn": MISSING}),
        ("nvmf_get_subsystems", INVALID, {"foo": MISSING}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": MISSING, "namespace": {"bdev_name": "m0"}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "zz"}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 1}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 9}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 0xFFFFFFFF}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 3, "anagrpid": 9}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 3, "nguid": "12"}}),
        (
            "nvmf_subsystem_add_ns",
            INVALID,
            {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 3, "nguid": "z" * 32}},
        ),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 3, "uuid": "z"}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m0", "nsid": 3, "foo": 1}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD, "namespace": {"bdev_name": "m1"}}),
        ("nvmf_subsystem_add_ns", INVALID, {"nqn": WORLD}),
        ("nvmf_subsystem_remove_ns", INVALID, {"nqn": WORLD, "nsid": 3}),
        ("nvmf_subsystem_remove_ns", INVALID, {"nqn": WORLD, "nsid": 0}),
        ("nvmf_subsystem_remove_ns", INVALID, {"nqn": MISSING, "nsid": 1}),
        ("nvmf_subsystem_set_ns_ana_group", INVALID, {"nqn": WORLD, "nsid": 3, "anagrpid": 1}),
        ("nvmf_subsystem_set_ns_ana_group", INVALID, {"nqn": WORLD, "nsid": 1, "anagrpid": 0}),
        ("nvmf_subsystem_set_ns_ana_group", INVALID, {"nqn": WORLD, "nsid": 1, "anagrpid": 9}),
        ("nvmf_subsystem_set_ns_ana_group", INVALID, {"nqn": MISSING, "nsid": 1, "anagrpid": 1}),
        ("nvmf_ns_add_host", INVALID, {"nqn": WORLD, "nsid": 1, "host": HOST}),
        ("nvmf_ns_add_host", INVALID, {"nqn": WORLD, "nsid": 3, "host": HOST}),
        ("nvmf_ns_add_host", INVALID, {"nqn": WORLD, "nsid": 2, "host": "bad"}),
        ("nvmf_ns_add_host", INVALID, {"nqn": MISSING, "nsid": 2, "host": HOST}),
        ("nvmf_ns_add_host", INVALID, {"nqn": WORLD, "nsid": 2, "host": HOST, "foo": 1}),
        ("nvmf_ns_remove_host", INVALID, {"nqn": WORLD, "nsid": 1, "host": HOST}),
        ("nvmf_ns_remove_host", INVALID, {"nqn": MISSING, "nsid": 2, "host": HOST}),
        ("nvmf_subsystem_add_host", INTERNAL, {"nqn": WORLD, "host": "bad"}),
        ("nvmf_subsystem_add_host", INTERNAL, {"nqn": WORLD, "host": HOST}),
        ("nvmf_subsystem_add_host", INVALID, {"nqn": MISSING, "host": HOST}),
        ("nvmf_subsystem_add_host", INVALID, {"nqn": WORLD}),
        ("nvmf_subsystem_add_host", INVALID, {"nqn": WORLD, "host": HOST + "k", "dhchap_key": "missing"}),
        ("nvmf_subsystem_remove_host", INTERNAL, {"nqn": WORLD, "host": HOST + "b"}),
        ("nvmf_subsystem_remove_host", INVALID, {"nqn": MISSING, "host": HOST}),
        (
            "nvmf_subsystem_add_listener",
            INVALID,
            {"nqn": WORLD, "listen_address": at(w.port), "ana_state": "inaccessible"},
        ),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": MISSING, "listen_address": at(w.free)}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.free, trtype="RDMA")}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.free, traddr="192.0.2.77")}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.free, adrfam="IPv9")}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.free), "ana_state": "bad"}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD, "listen_address": at(0)}),
        ("nvmf_subsystem_add_listener", INVALID, {"nqn": WORLD}),
        ("nvmf_subsystem_remove_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.free)}),
        ("nvmf_subsystem_remove_listener", INVALID, {"nqn": MISSING, "listen_address": at(w.port)}),
        ("nvmf_subsystem_remove_listener", INVALID, {"nqn": WORLD, "listen_address": at(w.port), "foo": 1}),
        (
            "nvmf_subsystem_listener_set_ana_state",
            INTERNAL,
            {"nqn": WORLD, "listen_address": at(w.free), "ana_state": "optimized"},
        ),
        (
            "nvmf_subsystem_listener_set_ana_state",
            INVALID,
            {"nqn": MISSING, "listen_address": at(w.port), "ana_state": "optimized"},
        ),
        (
            "nvmf_subsystem_listener_set_ana_state",
            INVALID,
            {"nqn": WORLD, "listen_address": at(w.port), "ana_state": "bad"},
        ),
        (
            "nvmf_subsystem_listener_set_ana_state",
            INTERNAL,
            {"nqn": WORLD, "listen_address": at(w.port), "ana_state": "optimized", "anagrpid": 9},
        ),
        (
            "nvmf_subsystem_listener_set_ana_state",
            INVALID,
            {"nqn": WORLD, "listen_address": at(w.port), "ana_state": "optimized", "foo": 1},
        ),
        ("nvmf_subsystem_get_listeners", INVALID, {"nqn": MISSING}),
        ("nvmf_subsystem_get_controllers", INVALID, {"nqn": MISSING}),
        ("nvmf_subsystem_get_listeners", INVALID, {}),
    ]


def process_rows(w: World) -> list[Row]:
    """The process, its phase, its keys."""
    return [
        ("framework_get_config", INVALID, {"name": "zz"}),
        ("framework_get_config", INVALID, {}),
        ("framework_start_init", PHASE, {}),
        ("nvmf_set_config", PHASE, {}),
        ("nvmf_set_max_subsystems", PHASE, {"max_subsystems": 3}),
        ("bdev_set_options", PHASE, {"bdev_auto_examine": False}),
        ("iobuf_set_options", PHASE, {"small_pool_count": 8192}),
        ("no_such_method", UNKNOWN, {}),
        ("spdk_get_version", INVALID, {"foo": 1}),
        ("rpc_get_methods", INVALID, {"foo": 1}),
        ("keyring_file_add_key", EEXIST, {"name": "k0", "path": f"{w.folder}/k0"}),
        ("keyring_file_add_key", ENOENT, {"name": "x", "path": f"{w.folder}/missing"}),
        ("keyring_file_add_key", EPERM, {"name": "x", "path": f"{w.folder}/open"}),
        ("keyring_file_add_key", EPERM, {"name": "x", "path": "k0"}),
        ("keyring_file_add_key", INVALID, {"name": "x"}),
        ("keyring_file_remove_key", ENOKEY, {"name": "zz"}),
        ("keyring_file_remove_key", INVALID, {"name": "k0", "foo": 1}),
        ("spdk_kill_instance", INVALID, {"sig_name": "SIGNOPE"}),
    ]


def everything(engine: Any) -> list[Any]:
    """What a refused call must leave alone."""
    return [
        engine.rpc("bdev_get_bdevs"),
        engine.rpc("bdev_raid_get_bdevs", category="all"),
        engine.rpc("bdev_nvme_get_controllers"),
        engine.rpc("nvmf_get_subsystems"),
        engine.rpc("framework_get_config", name="nvmf"),
        engine.rpc("nvmf_subsystem_get_listeners", nqn=WORLD),
        engine.rpc("keyring_get_keys"),
    ]


METHODS = sorted({row[0] for row in rows(World(0, 0, Path("/")))})


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_call_is_refused_with_its_number_and_changes_nothing(
    engine: Any, free_port: Any, tmp_path: Path, method: str
) -> None:
    world = build(engine, tmp_path, free_port())
    before = everything(engine)
    wrong = []
    for name, number, params in rows(world):
        if name != method:
            continue
        try:
            said: object = engine.rpc(name, **params)
        except RpcError as refusal:
            said = refusal.number
        if said != number:
            wrong.append((params, number, said))
        assert everything(engine) == before, params
    assert wrong == []


def test_an_unknown_parameter_of_the_six_relaxed_methods_is_ignored(
    engine: Any, free_port: Any, tmp_path: Path
) -> None:
    """A misspelt option of these has no effect and no answer, so our own schema has to find it before sending."""
    (tmp_path / "k").write_text("x")
    (tmp_path / "k").chmod(0o600)
    engine.malloc("m0")
    engine.subsystem(WORLD)
    more = {"no_such_parameter": 1}
    assert engine.rpc("nvmf_subsystem_add_ns", nqn=WORLD, namespace={"bdev_name": "m0"}, **more) == 1
    assert engine.rpc("nvmf_subsystem_add_host", nqn=WORLD, host=HOST, **more) is True
    assert engine.rpc("nvmf_subsystem_add_listener", nqn=WORLD, listen_address=at(free_port()), **more) is True
    assert engine.rpc("keyring_file_add_key", name="k", path=str(tmp_path / "k"), **more) is True
    referral = {"address": at(free_port())}
    assert engine.rpc("nvmf_discovery_add_referral", **referral, **more) is True
    assert engine.rpc("nvmf_discovery_remove_referral", **referral) is True
    # The sixth: the unknown parameter passes, what is refused is the second transport of a kind.
    assert engine.number("nvmf_create_transport", trtype="TCP", **more) == INTERNAL


def test_what_looks_like_a_mistake_is_none(engine: Any, tmp_path: Path, free_port: Any) -> None:
    """Repeating visibility or an ANA group, taking away what was never given, cutting more than fits, and cutting
    what is not there yet all succeed."""
    build(engine, tmp_path, free_port())
    assert engine.rpc("nvmf_subsystem_set_ns_ana_group", nqn=WORLD, nsid=1, anagrpid=1) is True
    assert engine.rpc("bdev_split_create", base_bdev="later", split_count=2) == []
    assert engine.number("bdev_split_create", base_bdev="later", split_count=2) == INVALID
    assert engine.rpc("bdev_split_delete", base_bdev="later") is True
    assert engine.rpc("nvmf_ns_add_host", nqn=WORLD, nsid=2, host=HOST) is True
    assert engine.rpc("nvmf_ns_remove_host", nqn=WORLD, nsid=2, host=HOST + "b") is True
    assert engine.rpc("bdev_split_create", base_bdev="m0", split_count=9, split_size_mb=1) == [
        "m0p0", "m0p1", "m0p2", "m0p3",
    ]  # fmt: skip


def test_our_own_schema_refuses_before_the_engine_does(engine: Any) -> None:
    """With the schema of the release, a wrong call is not even sent: the same codes on both engines."""
    session = engine.checked
    for method, params in (
        ("nvmf_subsystem_add_ns", {"nqn": WORLD, "namespace": {"bdev_name": "m0"}, "anagrpid": 1}),
        ("bdev_malloc_create", {"name": "m0", "block_size": "512", "num_blocks": 8}),
        ("no_such_method", {}),
    ):
        with pytest.raises(Ws7000Error) as caught:
            session.call(method, params)
        assert not isinstance(caught.value, RpcError), method
