"""A controller: the association of one host with one subsystem, its properties, features and events.

Why: what a host set, and what it has still to be told, lives here, while its connections come and go.  This
module must never touch a socket nor a bdev; ``disconnect`` is how it asks for the end of its queues.

Invariants: at most one notice of a kind is on its way until the host reads the log that belongs to it; a
controller that is not enabled runs no command but fabrics ones.  Source: SPDK v26.05 lib/nvmf/ctrlr.c.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dataplane.embedded.nvmf.reserved import NotificationLog
from dataplane.nvme.commands import Feature
from dataplane.nvme.fabrics import (
    CSTS_FATAL,
    CSTS_READY,
    CSTS_SHUTDOWN_COMPLETE,
    CSTS_SHUTDOWN_MASK,
    Capabilities,
    Configuration,
    Property,
    version,
)
from dataplane.nvme.identify import OAES_ANA_CHANGE, OAES_DISCOVERY_CHANGE, OAES_NAMESPACE_ATTRIBUTE
from dataplane.nvme.logs import AnaState, AsyncEvent, EventType, Notice
from dataplane.nvme.reservations import LOG_AVAILABLE
from dataplane.nvme.status import NvmeError, Status

if TYPE_CHECKING:
    from dataplane.embedded.nvmf.options import TransportOptions
    from dataplane.embedded.nvmf.subsystem import Listener, Namespace, Subsystem
    from dataplane.embedded.nvmf.tcp import TcpQueue

log = logging.getLogger(__name__)

MAX_ASYNC_EVENTS = 4
DISCOVERY_KATO_MS = 120_000
ASSOCIATION_TIMEOUT_S = 120.0
READY_TIMEOUT_MS = 15_000
KEEP_ALIVE_GRACE_S = 0.1  # so that a keep alive that waits in the socket after a stall is seen first
NVME_VERSION = version(2, 0)

_DNR = 1 << 15
_CRD_1 = 1 << 12
ALWAYS_ON = 0  # a notice that no bit of feature 0Bh turns off

_NOTICES = {
    "namespace": (OAES_NAMESPACE_ATTRIBUTE, AsyncEvent(EventType.NOTICE, Notice.NAMESPACE_ATTRIBUTE_CHANGED, 4)),
    "ana": (OAES_ANA_CHANGE, AsyncEvent(EventType.NOTICE, Notice.ANA_CHANGE, 0x0C)),
    "reservation": (ALWAYS_ON, LOG_AVAILABLE),
    "discovery": (OAES_DISCOVERY_CHANGE, AsyncEvent(EventType.NOTICE, Notice.DISCOVERY_LOG_CHANGE, 0x70)),
}


@dataclass(slots=True)
class Features:
    """Values of the features that a host may set, as CDW 11 holds them."""

    values: dict[int, int] = field(default_factory=dict)
    advanced_retry: bool = False
    extended_formats: bool = False


class Controller:
    """One association; made by a Connect of the admin queue, gone with it."""

    def __init__(
        self,
        subsystem: Subsystem,
        options: TransportOptions,
        listener: Listener | None,
        hostnqn: str,
        hostid: bytes,
        kato_ms: int,
    ) -> None:
        self.subsystem = subsystem
        self.options = options
        self.listener = listener
        self.hostnqn = hostnqn
        self.hostid = hostid
        self.cntlid = 0
        self.admin: TcpQueue | None = None
        self.queues: dict[int, TcpQueue] = {}
        self.cc = Configuration()
        self.csts = 0
        self.enabled = False
        self.closing = False
        self.changed_nsids: dict[int, None] = {}
        self.features = Features()
        self.notifications = NotificationLog()
        self._waiting_events: list[Callable[[AsyncEvent], None]] = []
        self._pending_events: deque[AsyncEvent] = deque()
        self._masked: set[str] = set()
        self._alive_at = 0.0
        self._grace_used = False
        self._kato_timer: asyncio.TimerHandle | None = None
        self._association_timer: asyncio.TimerHandle | None = None
        self._set_defaults(kato_ms)

    def _set_defaults(self, kato_ms: int) -> None:
        kato = self.round_kato(kato_ms)
        events = OAES_NAMESPACE_ATTRIBUTE
        if self.subsystem.ana_reporting:
            events |= OAES_ANA_CHANGE
        if self.subsystem.discovery:
            # A host that gives a keep alive timeout asks for a persistent connection with notices.
            events |= OAES_DISCOVERY_CHANGE if kato else 0
            kato = kato or DISCOVERY_KATO_MS
        queues = self.options.max_io_qpairs_per_ctrlr - 1
        self.features.values = {
            Feature.ARBITRATION: 0,
            Feature.POWER_MANAGEMENT: 0,
            Feature.ERROR_RECOVERY: 0,
            Feature.VOLATILE_WRITE_CACHE: 1,
            Feature.NUMBER_OF_QUEUES: queues | queues << 16,
            Feature.INTERRUPT_COALESCING: 0,
            Feature.WRITE_ATOMICITY: 0,
            Feature.ASYNC_EVENT: events,
            Feature.KEEP_ALIVE_TIMER: kato,
        }

    @property
    def hostid_text(self) -> str:
        """The host identifier as a UUID."""
        return str(uuid.UUID(bytes=self.hostid))

    @property
    def max_queues(self) -> int:
        """Queues it may have, the admin queue among them."""
        return self.options.max_io_qpairs_per_ctrlr + 1

    def round_kato(self, kato_ms: int) -> int:
        """The keep alive timeout that applies when a host asks for ``kato_ms``; 0 stays off."""
        if kato_ms == 0:
            return 0
        step = self.options.kas * 100
        return max(-(-kato_ms // step) * step, self.options.min_kato)

    def ana_state(self, anagrpid: int) -> AnaState:
        """The state of that group for this controller."""
        if not self.subsystem.ana_reporting:
            return AnaState.OPTIMIZED
        if self.listener is None:
            return AnaState.INACCESSIBLE
        return self.listener.ana_states[anagrpid - 1]

    def with_retry_delay(self, status: int) -> int:
        """The status field of a failed command: with CRD 1 where the host knows it and may retry."""
        return status if status & _DNR or not self.features.advanced_retry else status | _CRD_1

    def namespace(self, nsid: int) -> Namespace | None:
        """The namespace of that NSID, if this host sees it."""
        namespace = self.subsystem.namespaces.get(nsid)
        if namespace is not None and self.subsystem.visible(namespace, self.hostnqn):
            return namespace
        return None

    # Events

    def namespace_changed(self, nsid: int) -> None:
        """Note it for the changed namespace list and tell the host."""
        self.changed_nsids[nsid] = None
        self._notify("namespace")

    def ana_changed(self) -> None:
        """Tell the host to read the ANA log."""
        self._notify("ana")

    def discovery_changed(self) -> None:
        """Tell the host to read the discovery log."""
        self._notify("discovery")

    def reservation_changed(self, nsid: int, kind: int) -> None:
        """Note it in log 80h and tell the host to read that."""
        if self.notifications.add(nsid, kind):
            self._notify("reservation")

    def unmask(self, kind: str) -> None:
        """The host read that log and did not ask to retain the event: the next change is told again."""
        self._masked.discard(kind)

    def _notify(self, kind: str) -> None:
        bit, event = _NOTICES[kind]
        off = bit != ALWAYS_ON and not self.features.values[Feature.ASYNC_EVENT] & bit
        if off or kind in self._masked:
            return
        self._masked.add(kind)
        if self._waiting_events:
            self._waiting_events.pop()(event)
        else:
            self._pending_events.append(event)

    def wait_event(self, tell: Callable[[AsyncEvent], None]) -> None:
        """``tell`` gets the next event, maybe at once; raises NvmeError beyond the limit."""
        if self._pending_events:
            tell(self._pending_events.popleft())
            return
        if len(self._waiting_events) >= MAX_ASYNC_EVENTS:
            raise NvmeError(Status.ASYNC_EVENT_LIMIT)
        self._waiting_events.append(tell)

    def forget_event(self, tell: Callable[[AsyncEvent], None]) -> None:
        """The request was aborted."""
        self._waiting_events.remove(tell)

    # Keep alive

    def start_keep_alive(self) -> None:
        """Start or restart the timer with the timeout that the feature holds."""
        self.keep_alive()
        self._arm(self.features.values[Feature.KEEP_ALIVE_TIMER] / 1000)

    def keep_alive(self) -> None:
        """The host is there."""
        self._alive_at = asyncio.get_running_loop().time()
        self._grace_used = False

    def _arm(self, delay_s: float) -> None:
        if self._kato_timer is not None:
            self._kato_timer.cancel()
            self._kato_timer = None
        if self.features.values[Feature.KEEP_ALIVE_TIMER]:
            self._kato_timer = asyncio.get_running_loop().call_later(delay_s, self._check_alive)

    def _check_alive(self) -> None:
        kato_s = self.features.values[Feature.KEEP_ALIVE_TIMER] / 1000
        left = self._alive_at + kato_s - asyncio.get_running_loop().time()
        if left > 0:
            self._arm(left)
        elif not self._grace_used:
            self._grace_used = True
            self._arm(KEEP_ALIVE_GRACE_S)
        else:
            log.warning("host %s sent no keep alive to %s", self.hostnqn, self.subsystem.nqn)
            self.csts |= CSTS_FATAL
            self.disconnect()

    # Properties

    def property_get(self, offset: int, *, wide: bool) -> int:
        """The property at ``offset``; raises NvmeError when there is none of that size."""
        match offset, wide:
            case (Property.CAP, True):
                return self._cap()
            case (Property.CAP, False):
                return self._cap() & 0xFFFFFFFF
            case (4, False):
                return self._cap() >> 32
            case (Property.VS, False):
                return NVME_VERSION
            case (Property.CC, False):
                return self.cc.pack()
            case (Property.CSTS, False):
                return self.csts
            case (Property.NSSR, False):
                return 0
            case (Property.CRTO, False):
                return READY_TIMEOUT_MS // 500
        raise NvmeError(Status.FABRICS_INVALID_PARAM)

    def _cap(self) -> int:
        return Capabilities(
            mqes=self.options.max_queue_depth - 1, timeout=READY_TIMEOUT_MS // 500, ready_modes=1
        ).pack()

    def property_set(self, offset: int, value: int, *, wide: bool) -> None:
        """Set CC (CSTS is taken and ignored); raises NvmeError for anything else."""
        if wide or offset not in (Property.CC, Property.CSTS):
            raise NvmeError(Status.FABRICS_INVALID_PARAM)
        if offset == Property.CC:
            self._set_cc(Configuration.parse(value))

    def _set_cc(self, new: Configuration) -> None:
        old = self.cc
        if new.ams != old.ams or new.mps != old.mps or new.css > 6 or new.shn == 3:
            raise NvmeError(Status.FABRICS_INVALID_PARAM)
        self.cc = new
        self.enabled = new.enable
        if new.enable and not old.enable:
            self._stop_association_timer()
            self.csts |= CSTS_READY
        if new.shn != old.shn and new.shn:
            self._close_io_queues()
            self.csts = (self.csts & ~CSTS_SHUTDOWN_MASK) | CSTS_SHUTDOWN_COMPLETE
            self._stop_keep_alive()
            self._start_association_timer()
        elif old.enable and not new.enable:
            self._close_io_queues()
            self.cc = Configuration()
            self.csts = 0
            self._start_association_timer()

    def _close_io_queues(self) -> None:
        for qid, queue in list(self.queues.items()):
            if qid:
                queue.disconnect("the controller was reset or shut down")

    def _start_association_timer(self) -> None:
        # A host may come back to a controller that it disabled, but not hold it for ever (base 2.0, 3.5.1.4).
        self._stop_association_timer()
        loop = asyncio.get_running_loop()
        self._association_timer = loop.call_later(ASSOCIATION_TIMEOUT_S, self.disconnect)

    def _stop_association_timer(self) -> None:
        if self._association_timer is not None:
            self._association_timer.cancel()
            self._association_timer = None

    def _stop_keep_alive(self) -> None:
        if self._kato_timer is not None:
            self._kato_timer.cancel()
            self._kato_timer = None

    # The end

    def disconnect(self) -> None:
        """End all queues; the controller goes when its admin queue has gone."""
        self.closing = True
        for queue in list(self.queues.values()):
            queue.disconnect("the controller ends")

    def destroy(self) -> None:
        """The admin queue is gone: leave the subsystem and end what is left."""
        self.closing = True
        self.admin = None
        self._stop_keep_alive()
        self._stop_association_timer()
        self._waiting_events.clear()
        if self.subsystem.controllers.get(self.cntlid) is self:
            del self.subsystem.controllers[self.cntlid]
        self.disconnect()
