"""``ws7000 node``: lists and shows the storage heads and their engines; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli.options import Settings, array_options

if TYPE_CHECKING:
    from controlplane.reconcile.reconciler import View


@click.group()
def node() -> None:
    """The storage heads and their engines.

    \b
    Example:
      ws7000 node list
      ws7000 node show a
    See also: ws7000 array show, ws7000 array switchover
    """


def _items(view: View) -> list[dict[str, Any]]:
    from cli import objects
    from controlplane.reconcile.engines import engine_versions

    return objects.nodes(view, engine_versions(view.seen))


@node.command("list")
@array_options
def list_nodes(settings: Settings) -> None:
    """List the nodes.

    OK: the engine has exactly what was applied.  DEGRADED: something differs; ws7000 array diff tells what.
    MISSING: the engine is empty, as after a restart.  UNKNOWN: it does not answer.

    \b
    Example:
      ws7000 node list
      ws7000 node list -o json
    See also: ws7000 node show, ws7000 array diff
    """
    from cli import listing, objects

    listing.list_items(settings, "node", _items, objects.NODE_COLUMNS)


@node.command("show")
@click.argument("name")
@array_options
def show_node(settings: Settings, name: str) -> None:
    """Show one node.

    \b
    Example:
      ws7000 node show a
    See also: ws7000 node list, ws7000 engine methods
    """
    from cli import listing, objects

    listing.show_item(settings, "node", name, _items, objects.NODE_COLUMNS)
