"""SPDK's JSON-RPC methods as the embedded engine answers them: one module per family, one table for all."""

from __future__ import annotations

import importlib
import pkgutil


def import_methods() -> None:
    """Import every module of this package, so that each registers its methods."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
