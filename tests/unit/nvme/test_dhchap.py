"""DH-HMAC-CHAP against exchanges recorded with SPDK, and against what every exchange has in common."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataplane.nvme.auth import Challenge, Negotiate, Reply, Success1
from dataplane.nvme.dhchap import BadSecret, Digest, Question, Secret
from dataplane.nvme.ffdhe import GENERATOR, BadPublicValue, DhGroup, DhKey, power, prime

RECORDED = json.loads((Path(__file__).parent / "dhchap-exchanges.json").read_text())
HOST, NQN = RECORDED["hostnqn"], RECORDED["subnqn"]
MINE, THEIRS = Secret.parse(RECORDED["secret"]), Secret.parse(RECORDED["controller_secret"])
GROUPS = [group for group in DhGroup if group is not DhGroup.NULL]
KEY = bytes(range(32))


@pytest.mark.parametrize("exchange", RECORDED["exchanges"], ids=lambda one: one["name"])
def test_an_exchange_with_spdk_is_calculated_again(exchange: dict[str, Any]) -> None:
    """SPDK calculated the host's response where it was the host, the controller's where it was the target."""
    raw = [bytes.fromhex(message) for _, message in exchange["messages"]]
    offer, challenge, success = Negotiate.parse(raw[0]), Challenge.parse(raw[1]), Success1.parse(raw[3])
    digest = next(item for item in Digest if item.label == exchange["digest"])
    group = next(item for item in DhGroup if item.label == exchange["group"])
    reply = Reply.parse(raw[2], digest.size)
    assert (offer.dhchap.digests, offer.dhchap.groups) == ((digest,), (group,))
    assert (challenge.digest, challenge.group) == (digest, group)
    shared = b""
    if group is not DhGroup.NULL:
        ours = DhKey.make(group, bytes.fromhex(exchange["exponent"]))
        theirs = {ours.public: reply.public, reply.public: challenge.public}
        assert ours.public in (challenge.public, reply.public)
        shared = ours.share(theirs[ours.public])
    asked = Question(digest, challenge.tid, challenge.seqnum, challenge.challenge, shared)
    assert asked.host_answer(MINE, HOST, NQN) == reply.response
    back = Question(digest, challenge.tid, reply.seqnum, reply.challenge, shared)
    assert back.controller_answer(THEIRS, HOST, NQN) == success.response
    assert [message.pack() for message in (offer, challenge, reply, success)] == raw[:4]


def test_a_response_depends_on_everything_in_it() -> None:
    question = Question(Digest.SHA256, 1, 2, b"c" * 32, b"s" * 256)
    secret = Secret(KEY, Digest.SHA256)
    answers = [
        question.host_answer(secret, HOST, NQN),
        question.controller_answer(secret, HOST, NQN),
        question.host_answer(secret, NQN, HOST),
        question.host_answer(Secret(KEY), HOST, NQN),
        question.host_answer(Secret(KEY, Digest.SHA384), HOST, NQN),
        *(
            replace(question, **change).host_answer(secret, HOST, NQN)
            for change in (
                {"digest": Digest.SHA384}, {"tid": 2}, {"seqnum": 3}, {"challenge": b"d" * 32}, {"shared": b""},
                {"shared": b"t" * 256},
            )
        ),
    ]  # fmt: skip
    assert len(set(answers)) == len(answers)


@pytest.mark.parametrize("transform", [None, *Digest])
@pytest.mark.parametrize("size", [32, 48, 64])
def test_a_secret_is_read_as_it_is_written(size: int, transform: Digest | None) -> None:
    secret = Secret(bytes(range(size)), transform)
    text = secret.text()
    assert text.startswith(f"DHHC-1:0{transform or 0}:")
    assert Secret.parse(text) == Secret.parse(text.encode() + b"\n") == secret


def test_nvme_clis_secret_is_read() -> None:
    """One from the manual of ``nvme gen-dhchap-key``."""
    text = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:"
    assert Secret.parse(text).text() == text


@pytest.mark.parametrize(
    "text",
    [
        "", "DHHC-1:00:", "DHHC-1:0:AAAA:", "DHHC-2:00:AAAA:", "dhhc-1:00:AAAA:", "DHHC-1:00:AAAA", "DHHC-1:00::",
        "DHHC-1:00:AAA:", "DHHC-1:00:A\0AA:", " " + Secret(KEY).text(), Secret(KEY).text()[:-1],
        Secret(KEY).text().replace("DHHC-1:00", "DHHC-1:04"), Secret(KEY).text().replace("DHHC-1:00", "DHHC-1:0g"),
        Secret(KEY[:31]).text(), Secret(KEY + b"x").text(), Secret(b"").text(),
        Secret(KEY).text().replace("AAEC", "AAED"),
        "NVMeTLSkey-1:01:VGhpcyBpcyBhIHNlY3JldA==:",
    ],
)  # fmt: skip
def test_what_is_no_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(BadSecret) as caught:
        Secret.parse(text)
    assert not any(len(part) > 3 and part in str(caught.value) for part in text.split(":")[2:])


def test_nothing_of_a_key_is_shown() -> None:
    secret = Secret(b"hidden" * 8)
    key = DhKey.make(DhGroup.FFDHE2048, bytes(31) + b"\7")
    shown = repr([secret, key, Question(Digest.SHA256, 1, 1, b"c" * 32, b"shared-value")])
    assert "hidden" not in shown
    assert "shared-value" not in shown
    assert str(key.private) not in shown


def _is_prime(number: int) -> bool:
    """Fermat's test with a few bases: enough to notice a wrong constant."""
    return all(pow(base, number - 1, number) == 1 for base in (3, 5))


