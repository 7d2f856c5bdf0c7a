"""Spin searches the model of the takeover protocol: the rules hold in every run, and a broken one is found.

A search counts only when it was complete: one that ran out of memory or depth fails here, for it has shown nothing.  A
mutant that is not caught fails too: then the model would not notice that rule's absence in the design either.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[2] / "ha/spec/ha.pml"
PAN = ("-w", "-DNOREDUCE", "-DHC4", "-DMEMLIM=1900")
INCOMPLETE = ("Search not completed", "max search depth too small", "out of memory", "reached -DMEMLIM")
LIMIT_S = 900  # ends a search that hangs; a busy machine takes many times the seconds that the README gives

pytestmark = pytest.mark.timeout(LIMIT_S + 60)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may happen in a run; ``time`` is whether the leases keep their promise."""

    time: bool = False
    faults: int = 1
    moves: int = 1
    versions: int = 2

    def defines(self) -> list[str]:
        return [
            f"-DTIME={int(self.time)}",
            f"-DFAULTS={self.faults}",
            f"-DMOVES={self.moves}",
            f"-DVERSIONS={self.versions}",
        ]


@dataclass(frozen=True)
class Searched:
    """What pan reported."""

    text: str

    def number(self, pattern: str) -> int:
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found, self.text
        return int(found[1])

    @property
    def errors(self) -> int:
        return self.number(r"errors: (\d+)$")

    @property
    def states(self) -> int:
        return self.number(r"^\s*(\d+) states, stored")

    @property
    def complete(self) -> bool:
        return not any(sign in self.text for sign in INCOMPLETE)

    @property
    def broken(self) -> str:
        """What the error is, as pan names it."""
        found = re.search(r"^pan:\d+: (.*)$", self.text, re.MULTILINE)
        assert found, self.text
        return found[1]

    def unreached(self, process: str) -> list[str]:
        """The statements of a process that no run executed, but for its end, which it does not have."""
        part = re.search(rf"^unreached in proctype {process}\n((?:\t.*\n)*)", self.text, re.MULTILINE)
        assert part, self.text
        return [line for line in part[1].splitlines() if " state " in line and "-end-" not in line]


@pytest.fixture(scope="session")
def compiler() -> str:
    """A C compiler; both it and Spin have to be there."""
    if shutil.which("spin") is None:
        pytest.skip("spin is not installed: nothing else can search the model (Debian package spin)")
    found = shutil.which("gcc")
    if found is None:
        pytest.skip(
            "gcc is not installed: Spin reads the model through it, and the search is a C program (package gcc)"
        )
    return found


def search(compiler: str, folder: Path, claim: str, bounds: Bounds, mutant: str = "") -> Searched:
    """Let Spin make the search for ``claim``, and run it to its end or its first error."""
    mutation = [f"-D{mutant}"] if mutant else []
    run(["spin", "-a", *bounds.defines(), *mutation, str(MODEL)], folder)
    lively = claim == "l1"
    # A mutant's search is short, and its compilation would cost more than it saves.
    flags = ["-O0" if mutant else "-O2", "-DNOFAIR" if lively else "-DSAFETY"]
    run([compiler, *PAN, *flags, "-o", "pan", "pan.c"], folder)
    return Searched(run(["./pan", "-m100000", *(["-a"] if lively else []), "-N", claim], folder))


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


NO_TIME = Bounds(faults=2, moves=0)
MOVED = Bounds(faults=1, moves=2)
LEASES = Bounds(time=True, faults=1, moves=2)


@pytest.mark.parametrize("bounds", [NO_TIME, MOVED, LEASES], ids=["two faults", "two moves", "leases kept"])
def test_safe_whatever_the_time_of_anything(compiler: str, tmp_path: Path, bounds: Bounds) -> None:
    """I1, I3 to I7, without a promise of time; with it also I8."""
    found = search(compiler, tmp_path, "safe", bounds)
    assert found.complete, found.text
    assert found.errors == 0, found.text
    assert found.states > 100_000
    for process in ("Drive", "Block", "Host"):
        assert found.unreached(process) == []


@pytest.mark.parametrize(
    "bounds", [Bounds(time=True, faults=2, moves=0), LEASES], ids=["two faults", "two moves and a fault"]
)
def test_served_in_the_end_where_anybody_can(compiler: str, tmp_path: Path, bounds: Bounds) -> None:
    """L1, with leases that keep their promise."""
    found = search(compiler, tmp_path, "l1", bounds)
    assert found.complete, found.text
    assert found.errors == 0, found.text


MUTANTS = {
    "M_NO_ABORT": (Bounds(), "data>=acked"),
    "M_NO_DRAIN": (Bounds(), "data>=acked"),
    "M_RAISE_FIRST": (Bounds(), "raised"),
    "M_WRITE_EXCLUSIVE": (Bounds(), "raised"),
    "M_IGNORE_RECORD": (Bounds(), "raised"),
    "M_NO_CONSENT": (Bounds(), "consent"),
    "M_MINORITY": (Bounds(faults=2, versions=0), "raised"),
    "M_OLD_KEY": (Bounds(), "data>=acked"),
    "M_RAISE_AGAIN": (Bounds(moves=2), "raised"),
    "M_STALE_RELEASE": (Bounds(moves=2), "raised"),
    "M_NO_CONFIRM": (Bounds(faults=2, versions=0), "raised"),
    "M_READ_MAJORITY": (Bounds(faults=3, moves=0, versions=0), "newest==acted"),
}
"""What is broken -> the bounds in which it shows, and what the first violated property speaks of."""


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_found_out(compiler: str, tmp_path: Path, mutant: str) -> None:
    bounds, about = MUTANTS[mutant]
    found = search(compiler, tmp_path, "safe", bounds, mutant)
    assert found.errors == 1, f"{mutant} was not caught: {found.text}"
    assert about in found.broken


def test_every_mutant_of_the_model_is_listed() -> None:
    assert set(re.findall(r"\bM_[A-Z_]+\b", MODEL.read_text(encoding="utf-8"))) == set(MUTANTS)
