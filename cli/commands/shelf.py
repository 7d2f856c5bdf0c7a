"""``ws7000 shelf``: files as NVMe drives, so that an array can be tried without any."""

from __future__ import annotations

import click

from cli.options import Settings, array_options


@click.group()
def shelf() -> None:
    """Let an engine serve files as drives, for trying out.

    \b
    Example:
      ws7000 engine -r run/shelf.sock &
      ws7000 shelf serve -r run/shelf.sock -f examples/laptop.yaml
    See also: ws7000 engine, ws7000 array apply
    """


@shelf.command()
@click.option("-r", "--rpc-socket", metavar="SOCKET", required=True, help="RPC socket of a fresh engine.")
@array_options
def serve(settings: Settings, rpc_socket: str) -> None:
    """Export every drive of array.yaml that is a file as an NVMe drive.

    Missing files are made, sparse; a file of another size than written is refused.  The engine has to be another
    one than the nodes', and fresh.

    \b
    Example:
      ws7000 shelf serve -r run/shelf.sock -f examples/laptop.yaml
    See also: ws7000 engine, ws7000 drive list
    """
    from cli.access import load_array
    from cli.output import Output
    from controlplane.domain.errors import NotFound
    from controlplane.reconcile import shelf as shelves
    from controlplane.reconcile.engines import engine_address
    from dataplane.rpc.session import Session

    out = Output(settings)
    array = load_array(settings, out)
    drives = shelves.file_drives(array)
    if array.shelf is None or not drives:
        raise NotFound(
            "CLI-008",
            f"array {array.name} has no drives that are files",
            why="a shelf serves files; other drives are there already",
            remedy="see examples/laptop.yaml for an array of files",
        )
    shelves.prepare_files(array)
    with Session(engine_address(rpc_socket)) as session:
        shelves.serve(array, session)
    where = f"{array.shelf.address}:{array.shelf.service}"
    body = {"name": array.name, "address": array.shelf.address, "service": array.shelf.service, "drives": len(drives)}
    out.value("Shelf", body, [f"{len(drives)} file drives of array {array.name} are served at {where}"])
