"""What is written down can be read again; a torn line is left out; the files stay small."""

from __future__ import annotations

import io
from pathlib import Path

from ha import history


def test_events_come_back_in_their_order(tmp_path: Path) -> None:
    shown = io.StringIO()
    kept = history.History(tmp_path, "a", shown)
    kept.write("phase", "outside")
    kept.write("takeover", "has taken over", epoch=4)
    kept.close()
    entries = history.read(tmp_path)
    assert [(e["node"], e["event"], e["sentence"]) for e in entries] == [
        ("a", "phase", "outside"),
        ("a", "takeover", "has taken over"),
    ]
    assert entries[1]["epoch"] == 4
    assert [line.partition(" a ")[2] for line in shown.getvalue().splitlines()] == ["outside", "has taken over"]
    assert history.read(tmp_path, 1) == entries[1:]


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    kept = history.History(tmp_path, "a", None)
    kept.write("phase", "outside")
    kept.close()
    with (tmp_path / history.FILE).open("a", encoding="utf-8") as handle:
        handle.write('{"at": "2026-')
    assert len(history.read(tmp_path)) == 1


def test_the_file_is_turned_over_and_both_are_read(tmp_path: Path) -> None:
    kept = history.History(tmp_path, "a", None)
    for number in range(3):
        kept.write("phase", f"{number}", padding="x" * (history.MAX_BYTES // 2))
    kept.close()
    assert (tmp_path / history.OLDER_FILE).stat().st_size > history.MAX_BYTES
    assert [entry["sentence"] for entry in history.read(tmp_path)] == ["0", "1", "2"]
    assert (tmp_path / history.FILE).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    shown = io.StringIO()
    kept = history.History(tmp_path / "gone", "b", shown)
    kept.write("phase", "absent")
    kept.close()
    assert history.read(tmp_path / "gone") == []
    assert "absent" in shown.getvalue()


def test_a_sentence_whose_numbers_change_is_written_once_a_second() -> None:
    said = history.Said()
    written = [now for now in range(0, 3_000, 10) if said.news(f"waits {3_000 - now} ms for node b", now)]
    assert written == [0, 1_000, 2_000]
    assert said.news("asks node b", 2_001)
    assert not said.news("asks node b", 9_000)
    assert said.news("asks node c", 9_001), "what differs by more than numbers is written at once"


def test_numbers_that_changed_once_are_written_in_the_end() -> None:
    said = history.Said()
    assert said.news("leads epoch 1", 5_000)
    assert not said.news("leads epoch 2", 5_010)
    assert said.news("leads epoch 2", 6_000)
    assert not said.news("leads epoch 2", 7_000)
