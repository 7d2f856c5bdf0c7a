"""The conversation with the guest's init: scripts go in, their statuses and outputs come back.

Why its own framing: a console mixes kernel messages, echoes and prompts into what a command says.  Here both
directions are lines, and everything a command writes travels as base64, which can never look like a frame.  The
grammar stands at the head of ``init.sh``.  This module is pure: bytes in, values out.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ready:
    """The guest has booted; ``kernel`` is what ``uname -r`` says there."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One script has ended; ``status`` is None where it was killed for lateness."""

    number: int
    status: int | None
    out: str
    err: str


def encode_script(number: int, timeout_s: float, script: str) -> bytes:
    """The line that makes the guest run ``script`` with ``sh`` and kill it after ``timeout_s`` seconds."""
    text = base64.b64encode(script.encode()).decode()
    return f"{number} {max(1, round(timeout_s))} {text}\n".encode()


class FrameError(ValueError):
    """The guest sent a line that the grammar does not have in this place."""


@dataclass(slots=True)
class Reader:
    """Takes bytes as they come, in any pieces; gives the messages that are complete."""

    _rest: bytes = b""
    _out: list[str] = field(default_factory=list)
    _err: list[str] | None = None
    _number: int | None = None

    def feed(self, data: bytes) -> list[Ready | Answer]:
        """Messages that ``data`` completes; raises ``FrameError``."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = (self._line(line.decode("ascii", "replace")) for line in lines)
        return [message for message in messages if message is not None]

    def _line(self, line: str) -> Ready | Answer | None:
        match line.split(" "):
            case ["ready", kernel]:
                return Ready(kernel)
            case ["begin", number]:
                self._number, self._out, self._err = int(number), [], None
            case [":err"] if self._number is not None:
                self._err = []
            case [":end", number, status] if self._err is not None and int(number) == self._number:
                answer = Answer(
                    int(number), None if status == "late" else int(status), _text(self._out), _text(self._err)
                )
                self._number, self._err = None, None
                return answer
            case [text] if self._number is not None:
                (self._out if self._err is None else self._err).append(text)
            case _:
                raise FrameError(line)
        return None


def _text(lines: list[str]) -> str:
    return base64.b64decode("".join(lines)).decode("utf-8", "replace")
