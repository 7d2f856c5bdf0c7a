"""The start-up configuration: a JSON file of method calls, in SPDK's own format.

Why: what ``save_config`` of SPDK writes, and what our renderer writes for SPDK, must start this engine too.  This
module must never call a method twice: those allowed in both states are called in STARTUP.

Source: SPDK v26.05 lib/init/json_config.c.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from controlplane.domain.errors import EngineError, UsageError
from dataplane.embedded.rpc import dispatch
from dataplane.embedded.rpc.jsontext import JsonSyntaxError, Reader
from dataplane.embedded.rpc.registry import METHODS, RUNTIME, STARTUP, RpcFault

if TYPE_CHECKING:
    from dataplane.embedded.engine import Engine

SERVED: Final = frozenset({"scheduler", "sock", "iobuf", "keyring", "bdev", "nvmf"})
"""Subsystems that this engine has; unknown methods of others are skipped, as in SPDK."""


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """One call of the file."""

    subsystem: str
    method: str
    params: object


def _bad(path: str, why: str) -> UsageError:
    return UsageError(
        "ENG-003",
        f"the configuration {path} cannot be used",
        why=why,
        remedy='give a file of the form {"subsystems": [{"subsystem": "bdev", "config": [...]}]}',
        where=path,
    )


def load(path: str) -> list[ConfigEntry]:
    """Read the file; raises ``UsageError`` ENG-003.  A batch (a list inside ``config``) is taken apart."""
    reader = Reader(comments=True)
    try:
        with open(path, "rb") as file:
            reader.feed(file.read() + b"\n")
        found = reader.next()
    except OSError as error:
        raise _bad(path, os.strerror(error.errno or 0)) from error
    except JsonSyntaxError as error:
        raise _bad(path, f"it is no JSON: {error}") from error
    if found is None:
        raise _bad(path, "it is empty or ends in the middle")
    value = found[0]
    subsystems = value.get("subsystems") if isinstance(value, dict) else None
    if not isinstance(subsystems, list):
        raise _bad(path, 'it has no list "subsystems"')
    entries: list[ConfigEntry] = []
    for item in subsystems:
        entries += _subsystem(path, item)
    return entries


def _subsystem(path: str, item: object) -> list[ConfigEntry]:
    if not isinstance(item, dict) or item.keys() != {"subsystem", "config"}:
        raise _bad(path, 'an entry of "subsystems" needs "subsystem" and "config", and nothing else')
    name, config = item["subsystem"], item["config"]
    if not isinstance(name, str) or not isinstance(config, list | None):
        raise _bad(path, '"subsystem" has to be a name and "config" a list or null')
    entries = []
    for call in config or []:
        for single in call if isinstance(call, list) else [call]:
            if not isinstance(single, dict) or single.keys() - {"method", "params"}:
                raise _bad(path, f'a call of "{name}" has something else than "method" and "params"')
            method = single.get("method")
            if not isinstance(method, str) or not isinstance(single.get("params", {}), dict):
                raise _bad(path, f'a call of "{name}" needs a name as "method" and an object as "params"')
            entries.append(ConfigEntry(name, method, single.get("params")))
    return entries


async def apply(engine: Engine, entries: list[ConfigEntry], *, ignore_errors: bool) -> None:
    """Make the calls of the present state, in order; raises ``EngineError`` ENG-004 at the first that fails."""
    for entry in entries:
        found = METHODS.get(entry.method)
        if found is None:
            if entry.subsystem in SERVED and not ignore_errors:
                raise _failed(entry, "this engine has no such method")
            continue
        if not found.states & engine.state or (engine.state == RUNTIME and found.states & STARTUP):
            continue
        try:
            await dispatch.call(engine, entry.method, entry.params)
        except RpcFault as error:
            if not ignore_errors:
                raise _failed(entry, f"it was answered with {error.code}: {error.message}") from error


def _failed(entry: ConfigEntry, why: str) -> EngineError:
    return EngineError(
        "ENG-004",
        f"the call {entry.method} of the start-up configuration failed",
        why=why,
        remedy="correct or remove that call, or start with --json-ignore-init-errors",
        details={"method": entry.method, "subsystem": entry.subsystem},
    )
