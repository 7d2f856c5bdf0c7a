"""``ws7000 array import``: what the drives say, shown, agreed to, and written.

Nothing is written before it was shown and agreed to: by ``--yes``, or by a person who types the array's name on a
terminal.  Evicting nodes from the drives needs the array's name on the command line in any case.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cli.access import load_array
from cli.options import Settings
from cli.output import Output, fields
from controlplane.domain.errors import Refused
from controlplane.reconcile.drive_reader import DriveReader, Look
from controlplane.reconcile.engines import engine_address
from controlplane.reconcile.importing import Found, judge, keep
from controlplane.spec.load import to_yaml
from controlplane.store.file import FileStore, write_durably
from dataplane.rpc.session import Session
from ha.keys import life_of, make_key
from ha.model import NODES

if TYPE_CHECKING:
    from controlplane.domain.desired import Array

_FILE: Final = "array.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was asked for on the command line."""

    node: str | None = None
    write: Path | None = None
    take_over: str | None = None
    yes: bool = False
    dry_run: bool = False


def import_array(settings: Settings, wish: Wish) -> None:
    """Read, judge, show, ask, write."""
    out = Output(settings)
    array = load_array(settings, out)
    node = array.node(wish.node) if wish.node else array.nodes[0]
    with Session(engine_address(node.rpc), node=node.name) as session:
        reader = DriveReader(session, array, node.name)
        reader.attach()
        looks = reader.look()
        held = sorted(name for name, look in looks.items() if look.conflict)
        if held and wish.take_over is not None and not wish.dry_run:
            _take_over(out, reader, array, node.name, wish.take_over, held)
            looks = reader.look()
    _say_unread(out, looks)
    found = judge(array, looks)
    path = wish.write or settings.state / _FILE
    _show(out, found, path)
    if wish.dry_run:
        return
    if path.exists():
        raise Refused(
            "STORE-010",
            f"{path} exists already",
            why="an import writes over nothing",
            remedy="name another file with --write",
        )
    if not wish.yes:
        _agreed(out, found.state.array.name)
    keep(found, FileStore(settings.state, [each.name for each in found.state.array.nodes]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, to_yaml(found.state.array).encode())
    out.say(f"array {found.state.array.name} is in {settings.state}; next: ws7000 array plan -f {path}")


def _take_over(out: Output, reader: DriveReader, array: Array, node: str, said: str, held: list[str]) -> None:
    if said != array.name:
        raise Refused(
            "STORE-011",
            f"--take-over names {said!r}, and the file is array {array.name!r}",
            why="the name is the word that all nodes of this very array are gone",
            remedy=f"if they are: --take-over {array.name}",
        )
    name = next(each for each in NODES if each == node)
    reader.take_over(held, make_key(array.name, name, life_of("import", os.urandom(16).hex())))
    out.say(
        f"took over {', '.join(held)}: every other node was evicted; the reservation stays held through node {node}"
    )


def _say_unread(out: Output, looks: Mapping[str, Look]) -> None:
    for name, look in sorted(looks.items()):
        if look.why and not look.conflict:
            out.say(f"warning: drive {name} could not be read: {look.why}")


def _show(out: Output, found: Found, path: Path) -> None:
    state, record = found.state, found.record
    volumes = sorted(state.volumes)
    body = {
        "name": state.array.name,
        "uuid": state.uuid,
        "generation": state.generation,
        "epoch": record.epoch,
        "sequence": record.sequence,
        "leader": record.leader,
        "on_a_majority": found.settled,
        "quorum_drives": list(found.quorum),
        "quorum_drives_read": list(found.read),
        "missing_drives": list(found.missing),
        "spare_drives": list(found.spare),
        "volumes": volumes,
        "file": str(path),
    }
    told = fields(
        [
            ("array", state.array.name),
            ("uuid", state.uuid),
            ("generation", str(state.generation)),
            ("record", f"epoch {record.epoch}, sequence {record.sequence}, by node {record.leader}"
             + ("" if found.settled else "; not seen on a majority, so its writer may not have finished")),
            ("quorum", f"{len(found.read)} of {len(found.quorum)} drives read: {', '.join(found.read)}"),
            ("drives", f"{len(state.drives)}" + (f", missing {', '.join(found.missing)}" if found.missing else "")),
            ("spare", ", ".join(found.spare)),
            ("volumes", f"{len(volumes)}: {', '.join(volumes)}" if volumes else "none"),
            ("hosts", str(len(state.array.hosts))),
        ]
    )  # fmt: skip
    out.value("Imported", body, told)


def _agreed(out: Output, name: str) -> None:
    if not out.for_people or not sys.stdin.isatty():
        raise Refused(
            "STORE-011", f"nobody agreed to import array {name}", why="there is no terminal to ask at",
            remedy="run it again with --yes",
        )  # fmt: skip
    typed = click.prompt(f"Type {name} to import it", err=True, default="", show_default=False)
    if typed != name:
        raise Refused(
            "STORE-011", f"not agreed: {typed!r} was typed, not {name!r}", why="nothing is imported by mistake",
            remedy=f"run it again and type {name}",
        )  # fmt: skip
