"""Each reason to refuse a heartbeat, what is counted, and words of a newer version."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest

from controlplane.domain.codes import PAGES
from ha.heartbeat import CODES, MAX_DATAGRAM, Codec, Frame, Hearing, Refusal
from ha.model import FORMAT_VERSION, NodeName, Phase, Says, other
from ha.says import MAX_BYTES, HostConnection, pack_says, unpack_says

SECRET = bytes(range(32))
PATHS = ("left", "right")
CODEC = Codec("array", SECRET)
SAYS = Says(node="b", phase=Phase.MEMBER, key=7, built=3)


def hearing(node: NodeName = "a", boot: int = 11) -> Hearing:
    return Hearing(CODEC, node, boot, PATHS, 100)


def pair() -> tuple[Hearing, Hearing]:
    """Two agents that believe in each other."""
    left, right = hearing("a", 11), hearing("b", 22)
    for _ in range(3):
        exchange(left, right, Says(node="a"), 1)
        exchange(right, left, SAYS, 1)
    assert left.peer(1).says == SAYS
    left.refusals.clear()
    return left, right


def exchange(sender: Hearing, receiver: Hearing, says: Says, now: int) -> None:
    for path, datagram in sender.speak(says, now):
        receiver.feed(datagram, path, now)


def frame(**changes: object) -> Frame:
    """What the peer ``b`` of ``hearing()`` would send next, and would be believed."""
    plain = Frame(node="b", boot=22, sequence=1000, path="left", piece=pack_says(SAYS), edition=1000, greets=((11, 1),))
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "datagram"),
    [
        (Refusal.SIZE, b""),
        (Refusal.SIZE, b"WS7H" + bytes(MAX_DATAGRAM)),
        (Refusal.FORMAT, bytes(200)),
        (Refusal.FORGED, b"WS7H" + bytes(200)),
        (Refusal.FORGED, Codec("array", bytes(32)).encode(frame())),
        (Refusal.FORGED, Codec("other", SECRET).encode(frame())),
        (Refusal.VERSION, CODEC.encode(frame(version=FORMAT_VERSION + 1))),
        (Refusal.VERSION, CODEC.encode(frame(version=0))),
        (Refusal.CONTENT, CODEC.encode(frame(piece=b"nothing"))),
        (Refusal.CONTENT, CODEC.encode(frame(piece=pack_says(replace(SAYS, node="a"))))),
        (Refusal.CONTENT, CODEC.encode(frame(boot=0))),
        (Refusal.CONTENT, CODEC.encode(frame(part=2, parts=2))),
        (Refusal.CONTENT, CODEC.encode(frame(greets=((11, 10**9),)))),
        (Refusal.NODE, CODEC.encode(frame(node="a"))),
        (Refusal.NODE, CODEC.encode(frame(boot=11))),
        (Refusal.PATH, CODEC.encode(frame(path="right"))),
        (Refusal.PATH, CODEC.encode(frame(path="third"))),
        (Refusal.UNPROVEN, CODEC.encode(frame(boot=33, greets=()))),
        (Refusal.UNPROVEN, CODEC.encode(frame(boot=33, greets=((12, 5),)))),
        (Refusal.REPLAYED, CODEC.encode(frame(sequence=1))),
    ],
)
def test_refused_counted_and_nothing_changed(reason: Refusal, datagram: bytes) -> None:
    left, _ = pair()
    before = left.peer(5)
    assert left.feed(datagram, "left", 5) is reason
    assert left.peer(5) == before
    assert dict(left.refusals) == {reason: 1}


def test_the_frame_that_those_were_made_from_is_accepted() -> None:
    left, _ = pair()
    assert left.feed(CODEC.encode(frame()), "left", 5) is None
    assert left.peer(5).heard_at == 5
    assert not left.refusals


def test_two_arrays_whose_prefix_is_the_same_do_not_hear_each_other() -> None:
    left, _ = pair()
    stranger = Codec("array", SECRET)
    stranger._prefix ^= 1  # another array, that somehow has our key
    assert left.feed(stranger.encode(frame()), "left", 5) is Refusal.ARRAY


def test_every_refusal_has_a_code_with_a_page() -> None:
    assert set(CODES) == set(Refusal)
    assert set(CODES.values()) <= set(PAGES)


def test_a_replaced_life_stays_out_even_while_it_is_alive() -> None:
    left, old = pair()
    new = hearing("b", 23)
    for now in (2, 3, 4):
        exchange(left, new, Says(node="a"), now)
        exchange(new, left, replace(SAYS, key=8), now)
    heard = left.peer(4)
    assert heard.says == replace(SAYS, key=8)
    exchange(left, old, Says(node="a"), 5)
    for path, datagram in old.speak(SAYS, 5):
        assert left.feed(datagram, path, 5) is Refusal.RETIRED
    assert left.peer(4) == heard


def test_recordings_of_lives_long_gone_are_refused_without_remembering_each() -> None:
    left, old = pair()
    recorded = old.speak(SAYS, 2)
    for life in range(100):
        new = hearing("b", 100 + life)
        for now in (3, 4, 5):
            exchange(left, new, Says(node="a"), now)
            exchange(new, left, SAYS, now)
        assert left._life is not None
        assert left._life.boot == 100 + life
    before = left.peer(6)
    for path, datagram in recorded:
        assert left.feed(datagram, path, 6) is Refusal.UNPROVEN
    assert left.peer(6) == before


def test_an_acknowledgement_of_our_former_life_is_none() -> None:
    left, _ = pair()
    ours = left._sequence
    new = frame(boot=33, hears=12, heard={"left": ours}, greets=((11, ours),))
    acked_at = left.peer(5).acked_at
    left.speak(Says(node="a"), 50)
    assert left.feed(CODEC.encode(replace(new, heard={"left": ours + 1})), "left", 60) is None
    assert left.peer(60).acked_at == acked_at
    assert left.peer(60).paths["left"] == (False, True)


def test_the_newest_acknowledgement_of_any_path_counts() -> None:
    left, _ = pair()
    left.speak(Says(node="a"), 50)
    older, newer = left._sequence, left._sequence + 1
    left.speak(Says(node="a"), 70)
    heard = frame(hears=11, heard={"left": newer, "right": older}, greets=())
    assert left.feed(CODEC.encode(heard), "left", 80) is None
    assert left.peer(80).acked_at == 70


def test_a_piece_that_comes_late_does_not_bring_old_words_back() -> None:
    left, _ = pair()
    assert left.feed(CODEC.encode(frame()), "left", 5) is None
    old = frame(sequence=999, path="right", edition=999, piece=pack_says(replace(SAYS, built=1)))
    assert left.feed(CODEC.encode(old), "right", 6) is None
    again = frame(sequence=1001, piece=pack_says(replace(SAYS, built=1)))
    assert left.feed(CODEC.encode(again), "left", 7) is None
    assert left.peer(7).says == SAYS
    assert left.peer(7).heard_at == 7


def test_one_direction_of_one_path_fails_and_both_nodes_see_it() -> None:
    left, right = pair()
    for now in range(10, 300, 10):
        exchange(left, right, Says(node="a"), now)
        for path, datagram in right.speak(SAYS, now):
            if path == "left":
                left.feed(datagram, path, now)
    assert left.peer(290).paths == {"left": (True, True), "right": (True, False)}
    assert right.peer(290).paths == {"left": (True, True), "right": (False, True)}


def test_a_slower_path_stays_heard_and_moves_nothing_back() -> None:
    left, right = pair()
    late = dict(right.speak(SAYS, 10))["left"]
    exchange(right, left, replace(SAYS, built=4), 20)
    before = left.peer(30)
    assert left.feed(late, "left", 30) is Refusal.REPLAYED  # overtaken on its own path
    late = dict(right.speak(replace(SAYS, built=4), 40))["left"]
    assert left.feed(dict(right.speak(replace(SAYS, built=5), 50))["right"], "right", 50) is None
    assert left.feed(late, "left", 60) is None  # overtaken on another path
    after = left.peer(60)
    assert (before.heard_at, after.heard_at) == (20, 50)
    assert after.says == replace(SAYS, built=5)


def test_connections_travel_beside_the_heartbeats() -> None:
    left, right = pair()
    found = tuple(
        HostConnection(address="192.0.2.1", service=4420, host_address=f"198.51.100.{n % 250}", host_service=n)
        for n in range(1, 2000)
    )
    sent = right.tell(found, 7)
    assert len(sent) > len(PATHS)
    for path, datagram in reversed(sent):
        left.feed(datagram, path, 7)
    for path, datagram in right.tell(found, 8):
        left.feed(datagram, path, 8)
    assert left.connections == tuple(sorted(found))
    assert left.peer(8).heard_at == 8
    assert other("a") == "b"


def say(**body: object) -> bytes:
    return zlib.compress(json.dumps({"node": "b", "version": FORMAT_VERSION, **body}).encode())


def test_unknown_words_are_passed_over_only_when_they_are_of_a_newer_version() -> None:
    newer = say(version=FORMAT_VERSION + 1, mood="fine", built=4)
    assert unpack_says(newer) == Says(node="b", version=FORMAT_VERSION + 1, built=4)
    with pytest.raises(ValueError, match="mood"):
        unpack_says(say(mood="fine"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        say()[:-1],
        say() + b"x",
        zlib.compress(b"[]"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(bytes(MAX_BYTES + 1)),
        say(node="c"),
        say(phase="asleep"),
        say(key=-1),
        say(key=2**64),
        say(key=True),
        say(key=1.0),
        say(at=[1]),
        say(leader="x"),
        say(members={"c": 1}),
        say(members=[]),
        say(releases=[["s", 1]]),
        say(asks=[["s", "1"]]),
        say(rebuilt=[[1, []]]),
        say(failed="abc"),
        say(blind=0),
        say(silent="abc"),
        say(silent=[1]),
    ],
)
def test_words_that_nobody_says_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        unpack_says(raw)


def test_the_layout_is_of_the_lower_version() -> None:
    left, right = pair()
    assert left.speaks == FORMAT_VERSION
    exchange(right, left, replace(SAYS, version=FORMAT_VERSION + 3), 2)
    assert left.speaks == FORMAT_VERSION