@pytest.mark.parametrize("group", [DhGroup.FFDHE2048, DhGroup.FFDHE3072])
def test_the_groups_are_those_of_rfc_7919(group: DhGroup) -> None:
    """A safe prime with 64 ones at both ends, and 2 generates the large subgroup; a slip in X would not be prime."""
    modulus = prime(group)
    assert modulus.bit_length() == 8 * group.size
    assert modulus >> (8 * group.size - 64) == modulus & (1 << 64) - 1 == (1 << 64) - 1
    assert _is_prime(modulus)
    assert _is_prime(modulus // 2)
    assert pow(GENERATOR, modulus // 2, modulus) == 1


@pytest.mark.parametrize(
    ("group", "end"),
    [
        (DhGroup.FFDHE2048, 0x886B423861285C97), (DhGroup.FFDHE3072, 0x25E41D2B66C62E37),
        (DhGroup.FFDHE4096, 0xC68A007E5E655F6A), (DhGroup.FFDHE6144, 0xA40E329CD0E40E65),
        (DhGroup.FFDHE8192, 0xD68C8BB7C5C6424C),
    ],
)  # fmt: skip
def test_the_last_digits_of_appendix_a(group: DhGroup, end: int) -> None:
    assert prime(group) >> 64 & (1 << 64) - 1 == end
    assert prime(group) >> (8 * group.size - 128) & (1 << 64) - 1 == 0xADF85458A2BB4A9A


@pytest.mark.parametrize("group", GROUPS)
def test_both_sides_know_the_same(group: DhGroup) -> None:
    ours = DhKey.make(group, b"a" * group.exponent_size)
    theirs = DhKey.make(group, b"b" * group.exponent_size)
    assert ours.share(theirs.public) == theirs.share(ours.public)
    assert len(ours.public) == len(ours.share(theirs.public)) == group.size
    assert ours.public != theirs.public


def test_a_power_in_short_steps_is_a_power() -> None:
    modulus = prime(DhGroup.FFDHE2048)
    for exponent in (0, 1, 2, 15, 16, 17, 0xDEADBEEF, (1 << 256) - 1, 1 << 255):
        assert power(7, exponent, modulus) == pow(7, exponent, modulus)


def test_public_values_outside_of_the_group_are_refused() -> None:
    key, modulus = DhKey.make(DhGroup.FFDHE2048, b"k" * 32), prime(DhGroup.FFDHE2048)
    for wrong in (0, 1, modulus - 1, modulus, modulus + 2, modulus - 2, modulus - 4):
        with pytest.raises(BadPublicValue):
            key.share(wrong.to_bytes(257))
    for right in (2, 4, pow(2, 99, modulus)):
        assert int.from_bytes(key.share(right.to_bytes(256))) == pow(right, key.private, modulus)
    with pytest.raises(BadPublicValue):
        key.share(b"")


def test_an_exponent_has_its_length() -> None:
    with pytest.raises(ValueError, match="no private exponent"):
        DhKey.make(DhGroup.FFDHE2048, bytes(31))
    with pytest.raises(ValueError, match="no private exponent"):
        DhKey.make(DhGroup.NULL, b"")
    assert DhKey.make(DhGroup.FFDHE2048, bytes(32)).private == 1 << 255
