"""The same calls on one engine of each kind: the same replies, once what names the process is taken out.

Every difference that is allowed stands here and in ``docs/reference/engines.md``; anything else fails.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataplane.launch import find_spdk
from dataplane.rpc.methods import bdev, nvme, nvmf, raid

NQN = "nqn.2026-01.io.ws7000:contract:same"
DRIVE = "nqn.2026-01.io.ws7000:contract:drive"
HOST = "nqn.2026-01.io.ws7000:host:a"
UUIDS = [f"44444444-4444-4444-8444-44444444444{digit}" for digit in range(10)]

UNCLAIMED_IO = {"zcopy", "nvme_iov_md", "nvme_admin", "nvme_io_md", "write_uncorrectable"}
"""I/O types that SPDK's devices offer and the embedded engine's do not."""

HINTS = {
    "preferred_write_alignment", "preferred_write_granularity", "optimal_write_size", "preferred_unmap_alignment",
    "preferred_unmap_granularity",
}  # fmt: skip
"""What SPDK takes from Identify Namespace of a drive; the embedded engine says 0, not known."""

MEMORY = {"numa_id", "memory_domains"}
"""Keys that SPDK adds for devices that know where their memory is."""

pytestmark = [
    pytest.mark.spdk,
    pytest.mark.skipif(find_spdk() is None, reason="SPDK's nvmf_tgt not found: set WS7000_SPDK_PREFIX"),
]


@pytest.fixture(scope="module")
def replies(start_pair: Any) -> dict[str, dict[str, Any]]:
    """What each kind answers to the same sequence."""
    found = {}
    for kind in ("embedded", "spdk"):
        node, shelf = start_pair(kind)
        try:
            found[kind] = sequence(node, shelf)
        finally:
            node.stop()
            shelf.stop()
    return found


def sequence(node: Any, shelf: Any) -> dict[str, Any]:
    """A drive from the shelf, cut and mirrored with a device of the node, exported with everything that can be said."""
    shelf.malloc("m0", 8, UUIDS[0])
    port = shelf.serve(DRIVE, "m0")
    node.run(nvme.attach_controller_tcp("d0", address="127.0.0.1", port=port, subnqn=DRIVE, hostnqn=HOST))
    node.malloc("m1", 2, UUIDS[1])
    node.run(bdev.null_create("n0", block_size_bytes=512, size_bytes=2 << 20, uuid=UUIDS[2]))
    node.run(bdev.split_create("d0n1", count=2, size_bytes=2 << 20))
    node.run(raid.create("leg", level="raid1", base_bdevs=["d0n1p0", "m1"], uuid=UUIDS[3]))
    node.run(raid.create("v", level="raid0", base_bdevs=["leg", "d0n1p1"], strip_size_bytes=65536, uuid=UUIDS[4]))
    node.subsystem(NQN, min_cntlid=5, max_cntlid=9)
    node.namespace(NQN, "v", 2, group=3)
    node.namespace(NQN, "n0", 4, auto_visible=False)
    node.run(nvmf.ns_add_host(NQN, 4, HOST))
    node.run(nvmf.add_host(NQN, HOST))
    listener = node.listen(NQN, "inaccessible")
    node.set_ana(NQN, listener, "optimized", 3)
    ports = {str(port): "PORT-OF-SHELF", str(listener): "PORT"}
    return {
        "nvmf_get_subsystems": plain(node.rpc("nvmf_get_subsystems"), ports),
        "nvmf_subsystem_get_listeners": plain(node.rpc("nvmf_subsystem_get_listeners", nqn=NQN), ports),
        "nvmf_get_transports": plain(node.rpc("nvmf_get_transports"), ports),
        "bdev_get_bdevs": plain(node.rpc("bdev_get_bdevs"), ports),
        "bdev_raid_get_bdevs": plain(node.rpc("bdev_raid_get_bdevs", category="all"), ports),
        "bdev_nvme_get_controllers": plain(node.rpc("bdev_nvme_get_controllers"), ports),
        "framework_get_config nvmf": plain(node.rpc("framework_get_config", name="nvmf"), ports),
    }


def plain(reply: Any, ports: dict[str, str]) -> Any:
    """The reply with ports by their role, and keys that SPDK says twice (a set's UUID) said once."""
    text = json.dumps(reply)
    for number, role in ports.items():
        text = text.replace(f'"{number}"', f'"{role}"')

    def once(value: Any) -> Any:
        if isinstance(value, dict):
            doubled = value.get("uuid")
            if isinstance(doubled, list):
                assert len(set(doubled)) == 1
                value["uuid"] = doubled[0]
            return {key: once(inner) for key, inner in value.items()}
        return [once(inner) for inner in value] if isinstance(value, list) else value

    return once(json.loads(text))


@pytest.mark.parametrize(
    "method",
    [
        "nvmf_get_subsystems", "nvmf_subsystem_get_listeners", "nvmf_get_transports", "bdev_raid_get_bdevs",
        "bdev_nvme_get_controllers",
    ],
)  # fmt: skip
def test_replies_are_the_same(replies: Any, method: str) -> None:
    assert replies["embedded"][method] == replies["spdk"][method]


def test_the_configuration_is_the_same_but_for_where_it_runs(replies: Any) -> None:
    ours, theirs = (replies[kind]["framework_get_config nvmf"] for kind in ("embedded", "spdk"))
    for entries in (ours, theirs):
        entries[0]["params"].pop("poll_groups_mask", None)
    assert ours == theirs


def test_devices_are_the_same_but_for_what_they_can_do_and_who_made_them(replies: Any) -> None:
    ours, theirs = (
        {entry["name"]: entry for entry in replies[kind]["bdev_get_bdevs"]} for kind in ("embedded", "spdk")
    )
    assert ours.keys() == theirs.keys()
    for name, entry in theirs.items():
        mine = ours[name]
        assert mine.keys() <= entry.keys(), name
        assert entry.keys() - mine.keys() <= MEMORY, name
        for key in mine.keys() - {"supported_io_types", "driver_specific"}:
            if key in HINTS and mine[key] == 0:
                continue
            assert mine[key] == entry[key], (name, key)
        assert mine["driver_specific"].keys() == entry["driver_specific"].keys(), name
        offered = {word for word, can in entry["supported_io_types"].items() if can}
        mine_offered = {word for word, can in mine["supported_io_types"].items() if can}
        assert mine_offered <= offered, name
        assert offered - mine_offered <= UNCLAIMED_IO, name


def test_methods_of_the_embedded_engine_are_methods_of_spdk(start_pair: Any, tmp_path: Path) -> None:
    """It adds none of its own, so whatever works against it can work against SPDK; and the page lists each."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "engines.md").read_text(encoding="utf-8")
    sets = {}
    for kind in ("embedded", "spdk"):
        node, shelf = start_pair(kind)
        shelf.stop()
        sets[kind] = set(node.rpc("rpc_get_methods"))
        node.stop()
    assert sets["embedded"] <= sets["spdk"]
    assert {name for name in sets["embedded"] if f"`{name}`" not in page} == set()
