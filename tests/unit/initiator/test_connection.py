"""One queue against a scripted controller on loopback: what is sent, and what a wrong answer leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dataplane.embedded.initiator.connection import Connection, Endpoint, Reply, TransportLost, open_connection
from dataplane.nvme import commands, pdu
from dataplane.nvme.commands import Completion, status_field
from dataplane.nvme.pdu import NO_DIGESTS, R2T, C2HData, CapsuleCmd, Digests, H2CData, IcReq, IcResp, TermReq
from dataplane.nvme.pdu_reader import PduReader
from dataplane.nvme.status import NvmeError, Status

HEADERS, PAYLOAD, BOTH = Digests(header=True), Digests(data=True), Digests(header=True, data=True)


class Peer:
    """The controller's side of a connection, driven line by line by a test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.pdus = PduReader(pdu.CONTROLLER_RECEIVES, 1 << 20)
        self.queue: list[pdu.Pdu] = []
        self.digests = NO_DIGESTS

    async def next(self) -> pdu.Pdu | None:
        while not self.queue:
            try:
                raw = await self.reader.read(1 << 16)
            except ConnectionError:
                raw = b""
            if not raw:
                return None
            self.queue += self.pdus.feed(raw)
        return self.queue.pop(0)

    async def command(self) -> CapsuleCmd:
        got = await self.next()
        assert isinstance(got, CapsuleCmd)
        return got

    def send(self, *pieces: pdu.Raw) -> None:
        self.writer.write(b"".join(pieces))

    def complete(self, cid: int, code: int = 0) -> None:
        self.send(pdu.capsule_resp(Completion(cid=cid, status=status_field(code)), self.digests))

    def data(self, cid: int, offset: int, data: bytes, *, last: bool = True, success: bool = False) -> None:
        self.send(*pdu.c2h_data(C2HData(cid, offset, data, last, success), self.digests))

    async def greet(self, agreed: Digests = NO_DIGESTS, maxh2cdata: int = 4096) -> None:
        greeting = await self.next()
        assert isinstance(greeting, IcReq)
        self.send(IcResp(digests=agreed, maxh2cdata=maxh2cdata).pack())
        self.digests = self.pdus.digests = agreed


Script = Callable[[Peer], Awaitable[None]]
Act = Callable[[Connection], Awaitable[None]]


def play(script: Script, act: Act, agreed: Digests = NO_DIGESTS, entries: int = 4) -> None:
    """Run both sides to their ends; an error of either is the test's."""

    async def both() -> None:
        script_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            try:
                await peer.greet(agreed)
                await script(peer)
                script_done.set_result(None)
            except (AssertionError, ConnectionError) as error:
                script_done.set_exception(error)
            finally:
                writer.close()

        async with asyncio.timeout(20):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            connection = await open_connection(Endpoint("127.0.0.1", port, digests=agreed), entries, 1 << 17, 5)
            try:
                await act(connection)
                await script_done
            finally:
                await connection.close()
                server.close()
                await server.wait_closed()

    asyncio.run(both())


