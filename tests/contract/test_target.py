"""The target as it is built and as it tells about itself: transports, subsystems, namespaces, hosts, listeners, ANA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wire_host
from wire_host import Host, play

from dataplane.nvme import commands
from dataplane.nvme.status import Status
from dataplane.rpc.methods import framework, keyring, nvmf
from dataplane.rpc.values import KeyInfo, ListenAddress

NQN = "nqn.2026-01.io.ws7000:contract:volume"
HOST = "nqn.2026-01.io.ws7000:host:a"
OTHER_HOST = "nqn.2026-01.io.ws7000:host:b"
UUID = "33333333-3333-4333-8333-333333333333"
NGUID = "0123456789ABCDEF0123456789ABCDEF"
BLOCK = 512


def config_of(engine: Any, nqn: str = NQN) -> Any:
    return nvmf.subsystem_config(engine.run(framework.get_config("nvmf")))[nqn]


def test_the_transport_is_there_once(engine: Any) -> None:
    engine.transport()
    (info,) = engine.run(nvmf.get_transports())
    assert (info.trtype, info.max_queue_depth, info.max_io_qpairs_per_ctrlr) == ("TCP", 128, 127)
    assert (info.in_capsule_data_size_bytes, info.max_io_size_bytes) == (4096, 131072)
    assert info.options["kas"] == 100


def test_a_subsystem_is_what_was_asked_for(engine: Any) -> None:
    engine.subsystem(
        NQN, serial_number="SERIAL", model_number="MODEL", max_namespaces=16, min_cntlid=100, max_cntlid=199
    )
    info = engine.run(nvmf.get_subsystem(NQN))
    assert (info.serial_number, info.model_number, info.max_namespaces) == ("SERIAL", "MODEL", 16)
    assert (info.min_cntlid, info.max_cntlid, info.allow_any_host) == (100, 199, False)
    assert (info.hosts, info.listen_addresses, info.namespaces) == ((), (), ())
    assert engine.run(nvmf.get_subsystems()) == (info,)
    assert config_of(engine).ana_reporting
    engine.run(nvmf.delete_subsystem(NQN))
    assert engine.run(nvmf.get_subsystems()) == ()


def test_a_namespace_keeps_its_number_and_identities(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    call = nvmf.add_ns(NQN, bdev_name="m0", nsid=5, nguid=NGUID, uuid=UUID, ana_group=7, auto_visible=False)
    assert engine.run(call) == 5
    space = engine.run(nvmf.get_subsystem(NQN)).namespace(5)
    assert (space.bdev_name, space.nguid, space.uuid, space.ana_group) == ("m0", NGUID, UUID, 7)
    engine.run(nvmf.remove_ns(NQN, 5))
    assert engine.run(nvmf.get_subsystem(NQN)).namespaces == ()
    assert not engine.rpc("bdev_get_bdevs", name="m0")[0]["claimed"]


def test_a_device_is_exported_once(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0", 1)
    assert engine.rpc("bdev_get_bdevs", name="m0")[0]["claimed"]
    second = nvmf.add_ns(NQN, bdev_name="m0", nsid=2, nguid=NGUID, uuid=UUID, ana_group=1, auto_visible=True)
    assert engine.refused(second).number == -32602


def test_a_namespace_goes_with_its_device(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0")
    engine.rpc("bdev_malloc_delete", name="m0")
    assert engine.run(nvmf.get_subsystem(NQN)).namespaces == ()


def test_only_the_configuration_tells_who_sees_a_namespace(engine: Any) -> None:
    engine.malloc("m0")
    engine.malloc("m1")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0", 1)
    engine.namespace(NQN, "m1", 2, auto_visible=False)
    assert {nsid: seen.auto_visible for nsid, seen in config_of(engine).namespaces.items()} == {1: True, 2: False}
    engine.run(nvmf.ns_add_host(NQN, 2, HOST))
    engine.run(nvmf.ns_add_host(NQN, 2, OTHER_HOST))
    assert config_of(engine).namespaces[2].hosts == {HOST, OTHER_HOST}
    engine.run(nvmf.ns_remove_host(NQN, 2, HOST))
    assert config_of(engine).namespaces[2].hosts == {OTHER_HOST}


def test_hosts_come_and_go(engine: Any) -> None:
    engine.subsystem(NQN)
    engine.run(nvmf.add_host(NQN, HOST))
    engine.run(nvmf.add_host(NQN, OTHER_HOST))
    assert {host.nqn for host in engine.run(nvmf.get_subsystem(NQN)).hosts} == {HOST, OTHER_HOST}
    assert {host.dhchap_key for host in engine.run(nvmf.get_subsystem(NQN)).hosts} == {""}
    engine.run(nvmf.remove_host(NQN, HOST))
    assert {host.nqn for host in engine.run(nvmf.get_subsystem(NQN)).hosts} == {OTHER_HOST}


def test_a_listener_is_born_inaccessible_for_every_group(engine: Any) -> None:
    engine.subsystem(NQN)
    port = engine.listen(NQN, "inaccessible")
    address = ListenAddress.of("tcp", "127.0.0.1", port)
    (listener,) = engine.run(nvmf.get_listeners(NQN))
    assert listener.address == address
    assert dict(listener.ana_states) == dict.fromkeys(range(1, 9), "inaccessible")
    assert engine.run(nvmf.get_subsystem(NQN)).listen_addresses == (address,)
    engine.run(nvmf.remove_listener(NQN, address))
    assert engine.run(nvmf.get_listeners(NQN)) == ()


def test_ana_states_are_set_group_by_group_and_listener_by_listener(engine: Any) -> None:
    engine.subsystem(NQN)
    first, second = engine.listen(NQN, "inaccessible"), engine.listen(NQN, "inaccessible")
    engine.set_ana(NQN, first, "optimized", 3)
    engine.set_ana(NQN, first, "non_optimized", 4)
    seen = {int(one.address.trsvcid): one.ana_states for one in engine.run(nvmf.get_listeners(NQN))}
    assert {group: state for group, state in seen[first].items() if state != "inaccessible"} == {
        3: "optimized", 4: "non_optimized",
    }  # fmt: skip
    assert set(seen[second].values()) == {"inaccessible"}
    engine.set_ana(NQN, second, "optimized")
    seen = {int(one.address.trsvcid): one.ana_states for one in engine.run(nvmf.get_listeners(NQN))}
    assert set(seen[second].values()) == {"optimized"}


def test_the_configuration_does_not_tell_ana_states(engine: Any) -> None:
    engine.subsystem(NQN)
    engine.listen(NQN, "inaccessible")
    entries = [one for one in engine.run(framework.get_config("nvmf")) if one.method == "nvmf_subsystem_add_listener"]
    assert len(entries) == 1
    assert "ana_state" not in entries[0].params


def test_a_namespace_moves_to_another_group_and_to_its_own(engine: Any) -> None:
    engine.malloc("m0")
    engine.subsystem(NQN)
    engine.namespace(NQN, "m0", 1, group=2)
    engine.run(nvmf.set_ns_ana_group(NQN, 1, 6))
    assert engine.run(nvmf.get_subsystem(NQN)).namespace(1).ana_group == 6
    engine.run(nvmf.set_ns_ana_group(NQN, 1, 6))
    assert engine.run(nvmf.get_subsystem(NQN)).namespace(1).ana_group == 6


def test_keys_are_names_of_files(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("DHHC-1:00:not-shown:")
    path.chmod(0o600)
    engine.run(keyring.file_add_key("host-a-1", str(path)))
    assert engine.run(keyring.get_keys()) == (
        KeyInfo(name="host-a-1", module="keyring_file", removed=False, path=str(path)),
    )
    assert "not-shown" not in str(engine.rpc("keyring_get_keys"))
    engine.run(keyring.file_remove_key("host-a-1"))
    assert engine.run(keyring.get_keys()) == ()


def test_counters_of_poll_groups(engine: Any) -> None:
    engine.transport()
    info = engine.run(nvmf.get_stats())
    assert info.tick_rate_hz > 0
    assert len(info.poll_groups) == 1
    assert info.poll_groups[0].current_io_qpairs == 0


def test_every_command_of_an_io_queue_is_counted(engine: Any) -> None:
    engine.malloc("m0")
    port = engine.serve(wire_host.NQN, "m0")

    def counted() -> int:
        return int(engine.run(nvmf.get_stats()).poll_groups[0].completed_nvme_io)

    async def story(host: Host) -> None:
        before = counted()
        await host.io.ok(commands.read(1, 0, 1, BLOCK))
        assert await host.io.status(commands.read(1, 1 << 40, 1, BLOCK)) == Status.LBA_OUT_OF_RANGE
        first, second = commands.fused(commands.compare(1, 0, 1, BLOCK), commands.write(1, 0, 1, BLOCK))
        cids = [host.io.submit(half, bytes(BLOCK)) for half in (first, second)]
        assert [(await host.io.wait(cid))[0].code for cid in cids] == [0, 0]
        await host.admin.ok(commands.keep_alive())
        assert counted() == before + 4

    play(port, story)


def test_what_the_engine_is(engine: Any) -> None:
    version = engine.run(framework.get_version())
    assert (version.major, version.minor) == (26, 5)
    assert version.text.startswith("SPDK v26.05")
    assert engine.run(framework.get_reactors()).pid == engine.process.process.pid
    assert {"bdev", "nvmf", "keyring"} <= set(engine.run(framework.get_subsystems()))
    assert engine.run(framework.wait_init()) is None


USED = {
    "bdev_aio_create", "bdev_get_bdevs", "bdev_get_iostat", "bdev_set_options", "bdev_set_qos_limit",
    "bdev_split_create", "bdev_split_delete", "bdev_nvme_attach_controller", "bdev_nvme_detach_controller",
    "bdev_nvme_get_controllers", "bdev_nvme_send_cmd", "bdev_nvme_set_options", "bdev_raid_create",
    "bdev_raid_delete", "bdev_raid_get_bdevs", "bdev_raid_add_base_bdev", "bdev_raid_remove_base_bdev",
    "bdev_wait_for_examine", "framework_get_config", "framework_get_reactors", "framework_get_subsystems",
    "framework_start_init", "framework_wait_init", "iobuf_set_options", "keyring_file_add_key",
    "keyring_file_remove_key", "keyring_get_keys", "nvmf_create_subsystem", "nvmf_create_transport",
    "nvmf_delete_subsystem", "nvmf_get_stats", "nvmf_get_subsystems", "nvmf_get_transports", "nvmf_ns_add_host",
    "nvmf_ns_remove_host", "nvmf_set_config", "nvmf_set_max_subsystems", "nvmf_subsystem_add_host",
    "nvmf_subsystem_add_listener", "nvmf_subsystem_add_ns", "nvmf_subsystem_get_controllers",
    "nvmf_subsystem_get_listeners", "nvmf_subsystem_listener_set_ana_state", "nvmf_subsystem_remove_host",
    "nvmf_subsystem_remove_listener", "nvmf_subsystem_remove_ns", "nvmf_subsystem_set_ns_ana_group",
    "rpc_get_methods", "spdk_get_version", "spdk_kill_instance",
}  # fmt: skip
"""Every method that the typed calls of ``dataplane.rpc.methods`` send."""


def test_every_method_that_we_call_is_there(engine: Any) -> None:
    assert engine.run(framework.get_methods()) >= USED


def test_a_method_of_the_other_phase_is_refused(engines: Any) -> None:
    """Before ``framework_start_init`` the other methods are refused with -1, and after it the options are."""
    engine = engines.waiting()
    try:
        assert engine.number("bdev_get_bdevs") == -1
        assert engine.number("nvmf_get_subsystems") == -1
        current = engine.run(framework.get_methods(current=True))
        assert {"bdev_set_options", "framework_start_init", "nvmf_set_config"} <= current
        assert "nvmf_create_subsystem" not in current
        assert engine.rpc("bdev_set_options", bdev_auto_examine=False) is True
        assert engine.rpc("nvmf_set_config", dup_host_policy="allow") is True
        assert engine.rpc("nvmf_set_max_subsystems", max_subsystems=3) is True
        engine.run(framework.start_init())
        assert engine.number("bdev_set_options", bdev_auto_examine=True) == -1
        for number in range(2):
            engine.subsystem(f"{NQN}:{number}")
        assert engine.number("nvmf_create_subsystem", nqn=f"{NQN}:9") == -32603, "the discovery subsystem counts"
    finally:
        engine.stop()


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGKILL"])
def test_an_engine_ends_when_it_is_told_to(engines: Any, signal: str) -> None:
    engine = engines.waiting()
    try:
        engine.run(framework.start_init())
        engine.run(framework.kill_instance(signal))
        engine.process.process.wait(30)
    finally:
        engine.stop()
