"""What a controller shows is data of a stranger: reading it ends, and takes a bounded amount of memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.embedded.initiator.association import read_discovery
from dataplane.embedded.initiator.namespaces import read_namespaces
from dataplane.nvme import identify
from dataplane.nvme.commands import Cns, LogId
from dataplane.nvme.status import NvmeError, Status

SUBNQN = "nqn.2026-01.io.ws7000:stranger"


@dataclass
class Stranger:
    """Answers of the peer, as it likes."""

    entries: int = 0
    settles: bool = True
    nsids: tuple[int, ...] = ()
    block_power: int = 9
    asked_bytes: int = 0
    generation: int = 0
    options: Any = field(default_factory=lambda: SimpleNamespace(subnqn=SUBNQN))

    async def log(self, page: int, size: int) -> bytes:
        assert page == LogId.DISCOVERY
        self.asked_bytes += size
        self.generation += not self.settles
        head = self.generation.to_bytes(8, "little") + self.entries.to_bytes(8, "little")
        return head.ljust(size, b"\0")

    async def identify(self, cns: Cns, *, nsid: int = 0) -> bytes:
        if cns == Cns.ACTIVE_NSIDS:
            return identify.nsid_list([]) if not self.nsids else b"".join(n.to_bytes(4, "little") for n in self.nsids)
        if cns == Cns.NAMESPACE:
            return identify.IdentifyNamespace(nsze=8, lbafs=bytes([0, 0, self.block_power, 0])).pack()
        return identify.NamespaceIds(nguid=bytes([nsid]) * 16).pack()


def run(work: Any) -> Any:
    return asyncio.run(work)


def test_a_discovery_log_is_read() -> None:
    assert run(read_discovery(Stranger(entries=3))).generation == 0


@pytest.mark.parametrize("stranger", [Stranger(entries=1 << 63), Stranger(entries=1, settles=False)])
def test_a_discovery_log_without_end_is_refused(stranger: Stranger) -> None:
    with pytest.raises(NvmeError) as caught:
        run(read_discovery(stranger))
    assert caught.value.code == Status.DATA_TRANSFER_ERROR
    assert stranger.asked_bytes < 1 << 20


@pytest.mark.parametrize("nsids", [(1,) * 1024, tuple(range(1024, 0, -1))])
def test_a_list_of_namespaces_that_does_not_ascend_is_refused(nsids: tuple[int, ...]) -> None:
    with pytest.raises(NvmeError):
        run(read_namespaces(Stranger(nsids=nsids)))


@pytest.mark.parametrize(("power", "usable"), [(9, True), (16, True), (0, False), (17, False), (255, False)])
def test_blocks_of_a_size_that_cannot_be_are_left_out(power: int, usable: bool) -> None:
    assert bool(run(read_namespaces(Stranger(nsids=(1,), block_power=power)))) is usable
