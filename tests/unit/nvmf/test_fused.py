"""Halves of fused commands and data on its way: who belongs to whom, what is due when."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.embedded.nvmf.capsule import check_data
from dataplane.embedded.nvmf.fused import FusedCommands, Half
from dataplane.embedded.nvmf.transfer import Transfer
from dataplane.nvme import commands
from dataplane.nvme.commands import Command
from dataplane.nvme.pdu import H2CData
from dataplane.nvme.pdu_reader import PduError


def half(fuse: int, cid: int) -> Command:
    return commands.write(1, 0, 1, 512)._replace(flags=commands.PSDT_SGL | fuse, cid=cid)


def data(offset: int, piece: bytes) -> H2CData:
    return H2CData(0, 0, offset, piece, last=True)


def cids(due: tuple[Half, ...]) -> list[int]:
    return [each.command.cid for each in due]


@pytest.mark.parametrize("first_is_first", [True, False])
def test_a_pair_is_due_when_both_are_ready_in_the_order_of_arrival(first_is_first: bool) -> None:
    fused = FusedCommands()
    one, two = half(1, 10), half(2, 11)
    assert fused.arrived(one) is None
    assert fused.arrived(two) is None
    assert fused.arrived(half(0, 12)) is None
    order = (one, two) if first_is_first else (two, one)
    assert fused.ready(order[0], b"x", 3) == ()
    due = fused.ready(order[1], b"y", 4)
    assert cids(due) == [10, 11]
    assert {(each.data, each.taken) for each in due} == {(b"x", 3), (b"y", 4)}
    assert fused.ended(10) is None


def test_halves_without_a_partner_come_out_alone() -> None:
    fused = FusedCommands()
    assert fused.arrived(half(2, 1)) is None
    assert cids(fused.ready(half(2, 1), b"", 0)) == [1]
    fused.arrived(half(1, 2))
    assert fused.ready(half(1, 2), b"", 0) == ()
    alone = fused.arrived(half(1, 3))
    assert alone is not None
    assert alone.command.cid == 2
    assert fused.arrived(half(0, 4)) is None, "its data is not here yet"
    assert cids(fused.ready(half(1, 3), b"", 0)) == [3]


def test_the_partner_of_a_half_that_ended_before_is_alone() -> None:
    fused = FusedCommands()
    for cid in (1, 2):
        fused.arrived(half(cid, cid))
    fused.ready(half(1, 1), b"", 5)
    alone = fused.ended(2)
    assert alone is not None
    assert (alone.command.cid, alone.taken) == (1, 5)
    for cid in (1, 2):
        fused.arrived(half(cid, cid + 10))
    assert fused.ended(11) is None
    assert cids(fused.ready(half(2, 12), b"", 0)) == [12]
    fused.arrived(half(1, 20))
    assert fused.ended(20) is None
    fused.arrived(half(2, 21))
    assert cids(fused.ready(half(2, 21), b"", 0)) == [21], "the first half before it is gone"


def test_what_was_ready_is_counted_when_the_connection_goes() -> None:
    fused = FusedCommands()
    for cid in (1, 2):
        fused.arrived(half(cid, cid))
    fused.ready(half(1, 1), b"", 512)
    assert fused.drop() == 512
    assert (fused.first, fused.drop()) == (None, 0)


def test_data_comes_in_order_and_no_more_than_was_asked_for() -> None:
    transfer = Transfer(commands.write(1, 0, 2, 512), 0.0)
    with pytest.raises(PduError, match="outside"):
        check_data(data(512, bytes(512)), transfer, 128)
    assert transfer.take(data(0, b"a" * 512)) is None
    with pytest.raises(PduError, match="outside"):
        check_data(data(512, bytes(513)), transfer, 128)
    assert transfer.take(data(512, b"b" * 512)) == b"a" * 512 + b"b" * 512
    assert Transfer(commands.write(1, 0, 1, 512), 0.0).take(data(0, b"c" * 512)) == b"c" * 512


def test_an_abort_waits_for_the_data_or_for_the_end() -> None:
    async def scenario() -> None:
        for complete in (True, False):
            transfer = Transfer(commands.write(1, 0, 1, 512), 0.0)
            aborts = [asyncio.create_task(transfer.abort(60)) for _ in range(2)]
            await asyncio.sleep(0)
            assert transfer.settle(complete=complete) is complete
            assert await asyncio.gather(*aborts) == [complete, complete]
        late = Transfer(commands.write(1, 0, 1, 512), 0.0)
        assert await late.abort(0) is False
        assert late.settle(complete=True) is False, "nobody waits any more"

    asyncio.run(scenario())
