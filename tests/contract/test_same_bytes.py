"""What a host reads of a controller and its namespaces is the same on both engines, byte by byte.

Every byte that may differ stands here with its reason; anything else fails.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from wire_host import HOST, NQN, Host

from dataplane.launch import find_spdk
from dataplane.nvme import commands, identify
from dataplane.nvme.commands import Cns, LogId
from dataplane.rpc.methods import bdev, nvme, raid

DRIVE = "nqn.2026-01.io.ws7000:contract:drive"
BLOCK = 512
MIB = 1 << 20
NAMESPACES = {
    1: "malloc", 2: "file", 3: "null", 4: "part", 5: "raid0", 6: "drive", 7: "part of a drive", 8: "large",
    9: "large drive", 10: "part of a file", 11: "concat", 12: "raid1", 13: "one leg",
}  # fmt: skip
LARGE = {"num_blocks": 512, "block_size": 4096, "physical_block_size": 16384}
FIRMWARE = range(64, 72)

pytestmark = [
    pytest.mark.spdk,
    pytest.mark.skipif(find_spdk() is None, reason="SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX"),
]


def serve(node: Any, shelf: Any, folder: Path) -> int:
    """A subsystem with a namespace of each kind; its port."""
    for number in (0, 1):
        shelf.malloc(f"m{number}")
    shelf.rpc("bdev_malloc_create", name="m2", **LARGE)
    port = shelf.serve(DRIVE, "m0", "m1", "m2")
    node.run(nvme.attach_controller_tcp("d", address="127.0.0.1", port=port, subnqn=DRIVE, hostnqn=HOST))
    node.run(bdev.split_create("dn2", count=2, size_bytes=MIB))
    for name in ("malloc", "base", *(f"leg{number}" for number in range(7))):
        node.malloc(name)
    for name in ("file", "cut"):
        (folder / name).write_bytes(bytes(2 * MIB))
        node.run(bdev.aio_create(name, path=str(folder / name), block_size_bytes=4096, fallocate=True))
    node.run(bdev.null_create("null", block_size_bytes=BLOCK, size_bytes=MIB))
    for name in ("base", "cut"):
        node.run(bdev.split_create(name, count=2, size_bytes=MIB))
    for level, first, legs in (("raid0", 0, 2), ("concat", 2, 2), ("raid1", 4, 2), ("raid0", 6, 1)):
        bases = [f"leg{number}" for number in range(first, first + legs)]
        strip = None if level == "raid1" else 65536
        node.run(raid.create(f"set{first}", level=level, base_bdevs=bases, strip_size_bytes=strip))
    node.rpc("bdev_malloc_create", name="large", **LARGE)
    shown = ["malloc", "file", "null", "basep0", "set0", "dn1", "dn2p1", "large", "dn3", "cutp1"]
    return int(node.serve(NQN, *shown, "set2", "set4", "set6", max_namespaces=16))


async def look(port: int) -> dict[str, bytes]:
    """Everything that a host can read."""
    found: dict[str, bytes] = {}
    host = await Host.open(port, nqn=NQN, host=HOST)
    try:
        for cns in (Cns.CONTROLLER, Cns.ACTIVE_NSIDS, Cns.CSI_CONTROLLER, Cns.CSI_ACTIVE_NSIDS):
            found[cns.name] = await host.admin.ok(commands.identify(cns))
        found["COMMAND_SETS"] = await host.admin.ok(commands.identify(Cns.COMMAND_SETS, cntid=0xFFFF))
        for nsid, kind in NAMESPACES.items():
            for cns in (Cns.NAMESPACE, Cns.NS_DESCRIPTORS, Cns.CSI_NAMESPACE, Cns.INDEPENDENT_NAMESPACE):
                found[f"{cns.name} {kind}"] = await host.admin.ok(commands.identify(cns, nsid=nsid))
        for page, size in (
            (LogId.SUPPORTED, 1024), (LogId.COMMAND_EFFECTS, 4096), (LogId.FEATURE_EFFECTS, 1024), (LogId.ANA, 100),
            (LogId.ERROR, 4096), (LogId.SMART, 512), (LogId.CHANGED_NAMESPACES, 4096), (LogId.MI_EFFECTS, 4096),
        ):  # fmt: skip
            found[f"log {page.name}"] = await host.admin.ok(commands.get_log_page(page, size))
    finally:
        await host.close()
    return found


@pytest.fixture(scope="module")
def seen(start_pair: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What a host reads of each kind of engine."""
    found = {}
    for kind in ("embedded", "spdk"):
        node, shelf = start_pair(kind)
        try:
            found[kind] = asyncio.run(look(serve(node, shelf, tmp_path_factory.mktemp(f"files-{kind}"))))
        finally:
            node.stop()
            shelf.stop()
    return found


ALLOWED = {"CONTROLLER": {*FIRMWARE}}
"""The firmware revision is the engine's own."""


def test_a_host_reads_the_same_bytes(seen: dict[str, dict[str, bytes]]) -> None:
    ours, theirs = seen["embedded"], seen["spdk"]
    assert ours.keys() == theirs.keys()
    differences = {
        name: {at: (ours[name][at], raw[at]) for at in range(len(raw)) if ours[name][at] != raw[at]}
        for name, raw in theirs.items()
    }
    surprising = {
        name: {at: bytes_ for at, bytes_ in found.items() if at not in ALLOWED.get(name, ())}
        for name, found in differences.items()
    }
    assert {name: found for name, found in surprising.items() if found} == {}


def test_what_was_compared_is_something(seen: dict[str, dict[str, bytes]]) -> None:
    for each in seen.values():
        assert identify.parse_nsid_list(each["ACTIVE_NSIDS"]) == list(NAMESPACES)
        sizes = {identify.IdentifyNamespace.parse(each[f"NAMESPACE {kind}"]).block_size for kind in NAMESPACES.values()}
        assert sizes == {512, 4096}
