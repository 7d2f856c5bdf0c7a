"""An address moves to the other node while hosts are connected to it: their connections end at once."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import pytest
from namespaces import Machines, machines

from ha.adapters.addresses import release, take
from ha.adapters.netlink import add_address, remove_address
from ha.adapters.sockets import host_connections
from ha.config import DataAddress
from ha.heartbeat import Codec, Hearing
from ha.model import Says
from ha.says import HostConnection

SERVICE = 4420
NETS = {4: ("192.0.2.{}", 24), 6: ("fd00::{}", 64)}


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> tuple[str, int]:
    return NETS[request.param]


@pytest.fixture
def three(net: tuple[str, int]) -> Iterator[Machines]:
    """Nodes a and b and a host; the data address of a ends in 100."""
    form, prefix = net
    with machines("a", "b", "host") as running:
        for number, name in enumerate(("host", "a", "b"), 1):
            running.address(name, f"{form.format(number)}/{prefix}")
        running.address("a", f"{form.format(100)}/{prefix}")
        yield running


def moving(net: tuple[str, int], interface: str = "eth0") -> tuple[DataAddress, ...]:
    return (DataAddress(node="a", address=net[0].format(100), prefix=net[1], interface=interface),)


def connect(three: Machines, address: str, count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Connections of the host, and the node's ends of them."""
    with three.on("a"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, SERVICE), family=family)
    hosts, nodes = [], []
    for _ in range(count):
        with three.on("host"):
            hosts.append(socket.create_connection((address, SERVICE)))
        nodes.append(listener.accept()[0])
    listener.close()
    return hosts, nodes


def names(sockets: list[socket.socket], address: str) -> tuple[HostConnection, ...]:
    found = []
    for each in sockets:
        host, service = each.getsockname()[:2]
        found.append(HostConnection(address=address, service=SERVICE, host_address=host, host_service=service))
    return tuple(sorted(found))


def told(connections: tuple[HostConnection, ...]) -> tuple[HostConnection, ...]:
    """What the peer knows after they were told with the heartbeats."""
    codec = Codec("array", bytes(32))
    a, b = Hearing(codec, "a", 1, ("path",), 100), Hearing(codec, "b", 2, ("path",), 100)
    for now in range(3):
        for path, datagram in a.speak(Says(node="a"), now):
            b.feed(datagram, path, now)
        for path, datagram in b.speak(Says(node="b"), now):
            a.feed(datagram, path, now)
    for path, datagram in a.tell(connections, 4):
        assert b.feed(datagram, path, 4) is None
    return b.connections


def test_hosts_leave_a_node_that_has_gone_silent(three: Machines, net: tuple[str, int]) -> None:
    address = net[0].format(100)
    hosts, nodes = connect(three, address, 3)
    idle, busy, other = hosts
    with three.on("a"):
        listed = host_connections([SERVICE])
    assert listed == names(hosts, address)
    three.unplug("a")
    busy.sendall(b"on its way to nobody")
    with three.on("b"):
        kicked = take(moving(net), "a", told(listed))
    assert kicked.addresses == (address,)
    assert kicked.tickled == 3
    assert not kicked.problems
    for each in (idle, busy, other):
        with pytest.raises(ConnectionResetError):
            each.recv(1)
    for each in (*hosts, *nodes):
        each.close()


def test_a_host_that_sends_is_told_where_the_address_is(three: Machines, net: tuple[str, int]) -> None:
    """Without a list of connections: what it sends again reaches the survivor, because that has announced itself."""
    hosts, nodes = connect(three, net[0].format(100), 1)
    three.unplug("a")
    hosts[0].sendall(b"on its way to nobody")
    with three.on("b"):
        assert take(moving(net), "a", ()).tickled == 0
    with pytest.raises(ConnectionResetError):
        hosts[0].recv(1)
    for each in (*hosts, *nodes):
        each.close()


def test_a_host_that_is_connected_to_the_survivor_stays(three: Machines, net: tuple[str, int]) -> None:
    own = net[0].format(3)
    with three.on("b"):
        family = socket.AF_INET6 if ":" in own else socket.AF_INET
        listener = socket.create_server((own, SERVICE), family=family)
    with three.on("host"):
        staying = socket.create_connection((own, SERVICE))
    accepted, _ = listener.accept()
    hosts, nodes = connect(three, net[0].format(100), 1)
    with three.on("a"):
        listed = host_connections([SERVICE])
    three.unplug("a")
    with three.on("b"):
        take(moving(net), "a", (*listed, *host_connections([SERVICE])))
        again = take(moving(net), "a", listed)
    assert not again.problems
    with pytest.raises(ConnectionResetError):
        hosts[0].recv(1)
    staying.sendall(b"still here")
    assert accepted.recv(100) == b"still here"
    for each in (listener, staying, accepted, *hosts, *nodes):
        each.close()


def test_an_address_is_given_back(three: Machines, net: tuple[str, int]) -> None:
    address = net[0].format(100)
    three.unplug("a")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def here() -> bool:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, 0))
            except OSError:
                return False
            return True

    with three.on("b"):
        assert not here()
        take(moving(net), "b", ())  # not ours to take: it belongs to a
        assert not here()
        take(moving(net), "a", ())
        assert here()
        assert release(moving(net), "b") == ()
        assert here()
        assert release(moving(net), "a") == ()
        assert not here()
        assert release(moving(net), "a") == ()


def test_what_cannot_be_moved_is_named_and_the_rest_is_moved(three: Machines, net: tuple[str, int]) -> None:
    both = (*moving(net, "nowhere"), *moving(net))
    with three.on("b"):
        kicked = take(both, "a", ())
        assert [problem.code for problem in kicked.problems] == ["HA-047"]
        assert kicked.problems[0].where == "nowhere"
        assert kicked.addresses == (net[0].format(100),)


def test_the_kernel_refuses_what_is_no_address_of_the_link() -> None:
    with machines("a") as alone, alone.on("a"):
        with pytest.raises(OSError, match="no interface with this name"):
            add_address("nowhere", "192.0.2.5", 24)
        with pytest.raises(OSError, match="Invalid argument"):
            add_address("eth0", "192.0.2.5", 40)
        remove_address("eth0", "192.0.2.5", 24)


def test_connections_to_an_ipv4_address_are_named_so_even_on_a_listener_for_both() -> None:
    with machines("a") as alone, alone.on("a"):
        listener = socket.create_server(("::", SERVICE), family=socket.AF_INET6, dualstack_ipv6=True)
        host = socket.create_connection(("127.0.0.1", SERVICE))
        accepted, _ = listener.accept()
        (found,) = host_connections([SERVICE])
        assert ipaddress.ip_address(found.host_address) == ipaddress.ip_address("127.0.0.1")
        assert found.host_service == host.getsockname()[1]
        for each in (accepted, host, listener):
            each.close()
        assert host_connections([]) == ()
