"""An engine under attack over real sockets, while one host of good behaviour reads what it wrote.

Why: codecs may be right and the engine still lose count: a budget that is not given back, a task that waits for
ever, a queue that nobody removes.  After each round the engine has to be as it was before.  A round follows from its
seed alone, as far as the system's scheduling allows; a round that fails names the command that repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import random
import resource
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from make_corpus import requests
from test_corpus import mutated
from wire_host import HOST, Ended, Host, Wire

from dataplane.embedded.engine import Engine
from dataplane.embedded.nvmf import limits
from dataplane.embedded.rpc.dispatch import call
from dataplane.embedded.rpc.listener import Listener
from dataplane.embedded.rpc.registry import RUNTIME
from dataplane.nvme import commands, fabrics, pdu

GOOD_NQN: Final = "nqn.2026-01.io.ws7000:fuzz:good"
NQN: Final = "nqn.2026-01.io.ws7000:fuzz:attacked"
ATTACKERS: Final = 12
IDLE_S: Final = 20.0
GROWTH_BYTES: Final = 96 << 20
BOTH: Final = pdu.Digests(header=True, data=True)


class Found(Exception):
    """Something is wrong; the message says what."""


class Complaints(logging.Handler):
    """What was logged as an error: a defect that a boundary caught is a finding too."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


