"""What must be done: the steps from a seen image to a wanted one, for one node.

Only names and values are compared; the order is ``order``'s business.  An object that cannot be changed in
place is removed and made again, together with what stands on it.  Each function below handles one kind of
object and yields (phase, depth, step); depth orders RAID sets among themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.domain.image import (
    AnaState,
    ListenerKey,
    NamespaceImage,
    NodeImage,
    SubsystemImage,
)
from controlplane.planner import diff_bdevs as bdevs
from controlplane.planner import steps as s
from controlplane.planner.diff_bdevs import Placed
from controlplane.planner.steps import Phase, Risk


def diff_node(want: NodeImage, seen: NodeImage) -> list[Placed]:
    """All steps that turn ``seen`` into ``want``."""
    replaced = bdevs.replaced_raids(want, seen)
    found: list[Placed] = []
    found += _transports(want, seen)
    found += bdevs.drives(want, seen)
    found += bdevs.raids(want, seen, replaced)
    found += bdevs.qos(want, seen, replaced)
    found += _keys(want, seen)
    for nqn in sorted(set(want.subsystems) | set(seen.subsystems)):
        found += _subsystem(want.node, nqn, want.subsystems.get(nqn), seen.subsystems.get(nqn), replaced)
    # The agents alone raise and lower ANA where there are any (I1).  What is taken down meanwhile needs no lowering:
    # removing a namespace waits until its I/O has ended, a listener takes its connections along, and the group keeps
    # its owner, so that nobody else serves it; what is made anew is born inaccessible, until the agent raises it.
    return [item for item in found if not isinstance(item[2], s.SetAna)] if want.agents else found


def _transports(want: NodeImage, seen: NodeImage) -> Iterator[Placed]:
    for name in sorted(want.transports - seen.transports):
        yield (
            Phase.TRANSPORT,
            0,
            s.CreateTransport(
                node=want.node,
                subject=name,
                transport=name,
                sentence=f"open the {name.upper()} transport",
                effect=f"the node can listen on {name}",
                inverse="none needed: a transport without listeners serves nobody",
            ),
        )


def _keys(want: NodeImage, seen: NodeImage) -> Iterator[Placed]:
    for key in sorted(want.keys - seen.keys):
        yield (
            Phase.KEY_ADD,
            0,
            s.ChangeKey(
                node=want.node,
                subject=key,
                key=key,
                path="",
                present=True,
                sentence=f"put the secret of {key} into the keyring",
                effect="the host can prove who it is",
                inverse="take it out",
            ),
        )
    for key in sorted(seen.keys - want.keys):
        yield (
            Phase.KEY_REMOVE,
            0,
            s.ChangeKey(
                node=want.node,
                subject=key,
                key=key,
                path="",
                present=False,
                sentence=f"take the secret of {key} out of the keyring",
                inverse="put it in again",
            ),
        )


def _subsystem(
    node: str, nqn: str, want: SubsystemImage | None, seen: SubsystemImage | None, replaced: set[str]
) -> Iterator[Placed]:
    if seen is not None and (want is None or _frame(want) != _frame(seen)):
        yield from _delete_subsystem(node, seen)
        seen = None
    if want is None:
        return
    if seen is None:
        yield (
            Phase.SUBSYSTEM_CREATE,
            0,
            s.CreateSubsystem(
                node=node,
                subject=nqn,
                subsystem=want,
                sentence=f"create subsystem {nqn} (controllers {want.min_cntlid} to {want.max_cntlid})",
                effect="the subsystem exists and has no listener",
                inverse="delete it",
            ),
        )
        seen = SubsystemImage(
            nqn=nqn,
            serial=want.serial,
            model=want.model,
            max_namespaces=want.max_namespaces,
            min_cntlid=want.min_cntlid,
            max_cntlid=want.max_cntlid,
        )
    yield from _hosts(node, want, seen)
    yield from _namespaces(node, want, seen, replaced)
    yield from _listeners(node, want, seen)


def _frame(sub: SubsystemImage) -> tuple[object, ...]:
    return sub.serial, sub.model, sub.max_namespaces, sub.min_cntlid, sub.max_cntlid, sub.allow_any_host


def _delete_subsystem(node: str, seen: SubsystemImage) -> Iterator[Placed]:
    nqn = seen.nqn
    for namespace in seen.namespaces.values():
        yield Phase.NAMESPACE_REMOVE, 0, _remove_namespace(node, nqn, namespace)
    yield (
        Phase.SUBSYSTEM_DELETE,
        0,
        s.DeleteSubsystem(
            node=node,
            subject=nqn,
            nqn=nqn,
            risk=Risk.PATH_LOSS,
            sentence=f"delete subsystem {nqn}",
            effect="its hosts lose their connections",
            inverse="create it again",
        ),
    )


def _hosts(node: str, want: SubsystemImage, seen: SubsystemImage) -> Iterator[Placed]:
    for host in sorted(set(want.hosts) | set(seen.hosts)):
        new, old = want.hosts.get(host), seen.hosts.get(host)
        if old is not None and new != old:
            yield (
                Phase.HOST_REMOVE,
                0,
                s.ChangeHost(
                    node=node,
                    subject=host,
                    nqn=want.nqn,
                    host_nqn=host,
                    key=old,
                    present=False,
                    risk=Risk.PATH_LOSS,
                    sentence=f"disallow host {host} on {want.nqn}",
                    effect="its connections end",
                    inverse="allow it again",
                ),
            )
        if new is not None and new != old:
            how = " with DH-HMAC-CHAP" if new else ""
            yield (
                Phase.HOST_ADD,
                0,
                s.ChangeHost(
                    node=node,
                    subject=host,
                    nqn=want.nqn,
                    host_nqn=host,
                    key=new,
                    present=True,
                    sentence=f"allow host {host} on {want.nqn}{how}",
                    effect="it may connect",
                    inverse="disallow it",
                ),
            )


def _remove_namespace(node: str, nqn: str, namespace: NamespaceImage) -> s.RemoveNamespace:
    return s.RemoveNamespace(
        node=node,
        subject=namespace.bdev,
        nqn=nqn,
        nsid=namespace.nsid,
        risk=Risk.PATH_LOSS,
        sentence=f"stop exporting {namespace.bdev} (namespace {namespace.nsid} of {nqn})",
        effect="hosts no longer see it here",
        inverse="export it again with the same identity",
    )


def _namespaces(node: str, want: SubsystemImage, seen: SubsystemImage, replaced: set[str]) -> Iterator[Placed]:
    for nsid in sorted(set(want.namespaces) | set(seen.namespaces)):
        new, old = want.namespaces.get(nsid), seen.namespaces.get(nsid)
        known: frozenset[str] = old.hosts if old else frozenset()
        renewed = old is not None and (new is None or old.bdev in replaced or _identity(new) != _identity(old))
        if old is not None and renewed:
            yield Phase.NAMESPACE_REMOVE, 0, _remove_namespace(node, want.nqn, old)
            known = frozenset()
        if new is None:
            continue
        if old is None or renewed:
            yield (
                Phase.NAMESPACE_ADD,
                0,
                s.AddNamespace(
                    node=node,
                    subject=new.bdev,
                    nqn=want.nqn,
                    volume=new.bdev,
                    namespace=new,
                    sentence=f"export {new.bdev} as namespace {nsid} of {want.nqn} (ANA group {new.group})",
                    precondition="every slice of the volume has been scrubbed",
                    effect="visible to no host yet",
                    inverse="stop exporting it",
                ),
            )
        for host in sorted(known - new.hosts):
            yield (
                Phase.HIDE,
                0,
                s.NamespaceAccess(
                    node=node,
                    subject=new.bdev,
                    nqn=want.nqn,
                    nsid=nsid,
                    host_nqn=host,
                    visible=False,
                    risk=Risk.PATH_LOSS,
                    sentence=f"hide {new.bdev} from {host}",
                    inverse="show it again",
                ),
            )
        for host in sorted(new.hosts - known):
            yield (
                Phase.SHOW,
                0,
                s.NamespaceAccess(
                    node=node,
                    subject=new.bdev,
                    nqn=want.nqn,
                    nsid=nsid,
                    host_nqn=host,
                    visible=True,
                    sentence=f"show {new.bdev} to {host}",
                    inverse="hide it",
                ),
            )


def _identity(namespace: NamespaceImage) -> tuple[object, ...]:
    return namespace.bdev, namespace.nguid, namespace.uuid, namespace.group


def _listeners(node: str, want: SubsystemImage, seen: SubsystemImage) -> Iterator[Placed]:
    for key in sorted(set(want.listeners) | set(seen.listeners)):
        new, old = want.listeners.get(key), seen.listeners.get(key)
        if new is None:
            for group, state in sorted((old or {}).items()):
                if state is not AnaState.INACCESSIBLE:
                    yield from _ana(node, want, key, group, AnaState.INACCESSIBLE, state)
            yield (
                Phase.LISTENER_REMOVE,
                0,
                s.ChangeListener(
                    node=node,
                    subject=str(key),
                    nqn=want.nqn,
                    listener=key,
                    present=False,
                    risk=Risk.PATH_LOSS,
                    sentence=f"stop listening on {key} for {want.nqn}",
                    effect="connections there end",
                    inverse="listen again",
                ),
            )
            continue
        if old is None:
            yield (
                Phase.LISTENER_ADD,
                0,
                s.ChangeListener(
                    node=node,
                    subject=str(key),
                    nqn=want.nqn,
                    listener=key,
                    present=True,
                    sentence=f"listen on {key} for {want.nqn}, inaccessible at first",
                    effect="hosts can connect, no I/O is served",
                    inverse="stop listening",
                ),
            )
            # A listener is born inaccessible for every group, so only raising is left to do.
            old = dict.fromkeys(new, AnaState.INACCESSIBLE)
        for group in sorted(new):
            if old.get(group) != new[group]:
                yield from _ana(node, want, key, group, new[group], old.get(group))


def _ana(
    node: str, want: SubsystemImage, key: ListenerKey, group: int, state: AnaState, before: AnaState | None
) -> Iterator[Placed]:
    lower = state is AnaState.INACCESSIBLE
    yield (
        Phase.ANA_LOWER if lower else Phase.ANA_RAISE,
        0,
        s.SetAna(
            node=node,
            subject=want.nqn,
            nqn=want.nqn,
            listener=key,
            group=group,
            state=state,
            sentence=f"ANA group {group} of {want.nqn} on {key} becomes {state.value.replace('_', '-')}",
            precondition="" if lower else "no other node serves the group",
            effect="hosts use the other node" if lower else "hosts use this node",
            inverse=f"set it back to {before.value if before else 'what it was'}",
        ),
    )
