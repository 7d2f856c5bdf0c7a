"""The load program against a real engine: every pattern does I/O, and says what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import hosts
from bench.hosts import Workload
from bench.target import exporting
from dataplane.rpc.methods import bdev
from dataplane.rpc.session import Session


@pytest.mark.parametrize("device", ["malloc", "file"])
def test_the_engine_counts_what_the_load_program_sent(tmp_path: Path, device: str) -> None:
    work = Workload(name="mixed", io_bytes=8192, depth=4, queues=3, read_percent=50)
    with exporting("embedded", device, tmp_path) as target:  # type: ignore[arg-type]
        figures = hosts.run_load(target, work, 0.1)
        with Session(str(tmp_path / f"embedded-{device}.sock")) as session:
            counted = session.run(bdev.get_iostat(["measured"]))
        assert target.resident_bytes > 0
    assert figures.iops > 0
    assert figures.bytes_per_s == pytest.approx(figures.iops * work.io_bytes)
    assert 0 < figures.p50_us <= figures.p99_us <= figures.max_us
    (stat,) = counted.bdevs
    assert stat.read_ops > 0
    assert stat.write_ops > 0
    assert stat.bytes_read + stat.bytes_written == (stat.read_ops + stat.write_ops) * work.io_bytes
