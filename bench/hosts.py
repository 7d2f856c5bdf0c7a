"""The host program of an I/O measurement: SPDK's ``spdk_nvme_perf`` where it is installed, else ours.

Why: a ratio of two engines means something only when one and the same program loaded both.  This module must never
choose between them within one report.  ``spdk_nvme_perf`` is looked for where ``nvmf_tgt`` was found.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.load import Figures, Job
from bench.target import ADDRESS, BLOCK_BYTES, DEVICE_BYTES, NQN, Target
from dataplane.launch import find_spdk

WARM_UP_S: Final = 1
PATIENCE_S: Final = 60.0
_MIB: Final = 1 << 20
_HOST_MEMORY_MIB: Final = 256
_TOTAL: Final = re.compile(r"^Total\s*:\s*([\d.]+)\s+([\d.]+)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s*$", re.MULTILINE)
_PERCENTILE: Final = re.compile(r"^\s*(50|99)\.00000% :\s*([\d.]+)us", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One pattern of I/O; ``depth`` commands in flight on each of ``queues`` connections."""

    name: str
    io_bytes: int
    depth: int
    queues: int = 1
    read_percent: int = 100
    sequential: bool = False


def find_perf() -> Path | None:
    """``spdk_nvme_perf`` beside the ``nvmf_tgt`` in use, or None."""
    target = find_spdk()
    found = target.with_name("spdk_nvme_perf") if target is not None else None
    return found if found is not None and os.access(found, os.X_OK) else None


def run_perf(program: Path, target: Target, work: Workload, run_s: int) -> Figures:
    """One run of ``spdk_nvme_perf``, on the last core."""
    kinds = {100: "read", 0: "write"}
    kind = kinds.get(work.read_percent, "rw")
    where = f"trtype:TCP adrfam:IPv4 traddr:{ADDRESS} trsvcid:{target.port} subnqn:{NQN}"
    # Its depth is of the namespace, over all of its connections.
    command = [
        str(program), "-r", where, "-L", "--no-huge",
        "-q", str(work.depth * work.queues), "-P", str(work.queues), "-o", str(work.io_bytes),
        "-w", kind if work.sequential else f"rand{kind}", "-t", str(run_s), "-a", str(WARM_UP_S),
        "-c", hex(1 << max(os.sched_getaffinity(0))), "-s", str(_HOST_MEMORY_MIB),
    ]  # fmt: skip
    if kind == "rw":
        command += ["-M", str(work.read_percent)]
    done = subprocess.run(  # noqa: S603 - the operator's SPDK
        command, capture_output=True, text=True, timeout=PATIENCE_S + run_s, check=False
    )
    if done.returncode:
        raise RuntimeError(f"spdk_nvme_perf ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return read_perf(done.stdout)


def read_perf(text: str) -> Figures:
    """What ``spdk_nvme_perf -L`` printed, for one namespace and one core."""
    total = _TOTAL.search(text)
    percentiles = {share: float(value) for share, value in _PERCENTILE.findall(text)}
    if total is None or len(percentiles) != 2:
        raise RuntimeError(f"spdk_nvme_perf printed no result: {text[-500:]}")
    return Figures(
        iops=float(total[1]),
        bytes_per_s=float(total[2]) * _MIB,
        p50_us=percentiles["50"],
        p99_us=percentiles["99"],
        max_us=float(total[3]),
    )


def run_load(target: Target, work: Workload, run_s: float) -> Figures:
    """One run of ``bench.load``, in a process of its own."""
    job = Job(
        address=ADDRESS,
        port=target.port,
        nqn=NQN,
        block_bytes=BLOCK_BYTES,
        namespace_bytes=DEVICE_BYTES,
        io_bytes=work.io_bytes,
        depth=work.depth,
        queues=work.queues,
        read_percent=work.read_percent,
        sequential=work.sequential,
        warm_up_s=WARM_UP_S,
        run_s=run_s,
    )
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(job)),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S + run_s,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    return Figures(**json.loads(done.stdout))
