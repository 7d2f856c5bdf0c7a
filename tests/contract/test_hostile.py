"""What breaks the protocol: which termination each engine answers, with FES, FEI and the header that it means.

Only what SPDK v26.05 defines (lib/nvmf/tcp.c) stands here.  Where it reads on into garbage, never answers or
touches memory that is not the connection's, the embedded engine refuses; tests/integration/target has those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from wire_host import NQN, Host, Wire, play

from dataplane.nvme import commands, pdu
from dataplane.nvme.commands import Command
from dataplane.nvme.pdu import FatalError, H2CData, PduType
from dataplane.nvme.status import Status

READ = commands.read(1, 0, 8, 512).with_cid(1)
WRITE = commands.write(1, 0, 16, 512)
SGL = 32


@pytest.fixture
def port(engine: Any) -> int:
    """A subsystem with one device in memory."""
    engine.malloc("m0")
    return int(engine.serve(NQN, "m0"))


def capsule(command: Command, data: bytes = b"") -> bytes:
    return b"".join(pdu.capsule_cmd(command, data))


def common(kind: int, hlen: int, plen: int, pdo: int = 0) -> bytes:
    return pdu.COMMON.pack(kind, 0, hlen, pdo, plen)


def term(fes: int, echoed: bytes = bytes(8)) -> bytes:
    return pdu.TermReq(from_host=True, fes=fes, header=echoed).pack()


def field(said: pdu.TermReq) -> int:
    """FEI where it means something; elsewhere it is reserved, and SPDK leaves old bytes in it."""
    return said.fei if said.fes in (FatalError.INVALID_HEADER, FatalError.UNSUPPORTED) else 0


def attack(port: int, raw: bytes, *, greet: bool) -> tuple[pdu.TermReq, int]:
    """The controller's last word to ``raw``, and what a read of a sound host gives meanwhile."""
    found: list[tuple[pdu.TermReq, int]] = []

    async def story(host: Host) -> None:
        if greet:
            bad = await Wire.open(port)
        else:
            bad = Wire(*await asyncio.open_connection("127.0.0.1", port), pdu.NO_DIGESTS)
        bad.write(raw)
        found.append((await bad.terminated(), await host.io.status(READ)))
        await bad.close()

    play(port, story)
    return found[0]


