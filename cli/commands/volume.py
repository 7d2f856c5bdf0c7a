"""``ws7000 volume``: lists and shows volumes from the stored state and a fresh look; changes nothing."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def volume() -> None:
    """The volumes: where they are, who sees them, how they are.

    Volumes are made and removed by editing array.yaml and applying it; there is no second way.

    \b
    Example:
      ws7000 volume list
      ws7000 volume show kv-cache
    See also: ws7000 array show, ws7000 drive list
    """


@volume.command("list")
@array_options
def list_volumes(settings: Settings) -> None:
    """List the volumes.

    OK: served, and both nodes hold it.  DEGRADED: served, but the other node or a leg is not there.  MISSING: hosts
    cannot use it.  UNKNOWN: its owner could not be observed.

    \b
    Example:
      ws7000 volume list
      ws7000 volume list -o wide
      ws7000 volume list -o json
    See also: ws7000 volume show, ws7000 array show, ws7000 drive list
    """
    from cli import listing, objects

    listing.list_items(settings, "volume", objects.volumes, objects.VOLUME_COLUMNS)


@volume.command("show")
@click.argument("name")
@array_options
def show_volume(settings: Settings, name: str) -> None:
    """Show one volume.

    \b
    Example:
      ws7000 volume show kv-cache
      ws7000 volume show kv-cache -o json
    See also: ws7000 volume list
    """
    from cli import listing, objects

    listing.show_item(settings, "volume", name, objects.volumes, objects.VOLUME_COLUMNS)
