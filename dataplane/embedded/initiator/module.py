"""The controllers that RPC methods attach, by name, and the bdevs on their namespaces.

Why: to a node a drive is ``<name>n<nsid>``, whatever the number of paths; names, what may join under a name and
what goes with it are SPDK's rules, kept here.  This module must never speak JSON-RPC (``rpc.bdev_nvme``) and
never send I/O.
Source: SPDK v26.05 module/bdev/nvme/bdev_nvme.c (``spdk_bdev_nvme_create``, ``spdk_bdev_nvme_delete``,
``nvme_bdev_ctrlr_create``, ``bdev_nvme_add_secondary_trid``).

Invariants: a group is known exactly while it has a controller; a bdev of it exists exactly while the subsystem
shows its namespace; the host identifier is made once for the process, as in SPDK, so that a restart is another
host to every reservation.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import uuid as uuidlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from dataplane.embedded.bdev.base import BdevError, BdevRegistry
from dataplane.embedded.initiator.association import AssociationOptions
from dataplane.embedded.initiator.authentication import Credentials, NotAuthenticated
from dataplane.embedded.initiator.bdev import NvmeBdev, generated_uuid
from dataplane.embedded.initiator.connection import Endpoint, TransportLost, explain
from dataplane.embedded.initiator.controller import Controller
from dataplane.embedded.initiator.describe import family, trid_json
from dataplane.embedded.initiator.multipath import HostNamespace
from dataplane.embedded.initiator.options import DEFAULT_SHARING, MultipathOptions, NvmeOptions
from dataplane.embedded.initiator.reconnect import Address, LossPolicy
from dataplane.embedded.initiator.subsystem import NotThisSubsystem, Subsystem
from dataplane.embedded.keyring import NO_KEYS, KeyPair, Keyring
from dataplane.nvme.dhchap import Digest
from dataplane.nvme.ffdhe import DhGroup
from dataplane.nvme.pdu import Digests
from dataplane.nvme.status import NvmeError

log = logging.getLogger(__name__)

DEFAULT_FABRICS_TIMEOUT_US = 500_000


def fail(number: int) -> BdevError:
    """The error of a management operation, worded as the C library does."""
    return BdevError(number, os.strerror(number))


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """One ``bdev_nvme_attach_controller``, checked.  ``multipath`` False: mode ``failover`` or ``disable``."""

    name: str
    address: Address
    subnqn: str
    hostnqn: str
    source: tuple[str, int] | None
    digests: Digests
    loss: LossPolicy
    multipath: bool
    multipath_opts: MultipathOptions
    max_bdevs: int
    num_io_queues: int
    fabrics_timeout_us: int | None
    keys: KeyPair = NO_KEYS

    def config(self, address: Address) -> dict[str, object]:
        """The call that attaches it again."""
        params: dict[str, object] = {
            "name": self.name,
            **trid_json(address, self.subnqn),
            "prchk_reftag": False,
            "prchk_guard": False,
            "ctrlr_loss_timeout_sec": int(self.loss.ctrlr_loss_timeout_s),
            "reconnect_delay_sec": int(self.loss.reconnect_delay_s),
            "fast_io_fail_timeout_sec": int(self.loss.fast_io_fail_timeout_s),
            **self.keys.names(),
            "hostnqn": self.hostnqn,
            "hdgst": self.digests.header,
            "ddgst": self.digests.data,
        }
        if self.source is not None:
            params["hostaddr"] = self.source[0]
            if self.source[1]:
                params["hostsvcid"] = str(self.source[1])
        if self.multipath:
            params["multipath"] = "multipath"
        timeout = DEFAULT_FABRICS_TIMEOUT_US if self.fabrics_timeout_us is None else self.fabrics_timeout_us
        params["fabrics_connect_timeout_us"] = timeout
        params["num_io_queues"] = self.num_io_queues
        params["multipath_opts"] = self.multipath_opts.to_json()
        return {"method": "bdev_nvme_attach_controller", "params": params}


@dataclass(frozen=True, slots=True)
class PathFilter:
    """Which paths a detach means; empty members match every path."""

    trtype: str = ""
    adrfam: str = ""
    traddr: str = ""
    trsvcid: str = ""
    subnqn: str = ""
    hostaddr: str = ""
    hostsvcid: str = ""

    def matches(self, controller: Controller, address: Address) -> bool:
        """Whether this path of the controller is meant."""
        source = controller.options.endpoint.source or ("", 0)
        pairs = (
            (self.trtype.lower(), "tcp"),
            (self.adrfam.lower(), family(address.traddr).lower()),
            (self.traddr.lower(), address.traddr.lower()),
            (self.trsvcid.lower(), address.trsvcid.lower()),
            (self.subnqn, controller.options.subnqn),
            (self.hostaddr, source[0]),
            (self.hostsvcid, str(source[1] or "")),
        )
        return all(not wanted or wanted == actual for wanted, actual in pairs)


class Group:
    """Everything attached under one name."""

    def __init__(self, name: str, first: AttachRequest, subsystem: Subsystem) -> None:
        self.name = name
        self.first = first
        self.subsystem = subsystem
        self.requests: dict[Controller, AttachRequest] = {}
        self.bdevs: dict[int, NvmeBdev] = {}
        self.leaving: set[asyncio.Task[None]] = set()

    @property
    def controllers(self) -> list[Controller]:
        """In the order in which they were attached."""
        return self.subsystem.controllers

    async def settle(self) -> None:
        """Return when every bdev that has to go is gone."""
        while self.leaving:
            await asyncio.gather(*self.leaving)


class NvmeModule:
    """``engine.nvme``."""

    def __init__(self, bdevs: BdevRegistry, keyring: Keyring) -> None:
        self.options = NvmeOptions()
        self._keyring = keyring
        self.groups: dict[str, Group] = {}
        self.hostid = uuidlib.uuid4()
        self._bdevs = bdevs
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def hostnqn(self) -> str:
        """Who the engine is unless an attach says otherwise."""
        return f"nqn.2014-08.org.nvmexpress:uuid:{self.hostid}"

    def controller(self, name: str) -> Controller | None:
        """The first controller under the name; the one that health and raw commands mean."""
        group = self.groups.get(name)
        return group.controllers[0] if group and group.controllers else None

    def set_options(self, options: NvmeOptions) -> None:
        """For all controllers to come; raises ``BdevError(EPERM)`` once there is one."""
        if self.groups:
            raise BdevError(errno.EPERM, "RPC not permitted with nvme controllers already attached")
        self.options = options

    def config(self) -> list[dict[str, object]]:
        """The calls that bring all of this about again."""
        calls: list[dict[str, object]] = [{"method": "bdev_nvme_set_options", "params": self.options.to_json()}]
        for group in self.groups.values():
            for controller in group.controllers:
                request = group.requests[controller]
                calls += [request.config(address) for address in controller.addresses]
        return calls + [bdev.multipath.config(bdev.name) for bdev in self.bdevs() if bdev.multipath != DEFAULT_SHARING]

    def bdevs(self) -> Iterator[NvmeBdev]:
        """Every bdev, group by group."""
        for group in self.groups.values():
            yield from group.bdevs.values()

    def bdev(self, name: str) -> NvmeBdev:
        """One of them, by its name or an alias; raises ``BdevError(ENODEV)``."""
        found = self._bdevs.get(name)
        if not isinstance(found, NvmeBdev):
            raise fail(errno.ENODEV)
        return found

    def share(self, name: str, how: MultipathOptions) -> None:
        """How the paths of a bdev share its I/O from now on.  ENODEV, EINVAL (round robin of no I/O)."""
        if not how.valid():
            raise fail(errno.EINVAL)
        bdev = self.bdev(name)
        bdev.multipath = how
        bdev.namespace.share(how.selection(failback=not self.options.disable_auto_failback))

    def prefer(self, name: str, cntlid: int) -> None:
        """Which path of a bdev is asked first from now on; ENODEV: no such bdev, or no such path of it."""
        namespace = self.bdev(name).namespace
        path = next((path for path in namespace.paths if path.controller.cntlid == cntlid), None)
        if path is None:
            raise fail(errno.ENODEV)
        namespace.prefer(path)

    # -- attaching

    async def attach(self, request: AttachRequest) -> list[str]:
        """One more controller or, in mode failover, one more address; the names of its bdevs.

        Raises ``BdevError``: EEXIST (this path is attached under some name), EINVAL (does not fit what is
        there), EIO (no controller answered), EALREADY, ERANGE (more namespaces than ``max_bdevs``).
        """
        async with self._locks[request.name]:
            self._check(request)
            try:
                return await self._attach(request)
            except (TransportLost, NvmeError) as error:
                log.warning("attach %s: %s", request.name, explain(error))
                raise fail(errno.EIO) from error
            except NotThisSubsystem as error:
                log.warning("attach %s: %s", request.name, error)
                raise fail(errno.EINVAL) from error

    def _check(self, request: AttachRequest) -> None:
        """What can be refused without connecting."""
        for group in self.groups.values():
            for controller in group.controllers:
                same = (controller.address.traddr, controller.address.trsvcid, controller.options.subnqn)
                wanted = (request.address.traddr, request.address.trsvcid, request.subnqn)
                if same == wanted and controller.options.hostnqn == request.hostnqn:
                    raise fail(errno.EEXIST)
        if request.loss.problem() is not None or not request.multipath_opts.valid():
            raise fail(errno.EINVAL)
        known = self.groups.get(request.name)
        if known is None:
            return
        if known.first.multipath != request.multipath:
            raise fail(errno.EINVAL)
        if request.multipath and known.first.multipath_opts != request.multipath_opts:
            raise fail(errno.EINVAL)

    async def _attach(self, request: AttachRequest) -> list[str]:
        group = self.groups.get(request.name)
        if group is not None and not request.multipath:
            await self._add_address(group, request)
            return []
        if group is None:
            group = self._group(request)
        options = self._association(request)
        controller = await group.subsystem.attach((request.address,), options=options, policy=request.loss)
        group.requests[controller] = request
        self._keyring.hold(request.keys)
        self.groups[request.name] = group
        names = [group.bdevs[nsid].name for nsid in sorted(controller.shown) if nsid in group.bdevs]
        if len(names) > request.max_bdevs:
            raise fail(errno.ERANGE)
        return names

    def _group(self, request: AttachRequest) -> Group:
        selection = request.multipath_opts.selection(failback=not self.options.disable_auto_failback)
        subsystem = Subsystem(self._association(request), request.loss, selection, self.options.bdev_retry_count)
        subsystem.path_stat = self.options.io_path_stat
        group = Group(request.name, request, subsystem)
        subsystem.on_added = partial(self._namespace_added, group)
        subsystem.on_removed = partial(self._namespace_removed, group)
        subsystem.on_resized = partial(self._namespace_resized, group)
        subsystem.on_left = partial(self._controller_left, group)
        subsystem.on_empty = partial(self._group_empty, group)
        return group

    def _association(self, request: AttachRequest) -> AssociationOptions:
        options = self.options
        admin_us = options.timeout_admin_us or options.timeout_us
        connect_ms = options.tcp_connect_timeout_ms
        endpoint = Endpoint(
            request.address.traddr,
            int(request.address.trsvcid),
            source=request.source,
            digests=request.digests,
            user_timeout_ms=options.user_timeout_ms,
        )
        return AssociationOptions(
            subnqn=request.subnqn,
            hostnqn=request.hostnqn,
            hostid=self.hostid.bytes,
            endpoint=endpoint,
            keep_alive_ms=options.keep_alive_timeout_ms,
            connect_timeout_s=connect_ms / 1000 if connect_ms else 5.0,
            fabrics_timeout_s=request.fabrics_timeout_us / 1e6 if request.fabrics_timeout_us else None,
            admin_timeout_s=admin_us / 1e6 if admin_us else 30.0,
            io_timeout_s=options.timeout_us / 1e6 if options.timeout_us else None,
            timeout_action=options.timeout_action,
            credentials=self._credentials(request.keys),
        )

    def _credentials(self, keys: KeyPair) -> Credentials:
        return Credentials(
            None if keys.host is None else keys.host.secret,
            None if keys.controller is None else keys.controller.secret,
            tuple(item for item in Digest if item.label in self.options.dhchap_digests),
            tuple(item for item in DhGroup if item.label in self.options.dhchap_dhgroups),
        )

    async def set_keys(self, name: str, keys: KeyPair) -> None:
        """Other keys for every controller under the name, one after another; each proves that it has them.

        Raises ``BdevError``: ENODEV, EINVAL, EACCES (the first that was refused; it connects again as after a
        loss) or EIO.
        """
        group = self.groups.get(name)
        if group is None:
            raise fail(errno.ENODEV)
        if keys.one_sided:
            raise fail(errno.EINVAL)
        for controller in list(group.controllers):
            before = group.requests[controller]
            group.requests[controller] = replace(before, keys=self._keyring.hold(keys))
            self._keyring.release(before.keys)
            try:
                await controller.authenticate(self._credentials(keys))
            except NotAuthenticated as error:
                log.warning("keys of %s: %s", name, error)
                raise fail(errno.EACCES) from error
            except (TransportLost, NvmeError) as error:
                log.warning("keys of %s: %s", name, explain(error))
                raise fail(errno.EIO) from error

    async def _add_address(self, group: Group, request: AttachRequest) -> None:
        """Mode failover: see that the address leads to the same namespaces, then keep it for later."""
        active = group.controllers[0]
        if any(each.traddr == request.address.traddr and each.trsvcid == request.address.trsvcid
               for each in active.addresses):  # fmt: skip
            raise fail(errno.EALREADY)
        probe = Controller(self._association(request), request.loss, (request.address,))
        await probe.start()
        identities = {nsid: shown.identity for nsid, shown in probe.shown.items()}
        await probe.delete()
        if any(identities.get(nsid) != shown.identity for nsid, shown in active.shown.items()):
            raise fail(errno.EINVAL)
        active.addresses = (*active.addresses, request.address)

    # -- detaching

    async def detach(self, name: str, which: PathFilter) -> None:
        """Take the paths away; returns when bdevs that had no other are gone.  ENODEV, ENXIO (no such path)."""
        group = self.groups.get(name)
        if group is None:
            raise fail(errno.ENODEV)
        found = False
        for controller in list(group.controllers):
            kept = tuple(each for each in controller.addresses[1:] if not which.matches(controller, each))
            found = found or len(kept) < len(controller.addresses) - 1
            controller.addresses = (controller.addresses[0], *kept)
            if not which.matches(controller, controller.address):
                continue
            found = True
            if kept:
                controller.leave_address()
            else:
                await controller.delete()
        if not found:
            raise fail(errno.ENXIO)
        await group.settle()

    async def close(self) -> None:
        """Detach everything."""
        for group in list(self.groups.values()):
            await group.subsystem.close()
            await group.settle()

    # -- what subsystems tell

    def _namespace_added(self, group: Group, namespace: HostNamespace) -> None:
        uuid = namespace.uuid
        if uuid is None and self.options.generate_uuids:
            serial = group.controllers[0].identity.sn if group.controllers else ""
            uuid = generated_uuid(serial, namespace.nsid)
        name = f"{group.name}n{namespace.nsid}"
        bdev = NvmeBdev(name, namespace, uuid, group.first.multipath_opts)
        group.bdevs[namespace.nsid] = bdev
        try:
            self._bdevs.add(bdev)
        except BdevError as error:
            # As SPDK: the controller stays, the namespace has no bdev.
            log.error("bdev %s: %s", name, error)
            del group.bdevs[namespace.nsid]

    def _namespace_removed(self, group: Group, namespace: HostNamespace) -> None:
        bdev = group.bdevs.pop(namespace.nsid, None)
        if bdev is None:
            return
        task = asyncio.get_running_loop().create_task(self._bdevs.remove(bdev))
        group.leaving.add(task)
        task.add_done_callback(group.leaving.discard)

    def _namespace_resized(self, group: Group, namespace: HostNamespace) -> None:
        bdev = group.bdevs.get(namespace.nsid)
        if bdev is not None:
            with suppress(BdevError):  # it shrank under somebody: as in SPDK the size stays, and I/O behind it fails
                self._bdevs.resize(bdev, namespace.num_blocks)

    def _controller_left(self, group: Group, controller: Controller) -> None:
        request = group.requests.pop(controller, None)
        if request is not None:
            self._keyring.release(request.keys)

    def _group_empty(self, group: Group, subsystem: Subsystem) -> None:  # noqa: ARG002 - the group holds it
        if self.groups.get(group.name) is group:
            del self.groups[group.name]
