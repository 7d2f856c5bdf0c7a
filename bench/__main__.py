"""``./run bench``: run the measurements and print them as a table, or as JSON with ``--json``."""

from __future__ import annotations

import argparse
import json
import sys

from bench.control_plane import measure
from dataplane.launch import EngineKind, find_spdk


def main() -> int:
    """Measure every engine that is here, in turns."""
    parser = argparse.ArgumentParser(prog="./run bench")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine, in turns (default 3)")
    parser.add_argument("--slices", type=int, default=512, help="slices a drive, of 1 MiB each (default 512)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    kinds: list[EngineKind] = ["embedded"]
    if find_spdk() is not None:
        kinds.append("spdk")
    else:
        sys.stderr.write("SPDK's nvmf_tgt not found (WS7000_SPDK_PREFIX): only the embedded engine is measured\n")
    report = measure(kinds, rounds=chosen.rounds, slices=chosen.slices)
    if chosen.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 0
    names = list(dict.fromkeys(name for kind in kinds for name in report[kind]))
    sys.stdout.write(f"{'median (minimum - maximum)':44}" + "".join(f"{kind:>34}" for kind in kinds) + "\n")
    for name in names:
        cells = []
        for kind in kinds:
            low, mid, high = report[kind][name]
            cells.append(f"{mid:.3f} ({low:.3f} - {high:.3f})")
        sys.stdout.write(f"{name:44}" + "".join(f"{cell:>34}" for cell in cells) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
