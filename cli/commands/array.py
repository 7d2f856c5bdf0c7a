"""``ws7000 array``: from array.yaml to the nodes, and back.

Only ``apply``, ``switchover`` and ``import`` change anything; each shows with ``--dry-run`` what it would do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import Format, Settings, array_options

if TYPE_CHECKING:
    from cli.output import Item


@click.group()
def array() -> None:
    """Plan, apply and inspect the array of array.yaml.

    \b
    Example:
      ws7000 array validate examples/laptop.yaml
      ws7000 array plan -f array.yaml
      ws7000 array apply -f array.yaml
    See also: ws7000 schema, ws7000 volume list
    """


@array.command()
@click.argument("path", required=False, metavar="[FILE]")
@array_options
def validate(settings: Settings, path: str | None) -> None:
    """Check array.yaml: every mistake with its line and column.

    Asks no node and touches nothing.  Ends with 2 if the file cannot be accepted.

    \b
    Example:
      ws7000 array validate examples/laptop.yaml
      ws7000 array validate -f - < array.yaml
    See also: ws7000 schema, ws7000 array plan
    """
    from dataclasses import replace

    from cli.access import load_array
    from cli.output import Output

    if path is not None:
        settings = replace(settings, file=path)
    out = Output(settings)
    found = load_array(settings, out)
    counts = {
        "nodes": len(found.nodes),
        "drives": len(found.drives),
        "pools": len(found.pools),
        "subsystems": len(found.subsystems),
        "hosts": len(found.hosts),
        "volumes": len(found.volumes),
    }
    told = ", ".join(f"{count} {name.removesuffix('s') if count == 1 else name}" for name, count in counts.items())
    out.value("Validated", {"name": found.name, **counts}, [f"array {found.name} is valid: {told}"])


@array.command()
@click.option("--check", is_flag=True, help="End with 3 when there is something to do.")
@array_options
def plan(settings: Settings, check: bool) -> int:
    """Show what apply would do, step by step, and change nothing.

    Each line names the node, what happens, and the risk.  Ends with 6 when the plan is refused.

    \b
    Example:
      ws7000 array plan
      ws7000 array plan -o wide
      ws7000 array plan --check -o json
    See also: ws7000 array apply, ws7000 array diff
    """
    from cli import changes
    from cli.access import load_array
    from cli.output import Output

    out = Output(settings)
    _view, proposal = changes.show_plan(settings, out, load_array(settings, out))
    return changes.differs(proposal) if check else 0


@array.command()
@click.option("--destroy", multiple=True, metavar="NAME", help="Agree to lose the data of NAME; repeatable.")
@click.option("--yes", is_flag=True, help="Agree to lose whatever the plan destroys.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@array_options
def apply(settings: Settings, destroy: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Make the nodes what array.yaml says.

    Goes on from wherever an interrupted apply stopped; a second one finds nothing to do.  What would be destroyed
    has to be agreed to by name: --destroy, or typed on a terminal.

    \b
    Example:
      ws7000 array apply
      ws7000 array apply --dry-run
      ws7000 array apply --destroy scratch
    See also: ws7000 array plan, ws7000 array history
    """
    from cli import changes
    from cli.access import load_array
    from cli.output import Output

    if dry_run:
        out = Output(settings)
        changes.show_plan(settings, out, load_array(settings, out))
        return
    changes.apply_array(settings, destroy=destroy, yes=yes)


@array.command()
@array_options
def diff(settings: Settings) -> int:
    """Show how the nodes differ from array.yaml; ends with 3 if they do.

    + is wanted and not there, - is there and not wanted, ~ is another than wanted.

    \b
    Example:
      ws7000 array diff
      ws7000 array diff -o json
    See also: ws7000 array plan, ws7000 array apply
    """
    from cli import changes
    from cli.access import load_array
    from cli.output import Output

    out = Output(settings)
    _view, proposal = changes.show_plan(settings, out, load_array(settings, out), as_diff=True)
    return changes.differs(proposal)


@array.command()
@click.option("--state-json", is_flag=True, help="Write the state itself, as a backup, in place of array.yaml.")
@array_options
def export(settings: Settings, state_json: bool) -> None:
    """Write the applied array as array.yaml, or its state as a backup.

    The state holds the map of the volumes: without it their data cannot be found.  To restore a backup, put it into
    the state folder as node-a.json while nothing is being applied.

    \b
    Example:
      ws7000 array export > array.yaml
      ws7000 array export --state-json > backup.json
    See also: ws7000 array show, ws7000 array validate
    """
    from cli.access import stored_state
    from cli.output import Output
    from controlplane.spec.load import to_yaml
    from controlplane.store import codec

    out = Output(settings)
    state = stored_state(settings, out)
    out.raw(codec.encode(state).decode() if state_json else to_yaml(state.array))


