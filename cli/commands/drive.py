"""``ws7000 drive``: lists and shows drives from the stored state and a fresh look; changes nothing."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def drive() -> None:
    """The drives, as adopted and as both nodes see them.

    \b
    Example:
      ws7000 drive list
      ws7000 drive show d07
    See also: ws7000 node list, ws7000 pool list
    """


@drive.command("list")
@array_options
def list_drives(settings: Settings) -> None:
    """List the drives.

    STATE has one word per node, in their order: OK/MISSING means that node a reaches the drive and node b does not.

    \b
    Example:
      ws7000 drive list
      ws7000 drive list -o wide
      ws7000 drive list -o json
    See also: ws7000 drive show, ws7000 node list, ws7000 pool list
    """
    from cli import listing, objects

    listing.list_items(settings, "drive", objects.drives, objects.DRIVE_COLUMNS)


@drive.command("show")
@click.argument("name")
@array_options
def show_drive(settings: Settings, name: str) -> None:
    """Show one drive.

    \b
    Example:
      ws7000 drive show d07
      ws7000 drive show d07 -o json
    See also: ws7000 drive list
    """
    from cli import listing, objects

    listing.show_item(settings, "drive", name, objects.drives, objects.DRIVE_COLUMNS)
