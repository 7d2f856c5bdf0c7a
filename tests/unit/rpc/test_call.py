"""Calls as values, and what may be seen of them."""

from __future__ import annotations

from dataplane.rpc.call import Call
from dataplane.rpc.redact import redact, scrub, secrets_of


def test_a_call_keeps_a_copy_without_none() -> None:
    inner = {"a": 1, "b": None}
    params = {"x": inner, "y": None, "z": (1, 2)}
    call = Call("m", params)
    inner["a"] = 2
    params["new"] = 1
    assert call.params == {"x": {"a": 1}, "z": [1, 2]}


def test_calls_are_equal_when_they_would_send_the_same() -> None:
    assert Call("m", {"a": 1}, parse=str) == Call("m", {"a": 1, "b": None}, parse=int)
    assert Call("m", {"a": 1}) != Call("m", {"a": 2})


def test_a_call_shows_no_secret() -> None:
    call = Call(
        "m",
        {
            "name": "k1",
            "psk": "S1",
            "key": "S2",
            "key2": "S3",
            "dhchap_key": "S4",
            "dhchap_ctrlr_key": "S5",
            "password": "S6",
            "deep": [{"secret": "S7", "key_name": "shown"}],
            "text": "DHHC-1:00:UzhT: end",
        },
    )
    shown = repr(call)
    assert not any(secret in shown for secret in ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "UzhT"))
    assert "name='k1'" in shown
    assert "'key_name': 'shown'" in shown


def test_redacting_leaves_the_original_alone() -> None:
    params = {"psk": "S1", "list": [{"key": "S2"}], "none": {"psk": None}}
    assert redact(params) == {"psk": "***", "list": [{"key": "***"}], "none": {"psk": None}}
    assert params["psk"] == "S1"
    assert secrets_of(params) == {"S1", "S2"}
    assert scrub("S1 and S2 and NVMeTLSkey-1:01:abc=: end", params) == "*** and *** and *** end"
    assert secrets_of({"psk": ["a", {"x": "b"}, 1]}) == {"a", "b"}
