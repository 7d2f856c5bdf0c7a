"""``ws7000 subsystem``: lists and shows subsystems, and moves one of them to another node."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def subsystem() -> None:
    """The subsystems, their owners, and switchover of one.

    \b
    Example:
      ws7000 subsystem list
      ws7000 subsystem switchover tenant-1 --to b
    See also: ws7000 array switchover, ws7000 volume list
    """


@subsystem.command("list")
@array_options
def list_subsystems(settings: Settings) -> None:
    """List the subsystems.

    OWNERS tells which node serves each ANA group: 1:a,2:b means that both groups are at home.

    \b
    Example:
      ws7000 subsystem list
    See also: ws7000 subsystem show, ws7000 volume list
    """
    from cli import listing, objects

    listing.list_items(settings, "subsystem", objects.subsystems, objects.SUBSYSTEM_COLUMNS)


@subsystem.command("show")
@click.argument("name")
@array_options
def show_subsystem(settings: Settings, name: str) -> None:
    """Show one subsystem.

    \b
    Example:
      ws7000 subsystem show default
    See also: ws7000 subsystem list
    """
    from cli import listing, objects

    listing.show_item(settings, "subsystem", name, objects.subsystems, objects.SUBSYSTEM_COLUMNS)


@subsystem.command("switchover")
@click.argument("name")
@click.option("--to", required=True, metavar="NODE", help="a, b, or home for each group's home node.")
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@array_options
def switchover_subsystem(settings: Settings, name: str, to: str, dry_run: bool) -> None:
    """Move the ANA groups of one subsystem to a node.

    Hosts go on over the other path; no I/O fails.

    \b
    Example:
      ws7000 subsystem switchover tenant-1 --to b
      ws7000 subsystem switchover tenant-1 --to home
    See also: ws7000 array switchover, ws7000 subsystem list
    """
    from cli.changes import switch_over

    switch_over(settings, to=to, subsystem=name, dry_run=dry_run)
