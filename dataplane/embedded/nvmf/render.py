"""The target's objects as JSON, key by key as SPDK v26.05 prints them (lib/nvmf/nvmf_rpc.c, nvmf.c, transport.c).

This module must never change what it shows.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from dataplane.nvme.logs import AnaState

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.controller import Controller
    from dataplane.embedded.nvmf.subsystem import Listener, Namespace, Subsystem
    from dataplane.embedded.nvmf.target import NvmfTarget, Referral
    from dataplane.embedded.nvmf.tcp import TcpQueue

THREAD = "nvmf_tgt_poll_group_000"
TICK_RATE_HZ = 1_000_000_000
_PASSTHRU = (
    "identify_ctrlr", "identify_uuid_list", "get_log_page", "get_set_features", "sanitize",
    "security_send_recv", "fw_update", "nvme_mi", "vendor_specific",
)  # fmt: skip
ANA_NAMES = {
    AnaState.OPTIMIZED: "optimized",
    AnaState.NON_OPTIMIZED: "non_optimized",
    AnaState.INACCESSIBLE: "inaccessible",
    AnaState.PERSISTENT_LOSS: "persistent_loss",
    AnaState.CHANGE: "change",
}


def _ids(namespace: Namespace) -> dict[str, object]:
    shown: dict[str, object] = {}
    if any(namespace.nguid):
        shown["nguid"] = namespace.nguid.hex().upper()
    if any(namespace.eui64):
        shown["eui64"] = namespace.eui64.hex().upper()
    if any(namespace.uuid):
        shown["uuid"] = str(uuid.UUID(bytes=namespace.uuid))
    return shown


def subsystem_json(subsystem: Subsystem) -> dict[str, object]:
    """As ``nvmf_get_subsystems`` shows it."""
    shown: dict[str, object] = {
        "nqn": subsystem.nqn,
        "subtype": "Discovery" if subsystem.discovery else "NVMe",
        "listen_addresses": [item.address.to_json() for item in subsystem.listeners],
        "allow_any_host": subsystem.allow_any_host,
        "hosts": [{"nqn": host, **_key_names(subsystem, host)} for host in subsystem.hosts],
    }
    if subsystem.discovery:
        return shown
    options = subsystem.options
    shown |= {
        "serial_number": options.serial_number,
        "model_number": options.model_number,
        "max_namespaces": options.max_namespaces,
        "passthrough": options.passthrough,
        "min_cntlid": subsystem.min_cntlid,
        "max_cntlid": subsystem.max_cntlid,
        "dmrsl": options.dmrsl,
        "wzsl": options.wzsl,
        "namespaces": [_namespace_json(subsystem, item) for item in subsystem.sorted_namespaces()],
    }
    return shown


def _key_names(subsystem: Subsystem, hostnqn: str) -> dict[str, object]:
    keys = subsystem.host_keys.get(hostnqn)
    return {} if keys is None else keys.names()


def _namespace_json(subsystem: Subsystem, namespace: Namespace) -> dict[str, object]:
    name = namespace.bdev.name
    shown = {"nsid": namespace.nsid, "bdev_name": name, "name": name} | _ids(namespace)
    return shown | ({"anagrpid": namespace.anagrpid} if subsystem.ana_reporting else {})


def listener_json(subsystem: Subsystem, listener: Listener) -> dict[str, object]:
    """As ``nvmf_subsystem_get_listeners`` shows it."""
    shown: dict[str, object] = {"address": listener.address.to_json()}
    if subsystem.ana_reporting:
        shown["ana_states"] = [
            {"ana_group": group, "ana_state": ANA_NAMES[state]} for group, state in enumerate(listener.ana_states, 1)
        ]
    return shown


def controller_json(controller: Controller) -> dict[str, object]:
    """As ``nvmf_subsystem_get_controllers`` shows it; SPDK counts the admin queue among the I/O queues."""
    return {
        "cntlid": controller.cntlid,
        "cntrltype": "discovery" if controller.subsystem.discovery else "io",
        "hostnqn": controller.hostnqn,
        "hostid": controller.hostid_text,
        "num_io_qpairs": len(controller.queues),
    }


def queue_json(queue: TcpQueue, controller: Controller) -> dict[str, object]:
    """As ``nvmf_subsystem_get_qpairs`` shows it."""
    shown: dict[str, object] = {
        "cntlid": controller.cntlid,
        "qid": queue.qid,
        "state": "authenticating" if queue.auth is not None and queue.auth.required else "enabled",
        "thread": THREAD,
        "hostnqn": controller.hostnqn,
        "listen_address": queue.local.to_json(),
        "peer_address": queue.peer.to_json(),
    }
    return shown if queue.auth is None else {**shown, "auth": queue.auth.to_json()}


def referral_json(referral: Referral) -> dict[str, object]:
    """As ``nvmf_discovery_get_referrals`` shows it."""
    return {
        "address": referral.address.to_json(),
        "secure_channel": referral.secure_channel,
        "subnqn": referral.subnqn,
    }


def stats(target: NvmfTarget) -> dict[str, object]:
    """As ``nvmf_get_stats`` shows them; the loop is the one poll group."""
    admin = sum(1 for queue in target.queues if queue.controller and not queue.qid)
    io = sum(1 for queue in target.queues if queue.controller and queue.qid)
    group = {
        "name": THREAD,
        "admin_qpairs": target.counts.admin,
        "io_qpairs": target.counts.io,
        "current_admin_qpairs": admin,
        "current_io_qpairs": io,
        "current_unassociated_qpairs": len(target.queues) - admin - io,
        "pending_bdev_io": 0,
        "completed_nvme_io": target.completed_io,
        "transports": [{"trtype": name} for name in target.transports],
    }
    return {"tick_rate": TICK_RATE_HZ, "poll_groups": [group]}


def _call(method: str, params: dict[str, object]) -> dict[str, object]:
    return {"method": method, "params": params}


def config(target: NvmfTarget) -> list[dict[str, object]]:
    """The calls that would make the target again, in SPDK's order (batches flattened)."""
    calls = _global_calls(target)
    calls += [_call("nvmf_create_transport", options.to_json()) for options in target.transports.values()]
    calls += [_call("nvmf_discovery_add_referral", referral_json(item)) for item in target.referrals]
    nvme = [item for item in target.sorted_subsystems() if not item.discovery]
    calls += [_create_call(subsystem) for subsystem in nvme]
    calls += [
        _call("nvmf_subsystem_add_host", {"nqn": subsystem.nqn, "host": host, **_key_names(subsystem, host)})
        for subsystem in nvme
        for host in subsystem.hosts
    ]
    calls += [_add_ns_call(subsystem, item) for subsystem in nvme for item in subsystem.sorted_namespaces()]
    calls += [
        _call("nvmf_ns_add_host", {"nqn": subsystem.nqn, "nsid": item.nsid, "host": host})
        for subsystem in nvme
        for item in subsystem.sorted_namespaces()
        for host in item.hosts
    ]
    calls += [
        _listener_call(subsystem, item) for subsystem in target.sorted_subsystems() for item in subsystem.listeners
    ]
    return calls


