"""What ``ws7000 ha bench`` makes of its runs, and how its host marks its blocks."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cli.commands import ha_bench
from cli.ha.failover import load, measure, report
from cli.ha.failover.measure import Run

SVG = "{http://www.w3.org/2000/svg}"


def run(gap_ms: float, fault: str = "data-plane-crash", **more: object) -> Run:
    return Run(fault=fault, engine="embedded", policy="fast", node="a", gap_ms=gap_ms, **more)  # type: ignore[arg-type]


def test_the_command_knows_the_faults_that_are_measured() -> None:
    assert ha_bench.FAULTS == measure.FAULTS


@pytest.mark.parametrize(("part", "wanted"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0), (0.26, 2.0)])
def test_a_share_of_values(part: float, wanted: float) -> None:
    assert report.share([3.0, 1.0, 4.0, 2.0], part) == wanted


def test_runs_are_told_by_engine_and_fault() -> None:
    runs = [
        run(120.0, steps={"detect": 10.0, "fence": 30.0}, took_over=True, accesses=7),
        run(80.0, "switchover", accesses=5),
        run(300.0, steps={"detect": 20.0}, took_over=True, errors=2, violation="block x: stale", accesses=9),
    ]
    crash, planned = report.body(runs, "ws7000 ha bench", 0)["summary"]
    assert (crash["fault"], crash["runs"], crash["errors"], crash["takeovers"]) == ("data-plane-crash", 2, 2, 2)
    assert crash["gap_ms"] == {"p50": 120.0, "p99": 300.0, "max": 300.0}
    assert crash["steps_ms"]["detect"] == {"p50": 10.0, "p99": 20.0, "max": 20.0}
    assert crash["steps_ms"]["fence"]["max"] == 30.0
    assert "write" not in crash["steps_ms"]
    assert crash["violations"] == ["block x: stale"]
    assert (planned["fault"], planned["accesses"], planned["takeovers"]) == ("switchover", 5, 0)
    text = "\n".join(report.lines([crash, planned]))
    assert "block x: stale" in text
    assert "linearizable" in text


def test_the_chart_has_a_dot_for_each_run_and_the_command() -> None:
    runs = [run(5.0), run(10_000.0), run(50_000.0), run(100.0, "switchover")]
    command = "ws7000 ha bench --runs 3 <x>"
    image = ElementTree.fromstring(report.chart(runs, command))
    dots = [float(dot.attrib["cx"]) for dot in image.iter(f"{SVG}circle")]
    assert len(dots) == len(runs)
    assert dots[0] < dots[3] < dots[1] == dots[2], "a longer gap lies further right, as far as the axis goes"
    texts = [text.text for text in image.iter(f"{SVG}text")]
    assert command in texts
    assert "embedded data-plane-crash (3)" in texts


def test_a_block_carries_its_tag_in_every_word() -> None:
    whole = load.block_of(7)
    assert len(whole) == load.BLOCK_BYTES
    assert load.tag_of(whole) == 7
    assert load.tag_of(bytes(load.BLOCK_BYTES)) == 0
    torn = whole[: load.BLOCK_BYTES // 2] + load.block_of(8)[load.BLOCK_BYTES // 2 :]
    assert load.tag_of(torn) == load.TORN
