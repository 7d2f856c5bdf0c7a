"""The times of the HA manager as people read them, and a set of their own held against the rules.

Pure: a mapping in, a ``Policy`` or a refusal out.  The rules are ``ha.policy.RULES`` and nowhere else.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

from controlplane.domain.errors import UsageError
from ha import policy as policies
from ha.policy import FAST, POLICIES, RULES, Policy

_FIELDS: Final = {field.name: field for field in dataclasses.fields(Policy)}
_MEANING: Final = re.compile(r'^    (\w+): (?:int|bool)\n    """(.*?)"""', re.MULTILINE | re.DOTALL)


def meanings() -> dict[str, str]:
    """What each time is, in the words of ``Policy``."""
    return {name: " ".join(text.split()) for name, text in _MEANING.findall(inspect.getsource(Policy))}


def policy_of(body: object, name: str) -> Policy:
    """The policy that ``body`` describes: every key of ``Policy``, or ``like: fast`` and what differs.

    Raises ``UsageError`` HA-064 for what is no policy, and ``Refused`` HA-001 for one that breaks a rule."""
    if not isinstance(body, Mapping) or not body:
        raise no_policy(name, "it holds no keys")
    given: dict[str, Any] = {str(key): value for key, value in body.items()}
    like = given.pop("like", None)
    base = FAST if like is None else POLICIES.get(str(like))
    if base is None:
        raise no_policy(name, f"there is no policy {like!r} to be like; there are {', '.join(POLICIES)}")
    for key, value in given.items():
        if key not in _FIELDS or key == "name":
            raise no_policy(name, f"there is no time {key!r}; there are {', '.join(_times())}")
        wanted = bool if key == "failback" else int
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise no_policy(name, f"{key} is {value!r}, and must be {'true or false' if wanted is bool else 'whole'}")
        if wanted is int and value < 0:
            raise no_policy(name, f"{key} is below 0")
    missing = [key for key in _times() if key not in given]
    if like is None and missing:
        raise no_policy(name, f"it lacks {', '.join(missing)}; 'like: fast' takes what is missing from there")
    return dataclasses.replace(base, name=name, **given).checked()


def _times() -> list[str]:
    return [key for key in _FIELDS if key != "name"]


def no_policy(name: str, why: str) -> UsageError:
    """HA-064."""
    return UsageError(
        "HA-064",
        f"{name} is no policy",
        why=why,
        remedy="write a mapping such as {like: fast, lease_ms: 400}; ws7000 ha policy shows all times",
    )


def body(policy: Policy) -> dict[str, Any]:
    """The policy for programs: the times, what follows from them, and each rule with its numbers."""
    return {
        **dataclasses.asdict(policy),
        "lease_lasts_ms": policy.lease_lasts_ms,
        "takeover_wait_ms": policy.takeover_wait_ms,
        "kill_to_silence_ms": policies.KILL_TO_SILENCE_MS,
        "anatt_ms": policies.ANATT_MS,
        "rules": [
            {
                "why": rule.why,
                "shown": rule.shown,
                "left_ms": rule.left(policy),
                "right_ms": rule.right(policy),
                "holds": rule.holds(policy),
            }
            for rule in RULES
        ],
    }


def lines(policy: Policy) -> list[str]:
    """The policy for people."""
    said = meanings()
    width = max(map(len, _times())) + 1
    told = [f"policy {policy.name}"]
    told += [f"  {key + ':':<{width}}  {getattr(policy, key)!s:>7}  {said[key]}" for key in _times()]
    told += [
        "what follows from them",
        f"  a node serves for {policy.lease_lasts_ms} ms after its last sign of life, by its own clock",
        f"  its peer acts {policy.takeover_wait_ms} ms after that sign, by the peer's own clock",
        "rules, each of which holds",
    ]
    told += [f"  {rule.why}: {rule.text(policy)}" for rule in RULES]
    return told
