"""Sizes, rates and counts: what people type and what we show.

Inside, every quantity is an integer with its unit in the name (``size_bytes``).  People type a number with
a unit; a bare ``2T`` is refused, because half of the world reads it as 2,000,000,000,000 and the other half
as 2,199,023,255,552.  This module must never guess.
"""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3
TIB: Final = 1024**4

_BINARY: Final = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB, "PiB": 1024**5}
_DECIMAL: Final = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_BITS: Final = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12}
_NUMBER: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+(?:/s)?)?\s*$")


class UnitError(ValueError):
    """The text is not a quantity of the wanted kind; the message says what would be."""


def _split(text: str, example: str) -> tuple[str, str]:
    found = _NUMBER.match(text)
    if not found:
        raise UnitError(f"{text!r} is not a number with a unit; write it like {example}")
    return found.group(1), found.group(2) or ""


def _scale(text: str, number: str, factor: int) -> int:
    whole, _, fraction = number.partition(".")
    scaled = int(whole + fraction) * factor
    divisor: int = 10 ** len(fraction)
    if scaled % divisor:
        raise UnitError(f"{text!r} is not a whole number of bytes")
    return scaled // divisor


def parse_size(text: str) -> int:
    """Bytes of a size such as ``2TiB`` or ``7.68TB``; raises ``UnitError`` for a missing or unclear unit."""
    number, unit = _split(text, "2TiB or 512MiB")
    factor = _BINARY.get(unit) or _DECIMAL.get(unit)
    if factor is None:
        known = ", ".join([*_BINARY, *_DECIMAL])
        said = f"has the unclear unit {unit!r}" if unit else "has no unit"
        raise UnitError(f"{text!r} {said}; use one of {known}")
    return _scale(text, number, factor)


def parse_rate(text: str) -> int:
    """Bytes per second of a rate such as ``500MiB/s`` or ``200Gbit/s``."""
    number, unit = _split(text, "500MiB/s or 200Gbit/s")
    base = unit.removesuffix("/s")
    if not unit.endswith("/s"):
        raise UnitError(f"{text!r} is not a rate; write the time too, as in {number}MiB/s")
    if base in _BITS:
        bits = _scale(text, number, _BITS[base])
        if bits % 8:
            raise UnitError(f"{text!r} is not a whole number of bytes per second")
        return bits // 8
    factor = _BINARY.get(base) or _DECIMAL.get(base)
    if factor is None:
        raise UnitError(f"{text!r} has the unclear unit {unit!r}; use MiB/s, GB/s or Gbit/s")
    return _scale(text, number, factor)


def show_size(size_bytes: int) -> str:
    """The size for people, in IEC units, exact where one decimal is enough: ``1.5GiB``."""
    for unit, factor in reversed(_BINARY.items()):
        if size_bytes >= factor:
            value = size_bytes / factor
            text = f"{value:.2f}".rstrip("0").rstrip(".")
            return f"{text}{unit}"
    return "0B"


def show_rate(rate_bytes_per_s: int) -> str:
    """The rate for people: ``500MiB/s``."""
    return f"{show_size(rate_bytes_per_s)}/s"
