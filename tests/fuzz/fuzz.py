"""Runs every fuzz target for a while, one line for each: ``./run fuzz [SECONDS]``.

With atheris (the extra ``fuzz``) the fuzzer is guided by coverage; without it hypothesis changes the corpus, and
the first line says so.  A finding is kept in ``.fuzz/`` and ends the run with status 1.  Copy it to
``tests/fuzz/corpus/TARGET/found-NAME`` and every later test run replays it.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
FOUND: Final = ROOT / ".fuzz"
MAX_INPUT_BYTES: Final = 16384
_STATUS: Final = re.compile(r"^#(\d+)\s+\S+.*?\bcov: (\d+) ft: (\d+)", re.MULTILINE)
_EXECUTED: Final = re.compile(r"^Done (\d+) runs", re.MULTILINE)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def guided(name: str, seconds: int) -> None:
    """In a process of its own: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["controlplane", "dataplane", "ha"], enable_loader_override=False):
        from fuzz_targets import TARGETS
    work = FOUND / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", "-rss_limit_mb=2048", "-timeout=20",
        f"-artifact_prefix={FOUND}/{name}-", str(work), str(HERE / "corpus" / name),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


def unguided(name: str, seconds: int, seed: int) -> tuple[int, str]:
    """Executions, and the trace of what was found."""
    from fuzz_targets import TARGETS
    from test_corpus import mutated

    rng = random.Random(seed)
    inputs = [path.read_bytes() for path in sorted((HERE / "corpus" / name).iterdir())]
    end, count, data = time.monotonic() + seconds, 0, b""
    try:
        while time.monotonic() < end:
            for _ in range(64):
                data = mutated(rng.choice(inputs), rng)
                TARGETS[name](data)
                count += 1
    except Exception:  # noqa: BLE001 - a fuzzer reports whatever a target raises
        FOUND.mkdir(exist_ok=True)
        (FOUND / f"{name}-seed-{seed}").write_bytes(data)
        return count, traceback.format_exc()
    return count, ""


def run_guided(name: str, seconds: int) -> tuple[int, int, str]:
    """Executions, coverage features, and the trace of what was found."""
    command = [sys.executable, str(Path(__file__)), "--target", name, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    output = done.stderr + done.stdout
    statuses = _STATUS.findall(output)
    executed = _EXECUTED.search(output)
    count = int(executed.group(1)) if executed else int(statuses[-1][0]) if statuses else 0
    return count, int(statuses[-1][2]) if statuses else 0, "" if not done.returncode else output[-4000:]


def live(arguments: list[str]) -> int:
    """The fuzzer of sockets; 1 when it found something."""
    from live import main as live_main

    return live_main(arguments)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=int, default=120, help="for all targets together")
    parser.add_argument("--target", help="one target, in this process")
    parser.add_argument("--live", type=int, metavar="SEED", help="only that round of the fuzzer of sockets")
    parser.add_argument("--seed", type=int, default=int.from_bytes(random.randbytes(4), "big"))
    chosen = parser.parse_args()
    if chosen.target:
        guided(chosen.target, chosen.seconds)
        return 0
    if chosen.live is not None:
        return live(["--seed", str(chosen.live), "--rounds", "1"])
    from fuzz_targets import TARGETS

    with_atheris = importlib.util.find_spec("atheris") is not None
    if not with_atheris:
        say(f"atheris is not installed: the corpus is changed at random, seed {chosen.seed}")
    share = max(1, chosen.seconds // (len(TARGETS) + 1))
    failed = 0
    for name in TARGETS:
        if with_atheris:
            count, features, trace = run_guided(name, share)
        else:
            (count, trace), features = unguided(name, share, chosen.seed), 0
        failed += bool(trace)
        found = int(bool(trace))
        say(f"{name:20} {count:10} executions {features or '-':>7} features {found:3} findings")
        if trace:
            sys.stderr.write(trace)
    failed += live(["--seconds", str(share), "--seed", str(chosen.seed)])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
