"""Calculations that would hold up the event loop, one at a time in a thread of their own.

Why: a Diffie-Hellman calculation takes up to a tenth of a second, in which no host must wait for its I/O; and the
threads that synchronise files must not wait for it either, so the thread is not one of asyncio's.  One is enough:
more would only take the processor from the loop.  This module must never know what it calculates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Result = TypeVar("Result")

_WORKER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="calculate")


async def calculate(function: Callable[[], Result]) -> Result:
    """The result of ``function``, or its exception; a caller that is cancelled leaves the calculation to end."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, function)