def _global_calls(target: NvmfTarget) -> list[dict[str, object]]:
    settings = target.settings
    passthru = {name: settings.admin_cmd_passthru.get(name, False) for name in _PASSTHRU}
    return [
        _call(
            "nvmf_set_config",
            {
                "discovery_filter": ",".join(
                    word for word in ("transport", "address", "svcid") if word in settings.discovery_filter
                )
                or "match_any",
                "admin_cmd_passthru": passthru,
                **settings.authentication.to_json(),
                "dup_host_policy": settings.dup_host_policy,
            },
        ),
        _call("nvmf_set_max_subsystems", {"max_subsystems": target.max_subsystems}),
        _call("nvmf_set_crdt", dict(zip(("crdt1", "crdt2", "crdt3"), settings.crdt, strict=True))),
    ]


def _create_call(subsystem: Subsystem) -> dict[str, object]:
    options = subsystem.options
    return _call(
        "nvmf_create_subsystem",
        {
            "nqn": subsystem.nqn,
            "allow_any_host": subsystem.allow_any_host,
            "serial_number": options.serial_number,
            "model_number": options.model_number,
            "max_namespaces": options.max_namespaces,
            "min_cntlid": subsystem.min_cntlid,
            "max_cntlid": subsystem.max_cntlid,
            "ana_reporting": options.ana_reporting,
            "dmrsl": options.dmrsl,
            "wzsl": options.wzsl,
            "passthrough": options.passthrough,
            "enable_nssr": options.enable_nssr,
        },
    )


def _add_ns_call(subsystem: Subsystem, item: Namespace) -> dict[str, object]:
    namespace: dict[str, object] = {"nsid": item.nsid, "bdev_name": item.bdev.name}
    if item.reserved.path is not None:
        namespace["ptpl_file"] = item.reserved.path
    namespace |= _ids(item)
    if subsystem.ana_reporting:
        namespace["anagrpid"] = item.anagrpid
    namespace["no_auto_visible"] = not item.always_visible
    return _call("nvmf_subsystem_add_ns", {"nqn": subsystem.nqn, "namespace": namespace})


def _listener_call(subsystem: Subsystem, listener: Listener) -> dict[str, object]:
    params: dict[str, object] = {
        "nqn": subsystem.nqn,
        "listen_address": listener.address.to_json(),
        "secure_channel": listener.secure_channel,
    }
    if listener.sock_impl:
        params["sock_impl"] = listener.sock_impl
    return _call("nvmf_subsystem_add_listener", params)
