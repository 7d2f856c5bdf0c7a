"""The NVMe-oF target: transports, subsystems, namespaces, hosts, listeners, ANA.

What stops I/O (lib/nvmf/nvmf_rpc.c): adding or removing a namespace, changing its ANA group and its visible
hosts pause the I/O of that namespace and freeze every admin command of the subsystem; listeners and ANA states
freeze admin commands only; ``get_listeners`` and ``get_controllers`` pause the subsystem too, though they only
read.  Five methods ignore unknown parameters, which is why every call is checked before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dataplane.rpc import reply
from dataplane.rpc.call import Call
from dataplane.rpc.errors import ReplyError
from dataplane.rpc.jsontype import Json
from dataplane.rpc.reply import Fields
from dataplane.rpc.values import (
    ConfigEntry,
    HostControllerInfo,
    HostInfo,
    ListenAddress,
    ListenerInfo,
    NamespaceInfo,
    NamespaceVisibility,
    PollGroupStats,
    StatsInfo,
    SubsystemConfig,
    SubsystemInfo,
    TransportInfo,
)


def set_config(
    *,
    poll_groups_mask: str | None = None,
    dup_host_policy: str | None = None,
    discovery_filter: str | None = None,
    dhchap_digests: Sequence[str] | None = None,
    dhchap_dhgroups: Sequence[str] | None = None,
) -> Call[None]:
    """Options of the target; start-up phase only."""
    return Call(
        "nvmf_set_config",
        {
            "poll_groups_mask": poll_groups_mask,
            "dup_host_policy": dup_host_policy,
            "discovery_filter": discovery_filter,
            "dhchap_digests": dhchap_digests,
            "dhchap_dhgroups": dhchap_dhgroups,
        },
        parse=reply.done,
    )


def set_max_subsystems(count: int) -> Call[None]:
    """The most subsystems the target will hold; start-up phase only."""
    return Call("nvmf_set_max_subsystems", {"max_subsystems": count}, parse=reply.done)


def create_transport(
    trtype: str,
    *,
    max_queue_depth: int | None = None,
    max_io_qpairs_per_ctrlr: int | None = None,
    in_capsule_data_size_bytes: int | None = None,
    max_io_size_bytes: int | None = None,
    max_aq_depth: int | None = None,
    iobuf_small_cache_size: int | None = None,
    iobuf_large_cache_size: int | None = None,
    max_srq_depth: int | None = None,
    no_srq: bool | None = None,
    c2h_success: bool | None = None,
    zcopy: bool | None = None,
    sock_priority: int | None = None,
    abort_timeout_s: int | None = None,
    acceptor_poll_us: int | None = None,
    ack_timeout_ms: int | None = None,
    data_wr_pool_size: int | None = None,
    control_msg_num: int | None = None,
    min_kato_ms: int | None = None,
    disable_command_passthru: bool | None = None,
    masked_oncs: Sequence[str] | None = None,
    masked_fuses: Sequence[str] | None = None,
) -> Call[None]:
    """Make the transport ``TCP`` or ``RDMA`` known to the target; a second of a kind is refused.  ``masked_oncs``
    and ``masked_fuses`` hide commands from hosts and refuse them: ``reservs`` reservations, ``nvmcmps`` Compare,
    ``fcws`` the fused Compare and Write.  No method tells afterwards what is masked."""
    return Call(
        "nvmf_create_transport",
        {
            "trtype": trtype,
            "max_queue_depth": max_queue_depth,
            "max_io_qpairs_per_ctrlr": max_io_qpairs_per_ctrlr,
            "in_capsule_data_size": in_capsule_data_size_bytes,
            "max_io_size": max_io_size_bytes,
            "max_aq_depth": max_aq_depth,
            "iobuf_small_cache_size": iobuf_small_cache_size,
            "iobuf_large_cache_size": iobuf_large_cache_size,
            "max_srq_depth": max_srq_depth,
            "no_srq": no_srq,
            "c2h_success": c2h_success,
            "zcopy": zcopy,
            "sock_priority": sock_priority,
            "abort_timeout_sec": abort_timeout_s,
            "acceptor_poll_rate": acceptor_poll_us,
            "ack_timeout": ack_timeout_ms,
            "data_wr_pool_size": data_wr_pool_size,
            "control_msg_num": control_msg_num,
            "min_kato": min_kato_ms,
            "disable_command_passthru": disable_command_passthru,
            "masked_oncs": masked_oncs,
            "masked_fuses": masked_fuses,
        },
        parse=reply.done,
    )


def get_transports() -> Call[tuple[TransportInfo, ...]]:
    """The transports of the target."""

    def read(entry: Fields) -> TransportInfo:
        return TransportInfo(
            trtype=entry.text("trtype"),
            max_queue_depth=entry.number("max_queue_depth"),
            max_io_qpairs_per_ctrlr=entry.number("max_io_qpairs_per_ctrlr"),
            in_capsule_data_size_bytes=entry.number("in_capsule_data_size"),
            max_io_size_bytes=entry.number("max_io_size"),
            options=entry.raw,
        )

    return Call("nvmf_get_transports", parse=lambda raw: reply.objects(raw, "nvmf_get_transports", read))


def create_subsystem(
    nqn: str,
    *,
    serial_number: str,
    model_number: str,
    max_namespaces: int,
    min_cntlid: int,
    max_cntlid: int,
    ana_reporting: bool = True,
    allow_any_host: bool = False,
) -> Call[None]:
    """A subsystem without namespaces, hosts or listeners.  ``max_namespaces`` bounds NSIDs and ANA groups too.
    The controller ids of two nodes that serve one NQN must not overlap."""
    return Call(
        "nvmf_create_subsystem",
        {
            "nqn": nqn,
            "serial_number": serial_number,
            "model_number": model_number,
            "max_namespaces": max_namespaces,
            "min_cntlid": min_cntlid,
            "max_cntlid": max_cntlid,
            "ana_reporting": ana_reporting,
            "allow_any_host": allow_any_host,
        },
        parse=reply.done,
    )


def delete_subsystem(nqn: str) -> Call[None]:
    """Disconnect its hosts and take it away; -32602 when there is none."""
    return Call("nvmf_delete_subsystem", {"nqn": nqn}, parse=reply.done)


def get_subsystems() -> Call[tuple[SubsystemInfo, ...]]:
    """Every NVMe subsystem; the discovery subsystem is left out."""
    return Call("nvmf_get_subsystems", parse=_subsystems)


def get_subsystem(nqn: str) -> Call[SubsystemInfo]:
    """One subsystem; ENODEV when there is none."""

    def parse(raw: Json) -> SubsystemInfo:
        found = _subsystems(raw)
        if len(found) != 1:
            raise ReplyError("nvmf_get_subsystems", f"has {len(found)} subsystems for one NQN")
        return found[0]

    return Call("nvmf_get_subsystems", {"nqn": nqn}, parse=parse)


def _subsystems(raw: Json) -> tuple[SubsystemInfo, ...]:
    found = reply.objects(raw, "nvmf_get_subsystems", lambda entry: entry)
    return tuple(_subsystem(entry) for entry in found if entry.text("subtype") == "NVMe")


def _subsystem(entry: Fields) -> SubsystemInfo:
    return SubsystemInfo(
        nqn=entry.text("nqn"),
        serial_number=entry.text("serial_number"),
        model_number=entry.text("model_number"),
        max_namespaces=entry.number("max_namespaces", 0),
        min_cntlid=entry.number("min_cntlid"),
        max_cntlid=entry.number("max_cntlid"),
        allow_any_host=entry.flag("allow_any_host"),
        hosts=entry.each("hosts", _host),
        listen_addresses=entry.each("listen_addresses", _address),
        namespaces=entry.each("namespaces", _namespace),
    )


def _host(entry: Fields) -> HostInfo:
    return HostInfo(
        nqn=entry.text("nqn"),
        dhchap_key=entry.text("dhchap_key", ""),
        dhchap_ctrlr_key=entry.text("dhchap_ctrlr_key", ""),
    )


def _address(entry: Fields) -> ListenAddress:
    return ListenAddress(
        trtype=entry.text("trtype"),
        adrfam=entry.text("adrfam", ""),
        traddr=entry.text("traddr"),
        trsvcid=entry.text("trsvcid", ""),
    )


def _namespace(entry: Fields) -> NamespaceInfo:
    return NamespaceInfo(
        nsid=entry.number("nsid"),
        bdev_name=entry.text("bdev_name"),
        uuid=entry.text("uuid", ""),
        nguid=entry.text("nguid", ""),
        ana_group=entry.number("anagrpid", 0),
        ptpl_file=entry.text("ptpl_file", ""),
    )


def add_ns(
    nqn: str,
    *,
    bdev_name: str,
    nsid: int,
    nguid: str,
    uuid: str,
    ana_group: int,
    auto_visible: bool,
    ptpl_file: str | None = None,
) -> Call[int]:
    """Export the device ``bdev_name`` as namespace ``nsid``; the answer is its number.  Without ``auto_visible`` no
    host sees it before ``ns_add_host``."""
    namespace = {
        "bdev_name": bdev_name,
        "nsid": nsid,
        "nguid": nguid,
        "uuid": uuid,
        "anagrpid": ana_group,
        "no_auto_visible": not auto_visible,
        "ptpl_file": ptpl_file,
    }
    return Call("nvmf_subsystem_add_ns", {"nqn": nqn, "namespace": namespace}, parse=reply.number)


def remove_ns(nqn: str, nsid: int) -> Call[None]:
    """Take the namespace away from every host."""
    return Call("nvmf_subsystem_remove_ns", {"nqn": nqn, "nsid": nsid}, parse=reply.done)


def ns_add_host(nqn: str, nsid: int, host_nqn: str) -> Call[None]:
    """Let the host see a namespace that is not auto-visible."""
    return Call("nvmf_ns_add_host", {"nqn": nqn, "nsid": nsid, "host": host_nqn}, parse=reply.done)


def ns_remove_host(nqn: str, nsid: int, host_nqn: str) -> Call[None]:
    """Hide the namespace from the host."""
    return Call("nvmf_ns_remove_host", {"nqn": nqn, "nsid": nsid, "host": host_nqn}, parse=reply.done)


def add_host(
    nqn: str,
    host_nqn: str,
    *,
    psk: str | None = None,
    dhchap_key: str | None = None,
    dhchap_ctrlr_key: str | None = None,
) -> Call[None]:
    """Let the host connect; keys are names of the keyring.  TLS and DH-HMAC-CHAP exclude each other."""
    return Call(
        "nvmf_subsystem_add_host",
        {
            "nqn": nqn,
            "host": host_nqn,
            "psk": psk,
            "dhchap_key": dhchap_key,
            "dhchap_ctrlr_key": dhchap_ctrlr_key,
        },
        parse=reply.done,
    )


def remove_host(nqn: str, host_nqn: str, *, timeout_ms: int | None = None) -> Call[None]:
    """Forbid the host and disconnect it; answered when its connections are gone."""
    return Call(
        "nvmf_subsystem_remove_host",
        {"nqn": nqn, "host": host_nqn, "timeout_ms": timeout_ms},
        parse=reply.done,
    )


def add_listener(
    nqn: str,
    address: ListenAddress,
    *,
    ana_state: str | None = "inaccessible",
    secure_channel: bool | None = None,
) -> Call[None]:
    """Make the subsystem reachable at ``address``, in ``ana_state`` for all groups: born inaccessible unless
    said otherwise, so that no moment exists in which a new path takes I/O unasked.  A subsystem without ANA
    reporting takes no state: say None."""
    return Call(
        "nvmf_subsystem_add_listener",
        {
            "nqn": nqn,
            "listen_address": address.to_params(),
            "ana_state": ana_state,
            "secure_channel": secure_channel,
        },
        parse=reply.done,
    )


def remove_listener(nqn: str, address: ListenAddress) -> Call[None]:
    """Close the listener and its connections; -32602 when there is none."""
    return Call(
        "nvmf_subsystem_remove_listener",
        {"nqn": nqn, "listen_address": address.to_params()},
        parse=reply.done,
    )


def set_ana_state(nqn: str, address: ListenAddress, state: str, *, ana_group: int | None = None) -> Call[None]:
    """Set the state ``optimized``, ``non_optimized`` or ``inaccessible`` of one group on one listener, or of all
    groups at once without ``ana_group``."""
    return Call(
        "nvmf_subsystem_listener_set_ana_state",
        {"nqn": nqn, "listen_address": address.to_params(), "ana_state": state, "anagrpid": ana_group},
        parse=reply.done,
    )


def set_ns_ana_group(nqn: str, nsid: int, ana_group: int) -> Call[None]:
    """Move a namespace to another group."""
    return Call(
        "nvmf_subsystem_set_ns_ana_group",
        {"nqn": nqn, "nsid": nsid, "anagrpid": ana_group},
        parse=reply.done,
    )


def get_listeners(nqn: str) -> Call[tuple[ListenerInfo, ...]]:
    """The listeners with their ANA states.  It pauses the subsystem: not for monitoring."""

    def read(entry: Fields) -> ListenerInfo:
        states = entry.each("ana_states", lambda state: (state.number("ana_group"), state.text("ana_state")), [])
        return ListenerInfo(address=_address(entry.inner("address")), ana_states=dict(states))

    return Call(
        "nvmf_subsystem_get_listeners",
        {"nqn": nqn},
        parse=lambda raw: reply.objects(raw, "nvmf_subsystem_get_listeners", read),
    )


def get_controllers(nqn: str) -> Call[tuple[HostControllerInfo, ...]]:
    """The connected hosts.  It pauses the subsystem: not for monitoring."""

    def read(entry: Fields) -> HostControllerInfo:
        return HostControllerInfo(
            cntlid=entry.number("cntlid"),
            host_nqn=entry.text("hostnqn"),
            host_id=entry.text("hostid", ""),
            io_qpairs=entry.number("num_io_qpairs"),
        )

    return Call(
        "nvmf_subsystem_get_controllers",
        {"nqn": nqn},
        parse=lambda raw: reply.objects(raw, "nvmf_subsystem_get_controllers", read),
    )


def get_stats() -> Call[StatsInfo]:
    """Counters of the poll groups; pauses nothing."""

    def read(entry: Fields) -> PollGroupStats:
        return PollGroupStats(
            name=entry.text("name"),
            admin_qpairs=entry.number("admin_qpairs"),
            io_qpairs=entry.number("io_qpairs"),
            current_admin_qpairs=entry.number("current_admin_qpairs"),
            current_io_qpairs=entry.number("current_io_qpairs"),
            pending_bdev_io=entry.number("pending_bdev_io"),
            completed_nvme_io=entry.number("completed_nvme_io"),
        )

    def parse(raw: Json) -> StatsInfo:
        top = Fields(raw, "nvmf_get_stats")
        return StatsInfo(tick_rate_hz=top.number("tick_rate"), poll_groups=top.each("poll_groups", read))

    return Call("nvmf_get_stats", parse=parse)


def subsystem_config(entries: Iterable[ConfigEntry]) -> dict[str, SubsystemConfig]:
    """What only ``framework.get_config("nvmf")`` tells about each subsystem: whether it reports ANA, which hosts
    see which namespace, which listeners demand TLS."""
    made: dict[str, bool] = {}
    visible: dict[str, dict[int, NamespaceVisibility]] = {}
    secure: dict[str, set[ListenAddress]] = {}
    for entry in entries:
        params = Fields(dict(entry.params), entry.method)
        if entry.method == "nvmf_create_subsystem":
            nqn = params.text("nqn")
            made[nqn] = params.raw.get("ana_reporting") is True
            visible[nqn], secure[nqn] = {}, set()
        elif entry.method == "nvmf_subsystem_add_ns":
            space = params.inner("namespace")
            hidden = space.raw.get("no_auto_visible") is True
            visible[params.text("nqn")][space.number("nsid")] = NamespaceVisibility(auto_visible=not hidden)
        elif entry.method == "nvmf_ns_add_host":
            of = visible[params.text("nqn")]
            nsid = params.number("nsid")
            of[nsid] = NamespaceVisibility(
                auto_visible=of[nsid].auto_visible, hosts=of[nsid].hosts | {params.text("host")}
            )
        elif entry.method == "nvmf_subsystem_add_listener" and params.raw.get("secure_channel") is True:
            secure[params.text("nqn")].add(_address(params.inner("listen_address")))
    return {
        nqn: SubsystemConfig(
            nqn=nqn,
            ana_reporting=reports,
            namespaces=visible[nqn],
            secure_listeners=frozenset(secure[nqn]),
        )
        for nqn, reports in made.items()
    }
