"""One explained error code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``title`` is one line; ``explanation`` tells why the product says no; ``remedy`` what to do, with an
    example where one helps."""

    code: str
    title: str
    explanation: str
    remedy: str
