"""Heartbeats over a network that loses, repeats, reorders, damages and keeps datagrams, between agents that restart."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from ha.heartbeat import MAX_DATAGRAM, Codec, Frame, Hearing, Kind, Refusal
from ha.model import FORMAT_VERSION, NODES, GroupId, NodeName, Peer, Phase, Says, other
from ha.says import HostConnection, pack_connections, pack_says, unpack_connections, unpack_says

SECRET = bytes(range(32))
PATHS = ("left", "right")
CODEC = Codec("array", SECRET)

u64 = st.integers(0, 2**64 - 1)
numbers = st.integers(1, 2**64 - 1)
nodes = st.sampled_from(NODES)
names = st.text(min_size=1, max_size=30)
groups = st.builds(GroupId, names, st.integers(1, 2))
group_sets = st.frozensets(groups, max_size=6)
says = st.builds(
    Says,
    node=nodes,
    version=st.just(FORMAT_VERSION),
    phase=st.sampled_from(Phase),
    key=u64,
    ended=u64,
    at=st.tuples(u64, u64),
    leader=st.none() | nodes,
    members=st.dictionaries(nodes, u64),
    releases=st.dictionaries(groups, u64, max_size=6),
    asks=group_sets,
    rebuilt=group_sets,
    failed=st.frozensets(names, max_size=24),
    blind=st.booleans(),
    silent=st.frozensets(names, max_size=24),
    built=u64,
    ports_up=st.integers(0, 64),
    ports=st.integers(0, 64),
)
path_names = st.text("abcxyz0-9", min_size=1, max_size=32)
addresses = st.ip_addresses().map(str)
services = st.integers(0, 65535)
connections = st.builds(
    HostConnection, address=addresses, service=services, host_address=addresses, host_service=services
)
frames = st.builds(
    Frame,
    node=nodes,
    boot=numbers,
    sequence=numbers,
    path=path_names,
    piece=st.binary(max_size=600),
    edition=numbers,
    kind=st.sampled_from(Kind),
    hears=u64,
    heard=st.dictionaries(path_names, u64, max_size=8),
    greets=st.lists(st.tuples(u64, u64), max_size=4).map(tuple),
)


@given(says)
def test_what_a_node_says_is_read_back(said: Says) -> None:
    assert unpack_says(pack_says(said)) == said


@given(st.frozensets(connections, max_size=20))
def test_connections_are_read_back(found: frozenset[HostConnection]) -> None:
    assert unpack_connections(pack_connections(found)) == tuple(sorted(found))


@given(frames)
def test_frames_are_read_back(frame: Frame) -> None:
    assert CODEC.decode(CODEC.encode(frame)) == frame


@given(frames, st.data())
def test_any_changed_byte_is_refused(frame: Frame, data: st.DataObject) -> None:
    datagram = bytearray(CODEC.encode(frame))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= data.draw(st.integers(1, 255))
    assert isinstance(CODEC.decode(bytes(datagram)), Refusal)


@given(frames, st.data())
def test_cut_off_or_longer_is_refused(frame: Frame, data: st.DataObject) -> None:
    datagram = CODEC.encode(frame)
    assert isinstance(CODEC.decode(datagram[: data.draw(st.integers(0, len(datagram) - 1))]), Refusal)
    assert isinstance(CODEC.decode(datagram + data.draw(st.binary(min_size=1))), Refusal)


@given(st.binary(max_size=2 * MAX_DATAGRAM))
@example(b"WS7H" + bytes(200))
def test_garbage_is_refused(datagram: bytes) -> None:
    hearing = Hearing(CODEC, "a", 1, PATHS, 100)
    assert hearing.feed(datagram, "left", 5) is not None
    assert hearing.peer(5) == Peer(paths=dict.fromkeys(PATHS, (False, False)))


@given(frames, st.lists(st.tuples(st.integers(0, MAX_DATAGRAM), st.binary(max_size=9)), max_size=4), st.booleans())
def test_whatever_a_faulty_peer_signs_is_accepted_or_refused(
    frame: Frame, changes: list[tuple[int, bytes]], cut: bool
) -> None:
    """It has the secret, so that what is behind the tag is reached."""
    body = bytearray(CODEC.encode(frame)[:-16])
    for at, raw in changes:
        body[at : at + (0 if cut else len(raw))] = raw
    signed = bytes(body) + CODEC._tag(bytes(body))
    hearing = Hearing(CODEC, "a", 1, PATHS, 100)
    before = hearing.peer(5)
    if hearing.feed(signed, "left", 5) is not None:
        assert hearing.peer(5) == before
    assert hearing.speak(Says(node="a"), 6)


@given(st.binary(max_size=300) | says.map(pack_says))
def test_what_is_unpacked_is_refused_or_read(raw: bytes) -> None:
    for unpack in (unpack_says, unpack_connections):
        try:
            unpack(raw)
        except ValueError:
            continue


class Network(RuleBasedStateMachine):
    """Two agents; ``kept`` are datagrams that were sent and may be delivered at any later moment, any number of
    times."""

    kept: Bundle[tuple[NodeName, str, bytes, int, int]] = Bundle("kept")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.boots = 0
        self.said = 0
        self.life: dict[NodeName, int] = {}
        self.started_at: dict[NodeName, int] = {}
        self.agents: dict[NodeName, Hearing] = {}
        self.before: dict[NodeName, tuple[Peer, int]] = {}
        for node in NODES:
            self._start(node)

    def _start(self, node: NodeName) -> None:
        self.boots += 1
        self.life[node] = self.boots
        self.started_at[node] = self.now
        self.agents[node] = Hearing(CODEC, node, self.boots, PATHS, 50)
        self.before[node] = (self.agents[node].peer(self.now), 0)

    @rule(node=nodes)
    def restart(self, node: NodeName) -> None:
        self._start(node)

    @rule(ms=st.integers(1, 100))
    def wait(self, ms: int) -> None:
        self.now += ms

    def _speak(self, node: NodeName, large: bool) -> list[tuple[NodeName, str, bytes, int, int]]:
        self.said += 1
        some = {GroupId(f"{number * 7919:x}", 1): number for number in range(400 if large else 0)}
        sent = self.agents[node].speak(Says(node=node, built=self.said, key=self.life[node], releases=some), self.now)
        assert all(len(datagram) <= MAX_DATAGRAM for _, datagram in sent)
        assert (len(sent) > len(PATHS)) == large
        return [(node, path, datagram, self.life[node], self.now) for path, datagram in sent]

    @rule(target=kept, node=nodes, large=st.booleans())
    def speak(self, node: NodeName, large: bool) -> object:
        return multiple(*self._speak(node, large))

    @rule(target=kept, node=nodes)
    def all_goes_well(self, node: NodeName) -> object:
        """A heartbeat each way that is delivered at once, and may be again."""
        self.now += 10
        sent = [each for speaker in (node, other(node)) for each in self._speak(speaker, large=False)]
        for each in sent:
            self._deliver(each)
        return multiple(*sent)

    @rule(sent=kept)
    def deliver(self, sent: tuple[NodeName, str, bytes, int, int]) -> None:
        self._deliver(sent)

    @rule(sent=consumes(kept))
    def deliver_for_the_last_time(self, sent: tuple[NodeName, str, bytes, int, int]) -> None:
        self._deliver(sent)

    @rule(sent=consumes(kept))
    def lose(self, sent: tuple[NodeName, str, bytes, int, int]) -> None:
        pass

    @rule(sent=kept, node=nodes, path=st.sampled_from(PATHS), at=st.integers(0, 10_000), flip=st.integers(1, 255))
    def damage(
        self, sent: tuple[NodeName, str, bytes, int, int], node: NodeName, path: str, at: int, flip: int
    ) -> None:
        datagram = bytearray(sent[2])
        datagram[at % len(datagram)] ^= flip
        before = self.agents[node].peer(self.now)
        assert self.agents[node].feed(bytes(datagram), path, self.now) is not None
        assert self.agents[node].peer(self.now) == before

    def _deliver(self, sent: tuple[NodeName, str, bytes, int, int]) -> None:
        sender, path, datagram, life, _ = sent
        hearing = self.agents[other(sender)]
        before = hearing.peer(self.now)
        refused = hearing.feed(datagram, path, self.now)
        if refused:
            assert hearing.peer(self.now) == before
        else:
            # A life that was replaced is never believed again, whatever of it is still under way.
            assert life >= self.before[other(sender)][1]
            self.before[other(sender)] = (self.before[other(sender)][0], life)
        assert hearing.feed(datagram, path, self.now) is not None
        # What we sent ourselves is never taken for the peer's.
        assert self.agents[sender].feed(datagram, path, self.now) is Refusal.NODE

    @invariant()
    def nothing_goes_backwards(self) -> None:
        for node in NODES:
            peer, (old, life) = self.agents[node].peer(self.now), self.before[node]
            assert (peer.heard_at or 0) >= (old.heard_at or 0)
            assert (peer.acked_at or 0) >= (old.acked_at or 0)
            if old.says and peer.says:
                assert peer.says.built >= old.says.built
            assert (peer.heard_at is None) == (life == 0)
            self.before[node] = (peer, life)

    @invariant()
    def an_acknowledged_lease_ends_before_the_peer_acts(self) -> None:
        """The peer counts from its start, or from the newest heartbeat: never from before what it acknowledged."""
        for node in NODES:
            acked_at = self.agents[node].peer(self.now).acked_at
            heard_at = self.agents[other(node)].peer(self.now).heard_at
            assert (acked_at or 0) <= max(heard_at or 0, self.started_at[other(node)])


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)


@given(st.integers(1, 10), st.integers(0, 2))
def test_two_agents_come_to_hear_each_other_whoever_starts_again(restarts: int, lost: int) -> None:
    agents: dict[NodeName, Hearing] = {"a": Hearing(CODEC, "a", 1, PATHS, 50), "b": Hearing(CODEC, "b", 2, PATHS, 50)}
    now = 0
    for restart in range(restarts):
        node = NODES[restart % 2]
        agents[node] = Hearing(CODEC, node, 3 + restart, PATHS, 50)
        for _ in range(lost + 4):
            now += 10
            for each in NODES:
                for path, datagram in agents[each].speak(Says(node=each, built=restart), now):
                    agents[other(each)].feed(datagram, path, now)
        for each in NODES:
            peer = agents[each].peer(now)
            assert peer.says == Says(node=other(each), built=restart)
            assert peer.heard_at == now
            assert peer.acked_at is not None
            assert peer.acked_at >= now - 10
            assert peer.paths == dict.fromkeys(PATHS, (True, True))
