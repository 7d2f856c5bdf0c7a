"""``ws7000 schema``: the JSON Schema of array.yaml, for editors."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of array.yaml.

    Editors that speak YAML use it to complete keys and to mark mistakes while one types.

    \b
    Example:
      ws7000 schema > array.schema.json
    See also: ws7000 array validate
    """
    import json

    from cli.options import Settings
    from cli.output import Output
    from controlplane.spec.load import json_schema

    Output(Settings()).raw(json.dumps(json_schema(), indent=2))
