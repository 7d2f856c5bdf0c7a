"""Whatever arrives on a connection, the engine goes on and other hosts notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

import pytest

from dataplane.nvme import commands, pdu
from dataplane.nvme.pdu import FatalError, H2CData, PduType

KINDS = ["slow_bdev", "hasty_bdev"]
IC = pdu.IcReq().pack()
READ = commands.read(1, 0, 8, 512).with_cid(1)


def capsule(command: commands.Command, data: bytes = b"") -> bytes:
    return b"".join(pdu.capsule_cmd(command, data))


@pytest.mark.parametrize(
    ("raw", "fes"),
    [
        (b"GET / HTTP/1.1\r\n\r\n" * 20, FatalError.SEQUENCE),
        (pdu.IcReq(pfv=1).pack(), FatalError.INVALID_HEADER),
        (pdu.IcReq(hpda=32).pack(), FatalError.INVALID_HEADER),
        (capsule(READ), FatalError.SEQUENCE),
        (IC + IC, FatalError.SEQUENCE),
        (IC + pdu.R2T_HEAD.pack(PduType.R2T, 0, 24, 0, 24, 1, 1, 0, 4), FatalError.INVALID_HEADER),
        (IC + pdu.COMMON.pack(PduType.H2C_DATA, 0, 24, 24, 0x7FFFFFFF), FatalError.INVALID_HEADER),
        (IC + b"".join(pdu.h2c_data(H2CData(1, 1, 0, bytes(8), last=True))), FatalError.INVALID_HEADER),
        (IC + capsule(READ._replace(sgl_type=0)), FatalError.UNSUPPORTED),
        (IC + capsule(READ._replace(length=1 << 20)), FatalError.LIMIT_EXCEEDED),
        (
            IC + capsule(commands.write(1, 0, 1, 512).with_data(512, in_capsule=True), bytes(256)),
            FatalError.INVALID_HEADER,
        ),
        (
            IC + capsule(commands.write(1, 0, 20, 512).with_data(10240, in_capsule=True), bytes(10240)),
            FatalError.LIMIT_EXCEEDED,
        ),
        (
            IC + capsule(commands.write(1, 0, 1, 512)._replace(sgl_type=1, address=8), bytes(512)),
            FatalError.UNSUPPORTED,
        ),
    ],
)
def test_a_broken_stream_ends_its_connection_with_the_reason(lab: Any, raw: bytes, fes: FatalError) -> None:
    async def scenario(bench: Any) -> None:
        good = await bench.host()
        bad = lab.wire(*await connect(bench.port), pdu.NO_DIGESTS)
        bad.write(raw)
        with pytest.raises(lab.ended) as caught:
            await bad.drain()
        term = caught.value.term
        assert (term.from_host, term.fes) == (False, fes)
        await bad.close()
        assert await good.io.status(commands.read(1, 0, 8, 512)) == 0

    lab.run(scenario)


async def connect(port: int) -> tuple[Any, Any]:
    return await asyncio.open_connection("127.0.0.1", port)


def test_data_beyond_what_was_asked_for_ends_the_connection(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host()
        command = commands.write(1, 0, 16, 512).with_cid(7)
        host.io.write(capsule(command))
        asked = await host.io.next()
        assert isinstance(asked, pdu.R2T)
        host.io.write(*pdu.h2c_data(H2CData(7, asked.ttag, 4096, bytes(8192), last=True)))
        with pytest.raises(lab.ended) as caught:
            await host.io.next()
        assert caught.value.term.fes == FatalError.OUT_OF_RANGE
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total

    lab.run(scenario)


def test_a_header_digest_that_is_wrong_ends_the_connection(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(agreed=pdu.Digests(header=True))
        raw = bytearray(pdu.capsule_cmd(READ, b"", host.io.agreed)[0])
        raw[-1] ^= 1
        host.io.write(bytes(raw))
        with pytest.raises(lab.ended) as caught:
            await host.io.next()
        assert caught.value.term.fes == FatalError.HEADER_DIGEST

    lab.run(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_more_commands_than_the_queue_holds_end_the_connection(lab: Any, kind: str) -> None:
    async def scenario(bench: Any) -> None:
        slow = getattr(lab, kind)("slow")
        bench.engine.bdevs.add(slow)
        await bench.rpc("nvmf_subsystem_add_ns", nqn=lab.nqn, namespace={"bdev_name": "slow", "nsid": 3})
        host = await bench.host(entries=8)
        for _ in range(64):
            host.io.submit(commands.read(3, 0, 1, 512))
        await host.io.ended()
        slow.go.set()

    lab.run(scenario)


def test_more_commands_than_the_queue_holds_end_the_connection_however_fast_they_are_answered(lab: Any) -> None:
    async def scenario(bench: Any) -> None:
        host = await bench.host(entries=8)
        host.io.write(*(capsule(READ.with_cid(cid)) for cid in range(64)))
        await host.io.ended()
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total

    lab.run(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_does_no_harm(lab: Any, seed: int) -> None:
    """A sound exchange with some bytes changed, and the engine serves on with nothing held back."""
    rng = random.Random(seed)
    data = bytes(8192)
    stream = bytearray(
        IC
        + capsule(READ)
        + capsule(commands.write(1, 0, 16, 512).with_cid(2))
        + b"".join(pdu.h2c_data(H2CData(2, 2, 0, data, last=True)))
        + capsule(commands.identify(1).with_cid(3))
    )

    async def scenario(bench: Any) -> None:
        good = await bench.host()
        for _ in range(10):
            raw = bytearray(stream)
            for _ in range(rng.randrange(1, 8)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            reader, writer = await connect(bench.port)
            writer.write(raw[: rng.randrange(1, len(raw))])
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            assert await good.io.status(commands.read(1, 0, 8, 512)) == 0
        assert bench.engine.nvmf.budget.left == bench.engine.nvmf.budget.total

    lab.run(scenario)
