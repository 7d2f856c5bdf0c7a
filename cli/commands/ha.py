"""``ws7000 ha``: who serves what and why, orders to the agents, and what is needed to start them.

Lists and ``status`` change nothing.  Orders go to the leader's agent, which carries them out or says why not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.commands.ha_bench import bench
from cli.commands.ha_qualify import qualify_drive
from cli.options import Format, Settings, array_options, output_options

if TYPE_CHECKING:
    from controlplane.reconcile.agents import Agents
    from ha.model import NodeName

NODE_CHOICE = click.Choice(["a", "b"])
FAULTS = click.Choice(
    ["data-plane-crash", "data-plane-hang", "agent-crash", "agent-hang", "node-silent", "mend"]
)  # what cli.ha.lab has, without importing it


@click.group()
def ha() -> None:
    """High availability: who serves what, and why.

    Two nodes serve the same drives at once, each the ANA groups it owns. An agent on each node fences the other when
    it fails, and serves everything.

    \b
    Example:
      ws7000 ha keygen ha.secret
      ws7000 ha agent -f array.yaml --node a
      ws7000 ha status
      ws7000 ha switchover --to b
    See also: ws7000 array apply, ws7000 explain, ws7000 subsystem list
    """


ha.add_command(bench)
ha.add_command(qualify_drive)


@ha.command()
@click.option("--node", type=NODE_CHOICE, required=True, help="The node that this machine is.")
@click.option("--engine", metavar="SOCKET", default="", help="RPC socket of its engine; default: rpc of array.yaml.")
@click.option("--real-time", is_flag=True, help="Run at real-time priority; needs the right to.")
@click.option(
    "--watchdog", type=click.Choice(["off", "automatic", "required"]), default="off", show_default=True,
    help="Keep the hardware watchdog, so that a hung machine is restarted.",
)  # fmt: skip
@click.option("--print-config", is_flag=True, help="Print what the agent would be started with, and end.")
@array_options
def agent(settings: Settings, node: NodeName, engine: str, real_time: bool, watchdog: str, print_config: bool) -> None:
    """Run the agent of a node, until a signal.

    When the agent ends, its leash ends the engine, unless the array is paused: an engine that nobody watches must not
    serve.

    \b
    Example:
      ws7000 ha agent -f array.yaml --node a
      ws7000 ha agent -f array.yaml --node a --print-config
    See also: ws7000 ha status, ws7000 ha pause
    """
    import os
    import sys

    from cli.access import load_array
    from cli.ha.agent_config import agent_config, write_config
    from cli.output import Output

    out = Output(settings)
    config = agent_config(
        load_array(settings, out), node, settings.state, engine=engine, real_time=real_time, watchdog=watchdog
    )
    if print_config:
        out.raw(config.to_json())
        return
    path = write_config(config)
    out.say(f"node {node}: agent of array {config.array}, policy {config.policy}, configuration {path}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ha.agent", str(path)])  # noqa: S606 - this process becomes it


@ha.command()
@click.option("--check", is_flag=True, help="End with 3 unless all is well.")
@array_options
def status(settings: Settings, check: bool) -> int:
    """Say who owns what, and why.

    OK: both nodes are members and each group is served by its owner.  DEGRADED: all is served, and something that it
    is to survive with is missing.  MISSING: a group is not served.  UNKNOWN: who would tell does not answer.

    \b
    Example:
      ws7000 ha status
      ws7000 ha status -o json
    See also: ws7000 ha top, ws7000 ha history
    """
    from cli.access import stored_state
    from cli.ha import told
    from cli.output import Output
    from controlplane.domain.errors import ExitCode
    from controlplane.reconcile.status import Health

    out = Output(settings)
    state = stored_state(settings, out)
    views = _agents(settings, out).views()
    out.value("HaStatus", told.body(state, views), told.lines(state, views))
    return int(ExitCode.DIFFERS if check and told.health(views) is not Health.OK else ExitCode.OK)


@ha.command()
@click.option("--every", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Show it once.")
@array_options
def top(settings: Settings, every: float, once: bool) -> None:
    """Show the status live; q or Ctrl-C ends it.

    \b
    Example:
      ws7000 ha top
      ws7000 ha top --once
    See also: ws7000 ha status
    """
    from cli.access import stored_state
    from cli.ha import told
    from cli.ha.top import show
    from cli.output import Output

    out = Output(settings)
    state = stored_state(settings, out)
    agents = _agents(settings, out)
    show(out, lambda: told.lines(state, agents.views()), every_s=every, once=once)


@ha.command()
@click.option("--to", type=NODE_CHOICE, required=True, help="The node that is to serve.")
@click.option("--subsystem", metavar="NAME", help="Only the groups of this one; default: all.")
@click.option("--dry-run", is_flag=True, help="Say what would move; change nothing.")
@array_options
def switchover(settings: Settings, to: str, subsystem: str | None, dry_run: bool) -> None:
    """Move ANA groups to a node as planned; no I/O of a host fails.

    The owner lowers the groups and waits until their I/O has ended, then the other node raises them.  Where something
    is in the way (a mirror that is being rebuilt, a node that is not built yet), nothing moves, and it says what.

    \b
    Example:
      ws7000 ha switchover --to b
      ws7000 ha switchover --to a --subsystem tenant-1
    See also: ws7000 ha failback, ws7000 ha advise
    """
    _move(settings, to, subsystem, dry_run=dry_run)


@ha.command()
@click.option("--dry-run", is_flag=True, help="Say what would move; change nothing.")
@array_options
def failback(settings: Settings, dry_run: bool) -> None:
    """Move every ANA group to its home.

    \b
    Example:
      ws7000 ha failback
    See also: ws7000 ha switchover, ws7000 ha status
    """
    _move(settings, "home", None, dry_run=dry_run)


@ha.command()
@array_options
def pause(settings: Settings) -> None:
    """Take the agents' hands off: nobody takes over, moves or stops.

    A paused array serves on, and does not survive the end of a node. The agents may be replaced meanwhile.

    \b
    Example:
      ws7000 ha pause
    See also: ws7000 ha resume, ws7000 ha status
    """
    _pause(settings, paused=True)


@ha.command()
@array_options
def resume(settings: Settings) -> None:
    """Let the agents act again.

    \b
    Example:
      ws7000 ha resume
    See also: ws7000 ha pause, ws7000 ha status
    """
    _pause(settings, paused=False)


@ha.command()
@click.option("--last", type=click.IntRange(min=1, max=10_000), default=50, show_default=True, help="How many events.")
@click.option("--node", type=NODE_CHOICE, help="Only this node's; default: both.")
@array_options
def history(settings: Settings, last: int, node: str | None) -> None:
    """Show what the agents said and did, oldest first.

    Both nodes' events are put in one order by their wall clocks, which may differ.

    \b
    Example:
      ws7000 ha history
      ws7000 ha history --last 500 --node a -o json
    See also: ws7000 ha status, ws7000 array history
    """
    from cli.ha.orders import events
    from cli.output import Column, Output

    out = Output(settings)
    agents = _agents(settings, out)
    found = events(out, agents, settings.state, last=last, node=node)
    named = [{**event, "name": f"{event.get('at', '')}/{event.get('event', '')}"} for event in found]
    columns = [
        Column(title=key.upper(), show=lambda item, key=key: str(item.get(key, "")))  # type: ignore[misc]
        for key in ("at", "node", "event", "sentence")
    ]
    out.items("event", named if settings.format is Format.NAME else found, columns)


@ha.command()
@click.option("--peer-is-off", is_flag=True, help="Your word that the other node has no power.")
@click.option("--node", type=NODE_CHOICE, help="The node that takes over; default: the one whose agent answers.")
@array_options
def takeover(settings: Settings, peer_is_off: bool, node: NodeName | None) -> None:
    """Let a node take everything over by force.

    It replaces the waiting for the other node by your word that it has no power (--peer-is-off), never the fence: a
    majority of the quorum drives has to answer all the same. The name of the node that is off has to be typed. It is
    refused while the other node is heard to serve.

    \b
    Example:
      ws7000 ha takeover --peer-is-off
    See also: ws7000 ha status, ws7000 ha history
    """
    from cli.ha.orders import take_over
    from cli.output import Output

    out = Output(settings)
    take_over(out, _agents(settings, out), node=node, peer_is_off=peer_is_off)


@ha.command()
@click.argument("action", type=click.Choice(["status", "off", "on", "cycle"]))
@click.option("--node", type=NODE_CHOICE, required=True, help="The node whose power it is.")
@click.option("--yes", is_flag=True, help="Agree to end what runs there.")
@array_options
def power(settings: Settings, action: str, node: NodeName, yes: bool) -> None:
    """Ask the BMC of a node for its power, or switch it.

    off and cycle end what runs there at once: move its groups away before.  A node that is off is not turned on by
    cycle.  Nothing that keeps data safe waits for this; a failed node is fenced at the drives.

    \b
    Example:
      ws7000 ha power status --node b
      ws7000 ha power cycle --node b --yes
    See also: ws7000 ha switchover, ws7000 ha takeover
    """
    from cli.access import stored_state
    from cli.ha.power import switch
    from cli.output import Output

    out = Output(settings)
    switch(out, stored_state(settings, out).array, node, action, agreed=yes)


@ha.command("drive-repaired")
@click.argument("drive")
@array_options
def drive_repaired(settings: Settings, drive: str) -> None:
    """Say that a drive that was given up is back, or was replaced.

    It is fenced first, then used again; its owner rebuilds the legs of mirrors that lie on it.

    \b
    Example:
      ws7000 ha drive-repaired d07
    See also: ws7000 ha status, ws7000 drive list
    """
    from cli.output import Output
    from controlplane.reconcile.agents import ORDER_S

    out = Output(settings)
    agents = _agents(settings, out)
    agents.array.drive(drive)
    agents.leader().repaired(drive, ORDER_S)
    out.value("DriveRepaired", {"name": drive}, [f"drive {drive} is used again; ws7000 ha status shows the rebuild"])


@ha.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def keygen(file: Path) -> None:
    """Make the secret that heartbeats are signed with (0600); both nodes need the same.

    \b
    Example:
      ws7000 ha keygen /etc/ws7000/ha.secret
    See also: ws7000 ha agent
    """
    from cli.ha.agent_config import write_secret

    write_secret(file)
    click.echo(f"{file}: 32 random bytes, readable by its owner alone; copy it to the other node", err=True)


@ha.command()
@click.argument("name", required=False, type=click.Choice(["fast", "slow"]))
@click.option("--check", "check", metavar="FILE", type=click.Path(path_type=Path), help="Hold a set of times to it.")
@output_options
def policy(settings: Settings, name: str | None, check: Path | None) -> None:
    """Print the times and the rules that keep them safe, with their numbers.

    A FILE is a YAML mapping of times, such as {like: fast, lease_ms: 400}. One that breaks a rule is refused with
    HA-001. Agents take fast or slow, by ha.policy of array.yaml.

    \b
    Example:
      ws7000 ha policy fast
      ws7000 ha policy --check times.yaml
    See also: ws7000 ha agent, ws7000 explain
    """
    import yaml

    from cli.ha import policies
    from cli.output import Output
    from ha.policy import POLICIES

    if check is None:
        shown = [POLICIES[name]] if name else list(POLICIES.values())
    else:
        try:
            given = yaml.safe_load(check.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            raise policies.no_policy(str(check), f"it is no YAML: {problem}") from problem
        shown = [policies.policy_of(given, str(check))]
    bodies = [policies.body(each) for each in shown]
    body = bodies[0] if len(bodies) == 1 else {"name": "all", "items": bodies}
    lines = [line for each in shown for line in [*policies.lines(each), ""]]
    Output(settings).value("HaPolicy", body, lines[:-1])


@ha.command()
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="How long I/O is counted."
)
@array_options
def advise(settings: Settings, seconds: float) -> None:
    """Say which subsystem to move, so that the busier node has less to do.

    Counts what the volumes do on each node for a while; on an idle array, their sizes decide. It changes nothing.

    \b
    Example:
      ws7000 ha advise
      ws7000 ha advise --seconds 60 -o json
    See also: ws7000 ha switchover, ws7000 ha failback
    """
    from cli.access import stored_state
    from cli.ha.measure import advice
    from cli.output import Output

    out = Output(settings)
    state = stored_state(settings, out)
    found = advice(state, _agents(settings, out), seconds)
    body = {
        "name": state.array.name,
        "move": found.subsystem,
        "to": found.to,
        "home": found.home,
        "measured": found.measured,
        "load_unit": "bytes_per_s" if found.measured else "size_bytes",
        "load_now": dict(found.loads),
        "load_after": dict(found.after),
        "sentence": found.sentence,
        "command": found.command,
    }
    out.value("HaAdvice", body, [found.sentence, *([f"  {found.command}"] if found.command else [])])


@ha.command()
@click.argument("fault", type=FAULTS)
@click.option("--lab", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Folder of the lab.")
@click.option("--node", type=NODE_CHOICE, required=True, help="The node that it happens to.")
@output_options
def simulate(settings: Settings, fault: str, lab: Path, node: str) -> None:
    """Break a node of a lab on this machine, to see the other one take over.

    Touches only processes that the lab's lab.json names. A hang stops them (mend lets them go on), a crash kills them;
    node-silent stops all of the node at once.

    \b
    Example:
      ws7000 ha simulate data-plane-crash --lab ./lab --node a
      ws7000 ha simulate mend --lab ./lab --node a
    See also: ws7000 ha top, ws7000 ha history
    """
    from cli.ha.lab import MEND, befall, mend
    from cli.output import Output

    reached = mend(lab, node) if fault == MEND else befall(lab, fault, node)
    items = [{"role": each.role, "node": each.node, "pid": each.pid} for each in reached]
    told = ", ".join(f"{each.role} {each.pid}" for each in reached)
    Output(settings).value("Simulated", {"name": fault, "processes": items}, [f"node {node}: {fault}: {told}"])


def _agents(settings: Settings, out: object) -> Agents:
    """The agents of the applied array."""
    from cli.access import stored_state
    from cli.ha.orders import agents_of
    from cli.output import Output

    assert isinstance(out, Output)
    return agents_of(stored_state(settings, out).array)


def _move(settings: Settings, to: str, subsystem: str | None, *, dry_run: bool) -> None:
    from cli.access import stored_state
    from cli.ha.orders import agents_of, switch_over_by_agents
    from cli.output import Output

    out = Output(settings)
    state = stored_state(settings, out)
    agents_of(state.array)
    switch_over_by_agents(out, state, to=to, subsystem=subsystem, dry_run=dry_run)


def _pause(settings: Settings, *, paused: bool) -> None:
    from cli.output import Output
    from controlplane.reconcile.agents import ORDER_S

    out = Output(settings)
    agents = _agents(settings, out)
    agents.leader().pause(paused=paused, deadline_s=ORDER_S)
    what = "paused: nobody takes over, moves or stops" if paused else "no longer paused"
    out.value("HaPause", {"name": agents.array.name, "paused": paused}, [f"array {agents.array.name}: {what}"])
