"""``ws7000 pool``: lists and shows pools from the stored state and a fresh look; changes nothing."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def pool() -> None:
    """The pools that volumes are cut from.

    \b
    Example:
      ws7000 pool list
      ws7000 pool show fast
    See also: ws7000 drive list, ws7000 volume list
    """


@pool.command("list")
@array_options
def list_pools(settings: Settings) -> None:
    """List the pools.

    Sizes are raw: a mirrored volume uses twice its size.  A pool is as well as its volumes; a drive that is not OK
    degrades it.

    \b
    Example:
      ws7000 pool list
      ws7000 pool list -o wide
      ws7000 pool list -o json
    See also: ws7000 pool show, ws7000 drive list, ws7000 volume list
    """
    from cli import listing, objects

    listing.list_items(settings, "pool", objects.pools, objects.POOL_COLUMNS)


@pool.command("show")
@click.argument("name")
@array_options
def show_pool(settings: Settings, name: str) -> None:
    """Show one pool.

    \b
    Example:
      ws7000 pool show fast
      ws7000 pool show fast -o json
    See also: ws7000 pool list
    """
    from cli import listing, objects

    listing.show_item(settings, "pool", name, objects.pools, objects.POOL_COLUMNS)
