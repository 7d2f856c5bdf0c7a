"""Quantities: exact, with units, never guessed."""

from __future__ import annotations

import pytest

from controlplane.domain.units import UnitError, parse_rate, parse_size, show_rate, show_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("4096B", 4096), ("1.5GiB", 1610612736), ("7.68TB", 7_680_000_000_000), ("2 TiB", 2 * 1024**4), ("3kB", 3000)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["2T", "2", "2tib", "GiB", "-1GiB", "1.3B", "1KB", ""])
def test_unclear_sizes_are_refused(text: str) -> None:
    with pytest.raises(UnitError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("500MiB/s", 500 * 1024**2), ("200Gbit/s", 25_000_000_000), ("1kB/s", 1000)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["500MiB", "500M/s", "1bit/s", "200Gb/s"])
def test_unclear_rates_are_refused(text: str) -> None:
    with pytest.raises(UnitError):
        parse_rate(text)


def test_shown_in_iec_units() -> None:
    assert (show_size(0), show_size(1536), show_rate(1024**2)) == ("0B", "1.5KiB", "1MiB/s")
