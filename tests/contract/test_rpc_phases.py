"""Before and after ``framework_start_init``: which method belongs to which phase, and what the other ones are answered.

One engine of each kind goes through both phases once, and the tests read what it said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from engines_page import ENGINES_PAGE, EnginesPage
from raw_rpc import START_METHODS, RawRpc
from wire_host import NQN, Host, play

from dataplane.nvme import commands
from dataplane.nvme.status import Status
from dataplane.rpc.methods import nvmf

TOO_EARLY: Final = (-1, "Method may only be called after framework is initialized using framework_start_init RPC.")
TOO_LATE: Final = (
    -1,
    "Method may only be called before framework is initialized. Use --wait-for-rpc command line parameter and "
    "then issue this RPC before the framework_start_init RPC.",
)
BOTH: Final = {
    "bdev_nvme_set_options", "bdev_raid_set_options", "framework_get_scheduler", "framework_set_scheduler",
    "framework_wait_init", "log_get_level", "log_get_print_level", "log_set_level", "log_set_print_level",
    "rpc_get_methods", "sock_get_default_impl", "sock_impl_get_options", "spdk_get_version",
}  # fmt: skip


@dataclass(slots=True)
class Life:
    """What one engine said."""

    engine: Any
    methods: list[set[str]] = field(default_factory=list)
    current: list[set[str]] = field(default_factory=list)
    with_aliases: list[set[str]] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    start_with_params: Any = None
    start: Any = None
    second_start: Any = None
    waited: str = ""
    transports: list[Any] = field(default_factory=list)

    def look(self, line: RawRpc) -> None:
        """The methods of this phase, and what all the others are answered."""
        everything, current, aliases = (
            set(found)
            for found in line.ask_all(
                [
                    ("rpc_get_methods", {}),
                    ("rpc_get_methods", {"current": True}),
                    ("rpc_get_methods", {"include_aliases": True}),
                ]
            )
        )
        self.methods.append(everything)
        self.current.append(current)
        self.with_aliases.append(aliases)
        rest = sorted(everything - current)
        self.others.append(dict(zip(rest, line.ask_all([(name, {"any": 1}) for name in rest]), strict=True)))


@pytest.fixture(scope="module")
def life(engines: Any) -> Iterator[Life]:
    """From the first phase into the second."""
    engine = engines.waiting()
    found = Life(engine)
    try:
        with RawRpc(engine.process.socket) as line, RawRpc(engine.process.socket) as waits:
            found.look(line)
            (found.start_with_params,) = line.ask_all([("framework_start_init", {"any": 1})])
            waits.send('{"id":"waits","method":"framework_wait_init","params":{"any":1}}')
            (found.start,) = line.ask_all([("framework_start_init", None)])
            found.waited = waits.line()
            found.look(line)
            (found.second_start,) = line.ask_all([("framework_start_init", None)])
            for wrong in ({"c2h_success": 1}, {"sock_priority": -1}, {"control_msg_num": "x"}, {"sock_priority": 17}):
                found.transports += line.ask_all([("nvmf_create_transport", {"trtype": "TCP", **wrong})])
        engine.run(nvmf.create_transport("TCP", masked_oncs=["reservs", "nvmcmps"], masked_fuses=["fcws"]))
        yield found
    finally:
        engine.stop()


def known() -> set[str]:
    """The methods that both engines have."""
    return EnginesPage.parse(ENGINES_PAGE.read_text(encoding="utf-8")).present


def test_the_methods_of_each_phase(life: Life) -> None:
    first, second = life.current
    assert first & known() == START_METHODS | BOTH
    assert second & known() == known() - START_METHODS
    assert life.methods[0] == life.methods[1] >= known()


def test_every_method_of_the_other_phase_is_refused_before_its_parameters_are_read(life: Life) -> None:
    early, late = life.others
    assert {name: said for name, said in early.items() if said != TOO_EARLY} == {}
    assert {name: said for name, said in late.items() if said != TOO_LATE} == {}
    assert early.keys() >= known() - START_METHODS - BOTH
    assert late.keys() >= START_METHODS


def test_no_method_has_an_alias(life: Life) -> None:
    """SPDK v26.05 registers no deprecated name: a name is a method of its own, or unknown."""
    assert life.with_aliases == life.methods


def test_the_framework_is_started_once_and_without_parameters(life: Life) -> None:
    assert life.start_with_params == (-32602, "framework_start_init requires no parameters")
    assert life.start is True
    assert life.second_start == TOO_LATE


def test_who_waits_for_the_start_is_answered_by_it(life: Life) -> None:
    assert json.loads(life.waited) == {"jsonrpc": "2.0", "id": "waits", "result": True}


def test_what_the_transport_itself_decodes_is_refused_when_it_is_made(life: Life) -> None:
    assert life.transports == [(-32603, "Failed to create transport.")] * 4


def test_what_is_masked_is_neither_offered_nor_done(life: Life) -> None:
    """As nodes of an array make their transport: no Compare, alone or fused with a Write."""
    life.engine.malloc("m0")
    port = life.engine.serve(NQN, "m0")

    async def story(host: Host) -> None:
        data = b"a" * 512
        await host.io.ok(commands.write(1, 0, 1, 512), data)
        assert await host.io.status(commands.compare(1, 0, 1, 512), data) == Status.INVALID_OPCODE
        halves = commands.fused(commands.compare(1, 0, 1, 512), commands.write(1, 0, 1, 512))
        cids = [host.io.submit(half, data) for half in halves]
        said = [(await host.io.wait(cid))[0].code for cid in cids]
        assert said == [Status.INVALID_FIELD, Status.INVALID_FIELD]

    play(port, story)
