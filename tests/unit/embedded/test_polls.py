"""What happens at which poll of the RPC socket: values in, values out, no clock."""

from __future__ import annotations

from dataplane.embedded.rpc.polls import Polls, Turn


def polls(*peers: str, read_bytes: int = 100) -> Polls[str]:
    made: Polls[str] = Polls(read_bytes)
    for peer in peers:
        made.connected(peer)
    return made


def accepted(*peers: str, read_bytes: int = 100) -> Polls[str]:
    made = polls(*peers, read_bytes=read_bytes)
    for _ in peers:
        made.poll()
    return made


def idle(peer: str) -> Turn[str]:
    return Turn(peer, b"", b"", ended=False)


def test_a_request_is_read_at_the_next_poll_and_its_answer_leaves_at_the_one_after_it() -> None:
    served = accepted("a")
    served.received("a", b"request")
    assert served.poll() == [Turn("a", b"", b"request", ended=False)]
    served.answered("a", b"answer")
    assert served.poll() == [Turn("a", b"answer", b"", ended=False)]
    assert served.poll() == [idle("a")]


def test_an_answer_that_was_not_ready_leaves_at_the_first_poll_after_it_was() -> None:
    served = accepted("a")
    served.received("a", b"slow")
    served.poll()
    assert [served.poll(), served.poll()] == [[idle("a")], [idle("a")]]
    served.answered("a", b"late")
    assert served.unsent_bytes("a") == 4
    assert served.poll() == [Turn("a", b"late", b"", ended=False)]


def test_what_is_ready_goes_out_before_what_has_come_is_read() -> None:
    """One turn has both: the listener sends first."""
    served = accepted("a")
    served.received("a", b"first")
    served.poll()
    served.answered("a", b"answer to first")
    served.received("a", b"second")
    assert served.poll() == [Turn("a", b"answer to first", b"second", ended=False)]


def test_one_connection_is_accepted_at_a_poll_and_read_at_once() -> None:
    served = polls("a", "b")
    served.received("a", b"of a")
    served.received("b", b"of b")
    assert served.poll() == [Turn("a", b"", b"of a", ended=False)]
    served.answered("a", b"to a")
    assert served.poll() == [Turn("a", b"to a", b"", ended=False), Turn("b", b"", b"of b", ended=False)]


def test_requests_of_one_poll_are_begun_together_and_answered_together() -> None:
    served = accepted("a")
    served.received("a", b"1")
    served.received("a", b"2")
    assert served.poll()[0].read == b"12"
    served.answered("a", b"A")
    served.answered("a", b"B")
    assert served.poll()[0].send == b"AB"


def test_no_more_than_a_buffer_is_read_at_a_poll() -> None:
    served = accepted("a", read_bytes=4)
    assert served.received("a", b"12") is True
    assert served.received("a", b"345") is False, "the peer is held back until the next poll"
    served.ended("a")
    assert served.poll() == [Turn("a", b"", b"1234", ended=False)]
    assert served.poll() == [Turn("a", b"", b"5", ended=True)], "the end comes after everything before it"


def test_what_waits_for_a_connection_that_is_gone_is_dropped() -> None:
    served = accepted("a", "b")
    served.connected("c")
    served.answered("a", b"answer")
    served.gone("a")
    served.gone("c")
    served.gone("c")
    assert served.unsent_bytes("a") == 0
    assert served.poll() == [idle("b")]
