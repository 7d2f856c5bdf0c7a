"""``ws7000 host``: lists and shows hosts from the stored state and a fresh look; changes nothing."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def host() -> None:
    """The hosts, and what each may see.

    \b
    Example:
      ws7000 host list
      ws7000 host show gpu1
    See also: ws7000 volume list, ws7000 subsystem list
    """


@host.command("list")
@array_options
def list_hosts(settings: Settings) -> None:
    """List the hosts.

    A host sees exactly the volumes that name it in array.yaml.

    \b
    Example:
      ws7000 host list
      ws7000 host list -o wide
      ws7000 host list -o json
    See also: ws7000 host show, ws7000 volume list, ws7000 subsystem list
    """
    from cli import listing, objects

    listing.list_items(settings, "host", objects.hosts, objects.HOST_COLUMNS)


@host.command("show")
@click.argument("name")
@array_options
def show_host(settings: Settings, name: str) -> None:
    """Show one host.

    \b
    Example:
      ws7000 host show gpu1
      ws7000 host show gpu1 -o json
    See also: ws7000 host list
    """
    from cli import listing, objects

    listing.show_item(settings, "host", name, objects.hosts, objects.HOST_COLUMNS)
