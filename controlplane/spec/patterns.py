"""Patterns such as ``d{00..23}``: one line for twenty-four alike.

One range a text, decimal, with the width of its first number kept (``{00..23}`` gives 00, 01, ...).  A text
without braces stands for itself.
"""

from __future__ import annotations

import re
from typing import Final

MOST: Final = 1024
_RANGE: Final = re.compile(r"([^{}]*)\{([0-9]{1,4})\.\.([0-9]{1,4})\}([^{}]*)")


class PatternError(ValueError):
    """The braces of a text are no pattern; the message says why."""


def expand(text: str) -> list[str]:
    """The texts that a pattern stands for, in order."""
    if "{" not in text and "}" not in text:
        return [text]
    found = _RANGE.fullmatch(text)
    if not found:
        raise PatternError("a pattern has one range in braces, as in d{00..23}")
    before, first, last, after = found.groups()
    if int(first) > int(last):
        raise PatternError(f"the range runs from {first} down to {last}; ranges run upwards")
    if int(last) - int(first) >= MOST:
        raise PatternError(f"a pattern stands for at most {MOST} texts")
    return [f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]