@array.command("import")
@click.option(
    "--node", default=None, metavar="NODE", help="Read the drives through this node; the first one if left out."
)
@click.option(
    "--write",
    "write",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Where the whole array.yaml goes; array.yaml in the state folder if left out.",
)
@click.option(
    "--take-over",
    metavar="ARRAY",
    default=None,
    help="The nodes of ARRAY are gone for good: evict them from drives that they still hold.",
)
@click.option("--yes", is_flag=True, help="Write what was found without asking.")
@click.option("--dry-run", is_flag=True, help="Show what was found; write nothing, take nothing over.")
@array_options
def import_(
    settings: Settings, *, node: str | None, write: Path | None, take_over: str | None, yes: bool, dry_run: bool
) -> None:
    """Find an array on its drives, and make this its state folder.

    For two fresh nodes and the drives of an array that was formed.  The file names the nodes and the drives, nothing
    more; volumes, hosts and pools come from the drives.  The engine of one node has to run, with no drive attached or
    with these.

    \b
    Example:
      ws7000 array import -f drives.yaml --dry-run
      ws7000 array import -f drives.yaml --write array.yaml
      ws7000 array import -f drives.yaml --take-over lab --yes
    See also: ws7000 array export, ws7000 array apply, ws7000 drive list
    """
    from cli.imports import Wish, import_array

    import_array(settings, Wish(node=node, write=write, take_over=take_over, yes=yes, dry_run=dry_run))


@array.command()
@array_options
def show(settings: Settings) -> None:
    """Show the array as a whole: what it has, and how it is.

    \b
    Example:
      ws7000 array show
      ws7000 array show -o json
    See also: ws7000 node list, ws7000 volume list
    """
    from cli import objects
    from cli.access import look
    from cli.output import Output, fields
    from controlplane.domain.units import show_size
    from controlplane.reconcile.engines import engine_versions

    out = Output(settings)
    view = look(settings, out)
    body = objects.whole(view, engine_versions(view.seen))
    told = fields(
        [
            ("array", body["name"]),
            ("state", body["state"]),
            ("ha", body["ha"]),
            ("generation", str(body["generation"])),
            ("uuid", body["uuid"]),
            ("capacity", f"{show_size(body['used_bytes'])} used, {show_size(body['free_bytes'])} free"),
            *((key, _counted(body[key])) for key in ("nodes", "drives", "pools", "subsystems", "volumes")),
        ]
    )
    out.value("Array", body, told)


def _counted(states: dict[str, int]) -> str:
    total = sum(states.values())
    return f"{total}" + (f" ({', '.join(f'{count} {word}' for word, count in states.items())})" if total else "")


@array.command()
@click.option("--to", required=True, metavar="NODE", help="a, b, or home for each group's home node.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@array_options
def switchover(settings: Settings, to: str, dry_run: bool) -> None:
    """Move all ANA groups to a node, or back home.

    Planned: both nodes answer, and no I/O of a host fails.  It moves what was applied; edits of array.yaml wait for
    the next apply.

    \b
    Example:
      ws7000 array switchover --to b
      ws7000 array switchover --to home --dry-run
    See also: ws7000 subsystem switchover, ws7000 subsystem list
    """
    from cli.changes import switch_over

    switch_over(settings, to=to, subsystem=None, dry_run=dry_run)


@array.command()
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="How many events.")
@array_options
def history(settings: Settings, last: int) -> None:
    """Show what was done, oldest first, from the journal.

    Every step is written down before it runs (intent) and after (done); an intent without a done is where an apply
    was cut off.

    \b
    Example:
      ws7000 array history
      ws7000 array history --last 500 -o json
    See also: ws7000 array apply, ws7000 array diff
    """
    from cli.output import Column, Output
    from controlplane.reconcile.journal import Journal

    events: list[dict[str, Any]] = list(Journal(Path(settings.state)).read())[-last:]
    keys = ("at", "event", "node", "sentence") if settings.format is not Format.WIDE else _HISTORY_KEYS
    columns = [Column(title=key.upper(), show=_value(key)) for key in keys]
    named = [{**event, "name": f"{event.get('at', '')}/{event.get('event', '')}"} for event in events]
    Output(settings).items("event", named if settings.format is Format.NAME else events, columns)


_HISTORY_KEYS = ("at", "event", "generation", "node", "step", "sentence")


def _value(key: str) -> Callable[[Item], str]:
    """An event's value; a failure has no sentence, but says what happened."""

    def value(event: Item) -> str:
        found = event.get(key, event.get("what") if key == "sentence" else None)
        return "" if found is None else str(found)

    return value
