"""What the tests of the embedded engine share: an engine in the state RUNTIME, calls, a device that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from dataplane.embedded.bdev.base import Bdev, Buffer
from dataplane.embedded.engine import Engine
from dataplane.embedded.rpc import dispatch
from dataplane.embedded.rpc.registry import RUNTIME, RpcFault
from dataplane.nvme.status import NvmeError, Status


class FaultyBdev(Bdev):
    """Memory whose reads and writes can be made to fail."""

    def __init__(self, name: str, num_blocks: int, block_size: int = 512) -> None:
        super().__init__(name, block_size, num_blocks)
        self.data = bytearray(block_size * num_blocks)
        self.fail_reads = False
        self.fail_writes = False
        self.written: list[int] = []

    async def do_read(self, lba: int, blocks: int) -> Buffer:
        if self.fail_reads:
            raise NvmeError(Status.UNRECOVERED_READ_ERROR)
        return bytes(self.data[lba * self.block_size : (lba + blocks) * self.block_size])

    async def do_write(self, lba: int, data: Buffer) -> None:
        if self.fail_writes:
            raise NvmeError(Status.WRITE_FAULT)
        self.written.append(lba)
        self.data[lba * self.block_size : lba * self.block_size + len(data)] = data


Call = Callable[..., Awaitable[object]]


@pytest.fixture
def faulty_bdev() -> type[FaultyBdev]:
    return FaultyBdev


@pytest.fixture
def make_engine() -> Callable[[], tuple[Engine, Call]]:
    """An engine and ``call(method, **params)``, whose answer is the result or ``(code, message)``."""

    def make() -> tuple[Engine, Call]:
        engine = Engine()
        engine.state = RUNTIME

        async def call(method: str, **params: object) -> object:
            try:
                return await dispatch.call(engine, method, params or None)
            except RpcFault as fault:
                return fault.code, fault.message

        return engine, call

    return make
