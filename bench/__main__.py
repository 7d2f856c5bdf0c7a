"""``./run bench [control|io|scale]``: run the measurements and print them as a table, or as JSON with ``--json``.

``control`` (the default) is the control plane on a small array, ``scale`` the same with many volumes, ``io`` reads and
writes; ``io --minutes N`` watches the memory under load instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bench import block_io, control_plane, scale, soak
from bench.target import DEVICES
from dataplane.launch import EngineKind, find_spdk


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("control", "io", "scale"), default="control")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine, in turns (default 3)")
    parser.add_argument("--slices", type=int, default=512, help="control: slices a drive, of 1 MiB each (default 512)")
    parser.add_argument("--volumes", type=int, default=256, help="scale: volumes (default 256)")
    parser.add_argument("--hosts", type=int, default=64, help="scale: hosts (default 64)")
    parser.add_argument("--device", choices=DEVICES, action="append", help="io: only this device")
    parser.add_argument("--only", default="", metavar="TEXT", help="io: only workloads whose name has this in it")
    parser.add_argument("--minutes", type=int, default=0, help="io: so many minutes of load, and the memory after each")
    parser.add_argument("--engine", choices=("embedded", "spdk"), action="append", help="only this engine")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def main() -> int:
    """Measure every engine that is here, in turns."""
    chosen = _arguments()
    kinds: list[EngineKind] = ["embedded"]
    if find_spdk() is not None:
        kinds.append("spdk")
    else:
        _note("SPDK's nvmf_tgt not found (WS7000_SPDK_PREFIX): only the embedded engine is measured")
    kinds = [kind for kind in kinds if kind in (chosen.engine or kinds)]
    devices = chosen.device or list(DEVICES)
    if chosen.what == "io" and chosen.minutes:
        report: Any = [soak.soak(kind, device, chosen.minutes, _note) for kind in kinds for device in devices]
        text = json.dumps(report, indent=2) + "\n"
    elif chosen.what == "io":
        report = block_io.measure(kinds, rounds=chosen.rounds, devices=devices, only=chosen.only, say=_note)
        text = block_io.table(report)
    elif chosen.what == "scale":
        report = scale.measure(kinds, rounds=chosen.rounds, volumes=chosen.volumes, hosts=chosen.hosts)
        text = control_plane.table(report)
    else:
        report = control_plane.measure(kinds, rounds=chosen.rounds, slices=chosen.slices)
        text = control_plane.table(report)
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if chosen.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
