"""Pages of the PLAN codes."""

from __future__ import annotations

from typing import Final

from controlplane.domain.codes.page import Page

PAGES: Final[tuple[Page, ...]] = ()
