"""What ``bdev_nvme_set_options`` sets, and the checks it makes.

Why: a client written for SPDK sets options that mean nothing here (poll periods, RDMA); they are checked, kept
and shown so that it cannot tell the difference, and those that do mean something are honoured.  This module must
never look at a controller.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``g_opts``, ``bdev_nvme_validate_opts``,
``bdev_nvme_opts_config_json``).

Honoured: action_on_timeout, timeout_us, timeout_admin_us, keep_alive_timeout_ms, bdev_retry_count,
transport_ack_timeout, ctrlr_loss_timeout_sec, reconnect_delay_sec, fast_io_fail_timeout_sec,
disable_auto_failback, generate_uuids, dhchap_digests, dhchap_dhgroups, tcp_connect_timeout_ms, multipath_opts.
``enable_flush`` is kept and shown, but a flush always goes to the drive: SPDK without it answers a flush that never
reached a volatile cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from dataplane.embedded.initiator.association import TimeoutAction
from dataplane.embedded.initiator.policy import Selection, Spread
from dataplane.embedded.initiator.reconnect import LossPolicy
from dataplane.nvme.dhchap import Digest
from dataplane.nvme.ffdhe import DhGroup

POLICIES = ("active_passive", "active_active")
SELECTORS = ("round_robin", "queue_depth")
DIGEST_NAMES = tuple(item.label for item in Digest)
DHGROUP_NAMES = tuple(item.label for item in DhGroup)
IO_QUEUE_REQUESTS = 512  # what 0 means, and what is then shown


@dataclass(frozen=True, slots=True)
class MultipathOptions:
    """How the paths of a bdev share its I/O."""

    policy: str = "active_passive"
    selector: str = "round_robin"
    min_io: int = 1

    def merge(self, given: Mapping[str, Any] | None) -> Self:
        """With the members that a call gave."""
        return replace(self, **(given or {}))

    def valid(self) -> bool:
        """Round robin needs to know when to move on."""
        return self.policy != "active_active" or self.selector != "round_robin" or self.min_io > 0

    def to_json(self) -> dict[str, object]:
        """As a configuration shows it: only what has a meaning."""
        shown: dict[str, object] = {"policy": self.policy}
        if self.policy == "active_active":
            shown["selector"] = self.selector
            if self.selector == "round_robin":
                shown["min_io"] = self.min_io
        return shown

    def config(self, bdev_name: str) -> dict[str, object]:
        """The call that gives a bdev this."""
        shown = self.to_json()
        if "min_io" in shown:
            shown["rr_min_io"] = shown.pop("min_io")
        return {"method": "bdev_nvme_set_multipath_policy", "params": {"name": bdev_name, **shown}}

    def selection(self, *, failback: bool) -> Selection:
        """For ``policy``."""
        if self.policy == "active_passive":
            return Selection(Spread.ACTIVE_PASSIVE, failback=failback)
        spread = Spread.ROUND_ROBIN if self.selector == "round_robin" else Spread.QUEUE_DEPTH
        return Selection(spread, self.min_io, failback)


DEFAULT_SHARING = MultipathOptions()


@dataclass(frozen=True, slots=True)
class NvmeOptions:
    """All options, in the order in which SPDK shows them."""

    action_on_timeout: str = "none"
    timeout_us: int = 0
    timeout_admin_us: int = 0
    keep_alive_timeout_ms: int = 10_000
    arbitration_burst: int = 0
    low_priority_weight: int = 0
    medium_priority_weight: int = 0
    high_priority_weight: int = 0
    nvme_adminq_poll_period_us: int = 10_000
    nvme_ioq_poll_period_us: int = 0
    io_queue_requests: int = 0
    delay_cmd_submit: bool = True
    transport_retry_count: int = 4
    bdev_retry_count: int = 3
    transport_ack_timeout: int = 0
    ctrlr_loss_timeout_sec: int = 0
    reconnect_delay_sec: int = 0
    fast_io_fail_timeout_sec: int = 0
    disable_auto_failback: bool = False
    generate_uuids: bool = False
    transport_tos: int = 0
    nvme_error_stat: bool = False
    rdma_srq_size: int = 0
    io_path_stat: bool = False
    allow_accel_sequence: bool = False
    rdma_max_cq_size: int = 0
    rdma_cm_event_timeout_ms: int = 0
    dhchap_digests: tuple[str, ...] = DIGEST_NAMES
    dhchap_dhgroups: tuple[str, ...] = DHGROUP_NAMES
    rdma_umr_per_io: bool = False
    tcp_connect_timeout_ms: int = 0
    enable_flush: bool = False
    multipath_opts: MultipathOptions = MultipathOptions()

    def merge(self, given: Mapping[str, Any]) -> Self:
        """With the members that a call gave; raises ValueError when they do not go together."""
        values = dict(given)
        for name, known in (("dhchap_digests", DIGEST_NAMES), ("dhchap_dhgroups", DHGROUP_NAMES)):
            if name in values:
                values[name] = tuple(word for word in known if word in values[name])
        values["multipath_opts"] = self.multipath_opts.merge(values.get("multipath_opts"))
        changed = replace(self, **values)
        if changed.timeout_admin_us and not changed.timeout_us:
            raise ValueError("timeout_admin_us needs timeout_us")
        if changed.bdev_retry_count < -1:
            raise ValueError("bdev_retry_count is below -1")
        if changed.loss.problem() is not None or not changed.multipath_opts.valid():
            raise ValueError(changed.loss.problem() or "min_io is 0")
        return changed

    @property
    def loss(self) -> LossPolicy:
        """For ``reconnect``."""
        return LossPolicy(self.ctrlr_loss_timeout_sec, self.reconnect_delay_sec, self.fast_io_fail_timeout_sec)

    @property
    def timeout_action(self) -> TimeoutAction:
        """For ``association``."""
        return TimeoutAction(self.action_on_timeout)

    @property
    def user_timeout_ms(self) -> int:
        """``transport_ack_timeout`` n means 2^n ms over TCP, 31 at most (lib/nvme/nvme_tcp.c); 0 is never."""
        return min(1 << min(self.transport_ack_timeout, 31), 0x7FFFFFFF) if self.transport_ack_timeout else 0

    def to_json(self) -> dict[str, object]:
        """As ``framework_get_config`` shows them."""
        shown: dict[str, object] = {item.name: getattr(self, item.name) for item in fields(self)}
        shown["io_queue_requests"] = self.io_queue_requests or IO_QUEUE_REQUESTS
        shown["dhchap_digests"] = list(self.dhchap_digests)
        shown["dhchap_dhgroups"] = list(self.dhchap_dhgroups)
        shown["multipath_opts"] = self.multipath_opts.to_json()
        return shown
