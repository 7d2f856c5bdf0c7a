"""Authentication commands and messages: offsets of the specification, and what hostile bytes lead to."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.nvme import auth
from dataplane.nvme.auth import (
    BadMessage,
    Challenge,
    Failure,
    Header,
    Kind,
    Negotiate,
    Protocol,
    Reason,
    Reply,
    Success1,
    Success2,
)

OFFER = Protocol((1, 2), (0, 5))
MESSAGES: list[Any] = [
    Negotiate(0x1234, (OFFER,)),
    Negotiate(0x1234, (Protocol((9,), (), 7), OFFER)),
    Challenge(0x1234, 3, 1, 0x01020304, b"c" * 64, b"p" * 256),
    Reply(0x1234, b"r" * 48, b"c" * 48, 7, b"p" * 256),
    Reply(0x1234, b"r" * 48),
    Success1(0x1234, 32, b"r" * 32),
    Success1(0x1234, 32),
    Success2(0x1234),
    Failure(Kind.FAILURE1, 0x1234, Reason.FAILED),
    Failure(Kind.FAILURE2, 0x1234, 200),
]


def parse(message: Any, raw: bytes) -> Any:
    return Reply.parse(raw, 48) if isinstance(message, Reply) else type(message).parse(raw)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    raw = message.pack()
    assert parse(message, raw) == message
    assert Header.parse(raw).tid == 0x1234
    for wrong in (raw[:-1], raw + b"\0", raw[:5], b""):
        with pytest.raises(BadMessage) as caught:
            parse(message, wrong)
        assert caught.value.reason is Reason.INCORRECT_PAYLOAD


def test_fields_lie_where_the_other_side_looks() -> None:
    raw = Negotiate(0x1234, (OFFER,)).pack()
    assert (len(raw), raw[:8], raw[8:14], raw[42:44]) == (72, b"\0\0\0\0\x34\x12\0\1", b"\1\0\2\2\1\2", b"\0\5")
    raw = Challenge(0x1234, 3, 1, 0x01020304, b"c" * 64, b"p" * 256).pack()
    assert raw[:16] == b"\1\1\0\0\x34\x12\x40\0\3\1\0\1\4\3\2\1"
    assert raw[16:] == b"c" * 64 + b"p" * 256
    raw = Reply(0x1234, b"r" * 32, b"c" * 32, 0x01020304, b"p" * 4).pack()
    assert raw[:16] == b"\1\2\0\0\x34\x12\x20\0\1\0\4\0\4\3\2\1"
    assert raw[16:] == b"r" * 32 + b"c" * 32 + b"p" * 4
    raw = Reply(0x1234, b"r" * 32).pack()
    assert raw == b"\1\2\0\0\x34\x12\x20\0\0\0\0\0\0\0\0\0" + b"r" * 32 + bytes(32)
    assert Success1(0x1234, 48).pack() == b"\1\3\0\0\x34\x12\x30\0\0\0\0\0\0\0\0\0"
    assert Success1(0x1234, 48, b"r" * 48).pack()[8:17] == b"\1\0\0\0\0\0\0\0r"
    assert Success2(0x1234).pack() == b"\1\4\0\0\x34\x12" + bytes(10)
    assert Failure(Kind.FAILURE1, 0x1234, Reason.HASH_UNUSABLE).pack() == b"\0\xf1\0\0\x34\x12\1\4"


def test_the_commands_and_their_fields() -> None:
    send, receive = auth.auth_send(72), auth.auth_receive()
    assert send.pack()[4] == 5
    assert receive.pack()[4] == 6
    assert send.pack()[40:48] == b"\0\1\1\xe9\x48\0\0\0"
    assert receive.pack()[40:48] == b"\0\1\1\xe9\0\x10\0\0"
    for command in (send, receive):
        assert auth.is_auth(command)
        assert auth.is_well_formed(command)
        for wrong in (
            command._replace(cdw10=command.cdw10 ^ 1 << 8), command._replace(cdw10=command.cdw10 ^ 1 << 16),
            command._replace(cdw10=command.cdw10 ^ 1 << 31), command._replace(cdw11=command.length - 1),
        ):  # fmt: skip
            assert not auth.is_well_formed(wrong)
    assert not auth.is_auth(send._replace(nsid=1))
    assert not auth.is_auth(send._replace(opcode=5))


def test_a_host_receives_into_a_larger_buffer() -> None:
    for message in (MESSAGES[2], MESSAGES[5], MESSAGES[6], MESSAGES[8]):
        raw = message.pack().ljust(auth.RECEIVE_SIZE, b"\0")
        assert type(message).parse(raw, padded=True) == message
        with pytest.raises(BadMessage):
            type(message).parse(raw)


@pytest.mark.parametrize("read", [Header.parse, Negotiate.parse, Challenge.parse, Success1.parse, Success2.parse,
                                  Failure.parse, lambda raw: Reply.parse(raw, 32),
                                  lambda raw: Challenge.parse(raw, padded=True),
                                  lambda raw: Success1.parse(raw, padded=True)])  # fmt: skip
@given(raw=st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(read: Any, raw: bytes) -> None:
    with suppress(BadMessage):
        assert read(raw) is not None


def test_the_reason_for_people() -> None:
    assert Failure(Kind.FAILURE1, 0, Reason.HASH_UNUSABLE).words == "hash unusable"
    assert Failure(Kind.FAILURE1, 0, 99).words == "reason 99"
