"""Commands of hosts that a layer does not know: its base runs them where it can, else they are reads and writes of
the layer, which fail as those do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wire_host import NQN, Host, play

from dataplane.nvme import commands
from dataplane.nvme.status import Status
from dataplane.rpc.methods import bdev

BLOCK = 512
A, ZEROES = b"a" * BLOCK, bytes(BLOCK)
READ, WRITE, COMPARE = (make(1, 7, 1, BLOCK) for make in (commands.read, commands.write, commands.compare))
COPY = commands.copy(1, 7, [(0, 4)])


async def pair(host: Host, expected: bytes, data: bytes) -> tuple[int, int]:
    first, second = commands.fused(COMPARE, WRITE)
    cids = host.io.submit(first, expected), host.io.submit(second, data)
    return (await host.io.wait(cids[0]))[0].code, (await host.io.wait(cids[1]))[0].code


def faulty(engine: Any, base: str) -> Callable[[str], object]:
    """An error device over ``base``; the call that lets its next I/O of a kind fail."""
    engine.rpc("bdev_error_create", base_name=base)
    return lambda kind: engine.rpc(
        "bdev_error_inject_error", name=f"EE_{base}", io_type=kind, error_type="failure", num=1
    )


def test_a_compare_and_write_meets_the_errors_of_reads_and_writes(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "drive"
    path.write_bytes(bytes(1 << 20))
    engine.run(bdev.aio_create("d", path=str(path), block_size_bytes=BLOCK))
    fail = faulty(engine, "d")

    async def story(host: Host) -> None:
        fail("write")
        assert await pair(host, ZEROES, A) == (Status.INTERNAL_ERROR, Status.INTERNAL_ERROR)
        assert await host.io.ok(READ) == ZEROES
        fail("read")
        assert await host.io.status(COMPARE, ZEROES) == Status.INTERNAL_ERROR
        for kind in ("read", "write"):
            fail(kind)
            assert await host.io.status(*COPY) == Status.INTERNAL_ERROR
        assert await pair(host, ZEROES, A) == (0, 0)
        assert await host.io.status(*COPY) == 0
        assert await host.io.ok(READ) == ZEROES

    play(engine.serve(NQN, "EE_d"), story)


def test_a_base_that_can_compare_and_copy_is_asked(engine: Any) -> None:
    engine.malloc("m0")
    fail = faulty(engine, "m0")

    async def story(host: Host) -> None:
        fail("read")
        assert await host.io.status(COMPARE, ZEROES) == 0
        assert await host.io.status(*COPY) == 0
        assert await host.io.status(READ) == Status.INTERNAL_ERROR
        fail("write")
        assert await pair(host, ZEROES, A) == (Status.INTERNAL_ERROR, Status.INTERNAL_ERROR)
        assert await host.io.ok(READ) == ZEROES

    play(engine.serve(NQN, "EE_m0"), story)
