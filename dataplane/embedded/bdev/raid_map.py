"""Where a block of a raid0 or concat set lies: pure arithmetic.

Why: a wrong division here is lost data, so it stands alone and is tested against a byte model.  This module
must never know a bdev.

Invariant: for every range the pieces cover it exactly once, in order, and each lies inside its leg.
Source: SPDK v26.05 module/bdev/raid/raid0.c, concat.c.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """``blocks`` blocks at ``lba`` of leg ``leg`` are those at ``at`` of the set's range (from its start)."""

    leg: int
    lba: int
    blocks: int
    at: int


@dataclass(frozen=True, slots=True)
class Striped:
    """raid0: strips of ``strip_blocks`` (a power of 2) dealt out to ``legs`` legs in turn."""

    legs: int
    strip_blocks: int
    leg_blocks: int

    @classmethod
    def over(cls, leg_sizes: list[int], strip_blocks: int) -> Striped:
        """The set over legs of these sizes: each gives as many whole strips as the smallest has."""
        return cls(len(leg_sizes), strip_blocks, min(leg_sizes) // strip_blocks * strip_blocks)

    @property
    def num_blocks(self) -> int:
        """Size of the set."""
        return self.legs * self.leg_blocks

    def leg_size(self, leg: int) -> int:  # noqa: ARG002 - concat's legs differ, these do not
        """Blocks of a leg that the set uses."""
        return self.leg_blocks

    def pieces(self, lba: int, blocks: int) -> list[Piece]:
        """The range cut at strip boundaries; whole when there is one leg."""
        if self.legs == 1:
            return [Piece(0, lba, blocks, 0)] if blocks else []
        found = []
        at = 0
        while at < blocks:
            strip, inside = divmod(lba + at, self.strip_blocks)
            part = min(blocks - at, self.strip_blocks - inside)
            row, leg = divmod(strip, self.legs)
            found.append(Piece(leg, row * self.strip_blocks + inside, part, at))
            at += part
        return found

    def spans(self, lba: int, blocks: int) -> list[Piece]:
        """One contiguous range per leg that is touched, for I/O without data (``at`` has no meaning)."""
        if not blocks:
            return []
        first, last = lba // self.strip_blocks, (lba + blocks - 1) // self.strip_blocks
        found = []
        for leg in range(self.legs):
            start_strip = first + (leg - first) % self.legs
            end_strip = last - (last - leg) % self.legs
            if start_strip > end_strip:
                continue
            begin = start_strip // self.legs * self.strip_blocks
            if start_strip == first:
                begin += lba % self.strip_blocks
            end = end_strip // self.legs * self.strip_blocks + self.strip_blocks - 1
            if end_strip == last:
                end += (lba + blocks - 1) % self.strip_blocks + 1 - self.strip_blocks
            found.append(Piece(leg, begin, end - begin + 1, 0))
        return found


@dataclass(frozen=True, slots=True)
class Concatenated:
    """concat: leg after leg; ``starts`` are the first blocks of the legs, and at its end the size.

    Strips only round the legs' sizes, and are what hosts are told to stay in.
    """

    starts: tuple[int, ...]
    strip_blocks: int = 0

    @classmethod
    def over(cls, leg_sizes: list[int], strip_blocks: int) -> Concatenated:
        """Legs of these sizes, each cut to whole strips."""
        starts = [0]
        for size in leg_sizes:
            starts.append(starts[-1] + size // strip_blocks * strip_blocks)
        return cls(tuple(starts), strip_blocks)

    @property
    def num_blocks(self) -> int:
        """Size of the set."""
        return self.starts[-1]

    def leg_size(self, leg: int) -> int:
        """Blocks of a leg that the set uses."""
        return self.starts[leg + 1] - self.starts[leg]

    def pieces(self, lba: int, blocks: int) -> list[Piece]:
        """The range cut at the ends of legs."""
        found = []
        at = 0
        leg = bisect_right(self.starts, lba) - 1
        while at < blocks:
            part = min(blocks - at, self.starts[leg + 1] - lba - at)
            if part:
                found.append(Piece(leg, lba + at - self.starts[leg], part, at))
            at += part
            leg += 1
        return found

    def spans(self, lba: int, blocks: int) -> list[Piece]:
        """As ``pieces``: a leg is touched in one range anyway."""
        return self.pieces(lba, blocks)
