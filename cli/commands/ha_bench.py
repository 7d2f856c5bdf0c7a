"""``ws7000 ha bench``: how long a host goes without an answer when something fails, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import Settings, output_options

if TYPE_CHECKING:
    from dataplane.launch import EngineKind

FAULTS = (
    "switchover", "data-plane-crash", "data-plane-hang", "agent-crash", "agent-hang", "node-silent",
    "heartbeat-network-lost",
)  # fmt: skip
"""Those of cli.ha.failover.measure, without importing it."""


@click.command()
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Of each fault.")
@click.option("--fault", "faults", type=click.Choice(FAULTS), multiple=True, help="Only this one; default: all.")
@click.option("--engine", type=click.Choice(["embedded", "spdk"]), default="embedded", show_default=True)
@click.option("--policy", type=click.Choice(["fast", "slow"]), default="fast", show_default=True)
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path), help="Write every run to FILE.")
@click.option("--plot", metavar="FILE", type=click.Path(path_type=Path), help="Draw every run into FILE (SVG).")
@output_options
def bench(
    settings: Settings,
    runs: int,
    faults: tuple[str, ...],
    engine: EngineKind,
    policy: str,
    json_file: Path | None,
    plot: Path | None,
) -> int:
    """Break a small array on this machine again and again, and say what its host saw.

    Starts a shelf, two engines, their agents and a host that writes and reads tagged blocks all the time. Ends with 1
    when an access failed, or when no order of the accesses explains what was read.

    \b
    Example:
      ws7000 ha bench --runs 3
      ws7000 ha bench --fault data-plane-crash --runs 30 --json runs.json --plot runs.svg
      ws7000 ha bench --engine spdk --policy slow
    See also: ws7000 ha simulate, ws7000 ha switchover
    """
    import json

    from cli.ha.failover import report
    from cli.ha.failover.measure import Bench
    from cli.output import Output
    from controlplane.domain.desired import HaPolicy

    out = Output(settings)
    measuring = Bench(engine, HaPolicy(policy), out.say)
    found = [run for fault in faults or FAULTS for run in measuring.measure(fault, runs)]
    only = "".join(f" --fault {fault}" for fault in faults)
    command = f"ws7000 ha bench --engine {engine} --policy {policy} --runs {runs}{only}"
    body = report.body(found, command, measuring.begun_again)
    if json_file is not None:
        json_file.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        plot.write_text(report.chart(found, command), encoding="utf-8")
    out.value("HaBench", {"name": "bench", **body}, report.lines(body["summary"]))
    return int(any(run.errors or run.violation for run in found))
