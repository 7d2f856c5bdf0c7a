"""The typed methods: what they send, in which unit, and what they make of real answers of SPDK v26.05."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from dataplane.nvme.status import Status
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError, UnitsError
from dataplane.rpc.methods import bdev, faults, framework, histogram, keyring, nvme, nvmf, raid
from dataplane.rpc.schema import RELEASES, Schema
from dataplane.rpc.values import HostInfo, ListenAddress, NamespaceVisibility, NvmeCompletion, QosLimits
from dataplane.rpc.wire import Repeated

MIB = 1 << 20
UUID = "22222222-2222-4222-8222-222222222222"
WHERE = ListenAddress.of("tcp", "192.0.2.1", 4420)

CALLS: list[Call[Any]] = [
    framework.get_version(),
    framework.get_methods(current=True),
    framework.start_init(),
    framework.wait_init(),
    framework.get_config("nvmf"),
    framework.get_subsystems(),
    framework.get_reactors(),
    framework.kill_instance(),
    framework.iobuf_set_options(small_pool_count=8192, large_bufsize_bytes=135168, enable_numa=False),
    bdev.set_options(auto_examine=False, io_pool_size=65535),
    bdev.wait_for_examine(),
    bdev.get_bdevs(),
    bdev.get_bdev("x"),
    bdev.split_create("d0n1", count=3, size_bytes=8 * MIB),
    bdev.split_delete("d0n1"),
    bdev.null_create("n", block_size_bytes=4096, size_bytes=MIB, uuid=UUID),
    bdev.null_delete("n"),
    bdev.malloc_create("m", block_size_bytes=512, size_bytes=MIB),
    bdev.malloc_delete("m"),
    bdev.aio_create("a", path="/dev/x", block_size_bytes=4096, read_only=False, fallocate=True, uuid=UUID),
    bdev.aio_delete("a"),
    bdev.set_qos_limit("r", rw_ios_per_s=2000, rw_bytes_per_s=10 * MIB, r_bytes_per_s=0, w_bytes_per_s=MIB),
    bdev.get_iostat(),
    bdev.get_iostat(["m"]),
    raid.create("r", level="raid0", base_bdevs=["a", "b"], strip_size_bytes=65536, uuid=UUID),
    raid.create("r", level="raid1", base_bdevs=("a", "b"), uuid=UUID),
    raid.delete("r"),
    raid.get_bdevs(),
    raid.add_base_bdev("r", "a"),
    raid.remove_base_bdev("a"),
    raid.set_options(process_window_size_bytes=MIB, process_max_bandwidth_bytes_per_s=8 * MIB),
    bdev.aio_rescan("a"),
    bdev.null_resize("n", 2 * MIB),
    faults.error_create("a"),
    faults.error_delete("EE_a"),
    faults.inject_error("EE_a", io_type="read", error_type="nvme_failure", status=0x281, queue_depth=1),
    faults.inject_error("EE_a", io_type="all", error_type="corrupt_data", corrupt_offset_bytes=3, corrupt_value=1),
    faults.resume_pending("EE_a"),
    faults.delay_create("slow", "a", avg_read_ns=1000, p99_read_ns=2000, uuid=UUID),
    faults.delay_update("slow", "p99_write", 5000),
    faults.delay_delete("slow"),
    histogram.enable("a", io_type="read", granularity=5),
    histogram.disable("a"),
    histogram.get("a"),
    histogram.count_below("a", [1000, 2000]),
    nvme.set_options(
        enable_flush=True,
        bdev_retry_count=-1,
        ctrlr_loss_timeout_s=-1,
        reconnect_delay_s=1,
        timeout_us=8_000_000,
        action_on_timeout="abort",
        keep_alive_timeout_ms=5000,
    ),
    nvme.attach_controller_tcp(
        "d0", address="2001:db8::1", port=4420, subnqn="q", hostnqn="h", psk="k", header_digest=True
    ),
    nvme.attach_controller_rdma("d0", address="192.0.2.1", port="4420", subnqn="q", dhchap_key="k", io_queues=4),
    nvme.attach_controller_pcie("d0", bdf="0000:5e:00.0", ctrlr_loss_timeout_s=-1, reconnect_delay_s=2),
    nvme.detach_controller("d0"),
    nvme.get_controllers(),
    nvme.get_controllers("d0"),
    nvme.send_cmd("d0", kind="admin", sqe=bytes(64), data_len_bytes=4096),
    nvme.send_cmd("d0", kind="io", sqe=bytes(64), data=bytes(16)),
    nvmf.set_config(poll_groups_mask="0x1", dup_host_policy="allow", dhchap_digests=["sha256"]),
    nvmf.set_max_subsystems(256),
    nvmf.create_transport("TCP", max_io_size_bytes=MIB, masked_oncs=["reservs"], acceptor_poll_us=10000),
    nvmf.create_transport("RDMA", masked_oncs=("reservs", "nvmcmps"), masked_fuses=("fcws",)),
    nvmf.get_transports(),
    nvmf.create_subsystem("q", serial_number="S", model_number="M", max_namespaces=64, min_cntlid=1, max_cntlid=32759),
    nvmf.delete_subsystem("q"),
    nvmf.get_subsystems(),
    nvmf.get_subsystem("q"),
    nvmf.add_ns("q", bdev_name="r", nsid=5, nguid="AB" * 16, uuid=UUID, ana_group=1, auto_visible=False),
    nvmf.remove_ns("q", 5),
    nvmf.ns_add_host("q", 5, "h"),
    nvmf.ns_remove_host("q", 5, "h"),
    nvmf.add_host("q", "h", dhchap_key="k", dhchap_ctrlr_key="c"),
    nvmf.remove_host("q", "h", timeout_ms=1000),
    nvmf.add_listener("q", WHERE, secure_channel=False),
    nvmf.remove_listener("q", WHERE),
    nvmf.set_ana_state("q", WHERE, "optimized", ana_group=1),
    nvmf.set_ana_state("q", WHERE, "non_optimized"),
    nvmf.set_ns_ana_group("q", 5, 2),
    nvmf.get_listeners("q"),
    nvmf.get_controllers("q"),
    nvmf.get_stats(),
    keyring.file_add_key("k", "/etc/ws7000/keys/k"),
    keyring.file_remove_key("k"),
    keyring.get_keys(),
]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("call", CALLS, ids=repr)
def test_every_method_exists_with_these_parameters(call: Call[Any], release: str) -> None:
    Schema.load(release).check(call.method, call.params)


def test_units_are_the_engines() -> None:
    assert bdev.split_create("d", count=2, size_bytes=8 * MIB).params["split_size_mb"] == 8
    assert raid.create("r", level="raid0", base_bdevs=["a"], strip_size_bytes=65536).params["strip_size_kb"] == 64
    assert bdev.set_qos_limit("r", w_bytes_per_s=3 * MIB).params == {"name": "r", "w_mbytes_per_sec": 3}
    assert bdev.null_create("n", block_size_bytes=4096, size_bytes=MIB).params["num_blocks"] == 256
    assert bdev.null_resize("n", 2 * MIB).params["new_size"] == 2
    window = raid.set_options(process_window_size_bytes=65536, process_max_bandwidth_bytes_per_s=8 * MIB)
    assert window.params == {"process_window_size_kb": 64, "process_max_bandwidth_mb_sec": 8}
    assert faults.delay_update("slow", "avg_read", 5000).params["latency_us"] == 5
    assert histogram.count_below("a", [1000]).params["borders"] == [1]
    assert nvme.set_options(timeout_us=5, reconnect_delay_s=2).params == {"timeout_us": 5, "reconnect_delay_sec": 2}


@pytest.mark.parametrize(
    "make",
    [
        lambda: bdev.split_create("d", count=2, size_bytes=MIB + 512),
        lambda: bdev.set_qos_limit("r", rw_bytes_per_s=1_000_000),
        lambda: raid.create("r", level="raid0", base_bdevs=["a"], strip_size_bytes=1000),
        lambda: bdev.malloc_create("m", block_size_bytes=4096, size_bytes=MIB + 512),
        lambda: bdev.malloc_create("m", block_size_bytes=0, size_bytes=MIB),
        lambda: bdev.split_create("d", count=2, size_bytes=-MIB),
    ],
)
def test_a_quantity_between_two_units_is_refused_and_never_rounded(make: Any) -> None:
    with pytest.raises(UnitsError) as caught:
        make()
    assert caught.value.code == "RPC-016"


def test_listeners_are_born_inaccessible() -> None:
    assert nvmf.add_listener("q", WHERE).params == {
        "nqn": "q",
        "listen_address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "192.0.2.1", "trsvcid": "4420"},
        "ana_state": "inaccessible",
    }


def test_the_multipath_mode_is_always_said() -> None:
    call = nvme.attach_controller_tcp("d0", address="2001:db8::1", port=4420, subnqn="q")
    assert call.params == {
        "name": "d0",
        "trtype": "TCP",
        "adrfam": "IPv6",
        "traddr": "2001:db8::1",
        "trsvcid": "4420",
        "subnqn": "q",
        "multipath": "disable",
    }


def test_version_and_reactors(replies: dict[str, Any]) -> None:
    version = framework.get_version().parse(replies["spdk_get_version"])
    assert (version.text, version.major, version.minor, version.patch) == ("SPDK v26.05", 26, 5, 0)
    reactors = framework.get_reactors().parse(replies["framework_get_reactors"])
    assert reactors.pid == replies["framework_get_reactors"]["pid"]
    assert reactors.reactors[0].threads == ("app_thread", "nvmf_tgt_poll_group_000")
    assert framework.get_subsystems().parse(replies["framework_get_subsystems"])[-2:] == ("nvmf", "nbd")


def test_bdevs(replies: dict[str, Any]) -> None:
    found = {info.name: info for info in bdev.get_bdevs().parse(replies["bdev_get_bdevs"])}
    assert sorted(found) == ["a0", "m0", "m0p1", "n0"]
    memory = found["m0"]
    assert (memory.size_bytes, memory.block_size_bytes, memory.claim_type) == (32 * MIB, 512, "exclusive_write")
    assert memory.numa_id is None
    assert {"unmap", "flush"} <= memory.io_types
    assert "unmap" not in found["n0"].io_types
    assert not found["n0"].claimed
    assert (found["m0p1"].split_base, found["m0p1"].split_offset_blocks) == ("m0", 16384)
    assert found["a0"].aio_path == "/var/lib/ws7000/aio.img"
    limited = bdev.get_bdev("r0").parse(replies["bdev_get_bdevs.qos"])
    assert limited.qos == QosLimits(rw_ios_per_s=2000, rw_bytes_per_s=10 * MIB)


def test_an_nvme_bdev_says_which_drive_it_is(replies: dict[str, Any]) -> None:
    raw = dict(replies["bdev_get_bdevs"][0])
    raw["driver_specific"] = {
        "nvme": [
            {
                "pci_address": "0000:5e:00.0",
                "trid": {"trtype": "PCIe", "traddr": "0000:5e:00.0"},
                "ctrlr_data": {"cntlid": 6, "model_number": "M", "serial_number": "S", "firmware_revision": "F"},
                "ns_data": {"id": 1, "can_share": True},
            }
        ],
        "mp_policy": "active_passive",
    }
    (path,) = bdev.get_bdev("d0n1").parse([raw]).nvme
    assert (path.transport.trtype, path.transport.traddr, path.nsid) == ("PCIe", "0000:5e:00.0", 1)
    assert (path.serial_number, path.ana_state, path.can_share) == ("S", "", True)


def test_raid_sets(replies: dict[str, Any]) -> None:
    striped, mirrored = raid.get_bdevs().parse(replies["bdev_raid_get_bdevs.degraded"])
    assert (striped.level, striped.strip_size_bytes, striped.base_names) == ("raid0", 65536, ("m0p0", "m0p1"))
    assert (mirrored.state, mirrored.operational, mirrored.base_names) == ("online", 1, ("", "a0"))
    assert not mirrored.bases[0].configured
    assert mirrored.process is None
    _, rebuilding = raid.get_bdevs().parse(replies["bdev_raid_get_bdevs.rebuild"])
    assert rebuilding.process is not None
    assert (rebuilding.process.kind, rebuilding.process.target) == ("rebuild", "m1")


def test_a_set_is_read_alike_whether_it_is_as_usual_or_needs_a_closer_look() -> None:
    base = {"name": "d0n1p1", "uuid": UUID, "is_configured": True, "data_offset": 0, "data_size": 2048}
    usual = {
        "name": "vol-x",
        "uuid": UUID,
        "strip_size_kb": 64,
        "state": "online",
        "raid_level": "raid0",
        "superblock": False,
        "num_base_bdevs": 2,
        "num_base_bdevs_discovered": 2,
        "num_base_bdevs_operational": 2,
        "base_bdevs_list": [base, {**base, "name": "d1n1p1", "data_size": 4096}],
    }
    gone = {"name": None, "uuid": UUID, "is_configured": False, "data_offset": 0, "data_size": 2048}
    sets = [
        usual,
        {**usual, "uuid": Repeated(["other", UUID])},  # a name that is repeated is looked at closely
        {**usual, "base_bdevs_list": [base, gone]},
        {**usual, "process": {"type": "rebuild", "target": "d1n1p1", "progress": {"blocks": 8, "percent": 4}}},
    ]
    quick, close, degraded, rebuilding = raid.get_bdevs().parse(sets)
    assert quick == close
    assert quick.strip_size_bytes == 65536
    assert [tuple(each) for each in quick.bases] == [("d0n1p1", UUID, True, 0, 2048), ("d1n1p1", UUID, True, 0, 4096)]
    assert degraded.base_names == ("d0n1p1", "")
    assert rebuilding.process is not None
    for wrong in ({**base, "data_size": True}, {**base, "is_configured": 1}, {**base, "name": 3}, "x", None):
        with pytest.raises(ReplyError) as raised:
            raid.get_bdevs().parse([usual, {**usual, "base_bdevs_list": [base, wrong]}])
        assert "bdev_raid_get_bdevs[1].base_bdevs_list[1]" in str(raised.value)


def test_counters(replies: dict[str, Any]) -> None:
    stats = bdev.get_iostat(["m0"]).parse(replies["bdev_get_iostat.names"])
    assert (stats.bdevs[0].name, stats.bdevs[0].read_ops, stats.bdevs[0].bytes_read) == ("m0", 2, 1024)
    groups = nvmf.get_stats().parse(replies["nvmf_get_stats"]).poll_groups
    assert groups[0].current_admin_qpairs == 1


def test_subsystems_without_the_discovery_subsystem(replies: dict[str, Any]) -> None:
    (found,) = nvmf.get_subsystems().parse(replies["nvmf_get_subsystems"])
    assert (found.serial_number, found.max_namespaces, found.min_cntlid, found.max_cntlid) == ("S1", 64, 1, 100)
    assert found.listen_addresses == (ListenAddress.of("TCP", "127.0.0.1", 44201),)
    assert found.hosts[0] == HostInfo(nqn="nqn.2016-06.io.spdk:h2")
    assert found.hosts[1].dhchap_key == "k0"
    space = found.namespace(5)
    assert space is not None
    assert (space.bdev_name, space.ana_group, space.nguid) == ("r0", 3, "ABCDEF0123456789ABCDEF0123456789")
    assert found.namespace(99) is None


def test_what_only_the_configuration_tells(replies: dict[str, Any]) -> None:
    entries = framework.get_config("nvmf").parse(replies["framework_get_config.nvmf"])
    config = nvmf.subsystem_config(entries)["nqn.2016-06.io.spdk:x"]
    host = "nqn.2014-08.org.nvmexpress:uuid:33333333-3333-4333-8333-333333333333"
    assert config.ana_reporting
    assert config.namespaces == {
        1: NamespaceVisibility(auto_visible=True),
        5: NamespaceVisibility(auto_visible=False, hosts=frozenset({host})),
    }
    assert config.secure_listeners == frozenset()
    assert framework.get_config("vmd").parse(None) == ()


def test_listeners_and_controllers(replies: dict[str, Any]) -> None:
    (listener,) = nvmf.get_listeners("q").parse(replies["nvmf_subsystem_get_listeners"])
    assert listener.address == ListenAddress.of("tcp", "127.0.0.1", "44201")
    assert listener.ana_states == {1: "inaccessible", 2: "optimized", 3: "inaccessible"}
    (host,) = nvmf.get_controllers("q").parse(replies["nvmf_subsystem_get_controllers"])
    assert (host.cntlid, host.host_nqn, host.io_qpairs) == (1, "nqn.2016-06.io.spdk:h2", 1)
    (drive,) = nvme.get_controllers().parse(replies["bdev_nvme_get_controllers"])
    assert (drive.name, drive.paths[0].state, drive.paths[0].transport.trsvcid) == ("d0", "enabled", "44201")


def test_transports_and_keys(replies: dict[str, Any]) -> None:
    (transport,) = nvmf.get_transports().parse(replies["nvmf_get_transports"])
    assert (transport.trtype, transport.max_io_size_bytes) == ("TCP", MIB)
    (key,) = keyring.get_keys().parse(replies["keyring_get_keys"])
    assert (key.name, key.module, key.removed) == ("k0", "keyring_file", False)
    assert bdev.split_create("m0", count=2).parse(replies["bdev_split_create"]) == ("m0p0", "m0p1")
    nsid = nvmf.add_ns("q", bdev_name="b", nsid=5, nguid="", uuid="", ana_group=1, auto_visible=True)
    assert nsid.parse(replies["nvmf_subsystem_add_ns"]) == 5


def test_the_completion_of_a_raw_command(replies: dict[str, Any]) -> None:
    parse = nvme.send_cmd("d0", kind="io", sqe=bytes(64)).parse
    refused = parse(replies["bdev_nvme_send_cmd.resv"])
    assert (refused.ok, refused.status, refused.dnr) == (False, Status.ANA_INACCESSIBLE, False)
    raw = (0x12345678).to_bytes(4, "little") + bytes(8) + b"\x07\x00" + (0x8000 | 0x83 << 1 | 1).to_bytes(2, "little")
    reply = {"cpl": base64.urlsafe_b64encode(raw).decode(), "data": base64.urlsafe_b64encode(b"\xfb\xff").decode()}
    assert parse(reply) == NvmeCompletion(cdw0=0x12345678, sct=0, sc=0x83, more=False, dnr=True, data=b"\xfb\xff")
    for broken in ({"cpl": "AAAA"}, {"cpl": "*"}, {}):
        with pytest.raises(ReplyError):
            parse(broken)


def test_a_raw_command_sends_or_fetches() -> None:
    sqe = bytes(range(64))
    fetch = nvme.send_cmd("d0", kind="admin", sqe=sqe, data_len_bytes=4096).params
    assert (fetch["data_direction"], fetch["data_len"]) == ("c2h", 4096)
    assert base64.urlsafe_b64decode(fetch["cmdbuf"]) == sqe
    assert "data" not in fetch
    send = nvme.send_cmd("d0", kind="io", sqe=sqe, data=b"\xff" * 16).params
    assert (send["data_direction"], "data_len" in send) == ("h2c", False)
    with pytest.raises(ValueError, match="64 bytes"):
        nvme.send_cmd("d0", kind="io", sqe=b"")
    with pytest.raises(ValueError, match="either"):
        nvme.send_cmd("d0", kind="io", sqe=sqe, data=b"", data_len_bytes=1)


@pytest.mark.parametrize(
    ("call", "raw", "path"),
    [
        (framework.get_version(), [], "spdk_get_version"),
        (framework.get_version(), {"version": "x", "fields": {"major": True}}, "spdk_get_version.fields.major"),
        (bdev.get_bdevs(), {}, "bdev_get_bdevs"),
        (bdev.get_bdevs(), [{}], "bdev_get_bdevs[0].name"),
        (bdev.get_bdev("x"), [], "bdev_get_bdevs"),
        (nvmf.get_subsystem("q"), [], "nvmf_get_subsystems"),
        (raid.get_bdevs(), [{"name": 3}], "bdev_raid_get_bdevs[0].name"),
        (bdev.split_create("m", count=1), ["a", 1], "bdev_split_create"),
        (bdev.null_delete("n"), False, "result"),
        (bdev.malloc_create("m", block_size_bytes=512, size_bytes=512), 1, "result"),
        (nvmf.add_ns("q", bdev_name="", nsid=1, nguid="", uuid="", ana_group=1, auto_visible=True), True, "result"),
    ],
)
def test_an_answer_of_another_shape_is_named(call: Call[Any], raw: Any, path: str) -> None:
    with pytest.raises(ReplyError) as caught:
        call.parse(raw)
    assert (caught.value.code, caught.value.path) == ("RPC-015", path)
