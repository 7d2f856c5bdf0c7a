"""The history of a node: what its HA manager said and did, one JSON line each, oldest first.

Why: after a takeover somebody asks what happened at which moment, and the answer must still be there.  The
history explains; nothing is ever decided from it.

Writing must never hold the agent up, not even when the system's own drive hangs: lines go to a thread over a queue
that drops and counts what does not fit.  Two files at most, each of a bounded size.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import queue
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

MAX_BYTES: Final = 4 << 20
MAX_WAITING: Final = 4096
CLOSE_S: Final = 2.0
EVERY_MS: Final = 1_000
_NUMBER: Final = re.compile(r"\d+")
FILE: Final = "history.jsonl"
OLDER_FILE: Final = "history.1.jsonl"


class History:
    """Append-only ``history.jsonl`` in ``folder``; at 4 MiB the file becomes ``history.1.jsonl``.  ``show`` gets each
    line for people too."""

    def __init__(self, folder: Path, node: str, show: TextIO | None = sys.stderr) -> None:
        self._path = folder / FILE
        self._node = node
        self._show = show
        self._waiting: queue.Queue[dict[str, object] | None] = queue.Queue(MAX_WAITING)
        self._left_out = 0
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def write(self, event: str, sentence: str, **more: object) -> None:
        """Note it down and return at once."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        entry = {"at": at, "node": self._node, "event": event, "sentence": sentence, **more}
        if self._left_out:
            entry["left_out_before"] = self._left_out
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._left_out += 1
        else:
            self._left_out = 0

    def close(self) -> None:
        """Write what waits, unless that takes too long."""
        with contextlib.suppress(queue.Full):  # the drive hangs, and with it what would be written
            self._waiting.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (entry := self._waiting.get()) is not None:
            line = json.dumps(entry) + "\n"
            with contextlib.suppress(OSError, ValueError):  # a full drive or a closed terminal ends nothing
                self._append(line.encode())
            if self._show is not None:
                with contextlib.suppress(OSError, ValueError):
                    print(f"{entry['at']} {self._node} {entry['sentence']}", file=self._show, flush=True)

    def _append(self, line: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, line)
            size = os.fstat(handle).st_size
        finally:
            os.close(handle)
        if size > MAX_BYTES:
            self._path.replace(self._path.with_name(OLDER_FILE))


class Said:
    """The sentence that was written last.  One that differs from it by its numbers alone may be a new one in each
    cycle, so it is written once in ``EVERY_MS``."""

    def __init__(self) -> None:
        self._sentence = ""
        self._at = 0

    def news(self, sentence: str, now: int) -> bool:
        """Whether it is to be written, which is then done."""
        if sentence == self._sentence:
            return False
        if _NUMBER.sub("", sentence) == _NUMBER.sub("", self._sentence) and now - self._at < EVERY_MS:
            return False
        self._sentence, self._at = sentence, now
        return True


def read(folder: Path, limit: int | None = None) -> list[dict[str, object]]:
    """The events, oldest first; of many the newest ``limit``.  A line torn by a crash is left out."""
    return list(deque(_entries(folder), limit))


def _entries(folder: Path) -> Iterator[dict[str, object]]:
    for path in (folder / OLDER_FILE, folder / FILE):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry
