"""The live view of ``ws7000 ha top``: the sentences of the status, made anew until somebody has seen enough.

It asks agents only, so it costs the data plane nothing.  Ends on ``q``, Ctrl-C, or when the terminal goes.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.output import Output, harmless, painted

QUIT = "q"


def show(out: Output, lines: Callable[[], Sequence[str]], *, every_s: float, once: bool) -> None:
    """Show ``lines()`` again and again, or once."""
    if once or not sys.stdout.isatty():
        out.text("\n".join(lines()))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_page(lines()), refresh=True)
            if QUIT in pressed(every_s):
                return


def _page(lines: Sequence[str]) -> Group:
    return Group(*(painted(harmless(line)) for line in lines), Text(""), Text("q ends it", style="dim"))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that waits for a key, at most so long; the terminal is as before afterwards."""
    if not sys.stdin.isatty():

        def rest(seconds: float) -> str:
            select.select([], [], [], seconds)
            return ""

        yield rest
        return
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([handle], [], [], seconds)
        return os.read(handle, 64).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(handle)
        yield pressed
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
