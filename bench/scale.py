"""The control plane with many volumes: what an apply costs over the requests that it has to make anyhow.

The array: 24 file drives of 512 slices, two nodes, many volumes (a quarter of them mirrored) and many hosts, each
volume shown to two of them.  An apply brings it up, and every request is noted; then the same requests go to fresh
engines as bytes made beforehand, each pipeline one write, nothing checked and nothing read but the number of answers.
That is what no control plane can save, and the ratio to it is what the planner, the journal and the codecs cost.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.control_plane import Figures, Report, bench_array, in_turns, timed
from controlplane.domain.desired import Array, Host, Volume
from controlplane.domain.units import MIB
from controlplane.reconcile import shelf
from controlplane.reconcile.reconciler import Reconciler
from dataplane.launch import EngineKind, EngineProcess
from dataplane.rpc.call import Call
from dataplane.rpc.session import Session

SLICES: Final = 512
VOLUME_BYTES: Final = 16 * MIB
ENGINE_MEMORY_MIB: Final = 768
_READ_BYTES: Final = 1 << 20
_PATIENCE_S: Final = 120.0


class Noting(Session):
    """A session that notes every pipeline it sends, over all nodes in one order."""

    log: list[tuple[str, list[Call[Any]]]]

    def pipeline(
        self, calls: Sequence[Call[Any]], deadline_s: float | None = None, *, if_generation: int | None = None
    ) -> list[Any]:
        """As a session does."""
        if calls:
            self.log.append((self.node, list(calls)))
        return super().pipeline(calls, deadline_s, if_generation=if_generation)


def scale_array(folder: Path, volumes: int, hosts: int) -> Array:
    """The array to measure."""
    small = bench_array(folder, SLICES)
    names = tuple(f"h{i:02}" for i in range(hosts))
    return replace(
        small,
        hosts=tuple(
            Host(name=name, nqn=f"nqn.2014-08.org.nvmexpress:uuid:6d0f5a5c-0000-4000-8000-{i:012x}")
            for i, name in enumerate(names)
        ),
        volumes=tuple(
            Volume(
                name=f"v{i:03}",
                size_bytes=VOLUME_BYTES,
                pool="fast" if i % 4 else "safe",
                hosts=tuple(sorted({names[i % hosts], names[(i + 1) % hosts]})),
            )
            for i in range(volumes)
        ),
    )


@contextmanager
def engines(kind: EngineKind, folder: Path, array: Array) -> Iterator[None]:
    """A shelf that exports empty drives, and two nodes without anything."""
    for _drive, source in shelf.file_drives(array):
        Path(source.path).unlink(missing_ok=True)
    shelf.prepare_files(array)
    started = [
        EngineProcess.start(kind, folder / f"{part}.sock", core=core % 2, memory_mib=ENGINE_MEMORY_MIB)
        for core, part in enumerate(("shelf", "a", "b"))
    ]
    try:
        for engine in started:
            engine.ready()
        with Session(str(started[0].socket)) as session:
            shelf.serve(array, session)
        yield
    finally:
        for engine in reversed(started):
            engine.stop()


def one_run(kind: EngineKind, volumes: int, hosts: int) -> Figures:
    """Apply, apply with nothing to do, and the same requests raw."""
    with tempfile.TemporaryDirectory(prefix="ws7000-bench-") as name:
        folder = Path(name)
        array = scale_array(folder, volumes, hosts)
        log: list[tuple[str, list[Call[Any]]]] = []
        Noting.log = log
        with engines(kind, folder, array), Reconciler.in_folder(array, folder / "state", Noting) as reconciler:
            applied_s = timed(reconciler.apply)
            first = list(log)
            nothing_s = statistics.median(timed(reconciler.apply) for _ in range(3))
            again = log[len(first) :]
        raw = [(node, _bytes(calls), len(calls)) for node, calls in first]
        sockets: dict[str, str] = {node.name: node.rpc for node in array.nodes}
        with engines(kind, folder, array):
            raw_s = _replay(sockets, raw)
    return {
        "requests of the first apply": float(sum(len(calls) for _node, calls in first)),
        "pipelines of the first apply": float(len(first)),
        "requests of an apply with nothing to do": sum(len(calls) for _node, calls in again) / 3,
        "first apply, s": applied_s,
        "the same requests raw, s": raw_s,
        "apply / raw": applied_s / raw_s,
        "apply with nothing to do, s": nothing_s,
        "nothing to do / first apply": nothing_s / applied_s,
    }


def _bytes(calls: Sequence[Call[Any]]) -> bytes:
    requests = (
        {"jsonrpc": "2.0", "method": call.method, "id": number, **({"params": call.params} if call.params else {})}
        for number, call in enumerate(calls, 1)
    )
    return b"".join(json.dumps(request).encode() for request in requests)


def _replay(sockets: dict[str, str], raw: Sequence[tuple[str, bytes, int]]) -> float:
    """Seconds for all of ``raw``, in its order."""
    open_sockets = {}
    try:
        for node, path in sockets.items():
            open_sockets[node] = socket.socket(socket.AF_UNIX)
            open_sockets[node].connect(path)
        start = time.perf_counter()
        for node, text, count in raw:
            _exchange(open_sockets[node], text, count)
        return time.perf_counter() - start
    finally:
        for each in open_sockets.values():
            each.close()


def _exchange(peer: socket.socket, text: bytes, count: int) -> None:
    """Send ``text``, wait for ``count`` answers: each engine ends an answer with a line feed, and has no other."""
    left = memoryview(text)
    while count > 0:
        readable, writable, _ = select.select([peer], [peer] if left else [], [], _PATIENCE_S)
        if not readable and not writable:
            raise RuntimeError("the engine does not answer")
        if writable:
            left = left[peer.send(left, socket.MSG_DONTWAIT) :]
        if readable:
            came = peer.recv(_READ_BYTES)
            if not came:
                raise RuntimeError("the engine closed the connection")
            count -= came.count(b"\n")


def measure(kinds: Sequence[EngineKind], *, rounds: int, volumes: int, hosts: int) -> Report:
    """(minimum, median, maximum) of every figure, per engine; the engines take turns."""
    return in_turns(kinds, rounds, lambda kind: one_run(kind, volumes, hosts))
