"""``ws7000 ha qualify-drive``: is a drive fit for fencing, measured on the drive itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.options import Settings, output_options

if TYPE_CHECKING:
    from ha.qualify import Qualification


@click.command("qualify-drive")
@click.argument("drive")
@click.option("--engine-a", metavar="SOCKET", required=True, help="RPC socket of the engine that is evicted.")
@click.option("--engine-b", metavar="SOCKET", required=True, help="RPC socket of the engine that evicts it.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=20, show_default=True, help="Evictions.")
@click.option("--depth", type=click.IntRange(1, 128), default=16, show_default=True, help="Writes at once.")
@click.option("--consent", metavar="DRIVE", default="", help="Name the drive again where it holds data.")
@output_options
def qualify_drive(
    settings: Settings, drive: str, engine_a: str, engine_b: str, rounds: int, depth: int, consent: str
) -> None:
    """Measure whether a drive shuts an evicted node out for good.

    Both engines must have the drive attached under this name. One writes its last blocks while the other evicts it;
    what lay there is put back.

    \b
    Example:
      ws7000 ha qualify-drive d00 --engine-a a.sock --engine-b b.sock
      ws7000 ha qualify-drive d00 --engine-a a.sock --engine-b b.sock --rounds 200 -o json
    See also: ws7000 drive list, ws7000 explain HA-024
    """
    import asyncio

    from cli.output import Output
    from controlplane.domain.errors import Refused

    found = asyncio.run(_measured(drive, engine_a, engine_b, rounds, depth, consent=consent == drive))
    body = found.to_json()
    Output(settings).value("DriveQualification", body, [f"{name}: {value}" for name, value in body.items()])
    if found.problems:
        raise Refused(
            "HA-024", f"drive {drive} is not fit for fencing", why="; ".join(found.problems),
            remedy="do not use this model and firmware with high availability", where=drive,
        )  # fmt: skip


async def _measured(
    drive: str, engine_a: str, engine_b: str, rounds: int, depth: int, *, consent: bool
) -> Qualification:
    import secrets
    import time

    from dataplane.rpc.mux import Mux
    from ha.qualify import Qualifier

    victim = await Mux.connect(engine_a, node="a")
    try:
        survivor = await Mux.connect(engine_b, node="b")
        try:
            made = Qualifier(
                victim, survivor, drive, life=secrets.randbits(64), rounds=rounds, depth=depth,
                clock=lambda: time.monotonic_ns() // 1_000_000, precise=lambda: time.monotonic_ns() / 1e6,
            )  # fmt: skip
            return await made.run(consent=consent)
        finally:
            await survivor.close()
    finally:
        await victim.close()
