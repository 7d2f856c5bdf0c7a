"""``ws7000 demo``: 24 drives, two nodes, volumes written and read back by a host, and what was seen.

Talk goes to stderr, the result (a table, or JSON) to stdout.  Every line says what has just been done for
real; a chapter that cannot run here is named, with the reason.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console
from rich.table import Table

from cli.demo import story
from cli.demo.failover_chapter import FailoverResult, run_failover
from cli.demo.kernel_chapter import KernelResult, run_kernel_host
from cli.demo.lab import Lab
from controlplane.domain.state import State
from controlplane.domain.units import show_size
from controlplane.reconcile.reconciler import Reconciler
from dataplane.launch import EngineKind

Say = Callable[[str], None]


@click.command("demo")
@click.option(
    "--engine",
    type=click.Choice(["embedded", "spdk"]),
    default="embedded",
    show_default=True,
    help="What serves NVMe: the embedded engine, or three of SPDK's nvmf_tgt.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="Where files, sockets and state go; kept.")
@click.option("--keep", is_flag=True, help="Leave it running, and say how to look around.")
@click.option(
    "--kernel-host",
    type=click.Choice(["auto", "no", "yes"]),
    default="auto",
    show_default=True,
    help="Also connect a real Linux kernel booted in QEMU.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def demo(engine: EngineKind, folder: Path | None, keep: bool, kernel_host: str, output: str) -> None:
    """Show the main job on this machine, with real data.

    \b
    Example:
      ws7000 demo
      ws7000 demo --engine spdk --keep
    See also: ws7000 array apply, ws7000 volume list
    """
    talk = Console(stderr=True, highlight=False)

    def say(text: str) -> None:
        talk.print(text, markup=False, soft_wrap=True)

    with Lab(engine, folder=folder, keep=keep) as lab:
        say(f"shelf: {len(lab.array.drives)} drives as files in {lab.folder}/drives; nodes a and b, engine {engine}")
        result = _run(lab, say, kernel_host)
        _show(result, output, sys.stdout)
        if keep:
            _how_to_look(lab, say)
        else:
            say("cleaned up. Next: ./run demo --keep leaves it running and says how to look around;")
            say("docs/tutorial.md leads to an array of your own")


def _run(lab: Lab, say: Say, kernel_host: str) -> dict[str, Any]:
    with Reconciler.in_folder(lab.array, lab.state) as reconciler:
        applied = reconciler.apply()
        steps = sum(len(plan.steps) for plan in applied.plans)
        say(
            f"array apply: {steps} steps in {len(applied.plans)} rounds; a second apply finds "
            f"{'nothing to do' if not reconciler.apply().changed else 'differences'}"
        )
        state = applied.state
        facts = asyncio.run(_our_host(lab, reconciler, state, say))
    kernel = run_kernel_host(lab, state, kernel_host, say)
    return _result(lab, state, facts, kernel)


async def _our_host(lab: Lab, reconciler: Reconciler, state: State, say: Say) -> dict[str, Any]:
    """The chapters of our own initiator: zeroes, write, switchover, read back, masking."""
    verified: dict[str, story.Verified] = {}
    async with story.host_of(lab, "gpu1") as host:
        connection = await story.connect(lab, host, state)
        names = {state.volumes[v.name].nsid: v.name for v in lab.array.volumes if "gpu1" in v.hosts}
        say(f"host gpu1: connected over {len(connection.paths)} paths, sees {', '.join(names.values())}")
        written = 0
        for nsid, name in names.items():
            namespace = connection.namespace(nsid)
            if not await story.reads_zero(namespace, state.volumes[name]):
                raise story.broken(f"new volume {name} does not read zeroes", "somebody's old data shows")
            written += await story.write_all(namespace, state.volumes[name])
        before = {path.address: path.ios for path in connection.paths}
        say(f"host gpu1: new volumes read zeroes; wrote {show_size(written)} of checksummed blocks")
        # The reconciler waits on sockets: in a thread, so that this host's connections live on meanwhile.
        await asyncio.to_thread(reconciler.switchover, "b")
        say("planned switchover: every ANA group of node a was lowered, drained and raised on node b")
        for nsid, name in names.items():
            verified[name] = story.must(await story.read_all(connection.namespace(nsid), state.volumes[name]))
        moved = {path.address: path.ios - before[path.address] for path in connection.paths}
        say(f"host gpu1: read it all back through the other node, every block right ({_path_text(moved)})")
        await asyncio.to_thread(reconciler.switchover, "home")
        say("switched back: each group is served by its home node again")
        failover = await run_failover(lab, reconciler, connection, state, say)
        verified[failover.verified.volume] = failover.verified
        counters = connection.counters
        connection_errors = counters.failed
    async with story.host_of(lab, "gpu2") as other:
        connection = await story.connect(lab, other, state)
        seen = sorted(connection.namespaces)
        allowed = sorted(state.volumes[v.name].nsid for v in lab.array.volumes if "gpu2" in v.hosts)
        if seen != allowed:
            raise story.broken(f"host gpu2 sees namespaces {seen}", f"it may see {allowed}")
        say(f"host gpu2: sees {len(seen)} namespace of {len(state.volumes)}; the others are hidden from it")
    return {
        "written_bytes": written,
        "verified": verified,
        "reads_by_path": moved,
        "failovers": counters.failovers,
        "errors": connection_errors,
        "failover": failover,
        "gpu2_sees": seen,
    }


def _path_text(moved: dict[str, int]) -> str:
    return ", ".join(f"{count} I/Os by {address}" for address, count in moved.items())


def _result(lab: Lab, state: State, facts: dict[str, Any], kernel: KernelResult) -> dict[str, Any]:
    failover: FailoverResult = facts["failover"]
    return {
        "apiVersion": "ws7000/v1",
        "kind": "DemoResult",
        "engine": lab.kind,
        "drives": len(lab.array.drives),
        "nodes": [node.name for node in lab.array.nodes],
        "written_bytes": facts["written_bytes"],
        "host_errors": facts["errors"],
        "failover": failover.to_json(),
        "kernel_host": kernel.to_json(),
        "volumes": [
            {
                "name": v.name,
                "size_bytes": v.provisioned_bytes,
                "pool": v.pool,
                "protection": v.protection.value,
                "drives": len(v.drives),
                "home": v.home,
                "nsid": v.nsid,
                "hosts": list(v.hosts),
                "verified_bytes": facts["verified"][v.name].size_bytes if v.name in facts["verified"] else 0,
                "wrong_blocks": facts["verified"][v.name].wrong_blocks if v.name in facts["verified"] else 0,
            }
            for v in state.volumes.values()
        ],
    }


def _show(result: dict[str, Any], output: str, stream: TextIO) -> None:
    if output == "json":
        stream.write(json.dumps(result, indent=2) + "\n")
        return
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 110)
    title = f"{result['drives']} drives, nodes {' and '.join(result['nodes'])}, engine {result['engine']}"
    table = Table(title=title, title_justify="left")
    for column in ("VOLUME", "SIZE", "POOL", "PROTECTION", "DRIVES", "HOME", "NSID", "HOSTS", "READ BACK"):
        table.add_column(column)
    for v in result["volumes"]:
        checked = f"{show_size(v['verified_bytes'])} OK" if not v["wrong_blocks"] else "WRONG"
        table.add_row(
            v["name"], show_size(v["size_bytes"]), v["pool"], v["protection"], str(v["drives"]), v["home"],
            str(v["nsid"]), ", ".join(v["hosts"]), checked,
        )  # fmt: skip
    console.print(table)
    crash = result["failover"]
    console.print(
        f"node a killed in the middle of {crash['writes']} writes: longest stall {crash['longest_stall_ms']} ms, "
        f"{crash['wrong_blocks']} blocks wrong"
    )
    console.print(f"host errors: {result['host_errors']}    Linux kernel host: {result['kernel_host']['summary']}")


def _how_to_look(lab: Lab, say: Say) -> None:
    common = f"-f {lab.spec} --state {lab.state}"
    # ./run puts the environment on PATH only for itself; what is printed has to work in the reader's shell.
    ws7000 = shutil.which("ws7000") or sys.argv[0]
    # The agents first: an agent sees a data plane that ends as a failure.
    pids = " ".join(str(each.pid) for each in (*lab.agents.values(), *(e.process for e in lab.engines.values())))
    say("")
    say("still running; look around with:")
    say(f"  {ws7000} volume list {common}")
    say(f"  {ws7000} array plan {common}")
    say(f"     (edit {lab.spec} first: add a volume, remove one; then: array apply)")
    say(f"  {ws7000} ha status {common}")
    say(f"  {ws7000} ha switchover --to b {common}")
    say(f"  {ws7000} ha simulate data-plane-crash --node a --lab {lab.folder}, then: ha history {common}")
    say(f"and end it with: kill {pids}; rm -r {lab.folder}")
