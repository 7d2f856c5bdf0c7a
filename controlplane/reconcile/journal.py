"""The journal of intents: what was about to be done, and what came of it.

One JSON line per event, synced before the step runs, so that after a crash one can read where it happened.  The
journal explains; it never decides: the next plan is made from what the engines show.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 4 << 20


class Journal:
    """Append-only ``journal.jsonl``; at 4 MiB the file becomes ``journal.1.jsonl`` and a new one begins."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"

    def write(self, event: str, entries: list[dict[str, object]]) -> None:
        """Append one line per entry and sync once."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_BYTES:
            self.path.replace(self.path.with_name("journal.1.jsonl"))
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        text = "".join(json.dumps({"at": at, "event": event, **entry}) + "\n" for entry in entries)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, text.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> Iterator[dict[str, object]]:
        """All events, oldest first; a line torn by a crash is left out."""
        for path in (self.path.with_name("journal.1.jsonl"), self.path):
            if not path.exists():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                yield entry
