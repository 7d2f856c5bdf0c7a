"""The examples load, say what they seem to say, and explain each of their keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane.domain.desired import Array, HaMode, PcieDrive, Protection
from controlplane.spec.load import load, to_yaml
from controlplane.spec.model import ArraySpec
from controlplane.spec.partial import sections

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def _load(name: str) -> Array:
    loaded = load(ROOT / "examples" / name)
    assert loaded.warnings == ()
    return loaded.array


def test_laptop() -> None:
    array = _load("laptop.yaml")
    assert [drive.name for drive in array.drives] == [f"d{i:02}" for i in range(24)]
    assert array.ha is HaMode.NONE
    assert array.shelf is not None
    assert array.pool("fast").protection is Protection.MIRROR
    assert array.node("a").rpc == str(ROOT / "examples/run/a.sock")
    assert array.subsystem("default").nqn == "nqn.2026-01.io.ws7000:laptop:default"


def test_dual_node() -> None:
    array = _load("dual-node-24.yaml")
    assert len(array.drives) == 24
    assert all(isinstance(drive.source, PcieDrive) for drive in array.drives)
    assert array.ha is HaMode.ACTIVE_ACTIVE
    assert len(array.node("b").ports) == 6
    assert {volume.subsystem for volume in array.volumes} == {"training", "inference"}
    assert array.volume("kv-cache").qos.rw_iops == 2_000_000
    assert array.network is not None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_export_reads_back(path: Path) -> None:
    array = load(path).array
    assert load(to_yaml(array)).array == array


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_key_has_a_comment_where_it_first_stands(path: Path) -> None:
    seen: set[str] = set()
    above = ""
    for line in path.read_text().splitlines():
        found = re.match(r"\s*(?:- )?([A-Za-z_]+):", line)
        if found and found.group(1) not in seen:
            assert above.lstrip().startswith("#"), f"{path.name}: the key {found.group(1)} has no comment"
            seen.add(found.group(1))
        if not line.strip().startswith("- {"):
            above = line


def test_the_reference_names_every_key_and_its_description() -> None:
    text = (ROOT / "docs/reference/array-yaml.md").read_text()
    for path, model in sections(ArraySpec):
        for key in model.model_fields:
            full = f"{path}.{key}" if path else key
            assert f"| `{full}` |" in text, f"docs/reference/array-yaml.md does not explain {full}"