BEFORE = {
    "no NVMe at all": (b"GET / HTTP/1.1\r\n\r\n", FatalError.SEQUENCE, 0),
    "a command": (capsule(READ), FatalError.SEQUENCE, 0),
    "the header of a command": (capsule(READ)[:8], FatalError.SEQUENCE, 0),
    "a termination": (term(1), FatalError.SEQUENCE, 0),
    "a version to come": (pdu.IcReq(pfv=1).pack(), FatalError.INVALID_HEADER, 8),
    "an alignment too large": (pdu.IcReq(hpda=32).pack(), FatalError.INVALID_HEADER, 10),
    "a greeting with a wrong HLEN": (common(PduType.IC_REQ, 64, 128), FatalError.INVALID_HEADER, 2),
    "a greeting with a wrong PLEN": (common(PduType.IC_REQ, 128, 132), FatalError.INVALID_HEADER, 4),
}
AFTER = {
    "a second greeting": (pdu.IcReq().pack(), FatalError.SEQUENCE, 0),
    "an unknown PDU": (common(0x0B, 24, 24), FatalError.INVALID_HEADER, 0),
    "a PDU that only controllers send": (common(PduType.R2T, 24, 24), FatalError.INVALID_HEADER, 0),
    "a command with a wrong HLEN": (common(PduType.CAPSULE_CMD, 71, 72), FatalError.INVALID_HEADER, 2),
    "a command with a short PLEN": (common(PduType.CAPSULE_CMD, 72, 71), FatalError.INVALID_HEADER, 4),
    "data with a wrong HLEN": (common(PduType.H2C_DATA, 25, 32, 24), FatalError.INVALID_HEADER, 2),
    "data with a short PLEN": (common(PduType.H2C_DATA, 24, 23, 24), FatalError.INVALID_HEADER, 4),
    "a termination without a header": (common(PduType.H2C_TERM, 24, 24), FatalError.INVALID_HEADER, 4),
    "a termination that is too long": (common(PduType.H2C_TERM, 24, 153), FatalError.INVALID_HEADER, 4),
    "a termination for no known reason": (term(7), FatalError.INVALID_HEADER, 8),
    "data of a tag that is not used": (
        b"".join(pdu.h2c_data(H2CData(5, 5, 0, bytes(8), last=True))), FatalError.INVALID_HEADER, 10,
    ),
    "data of a tag that cannot be": (
        b"".join(pdu.h2c_data(H2CData(5, 999, 0, bytes(8), last=True))), FatalError.SEQUENCE, 0,
    ),
    "an SGL of another kind": (capsule(READ._replace(sgl_type=0)), FatalError.UNSUPPORTED, SGL + 8),
    "a read into its own capsule": (capsule(READ._replace(sgl_type=1)), FatalError.INVALID_HEADER, 4),
    "more bytes than MDTS": (capsule(READ._replace(length=1 << 20)), FatalError.LIMIT_EXCEEDED, 0),
    "a capsule that is shorter than its SGL says": (
        capsule(WRITE.with_data(512, in_capsule=True), bytes(256)), FatalError.INVALID_HEADER, 4,
    ),
    "a capsule with an offset": (
        capsule(WRITE._replace(sgl_type=1, length=512, address=8), bytes(512)), FatalError.UNSUPPORTED, SGL,
    ),
    "a capsule that is too large": (
        capsule(WRITE.with_data(10240, in_capsule=True), bytes(10240)), FatalError.LIMIT_EXCEEDED, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BEFORE)
def test_before_the_greeting(port: int, case: str) -> None:
    raw, fes, fei = BEFORE[case]
    said, status = attack(port, raw, greet=False)
    assert (said.fes, field(said), status) == (fes, fei, 0)
    assert said.header[:8] in (raw[:8], b"")  # SPDK leaves it out where it refuses an SGL


@pytest.mark.parametrize("case", AFTER)
def test_after_the_greeting(port: int, case: str) -> None:
    raw, fes, fei = AFTER[case]
    said, status = attack(port, raw, greet=True)
    assert (said.fes, field(said), status) == (fes, fei, 0)
    assert said.header[:8] in (raw[:8], b"")  # SPDK leaves it out where it refuses an SGL


def answer_r2t(port: int, answer: Callable[[Host, pdu.R2T], Awaitable[None]], **how: Any) -> pdu.TermReq:
    """What the controller says last when its R2T for a write of 8 KiB is answered so."""
    said: list[pdu.TermReq] = []

    async def story(host: Host) -> None:
        cid = host.io.submit(WRITE)
        await answer(host, await host.io.asked_for(cid))
        said.append(await host.io.terminated())

    play(port, story, **how)
    return said[0]


@pytest.mark.parametrize(
    ("offset", "size", "fes"),
    [(4096, 4096, FatalError.OUT_OF_RANGE), (0, 8196, FatalError.OUT_OF_RANGE)],
    ids=["not where it goes on", "beyond what was asked for"],
)
def test_data_has_to_be_what_was_asked_for(port: int, offset: int, size: int, fes: FatalError) -> None:
    async def answer(host: Host, asked: pdu.R2T) -> None:
        host.io.write(*pdu.h2c_data(H2CData(asked.cid, asked.ttag, offset, bytes(size), last=True)))

    said = answer_r2t(port, answer)
    assert (said.fes, field(said)) == (fes, 0)


def test_data_that_comes_twice(port: int) -> None:
    async def answer(host: Host, asked: pdu.R2T) -> None:
        for _ in range(2):
            host.io.write(*pdu.h2c_data(H2CData(asked.cid, asked.ttag, 0, bytes(4096), last=False)))

    assert answer_r2t(port, answer).fes == FatalError.OUT_OF_RANGE


def test_data_of_another_command(port: int) -> None:
    async def answer(host: Host, asked: pdu.R2T) -> None:
        host.io.write(*pdu.h2c_data(H2CData(asked.cid + 1, asked.ttag, 0, bytes(8192), last=True)))

    said = answer_r2t(port, answer)
    assert said.fes == FatalError.SEQUENCE


def test_a_header_digest_that_does_not_match(port: int) -> None:
    said: list[pdu.TermReq] = []

    async def story(host: Host) -> None:
        raw = bytearray(pdu.capsule_cmd(READ, b"", host.io.agreed)[0])
        raw[-1] ^= 1
        host.io.write(bytes(raw))
        said.append(await host.io.terminated())

    play(port, story, agreed=pdu.Digests(header=True))
    assert said[0].fes == FatalError.HEADER_DIGEST


@pytest.mark.parametrize("damaged", [0, 1])
def test_a_data_digest_that_does_not_match_fails_the_command_when_all_of_it_is_here(port: int, damaged: int) -> None:
    async def story(host: Host) -> None:
        await host.io.ok(WRITE, b"a" * 8192)
        cid = host.io.submit(WRITE)
        asked = await host.io.asked_for(cid)
        for part in range(2):
            data = H2CData(asked.cid, asked.ttag, part * 4096, b"b" * 4096, last=part == 1)
            raw = bytearray(b"".join(pdu.h2c_data(data, host.io.agreed)))
            raw[-1] ^= part == damaged
            host.io.write(bytes(raw))
            # SPDK checks digests on the side: what follows at once may meet the old offset, and is out of range.
            await host.io.ok(commands.flush(1))
        assert (await host.io.wait(cid))[0].code == Status.TRANSIENT_TRANSPORT_ERROR
        assert await host.io.ok(commands.read(1, 0, 16, 512)) == b"a" * 8192

    play(port, story, agreed=pdu.Digests(data=True))


def test_commands_before_connect_are_out_of_sequence(port: int) -> None:
    async def story(host: Host) -> None:
        wire = await Wire.open(port)
        for command in (READ, commands.keep_alive(), commands.identify(1), commands.Command(0xEE & 0xFC)):
            assert await wire.status(command) == Status.COMMAND_SEQUENCE_ERROR
        await wire.close()
        assert await host.io.status(READ) == 0

    play(port, story)


def test_a_session_sent_byte_by_byte_is_a_session(port: int) -> None:
    async def story(host: Host) -> None:
        data = b"slow" * 128
        command = commands.write(1, 3, 1, 512).with_data(512, in_capsule=True).with_cid(77)
        for byte in capsule(command, data):
            host.io.write(bytes([byte]))
            await host.io.writer.drain()
            await asyncio.sleep(0)
        assert (await host.io.wait(77))[0].code == 0
        assert await host.io.ok(commands.read(1, 3, 1, 512)) == data

    play(port, story)