async def read(connection: Connection, size: int = 8192) -> Reply:
    return await connection.execute(commands.read(1, 0, size // 512, 512), read_size=size)


@pytest.mark.parametrize("agreed", [NO_DIGESTS, BOTH, HEADERS, PAYLOAD])
def test_payload_in_pieces_is_gathered(agreed: Digests) -> None:
    async def script(peer: Peer) -> None:
        cid = (await peer.command()).command.cid
        peer.data(cid, 0, b"a" * 4096, last=False)
        peer.data(cid, 4096, b"b" * 4096)
        peer.complete(cid)

    async def act(connection: Connection) -> None:
        assert bytes((await read(connection)).check(8192)) == b"a" * 4096 + b"b" * 4096

    play(script, act, agreed)


def test_the_success_flag_is_a_completion() -> None:
    async def script(peer: Peer) -> None:
        peer.data((await peer.command()).command.cid, 0, b"x" * 8192, success=True)

    async def act(connection: Connection) -> None:
        assert bytes((await read(connection)).check(8192)) == b"x" * 8192

    play(script, act)


def test_a_short_payload_is_an_error_and_not_data() -> None:
    async def script(peer: Peer) -> None:
        cid = (await peer.command()).command.cid
        peer.data(cid, 0, b"x" * 512)
        peer.complete(cid)

    async def act(connection: Connection) -> None:
        with pytest.raises(NvmeError) as caught:
            (await read(connection)).check(8192)
        assert caught.value.code == Status.DATA_TRANSFER_ERROR

    play(script, act)


def test_damaged_payload_fails_its_command_alone() -> None:
    async def script(peer: Peer) -> None:
        cid = (await peer.command()).command.cid
        pieces = pdu.c2h_data(C2HData(cid, 0, b"x" * 8192, last=True, success=True), peer.digests)
        peer.send(*pieces[:-1], b"\0\0\0\0")
        peer.complete((await peer.command()).command.cid)

    async def act(connection: Connection) -> None:
        assert (await read(connection)).completion.code == Status.TRANSIENT_TRANSPORT_ERROR
        assert (await connection.execute(commands.flush(1))).completion.code == 0

    play(script, act, PAYLOAD)


def test_small_writes_go_in_the_capsule_and_large_ones_when_asked_for() -> None:
    payload = bytes(range(256)) * 64

    async def script(peer: Peer) -> None:
        first = await peer.command()
        assert bytes(first.data) == payload[:512]
        peer.complete(first.command.cid)
        second = await peer.command()
        assert (len(second.data), second.command.length) == (0, len(payload))
        cid, got = second.command.cid, bytearray(len(payload))
        for offset, length in ((0, 6144), (6144, len(payload) - 6144)):
            peer.send(pdu.r2t(R2T(cid, 7, offset, length)))
            while True:
                part = await peer.next()
                assert isinstance(part, H2CData)
                assert (part.cid, part.ttag) == (cid, 7)
                assert len(part.data) <= 4096
                got[part.offset : part.offset + len(part.data)] = part.data
                if part.last:
                    break
        assert bytes(got) == payload
        peer.complete(cid)

    async def act(connection: Connection) -> None:
        connection.in_capsule = 4096
        (await connection.execute(commands.write(1, 0, 1, 512), payload[:512])).check()
        (await connection.execute(commands.write(1, 0, 32, 512), payload)).check()

    play(script, act)


def test_commands_are_answered_in_any_order_and_wait_for_a_slot() -> None:
    async def script(peer: Peer) -> None:
        first = [(await peer.command()).command for _ in range(3)]
        for command in reversed(first):
            peer.complete(command.cid, command.cdw10)
        for _ in range(2):
            command = (await peer.command()).command
            peer.complete(command.cid, command.cdw10)

    async def act(connection: Connection) -> None:
        sent = [commands.read(1, number, 1, 512) for number in range(5)]
        replies = await asyncio.gather(*(connection.execute(command) for command in sent))
        assert [reply.completion.code for reply in replies] == [0, 1, 2, 3, 4]
        assert connection.in_flight == 0

    play(script, act, entries=4)


def twice(peer: Peer, cid: int) -> None:
    """Half of the data two times: as many bytes as were asked for, and a hole."""
    for _ in range(2):
        peer.data(cid, 0, b"x" * 4096, last=False)
    peer.complete(cid)


WRONG = {
    "data that comes twice": twice,
    "data out of order": lambda peer, cid: peer.data(cid, 4096, b"x" * 4096),
    "success before the end": lambda peer, cid: peer.data(cid, 0, b"x" * 4096, last=False, success=True),
    "unknown command": lambda peer, cid: peer.complete(cid + 1),
    "data beyond the buffer": lambda peer, cid: peer.data(cid, 8192, b"x"),
    "data for a command that reads nothing": lambda peer, cid: peer.data(cid + 1, 0, b"x"),
    "request beyond the data": lambda peer, cid: peer.send(pdu.r2t(R2T(cid, 1, 0, 4))),
    "second greeting": lambda peer, _: peer.send(IcResp().pack()),
    "not a PDU": lambda peer, _: peer.send(b"\xff" * 8),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer_ends_the_connection_with_a_term_request(wrong: Callable[[Peer, int], None]) -> None:
    async def script(peer: Peer) -> None:
        wrong(peer, (await peer.command()).command.cid)
        last = await peer.next()
        assert isinstance(last, TermReq)
        assert await peer.next() is None

    async def act(connection: Connection) -> None:
        with pytest.raises(TransportLost, match="broke the protocol"):
            await read(connection)
        with pytest.raises(TransportLost):
            await read(connection)

    play(script, act)


def test_everything_in_flight_and_waiting_is_lost_once_with_the_connection() -> None:
    reasons: list[str] = []

    async def script(peer: Peer) -> None:
        for _ in range(3):
            await peer.command()

    async def act(connection: Connection) -> None:
        connection.on_lost = lambda _, reason: reasons.append(reason)
        outcomes = await asyncio.gather(*(read(connection) for _ in range(6)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [TransportLost] * 6

    play(script, act)
    assert len(reasons) == 1


def test_the_controllers_own_term_request_is_the_reason() -> None:
    async def script(peer: Peer) -> None:
        await peer.command()
        peer.send(TermReq(from_host=False, fes=5, fei=9).pack())
        await peer.next()

    async def act(connection: Connection) -> None:
        with pytest.raises(TransportLost, match="error 5, field 9"):
            await read(connection)

    play(script, act)


def test_an_expired_command_takes_the_connection_along() -> None:
    async def script(peer: Peer) -> None:
        await peer.command()
        assert await peer.next() is None

    async def act(connection: Connection) -> None:
        with pytest.raises(TransportLost, match="no answer"):
            await connection.execute(commands.flush(1), timeout_s=0.01)

    play(script, act)


def test_a_cancelled_command_keeps_its_identifier_until_it_is_answered() -> None:
    cancelled = asyncio.Event()

    async def script(peer: Peer) -> None:
        first = (await peer.command()).command.cid
        await cancelled.wait()
        second = (await peer.command()).command.cid
        assert first != second
        peer.data(first, 0, b"x" * 8192, success=True)
        peer.complete(second)

    async def act(connection: Connection) -> None:
        task = asyncio.create_task(read(connection))
        while not connection.in_flight:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        assert (await connection.execute(commands.flush(1))).completion.code == 0

    play(script, act)


def test_a_controller_that_leaves_out_a_digest_is_refused() -> None:
    async def both() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            await peer.greet()
            await peer.next()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransportLost, match="unacceptable ICResp"):
            await open_connection(Endpoint("127.0.0.1", port, digests=BOTH), 4, 4096, 5)
        server.close()
        await server.wait_closed()

    asyncio.run(both())


def test_nobody_there_is_told_with_the_reason() -> None:
    async def connect() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(TransportLost, match=f"127.0.0.1:{port}: Connection refused"):
            await open_connection(Endpoint("127.0.0.1", port), 4, 4096, 5)

    asyncio.run(connect())


def pair(lba: int) -> tuple[tuple[commands.Command, bytes], tuple[commands.Command, bytes]]:
    compare, write = commands.fused(commands.compare(1, lba, 1, 512), commands.write(1, lba, 1, 512))
    return (compare, b"c" * 512), (write, b"w" * 512)


def test_halves_of_fused_commands_go_out_one_right_after_the_other() -> None:
    """Whatever else wants a slot: three of them, two pairs and two reads."""

    async def script(peer: Peer) -> None:
        pending: list[CapsuleCmd] = []
        seen: list[int] = []
        while len(seen) < 6:
            got = await peer.command()
            pending.append(got)
            seen.append(got.command.fuse)
            if got.command.fuse == commands.FUSE_FIRST:
                continue
            for each in pending:
                code = Status.COMPARE_FAILURE if each.command.fuse == 1 else 0
                peer.complete(each.command.cid, code)
            pending.clear()
        assert "".join(map(str, seen)).count("12") == 2

    async def act(connection: Connection) -> None:
        connection.in_capsule = 8192
        first, *_, second = await asyncio.gather(
            connection.execute_pair(*pair(1)), read(connection), read(connection), connection.execute_pair(*pair(2))
        )
        for one, two in (first, second):
            assert (one.completion.code, two.completion.code) == (Status.COMPARE_FAILURE, 0)
        assert connection.in_flight == 0

    play(script, act)


def test_a_pair_that_is_given_up_while_it_waits_leaves_its_slot_to_others() -> None:
    async def script(peer: Peer) -> None:
        held = [await peer.command() for _ in range(2)]
        assert (await peer.command()).command.fuse == 0, "the third slot, once the pair has let it go"
        for each in held:
            peer.complete(each.command.cid)
        assert [(await peer.command()).command.fuse for _ in range(2)] == [1, 2]
        await peer.next()

    async def act(connection: Connection) -> None:
        connection.in_capsule = 8192
        reads = [asyncio.create_task(read(connection)) for _ in range(2)]
        await asyncio.sleep(0)
        given_up = asyncio.create_task(connection.execute_pair(*pair(1)))
        await asyncio.sleep(0)
        assert len(connection.commands_of(reads[0])) == 1
        reads.append(asyncio.create_task(read(connection)))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(*reads[:2])
        lost = asyncio.create_task(connection.execute_pair(*pair(2)))
        while connection.in_flight < 3:
            await asyncio.sleep(0)
        connection.drop("enough")
        for task in (lost, reads[2]):
            with pytest.raises(TransportLost, match="enough"):
                await task

    play(script, act)


def test_each_byte_is_asked_for_once() -> None:
    async def script(peer: Peer) -> None:
        cid = (await peer.command()).command.cid
        for _ in range(2):
            peer.send(pdu.r2t(R2T(cid, 1, 0, 8192)))
        sent = [await peer.next() for _ in range(3)]
        assert [type(item) for item in sent] == [H2CData, H2CData, TermReq]

    async def act(connection: Connection) -> None:
        connection.in_capsule = 0
        with pytest.raises(TransportLost, match="out of turn"):
            await connection.execute(commands.write(1, 0, 16, 512), bytes(8192))

    play(script, act)


def test_data_that_went_in_the_capsule_cannot_be_asked_for() -> None:
    async def script(peer: Peer) -> None:
        peer.send(pdu.r2t(R2T((await peer.command()).command.cid, 1, 0, 512)))
        assert isinstance(await peer.next(), TermReq)

    async def act(connection: Connection) -> None:
        with pytest.raises(TransportLost, match="out of turn"):
            await connection.execute(commands.write(1, 0, 1, 512), bytes(512))

    play(script, act)


@pytest.mark.parametrize("greeting", [IcResp(pfv=1), IcResp(cpda=32), IcResp(maxh2cdata=4095), IcResp(digests=BOTH)])
def test_a_greeting_that_cannot_be_used_is_refused(greeting: IcResp) -> None:
    """An alignment of more than 128 bytes could not even be written into a PDU."""

    async def both() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(128)
            writer.write(greeting.pack())
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransportLost, match="unacceptable"):
            await open_connection(Endpoint("127.0.0.1", port), 4, 1 << 17, 20)
        server.close()
        await server.wait_closed()

    asyncio.run(both())
