"""``ws7000 version``: what is installed here."""

from __future__ import annotations

import click

from cli.options import Settings, output_options


@click.command()
@output_options
def version(settings: Settings) -> None:
    """Print the version, of this software and of what a report should name.

    \b
    Example:
      ws7000 version
      ws7000 version -o json
    See also: ws7000 node list (the engines' versions)
    """
    import platform
    from importlib.metadata import version as version_of

    from cli.output import Output, fields
    from dataplane.embedded.rpc.framework import version as engine_version

    body = {
        "name": "ws7000",
        "version": version_of("ws7000"),
        "embedded_engine": engine_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }
    told = [("ws7000", body["version"]), ("embedded engine", body["embedded_engine"])]
    told += [("python", body["python"]), ("system", body["system"])]
    Output(settings).value("Version", body, fields(told))