class Lab:
    """The engine, its RPC socket, and the host of good behaviour."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine()
        self.engine.state = RUNTIME
        self.path = folder / "rpc.sock"
        self.listener = Listener(self.engine, str(self.path))
        self.port = 0
        self.host: Host | None = None
        self.verified = 0

    async def rpc(self, name: str, /, **params: Any) -> Any:
        return await call(self.engine, name, params or None)

    async def open(self) -> None:
        await self.rpc("nvmf_create_transport", trtype="TCP")
        probe = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        self.port = int(probe.sockets[0].getsockname()[1])
        probe.close()
        await probe.wait_closed()
        address = {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": str(self.port)}
        for nqn, bdev in ((GOOD_NQN, "good"), (NQN, "attacked")):
            await self.rpc("bdev_malloc_create", name=bdev, num_blocks=8192, block_size=512)
            await self.rpc("nvmf_create_subsystem", nqn=nqn, serial_number="S1", allow_any_host=nqn == NQN)
            await self.rpc("nvmf_subsystem_add_ns", nqn=nqn, namespace={"bdev_name": bdev, "nsid": 1})
            await self.rpc("nvmf_subsystem_add_listener", nqn=nqn, listen_address=address)
        await self.rpc("nvmf_subsystem_add_host", nqn=GOOD_NQN, host=HOST)
        self.listener.bind()
        self.listener.start()
        self.host = await Host.open(self.port, nqn=GOOD_NQN)

    async def close(self) -> None:
        if self.host is not None:
            await self.host.close()
        self.listener.close()
        await self.engine.close()

    async def behave(self, stop: asyncio.Event) -> None:
        """Write, read and compare until told to stop; whatever fails here is a finding."""
        assert self.host is not None
        while not stop.is_set():
            lba = self.verified * 16 % 8192
            data = hashlib.shake_256(str(self.verified).encode()).digest(8192)
            await self.host.io.ok(commands.write(1, lba, 16, 512), data)
            if await self.host.io.ok(commands.read(1, lba, 16, 512)) != data:
                raise Found(f"block {lba} reads something else than was written")
            self.verified += 1

    async def ask(self) -> None:
        """The engine answers on its RPC socket."""
        async with asyncio.timeout(IDLE_S):
            reader, writer = await asyncio.open_unix_connection(str(self.path))
            writer.write(b'{"jsonrpc":"2.0","id":1,"method":"nvmf_get_subsystems"}')
            answer = await reader.readuntil(b"\n")
            writer.close()
            await writer.wait_closed()
        if "result" not in json.loads(answer):
            raise Found(f"the engine answers {answer[:200]!r}")

    def held(self) -> str:
        """What is still held beyond the connections of the good host; empty when nothing is."""
        target = self.engine.nvmf
        queues = len(target.queues) - 2
        gates = [gate for each in target.subsystems.values() for gate in (each.admin_gate, *each._gates.values())]
        busy = {
            "queues": queues,
            "bytes of the budget": target.budget.total - target.budget.left,
            "commands inside gates": sum(gate.inside for gate in gates),
            "controllers": sum(len(each.controllers) for each in target.subsystems.values()) - 1,
            "RPC connections": len(self.listener.connections),
            "places at the door": target.door.inside - 2,
        }
        return ", ".join(f"{count} {what}" for what, count in busy.items() if count)

    async def idle(self) -> None:
        """Wait until nothing is held; raises Found when it does not come."""
        try:
            async with asyncio.timeout(IDLE_S):
                while self.held():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise Found(f"left behind: {self.held()}") from None


def session(rng: random.Random, agreed: pdu.Digests) -> bytes:
    """Commands as a host sends them on a connected queue, in some order."""
    parts: list[bytes] = []
    for cid in range(1, rng.randrange(2, 12)):
        blocks = rng.choice([1, 8, 64, 256])
        write = commands.write(1, rng.randrange(8300), blocks, 512)
        small = commands.write(1, 0, 1, 512).with_data(512, in_capsule=True)
        data = pdu.H2CData(cid, cid, 0, bytes(512 * rng.randrange(1, 9)), last=True)
        plain = [
            commands.read(1, 0, blocks, 512), write, commands.flush(1), commands.identify(rng.randrange(32)),
            commands.get_log_page(rng.randrange(256), 4096), commands.async_event_request(),
            commands.abort(rng.randrange(2), cid - 1),
        ]  # fmt: skip
        choices = [pdu.capsule_cmd(each.with_cid(cid), b"", agreed) for each in plain]
        choices += [pdu.capsule_cmd(small.with_cid(cid), bytes(512), agreed), pdu.h2c_data(data, agreed)]
        parts.append(b"".join(rng.choice(choices)))
    return b"".join(parts)


async def attack(lab: Lab, rng: random.Random, release: asyncio.Event) -> None:
    """One attacker from its first byte to its end."""
    with contextlib.suppress(ConnectionError, Ended, TimeoutError, AssertionError):
        if rng.random() < 0.15:
            reader, writer = await asyncio.open_unix_connection(str(lab.path))
            await misuse(rng, reader, writer, mutated(rng.choice(list(requests().values())), rng), release)
            return
        agreed = rng.choice([pdu.NO_DIGESTS, BOTH])
        kind = rng.randrange(3)
        if kind == 0:  # everything from the first byte on
            reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
            connect = fabrics.connect(0, 32), fabrics.ConnectData(b"a" * 16, 0xFFFF, NQN, "nqn.2026-01.a:b").pack()
            raw = pdu.IcReq(digests=agreed).pack() + b"".join(pdu.capsule_cmd(*connect, agreed))
            raw = mutated(raw + session(rng, agreed), rng)
        elif kind == 1:  # nobody, in order
            wire = await Wire.open(lab.port, agreed)
            reader, writer, raw = wire.reader, wire.writer, session(rng, agreed)
        else:  # a host that goes wrong
            host = await Host.open(lab.port, agreed, nqn=NQN, host="nqn.2026-01.a:b")
            other, chosen = rng.sample([host.admin, host.io], 2)
            reader, writer, raw = chosen.reader, chosen.writer, mutated(session(rng, agreed), rng)
            try:
                await misuse(rng, reader, writer, raw, release)
            finally:
                other.writer.close()
            return
        await misuse(rng, reader, writer, raw, release)


async def misuse(
    rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes, release: asyncio.Event
) -> None:
    """Send ``raw`` in pieces and end in one of many ways."""
    try:
        raw = raw[: rng.randrange(1, len(raw) + 1)] if rng.random() < 0.3 else raw
        step = rng.choice([1, 3, 24, 72, 1000, len(raw) + 1])
        for start in range(0, min(len(raw), 600 * step), step):
            writer.write(raw[start : start + step])
            await writer.drain()
            if rng.random() < 0.2:
                await asyncio.sleep(0)
        end = rng.randrange(5)
        if end == 0:  # half-open
            writer.write_eof()
            await reader.read()
        elif end == 1:  # reset
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == 2:  # silent until the others are done, and never reading
            writer.transport.pause_reading()
            await release.wait()
        elif end == 3:  # reads what there is
            # There may be nothing: who sends half a PDU on a connected queue is waited for.
            either = [asyncio.ensure_future(reader.read(1 << 16)), asyncio.ensure_future(release.wait())]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            for each in either:
                each.cancel()
            await asyncio.gather(*either, return_exceptions=True)
    finally:
        writer.transport.abort() if rng.random() < 0.3 else writer.close()


async def play_round(lab: Lab, seed: int) -> None:
    """Attackers side by side; raises Found."""
    rng = random.Random(seed)
    tasks = len(asyncio.all_tasks())
    files = len(os.listdir("/proc/self/fd"))
    stop, release = asyncio.Event(), asyncio.Event()
    good = asyncio.create_task(lab.behave(stop))
    attackers = [
        asyncio.create_task(attack(lab, random.Random(rng.randrange(1 << 32)), release)) for _ in range(ATTACKERS)
    ]
    _, waiting = await asyncio.wait(attackers, timeout=2.0)
    release.set()
    if waiting:
        _, stuck = await asyncio.wait(waiting, timeout=IDLE_S)
        for each in stuck:
            each.cancel()
        if stuck:
            good.cancel()
            raise Found(f"{len(stuck)} attackers are neither answered nor disconnected")
    for each in attackers:
        each.result()
    stop.set()
    await good
    await lab.ask()
    await lab.idle()
    try:
        async with asyncio.timeout(IDLE_S):
            while len(asyncio.all_tasks()) > tasks or len(os.listdir("/proc/self/fd")) > files:
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise Found(f"{len(asyncio.all_tasks()) - tasks} tasks are left behind") from None


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def run(seed: int, *, rounds: int | None, seconds: float) -> tuple[int, int, str]:
    """Rounds played, I/O verified, and what was found with the command that repeats it."""
    # What takes half a minute in the engine takes a second here; setattr, since they are constants elsewhere.
    for name in ("CONNECT_TIMEOUT_S", "DATA_TIMEOUT_S", "READ_TIMEOUT_S"):
        setattr(limits, name, 1.0)
    with tempfile.TemporaryDirectory(prefix="ws7000-fuzz-") as folder:
        lab, complaints = Lab(Path(folder)), Complaints()
        logging.getLogger().addHandler(complaints)
        await lab.open()
        end, count, warm = time.monotonic() + seconds, 0, 0
        try:
            while count < rounds if rounds is not None else time.monotonic() < end:
                await play_round(lab, seed + count)
                if complaints.texts:
                    raise Found("; ".join(complaints.texts))
                count += 1
                if count == 5:
                    warm = resident_bytes()
            grown = resident_bytes() - warm if warm else 0
            if grown > GROWTH_BYTES:
                raise Found(f"{grown >> 20} MiB more are held after {count} rounds")
        except Exception as problem:  # noqa: BLE001 - whatever the good host meets is a finding
            again = f"./run fuzz --live {seed + count}"
            return count, lab.verified, f"{type(problem).__name__}: {problem}; again: {again}"
        finally:
            logging.getLogger().removeHandler(complaints)
            await lab.close()
        return count, lab.verified, ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python tests/fuzz/live.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args(arguments)
    played, verified, found = asyncio.run(run(chosen.seed, rounds=chosen.rounds, seconds=chosen.seconds))
    line = f"{'live sockets':20} {played:10} rounds, {verified} reads verified, {int(bool(found)):3} findings"
    sys.stdout.write(line + "\n" + (found + "\n" if found else ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
