"""``ws7000 engine``: runs the embedded engine, and asks any engine for its methods."""

from __future__ import annotations

import click

from cli.options import Settings, output_options

DEFAULT_SOCKET = "/var/tmp/spdk.sock"  # noqa: S108 - SPDK's own default, for its tools to find the engine


@click.group(invoke_without_command=True)
@click.option("-r", "--rpc-socket", metavar="SOCKET", default=DEFAULT_SOCKET, show_default=True, help="RPC socket.")
@click.option("--wait-for-rpc", is_flag=True, help="Wait for framework_start_init before starting up.")
@click.option("-c", "--config", metavar="FILE", type=click.Path(), help="Start-up configuration (SPDK's JSON).")
@click.option("--json-ignore-init-errors", is_flag=True, help="Go on after a call of the configuration failed.")
@click.pass_context
def engine(
    context: click.Context, rpc_socket: str, wait_for_rpc: bool, config: str | None, json_ignore_init_errors: bool
) -> int:
    """Run the embedded engine, until a signal.

    It serves NVMe/TCP behind SPDK's JSON-RPC methods, needs no installation, and is meant for trying out and for
    tests.  In production the engine is SPDK's nvmf_tgt.

    \b
    Example:
      ws7000 engine -r /run/ws7000/a.sock
      ws7000 engine -r /run/ws7000/a.sock -c engine.json
      ws7000 engine methods -r /run/ws7000/a.sock
    See also: ws7000 node list, ws7000 shelf serve
    """
    if context.invoked_subcommand is not None:
        return 0
    from dataplane.embedded.engine import run

    return run(rpc_socket, wait_for_rpc=wait_for_rpc, config_path=config, ignore_config_errors=json_ignore_init_errors)


@engine.command()
@click.option("-r", "--rpc-socket", metavar="SOCKET", help="RPC socket, or host:port.")
@output_options
@click.pass_context
def methods(context: click.Context, settings: Settings, rpc_socket: str | None) -> None:
    """List the methods that an engine offers, of either kind.

    \b
    Example:
      ws7000 engine methods -r /run/ws7000/a.sock
      ws7000 engine methods -r 127.0.0.1:5260 -o json
    See also: ws7000 engine, ws7000 node list
    """
    from cli.output import Column, Output
    from controlplane.reconcile.engines import engine_address
    from dataplane.rpc.methods import framework
    from dataplane.rpc.session import Session

    chosen = rpc_socket or (context.parent.params["rpc_socket"] if context.parent else DEFAULT_SOCKET)
    out = Output(settings)
    with Session(engine_address(chosen)) as session:
        found = session.run(framework.get_methods())
        version = session.run(framework.get_version())
    out.say(f"{version.text}: {len(found)} methods")
    columns = (Column(title="METHOD", show=lambda item: str(item["name"])),)
    out.items("method", [{"name": name} for name in sorted(found)], columns)
