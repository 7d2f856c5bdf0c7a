"""``./run sim [SEEDS]``: many seeds over all cores, or one of them with its trace.

A seed that fails is printed as the one command that shows it again.  Status 1 when any failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ha.sim.mutants import MUTANTS, Mutant
from ha.sim.world import Verdict, World

SHOWN: Final = 10
"""How many failing seeds are named one by one."""


def verdict(seed: int, mutant: str = "") -> Verdict:
    """One seed, with the product as it is or with a mutant in it."""
    return World(seed, MUTANTS[mutant]() if mutant else Mutant()).run()


def _brief(job: tuple[int, str]) -> tuple[int, tuple[str, ...], int, int]:
    found = verdict(*job)
    return found.seed, tuple(str(each) for each in found.broken), found.events, found.accesses


def command(seed: int, mutant: str = "") -> str:
    """What to type to see that seed again."""
    return f"./run sim --seed {seed}" + (f" --mutant {mutant!r}" if mutant else "")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def show(seed: int, mutant: str) -> int:
    """One seed with everything that was said."""
    found = verdict(seed, mutant)
    for line in found.trace:
        _say(line)
    _say(f"seed {seed}: {found.events} events, {found.accesses} accesses, trace {found.trace_hash[:16]}")
    for broken in found.broken:
        _say(str(broken))
    return 1 if found.broken else 0


def many(seeds: Iterator[int], mutant: str, jobs: int) -> int:
    """All of them; how many failed."""
    failed = events = accesses = count = 0
    with multiprocessing.Pool(jobs) as pool:
        for seed, broken, more, done in pool.imap_unordered(_brief, ((seed, mutant) for seed in seeds), chunksize=4):
            count, events, accesses = count + 1, events + more, accesses + done
            if broken:
                failed += 1
                if failed <= SHOWN:
                    _say(f"{command(seed, mutant)}\n  " + "\n  ".join(broken))
    _say(f"{count} seeds, {failed} failed; {events} events, {accesses} accesses of hosts")
    return failed


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./run sim", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seeds", nargs="?", type=int, default=400, help="how many (about two minutes for the default)")
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--start", type=int, default=1, help="the first of many")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="with this mistake in it")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--corpus", type=Path, help="the seeds of this file instead, one a line")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        return show(chosen.seed, chosen.mutant)
    seeds = iter(range(chosen.start, chosen.start + chosen.seeds))
    if chosen.corpus is not None:
        seeds = iter(corpus(chosen.corpus))
    return 1 if many(seeds, chosen.mutant, chosen.jobs) else 0


def corpus(path: Path) -> list[int]:
    """The seeds in a file: one a line, with what they found after a ``#``."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [int(line) for line in lines if line]


if __name__ == "__main__":
    sys.exit(main())
