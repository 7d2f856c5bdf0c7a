"""What SPDK's load program prints is read, and what is no result is no result."""

from __future__ import annotations

import pytest

from bench.hosts import read_perf

PRINTED = """\
========================================================
                                                                                                 Latency(us)
Device Information                                           :       IOPS      MiB/s    Average        min        max
TCP (addr:127.0.0.1 subnqn:nqn.x:bench) NSID 1 from core  1:   93832.00     366.53     341.04     164.63    4242.04
========================================================
Total                                                        :   93832.00     366.53     341.04     164.63    4242.04

Summary latency data for TCP (addr:127.0.0.1 subnqn:nqn.x:bench) NSID 1 from core 1:
=================================================================================
  1.00000% :   249.285us
 50.00000% :   326.595us
 99.00000% :   583.768us
 99.90000% :  1476.775us
"""


def test_rate_and_latency_are_read() -> None:
    figures = read_perf(PRINTED)
    assert (figures.iops, figures.p50_us, figures.p99_us, figures.max_us) == (93832.0, 326.595, 583.768, 4242.04)
    assert figures.bytes_per_s == 366.53 * (1 << 20)


@pytest.mark.parametrize("text", ["", "Initializing NVMe Controllers\n", PRINTED.replace("99.00000%", "98.00000%")])
def test_what_is_incomplete_is_refused(text: str) -> None:
    with pytest.raises(RuntimeError, match="no result"):
        read_perf(text)
