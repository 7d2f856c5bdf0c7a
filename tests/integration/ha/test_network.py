"""Heartbeats over real UDP sockets: both ways, over a path that fails and comes back, and the secret's file."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from namespaces import machines

from controlplane.domain.errors import Refused
from ha.adapters.lease_page import now_ms
from ha.adapters.network import Network, read_secret
from ha.config import HeartbeatPath
from ha.heartbeat import MAX_DATAGRAM, Codec, Hearing, Refusal
from ha.model import NODES, NodeName, Says, other

ADDRESS = {"a": "127.0.0.1", "b": "127.0.0.2"}
NOWHERE = "192.0.2.77"
CODEC = Codec("array", bytes(32))


def free_services(count: int) -> list[int]:
    """UDP ports that are free on every address of loopback."""
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for each in held:
        each.bind(("0.0.0.0", 0))
    found = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return found


class Node:
    """A network and what was heard through it."""

    def __init__(self, node: NodeName, services: dict[str, int], addresses: dict[str, str]) -> None:
        peer = other(node)
        self.node = node
        self.hearing = Hearing(CODEC, node, ord(node), tuple(services), 10_000)
        self.news = asyncio.Event()
        paths = [
            HeartbeatPath(
                name=name,
                address=addresses.get(name, ADDRESS[node]),
                service=service,
                peer_address=addresses.get(name, ADDRESS[peer]),
                peer_service=service,
            )
            for name, service in services.items()
        ]
        self.network = Network(paths, self.heard)
        self.network.open()

    def heard(self, datagram: bytes, path: str, now: int) -> None:
        self.hearing.feed(datagram, path, now)
        self.news.set()

    def speak(self) -> None:
        self.network.send(self.hearing.speak(Says(node=self.node, key=ord(self.node)), now_ms()))


Two = dict[NodeName, Node]


def with_two(scenario: Callable[[Two], Awaitable[None]], services: dict[str, int], **addresses: str) -> None:
    async def run() -> None:
        nodes: Two = {node: Node(node, services, addresses) for node in NODES}
        try:
            await scenario(nodes)
        finally:
            for node in nodes.values():
                node.network.close()

    asyncio.run(run())


async def until(nodes: Two, wanted: Callable[[], bool]) -> None:
    """Speak, and speak again as something is heard, until it is so."""
    while not wanted():
        for node in nodes.values():
            node.news.clear()
            node.speak()
        await asyncio.wait([asyncio.ensure_future(node.news.wait()) for node in nodes.values()], timeout=0.05)


def hears(node: Node, path: str) -> bool:
    return node.hearing.peer(now_ms()).paths[path] == (True, True)


def test_both_nodes_hear_each_other_on_every_path() -> None:
    async def scenario(nodes: Two) -> None:
        await until(nodes, lambda: all(hears(node, path) for node in nodes.values() for path in ("left", "right")))
        for node in nodes.values():
            says = node.hearing.peer(now_ms()).says
            assert says is not None
            assert says.key == ord(other(node.node))
            assert not node.network.problems

    left, right = free_services(2)
    with_two(scenario, {"left": left, "right": right})


def test_a_path_without_an_address_harms_no_other() -> None:
    async def scenario(nodes: Two) -> None:
        await until(nodes, lambda: all(hears(node, "left") for node in nodes.values()))
        for node in nodes.values():
            assert node.network.problems["right"].code == "HA-049"
            assert node.network.dropped["right"] > 0
            assert node.network.dropped["left"] == 0

    left, right = free_services(2)
    with_two(scenario, {"left": left, "right": right}, right=NOWHERE)


def test_a_path_comes_up_as_soon_as_it_can() -> None:
    (left,) = free_services(1)
    occupant = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    occupant.bind((ADDRESS["b"], left))

    async def scenario(nodes: Two) -> None:
        assert nodes["b"].network.problems["left"].why == "Address already in use"
        nodes["a"].speak()
        occupant.close()
        await until(nodes, lambda: all(hears(node, "left") for node in nodes.values()))
        assert not nodes["b"].network.problems

    with_two(scenario, {"left": left})


def test_an_address_that_comes_later_and_a_cable_that_is_pulled() -> None:
    """Two machines; the path of b exists only after a while, and then a is unplugged."""

    def node(name: NodeName, address: str, peer: str) -> tuple[Network, list[bytes], asyncio.Event]:
        heard: list[bytes] = []
        news = asyncio.Event()
        path = HeartbeatPath(name="left", address=address, service=7400, peer_address=peer, peer_service=7400)
        network = Network([path], lambda datagram, _path, _now: (heard.append(datagram), news.set()))
        with two.on(name):
            network.open()
        return network, heard, news

    async def send_until(network: Network, news: asyncio.Event, on: str) -> None:
        while not news.is_set():
            with two.on(on):
                network.send([("left", b"hello")])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 0.05)

    async def scenario() -> None:
        a, _, _ = node("a", "192.0.2.1", "192.0.2.2")
        b, heard, news = node("b", "192.0.2.2", "192.0.2.1")
        assert not a.problems
        assert b.problems["left"].why == "Cannot assign requested address"
        two.address("b", "192.0.2.2/24")
        while b.problems:
            with two.on("b"):
                b.send([("left", b"hello")])
            await asyncio.sleep(0)
        await send_until(a, news, "a")
        two.unplug("a")
        with two.on("a"):
            two.down("a")
            a.send([("left", b"lost")])
        assert a.problems["left"].code == "HA-049"
        assert b"lost" not in heard
        two.up("a")
        two.plug("a")
        news.clear()
        await send_until(a, news, "a")
        assert not a.problems
        a.close()
        b.close()

    with machines("a", "b") as two:
        two.address("a", "192.0.2.1/24")
        asyncio.run(scenario())


def test_a_peer_that_is_not_there_is_no_fault_of_the_path() -> None:
    async def scenario(nodes: Two) -> None:
        nodes["b"].network.close()
        for _ in range(3):
            nodes["a"].speak()  # from the second on, the kernel says that nobody listens
        assert not nodes["a"].network.problems

    (left,) = free_services(1)
    with_two(scenario, {"left": left})


def test_a_giant_datagram_is_refused_as_one() -> None:
    (left,) = free_services(1)

    async def scenario(nodes: Two) -> None:
        nodes["b"].network.send([("left", bytes(MAX_DATAGRAM + 500))])
        await nodes["a"].news.wait()
        assert dict(nodes["a"].hearing.refusals) == {Refusal.SIZE: 1}

    with_two(scenario, {"left": left})


def test_strangers_are_not_even_heard() -> None:
    (left,) = free_services(1)

    async def scenario(nodes: Two) -> None:
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.sendto(b"hello", (ADDRESS["a"], left))
        stranger.close()
        await until(nodes, lambda: hears(nodes["a"], "left"))
        assert set(nodes["a"].hearing.refusals) <= {Refusal.UNPROVEN}

    with_two(scenario, {"left": left})


def test_the_secret_is_read_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text("ab" * 32 + "\n", encoding="ascii")
    assert read_secret(path) == b"\xab" * 32
    for text in ("ab" * 31, "x" * 64, ""):
        path.write_text(text, encoding="ascii")
        with pytest.raises(Refused, match="HA-044"):
            read_secret(path)
    path.write_text("ab" * 32, encoding="ascii")
    path.chmod(0o640)
    with pytest.raises(Refused, match="HA-044"):
        read_secret(path)
    with pytest.raises(Refused, match="HA-044"):
        read_secret(tmp_path / "none")
