"""Filling a lab's volumes through a host, and reading them back."""

from __future__ import annotations

import hashlib

from small_lab import HOSTS, SmallLab, host_id

from controlplane.domain.state import State
from dataplane.embedded.initiator.host import Host, HostOptions

STEP = 64 * 1024


def block(seed: str, offset: int) -> bytes:
    """The bytes that a volume holds at an offset."""
    return hashlib.shake_128(f"{seed}/{offset}".encode()).digest(STEP)


async def fill(lab: SmallLab, state: State, name: str, seed: str, options: HostOptions | None = None) -> None:
    """Write the whole volume as a host does."""
    async with Host(HOSTS["h1"], host_id(HOSTS["h1"])) as host:
        connection = await host.connect(lab.nqn, lab.paths, options)
        namespace = connection.namespace(state.volumes[name].nsid)
        for offset in range(0, state.volumes[name].provisioned_bytes, STEP):
            await namespace.write(offset // namespace.block_size, block(seed, offset))
        await namespace.flush()


async def contents(lab: SmallLab, state: State, name: str, options: HostOptions | None = None) -> list[bytes]:
    """Read the whole volume as a host does."""
    async with Host(HOSTS["h1"], host_id(HOSTS["h1"])) as host:
        connection = await host.connect(lab.nqn, lab.paths, options)
        namespace = connection.namespace(state.volumes[name].nsid)
        size = namespace.block_size
        return [
            bytes(await namespace.read(offset // size, STEP // size))
            for offset in range(0, state.volumes[name].provisioned_bytes, STEP)
        ]


def expected(state: State, name: str, seed: str) -> list[bytes]:
    """What ``contents`` gives after ``fill``."""
    return [block(seed, offset) for offset in range(0, state.volumes[name].provisioned_bytes, STEP)]
