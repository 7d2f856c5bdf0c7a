"""Make the compact schema data from the description that SPDK publishes in its source tree.

    python -m dataplane.rpc.schema.convert 26.05 schema/schema.json dataplane/rpc/schema/spdk-26.05.json

Why: SPDK changed the file's form between releases (JSON with bitmask marks on arrays, then YAML with a list of
bitmasks); one form is enough to check against.  Descriptions are left out.  This module must never be imported
by the product: it is run by hand when a release is added.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

_KEPT = ("type", "class", "required", "deprecated")


def _fields(entries: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {entry["name"]: {key: entry[key] for key in _KEPT if entry.get(key)} for entry in entries or []}


def convert(release: str, source: dict[str, Any]) -> dict[str, Any]:
    """The compact form of a published schema."""
    arrays = {
        array["name"]: {key: array[key] for key in ("item_type", "class", "max_count") if key in array}
        for array in source["arrays"]
    }
    # A bitmask is written as an array of words.
    for mask in source.get("bitmasks", []):
        arrays[mask["name"]] = {"item_type": "enum", "class": mask["enum"], "max_count": mask["width"]}
    methods = {method["name"]: _fields(method.get("params")) for method in source["methods"]}
    objects = {entry["name"]: _fields(entry["fields"]) for entry in source["objects"]}
    for group in (methods, objects):
        for fields in group.values():
            for field in fields.values():
                if field["type"] == "bitmask":
                    field["type"] = "array"
    return {
        "release": release,
        "license": "BSD-3-Clause, SPDK project; see LICENSE.spdk",
        "enums": {entry["name"]: [str(field["name"]) for field in entry["fields"]] for entry in source["enums"]},
        "objects": objects,
        "arrays": arrays,
        "methods": methods,
    }


def main(release: str, source: Path, target: Path) -> None:
    """Read ``source`` (JSON is YAML too), write ``target`` with one method on each line."""
    data = convert(release, yaml.safe_load(source.read_text(encoding="utf-8")))
    lines = []
    for key, value in data.items():
        if isinstance(value, dict):
            inner = ",\n".join(
                f"{json.dumps(name)}:{json.dumps(value[name], separators=(',', ':'))}" for name in sorted(value)
            )
            lines.append(f"{json.dumps(key)}:{{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(key)}:{json.dumps(value)}")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
