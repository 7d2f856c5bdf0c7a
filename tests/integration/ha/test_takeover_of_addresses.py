"""Two nodes, their shelf and a host, each on a machine of its own: what the host sees when links fail.

The host sends keep-alives every ten minutes and waits for ever, so only what the nodes do can make it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from ha_lab import Statuses
from net_lab import DATA, HEARD, SERVICE, NetLab, Writer, net_lab, until
from small_lab import HOSTS, host_id

from controlplane.domain.state import State
from dataplane.embedded.initiator.host import Host, HostConnection, HostOptions
from dataplane.launch import EngineKind
from ha.model import NODES
from ha.policy import POLICIES

ALL: Final = {"default/1", "default/2"}
POLICY: Final = "slow"
LONG_MS: Final = 2 * POLICIES[POLICY].takeover_wait_ms
PATIENT: Final = HostOptions(keep_alive_ms=600_000, io_timeout_s=None)
PATH: Final = "path-1"
Story = Callable[[NetLab, HostConnection, Writer], Awaitable[None]]


def play(kind: EngineKind, folder: Path, story: Story) -> None:
    """Tell it while the host writes to a volume of each node; at the end the volumes hold what was acknowledged."""

    async def whole(lab: NetLab, state: State) -> None:
        async with Host(HOSTS["h1"], host_id(HOSTS["h1"])) as host:
            connection = await host.connect(lab.lab.nqn, [(DATA[node], SERVICE) for node in NODES], PATIENT)
            writer = Writer(connection, state, "wide", "safe")
            await writer.goes_on()
            await story(lab, connection, writer)
            await writer.goes_on()
            await writer.end()

    with net_lab(kind, folder, POLICY) as (lab, state), lab.net.on("host"):
        try:
            asyncio.run(whole(lab, state))
        except BaseException as problem:
            problem.add_note(lab.show())
            raise


async def seen(lab: NetLab, condition: Callable[[Statuses], bool]) -> Statuses:
    """The first statuses for which it holds, while the host goes on."""
    return await asyncio.to_thread(lab.wait_for, condition)


def undisturbed(lab: NetLab, found: Statuses) -> None:
    """Nobody took anything over."""
    assert {node: status["epoch"] for node, status in found.items()} == {"a": 1, "b": 1}
    assert {node: sorted(status["members"]) for node, status in found.items()} == {"a": ["a", "b"], "b": ["a", "b"]}
    assert lab.serving(found) == {"a": {"default/1"}, "b": {"default/2"}}
    assert [lab.at(node) for node in NODES] == [{"a"}, {"b"}]
    assert not any(lab.engine_ended(node) for node in NODES)


def test_hosts_leave_a_silent_node_and_its_address_comes_home_with_it(kind: EngineKind, tmp_path: Path) -> None:
    async def story(lab: NetLab, connection: HostConnection, writer: Writer) -> None:
        reasons: list[str] = []
        of_a, of_b = connection.controllers
        connection.on_change = lambda controller: reasons.append(controller.reason) if controller is of_a else None
        cntlid = of_b.cntlid
        await seen(lab, lambda at: at["a"]["connections"] == 2)  # b was told of them: administration, and I/O
        lab.silence("a")
        await writer.goes_on()
        await until(lambda: lab.at("a") == {"b"})
        assert any("reset" in reason for reason in reasons), reasons
        found = await seen(lab, lambda at: set(at["b"]["engine"]["raised"]) == ALL and at["b"]["holds"] == ["a", "b"])
        assert (found["b"]["epoch"], list(found["b"]["members"])) == (2, ["b"])

        def told() -> list[object]:
            return [entry["sentence"] for entry in lab.control("b").history() if entry["event"] == "hosts"]

        await until(lambda: told() != [])
        assert told() == [f"{DATA['a']} taken over, 2 connections ended"]
        assert (of_b.live, of_b.cntlid) == (True, cntlid), "hosts stay connected to the survivor"

        await seen(lab, lambda at: at["a"]["engine"]["state"] != "alive")
        assert lab.engine_ended("a")
        lab.plug_in("a")
        await seen(lab, lambda at: at["a"]["peer"]["paths"][PATH] == {"hears_us": True, "heard": True})
        assert lab.at("a") == {"b"}, "a node that is no member has no data address"
        await asyncio.to_thread(lab.restart_engine, "a")
        joined = asyncio.create_task(asyncio.to_thread(lab.form))
        while lab.at("a") != {"a"}:
            assert lab.at("a") != {"a", "b"}
            await asyncio.sleep(0)
            if joined.done():
                joined.result()
        await joined
        found = lab.status()
        assert list(found["b"]["members"]) == ["a", "b"]
        await asyncio.to_thread(lab.control("b").failback)
        await asyncio.to_thread(lab.settled)
        while not of_a.live:
            await connection.change()

    play(kind, tmp_path, story)


def test_a_cut_of_the_heartbeat_network_alone_moves_nothing(kind: EngineKind, tmp_path: Path) -> None:
    async def story(lab: NetLab, _connection: HostConnection, writer: Writer) -> None:
        for node in NODES:
            lab.deafen(node)
        found = await seen(lab, lambda at: all(at[node]["peer"]["heard_ms_ago"] > LONG_MS for node in NODES))
        assert [found[node]["peer"]["paths"][PATH]["heard"] for node in NODES] == [False, False]
        undisturbed(lab, found)
        await writer.goes_on()
        lab.net.lead("a", HEARD["b"], "beat0")
        lab.net.lead("b", HEARD["a"], "beat0")
        found = await seen(
            lab,
            lambda at: all(at[node]["peer"]["paths"][PATH] == {"hears_us": True, "heard": True} for node in NODES),
        )
        undisturbed(lab, found)

    play(kind, tmp_path, story)


@pytest.mark.parametrize("deaf", NODES)
def test_heartbeats_that_go_one_way_are_shown_and_move_nothing(kind: EngineKind, tmp_path: Path, deaf: str) -> None:
    async def story(lab: NetLab, _connection: HostConnection, writer: Writer) -> None:
        hears = "b" if deaf == "a" else "a"
        lab.deafen("a" if deaf == "a" else "b")
        found = await seen(lab, lambda at: at[deaf]["peer"]["heard_ms_ago"] > LONG_MS)
        assert found[hears]["peer"]["paths"][PATH] == {"hears_us": False, "heard": True}
        assert not found[deaf]["peer"]["paths"][PATH]["heard"]
        undisturbed(lab, found)
        await writer.goes_on()

    play(kind, tmp_path, story)
