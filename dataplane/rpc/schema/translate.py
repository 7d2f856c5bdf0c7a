"""Say the same thing to engines of different releases: parameters that got another name, with their values.

Why: the typed methods and whoever reads a saved configuration write one name, and engines of two releases may
serve one array while it is upgraded.  This module must never change what a call means: what a release cannot say
exactly stays as it is, and the schema refuses it by name.

Invariant: a call that a release understands as it stands is not touched, unless the release calls the parameter
deprecated.  Sources: SPDK v26.05 lib/nvmf/nvmf_rpc.c (rpc_nvmf_create_subsystem: how the KiB are converted),
module/event/subsystems/nvmf/nvmf_rpc.c (decode_discovery_filter); the schemas beside this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dataplane.rpc.jsontype import Json

MATCH_ANY: Final = "match_any"
FILTERS: Final = ("transport", "address", "svcid")
_U32_MAX: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Renamed:
    """``method`` has ``old`` in some releases and ``new`` in others.  ``forward`` and ``back`` convert a value, and
    give None for one that cannot be said under the other name; ``back`` is absent where nobody writes ``new``."""

    method: str
    old: str
    new: str
    forward: Callable[[Json], Json]
    back: Callable[[Json], Json] | None = None


def _discard_blocks(kib: Json) -> Json:
    """DMRSL counts blocks of 512 bytes."""
    return kib * 2 if _is_whole(kib) and kib * 2 <= _U32_MAX else None


def _zeroes_exponent(kib: Json) -> Json:
    """WZSL is a power of two of pages of 4 KiB, and 0 is no limit; other sizes are refused by 26.05 too."""
    if not _is_whole(kib):
        return None
    if kib == 0:
        return 0
    return kib.bit_length() - 3 if kib >= 8 and kib & (kib - 1) == 0 else None


def _filter_words(text: Json) -> Json:
    if not isinstance(text, str):
        return None
    words = [word for word in text.split(",") if word]
    if words == [MATCH_ANY]:
        return []
    return words if set(words) <= set(FILTERS) else None


def _filter_text(words: Json) -> Json:
    if not isinstance(words, list) or not all(word in FILTERS for word in words):
        return None
    return ",".join(words) or MATCH_ANY


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


RENAMED: Final = (
    Renamed("nvmf_create_subsystem", "max_discard_size_kib", "dmrsl", _discard_blocks),
    Renamed("nvmf_create_subsystem", "max_write_zeroes_size_kib", "wzsl", _zeroes_exponent),
    Renamed("nvmf_set_config", "discovery_filter", "discovery_filters", _filter_words, _filter_text),
)


def translated(
    method: str, params: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]] | None
) -> dict[str, Any]:
    """``params`` as the release with these ``fields`` of the method says them; a copy."""
    said = dict(params)
    for entry in RENAMED:
        if entry.method != method or not fields:
            continue
        if entry.new in fields and (entry.old not in fields or fields[entry.old].get("deprecated")):
            _rename(said, entry.old, entry.new, entry.forward)
        elif entry.new not in fields and entry.back is not None:
            _rename(said, entry.new, entry.old, entry.back)
    return said


def _rename(said: dict[str, Any], name: str, other: str, convert: Callable[[Json], Json]) -> None:
    """Both names in one call contradict each other or repeat each other: the engine has to say which."""
    if name not in said or other in said:
        return
    value = convert(said[name])
    if value is not None:
        del said[name]
        said[other] = value
