"""From the state to what the agents need of it: which groups there are, where, and on which drives they stand.

Why here: an agent imports neither the planner nor pydantic.  The map is stored beside the state in one snapshot, so the
two are always of one generation.  Pure; it must never guess a block size and never change a quorum that was chosen.

A volume that still has unscrubbed slices is on no node as a namespace, so it is not in the map either.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Final

from controlplane.domain.desired import HaIntent, Protection
from controlplane.domain.errors import Refused
from controlplane.domain.image import mirror_bdev, slice_bdev
from controlplane.domain.state import HOME_OF_GROUP, State, SubsystemRecord, VolumeRecord
from ha.model import NODES, GroupId, GroupMap, Leg, ListenerAt, MirrorMap, NamespaceMap, NodeName, ServiceMap

_BEFORE: Final = "apply array.yaml with every drive present, then form the array again"


def service_map(state: State, quorum: tuple[str, ...] = ()) -> ServiceMap:
    """The map of ``state``.  ``quorum`` is the one that the journal has, which is kept; without one, it is chosen.

    Raises ``Refused``: STORE-005 when a quorum drive is no longer in the array, STORE-006 when drives were not seen."""
    unseen = sorted(record.name for record in state.drives.values() if not record.block_bytes)
    if unseen:
        raise Refused(
            "STORE-006",
            f"the block size of drive {unseen[0]} is not known yet",
            why="a record written by a wrong block size lands where it is not looked for",
            remedy=_BEFORE,
        )
    gone = [drive for drive in quorum if drive not in state.drives]
    if gone:
        raise Refused(
            "STORE-005",
            f"drive {gone[0]} cannot leave the array: it votes",
            why=f"the journal lies on the quorum drives {', '.join(quorum)}, and a majority of exactly these is asked",
            remedy="keep it in array.yaml; a broken drive is replaced under the same name",
        )
    return ServiceMap(
        array_uuid=state.uuid,
        generation=state.generation,
        quorum=quorum or choose_quorum(state),
        block_bytes={record.name: record.block_bytes for record in state.drives.values()},
        groups={
            GroupId(record.name, number): _group(state, record, number)
            for record in state.subsystems.values()
            for number in HOME_OF_GROUP
        },
    )


def choose_quorum(state: State) -> tuple[str, ...]:
    """As many adopted drives as are to vote, from as many failure domains as there are, in the order of the race.

    The same state always gives the same drives.  Raises ``Refused`` STORE-006 where too few are adopted."""
    wanted = (state.array.ha_intent or HaIntent()).quorum_drives
    domain_of = {drive.name: drive.failure_domain or drive.name for drive in state.array.drives}
    domains: dict[str, list[str]] = {}
    for name in sorted(state.drives):
        domains.setdefault(domain_of.get(name, name), []).append(name)
    turns = zip_longest(*(domains[domain] for domain in sorted(domains)))
    chosen = [name for name in chain.from_iterable(turns) if name is not None][:wanted]
    if len(chosen) < wanted:
        raise Refused(
            "STORE-006",
            f"{wanted} drives are to vote, and {len(chosen)} are adopted",
            why="only a drive that is in a pool and was seen has a reserved slice for the journal",
            remedy=f"{_BEFORE}, or write a smaller quorum_drives",
        )
    return tuple(chosen)


def _group(state: State, subsystem: SubsystemRecord, number: int) -> GroupMap:
    volumes = (
        volume
        for volume in state.volumes.values()
        if volume.subsystem == subsystem.name and volume.group == number and not volume.unscrubbed
    )
    return GroupMap(
        nqn=subsystem.nqn,
        listeners=_listeners(state),
        namespaces=tuple(_namespace(volume) for volume in sorted(volumes, key=lambda volume: volume.nsid)),
    )


def _listeners(state: State) -> dict[NodeName, tuple[ListenerAt, ...]]:
    ports = {node.name: node.ports for node in state.array.nodes}
    return {
        node: tuple(
            ListenerAt(transport=port.transport, address=port.address, service=port.service) for port in ports[node]
        )
        for node in NODES
        if node in ports
    }


def _namespace(volume: VolumeRecord) -> NamespaceMap:
    if volume.protection is not Protection.MIRROR:
        return NamespaceMap(nsid=volume.nsid, volume=volume.name, bare=volume.drives)
    mirrors = (
        MirrorMap(
            name=mirror_bdev(volume.name, piece),
            legs=tuple(Leg(bdev=slice_bdev(ref.drive, ref.index), drive=ref.drive) for ref in row),
        )
        for piece, row in enumerate(volume.rows)
    )
    return NamespaceMap(nsid=volume.nsid, volume=volume.name, mirrors=tuple(mirrors))
