"""A subsystem: its controllers, and the namespaces that they show together.

Why: which namespaces exist follows from what each controller shows, and controllers come, change and go at any
time; this is the one place where that is put together.  This module must never send an I/O.

Invariants: a namespace exists while at least one controller shows it, or showed it before its connection was
lost; ``on_added`` and ``on_removed`` alternate per NSID; a controller whose namespace has another identity than
the one already known gives no path to it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

from dataplane.embedded.bdev.stats import IoStat
from dataplane.embedded.initiator.association import AssociationOptions
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.multipath import HostNamespace, Path
from dataplane.embedded.initiator.namespaces import Shown
from dataplane.embedded.initiator.policy import Selection
from dataplane.embedded.initiator.reconnect import Address, LossPolicy
from dataplane.nvme.identify import CMIC_MULTI_CONTROLLER

log = logging.getLogger(__name__)


class NotThisSubsystem(Exception):
    """The controller cannot be a further path of this subsystem."""

    errno = errno.EINVAL


class Subsystem:
    """Everything reached under one subsystem NQN by one host."""

    def __init__(self, options: AssociationOptions, policy: LossPolicy, selection: Selection, retry_limit: int) -> None:
        self.options = options
        self.policy = policy
        self.selection = selection
        self.retry_limit = retry_limit
        self.controllers: list[Controller] = []
        self.path_stat = False
        self.namespaces: dict[int, HostNamespace] = {}
        self.on_added: Callable[[HostNamespace], None] | None = None
        self.on_removed: Callable[[HostNamespace], None] | None = None
        self.on_resized: Callable[[HostNamespace], None] | None = None
        self.on_left: Callable[[Controller], None] | None = None
        self.on_empty: Callable[[Subsystem], None] | None = None
        self.on_change: Callable[[Controller], None] | None = None

    async def attach(
        self,
        addresses: tuple[Address, ...],
        *,
        options: AssociationOptions | None = None,
        policy: LossPolicy | None = None,
        persist: bool = False,
    ) -> Controller:
        """One more controller.  Raises ``TransportLost``, ``NvmeError`` (unless ``persist``, see
        ``Controller.start``) and ``NotThisSubsystem``."""
        controller = Controller(options or self.options, policy or self.policy, addresses)
        if persist:
            self._adopt(controller)
            await controller.start(persist=True)
            return controller
        await controller.start()
        problem = self._misfit(controller)
        if problem is not None:
            await controller.delete()
            raise NotThisSubsystem(problem)
        self._adopt(controller)
        self._changed(controller)
        return controller

    def _misfit(self, controller: Controller) -> str | None:
        """Why a second controller cannot stand beside those that are there (SPDK ``bdev_nvme_check_multipath``)."""
        for other in self.controllers:
            if not controller.identity.cmic & other.identity.cmic & CMIC_MULTI_CONTROLLER:
                return f"{controller.options.subnqn} does not take several controllers"
            if other.cntlid == controller.cntlid:
                return f"two controllers of {controller.options.subnqn} have the identifier {other.cntlid}"
        return None

    def _adopt(self, controller: Controller) -> None:
        self.controllers.append(controller)
        controller.on_change = self._changed
        controller.on_deleted = self._deleted

    async def close(self) -> None:
        """Disconnect from every controller; I/O that waits fails."""
        for namespace in self.namespaces.values():
            namespace.removed = True
            namespace.wake()
        await asyncio.gather(*(controller.delete() for controller in list(self.controllers)))

    # -- what controllers tell

    def _changed(self, controller: Controller) -> None:
        if controller.connects and controller in self.controllers and controller.live:
            self._take_over(controller)
        for namespace in list(self.namespaces.values()):
            namespace.wake()
        if self.on_change is not None:
            self.on_change(controller)

    def _deleted(self, controller: Controller) -> None:
        if controller in self.controllers:
            self.controllers.remove(controller)
            if self.on_left is not None:
                self.on_left(controller)
        for namespace in list(self.namespaces.values()):
            self._remove_path(namespace, controller)
            namespace.wake()
        if not self.controllers and self.on_empty is not None:
            self.on_empty(self)

    def _take_over(self, controller: Controller) -> None:
        """Bring the namespaces in line with what the controller shows now."""
        for nsid, namespace in list(self.namespaces.items()):
            if nsid not in controller.shown:
                self._remove_path(namespace, controller)
        for nsid, shown in controller.shown.items():
            namespace = self.namespaces.get(nsid) or self._add(shown)
            self._add_path(namespace, controller, shown)

    def _add(self, shown: Shown) -> HostNamespace:
        namespace = HostNamespace(shown, self.selection, self.retry_limit)
        self.namespaces[shown.nsid] = namespace
        if self.on_added is not None:
            self.on_added(namespace)
        return namespace

    def _add_path(self, namespace: HostNamespace, controller: Controller, shown: Shown) -> None:
        if shown.identity != namespace.shown.identity or shown.block_size != namespace.block_size:
            log.error(
                "namespace %d of %s is another one on %s", shown.nsid, controller.options.subnqn, controller.address
            )
            self._remove_path(namespace, controller)
            return
        if shown.num_blocks != namespace.num_blocks:
            namespace.num_blocks = shown.num_blocks
            if self.on_resized is not None:
                self.on_resized(namespace)
        if not any(path.controller is controller for path in namespace.paths):
            order = [self.controllers.index(path.controller) for path in namespace.paths]
            mine = self.controllers.index(controller)
            at = next((index for index, other in enumerate(order) if other > mine), len(order))
            namespace.join(Path(controller, shown.nsid, IoStat() if self.path_stat else None), at)

    def _remove_path(self, namespace: HostNamespace, controller: Controller) -> None:
        namespace.leave(controller)
        if namespace.paths or self.namespaces.get(namespace.nsid) is not namespace:
            return
        del self.namespaces[namespace.nsid]
        namespace.removed = True
        namespace.wake()
        if self.on_removed is not None:
            self.on_removed(namespace)
