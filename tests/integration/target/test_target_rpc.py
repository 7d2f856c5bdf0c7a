"""The nvmf_* methods: shapes and error numbers as SPDK v26.05 has them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from dataplane.embedded.rpc.registry import STARTUP, RpcFault

INVALID, INTERNAL = -32602, -32603
OTHER = "nqn.2025-01.io.ws7000:other"
NONE = "nqn.2025-01.io.ws7000:none"
ADDRESS = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "4420"}


def test_a_subsystem_is_shown_as_spdk_shows_it(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn)
        [shown] = await bench.rpc("nvmf_get_subsystems", nqn=lab.nqn)
        uuid = bench.engine.bdevs.get("m1").uuid
        assert shown["namespaces"][0] == {
            "nsid": 1, "bdev_name": "m1", "name": "m1", "nguid": uuid.replace("-", "").upper(), "uuid": uuid,
            "anagrpid": 1,
        }  # fmt: skip
        shown.pop("namespaces")
        assert shown == {
            "nqn": lab.nqn, "subtype": "NVMe", "listen_addresses": [bench.address()], "allow_any_host": True,
            "hosts": [{"nqn": lab.hostnqn}], "serial_number": "S1", "model_number": "SPDK bdev Controller",
            "max_namespaces": 8, "passthrough": False, "min_cntlid": 1, "max_cntlid": 65519,
            "dmrsl": 2097152, "wzsl": 12,
        }  # fmt: skip
        everything = await bench.rpc("nvmf_get_subsystems")
        assert everything[0] == {
            "nqn": "nqn.2014-08.org.nvmexpress.discovery", "subtype": "Discovery", "listen_addresses": [],
            "allow_any_host": True, "hosts": [],
        }  # fmt: skip

    lab.run(scenario)


def test_connections_are_shown(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(hostid=bytes(range(16)))
        [controller] = await bench.rpc("nvmf_subsystem_get_controllers", nqn=lab.nqn)
        assert controller == {
            "cntlid": host.cntlid, "cntrltype": "io", "hostnqn": lab.hostnqn,
            "hostid": "00010203-0405-0607-0809-0a0b0c0d0e0f", "num_io_qpairs": 2,
        }  # fmt: skip
        queues = await bench.rpc("nvmf_subsystem_get_qpairs", nqn=lab.nqn)
        assert [(item["qid"], item["state"], item["listen_address"]) for item in queues] == [
            (0, "enabled", bench.address()), (1, "enabled", bench.address()),
        ]  # fmt: skip
        [group] = (await bench.rpc("nvmf_get_stats"))["poll_groups"]
        assert (group["admin_qpairs"], group["current_io_qpairs"]) == (1, 1)
        [listener] = await bench.rpc("nvmf_subsystem_get_listeners", nqn=lab.nqn)
        assert listener["ana_states"][7] == {"ana_group": 8, "ana_state": "optimized"}
        [transport] = await bench.rpc("nvmf_get_transports")
        assert (transport["max_io_qpairs_per_ctrlr"], transport["kas"], transport["min_kato"]) == (127, 100, 10000)

    lab.run(scenario)


def test_the_configuration_makes_the_same_target_again(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.add_bdev("m3")
        namespace = {
            "bdev_name": "m3", "nsid": 7, "nguid": "A0" * 16, "eui64": "00" * 7 + "01", "anagrpid": 4,
            "uuid": "11111111-2222-3333-4444-555555555555", "no_auto_visible": True,
        }  # fmt: skip
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace=namespace)
        await bench.rpc("nvmf_ns_add_host", nqn=lab.nqn, nsid=7, host=lab.hostnqn)
        await bench.rpc("nvmf_subsystem_add_host", nqn=lab.nqn, host=lab.hostnqn)
        await bench.rpc("nvmf_discovery_add_referral", address=ADDRESS, subnqn=OTHER)
        before = bench.engine.nvmf.config()
        assert before[-1]["params"]["listen_address"] == bench.address()
        assert {call["method"] for call in before} >= {"nvmf_ns_add_host", "nvmf_subsystem_add_host"}
        await bench.rpc("nvmf_delete_subsystem", nqn=lab.nqn)
        await bench.rpc("nvmf_discovery_remove_referral", address=ADDRESS, subnqn=OTHER)
        bench.engine.nvmf.transports.clear()
        bench.engine.state = STARTUP
        for call in before:
            if call["method"] == "nvmf_create_transport":
                bench.engine.state = bench.engine.state.__class__.RUNTIME
            await bench.rpc(call["method"], **call["params"])
        assert bench.engine.nvmf.config() == before

    lab.run(scenario)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("nvmf_create_transport", {"trtype": "TCP"}, INTERNAL),
        ("nvmf_create_transport", {"trtype": "PCIE"}, INVALID),
        ("nvmf_create_transport", {"trtype": "RDMA"}, INTERNAL),
        ("nvmf_get_transports", {"trtype": "RDMA"}, -errno.ENODEV),
        ("nvmf_get_transports", {"tgt_name": "x"}, INTERNAL),
        ("nvmf_get_subsystems", {"nqn": NONE}, -errno.ENODEV),
        ("nvmf_create_subsystem", {"nqn": "x"}, INTERNAL),
        ("nvmf_create_subsystem", {"nqn": "nqn.2025-01.io.ws7000:test"}, INTERNAL),
        ("nvmf_create_subsystem", {"nqn": OTHER, "min_cntlid": 5, "max_cntlid": 4}, INVALID),
        ("nvmf_create_subsystem", {"nqn": OTHER, "max_cntlid": 0xFFF0}, INVALID),
        ("nvmf_create_subsystem", {"nqn": OTHER, "serial_number": "s" * 21}, INVALID),
        ("nvmf_create_subsystem", {"nqn": OTHER, "colour": "red"}, INVALID),
        ("nvmf_delete_subsystem", {"nqn": NONE}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "none"}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "m1"}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "free", "nsid": 1}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "free", "nsid": 9}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "free", "anagrpid": 9}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "free", "nguid": "AB"}}, INVALID),
        ("nvmf_subsystem_add_ns", {"namespace": {"bdev_name": "free", "colour": "red"}}, INVALID),
        ("nvmf_subsystem_remove_ns", {"nsid": 3}, INVALID),
        ("nvmf_subsystem_set_ns_ana_group", {"nsid": 1, "anagrpid": 9}, INVALID),
        ("nvmf_subsystem_set_ns_ana_group", {"nsid": 3, "anagrpid": 1}, INVALID),
        ("nvmf_ns_add_host", {"nsid": 1, "host": OTHER}, INVALID),
        ("nvmf_ns_remove_host", {"nsid": 3, "host": OTHER}, INVALID),
        ("nvmf_subsystem_add_host", {"host": "x"}, INTERNAL),
        ("nvmf_subsystem_add_host", {"host": OTHER, "psk": "key0"}, INTERNAL),
        ("nvmf_subsystem_remove_host", {"host": OTHER}, INTERNAL),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS | {"trsvcid": "0"}}, INVALID),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS | {"traddr": "198.51.100.1"}}, INVALID),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS | {"adrfam": "IPv6"}}, INVALID),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS | {"trtype": "RDMA"}}, INVALID),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS, "ana_state": "change"}, INVALID),
        ("nvmf_subsystem_add_listener", {"listen_address": ADDRESS, "secure_channel": True}, INTERNAL),
        ("nvmf_subsystem_remove_listener", {"listen_address": ADDRESS}, INVALID),
        (
            "nvmf_subsystem_listener_set_ana_state",
            {"listen_address": ADDRESS, "ana_state": "optimized"},
            INTERNAL,
        ),
        ("nvmf_discovery_remove_referral", {"address": ADDRESS}, INTERNAL),
        ("nvmf_discovery_add_referral", {"address": {"trtype": "TCP", "traddr": "::1"}}, INTERNAL),
        ("nvmf_set_max_subsystems", {"max_subsystems": 4}, -1),
    ],
)
def test_what_is_refused_and_with_which_number(lab: Any, method: str, params: dict[str, Any], code: int) -> None:
    async def scenario(bench: Any) -> None:
        await bench.add_bdev("free")
        before = bench.engine.nvmf.config()
        named = {"nqn": lab.nqn} if method.startswith(("nvmf_subsystem", "nvmf_ns")) else {}
        with pytest.raises(RpcFault) as caught:
            await bench.rpc(method, **(named | params))
        assert caught.value.code == code
        assert bench.engine.nvmf.config() == before
        assert bench.engine.bdevs.get("free").claimed_by is None

    lab.run(scenario)


def test_a_listener_twice_and_a_port_for_two_subsystems(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        with pytest.raises(RpcFault) as caught:
            await bench.rpc("nvmf_subsystem_add_listener", nqn=lab.nqn, listen_address=bench.address())
        assert caught.value.code == INVALID
        await bench.rpc("nvmf_create_subsystem", nqn=OTHER, allow_any_host=True)
        await bench.rpc("nvmf_subsystem_add_listener", nqn=OTHER, listen_address=bench.address())
        await bench.rpc("nvmf_delete_subsystem", nqn=lab.nqn)
        wire = await bench.wire()
        assert (await wire.connect(nqn=OTHER)).code == 0
        await wire.close()

    lab.run(scenario)


def test_settings_before_the_framework_starts(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        bench.engine.state = STARTUP
        await bench.rpc("nvmf_set_config", discovery_filter="address,svcid", dup_host_policy="restrict_per_listener")
        await bench.rpc("nvmf_set_max_subsystems", max_subsystems=2)
        with pytest.raises(RpcFault, match="more than once"):
            await bench.rpc("nvmf_set_max_subsystems", max_subsystems=3)
        with pytest.raises(RpcFault):
            await bench.rpc("nvmf_set_config", discovery_filter="match_any,svcid")
        bench.engine.state = bench.engine.state.__class__.RUNTIME
        assert bench.engine.nvmf.config()[0]["params"]["discovery_filter"] == "address,svcid"
        with pytest.raises(RpcFault, match="Unable to create subsystem"):
            await bench.rpc("nvmf_create_subsystem", nqn=OTHER)
        first, second = await bench.wire(), await bench.wire()
        assert (await first.connect()).code == 0
        assert (await second.connect()).code == 6
        assert (await second.connect(hostid=b"2" * 16)).code == 0
        for wire in (first, second):
            await wire.close()

    lab.run(scenario)
